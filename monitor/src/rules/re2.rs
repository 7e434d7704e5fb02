//! Regular expressions as RE2 writes them, written as Rust's `regex` wants them.
//!
//! Both are automata without backtracking, and nearly the same language. The differences that can change or break a
//! pattern are put right here: RE2 takes a brace that begins no repetition for itself, allows an escape before any
//! punctuation, knows octal escapes, and has no operations on sets (`[a&&b]` holds four characters there).

/// The classes that may stand in a set.
pub(crate) const CLASSES: &[&str] = &[
    "[:alnum:]",
    "[:alpha:]",
    "[:ascii:]",
    "[:blank:]",
    "[:cntrl:]",
    "[:digit:]",
    "[:graph:]",
    "[:lower:]",
    "[:print:]",
    "[:punct:]",
    "[:space:]",
    "[:upper:]",
    "[:word:]",
    "[:xdigit:]",
];

/// A pattern for `regex`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Translated {
    /// The pattern.
    pub(crate) regex: String,
    /// Where its pieces stand, and where they stood before.
    pieces: Vec<(usize, usize)>,
}

impl Translated {
    /// Where in the original pattern a place of the new one comes from.
    pub(crate) fn origin(&self, offset: usize) -> usize {
        let piece = self.pieces.partition_point(|(here, _)| *here <= offset);
        piece.checked_sub(1).and_then(|i| self.pieces.get(i)).map_or(0, |(_, there)| *there)
    }
}

type Wrong = (usize, &'static str);

/// Translates a pattern. What is wrong with it beyond escapes and sets is left to `regex` to say.
///
/// # Errors
/// The place in bytes, and what is wrong.
pub(crate) fn translate(pattern: &str) -> Result<Translated, Wrong> {
    let mut reader = Reader { pattern, at: 0, out: Translated::default() };
    while let Some(c) = reader.peek() {
        reader.piece();
        match c {
            '\\' => reader.escape()?,
            '[' => reader.set()?,
            '{' if !repetition(reader.rest()) => {
                reader.at += 1;
                reader.out.regex.push_str("\\{");
            }
            _ => {
                reader.at += c.len_utf8();
                reader.out.regex.push(c);
            }
        }
    }
    Ok(reader.out)
}

/// Whether a text begins with `{n}`, `{n,}` or `{n,m}`.
fn repetition(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some((inner, _)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) else { return false };
    match inner.split_once(',') {
        Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
        None => digits(inner),
    }
}

struct Reader<'p> {
    pattern: &'p str,
    at: usize,
    out: Translated,
}

impl<'p> Reader<'p> {
    fn rest(&self) -> &'p str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Notes that what is written next comes from here.
    fn piece(&mut self) {
        self.out.pieces.push((self.out.regex.len(), self.at));
    }

    fn literal(&mut self, c: char) {
        self.out.regex.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }

    /// An escape, in a set or outside; the backslash comes next.
    fn escape(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        self.at += 1;
        match self.next() {
            None => return Err((start, "a backslash at the end")),
            Some(c @ '0'..='7') => {
                let mut value = u32::from(c) - u32::from('0');
                let mut digits = 1;
                while let Some(d @ '0'..='7') = self.peek().filter(|_| digits < 3) {
                    self.at += 1;
                    value = value * 8 + (u32::from(d) - u32::from('0'));
                    digits += 1;
                }
                if c != '0' && digits == 1 {
                    return Err((start, "there are no backreferences"));
                }
                self.literal(char::from_u32(value).unwrap_or('\0'));
            }
            Some('8' | '9') => return Err((start, "there are no backreferences")),
            Some(c) if c.is_ascii_punctuation() => self.literal(c),
            Some(c) => {
                self.out.regex.push('\\');
                self.out.regex.push(c);
            }
        }
        Ok(())
    }

    /// A set; its bracket comes next.
    fn set(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        self.at += 1;
        self.out.regex.push('[');
        if self.peek() == Some('^') {
            self.at += 1;
            self.out.regex.push('^');
        }
        let mut first = true;
        loop {
            self.piece();
            match self.peek() {
                None => return Err((start, "this set is never closed")),
                Some(']') if !first => {
                    self.at += 1;
                    self.out.regex.push(']');
                    return Ok(());
                }
                Some(_) => self.member()?,
            }
            first = false;
            // A range, unless the hyphen is the last member.
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") && self.rest().len() > 1 {
                self.at += 1;
                self.out.regex.push('-');
                self.member()?;
            }
        }
    }

    /// A member of a set, or an end of a range in it.
    fn member(&mut self) -> Result<(), Wrong> {
        let rest = self.rest();
        if let Some(class) = CLASSES.iter().find(|class| rest.starts_with(**class)) {
            self.at += class.len();
            self.out.regex.push_str(class);
            return Ok(());
        }
        if rest.starts_with("[:^") {
            // A class negated: `regex` writes it the same way.
            let negated =
                CLASSES.iter().find(|class| rest.get(3..).is_some_and(|r| r.starts_with(&class[2..])));
            if let Some(class) = negated {
                self.at += class.len() + 1;
                self.out.regex.push_str("[:^");
                self.out.regex.push_str(&class[2..]);
                return Ok(());
            }
        }
        match self.peek() {
            Some('\\') => self.escape(),
            Some(c) => {
                self.at += c.len_utf8();
                self.literal(c);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    /// Whether a pattern fits a whole text.
    fn fits(pattern: &str, text: &str) -> bool {
        let translated = translate(pattern).unwrap_or_else(|wrong| panic!("{pattern}: {wrong:?}"));
        let whole = format!("^(?:{})$", translated.regex);
        Regex::new(&whole).unwrap_or_else(|error| panic!("{pattern} {whole}: {error}")).is_match(text)
    }

    #[test]
    fn what_rust_reads_otherwise_means_what_it_means_in_re2() {
        for (pattern, text, expected) in [
            ("{a}", "{a}", true),
            ("a{,5}", "a{,5}", true),
            ("a{2}", "aa", true),
            ("a{2,}", "aaa", true),
            ("a{1,2}b", "aab", true),
            ("a{", "a{", true),
            ("\\<\\>\\_\\/", "<>_/", true),
            ("\\061\\x32", "12", true),
            ("\\101", "A", true),
            ("[a&&b]", "&", true),
            ("[a&&b]", "b", true),
            ("[a--]", "-", false),
            ("[]a]+", "]a", true),
            ("[^]a]", "]", false),
            ("[[a]", "[", true),
            ("[a~~]", "~", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[[:alpha:]_-]+", "a_-", true),
            ("[[:^digit:]]", "x", true),
            ("[[:^digit:]]", "5", false),
            ("[\\]\\-x]+", "]-x", true),
            ("[ä-ö]", "ö", true),
            ("\\d+", "42", true),
        ] {
            // A range that runs backwards is an error in both.
            if pattern == "[a--]" {
                assert!(Regex::new(&translate(pattern).unwrap().regex).is_err());
                continue;
            }
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn places_come_back() {
        let translated = translate("{x}[ab]\\/(").unwrap();
        assert_eq!(translated.origin(translated.regex.len() - 1), 9);
        assert_eq!(translated.origin(0), 0);
        assert_eq!(translate("ab\\").unwrap_err().0, 2);
        assert_eq!(translate("ab[x").unwrap_err().0, 2);
        assert_eq!(translate("a\\2").unwrap_err().0, 1);
    }
}
