//! Texts of rule files that know where they stand, also those that were put together from several places.

use std::sync::Arc;

use granit_parser::ScalarStyle;

use crate::rules::ast::Span;
use crate::rules::diagnostic::{Diagnostic, Source, SourceFile};
use crate::rules::yaml::{Kind, Node};

/// A place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    source: Source,
    span: Span,
}

impl Place {
    pub(crate) fn new(source: &Source, span: Span) -> Self {
        Place { source: Arc::clone(source), span }
    }

    /// Something wrong there.
    pub(crate) fn wrong(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.source, self.span, message)
    }
}

/// A text that knows where it stands. Small, for a rule file may have many.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    node: Node,
    source: Source,
    /// What it is if it is not the text of the node.
    composed: Option<Box<Composed>>,
}

/// A text of several pieces, of which the first is not kept again.
#[derive(Clone, Debug)]
struct Composed {
    whole: String,
    /// Whether the first piece is the node's text, letter by letter.
    exact: bool,
    rest: Vec<Piece>,
}

/// A stretch of a text that comes from one place.
#[derive(Clone, Debug)]
struct Piece {
    node: Node,
    source: Source,
    /// Where in the whole text it begins.
    start: usize,
    /// Whether the text is the node's, letter by letter; otherwise only the node as a whole can be pointed at.
    exact: bool,
}

impl Text {
    /// The text of a scalar.
    pub(crate) fn new(node: Node, source: Source) -> Self {
        Text { node, source, composed: None }
    }

    /// A text that stands in no file, under a name for messages.
    pub(crate) fn loose(name: &str, text: &str) -> Self {
        let source: Source = Arc::new(SourceFile::new(name, text.to_owned()));
        let kind = Kind::Scalar { text: Arc::from(text), style: ScalarStyle::Plain };
        Text::new(Node { kind, span: Span { start: 0, end: text.len() } }, source)
    }

    /// The text, folding and escapes resolved.
    pub(crate) fn as_str(&self) -> &str {
        match &self.composed {
            Some(composed) => &composed.whole,
            None => self.node.text().unwrap_or_default(),
        }
    }

    /// The name of the file it stands in; of one that was put together, of its first piece.
    pub(crate) fn source_name(&self) -> &str {
        self.source.name()
    }

    /// Puts another text behind this one, with a blank between them.
    pub(crate) fn append(&mut self, other: Text) {
        let mut whole = self.as_str().trim_end().to_owned();
        whole.push(' ');
        let start = whole.len();
        whole.push_str(other.as_str());
        let (exact, more) = other.composed.map_or((true, Vec::new()), |other| (other.exact, other.rest));
        let first = Piece { node: other.node, source: other.source, start, exact };
        let more = more.into_iter().map(|piece| Piece { start: start + piece.start, ..piece });
        let composed = self.composed.take();
        let (exact, mut rest) = composed.map_or((true, Vec::new()), |known| (known.exact, known.rest));
        rest.extend(std::iter::once(first).chain(more));
        self.composed = Some(Box::new(Composed { whole, exact, rest }));
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Place {
        Place::new(&self.source, self.node.span)
    }

    /// Something wrong with the whole text.
    pub(crate) fn wrong(&self, message: impl Into<String>) -> Diagnostic {
        self.place().wrong(message)
    }

    /// Something wrong with a part of it: points into the file that the part came from.
    pub(crate) fn wrong_at(&self, part: Span, message: impl Into<String>) -> Diagnostic {
        let rest = self.composed.iter().flat_map(|composed| &composed.rest);
        let (node, source, start, exact) = match rest.rev().find(|piece| piece.start <= part.start) {
            Some(piece) => (&piece.node, &piece.source, piece.start, piece.exact),
            None => {
                let exact = self.composed.as_ref().is_none_or(|composed| composed.exact);
                (&self.node, &self.source, 0, exact)
            }
        };
        let length = node.text().unwrap_or_default().len();
        let within = |offset: usize| offset.saturating_sub(start).min(length);
        let part = Span { start: within(part.start), end: within(part.end) };
        let span = if exact { node.locate(source.inner(), part) } else { node.span };
        Diagnostic::at(source, span, message)
    }
}

/// Puts a text together from pieces of files and what has to stand between them.
#[derive(Default)]
pub(crate) struct Composer {
    whole: String,
    pieces: Vec<Piece>,
}

impl Composer {
    /// Adds what stands in no file. Errors in it are shown at the piece before.
    pub(crate) fn glue(&mut self, text: &str) {
        self.whole.push_str(text);
    }

    /// Adds `written` for a text of a file.
    pub(crate) fn piece(&mut self, text: &Text, written: &str) {
        let (node, source) = (text.node.clone(), Arc::clone(&text.source));
        self.pieces.push(Piece { node, source, start: self.whole.len(), exact: false });
        self.whole.push_str(written);
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// What was put together, if any piece came from a file.
    pub(crate) fn finish(self) -> Option<Text> {
        let mut pieces = self.pieces.into_iter();
        let Piece { node, source, exact, .. } = pieces.next()?;
        let composed = Composed { whole: self.whole, exact, rest: pieces.collect() };
        Some(Text { node, source, composed: Some(Box::new(composed)) })
    }
}
