//! What is wrong in a rule file, and where: file, line, column, the line itself and a caret.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::ast::Span;

/// A rule file's name and text.
pub(crate) type Source = Arc<NamedSource<String>>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The rules cannot be used.
    Error,
    /// They can, but probably do not do what was meant.
    Warning,
}

/// One thing found wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    help: Option<String>,
    name: String,
    place: Option<Place>,
}

/// Where in a file.
#[derive(Clone, Debug)]
struct Place {
    source: Source,
    span: Span,
    line: usize,
    column: usize,
}

impl Diagnostic {
    /// Something wrong with a whole file, which may not even be readable.
    pub(crate) fn file(name: impl Into<String>, message: impl Into<String>) -> Self {
        let (message, name) = (message.into(), name.into());
        Diagnostic { severity: Severity::Error, message, help: None, name, place: None }
    }

    /// A text, given with a name for messages, that is not a condition.
    pub fn syntax(name: &str, text: &str, error: &super::condition::SyntaxError) -> Self {
        // With a blank at the end, so that there is something to point at behind the last word.
        let source: Source = Arc::new(NamedSource::new(name, format!("{text} ")));
        let next = source.inner().get(error.offset..).and_then(|rest| rest.chars().next());
        let span = Span { start: error.offset, end: error.offset + next.map_or(0, char::len_utf8) };
        Diagnostic::at(&source, span, error.message.clone()).maybe_help(error.help.clone())
    }

    /// Something wrong at a place in a file.
    pub(crate) fn at(source: &Source, span: Span, message: impl Into<String>) -> Self {
        let text = source.inner();
        let start = floor_char_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = Place {
            source: Arc::clone(source),
            span: Span { start, end: floor_char_boundary(text, span.end).max(start) },
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
        };
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            name: source.name().to_owned(),
            place: Some(place),
        }
    }

    /// Adds a hint.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a hint, if there is one.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Makes it a warning.
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to put it right, if that can be guessed.
    pub fn hint(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file's name.
    pub fn file_name(&self) -> &str {
        &self.name
    }

    /// Line and column, both from 1, the column in characters; `None` if the file as a whole is meant.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }

    /// The message with `file:line:column` in front, the source line with a caret, and the hint.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_links(false).with_context_lines(1).with_width(110);
        let mut report = String::new();
        match handler.render_report(&mut report, &Report(self)) {
            Ok(()) => report,
            // Only a writer or a span out of bounds can fail; the plain message is still right.
            Err(fmt::Error) => format!("{self}\n"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line_column() {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.name, self.message),
            None => write!(f, "{}: {}", self.name, self.message),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// A diagnostic as miette renders it: the place stands above the source line, not in the message.
#[derive(Debug)]
struct Report<'d>(&'d Diagnostic);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.place {
            Some(_) => f.write_str(&self.0.message),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.0.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.place.as_ref().map(|place| &*place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.0.place.as_ref()?;
        let length = place.span.end - place.span.start;
        let span = SourceSpan::from((place.span.start, length));
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, span))))
    }
}

/// Everything that kept rules from being loaded: all errors of all files.
#[derive(Clone, Debug)]
pub struct LoadError {
    diagnostics: Vec<Diagnostic>,
}

impl LoadError {
    pub(crate) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        LoadError { diagnostics }
    }

    /// The errors, and the warnings found beside them, in the order of the files.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// All of them, rendered one below the other.
    pub fn render(&self, color: bool) -> String {
        self.diagnostics.iter().map(|diagnostic| diagnostic.render(color)).collect()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for LoadError {}

/// The candidate that a misspelt word was probably meant to be.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let (distance, candidate) = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // Beyond a third of the letters a suggestion misleads more than it helps.
    (distance * 3 <= word.chars().count().max(3)).then_some(candidate)
}

/// [`closest`] as a question.
pub(crate) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
