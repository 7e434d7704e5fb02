//! Tests inside rules: read, run, and what is told of one that does not come out.

use super::*;
use crate::rules::diagnostic::LoadError;

/// A rule set of one rule with these tests.
fn load(condition: &str, tests: &str) -> Result<RuleSet, LoadError> {
    let text = format!(
        "- list: opens\n  items: [open, openat]\n- macro: on_host\n  condition: container.id = host\n\
         - macro: in_container\n  condition: not on_host and not (evt.phase = starting and not on_host)\n\
         - rule: R\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n  enabled: false\n  tests:{tests}\n"
    );
    RuleSet::from_sources(&[("r.yaml", &text)])
}

fn one(condition: &str, event: &str, matches: bool) -> RuleSet {
    load(condition, &format!(" [{{name: t, event: {{{event}}}, match: {matches}}}]"))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// What decided for an event, with the outcomes.
fn why(condition: &str, event: &str) -> Vec<String> {
    let set = one(condition, event, true);
    let rule = &set.rules()[0];
    let reasons = rule.why(&rule.tests[0].event.values);
    reasons.iter().map(|reason| format!("{} {}", reason.condition, reason.holds)).collect()
}

#[test]
fn a_test_comes_out_or_tells_the_nearest_miss() {
    let condition = "evt.type in (opens, creat) and in_container and evt.verdict = allowed";
    let good = "evt.type: openat, container.id: abc, evt.verdict: allowed";
    assert!(one(condition, good, true).run_tests().passed());
    let report = one(condition, good, false).run_tests();
    assert!(!report.passed());
    let wrong = &report.rules[0].tests[0];
    assert_eq!((wrong.expected, wrong.matched, wrong.line, &*wrong.file), (false, true, 13, "r.yaml"));
    let conditions: Vec<&str> = wrong.reasons.iter().map(|reason| &*reason.condition).collect();
    assert_eq!(
        conditions,
        [
            "evt.type in (opens, creat)",
            "container.id = host",
            "evt.phase = starting",
            "evt.verdict = allowed"
        ]
    );

    let report = one(condition, "evt.type: open, container.id: abc, evt.verdict: refused", true).run_tests();
    let wrong = &report.rules[0].tests[0];
    assert_eq!(wrong.reasons.len(), 1);
    assert_eq!((&*wrong.reasons[0].condition, wrong.reasons[0].holds), ("evt.verdict = allowed", false));
    assert_eq!(wrong.reasons[0].values, [("evt.verdict".into(), crate::fields::Value::text("refused"))]);
    let two = why(condition, "evt.type: setns, container.id: abc");
    assert_eq!(two, ["evt.type in (opens, creat) false", "evt.verdict = allowed false"]);
}

#[test]
fn the_smallest_set_is_found() {
    let or = "(proc.name = a and proc.pname = a) or proc.exe = a or proc.cwd = a";
    assert_eq!(why(or, "evt.type: open, proc.name: a, proc.pname: a, proc.cwd: a"), ["proc.cwd = a true"]);
    // One condition that stands in two places is one: both would change.
    let twice = "(proc.name = a and proc.pname = a) or (proc.name = a and proc.exe = b)";
    assert_eq!(why(twice, "evt.type: open, proc.exe: b"), ["proc.name = a false"]);
    // On the host, `in_container` rests on one fact although it asks for it twice.
    assert_eq!(why("in_container", "evt.type: open, container.id: host"), ["container.id = host true"]);
    assert_eq!(why("in_container", "evt.type: open, evt.phase: starting"), ["evt.phase = starting true"]);
    // A value that a transformer made stands beside the field.
    let set = one("tolower(proc.name) = nc", "evt.type: open, proc.name: NC", true);
    let rule = &set.rules()[0];
    let reasons = rule.why(&rule.tests[0].event.values);
    let values: Vec<String> =
        reasons[0].values.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(values, ["tolower(proc.name)=nc", "proc.name=NC"]);
}

#[test]
fn the_example_of_the_reference_is_complete() {
    let set = RuleSet::from_sources(&[("example.yaml", crate::rules::reference::TESTED_RULE)]);
    let set = set.unwrap_or_else(|error| panic!("{error}"));
    let report = set.run_tests();
    assert!(report.passed() && report.count() == 2, "{report:?}");
    assert_eq!(set.rules()[0].gaps(), Gaps::default());
}

#[test]
fn gaps_are_told() {
    let gaps =
        |tests: &str| load("evt.type = setns and evt.verdict = allowed", tests).unwrap().rules()[0].gaps();
    assert_eq!(gaps(" []"), Gaps { no_match: true, no_near_miss: true });
    let good = "\n  - {name: a, event: {evt.type: setns, evt.verdict: allowed}, match: true}\n";
    let near = "  - {name: b, event: {evt.type: setns, evt.verdict: failed}, match: false}\n";
    let far = "  - {name: b, event: {evt.type: open, evt.verdict: failed}, match: false}\n";
    // It says so, but it does not match.
    let untrue = "\n  - {name: a, event: {evt.type: setns, evt.verdict: failed}, match: true}\n";
    assert_eq!(gaps(good), Gaps { no_match: false, no_near_miss: true });
    assert_eq!(gaps(&format!("{good}{near}")), Gaps::default());
    assert_eq!(gaps(&format!("{good}{far}")), Gaps { no_match: false, no_near_miss: true });
    assert_eq!(gaps(&format!("{untrue}{near}")), Gaps { no_match: true, no_near_miss: false });
}

#[test]
fn what_is_wrong_in_a_test_is_an_error_of_the_file() {
    let wrong = |tests: &str| {
        let error = load("evt.type = setns", tests).unwrap_err();
        let line = |found: &crate::rules::Diagnostic| {
            let hint = found.hint().map_or(String::new(), |hint| format!(" ({hint})"));
            format!("{}{hint}", found.message())
        };
        error.diagnostics().iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(wrong(" x"), ["`tests` must be a sequence, found a value"]);
    assert_eq!(
        wrong(" [{nam: a, event: {evt.type: setns}, match: yes, match: true, name: ~}, x]"),
        [
            "unknown key `nam` in a test (did you mean `name`?)",
            "`match` must be `true` or `false`",
            "the key `match` stands twice in this test",
            "`name` must be a text that says what the test shows",
            "a test is a mapping of `name`, `event` and `match`, found a value",
        ]
    );
    let twice = " [{name: a, event: {evt.type: setns}, match: true}, {name: a, event: {evt.type: open}, match: true}]";
    assert_eq!(wrong(twice), ["this rule has two tests with the name `a`"]);
    assert_eq!(wrong(" [{name: a, match: true}]"), ["this test has no `event`"]);
    let error = wrong(" [{name: a, event: {evt.type: setns, evt.verdct: allowed}, match: true}]");
    assert_eq!(error, ["unknown field `evt.verdct` (did you mean `evt.verdict`?)"]);
}

#[test]
fn a_condition_that_is_nested_to_the_limit_is_explained() {
    let mut text = "- macro: m0\n  condition: proc.name = a\n".to_owned();
    for i in 1..140 {
        text += &format!("- macro: m{i}\n  condition: not m{}\n", i - 1);
    }
    let many = vec!["m139"; 2000].join(" or ");
    text += &format!("- rule: R\n  desc: d\n  condition: {many}\n  output: o\n  priority: INFO\n");
    let set = RuleSet::from_sources(&[("r.yaml", &text)]).unwrap();
    let event = crate::fields::FieldValues::default();
    let rule = &set.rules()[0];
    let started = std::time::Instant::now();
    assert!(rule.explain(&event).holds);
    assert!(!rule.why(&event).is_empty());
    // A tree of all macros would have 560,000 parts.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
