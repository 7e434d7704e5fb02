//! Comments that silence findings: `# lint: allow shadowed: the other one goes with the next release`.
//!
//! Such a comment stands in an item, or right above it, and is for that item. It names one or more kinds, separated by
//! commas, and gives a reason. One that silences nothing is itself reported, so that none outlives its cause.

use super::{Found, Kind};
use crate::rules::ast::Span;
use crate::rules::diagnostic::{Diagnostic, Source, did_you_mean};
use crate::rules::yaml;

/// What begins such a comment, behind `#` and blanks.
const MARK: &str = "lint:";

/// An item of a file, with its comments.
struct Stretch {
    /// Its first line, from 1, or that of the comment right above it.
    first: usize,
    /// The line behind its last one.
    end: usize,
    allows: Vec<Allow>,
}

struct Allow {
    kind: Kind,
    at: Diagnostic,
    used: bool,
}

/// Takes out what comments silence, and adds what is wrong with the comments.
pub(super) fn silence(sources: &[Source], found: &mut Vec<Found>) {
    let mut files: Vec<(&str, Vec<Stretch>)> =
        sources.iter().map(|source| (source.name(), stretches(source, found))).collect();
    found.retain(|found| {
        let (Some(kind), Some((line, _))) = (found.silenced_as(), found.diagnostic.line_column()) else {
            return true;
        };
        let stretches = files.iter_mut().filter(|(name, _)| *name == found.diagnostic.file_name());
        let stretch =
            stretches.flat_map(|(_, stretches)| stretches).find(|item| item.first <= line && line < item.end);
        let allows = stretch.into_iter().flat_map(|stretch| &mut stretch.allows);
        let mut silenced = false;
        for allow in allows.filter(|allow| allow.kind == kind) {
            allow.used = true;
            silenced = true;
        }
        !silenced
    });
    for allow in files.into_iter().flat_map(|(_, stretches)| stretches).flat_map(|stretch| stretch.allows) {
        if !allow.used {
            found.push(Found::new(Kind::AllowIdle, allow.at.help("take the comment out")));
        }
    }
}

/// The items of a file.
fn stretches(source: &Source, found: &mut Vec<Found>) -> Vec<Stretch> {
    let text = source.inner();
    let documents = yaml::parse(text).unwrap_or_default();
    let items = documents.into_iter().flat_map(|document| match document.kind {
        yaml::Kind::Sequence(items) => items,
        _ => Vec::new(),
    });
    let line_of = |offset: usize| text.get(..offset).unwrap_or_default().matches('\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let comment = |line: usize| lines.get(line).is_some_and(|line| line.trim_start().starts_with('#'));
    let mut firsts: Vec<usize> = items
        .map(|item| {
            let mut first = line_of(item.span.start);
            while first > 0 && comment(first - 1) {
                first -= 1;
            }
            first
        })
        .collect();
    firsts.sort_unstable();
    let mut offset = 0;
    let starts: Vec<usize> = text
        .split_inclusive('\n')
        .map(|line| {
            let start = offset;
            offset += line.len();
            start
        })
        .collect();
    let mut stretches = Vec::new();
    for (i, first) in firsts.iter().enumerate() {
        let end = firsts.get(i + 1).copied().unwrap_or(lines.len());
        let mut allows = Vec::new();
        for line in *first..end {
            let Some(written) = lines.get(line) else { continue };
            let Some(body) = written.trim_start().strip_prefix('#').map(str::trim_start) else { continue };
            let Some(body) = body.strip_prefix(MARK) else { continue };
            let start =
                starts.get(line).copied().unwrap_or_default() + (written.len() - written.trim_start().len());
            let span = Span { start, end: start + written.trim().len() };
            read(source, span, body.trim(), &mut allows, found);
        }
        stretches.push(Stretch { first: first + 1, end: end + 1, allows });
    }
    stretches
}

/// Reads what stands behind the mark.
fn read(source: &Source, span: Span, body: &str, allows: &mut Vec<Allow>, found: &mut Vec<Found>) {
    let mut wrong = |message: String, help: Option<String>| {
        let help = help.unwrap_or_else(|| "write `# lint: allow KIND: reason`".to_owned());
        found.push(Found::new(Kind::AllowWrong, Diagnostic::at(source, span, message).help(help)));
    };
    let Some(rest) = body.strip_prefix("allow").filter(|rest| rest.starts_with(char::is_whitespace)) else {
        return wrong("this comment for the linter says nothing that it knows".to_owned(), None);
    };
    let (kinds, reason) = rest.split_once(':').unwrap_or((rest, ""));
    if reason.trim().is_empty() {
        return wrong("this comment gives no reason".to_owned(), None);
    }
    for word in kinds.split(',').map(str::trim) {
        match Kind::from_word(word) {
            Some(kind) => {
                let message = format!("this comment silences `{word}`, which is not found here");
                allows.push(Allow { kind, at: Diagnostic::at(source, span, message), used: false });
            }
            None => {
                let words = Kind::ALL.iter().map(|kind| kind.word());
                wrong(format!("there is no finding of the kind `{word}`"), did_you_mean(word, words));
            }
        }
    }
}
