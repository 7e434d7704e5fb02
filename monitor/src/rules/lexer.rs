//! Lexemes of the condition language: blanks, words, numbers, texts; and the error that says where it went
//! wrong.

use winnow::Parser;
use winnow::combinator::opt;
use winnow::error::ParserError;
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{any, literal, one_of, take_while};

use super::ast::{Literal, LiteralKind, Span, Spanned};

/// Why a text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where it goes wrong, in bytes from the start of the condition.
    pub offset: usize,
    /// What was expected.
    pub message: String,
    /// How it may have been meant.
    pub help: Option<String>,
}

pub(crate) type Input<'i> = Stateful<LocatingSlice<&'i str>, usize>;
pub(crate) type Parsed<T> = Result<T, SyntaxError>;

impl<'i> ParserError<Input<'i>> for SyntaxError {
    type Inner = Self;

    fn from_input(input: &Input<'i>) -> Self {
        SyntaxError { offset: here(input), message: "unexpected text".to_owned(), help: None }
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

pub(crate) fn start(text: &str) -> Input<'_> {
    Stateful { input: LocatingSlice::new(text), state: 0 }
}

pub(crate) fn here(input: &Input<'_>) -> usize {
    input.input.current_token_start()
}

pub(crate) fn rest_of<'i>(input: &Input<'i>) -> &'i str {
    input.input.as_ref()
}

pub(crate) fn wrong(input: &Input<'_>, message: impl Into<String>) -> SyntaxError {
    SyntaxError { offset: here(input), message: message.into(), help: None }
}

pub(crate) fn spanned<T>(input: &Input<'_>, start: usize, value: T) -> Spanned<T> {
    Spanned { value, span: Span { start, end: here(input) } }
}

pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}')
}

fn is_bare(c: char) -> bool {
    !is_blank(c) && !matches!(c, '(' | ')' | ',' | '=' | '"' | '\'')
}

/// Skips blanks; true if there were any.
pub(crate) fn blanks(input: &mut Input<'_>) -> bool {
    let skipped: Parsed<&str> = take_while(0.., is_blank).parse_next(input);
    skipped.is_ok_and(|blanks| !blanks.is_empty())
}

/// Takes this very text, if it comes next.
pub(crate) fn lexeme(input: &mut Input<'_>, text: &str) -> bool {
    let before = input.checkpoint();
    let taken: Parsed<&str> = literal(text).parse_next(input);
    if taken.is_err() {
        input.reset(&before);
    }
    taken.is_ok()
}

pub(crate) fn identifier<'i>(input: &mut Input<'i>) -> Option<&'i str> {
    let before = input.checkpoint();
    let mut lexer = (
        one_of(|c: char| c.is_ascii_alphabetic()),
        take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_'),
    )
        .take();
    let lexed: Parsed<&str> = lexer.parse_next(input);
    if lexed.is_err() {
        input.reset(&before);
    }
    lexed.ok()
}

/// Takes one character.
fn step(input: &mut Input<'_>) -> Option<char> {
    let lexed: Parsed<char> = any.parse_next(input);
    lexed.ok()
}

/// A decimal or hexadecimal number.
pub(crate) fn number(input: &mut Input<'_>) -> Parsed<Literal> {
    let start = here(input);
    let digits = |c: char| c.is_ascii_digit();
    let mut hexadecimal =
        (one_of(['0']), one_of(['x', 'X']), take_while(1.., |c: char| c.is_ascii_hexdigit())).take();
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), take_while(1.., digits));
    let mut decimal = (
        opt(one_of(['+', '-'])),
        take_while(1.., digits),
        opt((one_of(['.']), take_while(0.., digits))),
        opt(exponent),
    )
        .take();
    let before = input.checkpoint();
    let hex: Parsed<&str> = hexadecimal.parse_next(input);
    let lexed = hex.or_else(|_| {
        input.reset(&before);
        decimal.parse_next(input)
    });
    match lexed {
        Ok(text) => Ok(spanned(input, start, LiteralKind { text: text.to_owned(), quoted: false })),
        Err(SyntaxError { .. }) => {
            input.reset(&before);
            Err(wrong(input, "expected a number"))
        }
    }
}

/// A quoted or bare text.
pub(crate) fn text(input: &mut Input<'_>) -> Parsed<Literal> {
    let start = here(input);
    if let Some(text) = quoted(input)? {
        return Ok(spanned(input, start, LiteralKind { text, quoted: true }));
    }
    let bare: Parsed<&str> = take_while(1.., is_bare).parse_next(input);
    match bare {
        Ok(text) => Ok(spanned(input, start, LiteralKind { text: text.to_owned(), quoted: false })),
        Err(_) => Err(wrong(input, "expected a value")),
    }
}

/// A text in quotes. As in Falco, a quote closes unless a backslash stands right before it, and a backslash
/// before a letter that has no meaning stays.
fn quoted(input: &mut Input<'_>) -> Parsed<Option<String>> {
    let Some(delimiter) = rest_of(input).chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(None);
    };
    let start = here(input);
    step(input);
    let mut text = String::new();
    let mut escaped = false;
    let mut before = delimiter;
    while let Some(c) = step(input) {
        if c == delimiter && before != '\\' {
            return Ok(Some(text));
        }
        before = c;
        if !escaped {
            escaped = c == '\\';
            if !escaped {
                text.push(c);
            }
            continue;
        }
        escaped = false;
        match c {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            '"' | '\'' if c != delimiter => {
                let message =
                    format!("`\\{c}` in a text between {delimiter}: only its own quotes are escaped");
                return Err(SyntaxError { offset: here(input) - 2, message, help: None });
            }
            '\\' | '"' | '\'' => text.push(c),
            _ => text.extend(['\\', c]),
        }
    }
    Err(SyntaxError { offset: start, message: "this quote is never closed".to_owned(), help: None })
}

/// An argument in brackets, if there is one.
pub(crate) fn bracketed(input: &mut Input<'_>) -> Parsed<Option<String>> {
    if !lexeme(input, "[") {
        return Ok(None);
    }
    let at_arg = here(input);
    let arg = match quoted(input)? {
        Some(text) => text,
        None => {
            let bare = |c: char| !is_blank(c) && !matches!(c, '[' | ']' | '"' | '\'');
            let text: Parsed<&str> = take_while(0.., bare).parse_next(input);
            text?.to_owned()
        }
    };
    if arg.is_empty() {
        let message = "the argument in brackets is empty".to_owned();
        return Err(SyntaxError { offset: at_arg, message, help: None });
    }
    if !lexeme(input, "]") {
        return Err(wrong(input, "expected `]` after the argument"));
    }
    Ok(Some(arg))
}
