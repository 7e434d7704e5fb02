//! `docs/benign.md`: what the shipped rules raise on a quiet host, rule by rule and part by part.
//!
//! The live suite writes a record of it (`live --benign FILE`, see tests/src/bin/live/benign.rs), `cargo xtask
//! coverage` makes docs/benign.json and the document from the last one. The numbers are of one run and another one's
//! differ, so tests hold only what must not: every shipped rule is there, and none above `Notice` fired.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::environment::{repository, work_dir};

/// The run, and each part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    run: Run,
    parts: Vec<Part>,
}

/// The first line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// `uname -r`; committed without what only that machine knows.
    kernel: String,
    /// The attach mode.
    mode: String,
    /// Every shipped rule, in the order of the files.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    id: String,
    priority: String,
}

/// A further line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// What was done.
    what: String,
    date: String,
    /// The container engine's version.
    engine: Option<String>,
    containers: u64,
    events: u64,
    /// How many, by the rule's id.
    alerts: BTreeMap<String, u64>,
}

/// Where the live suite leaves its record.
pub(crate) fn record_path() -> Result<PathBuf> {
    Ok(work_dir("benign")?.join("native.jsonl"))
}

fn committed_path() -> PathBuf {
    repository().join("docs/benign.json")
}

fn document_path() -> PathBuf {
    repository().join("docs/benign.md")
}

/// Puts the last record, if it is a whole one, in place of the committed one, and makes the document anew.
pub(crate) fn write() -> Result<()> {
    let fresh = record_path()?;
    let text = if fresh.exists() { Some(fs::read_to_string(&fresh)?) } else { None };
    let record = match text.map(|text| gather(&text)).transpose().context("the last run's record")? {
        Some(fresh) if fresh.parts.len() >= committed().map_or(1, |record| record.parts.len()) => fresh,
        // A run with a filter made a part of it only.
        _ => committed()?,
    };
    fs::write(committed_path(), format!("{}\n", serde_json::to_string_pretty(&record)?))?;
    fs::write(document_path(), render(&record))?;
    println!("docs/benign.md: {} rules, {} parts", record.run.rules.len(), record.parts.len());
    Ok(())
}

fn committed() -> Result<Record> {
    let text = fs::read_to_string(committed_path()).context("cannot read docs/benign.json")?;
    serde_json::from_str(&text).context("docs/benign.json")
}

/// Reads the lines of a run.
fn gather(text: &str) -> Result<Record> {
    let mut lines = text.lines();
    let mut run: Run = serde_json::from_str(lines.next().unwrap_or_default())?;
    run.kernel = run.kernel.split('-').next().unwrap_or_default().to_owned();
    let parts = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(Record { run, parts })
}

/// Lays the record out.
fn render(record: &Record) -> String {
    let Record { run, parts } = record;
    let mut text = "<!-- Made by `cargo xtask coverage` from docs/benign.json, the record of a run; do not edit. -->

# What a quiet host raises

The live suite does what hosts do every day, under the shipped rules with every priority shown, and counts the alerts of
each rule. It fails if one comes above Notice. Numbers differ from run to run, with what else the machine does meanwhile.

"
    .to_owned();
    // Writing to a String cannot fail.
    let engine = parts.iter().rev().find_map(|part| part.engine.as_deref()).unwrap_or("none");
    let dates = parts.first().zip(parts.last()).map(|(first, last)| match (&first.date, &last.date) {
        (first, last) if first == last => first.clone(),
        (first, last) => format!("{first} to {last}"),
    });
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
    let _ = writeln!(
        text,
        "Recorded on {}, Linux {}, attach mode {}, Docker Engine {engine}: {} containers, {} events.\n",
        dates.as_deref().unwrap_or("no day"),
        run.kernel,
        run.mode,
        sum(|part| part.containers),
        sum(|part| part.events)
    );
    text.push_str(
        "| | What was done | Containers | Events | Alerts | per 1,000 events |\n|---|---|---|---|---|---|\n",
    );
    for (number, part) in (1..).zip(parts) {
        let alerts: u64 = part.alerts.values().sum();
        let _ = writeln!(
            text,
            "| {number} | {} | {} | {} | {alerts} | {} |",
            part.what,
            part.containers,
            part.events,
            // Rounded to the next whole one.
            (alerts * 1000 + part.events / 2).checked_div(part.events).unwrap_or_default()
        );
    }
    text.push_str("\nThe number of a column is that of the part above; blank is none. Debug and Informational are for a record;\n`min_priority` leaves them out.\n\n");
    let numbers: Vec<String> = (1..=parts.len()).map(|number| number.to_string()).collect();
    let _ = writeln!(text, "| Rule | Priority | {} |", numbers.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(parts.len()));
    for rule in &run.rules {
        let counts = parts.iter().map(|part| match part.alerts.get(&rule.id) {
            Some(count) => count.to_string(),
            None => String::new(),
        });
        let counts: Vec<String> = counts.collect();
        let _ = writeln!(text, "| {} | {} | {} |", rule.id, rule.priority, counts.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that the rule files give, read as lines: whether they load is for other tests.
    fn shipped() -> Vec<String> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(repository().join("rules")).expect("rules/") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "yaml") {
                let text = fs::read_to_string(path).expect("a rule file");
                ids.extend(
                    text.lines().filter_map(|line| Some(line.strip_prefix("  id: ")?.trim().to_owned())),
                );
            }
        }
        ids
    }

    #[test]
    fn every_shipped_rule_is_in_the_record_and_none_above_notice_fired() {
        let record = committed().expect("docs/benign.json");
        let ids: Vec<&str> = record.run.rules.iter().map(|rule| rule.id.as_str()).collect();
        let shipped = shipped();
        assert!(shipped.len() > 30, "{shipped:?}");
        for id in &shipped {
            assert!(ids.contains(&id.as_str()), "{id}: run the live suite and `cargo xtask coverage`");
        }
        for part in &record.parts {
            assert!(part.events > 0, "{}", part.what);
            for id in part.alerts.keys() {
                let rule = record.run.rules.iter().find(|rule| rule.id == *id).expect("a rule of the record");
                let quiet = ["Notice", "Informational", "Debug"].contains(&rule.priority.as_str());
                assert!(quiet, "{id} fired: {}", part.what);
            }
        }
    }

    #[test]
    fn the_document_is_made_from_the_record() {
        let record = committed().expect("docs/benign.json");
        let document = fs::read_to_string(document_path()).expect("docs/benign.md");
        assert_eq!(document, render(&record), "run `cargo xtask coverage`");
    }

    #[test]
    fn a_record_becomes_a_table() {
        let lines = "{\"kernel\":\"6.1.2-that-machine\",\"mode\":\"tracepoint\",\"rules\":[{\"id\":\"a\",\
            \"priority\":\"Notice\"},{\"id\":\"b\",\"priority\":\"Error\"}]}\n{\"what\":\"one\",\"date\":\"2026-01-31\",\
            \"engine\":\"27.0\",\"containers\":5,\"events\":400,\"alerts\":{\"a\":2}}\n{\"what\":\"two\",\"date\":\
            \"2026-01-31\",\"engine\":null,\"containers\":0,\"events\":7,\"alerts\":{}}\n";
        let record = gather(lines).expect("a record");
        let text = render(&record);
        assert!(text.contains("on 2026-01-31, Linux 6.1.2, attach mode tracepoint, Docker Engine 27.0: 5 containers, 407 events"), "{text}");
        assert!(text.contains("| 1 | one | 5 | 400 | 2 | 5 |\n| 2 | two | 0 | 7 | 0 | 0 |\n"), "{text}");
        assert!(text.contains("| a | Notice | 2 |  |\n| b | Error |  |  |\n"), "{text}");
        assert!(gather("").is_err());
    }
}
