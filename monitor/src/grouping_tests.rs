//! Groups under test: exact counts, periods, late events, other boots, no room.

use std::borrow::Cow;

use super::*;
use crate::fields::{Field, FieldArg, FieldRef, Value};
use crate::rules::RuleSet;

const SECOND: u64 = 1_000_000_000;

fn rules() -> RuleSet {
    let rule = |id: &str, keys: &str| {
        format!(
            "- rule: {id}\n  id: {id}\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: NOTICE\n{keys}"
        )
    };
    let text = rule("grouped", "  group_by: [proc.name]\n  group_seconds: 10\n") + &rule("single", "");
    RuleSet::from_sources(&[("r.yaml", &text)]).unwrap()
}

fn form(rule: &Rule) -> AlertForm {
    AlertForm::new(&rule.into(), "h")
}

fn event(name: &str) -> FieldValues {
    let mut values = FieldValues::default();
    let field = FieldRef { field: Field::ProcName, arg: FieldArg::None };
    values.set(field, Value::Text(Cow::Owned(name.to_owned()))).unwrap();
    values
}

/// Judges an alert of the program of this name, at this time in seconds.
fn judge(groups: &mut Groups, rule: &Rule, name: &str, seconds: u64) -> Verdict {
    let at = Moment { boot_ns: 100 * SECOND + seconds * SECOND, unix_ns: (seconds * SECOND) as i64 };
    groups.judge(rule, &form(rule), (&event(name), name, None), at)
}

fn told(summaries: Vec<Summary>) -> Vec<(String, u64, i64, i64)> {
    summaries
        .into_iter()
        .map(|summary| {
            assert_eq!(summary.values, event(&summary.output));
            let Grouped { count, first_unix_ns, last_unix_ns } = summary.grouped;
            let second = SECOND as i64;
            (summary.output, count, first_unix_ns / second, last_unix_ns / second)
        })
        .collect()
}

fn due(groups: &mut Groups, seconds: u64) -> Vec<(String, u64, i64, i64)> {
    let now = 100 * SECOND + seconds * SECOND;
    if groups.is_due(now) { told(groups.due(now)) } else { Vec::new() }
}

fn row(name: &str, count: u64, first: i64, last: i64) -> (String, u64, i64, i64) {
    (name.to_owned(), count, first, last)
}

#[test]
fn the_first_passes_and_the_others_are_told_once_per_period() {
    let (rules, mut groups) = (rules(), Groups::default());
    let rule = &rules.rules()[0];
    assert_eq!(judge(&mut groups, rule, "a", 0), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "b", 1), Verdict::Pass);
    for seconds in [2, 5, 9] {
        assert_eq!(judge(&mut groups, rule, "a", seconds), Verdict::Held);
    }
    assert!(due(&mut groups, 9).is_empty());
    assert_eq!(due(&mut groups, 10), [row("a", 3, 2, 9)]);
    // `a` goes on, silent so far; `b` ends.
    assert_eq!(judge(&mut groups, rule, "a", 12), Verdict::Held);
    assert!(due(&mut groups, 11).is_empty());
    assert_eq!(groups.len(), 1);
    assert_eq!(due(&mut groups, 20), [row("a", 1, 12, 12)]);
    // A period without any, and the next is a first one again.
    assert!(due(&mut groups, 30).is_empty() && groups.is_empty());
    assert_eq!(judge(&mut groups, rule, "a", 31), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "a", 32), Verdict::Held);
    // Nobody looked for several periods: it is told once, and over.
    assert_eq!(due(&mut groups, 300), [row("a", 1, 32, 32)]);
    assert!(groups.is_empty());
}

#[test]
fn rules_that_say_nothing_and_other_keys_are_left_alone() {
    let (rules, mut groups) = (rules(), Groups::default());
    for name in ["a", "a", "b"] {
        assert_eq!(judge(&mut groups, &rules.rules()[1], name, 0), Verdict::Pass);
    }
    assert!(groups.is_empty() && !groups.is_due(u64::MAX));
}

#[test]
fn late_ones_count_and_the_end_tells_all_in_order() {
    let (rules, mut groups) = (rules(), Groups::default());
    let rule = &rules.rules()[0];
    assert_eq!(judge(&mut groups, rule, "a", 5), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "a", 7), Verdict::Held);
    assert_eq!(judge(&mut groups, rule, "a", 3), Verdict::Held);
    assert_eq!(judge(&mut groups, rule, "b", 6), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "b", 6), Verdict::Held);
    assert_eq!(judge(&mut groups, rule, "c", 4), Verdict::Pass);
    assert_eq!(told(groups.end()), [row("a", 2, 3, 7), row("b", 1, 6, 6)]);
    assert!(groups.is_empty() && !groups.is_due(u64::MAX));
    assert_eq!(judge(&mut groups, rule, "a", 8), Verdict::Pass);
}

#[test]
fn another_boot_begins_anew() {
    let (rules, mut groups) = (rules(), Groups::default());
    let rule = &rules.rules()[0];
    assert_eq!(judge(&mut groups, rule, "a", 1000), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "a", 1001), Verdict::Held);
    assert_eq!(judge(&mut groups, rule, "a", 0), Verdict::Pass);
    assert_eq!(due(&mut groups, 1), [row("a", 1, 1001, 1001)]);
    assert_eq!(judge(&mut groups, rule, "a", 2), Verdict::Held);
    assert_eq!(due(&mut groups, 10), [row("a", 1, 2, 2)]);
}

#[test]
fn without_room_alerts_pass_and_are_counted() {
    let (rules, mut groups) = (rules(), Groups::default());
    let rule = &rules.rules()[0];
    for i in 0..MAX_GROUPS + 3 {
        assert_eq!(judge(&mut groups, rule, &format!("p{i}"), 0), Verdict::Pass);
    }
    assert_eq!(judge(&mut groups, rule, &format!("p{MAX_GROUPS}"), 1), Verdict::Pass);
    assert_eq!(judge(&mut groups, rule, "p0", 1), Verdict::Held);
    assert_eq!((groups.len(), groups.take_overflows(), groups.take_overflows()), (MAX_GROUPS, 4, 0));
}
