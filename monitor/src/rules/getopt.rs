//! Options among program arguments, as getopt(3) reads them: what the transformer `getopt` gives.

/// Which letters are options, and which of them take a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options(Vec<(char, bool)>);

impl Options {
    /// Reads `ab:c`: letters, a colon behind those that take a value. A colon at the start means nothing here.
    pub(crate) fn parse(text: &str) -> Self {
        let mut options: Vec<(char, bool)> = Vec::new();
        for c in text.strip_prefix(':').unwrap_or(text).chars() {
            match (c, options.last_mut()) {
                (':', Some((_, takes_value))) => *takes_value = true,
                (':', None) => {}
                _ => options.push((c, false)),
            }
        }
        Options(options)
    }

    /// Whether the letter takes a value; `None` if it is no option. Where a letter stands twice, one value suffices.
    fn takes_value(&self, letter: char) -> Option<bool> {
        let mut takes = None;
        for (_, value) in self.0.iter().filter(|(known, _)| *known == letter) {
            takes = Some(takes.unwrap_or(false) | value);
        }
        takes
    }
}

/// An option that was found.
enum Found<'a> {
    /// A letter that is no option.
    Unknown,
    /// A letter that takes no value.
    Flag(char),
    /// A letter with its value.
    Value(char, &'a str),
    /// A letter whose value is missing.
    Missing(char),
}

/// Walks the arguments up to the first that is no option, or `--`. Long options are skipped.
fn walk<'a>(options: &Options, args: impl IntoIterator<Item = &'a str>, mut found: impl FnMut(Found<'a>)) {
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else { return };
        if let Some(long) = letters.strip_prefix('-') {
            if long.is_empty() {
                return;
            }
            continue;
        }
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            match options.takes_value(letter) {
                None => found(Found::Unknown),
                Some(false) => found(Found::Flag(letter)),
                Some(true) => {
                    let value = Some(rest.as_str()).filter(|rest| !rest.is_empty()).or_else(|| args.next());
                    found(value.map_or(Found::Missing(letter), |value| Found::Value(letter, value)));
                    break;
                }
            }
        }
    }
}

/// Every option's letter, each followed by its value; `?` for what is no option, and an empty text for an option whose
/// value is missing.
pub(crate) fn all<'a>(options: &Options, args: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut all = Vec::new();
    walk(options, args, |found| match found {
        Found::Unknown => all.push("?".to_owned()),
        Found::Flag(letter) => all.push(letter.to_string()),
        Found::Value(letter, value) => all.extend([letter.to_string(), value.to_owned()]),
        Found::Missing(_) => all.push(String::new()),
    });
    all
}

/// The value of an option that stands last, its letter if it takes none; `None` if it does not stand there.
pub(crate) fn value_of<'a>(
    options: &Options,
    wanted: char,
    args: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let mut last = None;
    walk(options, args, |found| match found {
        Found::Flag(letter) if letter == wanted => last = Some(letter.to_string()),
        Found::Value(letter, value) if letter == wanted => last = Some(value.to_owned()),
        Found::Missing(letter) if letter == wanted => last = Some(String::new()),
        _ => {}
    });
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(args: &[&str], options: &str) -> Vec<String> {
        all(&Options::parse(options), args.iter().copied())
    }

    fn value(args: &[&str], options: &str, wanted: char) -> Option<String> {
        value_of(&Options::parse(options), wanted, args.iter().copied())
    }

    #[test]
    fn options_are_found_as_getopt_finds_them() {
        let cases: &[(&[&str], &str, &[&str])] = &[
            (&["-n", ""], "n", &["n"]),
            (&["-nt", "hello"], "nt:", &["n", "t", "hello"]),
            (&["-thello"], "t:", &["t", "hello"]),
            (&["-n", "--", "-t"], "nt", &["n"]),
            (&["--", "-n"], "n", &[]),
            (&["-x", "-n"], "n", &["?", "n"]),
            (&["-lpe", "/bin/sh"], "lp:e:", &["l", "p", "e"]),
            (&["-n", "-t"], "", &["?", "?"]),
            (&["file", "-n"], "n", &[]),
            (&["-", "-n"], "n", &[]),
            (&["-t"], "t:", &[""]),
            (&["-t"], ":t:", &[""]),
            (&["-t", "-123"], "t:", &["t", "-123"]),
            (&["--exec", "-n"], "n", &["n"]),
            (&["-@", "-+"], "@+", &["@", "+"]),
            (&["-é", "x"], "é:", &["é", "x"]),
            (&["-:"], "a:", &["?"]),
            (&[], "a", &[]),
        ];
        for (args, options, expected) in cases {
            assert_eq!(found(args, options), *expected, "{args:?} {options}");
        }
    }

    #[test]
    fn the_last_value_of_an_option_counts() {
        assert_eq!(value(&["-n", "-t", "hello"], "nt:", 't').as_deref(), Some("hello"));
        assert_eq!(value(&["-n", "-t", "hello"], "nt:", 'n').as_deref(), Some("n"));
        assert_eq!(value(&["-t", "v1", "-t", "v2"], "t:", 't').as_deref(), Some("v2"));
        assert_eq!(value(&["-t", "v1", "-t"], "t:", 't').as_deref(), Some(""));
        assert_eq!(value(&["-n"], "nt:", 't'), None);
    }
}
