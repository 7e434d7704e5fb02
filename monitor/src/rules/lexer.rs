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
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{8}' | '\u{b}' | '\u{c}')
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

/// A text in quotes. As in Falco, a quote closes unless a backslash stands right before it, and an escape that has no
/// meaning is an error; only a backslash before a blank stays, with the blank.
fn quoted(input: &mut Input<'_>) -> Parsed<Option<String>> {
    let Some(delimiter) = rest_of(input).chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(None);
    };
    let start = here(input);
    step(input);
    let mut text = Unescaped::default();
    // Where the backslash stands that came right before.
    let mut escape = None;
    let mut before = delimiter;
    loop {
        let at = here(input);
        let Some(c) = step(input) else {
            let message = "this quote is never closed".to_owned();
            return Err(SyntaxError { offset: start, message, help: None });
        };
        if c == delimiter && before != '\\' {
            return Ok(Some(text.finish()));
        }
        before = c;
        match escape.take() {
            None if c == '\\' => escape = Some(at),
            None => text.push(c),
            Some(offset) => match c {
                'x' => match hex_byte(input) {
                    Some(byte) => text.0.push(byte),
                    None => {
                        let message = "`\\x` needs two hexadecimal digits".to_owned();
                        return Err(SyntaxError { offset, message, help: None });
                    }
                },
                _ => text.push_escaped(c, delimiter, offset)?,
            },
        }
    }
}

/// The byte that two hexadecimal digits stand for.
fn hex_byte(input: &mut Input<'_>) -> Option<u8> {
    let digits: Parsed<&str> = take_while(2..=2, |c: char| c.is_ascii_hexdigit()).parse_next(input);
    u8::from_str_radix(digits.ok()?, 16).ok()
}

/// A text whose escapes are being resolved: bytes, since `\xHH` gives one byte.
#[derive(Default)]
struct Unescaped(Vec<u8>);

impl Unescaped {
    fn push(&mut self, c: char) {
        self.0.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// What a backslash, which stands at `offset`, and this character stand for.
    fn push_escaped(&mut self, c: char, delimiter: char, offset: usize) -> Parsed<()> {
        match c {
            'n' => self.push('\n'),
            't' => self.push('\t'),
            'r' => self.push('\r'),
            'b' => self.push('\u{8}'),
            'f' => self.push('\u{c}'),
            '\\' | '/' => self.push(c),
            ' ' => {
                self.push('\\');
                self.push(' ');
            }
            '"' | '\'' if c == delimiter => self.push(c),
            '"' | '\'' => {
                let message =
                    format!("`\\{c}` in a text between {delimiter}: only its own quotes are escaped");
                return Err(SyntaxError { offset, message, help: None });
            }
            _ => {
                let message = format!("`\\{}` is no escape", c.escape_default());
                let help = Some("write a backslash as `\\\\`".to_owned());
                return Err(SyntaxError { offset, message, help });
            }
        }
        Ok(())
    }

    /// The text; bytes that are not UTF-8 stand as `\xHH`, as in the fields of events.
    fn finish(self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }
}

/// An argument in brackets, if there is one.
pub(crate) fn bracketed(input: &mut Input<'_>) -> Parsed<Option<String>> {
    if !lexeme(input, "[") {
        return Ok(None);
    }
    let at_arg = here(input);
    let arg = match quoted(input)? {
        // That no field takes an empty one is said when it is looked up.
        Some(text) => text,
        None => {
            let bare = |c: char| !is_blank(c) && !matches!(c, '[' | ']' | '"' | '\'');
            let text: Parsed<&str> = take_while(0.., bare).parse_next(input);
            let text = text?;
            if text.is_empty() {
                let message = "the argument in brackets is empty".to_owned();
                return Err(SyntaxError { offset: at_arg, message, help: None });
            }
            text.to_owned()
        }
    };
    if !lexeme(input, "]") {
        return Err(wrong(input, "expected `]` after the argument"));
    }
    Ok(Some(arg))
}
