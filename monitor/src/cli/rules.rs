//! `ringfence rules`: what is loaded, and what one rule means.

pub(super) mod event;
pub(super) mod explain;
pub(super) mod test;

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::alert::push_visible;
use crate::cli::Failure;
use crate::config::OutputFormat;
use crate::event_type::EventType;
use crate::rules::{Rule, RuleSet};

/// A rule file's text as a terminal may see it.
pub(super) fn visible(text: &str) -> String {
    let mut out = Vec::new();
    push_visible(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// As [`visible`], but line feeds stay.
fn visible_lines(text: &str, indent: &str) -> String {
    text.lines().map(|line| format!("{indent}{}\n", visible(line))).collect()
}

fn types(rule: &Rule) -> Vec<&'static str> {
    rule.types().iter().map(EventType::name).collect()
}

fn as_json(rule: &Rule) -> Json {
    json!({
        "id": rule.id,
        "name": rule.name,
        "priority": rule.priority.as_str(),
        "enabled": rule.enabled,
        "maturity": rule.maturity,
        "source": rule.source,
        "tags": rule.tags,
        "attack": rule.attack,
        "event_types": types(rule),
        "desc": rule.desc,
        "condition": rule.condition,
        "threshold": rule.threshold.as_ref().map(ToString::to_string),
        "grouping": rule.grouping.as_ref().map(ToString::to_string),
        "output": rule.output_text,
        "references": rule.references,
    })
}

/// All rules in the order of the files.
pub(super) fn list(set: &RuleSet, output: OutputFormat) -> String {
    if output == OutputFormat::Json {
        return format!("{:#}\n", set.rules().iter().map(as_json).collect::<Json>());
    }
    let width = set.rules().iter().map(|rule| visible(&rule.id).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for rule in set.rules() {
        let (id, name) = (visible(&rule.id), visible(&rule.name));
        let off = if rule.enabled { "" } else { " (disabled)" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{id:width$}  {:13}  {name}{off}", rule.priority.as_str());
    }
    text
}

/// The rule of this id, otherwise of this name.
fn find<'s>(set: &'s RuleSet, id: &str) -> Result<&'s Rule, Failure> {
    let by_id = set.rules().iter().find(|rule| rule.id == id);
    by_id.or_else(|| set.rules().iter().find(|rule| rule.name == id)).ok_or_else(|| {
        let id = visible(id);
        Failure::environment(format_args!("no rule has the id `{id}`; `ringfence rules list` shows all ids"))
    })
}

/// One rule, found by its id, otherwise by its name.
pub(super) fn show(set: &RuleSet, id: &str, output: OutputFormat) -> Result<String, Failure> {
    let rule = find(set, id)?;
    if output == OutputFormat::Json {
        return Ok(format!("{:#}\n", as_json(rule)));
    }
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{key:10}  {}", visible(value));
        }
    };
    line("id", &rule.id);
    line("name", &rule.name);
    line("priority", rule.priority.as_str());
    line("enabled", if rule.enabled { "yes" } else { "no" });
    line("maturity", rule.maturity.as_deref().unwrap_or_default());
    line("tags", &rule.tags.join(", "));
    line("ATT&CK", &rule.attack.join(", "));
    line("events", &types(rule).join(", "));
    line("threshold", &rule.threshold.as_ref().map(ToString::to_string).unwrap_or_default());
    line("grouping", &rule.grouping.as_ref().map(ToString::to_string).unwrap_or_default());
    for reference in &rule.references {
        line("see", reference);
    }
    for (title, body) in
        [("meaning", &rule.desc), ("condition", &rule.condition), ("output", &rule.output_text)]
    {
        let _ = write!(text, "\n{title}\n{}", visible_lines(body.trim_end(), "  "));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
