//! What all items have in common: keys taken one by one, each value checked for its shape.

use super::text::{Place, Text};
use crate::rules::ast::Span;
use crate::rules::diagnostic::{Diagnostic, Source, did_you_mean};
use crate::rules::yaml::{Kind, Node};

/// No mapping of a rule file has more keys.
const MAX_KEYS: usize = 100;

/// Reads one mapping: an item, an exception, an `override`.
pub(crate) struct ItemReader<'r> {
    pub(super) source: &'r Source,
    pub(super) diagnostics: &'r mut Vec<Diagnostic>,
    /// Where the mapping begins.
    pub(super) start: Place,
    /// What has not been taken yet.
    pub(super) entries: Vec<(Node, Node)>,
}

impl<'r> ItemReader<'r> {
    /// A reader of this node's entries; nothing if it is no mapping, which is then reported as not being `what`.
    pub(super) fn open(
        source: &'r Source,
        diagnostics: &'r mut Vec<Diagnostic>,
        node: Node,
        what: &str,
    ) -> Option<Self> {
        let (span, kind) = (node.span, node.kind_name());
        let Kind::Mapping(pairs) = node.kind else {
            diagnostics.push(Diagnostic::at(source, span, format!("expected {what}, found {kind}")));
            return None;
        };
        // Its first letter is enough to point at.
        let start = Place::new(source, Span { start: span.start, end: span.start + 1 });
        if pairs.len() > MAX_KEYS {
            diagnostics.push(start.wrong(format!("more than {MAX_KEYS} keys")));
            return None;
        }
        let mut reader = ItemReader { source, diagnostics, start, entries: Vec::new() };
        for (key, value) in pairs {
            match key.text() {
                None => reader.wrong(&key, "a key must be a text"),
                Some(name) if reader.has(name) => {
                    let message = format!("the key `{name}` stands twice in this item");
                    reader.wrong(&key, message);
                }
                Some(_) => reader.entries.push((key, value)),
            }
        }
        Some(reader)
    }

    pub(super) fn wrong(&mut self, node: &Node, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::at(self.source, node.span, message));
    }

    pub(super) fn warn(&mut self, node: &Node, message: impl Into<String>, help: &str) {
        self.diagnostics.push(Diagnostic::at(self.source, node.span, message).help(help).warning());
    }

    /// Whether the key is there and has not been taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.text() == Some(key))
    }

    /// The node of a key that is still there.
    pub(super) fn key_node(&self, key: &str) -> Option<&Node> {
        self.entries.iter().map(|(node, _)| node).find(|node| node.text() == Some(key))
    }

    /// Reports keys that are not known.
    pub(super) fn keys(&mut self, known: &[&str]) {
        let mut found = Vec::new();
        for (node, _) in &self.entries {
            let key = node.text().unwrap_or_default();
            if !known.contains(&key) {
                let unknown = Diagnostic::at(self.source, node.span, format!("unknown key `{key}`"));
                found.push(unknown.maybe_help(did_you_mean(key, known.iter().copied())));
            }
        }
        self.diagnostics.append(&mut found);
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(known, _)| known.text() == Some(key))?;
        Some(self.entries.remove(index).1)
    }

    /// A text that may be left out.
    pub(super) fn text(&mut self, key: &str) -> Option<Text> {
        let node = self.take(key)?;
        self.as_text(key, node)
    }

    pub(super) fn as_text(&mut self, key: &str, node: Node) -> Option<Text> {
        let wrong = match node.text() {
            None => format!("`{key}` must be a text, found {}", node.kind_name()),
            Some(text) if text.trim().is_empty() || node.is_null() => format!("`{key}` is empty"),
            Some(_) => return Some(Text::new(node, self.source.clone())),
        };
        self.wrong(&node, wrong);
        None
    }

    /// A text that may not be left out.
    pub(super) fn required(&mut self, key: &str) -> Option<Text> {
        match self.take(key) {
            Some(node) => self.as_text(key, node),
            None => {
                let missing = self.start.wrong(format!("this item has no `{key}`"));
                self.diagnostics.push(missing);
                None
            }
        }
    }

    /// A sequence of texts; nothing if the key is left out.
    pub(super) fn texts(&mut self, key: &str) -> Vec<Text> {
        let Some(node) = self.take(key) else { return Vec::new() };
        if node.is_null() && key != "items" {
            return Vec::new();
        }
        let kind = node.kind_name();
        let span = node.span;
        let Kind::Sequence(members) = node.kind else {
            let message = format!("`{key}` must be a sequence, found {kind}");
            self.diagnostics.push(Diagnostic::at(self.source, span, message));
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(members.len());
        for member in members {
            if member.text().is_some() {
                texts.push(Text::new(member, self.source.clone()));
            } else {
                let message = format!("a member of `{key}` must be a text, found {}", member.kind_name());
                self.wrong(&member, message);
            }
        }
        texts
    }

    /// A sequence of texts, if the key is there.
    pub(super) fn some_texts(&mut self, key: &str) -> Option<Vec<Text>> {
        self.has(key).then(|| self.texts(key))
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.some_flag(key).unwrap_or(default)
    }

    /// A truth value, in the words of YAML 1.1, which Falco's reader takes.
    pub(super) fn some_flag(&mut self, key: &str) -> Option<bool> {
        let node = self.take(key)?;
        let word = node.text().unwrap_or_default();
        let cased = |small: &str| {
            let mut capital = small.to_owned();
            capital[..1].make_ascii_uppercase();
            word == small || word == capital || word == small.to_ascii_uppercase()
        };
        if ["true", "yes", "on", "y"].into_iter().any(cased) {
            return Some(true);
        }
        if ["false", "no", "off", "n"].into_iter().any(cased) {
            return Some(false);
        }
        self.wrong(&node, format!("`{key}` must be `true` or `false`"));
        None
    }
}
