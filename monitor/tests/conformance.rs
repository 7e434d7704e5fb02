//! What Falco's documentation says a condition means: one row for each sentence that states a behaviour, in our words.
//!
//! The rows stand in `conformance_table`. Where Ringfence differs on purpose, the row says so and has our outcome.

mod conformance_table;
mod rules_common;

use std::collections::HashSet;

use conformance_table::{CONDITIONS, Expected, Given, OUTPUTS, PRIORITIES, Row};
use monitor::fields::{Value, owned_list};
use monitor::rules::RuleSet;
use monitor_common::call::Call;
use rules_common::{Fake, matching};

/// Lists and macros that rows may name.
const NAMES: &str = "
- list: shells
  items: [bash, dash]
- list: programs
  items: [shells, nginx]
- list: nothing
  items: []
- macro: in_container
  condition: container.id != host
- macro: shell_in_container
  condition: in_container and proc.name in (shells)
";

fn event(values: &[(&'static str, Given)]) -> Fake {
    let start = Fake::default().text("evt.type", "setns");
    values.iter().fold(start, |event, (field, value)| {
        let value = match value {
            Given::Text(text) => Value::text(text),
            Given::Number(number) => Value::Number(*number),
            Given::Bool(truth) => Value::Bool(*truth),
            Given::List(members) => owned_list(members.iter().map(|&member| member.to_owned())),
        };
        event.set(field, value)
    })
}

fn file(condition: &str, output: &str) -> String {
    format!(
        "{NAMES}- rule: R\n  desc: d\n  condition: {}\n  output: {}\n  priority: DEBUG\n",
        serde_json::to_string(condition).unwrap(),
        serde_json::to_string(output).unwrap()
    )
}

#[test]
fn every_sentence_about_conditions_holds() {
    let mut wrong = Vec::new();
    for Row { says, condition, event: values, expected } in CONDITIONS {
        let outcome = match RuleSet::from_sources(&[("t.yaml", &file(condition, "o"))]) {
            Ok(set) if matching(&set, Call::Setns, &event(values)).is_empty() => Expected::False,
            Ok(_) => Expected::True,
            Err(_) => Expected::Refused,
        };
        if outcome != *expected {
            wrong.push(format!("{says}\n    {condition}\n    is {outcome:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_sentence_about_outputs_holds() {
    for (says, output, values, expected) in OUTPUTS {
        let set = RuleSet::from_sources(&[("t.yaml", &file("evt.type = setns", output))])
            .unwrap_or_else(|error| panic!("{says}\n{error}"));
        let mut text = String::new();
        set.rules()[0].output.render(&event(values), &mut text);
        assert_eq!(text, *expected, "{says}");
    }
}

#[test]
fn every_priority_is_read_in_any_letter_case_and_ordered() {
    let mut last = None;
    for (words, name) in PRIORITIES {
        for word in *words {
            let file = file("evt.type = setns", "o").replace("DEBUG", word);
            let set = RuleSet::from_sources(&[("t.yaml", &file)]).unwrap_or_else(|error| panic!("{error}"));
            let priority = set.rules()[0].priority;
            assert_eq!(priority.as_str(), *name, "{word}");
        }
        let priority = name.parse::<monitor::rules::Priority>().unwrap();
        assert!(last.is_none_or(|last| last > priority), "{name} weighs less than the one before");
        last = Some(priority);
    }
}

#[test]
fn no_sentence_stands_there_twice() {
    let mut seen = HashSet::new();
    for row in CONDITIONS {
        assert!(seen.insert((row.says, row.condition, format!("{:?}", row.event))), "{}", row.condition);
    }
    let refused = CONDITIONS.iter().filter(|row| row.expected == Expected::Refused).count();
    let held = CONDITIONS.iter().filter(|row| row.expected == Expected::True).count();
    assert!(refused > 10 && held > 40, "{refused} {held}: a table that cannot fail proves nothing");
}
