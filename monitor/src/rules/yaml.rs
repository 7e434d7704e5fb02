//! YAML as a tree of nodes that know where they stand, bounded in depth and size.
//!
//! The rule loader walks this tree itself instead of deserialising, so that one run reports every unknown
//! key and every wrong value, each with its place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::ast::Span;

/// At most this many nodes has a file, aliases expanded: what an alias bomb runs into.
const MAX_NODES: usize = 30_000;

/// At most this many bytes have the texts of a file, aliases expanded.
const MAX_TEXT: usize = 2 << 20;

/// At most this many bytes has one text: no condition and no description is longer.
const MAX_SCALAR: usize = 256 << 10;

/// Sequences and mappings may nest this deep: rules need six.
const MAX_NESTING: usize = 32;

/// A file may name this many nodes by anchors.
const MAX_ANCHORS: usize = 1000;

/// A YAML node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where its text stands in the file.
    pub(crate) span: Span,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A text, escapes and folding resolved.
    Scalar { text: Arc<str>, style: ScalarStyle },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Vec<(Node, Node)>),
}

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    /// Where, in bytes.
    pub(crate) offset: usize,
    /// What is wrong.
    pub(crate) message: String,
}

impl Cost {
    /// Counts what is added against the bounds.
    fn spend(&mut self, cost: Cost, span: Span) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(cost.nodes);
        self.text = self.text.saturating_add(cost.text);
        if self.nodes > MAX_NODES {
            return Err(beyond(span, format!("more than {MAX_NODES} YAML nodes, aliases expanded")));
        }
        if self.text > MAX_TEXT {
            return Err(beyond(span, format!("more than {} MiB of text, aliases expanded", MAX_TEXT >> 20)));
        }
        Ok(())
    }
}

/// A collection that is still being read.
enum Open {
    Sequence { members: Vec<Node>, anchor: usize, start: usize },
    Mapping { entries: Vec<(Node, Node)>, key: Option<Node>, anchor: usize, start: usize },
}

/// Builds nodes from parser events.
#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    used: Cost,
}

/// What a tree takes of the bounds.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    text: usize,
}

/// Parses all documents of a file.
///
/// # Errors
/// The first place that is not YAML, or that goes beyond the bounds.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let options = granit_parser::options! { emit_comments: false };
    let offsets = Offsets::new(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| YamlError {
            offset: offsets.of(error.marker()),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        let span = Span { start: offsets.of(&span.start), end: offsets.of(&span.end) };
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// Byte offsets of the parser's marks.
struct Offsets<'t> {
    text: &'t str,
}

impl<'t> Offsets<'t> {
    fn new(text: &'t str) -> Self {
        Offsets { text }
    }

    fn of(&self, mark: &Marker) -> usize {
        let offset = mark.byte_offset().unwrap_or_else(|| {
            self.text.char_indices().nth(mark.index()).map_or(self.text.len(), |(offset, _)| offset)
        });
        offset.min(self.text.len())
    }
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                if text.len() > MAX_SCALAR {
                    return Err(beyond(span, format!("one text of more than {} KiB", MAX_SCALAR >> 10)));
                }
                self.used.spend(Cost { nodes: 1, text: text.len() }, span)?;
                let text = Arc::from(text.as_ref());
                self.place(Node { kind: Kind::Scalar { text, style }, span }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.deeper(span)?;
                self.open.push(Open::Sequence { members: Vec::new(), anchor, start: span.start });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.deeper(span)?;
                let (entries, key) = (Vec::new(), None);
                self.open.push(Open::Mapping { entries, key, anchor, start: span.start });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence { mut members, anchor, start }) => {
                    // A vector begins with room for four: most of it would stay empty.
                    members.shrink_to_fit();
                    let span = Span { start, end: span.end };
                    self.place(Node { kind: Kind::Sequence(members), span }, anchor)
                }
                Some(Open::Mapping { mut entries, anchor, start, .. }) => {
                    entries.shrink_to_fit();
                    let span = Span { start, end: span.end };
                    self.place(Node { kind: Kind::Mapping(entries), span }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(node) => {
                    // What it costs is checked before the copy is made; texts are shared.
                    self.used.spend(node.cost(), span)?;
                    let node = Node { span, ..node.clone() };
                    self.place(node, 0)
                }
                None => {
                    let message = "an alias inside of what it stands for".to_owned();
                    Err(YamlError { offset: span.start, message })
                }
            },
            _ => Ok(()),
        }
    }

    /// A collection opens.
    fn deeper(&mut self, span: Span) -> Result<(), YamlError> {
        if self.open.len() >= MAX_NESTING {
            return Err(beyond(span, format!("nested more than {MAX_NESTING} deep")));
        }
        self.used.spend(Cost { nodes: 1, text: 0 }, span)
    }

    /// Puts a finished node into the collection that is open, or among the documents.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            if self.anchors.len() >= MAX_ANCHORS {
                return Err(beyond(node.span, format!("more than {MAX_ANCHORS} anchors")));
            }
            self.used.spend(node.cost(), node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::Sequence { members, .. }) => members.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }
}

fn beyond(span: Span, message: String) -> YamlError {
    YamlError { offset: span.start, message }
}

impl Node {
    /// What a copy takes.
    fn cost(&self) -> Cost {
        let sum = |nodes: &mut dyn Iterator<Item = &Node>| {
            nodes.fold(Cost { nodes: 1, text: 0 }, |sum, node| {
                let cost = node.cost();
                Cost { nodes: sum.nodes + cost.nodes, text: sum.text + cost.text }
            })
        };
        match &self.kind {
            Kind::Scalar { text, .. } => Cost { nodes: 1, text: text.len() },
            Kind::Sequence(members) => sum(&mut members.iter()),
            Kind::Mapping(entries) => sum(&mut entries.iter().flat_map(|(key, value)| [key, value])),
        }
    }

    /// The node's kind in messages.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "a value",
            Kind::Sequence(_) => "a sequence",
            Kind::Mapping(_) => "a mapping",
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    /// Whether it is a scalar that stands for nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: ScalarStyle::Plain }
            if matches!(&**text, "" | "~" | "null"))
    }

    /// Whether it is a scalar in quotes.
    pub(crate) fn is_quoted(&self) -> bool {
        matches!(
            &self.kind,
            Kind::Scalar { style: ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted, .. }
        )
    }

    /// Where a stretch of this scalar's text stands in the file.
    ///
    /// Folding, indentation and escapes change blanks only, or stand for one character: so the n-th visible
    /// character of the text is the n-th visible character of the source.
    pub(crate) fn locate(&self, file: &str, part: Span) -> Span {
        let Kind::Scalar { text, style } = &self.kind else { return self.span };
        let visible =
            |offset: usize| text.char_indices().filter(|(i, c)| *i < offset && !c.is_whitespace()).count();
        let source = file.get(self.span.start..self.span.end).unwrap_or_default();
        let places = places(source, *style);
        let place =
            |index: usize| places.get(index).map(|(start, end)| (self.span.start + start, end - start));
        let end_of_text = || places.last().map_or(self.span.start, |(_, end)| self.span.start + end);
        let first = visible(part.start);
        let start = place(first).map_or_else(end_of_text, |(start, _)| start);
        let last = visible(part.end);
        let end = if last > first { place(last - 1).map_or(start, |(at, len)| at + len) } else { start };
        Span { start, end }
    }
}

/// The visible characters of a scalar's source, as byte ranges.
fn places(source: &str, style: ScalarStyle) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let (body, base): (Cow<'_, str>, usize) = match style {
        ScalarStyle::Literal | ScalarStyle::Folded if source.starts_with(['|', '>']) => {
            let header = source.find('\n').map_or(source.len(), |newline| newline + 1);
            (Cow::Borrowed(&source[header..]), header)
        }
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted if source.len() >= 2 => {
            (Cow::Borrowed(&source[1..source.len() - 1]), 1)
        }
        _ => (Cow::Borrowed(source), 0),
    };
    let mut chars = body.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        let mut shown = !c.is_whitespace();
        if style == ScalarStyle::SingleQuoted && c == '\'' {
            chars.next();
            end += 1;
        } else if style == ScalarStyle::DoubleQuoted
            && c == '\\'
            && let Some((at, escape)) = chars.next()
        {
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            end = at + escape.len_utf8() + digits;
            for _ in 0..digits {
                chars.next();
            }
            shown =
                !matches!(escape, 'n' | 't' | 'r' | 'v' | 'f' | ' ' | '\n' | '\r' | '_' | 'N' | 'L' | 'P');
        }
        if shown {
            places.push((base + start, base + end));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Node {
        let documents = parse(text).unwrap();
        let Kind::Mapping(entries) = &documents[0].kind else { panic!("not a mapping") };
        entries[0].1.clone()
    }

    #[test]
    fn a_word_is_found_again_in_every_style() {
        for file in [
            "key: a.b = one and WORD x",
            "key: a.b = one\n  and WORD x",
            "key: 'it''s one and WORD x'",
            "key: \"it\\\"s \\x41 one\\n and \\\n  WORD x\"",
            "key: |\n  a.b = one\n    and WORD\n  x\n",
            "key: >-  # why\n  a.b = one\n\n  and WORD\n  x\n",
            "- ä\n- ö\n---\nkey: ü and WORD x",
        ] {
            let documents = parse(file).unwrap();
            let Kind::Mapping(entries) = &documents.last().unwrap().kind else { panic!("not a mapping") };
            let node = &entries[0].1;
            let text = node.text().unwrap();
            let start = text.find("WORD").unwrap();
            let found = node.locate(file, Span { start, end: start + 4 });
            assert_eq!(&file[found.start..found.end], "WORD", "{file}");
            let end = node.locate(file, Span { start: text.len(), end: text.len() });
            assert_eq!(file[..end.start].chars().next_back(), text.trim_end().chars().next_back(), "{file}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_grows() {
        let mut bomb = String::from("- &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("- &a{i} [{aliases}]\n"));
        }
        let error = parse(&bomb).unwrap_err();
        assert!(error.message.contains("YAML nodes"), "{}", error.message);
    }

    #[test]
    fn aliases_work_and_nonsense_is_placed() {
        let documents = parse("- &x [a, b]\n- *x\n").unwrap();
        let Kind::Sequence(members) = &documents[0].kind else { panic!("not a sequence") };
        let Kind::Sequence(copy) = &members[1].kind else { panic!("not a sequence") };
        assert_eq!(copy[1].text(), Some("b"));
        assert!(value("k: ~").is_null());
        let error = parse("- a\n- [b\n").unwrap_err();
        assert!(error.offset >= 6, "{error:?}");
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
