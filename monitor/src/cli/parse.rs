//! `ringfence rules parse`: a condition's syntax tree, nothing looked up.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::rules::visible;
use crate::config::OutputFormat;
use crate::rules::condition::SyntaxError;
use crate::rules::{Diagnostic, syntax};

/// A condition may have this many bytes.
const MAX_CONDITION: u64 = 1 << 20;

/// What came of it.
pub(super) enum Parsed {
    /// The tree.
    Tree(String),
    /// A syntax error: for people, and for programs.
    Wrong { report: String, json: String },
}

/// The condition that is meant, with a name for messages.
pub(super) fn source(expression: Option<String>, file: Option<PathBuf>) -> Result<(String, String), Failure> {
    let stdin = Path::new("-");
    match (expression, file) {
        (Some(text), None) if text != "-" => Ok(("expression".to_owned(), text)),
        (_, Some(path)) if path != stdin => {
            let name = path.display().to_string();
            let text = std::fs::File::open(&path).and_then(read).map_err(|error| {
                Failure::environment(format_args!("cannot read {}: {error}", visible(&name)))
            })?;
            Ok((name, text))
        }
        _ => {
            let text = read(io::stdin().lock())
                .map_err(|error| Failure::environment(format_args!("cannot read standard input: {error}")))?;
            Ok(("standard input".to_owned(), text))
        }
    }
}

/// Reads a condition to its end.
fn read(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    let bytes = from.take(MAX_CONDITION + 1).read_to_string(&mut text)?;
    if bytes as u64 > MAX_CONDITION {
        let message = format!("larger than {} MiB, which no condition needs", MAX_CONDITION >> 20);
        return Err(io::Error::other(message));
    }
    Ok(text)
}

/// Parses a condition.
pub(super) fn parse(name: &str, text: &str, color: bool) -> Parsed {
    match syntax::tree(text) {
        Ok(tree) => Parsed::Tree(format!("{tree:#}\n")),
        Err(error) => Parsed::Wrong {
            report: report(name, text, &error, color),
            json: format!("{:#}\n", syntax::error(text, &error)),
        },
    }
}

fn report(name: &str, text: &str, error: &SyntaxError, color: bool) -> String {
    let at = syntax::Position::at(text, error.offset);
    format!(
        "{}:{}:{}: {} (byte {})\n{}",
        visible(name),
        at.line,
        at.column,
        error.message,
        at.offset,
        Diagnostic::syntax(&visible(name), text, error).render(color)
    )
}

/// Prints a syntax error: for people on standard error, and for programs, if asked for, on standard output.
pub(super) fn print_wrong(report: &str, json: &str, output: OutputFormat) -> Result<(), Failure> {
    // Nobody may be left to read it.
    let _ = io::stderr().lock().write_all(report.as_bytes());
    if output == OutputFormat::Json { crate::cli::emit(json) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_gives_its_tree() {
        let Parsed::Tree(text) = parse("expression", "unknown_macro and no.such = val(x.y)", false) else {
            panic!("not parsed");
        };
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(tree["members"][0]["name"], "unknown_macro");
    }

    #[test]
    fn a_syntax_error_says_where() {
        let Parsed::Wrong { report, json } = parse("expression", "a and\n  b c", false) else {
            panic!("parsed")
        };
        assert!(report.starts_with("expression:2:5: expected `and`, `or` or the end"), "{report}");
        assert!(report.contains("(byte 10)") && report.contains("  b c"), "{report}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["error"]["offset"], 10);
    }

    #[test]
    fn conditions_are_read_from_files_up_to_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        std::fs::write(&path, "a and b\n").unwrap();
        assert_eq!(source(None, Some(path.clone())).unwrap().1, "a and b\n");
        std::fs::write(&path, " ".repeat((MAX_CONDITION + 1) as usize)).unwrap();
        assert!(source(None, Some(path)).is_err());
        assert!(source(None, Some(dir.path().join("none"))).is_err());
        assert_eq!(source(Some("x".to_owned()), None).unwrap().1, "x");
    }
}
