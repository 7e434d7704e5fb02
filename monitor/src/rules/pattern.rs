//! Globs and regular expressions, bounded in size and anchored at both ends, as Falco has them.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use super::re2;

/// Size of a compiled pattern, in bytes; beyond it is an error.
pub(crate) const MAX_PATTERN: usize = 1 << 20;

/// All compiled patterns of one load together, in bytes: each counts as the smallest of [`STEPS`] that it fits.
const MAX_PATTERNS: usize = 6 << 20;

/// Sizes that a pattern is tried with.
const STEPS: [usize; 4] = [8 << 10, 64 << 10, 256 << 10, MAX_PATTERN];

/// Bytes of a pattern as it is written.
const MAX_TEXT: usize = 4096;

/// Nesting of a regular expression.
const MAX_NESTING: u32 = 100;

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatternError {
    /// Where in the pattern, in bytes, if that can be told.
    pub(crate) offset: Option<usize>,
    /// What is wrong, in one line.
    pub(crate) message: String,
}

/// What a text is a pattern of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// See [`regex`].
    Regex,
    /// See [`glob`].
    Glob,
    /// The same, letter case ignored.
    GlobIgnoringCase,
    /// See [`below`].
    Below,
}

/// The patterns of one load: each text is compiled once, wherever it stands, and all together are bounded, so that a
/// small file cannot cost much.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    known: HashMap<(Kind, Box<str>), Result<Regex, PatternError>>,
    size: usize,
}

impl Patterns {
    /// The compiled pattern.
    ///
    /// # Errors
    /// It is no pattern, or too large by itself or together with the others.
    pub(crate) fn get(&mut self, kind: Kind, text: &str) -> Result<Regex, PatternError> {
        if let Some(known) = self.known.get(&(kind, text.into())) {
            return known.clone();
        }
        let built = self.build(kind, text);
        self.known.insert((kind, text.into()), built.clone());
        built
    }

    fn build(&mut self, kind: Kind, text: &str) -> Result<Regex, PatternError> {
        let wrong = |message: String| PatternError { offset: None, message };
        if text.len() > MAX_TEXT {
            return Err(wrong(format!("the pattern has more than {MAX_TEXT} bytes")));
        }
        let (pattern, ignore_case) = match kind {
            Kind::Regex => (regex(text)?, false),
            Kind::Glob => (glob(text), false),
            Kind::GlobIgnoringCase => (glob(text), true),
            Kind::Below => (below(text), false),
        };
        for step in STEPS {
            if self.size + step > MAX_PATTERNS {
                let bound = MAX_PATTERNS >> 20;
                return Err(wrong(format!("all patterns of the rules together take more than {bound} MiB")));
            }
            match compile(&pattern, ignore_case, step) {
                Ok(built) => {
                    self.size += step;
                    return Ok(built);
                }
                Err(Uncompiled::TooLarge) => {}
                Err(Uncompiled::Wrong(error)) => return Err(error),
            }
        }
        // It was built until it was too large.
        self.size += MAX_PATTERN;
        Err(wrong("the pattern is too large".to_owned()))
    }
}

/// A regular expression that the whole value must fit, as Rust's engine wants it.
///
/// The syntax is that of RE2, which Falco uses, where it differs from Rust's; `^` and `$` also stand for the borders of
/// lines, as there. What only Rust's understands is allowed.
///
/// # Errors
/// What is wrong with it, and where.
fn regex(pattern: &str) -> Result<String, PatternError> {
    let wrong = |offset, message: &str| PatternError {
        offset,
        message: format!("not a regular expression: {message}"),
    };
    let translated = re2::translate(pattern).map_err(|(at, message)| wrong(Some(at), message))?;
    // Checked by itself: `a)(b` is wrong although `(?:a)(b)` is not.
    let mut parser = regex_syntax::ParserBuilder::new().nest_limit(MAX_NESTING).multi_line(true).build();
    if let Err(error) = parser.parse(&translated.regex) {
        return Err(match error {
            regex_syntax::Error::Parse(error) => {
                wrong(Some(translated.origin(error.span().start.offset)), &error.kind().to_string())
            }
            regex_syntax::Error::Translate(error) => {
                wrong(Some(translated.origin(error.span().start.offset)), &error.kind().to_string())
            }
            other => wrong(None, other.to_string().lines().last().unwrap_or_default()),
        });
    }
    Ok(format!("\\A(?:(?m){})\\z", translated.regex))
}

/// A glob: `*` is any text, slashes included, `?` any character, `[…]` one of a set (`[!…]` none
/// of it), a backslash takes the next character as it is.
fn glob(pattern: &str) -> String {
    let mut regex = String::from("^(?s:");
    push_glob(&mut regex, pattern, &Wild { text: ".*", one: ".", but: "" });
    regex.push_str(")$");
    regex
}

/// A path with wildcards, none of which crosses a slash: fits the path and all that lies below it.
fn below(path: &str) -> String {
    let mut regex = String::from("^(?s:");
    for (i, component) in path.split('/').enumerate() {
        if i > 0 {
            regex.push('/');
        }
        push_glob(&mut regex, component, &Wild { text: "[^/]*", one: "[^/]", but: "&&[^/]" });
    }
    regex.push_str("(?:/.*)?)$");
    regex
}

/// What the wildcards of a glob stand for.
struct Wild {
    /// `*`.
    text: &'static str,
    /// `?`.
    one: &'static str,
    /// What is taken from a set.
    but: &'static str,
}

fn push_glob(regex: &mut String, pattern: &str, wild: &Wild) {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str(wild.text),
            '?' => regex.push_str(wild.one),
            '\\' => push_literal(regex, chars.next().unwrap_or('\\')),
            '[' => match set(chars.clone()) {
                Some((set, rest)) => {
                    // In a set of its own: what is taken away stands outside of a `^`.
                    regex.push_str("[[");
                    regex.push_str(&set);
                    regex.push(']');
                    regex.push_str(wild.but);
                    regex.push(']');
                    chars = rest;
                }
                // A bracket that is never closed stands for itself.
                None => push_literal(regex, '['),
            },
            _ => push_literal(regex, c),
        }
    }
}

type Chars<'p> = std::iter::Peekable<std::str::Chars<'p>>;

/// The set after a `[`, as a regular expression, and what follows it.
fn set(mut chars: Chars<'_>) -> Option<(String, Chars<'_>)> {
    let mut set = String::new();
    if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
        set.push('^');
    }
    let mut first = true;
    loop {
        let c = chars.next()?;
        // A `]` right at the start is a member.
        if c == ']' && !first {
            return Some((set, chars));
        }
        first = false;
        if c == '['
            && let Some((class, rest)) = class(chars.clone())
        {
            set.push_str(&class);
            chars = rest;
            continue;
        }
        let c = if c == '\\' { chars.next()? } else { c };
        set.push('\\');
        push_set_member(&mut set, c);
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|end| end != ']') {
            chars.next();
            let end = match chars.next()? {
                '\\' => chars.next()?,
                end => end,
            };
            set.push_str("-\\");
            push_set_member(&mut set, end);
        }
    }
}

/// A class such as `[:alpha:]` behind its first bracket, and what follows it.
fn class(mut chars: Chars<'_>) -> Option<(String, Chars<'_>)> {
    chars.next_if_eq(&':')?;
    let mut class = String::from("[:");
    while let Some(letter) = chars.next_if(char::is_ascii_lowercase) {
        class.push(letter);
    }
    chars.next_if_eq(&':')?;
    chars.next_if_eq(&']')?;
    class.push_str(":]");
    // Only the known ones: of another the letters are members.
    re2::CLASSES.contains(&class.as_str()).then_some((class, chars))
}

/// Completes `\` to an escape of one character, whatever it is.
fn push_set_member(set: &mut String, c: char) {
    set.push_str(&format!("x{{{:x}}}", u32::from(c)));
}

fn push_literal(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// Why a pattern was not compiled.
enum Uncompiled {
    TooLarge,
    Wrong(PatternError),
}

fn compile(pattern: &str, ignore_case: bool, limit: usize) -> Result<Regex, Uncompiled> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(limit)
        .dfa_size_limit(MAX_PATTERN)
        // What is put around a pattern counts, too.
        .nest_limit(MAX_NESTING + 10)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => Uncompiled::TooLarge,
            error => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Uncompiled::Wrong(PatternError { offset: None, message: format!("not a pattern: {reason}") })
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(kind: Kind, text: &str) -> Result<Regex, PatternError> {
        Patterns::default().get(kind, text)
    }

    #[test]
    fn all_patterns_together_are_bounded() {
        let mut patterns = Patterns::default();
        let refused = (0..100_000).find(|i| patterns.get(Kind::Glob, &format!("/{i}/*")).is_err());
        // As many as a large set of rules has, and not as many as a small file can hold.
        assert!(refused.is_some_and(|refused| (500..1000).contains(&refused)), "{refused:?}");
        assert!(patterns.get(Kind::Glob, "/0/*").is_ok(), "what is known costs nothing");
        let error = patterns.get(Kind::Glob, "/new/*").unwrap_err();
        assert_eq!(error.message, "all patterns of the rules together take more than 6 MiB");
        let error = get(Kind::Glob, &"*".repeat(5000)).unwrap_err();
        assert_eq!(error.message, "the pattern has more than 4096 bytes");
        // One that is refused was built so far, too.
        let mut patterns = Patterns::default();
        let large = |i: usize| format!("(a{{1000}}){{100{i}}}");
        let last = (0..100).map(|i| patterns.get(Kind::Regex, &large(i)).unwrap_err().message).last();
        assert_eq!(last.as_deref(), Some("all patterns of the rules together take more than 6 MiB"));
    }

    #[test]
    fn globs_mean_what_they_mean_in_falco() {
        let cases: &[(&str, &str, bool)] = &[
            ("*.log", "/var/log/a.log", true),
            ("/home/*/.ssh/*", "/home/a/b/.ssh/id", true),
            ("/home/*/.ssh/*", "/root/.ssh/id", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", true),
            ("a?c", "ac", false),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[a-c]", "b", true),
            ("[]a]", "]", true),
            ("[a", "[a", true),
            ("{a,b}", "{a,b}", true),
            ("{a,b}", "a", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a.c", "abc", false),
            ("", "", true),
            ("*", "", true),
            ("a*", "a\nb", true),
            ("[[:digit:]x-z]", "7", true),
            ("[[:digit:]x-z]", "y", true),
            ("[[:digit:]x-z]", ":", false),
            ("[[:nosuch:]", "[", true),
            ("[&&a]", "&", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(get(Kind::Glob, pattern).unwrap().is_match(text), *expected, "{pattern} {text}");
        }
        assert!(get(Kind::GlobIgnoringCase, "*.LOG").unwrap().is_match("a.log"));
        assert!(!get(Kind::Glob, "*.LOG").unwrap().is_match("a.log"));
    }

    #[test]
    fn regular_expressions_fit_the_whole_value_and_are_bounded() {
        assert!(get(Kind::Regex, "ab|cd").unwrap().is_match("cd"));
        assert!(!get(Kind::Regex, "ab|cd").unwrap().is_match("abd"));
        assert!(!get(Kind::Regex, "b").unwrap().is_match("abc"));
        assert!(get(Kind::Regex, ".*b.*").unwrap().is_match("abc"));
        assert_eq!(get(Kind::Regex, "(a{1000}){1000}").unwrap_err().message, "the pattern is too large");
        assert!(get(Kind::Regex, &"(".repeat(10_000)).is_err());
        assert!(get(Kind::Regex, &format!("{}a{}", "(".repeat(99), ")".repeat(99))).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_regular_expression_has_its_place() {
        for (pattern, offset, message) in [
            ("a)(b", 1, "unopened group"),
            ("x{2}{,", 9, ""),
            ("ab[c", 2, "never closed"),
            ("\\.\\1", 2, "backreference"),
            ("a{x}(?<", 4, ""),
            ("[z-a]", 1, "invalid character class range"),
            ("é\\", 2, "backslash"),
        ] {
            match get(Kind::Regex, pattern) {
                Ok(_) => assert_eq!(message, "", "{pattern}"),
                Err(error) => {
                    assert!(error.message.contains(message), "{pattern}: {error:?}");
                    if !message.is_empty() {
                        assert_eq!(error.offset, Some(offset), "{pattern}: {error:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn paths_with_wildcards_fit_what_lies_below() {
        for (path, text, expected) in [
            ("/var/*", "/var/run/file.txt", true),
            ("/var/*/*.txt", "/var/run/file.txt", true),
            ("/var/*.txt", "/var/run/file.txt", false),
            ("/opt/di?/subdir", "/opt/dir/subdir/x", true),
            ("/opt/di[!r]/subdir", "/opt/dir/subdir/x", false),
            ("/opt/di[!x]subdir", "/opt/di/subdir", false),
            ("/opt/*/*/sub", "/opt/dir/file.txt", false),
            ("/opt/*", "/opt", false),
            ("/o*", "/opt2/x", true),
            ("*", "/x", true),
        ] {
            assert_eq!(get(Kind::Below, path).unwrap().is_match(text), expected, "{path} {text}");
        }
    }
}
