//! Rule files: YAML nodes to items, every key known or an error.

mod tests;
mod threshold;

use granit_parser::ScalarStyle;

use super::ast::Span;
use super::diagnostic::{Diagnostic, Source, did_you_mean};
use super::priority::Priority;
use super::testing::RuleTest;
use super::threshold::Threshold;
use super::yaml::{self, Kind, Node};

/// A text from a rule file that knows where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    node: Node,
    source: Source,
}

impl Text {
    /// The whole of a source, as a text that stands in no file.
    pub(crate) fn whole(source: &Source) -> Text {
        let text = source.inner().clone();
        let span = Span { start: 0, end: text.len() };
        let kind = Kind::Scalar { text, style: ScalarStyle::Plain };
        Text { node: Node { kind, span }, source: source.clone() }
    }

    /// The text, folding and escapes resolved.
    pub(crate) fn as_str(&self) -> &str {
        self.node.text().unwrap_or_default()
    }

    /// Whether it stands in YAML quotes.
    pub(crate) fn is_quoted(&self) -> bool {
        self.node.is_quoted()
    }

    /// The name of the file it stands in.
    pub(crate) fn source_name(&self) -> &str {
        self.source.name()
    }

    /// Something wrong with the whole text.
    pub(crate) fn wrong(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.source, self.node.span, message)
    }

    /// Something wrong with a part of it.
    pub(crate) fn wrong_at(&self, part: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.source, self.node.locate(self.source.inner(), part), message)
    }
}

/// An item of a rule file.
///
/// What is required and missing or wrong has been reported and is `None`: the rest of the item is checked all
/// the same, so that one run finds everything. Engine and plugin versions are checked for shape and not kept.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    List(ListItem),
    Macro(MacroItem),
    Rule(Box<RuleItem>),
}

/// `list`.
#[derive(Clone, Debug)]
pub(crate) struct ListItem {
    pub(crate) name: Text,
    pub(crate) items: Option<Vec<Text>>,
}

/// `macro`.
#[derive(Clone, Debug)]
pub(crate) struct MacroItem {
    pub(crate) name: Text,
    pub(crate) condition: Option<Text>,
}

/// `rule`.
#[derive(Clone, Debug)]
pub(crate) struct RuleItem {
    pub(crate) name: Text,
    pub(crate) id: Option<Text>,
    pub(crate) desc: Option<Text>,
    pub(crate) condition: Option<Text>,
    pub(crate) output: Option<Text>,
    pub(crate) priority: Option<Priority>,
    pub(crate) source: Option<Text>,
    pub(crate) maturity: Option<Text>,
    pub(crate) tags: Vec<Text>,
    pub(crate) attack: Vec<Text>,
    pub(crate) references: Vec<Text>,
    pub(crate) tests: Vec<RuleTest>,
    pub(crate) enabled: bool,
    pub(crate) warn_evttypes: bool,
    pub(crate) skip_if_unknown_filter: bool,
    pub(crate) threshold: Option<Threshold>,
}

pub(crate) const LIST_KEYS: &[&str] = &["list", "items"];
pub(crate) const MACRO_KEYS: &[&str] = &["macro", "condition"];
pub(crate) const RULE_KEYS: &[&str] = &[
    "rule",
    "id",
    "desc",
    "condition",
    "output",
    "priority",
    "source",
    "enabled",
    "tags",
    "attack",
    "maturity",
    "references",
    "tests",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "threshold",
];
/// Keys that Falco or a later Ringfence has. To ignore them would change what a rule means.
pub(crate) const LATER_KEYS: &[&str] = &["append", "override", "exceptions", "capture", "capture_duration"];

/// Reads the items of a file, in order; what is wrong is pushed to `diagnostics`.
pub(crate) fn read(source: &Source, diagnostics: &mut Vec<Diagnostic>) -> Vec<Item> {
    let documents = match yaml::parse(source.inner()) {
        Ok(documents) => documents,
        Err(error) => {
            let span = Span { start: error.offset, end: error.offset };
            diagnostics.push(Diagnostic::at(source, span, error.message));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for document in documents {
        match document.kind {
            Kind::Sequence(nodes) => {
                for node in nodes {
                    items.extend(ItemReader { source, diagnostics, entries: Vec::new() }.item(node));
                }
            }
            _ if document.is_null() => {}
            _ => {
                let message = format!("expected a sequence of items, found {}", document.kind_name());
                let help = "each item begins with `- rule:`, `- macro:` or `- list:`";
                diagnostics.push(Diagnostic::at(source, document.span, message).help(help));
            }
        }
    }
    items
}

/// Reads one item.
struct ItemReader<'r> {
    source: &'r Source,
    diagnostics: &'r mut Vec<Diagnostic>,
    /// What has not been taken yet.
    entries: Vec<(String, Node, Node)>,
}

impl ItemReader<'_> {
    fn wrong(&mut self, node: &Node, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::at(self.source, node.span, message));
    }

    fn item(mut self, node: Node) -> Option<Item> {
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong(&node, format!("expected an item, found {}", node.kind_name()));
            return None;
        };
        for (key, value) in entries {
            match key.text() {
                None => self.wrong(key, "a key must be a text"),
                Some(name) if self.entries.iter().any(|(known, ..)| known == name) => {
                    self.wrong(key, format!("the key `{name}` stands twice in this item"));
                }
                Some(name) => self.entries.push((name.to_owned(), key.clone(), value.clone())),
            }
        }
        let has = |key: &str| self.entries.iter().any(|(known, ..)| known == key);
        if has("rule") {
            self.keys(RULE_KEYS);
            self.rule(&node)
        } else if has("macro") {
            self.keys(MACRO_KEYS);
            let name = self.name("macro", &node);
            let condition = self.required("condition", &node);
            Some(Item::Macro(MacroItem { name: name?, condition }))
        } else if has("list") {
            self.keys(LIST_KEYS);
            let name = self.name("list", &node);
            let items = self.items(&node);
            Some(Item::List(ListItem { name: name?, items }))
        } else {
            self.other(&node);
            None
        }
    }

    /// An item that is neither rule nor macro nor list.
    fn other(&mut self, node: &Node) {
        if let Some(value) = self.take("required_engine_version") {
            self.keys(&[]);
            if value.text().is_none_or(|text| !text.starts_with(|c: char| c.is_ascii_digit())) {
                self.wrong(&value, "expected a version, such as 0.50.0");
            }
        } else if let Some(value) = self.take("required_plugin_versions") {
            self.keys(&[]);
            if !matches!(value.kind, Kind::Sequence(_)) {
                self.wrong(&value, "expected a sequence of plugins");
            }
        } else {
            let known = ["rule", "macro", "list", "required_engine_version", "required_plugin_versions"];
            let help = self.entries.iter().find_map(|(key, ..)| did_you_mean(key, known));
            let first = self.entries.first().map_or(node, |(_, key, _)| key).clone();
            let help = help.unwrap_or_else(|| "an item begins with `rule`, `macro` or `list`".to_owned());
            let message = "this item is neither a rule nor a macro nor a list";
            self.diagnostics.push(Diagnostic::at(self.source, first.span, message).help(help));
        }
    }

    /// Reports keys that are not known.
    fn keys(&mut self, known: &[&str]) {
        let mut found = Vec::new();
        for (key, node, _) in &self.entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            found.push(if LATER_KEYS.contains(&key.as_str()) {
                let message = format!("`{key}` is not supported by this version");
                Diagnostic::at(self.source, node.span, message)
            } else {
                let known = known.iter().chain(LATER_KEYS).copied();
                Diagnostic::at(self.source, node.span, format!("unknown key `{key}`"))
                    .maybe_help(did_you_mean(key, known))
            });
        }
        self.diagnostics.append(&mut found);
    }

    fn rule(&mut self, node: &Node) -> Option<Item> {
        let name = self.name("rule", node);
        let condition = self.required("condition", node);
        let output = self.required("output", node);
        let desc = self.required("desc", node);
        let priority = self.required("priority", node).and_then(|text| self.priority(&text));
        let (id, source, maturity) = (self.text("id"), self.text("source"), self.text("maturity"));
        let (tags, attack, references) = (self.texts("tags"), self.texts("attack"), self.texts("references"));
        let tests = self.take("tests");
        let tests = tests.map_or_else(Vec::new, |node| tests::read(self.source, &node, self.diagnostics));
        let enabled = self.flag("enabled", true);
        let warn_evttypes = self.flag("warn_evttypes", true);
        let skip_if_unknown_filter = self.flag("skip-if-unknown-filter", false);
        let threshold = self.take("threshold").and_then(|node| threshold::read(self, &node));
        Some(Item::Rule(Box::new(RuleItem {
            name: name?,
            id,
            desc,
            condition,
            output,
            priority,
            source,
            maturity,
            tags,
            attack,
            references,
            tests,
            enabled,
            warn_evttypes,
            skip_if_unknown_filter,
            threshold,
        })))
    }

    fn priority(&mut self, text: &Text) -> Option<Priority> {
        match text.as_str().parse() {
            Ok(priority) => Some(priority),
            Err(error) => {
                let words = Priority::ALL.iter().rev().map(|priority| priority.as_str().to_ascii_uppercase());
                let words: Vec<String> = words.collect();
                let upper = text.as_str().to_ascii_uppercase();
                let near = did_you_mean(&upper, words.iter().map(String::as_str));
                let help = near.unwrap_or_else(|| format!("the priorities are {}", words.join(", ")));
                self.diagnostics.push(text.wrong(format!("{error}")).help(help));
                None
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(known, ..)| known == key)?;
        Some(self.entries.remove(index).2)
    }

    /// A text that may be left out.
    fn text(&mut self, key: &str) -> Option<Text> {
        let node = self.take(key)?;
        self.as_text(key, node)
    }

    fn as_text(&mut self, key: &str, node: Node) -> Option<Text> {
        let wrong = match node.text() {
            None => format!("`{key}` must be a text, found {}", node.kind_name()),
            Some(text) if text.trim().is_empty() || node.is_null() => format!("`{key}` is empty"),
            Some(_) => return Some(Text { node, source: self.source.clone() }),
        };
        self.wrong(&node, wrong);
        None
    }

    /// A text that may not be left out.
    fn required(&mut self, key: &str, item: &Node) -> Option<Text> {
        match self.take(key) {
            Some(node) => self.as_text(key, node),
            None => {
                // The item's first word is enough to point at.
                let start = item.span.start;
                let at = Node { span: Span { start, end: start + 1 }, ..item.clone() };
                self.wrong(&at, format!("this item has no `{key}`"));
                None
            }
        }
    }

    /// The name of a rule, macro or list; those of macros and lists must be identifiers.
    fn name(&mut self, key: &str, item: &Node) -> Option<Text> {
        let name = self.required(key, item)?;
        let text = name.as_str();
        let identifier = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !matches!(text, "and" | "or" | "not");
        if key != "rule" && !identifier {
            let message = format!("`{text}` cannot be the name of a {key}");
            let help =
                "a name has letters, digits and `_`, begins with a letter, and is not `and`, `or`, `not`";
            self.diagnostics.push(name.wrong(message).help(help));
            return None;
        }
        Some(name)
    }

    fn items(&mut self, item: &Node) -> Option<Vec<Text>> {
        if self.entries.iter().any(|(key, ..)| key == "items") {
            return Some(self.texts("items"));
        }
        self.required("items", item).map(|_| Vec::new())
    }

    /// A sequence of texts; nothing if the key is left out.
    fn texts(&mut self, key: &str) -> Vec<Text> {
        let Some(node) = self.take(key) else { return Vec::new() };
        if node.is_null() {
            return Vec::new();
        }
        let Kind::Sequence(members) = node.kind else {
            self.wrong(&node, format!("`{key}` must be a sequence, found {}", node.kind_name()));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for member in members {
            if member.text().is_some() {
                texts.push(Text { node: member, source: self.source.clone() });
            } else {
                self.wrong(
                    &member,
                    format!("a member of `{key}` must be a text, found {}", member.kind_name()),
                );
            }
        }
        texts
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(node) = self.take(key) else { return default };
        match node.text() {
            Some("true" | "True" | "TRUE") => true,
            Some("false" | "False" | "FALSE") => false,
            _ => {
                self.wrong(&node, format!("`{key}` must be `true` or `false`"));
                default
            }
        }
    }
}
