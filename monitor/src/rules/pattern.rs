//! Globs and regular expressions, bounded in size and anchored at both ends, as Falco has them.

use regex::{Regex, RegexBuilder};

use super::re2;

/// Size of a compiled pattern, in bytes; beyond it is an error.
pub(crate) const MAX_PATTERN: usize = 1 << 20;

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

/// Compiles a regular expression that the whole value must fit.
///
/// The syntax is that of RE2, which Falco uses, where it differs from Rust's; `^` and `$` also stand for the borders of
/// lines, as there. What only Rust's understands is allowed.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn regex(pattern: &str) -> Result<Regex, PatternError> {
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
    build(&format!("\\A(?:(?m){})\\z", translated.regex), false)
}

/// Compiles a glob: `*` is any text, slashes included, `?` any character, `[…]` one of a set (`[!…]` none
/// of it), a backslash takes the next character as it is.
///
/// # Errors
/// If the pattern is too large.
pub(crate) fn glob(pattern: &str, ignore_case: bool) -> Result<Regex, PatternError> {
    let mut regex = String::from("^(?s:");
    push_glob(&mut regex, pattern, &Wild { text: ".*", one: ".", but: "" });
    regex.push_str(")$");
    build(&regex, ignore_case)
}

/// Compiles a path with wildcards, none of which crosses a slash: fits the path and all that lies below it.
///
/// # Errors
/// If the pattern is too large.
pub(crate) fn below(path: &str) -> Result<Regex, PatternError> {
    let mut regex = String::from("^(?s:");
    for (i, component) in path.split('/').enumerate() {
        if i > 0 {
            regex.push('/');
        }
        push_glob(&mut regex, component, &Wild { text: "[^/]*", one: "[^/]", but: "&&[^/]" });
    }
    regex.push_str("(?:/.*)?)$");
    build(&regex, false)
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

fn build(pattern: &str, ignore_case: bool) -> Result<Regex, PatternError> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(MAX_PATTERN)
        .dfa_size_limit(MAX_PATTERN)
        // What is put around a pattern counts, too.
        .nest_limit(MAX_NESTING + 10)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                PatternError { offset: None, message: "the pattern is too large".to_owned() }
            }
            error => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                PatternError { offset: None, message: format!("not a pattern: {reason}") }
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(glob(pattern, false).unwrap().is_match(text), *expected, "{pattern} {text}");
        }
        assert!(glob("*.LOG", true).unwrap().is_match("a.log"));
        assert!(!glob("*.LOG", false).unwrap().is_match("a.log"));
    }

    #[test]
    fn regular_expressions_fit_the_whole_value_and_are_bounded() {
        assert!(regex("ab|cd").unwrap().is_match("cd"));
        assert!(!regex("ab|cd").unwrap().is_match("abd"));
        assert!(!regex("b").unwrap().is_match("abc"));
        assert!(regex(".*b.*").unwrap().is_match("abc"));
        assert_eq!(regex("(a{1000}){1000}").unwrap_err().message, "the pattern is too large");
        assert!(regex(&"(".repeat(10_000)).is_err());
        assert!(regex(&format!("{}a{}", "(".repeat(99), ")".repeat(99))).is_ok());
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
            match regex(pattern) {
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
            assert_eq!(below(path).unwrap().is_match(text), expected, "{path} {text}");
        }
    }
}
