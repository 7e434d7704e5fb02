//! The linter under test: what it finds and where, what it leaves alone, and that its proofs are true.

use super::*;

mod proofs;

/// A rule of this condition, with more keys behind.
fn rule(name: &str, condition: &str, more: &str) -> String {
    format!("- rule: {name}\n  desc: d\n  condition: {condition}\n  output: o\n  priority: WARNING\n{more}")
}

/// What is found: kind, line and column, message; rules without tests apart, as all are here.
fn found(text: &str) -> Vec<(&'static str, (usize, usize), String)> {
    let found = lint_sources(&[("t.yaml", text)]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    found
        .iter()
        .filter(|found| found.kind != Kind::Untested)
        .map(|found| {
            let message = found.diagnostic.message().to_owned();
            (found.kind.word(), found.diagnostic.line_column().unwrap(), message)
        })
        .collect()
}

fn kinds(text: &str) -> Vec<&'static str> {
    found(text).into_iter().map(|(kind, ..)| kind).collect()
}

#[test]
fn a_rule_that_another_one_covers_is_shadowed() {
    for (narrow, wide) in [
        ("evt.type = setns and proc.name = x", "evt.type = setns"),
        ("evt.type = setns", "evt.type in (setns, unshare)"),
        ("evt.type = setns and proc.name in (a, b)", "evt.type = setns and proc.name in (b, c, a)"),
        ("evt.type = setns and proc.name = x", "evt.type = setns and (proc.pid = 1 or proc.name = x)"),
        ("evt.type = setns and (proc.pid = 1 or proc.pid = 2)", "evt.type = setns and proc.pid < 3"),
        ("evt.type = setns and proc.name = x", "evt.type = setns and proc.name exists"),
        ("evt.type = setns and proc.name = x", "evt.type = setns and proc.name != y"),
        ("evt.type = setns and proc.name = x", "evt.type = setns and not proc.name = y"),
        ("evt.type = setns and not proc.name in (a, b)", "evt.type = setns and not proc.name = a"),
        (
            "evt.type = setns and proc.exepath startswith /tmp/x",
            "evt.type = setns and proc.exepath startswith /tmp",
        ),
        ("evt.type = setns and proc.exepath = /tmp/x", "evt.type = setns and proc.exepath glob /tmp/*"),
        (
            "evt.type = setns and proc.exepath pmatch (/tmp/x)",
            "evt.type = setns and proc.exepath pmatch (/tmp, /var)",
        ),
        (
            "evt.type = capset and cap.gained in (CAP_BPF)",
            "evt.type = capset and cap.gained intersects (CAP_BPF, CAP_KILL)",
        ),
        ("syslog.action = READ", "evt.type = syslog"),
        ("not evt.type in (setns, unshare)", "evt.type != setns"),
        ("evt.type = setns and proc.vpid = val(proc.pid)", "evt.type = setns and proc.vpid exists"),
    ] {
        let text = rule("Narrow", narrow, "") + &rule("Wide", wide, "");
        let expected =
            "the rule `Narrow` is shadowed: whatever it matches, `Wide` matches too, with priority Warning";
        assert_eq!(found(&text), [("shadowed", (1, 9), expected.to_owned())], "{narrow} / {wide}");
    }
}

#[test]
fn macros_and_lists_are_looked_into() {
    let text = "- macro: harmless\n  condition: proc.name = sshd\n- macro: enters\n  condition: evt.type in (calls) and not harmless\n- list: calls\n  items: [setns, unshare]\n".to_owned()
        + &rule("Narrow", "enters and evt.type = setns and proc.pid = 1", "")
        + &rule("Wide", "enters", "");
    assert_eq!(kinds(&text), ["shadowed"]);
}

#[test]
fn what_is_not_covered_is_left_alone() {
    // Of some the other one is covered.
    for (one, other) in [
        ("evt.type = setns and proc.name = x", "evt.type = unshare"),
        ("evt.type = setns and proc.name = x", "evt.type = setns and proc.name = y"),
        ("evt.type = setns and proc.name != x", "evt.type = setns and not proc.name in (x, y)"),
        ("evt.type = setns and not proc.name = x", "evt.type = setns and proc.name != x"),
        (
            "evt.type = setns and proc.exepath contains tmp",
            "evt.type = setns and proc.exepath startswith /tmp",
        ),
        (
            "evt.type = setns and proc.exepath startswith /tmp",
            "evt.type = setns and proc.exepath pmatch (/tmp)",
        ),
        (
            "evt.type = capset and cap.gained intersects (CAP_BPF)",
            "evt.type = capset and cap.gained in (CAP_BPF)",
        ),
        ("evt.type = setns and proc.pname = x", "evt.type = setns and proc.name = x"),
    ] {
        let found = found(&(rule("One", one, "") + &rule("Other", other, "")));
        assert!(found.iter().all(|(_, (line, _), _)| *line != 1), "{one} / {other}: {found:?}");
    }
}

#[test]
fn urgency_thresholds_and_disabled_rules_count() {
    let narrow = "evt.type = setns and proc.name = x";
    let urgent =
        rule("Narrow", narrow, "").replace("WARNING", "ERROR") + &rule("Wide", "evt.type = setns", "");
    assert_eq!(found(&urgent), [], "it says more");
    let seldom = rule("Narrow", narrow, "")
        + &rule("Wide", "evt.type = setns", "  threshold: {count: 5, within: 1m}\n");
    assert_eq!(found(&seldom), [], "the wide one is silent most of the time");
    let counted = rule("Narrow", narrow, "  threshold: {count: 5, within: 1m}\n")
        + &rule("Wide", "evt.type = setns", "");
    assert_eq!(kinds(&counted), ["shadowed"]);
    for off in [0, 1] {
        let more = |i| if i == off { "  enabled: false\n" } else { "" };
        let text = rule("Narrow", narrow, more(0)) + &rule("Wide", "evt.type = setns", more(1));
        assert_eq!(found(&text), [], "{off}");
    }
    let twice = rule("One", narrow, "") + &rule("Two", "proc.name = x and evt.type = setns", "");
    let expected =
        "the rule `Two` is shadowed: whatever it matches, `One` matches too, with priority Warning";
    assert_eq!(found(&twice), [("shadowed", (6, 9), expected.to_owned())], "the later of two");
}

#[test]
fn a_condition_that_can_never_hold_is_shown_at_the_part_that_shows_it() {
    let lists = "- list: none\n  items: []\n- macro: is_x\n  condition: proc.name = x\n";
    for (condition, part, why) in [
        (
            "evt.type = setns and proc.name = x and proc.name = y",
            "proc.name = y",
            "`proc.name = x` and `proc.name = y` cannot both hold",
        ),
        (
            "evt.type = setns and proc.name exists and not proc.name exists",
            "proc.name exists",
            "`proc.name exists` and `not proc.name exists` cannot both hold",
        ),
        (
            "evt.type = setns and proc.pid > 5 and proc.pid < 3",
            "proc.pid < 3",
            "`proc.pid > 5` and `proc.pid < 3` cannot both hold",
        ),
        (
            "evt.type = setns and proc.name in (none)",
            "proc.name in (none)",
            "`proc.name in (none)` is true of no value: its list is empty",
        ),
        (
            "evt.type = setns and evt.type = unshare",
            "evt.type = unshare",
            "`evt.type = unshare` leaves no type of event",
        ),
        (
            "evt.type = setns and syslog.action = READ",
            "syslog.action = READ",
            "no event that the condition is about has what `syslog.action = READ` asks for",
        ),
        (
            "evt.type = setns and is_x and proc.name in (y, z)",
            "proc.name in (y, z)",
            "`proc.name = x` (in the macro `is_x`) and `proc.name in (y, z)` cannot both hold",
        ),
        (
            "evt.type = setns and proc.name = y and is_x",
            "is_x",
            "`proc.name = y` and `proc.name = x` (in the macro `is_x`) cannot both hold",
        ),
        (
            "evt.type = setns and is_x and not is_x",
            "is_x",
            "`proc.name = x` (in the macro `is_x`) and `not proc.name = x` (in the macro `is_x`) cannot both hold",
        ),
        (
            "evt.type = setns and is_x and (proc.name = y or proc.name = z)",
            "proc.name = y",
            "`proc.name = x` (in the macro `is_x`) and `proc.name = y` cannot both hold, and the other alternatives cannot hold either",
        ),
        (
            "evt.type = setns and proc.exepath startswith /a and proc.exepath startswith /b",
            "proc.exepath startswith /b",
            "`proc.exepath startswith /a` and `proc.exepath startswith /b` cannot both hold",
        ),
        (
            "evt.type = setns and proc.exepath = /a and not proc.exepath glob /*",
            "proc.exepath glob /*",
            "`proc.exepath = /a` and `not proc.exepath glob /*` cannot both hold",
        ),
        (
            "evt.type = capset and evt.failed = true and evt.failed = false",
            "evt.failed = false",
            "`evt.failed = true` and `evt.failed = false` cannot both hold",
        ),
    ] {
        let text = format!("{lists}{}", rule("Never", condition, ""));
        let all = found(&text);
        let never: Vec<_> = all.iter().filter(|(kind, ..)| *kind == "unreachable").collect();
        let [(_, place, message)] = never.as_slice() else { panic!("{condition}: {all:?}") };
        assert_eq!(
            (place.0, message.as_str()),
            (7, format!("the rule `Never` can never fire: {why}").as_str()),
            "{condition}"
        );
        let column = "  condition: ".len() + condition.rfind(part).unwrap() + 1;
        assert_eq!(place.1, column, "{condition}");
    }
}

#[test]
fn what_can_hold_is_left_alone() {
    for condition in [
        "evt.type = setns and (proc.name = x or proc.name = y) and not proc.name = y",
        "evt.type = capset and cap.gained = CAP_BPF and cap.gained = CAP_KILL",
        "evt.type = setns and not proc.name = x and not proc.name exists",
        "evt.type = setns and proc.exepath startswith /a and proc.exepath endswith /a",
        "evt.type = setns and proc.pid >= 5 and proc.pid <= 5",
        "evt.type in (setns, syslog) and (evt.type = setns or syslog.action = READ)",
    ] {
        assert_eq!(found(&rule("R", condition, "")), [], "{condition}");
    }
}

#[test]
fn macros_and_lists_that_nothing_uses_are_found_through_others() {
    let text = "\
- macro: used
  condition: proc.name in (outer)
- list: outer
  items: [inner, a]
- list: inner
  items: [b, '\"quoted\"']
- list: quoted
  items: [c]
- macro: idle
  condition: proc.name in (idle_list)
- list: idle_list
  items: [d]
"
    .to_owned()
        + &rule("R", "evt.type = setns and used", "");
    let expected: Vec<_> =
        [("unused-list", (7, 9)), ("unused-macro", (9, 10)), ("unused-list", (11, 9))].into();
    assert_eq!(found(&text).into_iter().map(|(kind, at, _)| (kind, at)).collect::<Vec<_>>(), expected);
    let disabled = text.replace("used\"", "used").replace(
        "condition: evt.type = setns and used",
        "enabled: false\n  condition: evt.type = setns and used",
    );
    assert_eq!(kinds(&disabled).len(), 3, "a disabled rule uses what it names");
}

#[test]
fn members_that_stand_twice_are_found() {
    let text = "- list: l\n  items: [a, b, a]\n".to_owned()
        + &rule("R", "evt.type = setns and proc.name in (l, x, y, x)", "");
    let expected = [
        ("duplicate-member", (2, 17), "`a` stands twice in the list `l`".to_owned()),
        ("duplicate-member", (5, 58), "`x` stands twice in this list".to_owned()),
    ];
    assert_eq!(found(&text), expected);
}

#[test]
fn regular_expressions_that_cost_more_than_they_need_are_found() {
    for (pattern, expected) in [
        ("(a{100}){5}[0-9]x{20}", None),
        ("/tmp/[0-9a-f]{32}", None),
        ("a|b[0-9]|c", None),
        ("((a{12}){12}){12}[0-9]", Some(("regex-repetition", "repeat less often"))),
        ("/tmp/x", Some(("regex-plain", "write `= /tmp/x`, which is quicker"))),
        ("/tmp/.*", Some(("regex-plain", "write `startswith /tmp/`, which is quicker"))),
        (".*[.]so", Some(("regex-plain", "write `endswith .so`, which is quicker"))),
        (".*(miner).*", Some(("regex-plain", "write `contains miner`, which is quicker"))),
        (
            "one two|three|four",
            Some(("regex-plain", "write `in ('one two', three, four)`, which is quicker")),
        ),
        (".*/[0-9]+", Some(("regex-leading", "begin with what the text begins with"))),
    ] {
        let text = rule(
            "R",
            &format!("evt.type = setns and proc.exepath regex '{}'", pattern.replace('\\', "\\\\")),
            "",
        );
        let found = lint_sources(&[("t.yaml", &text)]).unwrap();
        let got = found
            .iter()
            .find(|found| found.kind != Kind::Untested)
            .map(|found| (found.kind.word(), found.diagnostic.hint().unwrap().to_owned()));
        match (expected, got) {
            (None, None) => {}
            (Some((kind, help)), Some((got, hint))) if kind == got && hint.contains(help) => {}
            (expected, got) => panic!("{pattern}: expected {expected:?}, found {got:?}"),
        }
    }
}

#[test]
fn a_regular_expression_near_the_limit_is_found_before_one_beyond_it_is_refused() {
    let mut outcomes: Vec<String> = Vec::new();
    for times in (2..60).step_by(4) {
        let text = rule("R", &format!("evt.type = setns and proc.exepath regex '[\\\\w]{{{times}}}x'"), "");
        let outcome = match lint_sources(&[("t.yaml", &text)]) {
            Ok(found) => found
                .iter()
                .find(|found| found.kind != Kind::Untested)
                .map_or("fine", |found| found.kind.word())
                .to_owned(),
            Err(error) => error.diagnostics()[0].message().to_owned(),
        };
        if outcomes.last() != Some(&outcome) {
            outcomes.push(outcome);
        }
    }
    assert_eq!(outcomes, ["fine", "regex-size", "the pattern is too large"]);
}

#[test]
fn outputs_that_name_what_never_is_there_are_found() {
    let text = "- rule: R\n  desc: d\n  condition: evt.type in (setns, entered)\n  output: \"%proc.name did %syslog.action, %evt.arg[fd]\"\n  priority: DEBUG\n";
    let expected = [(
        "absent-output",
        (4, 27),
        "`%syslog.action` is always `<NA>` here: no event of this rule has it".to_owned(),
    )];
    assert_eq!(found(text), expected);
}

#[test]
fn rules_without_tests_are_found() {
    let of = |tests: &str| {
        let text = rule("R", "evt.type = setns and proc.name = x", tests);
        let found = lint_sources(&[("t.yaml", &text)]).unwrap();
        found.iter().map(|found| found.diagnostic.message().to_owned()).collect::<Vec<_>>()
    };
    let matching = "  - {name: a, event: {evt.type: setns, proc.name: x}, match: true}\n";
    let near = "  - {name: b, event: {evt.type: setns, proc.name: y}, match: false}\n";
    let far = "  - {name: c, event: {evt.type: unshare, proc.name: y}, match: false}\n";
    assert_eq!(of(&format!("  tests:\n{matching}{near}")), [""; 0]);
    assert_eq!(of(&format!("  tests:\n{matching}{far}")), ["the rule `R` has no test of a near miss"]);
    assert_eq!(of(&format!("  tests:\n{near}")), ["the rule `R` has no test of an event that it matches"]);
    assert_eq!(of(""), ["the rule `R` has no test of an event that it matches, nor of a near miss"]);
    assert_eq!(of("  enabled: false\n"), [""; 0]);
}

#[test]
fn exceptions_count_for_what_a_rule_matches() {
    let except = "  exceptions:\n  - {name: known, fields: proc.name, values: [x, y]}\n";
    let wide = rule("Wide", "evt.type = setns", except);
    // What the wide rule excepts, the narrow one says alone.
    let text = rule("Narrow", "evt.type = setns and proc.name = x", "") + &wide;
    assert_eq!(kinds(&text), ["exception-unhit"]);
    let text = rule("Narrow", "evt.type = setns and proc.name = z", "") + &wide;
    assert_eq!(kinds(&text), ["shadowed", "exception-unhit"]);
    let never = rule("Never", "evt.type = setns and proc.name = x", except);
    let why = "the rule `Never` can never fire: `proc.name = x` and `not proc.name in (x, y)` (in the exception `known`) cannot both hold";
    assert_eq!(found(&never)[0], ("unreachable", (3, 14), why.to_owned()));
}

#[test]
fn lists_of_exceptions_are_used() {
    let text = "- list: known\n  items: [x]\n".to_owned()
        + &rule(
            "R",
            "evt.type = setns",
            "  exceptions:\n  - {name: e, fields: proc.name, values: [known]}\n",
        );
    assert!(!kinds(&text).contains(&"unused-list"), "{:?}", found(&text));
}

#[test]
fn exceptions_that_have_ended_or_that_nothing_needs_are_found() {
    let with = |values: &str, test: &str| {
        let more = format!(
            "  exceptions:\n  - {{name: known, fields: proc.name, {values}}}\n  tests:\n  - {test}\n"
        );
        let text = rule("R", "evt.type = setns", &more);
        let found = lint_sources(&[("t.yaml", &text)]).unwrap();
        let found = found.iter().filter(|found| found.kind != Kind::Untested);
        found
            .map(|found| (found.kind.word(), found.note, found.diagnostic.line_column().unwrap()))
            .collect::<Vec<_>>()
    };
    let hit = "{name: a, event: {evt.type: setns, proc.name: x}, match: false}";
    let other = "{name: a, event: {evt.type: setns, proc.name: z}, match: true}";
    assert_eq!(with("values: [x]", hit), []);
    assert_eq!(with("values: [x]", other), [("exception-unhit", true, (7, 12))]);
    // The rule would not have matched it anyway.
    let apart = "{name: a, event: {evt.type: unshare, proc.name: x}, match: false}";
    assert_eq!(with("values: [x]", apart), [("exception-unhit", true, (7, 12))]);
    let ended = with("values: [x], reason: r, expires: 2020-02-29", hit);
    assert_eq!(ended, [("exception-expired", false, (7, 12))]);
}

#[test]
fn comments_silence_with_a_reason_and_are_held_to_it() {
    let wide = rule("Wide", "evt.type = setns", "");
    let narrow = |comment: &str| rule("Narrow", "evt.type = setns and proc.name = x", comment);
    let inside = wide.clone() + &narrow("  # lint: allow shadowed: kept until the next release\n");
    assert_eq!(found(&inside), []);
    let above = wide.clone() + "# What it is.\n# lint: allow unreachable, shadowed: kept\n" + &narrow("");
    assert_eq!(
        found(&above),
        [("allow-idle", (7, 1), "this comment silences `unreachable`, which is not found here".to_owned())]
    );
    let elsewhere = "# lint: allow shadowed: not here\n".to_owned() + &wide + &narrow("");
    assert_eq!(kinds(&elsewhere), ["allow-idle", "shadowed"]);
    for (comment, message) in [
        ("# lint: allow shadowed", "this comment gives no reason"),
        ("# lint: allow shadowed:  ", "this comment gives no reason"),
        ("# lint: allow shadwed: why", "there is no finding of the kind `shadwed`"),
        ("# lint: deny shadowed: why", "this comment for the linter says nothing that it knows"),
    ] {
        let found = found(&(wide.clone() + &narrow(&format!("  {comment}\n"))));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[1].0, found[1].1, found[1].2.as_str()), ("allow-wrong", (11, 3), message));
    }
}

#[test]
fn a_rule_set_of_many_alternatives_is_looked_at_in_time() {
    let long = |seed: usize| {
        let parts: Vec<String> =
            (0..300).map(|i| format!("(proc.name = n{i} or proc.pid = {}) ", i * seed)).collect();
        format!("evt.type = setns and {}", parts.join(" and "))
    };
    let text: String = (1..20).map(|i| rule(&format!("R{i}"), &long(i), "")).collect();
    let start = std::time::Instant::now();
    found(&text);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn the_shipped_rules_are_clean() {
    let rules = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules"));
    let found = lint(&[rules], &LoadOptions::default(), None).unwrap();
    let shown: String = found
        .iter()
        .map(|found| format!("{}\n{}", found.kind.word(), found.diagnostic.render(false)))
        .collect();
    assert!(found.is_empty(), "{shown}");
}
