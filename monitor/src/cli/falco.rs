//! `ringfence check --falco`: what becomes of each rule of Falco's files.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::cli::check::{Report, count, render};
use crate::cli::rules::visible;
use crate::config::OutputFormat;
use crate::rules::falco::{self, Checked, Note, Standing, Status};
use crate::rules::{Diagnostic, Severity};

const STATUSES: [Status; 4] = [Status::Loads, Status::Degraded, Status::NotLoaded, Status::Wrong];

pub(super) fn report(paths: &[PathBuf], output: OutputFormat, color: bool) -> Report {
    let checked = falco::check(paths);
    let wrong = checked.diagnostics.iter().any(|found| found.severity() == Severity::Error);
    let text = match output {
        OutputFormat::Json => format!("{:#}\n", as_json(&checked)),
        OutputFormat::Text => as_text(&checked, color),
    };
    Report { text, wrong }
}

fn of_status(checked: &Checked, status: Status) -> usize {
    checked.standings.iter().filter(|standing| standing.status == status).count()
}

/// What is wrong, each rule with its notes, and the table.
fn as_text(checked: &Checked, color: bool) -> String {
    // What becomes of a rule stands in its notes; only mistakes and other warnings are printed.
    let told = |found: &&Diagnostic| !checked.standings.iter().any(|standing| is_about(found, standing));
    let found: Vec<Diagnostic> = checked.diagnostics.iter().filter(told).cloned().collect();
    let mut text = render(&found, color);
    let width = STATUSES.iter().map(|status| status.name().len()).max().unwrap_or(0);
    // Writing to a String cannot fail.
    for standing in &checked.standings {
        let off = if standing.enabled { "" } else { " (disabled)" };
        let _ = writeln!(text, "{:width$}  {}{off}", standing.status.name(), visible(&standing.rule));
        for note in &standing.notes {
            let _ = writeln!(text, "{:width$}  {}", "", note_text(note));
        }
    }
    let _ = writeln!(text, "\n{:width$}  rules", "status");
    for status in STATUSES {
        let _ = writeln!(text, "{:width$}  {:>5}", status.name(), of_status(checked, status));
    }
    let errors = checked.diagnostics.iter().filter(|found| found.severity() == Severity::Error).count();
    let _ = writeln!(text, "{:width$}  {:>5}\n", "all", checked.standings.len());
    let (word, rules) = (if errors == 0 { "ok" } else { "wrong" }, count(checked.standings.len(), "rule"));
    let _ = writeln!(text, "{word}: {rules}, {}", count(errors, "error"));
    text
}

/// Whether a warning only says what becomes of a rule.
fn is_about(found: &Diagnostic, standing: &Standing) -> bool {
    let of_rule = matches!(standing.status, Status::Degraded | Status::NotLoaded);
    of_rule
        && found.severity() == Severity::Warning
        && found.file_name() == standing.file
        && found.line_column().is_some_and(|(line, _)| line == standing.line)
}

fn note_text(note: &Note) -> String {
    format!("- {} {}: {}", note.kind.name(), visible(&note.name), note.text)
}

fn as_json(checked: &Checked) -> Json {
    let note = |note: &Note| {
        json!({
            "kind": note.kind.name(),
            "name": note.name,
            "missing": note.missing,
            "text": note.text,
        })
    };
    let rule = |standing: &Standing| {
        json!({
            "rule": standing.rule,
            "file": standing.file,
            "line": standing.line,
            "enabled": standing.enabled,
            "status": standing.status.name(),
            "notes": standing.notes.iter().map(note).collect::<Json>(),
        })
    };
    let diagnostic = |found: &Diagnostic| {
        let (line, column) = found.line_column().unzip();
        json!({
            "severity": if found.severity() == Severity::Error { "error" } else { "warning" },
            "file": found.file_name(),
            "line": line,
            "column": column,
            "message": found.message(),
            "help": found.hint(),
        })
    };
    let summary: serde_json::Map<String, Json> = STATUSES
        .iter()
        .map(|status| (status.name().to_owned(), of_status(checked, *status).into()))
        .collect();
    json!({
        "rules": checked.standings.iter().map(rule).collect::<Json>(),
        "summary": summary,
        "diagnostics": checked.diagnostics.iter().map(diagnostic).collect::<Json>(),
    })
}
