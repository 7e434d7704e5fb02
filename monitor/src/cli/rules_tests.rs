//! `rules test`, `rules eval` and `rules explain` under test.

use std::path::PathBuf;

use super::*;
use crate::cli::rules_command::RuleFiles;
use crate::cli::{RulesCommand, TestFormat};
use crate::rules::{Sample, Severity};

const FILE: &str = "- macro: in_container
  condition: container.id != host and not evt.phase = starting
- rule: Set <a> clock & \"more\"
  id: clock
  desc: d
  condition: evt.type in (clock_settime, stime) and in_container and (evt.verdict = allowed or user.uid < 10)
  output: o
  priority: ERROR
  tests:
    - name: it is set
      event: {evt.type: stime, container.id: a, evt.verdict: allowed}
      match: true
    - name: \"wrong \\e[2J <expected>\"
      event: {evt.type: stime, container.id: a, evt.phase: starting, proc.name: \"\\e\", user.uid: 12}
      match: true
    - name: wrong, it matches
      event: {evt.type: stime, container.id: a, user.uid: 7}
      match: false
- rule: Untested
  desc: d
  condition: evt.type = setns
  output: o
  priority: ERROR
";

fn set() -> RuleSet {
    RuleSet::from_sources(&[("dir/r.yaml", FILE)]).unwrap_or_else(|error| panic!("{error}"))
}

fn sample(event: &str) -> Sample {
    Sample::parse("event", event.to_owned()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_report_names_what_is_wrong_and_what_has_no_test() {
    let set = set();
    let report = set.run_tests();
    assert_eq!(
        test::text(&report, &[]),
        "FAILED  clock     3 tests\n\
         \x20 dir/r.yaml:13:7: wrong \\x1b[2J <expected>\n\
         \x20   must match, but does not; nearest miss: 2 sub-conditions stood in the way:\n\
         \x20     true   evt.phase = starting   evt.phase=\"starting\"\n\
         \x20     false  evt.verdict = allowed   evt.verdict=<NA>\n\
         \x20 dir/r.yaml:16:7: wrong, it matches\n\
         \x20   must not match, but does; 4 sub-conditions made it:\n\
         \x20     true   evt.type in (clock_settime, stime)   evt.type=\"stime\"\n\
         \x20     true   container.id != host   container.id=\"a\"\n\
         \x20     false  evt.phase = starting   evt.phase=<NA>\n\
         \x20     true   user.uid < 10   user.uid=7\n\
         no test untested\n\
         2 rules, 3 tests: 1 passed, 2 failed; 1 rule without a test\n"
    );
    let gaps = test::gaps(&set);
    let lines: Vec<String> = gaps.iter().map(|(id, gap)| format!("{id}: {gap}")).collect();
    assert_eq!(
        lines,
        [
            "clock: no test shows a near miss",
            "untested: no test shows an event that it matches",
            "untested: no test shows a near miss"
        ]
    );
    let json: Json = serde_json::from_str(&test::json(&report, &gaps)).unwrap();
    assert_eq!(
        (&json["tests"], &json["failed"], &json["untested"]),
        (&json!(3), &json!(2), &json!(["untested"]))
    );
    let wrong = &json["rules"][0]["tests"][1];
    assert_eq!((&wrong["passed"], &wrong["line"]), (&json!(false), &json!(13)));
    assert_eq!(wrong["reasons"][1]["values"], json!({ "evt.verdict": null }));
    assert_eq!(json["rules"][1]["gaps"].as_array().unwrap().len(), 2);
}

/// Attributes of the elements of this name, as a parser sees them.
fn elements(xml: &str, wanted: &str) -> Vec<Vec<(String, String)>> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return found,
            Event::Start(element) | Event::Empty(element) if element.name().as_ref() == wanted => {
                let attribute = |a: quick_xml::events::attributes::Attribute<'_>| {
                    let key = a.key.as_ref().to_owned();
                    (key, quick_xml::escape::unescape(&a.value).unwrap().into_owned())
                };
                found.push(element.attributes().map(|a| attribute(a.unwrap())).collect());
            }
            _ => {}
        }
    }
}

#[test]
fn junit_is_xml_whatever_the_names_are() {
    let report = set().run_tests();
    let xml = test::junit(&report, &test::gaps(&set()));
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "{xml}");
    let value =
        |of: &[(String, String)], name: &str| of.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let all = &elements(&xml, "testsuites")[0];
    assert_eq!((value(all, "tests"), value(all, "failures")), ("6".to_owned(), "5".to_owned()));
    let suites = elements(&xml, "testsuite");
    assert_eq!((suites.len(), value(&suites[0], "failures")), (2, "3".to_owned()));
    let cases = elements(&xml, "testcase");
    assert_eq!((cases.len(), value(&cases[1], "name")), (6, "wrong \\x1b[2J <expected>".to_owned()));
    assert_eq!(
        (value(&cases[1], "classname"), value(&cases[1], "line")),
        ("clock".to_owned(), "13".to_owned())
    );
    let failures = elements(&xml, "failure");
    assert_eq!(failures.len(), 5);
    assert!(value(&failures[0], "message").starts_with("must match, but does not"), "{xml}");
    assert!(
        xml.contains("evt.phase=&quot;starting&quot;") || xml.contains("evt.phase=\"starting\""),
        "{xml}"
    );
}

#[test]
fn reports_for_programs_say_why_rules_cannot_be_loaded() {
    let wrong = "- macro: m\n  condition: evt.typ = setns\n- rule: \"<r>\\e\"\n  oputput: \"]]>\"\n- list: a b\n  items: []\n";
    let error = RuleSet::from_sources(&[("dir/<r>\x1b.yaml", wrong)]).unwrap_err();
    let expected: Vec<_> =
        error.diagnostics().iter().filter(|found| found.severity() == Severity::Error).collect();
    assert!(expected.len() > 3 && expected.len() < error.diagnostics().len(), "{error}");

    let json: Json = serde_json::from_str(&test::unloaded_json(&error)).unwrap();
    let errors = json["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &json["tests"], &json["rules"]), (expected.len(), &json!(0), &json!([])));
    for (shown, expected) in errors.iter().zip(&expected) {
        assert_eq!((&shown["level"], &shown["message"]), (&json!("error"), &json!(expected.message())));
        assert_eq!(shown["line"], json!(expected.line_column().unwrap().0));
    }
    let fine: Json = serde_json::from_str(&test::json(&set().run_tests(), &[])).unwrap();
    assert_eq!(fine["errors"], json!([]));

    let xml = test::unloaded_junit(&error);
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "{xml}");
    let value =
        |of: &[(String, String)], name: &str| of.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let all = &elements(&xml, "testsuites")[0];
    let number = expected.len().to_string();
    assert_eq!((value(all, "errors"), value(all, "failures")), (number.clone(), "0".to_owned()));
    assert_eq!(value(&elements(&xml, "testsuite")[0], "errors"), number);
    let (cases, errors) = (elements(&xml, "testcase"), elements(&xml, "error"));
    assert_eq!((cases.len(), errors.len()), (expected.len(), expected.len()));
    for ((case, error), expected) in cases.iter().zip(&errors).zip(&expected) {
        let (line, column) = expected.line_column().unwrap();
        assert_eq!(value(case, "name"), format!("dir/<r>\\x1b.yaml:{line}:{column}"));
        assert_eq!(
            (value(error, "message"), value(case, "line")),
            (visible(expected.message()), line.to_string())
        );
    }
}

#[test]
fn a_condition_is_explained_as_a_tree() {
    let set = set();
    let rule = find(&set, "clock").unwrap();
    let near = sample("evt.type: stime\ncontainer.id: a\nevt.verdict: refused\nuser.uid: 1000\n");
    assert_eq!(
        explain::text(rule, &near),
        "clock does not match this event of type stime.\n\
         Marked by >: the nearest miss; each of them had to come out otherwise.\n\n\
         \x20 false  all of:\n\
         \x20 true     evt.type in (clock_settime, stime)   evt.type=\"stime\"\n\
         \x20 true     in_container:\n\
         \x20 true       all of:\n\
         \x20 true         container.id != host   container.id=\"a\"\n\
         \x20 true         not:\n\
         \x20 false          evt.phase = starting   evt.phase=<NA>\n\
         \x20 false    any of:\n\
         > false      evt.verdict = allowed   evt.verdict=\"refused\"\n\
         \x20 false      user.uid < 10   user.uid=1000\n"
    );
    let text = explain::text(rule, &sample("evt.type: stime\ncontainer.id: a\nuser.uid: 7\n"));
    let marked: Vec<&str> = text.lines().filter(|line| line.starts_with('>')).map(str::trim_end).collect();
    assert!(
        text.starts_with("clock matches this event of type stime.\nMarked by >: a smallest set"),
        "{text}"
    );
    assert_eq!(marked.len(), 4, "{text}");
    let json: Json = serde_json::from_str(&explain::json(rule, &near)).unwrap();
    assert_eq!(json["matches"], false);
    let any = &json["condition"]["members"][2];
    assert_eq!((&any["kind"], &any["decided"], &any["holds"]), (&json!("or"), &json!(true), &json!(false)));
    assert_eq!(any["members"][0]["values"], json!({ "evt.verdict": "refused" }));
    assert_eq!(json["condition"]["members"][1]["name"], "in_container");
}

#[test]
fn an_explanation_fits_the_screen_and_says_what_an_alert_does_not_tell() {
    let list: Vec<String> = (0..60).map(|i| format!("value{i}")).collect();
    let file = format!(
        "- rule: R\n  desc: d\n  condition: proc.cmdline in ({}) or proc.cwd = x or container.label[\"a b\"] = c\n  output: o\n  priority: INFO\n",
        list.join(", ")
    );
    let set = RuleSet::from_sources(&[("r.yaml", &file)]).unwrap();
    let long = "x".repeat(300);
    let alert =
        format!("{{\"output_fields\": {{\"evt.type\": \"setns\", \"proc.cmdline\": \"日本 {long}\"}}}}");
    let text = explain::text(&set.rules()[0], &sample(&alert));
    let too_wide: Vec<&str> =
        text.lines().filter(|line| unicode_width::UnicodeWidthStr::width(*line) > 110).collect();
    assert!(too_wide.is_empty(), "{too_wide:?}");
    assert!(text.replace("\n", "").replace(' ', "").contains(&long), "values are whole");
    assert!(text.contains("so taken as absent: proc.cwd, container.label[\"a b\"]."), "{text}");
}

#[test]
fn expressions_use_the_macros_that_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    std::fs::write(&path, FILE).unwrap();
    let paths: Vec<PathBuf> = vec![path];
    let event = sample("evt.type: stime\ncontainer.id: a\nuser.uid: 7\n");
    let holds = |paths: &[PathBuf], text: &str| {
        Rule::from_expression(paths, text).map(|rule| rule.holds(&event.values))
    };
    assert!(holds(&paths, "in_container and\n user.uid = 7").unwrap());
    assert!(!holds(&paths, "not in_container").unwrap());
    assert!(holds(&[], "evt.type in (stime)").unwrap());
    let error = holds(&[], "in_container and evt.typ = x").unwrap_err();
    let places: Vec<String> = error.diagnostics().iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        ["EXPRESSION:1:1: unknown macro `in_container`", "EXPRESSION:1:18: unknown field `evt.typ`"]
    );
    let error = holds(&[], "evt.type =").unwrap_err();
    assert_eq!(error.diagnostics()[0].line_column(), Some((1, 11)));
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (event, bad_event) = (file("e.yaml", "evt.type: setns\n"), file("b.yaml", "evt.typ: setns\n"));
    let code = |result: Result<_, Failure>| match result {
        Ok(code) => format!("{code:?}"),
        Err(failure) => format!("{:?}", std::process::ExitCode::from(failure.code())),
    };
    let exit = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
    assert_eq!(code(event::eval(&[], "evt.type = setns", &event)), exit(0));
    assert_eq!(code(event::eval(&[], "evt.type = stime", &event)), exit(0));
    assert_eq!(code(event::eval(&[], "evt.type = ", &event)), exit(1));
    assert_eq!(code(event::eval(&[], "evt.type = setns", &bad_event)), exit(1));
    assert_eq!(code(event::eval(&[], "evt.type = setns", &dir.path().join("none"))), exit(2));
    let (wrong, good) = (
        file("r.yaml", FILE),
        file("g.yaml", &FILE.replace("match: true\n    - name: \"wrong", "match: true\n    - name: \"right")),
    );
    let one_rule = file("one.yaml", &FILE[FILE.find("- rule: Untested").unwrap()..]);
    let test = |path: &PathBuf, complete| {
        code(test::run(&RuleFiles::plain(vec![path.clone()]), complete, TestFormat::Json))
    };
    assert_eq!((test(&wrong, false), test(&good, false)), (exit(1), exit(1)));
    assert_eq!((test(&one_rule, false), test(&one_rule, true)), (exit(0), exit(1)));
    assert_eq!(test(&bad_event, false), exit(1));
    let help = |name: &str| {
        let mut command = <crate::cli::Cli as clap::CommandFactory>::command();
        command.build();
        let rules = command.find_subcommand_mut("rules").unwrap();
        let help = rules.find_subcommand_mut(name).unwrap().render_long_help().to_string();
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(
        help("eval").contains("exits 0 in both cases; exits 1 if the") && help("test").contains("exit 1")
    );
    assert!(<RulesCommand as clap::Subcommand>::has_subcommand("explain"));
}
