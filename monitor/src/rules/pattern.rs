//! Globs and regular expressions, bounded in size and anchored at both ends, as Falco has them.

use regex::{Regex, RegexBuilder};

/// Size of a compiled pattern, in bytes; beyond it is an error.
pub(crate) const MAX_PATTERN: usize = 1 << 20;

/// Nesting of a regular expression.
const MAX_NESTING: u32 = 100;

/// Compiles a regular expression that the whole value must fit.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    // Checked by itself first: `a)(b` is wrong although `(?:a)(b)` is not.
    build(pattern, false)?;
    build(&format!("^(?:{pattern})$"), false)
}

/// Compiles a glob: `*` is any text, slashes included, `?` any character, `[…]` one of a set (`[!…]` none
/// of it), a backslash takes the next character as it is.
///
/// # Errors
/// If the pattern is too large.
pub(crate) fn glob(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    let mut regex = String::from("^(?s:");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '\\' => push_literal(&mut regex, chars.next().unwrap_or('\\')),
            '[' => match set(chars.clone()) {
                Some((set, rest)) => {
                    regex.push_str(&set);
                    chars = rest;
                }
                // A bracket that is never closed stands for itself.
                None => push_literal(&mut regex, '['),
            },
            _ => push_literal(&mut regex, c),
        }
    }
    regex.push_str(")$");
    build(&regex, ignore_case)
}

type Chars<'p> = std::iter::Peekable<std::str::Chars<'p>>;

/// The set after a `[`, as a regular expression, and what follows it.
fn set(mut chars: Chars<'_>) -> Option<(String, Chars<'_>)> {
    let mut set = String::from("[");
    if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
        set.push('^');
    }
    let mut first = true;
    loop {
        let c = chars.next()?;
        // A `]` right at the start is a member.
        if c == ']' && !first {
            set.push(']');
            return Some((set, chars));
        }
        first = false;
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

/// Completes `\` to an escape of one character, whatever it is.
fn push_set_member(set: &mut String, c: char) {
    set.push_str(&format!("x{{{:x}}}", u32::from(c)));
}

fn push_literal(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn build(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(MAX_PATTERN)
        .dfa_size_limit(MAX_PATTERN)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
            error => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", reason.trim_start_matches("error: "))
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
        assert!(regex("a)(b").unwrap_err().contains("unopened group"));
        assert_eq!(regex("(a{1000}){1000}").unwrap_err(), "the pattern is too large");
        assert!(regex(&"(".repeat(10_000)).is_err());
    }
}
