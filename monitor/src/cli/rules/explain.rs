//! `ringfence rules explain`: the condition as a tree, with the values and the outcome of each part.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value as Json, json};
use unicode_width::UnicodeWidthStr as _;

use super::{event, visible};
use crate::alert::json_visible;
use crate::cli::rules_command::RuleFiles;
use crate::cli::{Failure, emit};
use crate::config::OutputFormat;
use crate::rules::{Explained, Part, Rule, Sample, field_text};

/// Columns of the text.
const COLUMNS: usize = 110;

/// Explains a rule of these files for an event.
pub(in crate::cli) fn run(
    files: &RuleFiles,
    id: &str,
    event: &Path,
    output: OutputFormat,
) -> Result<ExitCode, Failure> {
    let set = files.load()?;
    let rule = super::find(&set, id)?;
    let sample = event::read(event)?;
    emit(&match output {
        OutputFormat::Text => text(rule, &sample),
        OutputFormat::Json => json(rule, &sample),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The fields that a rule reads and an alert does not tell of: it has only some of its event's.
fn not_told(rule: &Rule, sample: &Sample) -> Vec<String> {
    let mut names = Vec::new();
    if sample.from_alert {
        rule.each_field(|field| {
            let name = field_text(field);
            if !sample.names(field) && !names.contains(&name) {
                names.push(name);
            }
        });
    }
    names
}

pub(super) fn text(rule: &Rule, sample: &Sample) -> String {
    let explained = rule.explain(&sample.values);
    let outcome = if explained.holds { "matches" } else { "does not match" };
    let mut lines = vec![format!("{} {outcome} this event of type {}.", visible(&rule.id), sample.ty.name())];
    lines.push(if explained.holds {
        "Marked by >: a smallest set of sub-conditions that makes it match.".to_owned()
    } else {
        "Marked by >: the nearest miss; each of them had to come out otherwise.".to_owned()
    });
    if !rule.enabled {
        lines.push("The rule is not enabled, so it raises no alert.".to_owned());
    }
    let missing = not_told(rule, sample);
    if !missing.is_empty() {
        let note = format!("The alert does not tell, so taken as absent: {}.", missing.join(", "));
        lines.extend(wrapped(&visible(&note), COLUMNS));
    }
    lines.push(String::new());
    tree(&explained, 0, &mut lines);
    lines.join("\n") + "\n"
}

fn tree(part: &Explained<'_>, depth: usize, lines: &mut Vec<String>) {
    // A condition may nest deeper than a screen is wide.
    let indent = "  ".repeat(depth.min(COLUMNS / 4));
    let mark = match &part.part {
        Part::Test { .. } if part.decided => '>',
        _ => ' ',
    };
    let front = format!("{mark} {:5}  {indent}", part.holds);
    match &part.part {
        Part::Any => lines.push(front + "any of:"),
        Part::All => lines.push(front + "all of:"),
        Part::Not => lines.push(front + "not:"),
        Part::Macro(name) => lines.push(format!("{front}{}:", visible(name))),
        Part::Test { text, values } => {
            let values: Vec<String> = values
                .iter()
                .map(|(name, value)| format!("{}={}", visible(name), event::shown(value)))
                .collect();
            let behind = format!("         {indent}    ");
            lines.extend(with_values(front + &visible(text), &behind, &values));
        }
    }
    part.members.iter().for_each(|member| tree(member, depth + 1, lines));
}

/// A test's line with its values behind it, or below it where they find no room.
pub(super) fn with_values(head: String, indent: &str, values: &[String]) -> Vec<String> {
    const GAP: &str = "   ";
    let behind = values.join(", ");
    if head.width() + GAP.len() + behind.width() <= COLUMNS {
        return vec![if behind.is_empty() { head } else { format!("{head}{GAP}{behind}") }];
    }
    let mut lines = Vec::new();
    let room = COLUMNS.saturating_sub(indent.width()).max(20);
    let words = head.trim_start();
    let front = &head[..head.len() - words.len()];
    for (i, line) in wrapped(words, room).into_iter().enumerate() {
        lines.push(format!("{}{line}", if i == 0 { front } else { indent }));
    }
    for value in values {
        lines.extend(wrapped(value, room).into_iter().map(|line| format!("{indent}{line}")));
    }
    lines
}

/// Breaks a text at blanks, and within a word that is longer than a line.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut width = 0;
    for (i, word) in text.split(' ').enumerate() {
        let wanted = word.width() + usize::from(i > 0);
        if width + wanted > columns && width > 0 {
            lines.push(String::new());
            width = 0;
        } else if i > 0 {
            push(&mut lines, ' ');
            width += 1;
        }
        for c in word.chars() {
            let wide = c.to_string().width();
            if width + wide > columns {
                lines.push(String::new());
                width = 0;
            }
            push(&mut lines, c);
            width += wide;
        }
    }
    lines
}

fn push(lines: &mut [String], c: char) {
    if let Some(line) = lines.last_mut() {
        line.push(c);
    }
}

pub(super) fn json(rule: &Rule, sample: &Sample) -> String {
    let explained = rule.explain(&sample.values);
    let whole = json!({
        "rule_id": rule.id,
        "rule": rule.name,
        "enabled": rule.enabled,
        "event_type": sample.ty.name(),
        "matches": explained.holds,
        "not_in_alert": not_told(rule, sample),
        "condition": as_json(&explained),
    });
    json_visible(&format!("{whole:#}")) + "\n"
}

fn as_json(part: &Explained<'_>) -> Json {
    let mut json = match &part.part {
        Part::Any => json!({ "kind": "or" }),
        Part::All => json!({ "kind": "and" }),
        Part::Not => json!({ "kind": "not" }),
        Part::Macro(name) => json!({ "kind": "macro", "name": name }),
        Part::Test { text, values } => {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), event::json(value)));
            json!({ "kind": "test", "condition": text, "values": Json::Object(values.collect()) })
        }
    };
    json["holds"] = part.holds.into();
    json["decided"] = part.decided.into();
    if !part.members.is_empty() {
        json["members"] = part.members.iter().map(as_json).collect();
    }
    json
}
