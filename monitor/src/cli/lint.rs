//! `ringfence rules lint`: what in rule files is most likely not what was meant.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::Failure;
use super::check::{count, render};
use super::rules_command::RuleFiles;
use crate::config::OutputFormat;
use crate::rules::Diagnostic;
use crate::rules::lint::{self, Found, Unlinted};

/// What `rules lint` prints, and whether anything is wrong.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) text: String,
    pub(super) wrong: bool,
}

pub(super) fn report(
    files: &RuleFiles,
    events: Option<&Path>,
    output: OutputFormat,
    color: bool,
) -> Result<Report, Failure> {
    let found = match lint::lint(&files.paths, &files.options, events) {
        Ok(found) => found,
        Err(Unlinted::Events(error)) => {
            let name = events.unwrap_or(Path::new("events")).display();
            return Err(Failure::environment(format_args!(
                "cannot read recorded events from {name}: {error}"
            )));
        }
        Err(Unlinted::Load(error)) => {
            let errors = error.diagnostics();
            let text = match output {
                OutputFormat::Json => {
                    let errors: Json = errors.iter().map(|error| as_json("error", error)).collect();
                    format!("{:#}\n", json!({ "errors": errors, "findings": [] }))
                }
                OutputFormat::Text => {
                    render(errors, color)
                        + "wrong: these rules cannot be loaded, so they were not looked at\n"
                }
            };
            return Ok(Report { text, wrong: true });
        }
    };
    let notes = found.iter().filter(|found| found.note).count();
    let warnings = found.len() - notes;
    let text = match output {
        OutputFormat::Json => {
            let findings: Json = found.iter().map(finding).collect();
            format!("{:#}\n", json!({ "errors": [], "findings": findings }))
        }
        OutputFormat::Text => {
            let mut text: String = found.iter().map(|found| shown(found, color)).collect();
            let verdict = if warnings == 0 { "clean" } else { "found" };
            text += &format!("{verdict}: {}, {}\n", count(warnings, "warning"), count(notes, "note"));
            text
        }
    };
    Ok(Report { text, wrong: warnings > 0 })
}

/// A finding with its kind, so that a comment can silence it.
fn shown(found: &Found, color: bool) -> String {
    let what = if found.note { "note" } else { "warning" };
    format!("{what}: {}\n{}", found.kind.word(), found.diagnostic.render(color))
}

fn finding(found: &Found) -> Json {
    let mut json = json!({ "kind": found.kind.word() });
    let rest = as_json(if found.note { "note" } else { "warning" }, &found.diagnostic);
    if let (Some(json), Json::Object(rest)) = (json.as_object_mut(), rest) {
        json.extend(rest);
    }
    json
}

/// Something wrong, for programs.
pub(super) fn as_json(level: &str, diagnostic: &Diagnostic) -> Json {
    let place = diagnostic.line_column();
    json!({
        "level": level,
        "file": diagnostic.file_name(),
        "line": place.map(|(line, _)| line),
        "column": place.map(|(_, column)| column),
        "message": diagnostic.message(),
        "help": diagnostic.hint(),
    })
}
