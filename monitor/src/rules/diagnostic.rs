//! What is wrong in a rule file, and where: file, line, column, the line itself and a caret.

mod excerpt;

use std::fmt;
use std::sync::{Arc, OnceLock};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use self::excerpt::Excerpt;
use super::ast::Span;

/// A rule file, shared by all that point into it.
pub(crate) type Source = Arc<SourceFile>;

/// A rule file's name and text.
#[derive(Debug)]
pub(crate) struct SourceFile {
    named: NamedSource<String>,
    /// Where its lines begin; worked out for the first diagnostic.
    lines: OnceLock<Vec<usize>>,
}

impl SourceFile {
    pub(crate) fn new(name: impl AsRef<str>, text: String) -> Self {
        SourceFile { named: NamedSource::new(name, text), lines: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> &str {
        self.named.name()
    }

    pub(crate) fn inner(&self) -> &str {
        self.named.inner()
    }

    /// The number of the line, from 1, in which this byte stands, and where that line begins.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let lines = self.lines.get_or_init(|| {
            let ends = self.inner().match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        let number = lines.partition_point(|start| *start <= offset);
        (number, lines.get(number.saturating_sub(1)).copied().unwrap_or(0))
    }
}

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
        let source: Source = Arc::new(SourceFile::new(name, format!("{text} ")));
        let next = source.inner().get(error.offset..).and_then(|rest| rest.chars().next());
        let span = Span { start: error.offset, end: error.offset + next.map_or(0, char::len_utf8) };
        Diagnostic::at(&source, span, error.message.clone()).maybe_help(error.help.clone())
    }

    /// Something wrong at a place in a file.
    pub(crate) fn at(source: &Source, span: Span, message: impl Into<String>) -> Self {
        let text = source.inner();
        let start = floor_char_boundary(text, span.start);
        let (line, line_start) = source.line_of(start);
        let place = Place {
            source: Arc::clone(source),
            span: Span { start, end: floor_char_boundary(text, span.end).max(start) },
            line,
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

    /// Whether it keeps rules from being used.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
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
        let excerpt = self.place.as_ref().and_then(Excerpt::of_long_line);
        match handler.render_report(&mut report, &Report(self, excerpt)) {
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

/// A diagnostic as miette renders it: the place stands above the source line, not in the message. Of a line that is too
/// long to be shown there is an excerpt.
#[derive(Debug)]
struct Report<'d>(&'d Diagnostic, Option<Excerpt<'d>>);

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
        match &self.1 {
            Some(excerpt) => Some(excerpt),
            None => self.0.place.as_ref().map(|place| &place.source.named as &dyn SourceCode),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.0.place.as_ref()?;
        let whole = || SourceSpan::from((place.span.start, place.span.end - place.span.start));
        let span = self.1.as_ref().map_or_else(whole, Excerpt::label);
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

/// Longer words are not compared with others.
const LONGEST_WORD: usize = 64;

/// With so many others a word is compared.
const MOST_CANDIDATES: usize = 2000;

/// The candidate that a misspelt word was probably meant to be.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // The comparison's cost is the product of the lengths: a rule file may hold any word, any number of times.
    let letters = word.chars().count();
    if letters > LONGEST_WORD {
        return None;
    }
    let (distance, candidate) = candidates
        .into_iter()
        .take(MOST_CANDIDATES)
        .filter(|candidate| candidate.len().abs_diff(word.len()) * 3 <= letters.max(3) + 8)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // Beyond a third of the letters a suggestion misleads more than it helps.
    (distance * 3 <= letters.max(3)).then_some(candidate)
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
