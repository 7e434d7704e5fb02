//! What becomes of rule files, item by item: loaded or refused, with which condition, enabled or not, and what is
//! said about it. The behaviours are those of Falco's rule loader, but for those of `differences`.

mod rules_loader_cases;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use monitor::rules::{AppendOutput, LoadOptions, OutputOf, Rule, RuleSet, Selection, Severity, Which};
use monitor::trust::Trust;
use rules_loader_cases::{Case, Outcome, condition, different, exceptions, keys, overriding, versions};
use time::{Date, Month};

/// The day on which all cases are loaded.
fn options() -> LoadOptions {
    let today = Date::from_calendar_date(2026, Month::July, 15).unwrap();
    LoadOptions { today, ..LoadOptions::default() }
}

fn sources(text: &str) -> Vec<(String, &str)> {
    text.split("=====\n").enumerate().map(|(index, text)| (format!("{}.yaml", index + 1), text)).collect()
}

fn run(case: &Case) -> Result<(), String> {
    let named = sources(case.files);
    let named: Vec<(&str, &str)> = named.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let loaded = RuleSet::from_sources_with(&named, &options());
    let said = match &loaded {
        Ok(rules) => rules.warnings().to_vec(),
        Err(error) => error.diagnostics().to_vec(),
    };
    let errors = said.iter().filter(|found| found.severity() == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    let warnings = said.iter().filter(|found| found.severity() == Severity::Warning);
    let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
    for (what, expected, found) in
        [("error", case.outcome.errors(), &errors), ("warning", case.warnings, &warnings)]
    {
        for expected in expected {
            if !found.iter().any(|found| found.contains(expected)) {
                return Err(format!("no {what} says `{expected}`: {found:#?}"));
            }
        }
        // Conditions of Falco's events can match nothing here; that is not what the cases are about.
        let others = found.iter().filter(|found| !found.contains("no event can ever match"));
        if others.count() != expected.len() {
            return Err(format!("more {what}s than {expected:?}: {found:#?}"));
        }
    }
    match (&case.outcome, loaded) {
        (Outcome::Loads(expected), Ok(rules)) => {
            let found: Vec<String> = rules.rules().iter().map(summary).collect();
            if found == *expected { Ok(()) } else { Err(format!("expected {expected:#?}, found {found:#?}")) }
        }
        (Outcome::Refused(_), Err(_)) => Ok(()),
        (Outcome::Loads(_), Err(error)) => Err(format!("refused: {error}")),
        (Outcome::Refused(_), Ok(_)) => Err("loaded".to_owned()),
    }
}

/// `name: condition`, with a minus in front if it is not enabled.
fn summary(rule: &Rule) -> String {
    let off = if rule.enabled { "" } else { "-" };
    let words: Vec<&str> = rule.condition.split_whitespace().collect();
    format!("{off}{}: {}", rule.name, words.join(" "))
}

fn all(cases: &[Case]) {
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| run(case).err().map(|why| format!("{}: {why}\n{}", case.name, case.files)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn overriding_and_appending() {
    all(overriding::CASES);
}

#[test]
fn exceptions_of_rules() {
    all(exceptions::CASES);
}

#[test]
fn keys_items_and_order() {
    all(keys::CASES);
}

#[test]
fn versions_plugins_and_sources() {
    all(versions::CASES);
}

#[test]
fn where_we_differ_from_falco() {
    all(different::CASES);
}

#[test]
fn other_parts_of_rules_are_appended_to_and_replaced() {
    let text = "\
- rule: R
  desc: one
  condition: evt.type = setns
  output: first %proc.name
  priority: INFO
  tags: [a, b]
  attack: [T1611]
  references: [https://one]
- rule: R
  desc: two
  output: second %proc.pid
  tags: [b, c]
  attack: [T1548]
  references: [https://two]
  override: {desc: append, output: append, tags: append, attack: append, references: append}
- rule: Q
  desc: one
  condition: evt.type = setns
  output: >
    first
  priority: INFO
  tags: [a]
  enabled: false
  warn_evttypes: true
- rule: Q
  desc: two
  output: second
  tags: [c]
  priority: ALERT
  maturity: stable
  enabled: true
  warn_evttypes: false
  override:
    desc: replace
    output: append
    tags: replace
    priority: replace
    maturity: replace
    enabled: replace
    warn_evttypes: replace
";
    let rules = RuleSet::from_sources(&[("r.yaml", text)]).unwrap_or_else(|error| panic!("{error}"));
    assert!(rules.warnings().is_empty(), "{:?}", rules.warnings());
    let [r, q] = rules.rules() else { panic!("{:?}", rules.rules()) };
    assert_eq!((r.desc.as_str(), r.output_text.as_str()), ("one two", "first %proc.name second %proc.pid"));
    assert_eq!((r.tags.join(" "), r.attack.join(" ")), ("a b c".to_owned(), "T1611 T1548".to_owned()));
    assert_eq!(r.references, ["https://one", "https://two"]);
    assert_eq!((q.desc.as_str(), q.output_text.as_str()), ("two", "first second"));
    assert_eq!((q.tags.join(" "), q.priority.as_str(), q.enabled), ("c".to_owned(), "Alert", true));
    assert_eq!(q.maturity.as_deref(), Some("stable"));
}

/// A mistake in a condition that was put together points into the file that the piece came from.
#[test]
fn errors_point_into_the_file_that_the_piece_came_from() {
    let one = condition("evt.type = setns and proc.nam = x");
    let two = "# second\n- rule: R\n  condition: >\n    and proc.name = y\n    and proc.pdi = 1\n  output: ' and %proc.pdi'\n  override: {condition: append, output: append}\n";
    let three = "- rule: R\n  exceptions:\n    - name: e\n      fields: [proc.name, proc.pid]\n      values:\n        - [x, many]\n  override: {exceptions: append}\n";
    let error = RuleSet::from_sources(&[("one.yaml", &one), ("two.yaml", two), ("three.yaml", three)]);
    let found: Vec<String> = error.unwrap_err().diagnostics().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "one.yaml:3:35: unknown field `proc.nam`",
            "two.yaml:5:9: unknown field `proc.pdi`",
            "two.yaml:6:18: unknown field `proc.pdi`",
            "three.yaml:6:15: `many` is not a number",
        ]
    );
    // Syntax errors at and behind the seam.
    for (more, expected) in [
        ("proc.name = x", "two.yaml:2:14: expected `and`, `or` or the end of the condition"),
        ("and", "two.yaml:2:17: "),
        ("and (proc.name = x", "two.yaml:2:"),
    ] {
        let two = format!("- rule: R\n  condition: {more}\n  override: {{condition: append}}\n");
        let one = condition("evt.type = setns");
        let error = RuleSet::from_sources(&[("one.yaml", &one), ("two.yaml", &two)]).unwrap_err();
        assert_eq!(error.diagnostics().len(), 1, "{error}");
        let found = error.diagnostics()[0].to_string();
        assert!(found.starts_with(expected), "{found}");
    }
}

/// What an exception says beside its values.
#[test]
fn exceptions_are_kept_with_what_is_said_about_them() {
    let text = "\
- rule: R
  desc: d
  condition: evt.type = setns
  output: o
  priority: INFO
  exceptions:
    - name: tools
      fields: proc.name
      values: [runc]
      reason: the runtime
      owner: platform
      expires: 2026-07-15
    - name: later
      fields: [proc.name]
- rule: R
  exceptions:
    - name: tools
      values: [crun]
      expires: 2026-07-14
    - name: later
      values: [[podman]]
      expires: 2026-12-31
  override: {exceptions: append}
";
    let rules = RuleSet::from_sources_with(&[("r.yaml", text)], &options()).unwrap_or_else(|e| panic!("{e}"));
    let warnings: Vec<String> = rules.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["r.yaml:19:16: the exception `tools` ended on 2026-07-14 and does not except any more"]
    );
    let found: Vec<(String, Option<&str>, bool)> = rules.rules()[0]
        .exceptions
        .iter()
        .map(|exception| (exception.name.clone(), exception.condition.as_deref(), exception.expired))
        .collect();
    assert_eq!(
        found,
        [
            ("tools".to_owned(), Some("proc.name in (runc)"), false),
            ("tools".to_owned(), Some("proc.name in (crun)"), true),
            ("later".to_owned(), None, false),
            ("later".to_owned(), Some("(proc.name = podman)"), false),
        ]
    );
    let first = &rules.rules()[0].exceptions[0];
    assert_eq!((first.reason.as_deref(), first.owner.as_deref()), (Some("the runtime"), Some("platform")));
    assert_eq!(rules.next_expiry(), Some(options().today));
    assert_eq!(
        rules.rules()[0].condition,
        "(evt.type = setns) and not (proc.name in (runc)) and not ((proc.name = podman))"
    );
}

#[test]
fn the_examples_of_the_reference_load() {
    for example in monitor::rules::reference::file_examples() {
        let rules = RuleSet::from_sources_with(&[("example.yaml", example)], &options());
        assert!(rules.is_ok(), "{example}\n{}", rules.unwrap_err());
    }
}

/// A rule of this name and these tags.
fn tagged(name: &str, tags: &str, rest: &str) -> String {
    condition("evt.type = setns").replace("rule: R", &format!("rule: {name}"))
        + &format!("  tags: [{tags}]\n{rest}")
}

#[test]
fn rules_are_selected_in_order_whatever_the_files_say() {
    let text = tagged("First rule", "a", "  enabled: false\n")
        + &tagged("Second rule", "a, b", "")
        + &tagged("Third", "b", "  id: other-id\n");
    let rule = |rule: &str| Which { rule: Some(rule.to_owned()), tag: None };
    let tag = |tag: &str| Which { rule: None, tag: Some(tag.to_owned()) };
    let enabled = |selection: &[Selection]| {
        let options = LoadOptions { selection: selection.to_vec(), ..options() };
        let rules = RuleSet::from_sources_with(&[("r.yaml", &text)], &options).unwrap();
        let enabled = rules.rules().iter().filter(|rule| rule.enabled).map(|rule| rule.name.clone());
        let warnings = rules.warnings().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        (enabled.collect::<Vec<_>>().join(", "), warnings)
    };
    use Selection::{Disable, Enable};
    for (selection, expected) in [
        (&[][..], "Second rule, Third"),
        (&[Disable(rule("*"))], ""),
        (&[Enable(rule("*"))], "First rule, Second rule, Third"),
        (&[Disable(rule("*")), Enable(rule("*rule"))], "First rule, Second rule"),
        (&[Enable(rule("*rule")), Disable(rule("*"))], ""),
        (&[Disable(rule("*")), Enable(tag("b")), Disable(rule("other-id"))], "Second rule"),
        (&[Disable(rule("*")), Enable(rule("first-*"))], "First rule"),
        (&[Disable(Which { rule: Some("Third".into()), tag: Some("a".into()) })], ""),
    ] {
        assert_eq!(enabled(selection), (expected.to_owned(), String::new()), "{selection:?}");
    }
    let (_, warnings) = enabled(&[Enable(rule("*")), Disable(rule("Thrid")), Enable(tag("c"))]);
    assert_eq!(
        warnings,
        "rule_selection[1]: asks to disable a rule `Thrid`, and there is none; \
         rule_selection[2]: asks to enable rules with the tag `c`, and there is none"
    );
}

#[test]
fn outputs_are_added_to_by_rule_tag_and_source() {
    let text = tagged("A", "t", "") + &tagged("B", "t", "") + &tagged("C", "t, u", "  id: see\n");
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    let more = |which: OutputOf, extra: &str| AppendOutput {
        which,
        extra_output: Some(extra.to_owned()),
        extra_fields: vec!["proc.sid".to_owned(), "proc.aname[2]".to_owned(), "proc.sid".to_owned()],
    };
    let append_output = vec![
        more(
            OutputOf { tags: tags(&["t"]), source: Some("syscall".into()), ..OutputOf::default() },
            "all %proc.pid",
        ),
        more(OutputOf { rule: Some("B".into()), ..OutputOf::default() }, "b"),
        more(OutputOf { rule: Some("see".into()), tags: tags(&["t", "u"]), ..OutputOf::default() }, "c"),
        more(OutputOf { source: Some("k8s_audit".into()), ..OutputOf::default() }, "never %nosuch.field"),
    ];
    let load = |append_output| {
        RuleSet::from_sources_with(&[("r.yaml", &text)], &LoadOptions { append_output, ..options() })
    };
    let rules = load(append_output).unwrap();
    let outputs: Vec<&str> = rules.rules().iter().map(|rule| rule.output_text.as_str()).collect();
    assert_eq!(outputs, ["o all %proc.pid", "o all %proc.pid b", "o all %proc.pid c"]);
    let fields: Vec<&str> = rules.rules()[0].output.fields().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(fields, ["proc.pid", "proc.sid", "proc.aname[2]"]);

    // What is wrong is said once, and where.
    let wrong = AppendOutput {
        extra_fields: vec!["proc.sdi".into(), "len(proc.name)".into()],
        ..more(OutputOf::default(), "x %proc.pdi")
    };
    let error = load(vec![wrong]).unwrap_err();
    let mut found: Vec<String> = error.diagnostics().iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(found, ["append_output[0].extra_output:1:4: unknown field `proc.pdi`"]);
    let wrong = AppendOutput {
        extra_fields: vec!["proc.sdi".into(), "len(proc.name)".into()],
        ..AppendOutput::default()
    };
    let found = load(vec![wrong]).unwrap_err().to_string();
    for part in ["unknown field `proc.sdi`", "expected a field, without a transformer"] {
        assert_eq!(found.matches(part).count(), 1, "{found}");
    }
}

/// Root's own checks need root; the rest of the rule is tested beside it.
#[test]
fn rules_that_others_can_write_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let file = rules.join("r.yaml");
    std::fs::write(&file, condition("evt.type = setns")).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let strict = LoadOptions { trust: Trust::Strict, ..options() };
    let load = |path: &Path| match RuleSet::load_with(&[path.to_owned()], &strict) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.diagnostics().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    mode(&rules, 0o755);
    for (file_mode, dir_mode, by_dir, by_file) in [
        (0o644, 0o755, "", ""),
        (0o664, 0o755, "its mode 0664 lets others", "its mode 0664 lets others"),
        (0o646, 0o755, "its mode 0646 lets others", "its mode 0646 lets others"),
        (0o644, 0o775, "its mode 0775 lets others", "its mode 0775 lets others"),
        // Everyone may add files, but nobody can take this one away.
        (0o644, 0o1777, "its mode 1777 lets others", ""),
    ] {
        mode(&file, file_mode);
        mode(&rules, dir_mode);
        for (path, expected) in [(&rules, by_dir), (&file, by_file)] {
            let found = load(path);
            let fits = if expected.is_empty() {
                found == "ok"
            } else {
                found.contains(expected) && !found.contains(';')
            };
            assert!(fits, "{file_mode:o} {dir_mode:o} {}: {found}", path.display());
        }
    }
    // Links: whoever can turn one decides, and their directories are looked at.
    mode(&rules, 0o755);
    mode(&file, 0o644);
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::os::unix::fs::symlink(&file, open.join("link.yaml")).unwrap();
    std::os::unix::fs::symlink(&rules, open.join("dir")).unwrap();
    assert_eq!(load(&open.join("link.yaml")), "ok");
    mode(&open, 0o777);
    for path in [open.join("link.yaml"), open.join("dir"), open.join("dir/r.yaml")] {
        let found = load(&path);
        assert!(found.contains("open: rules from here are not trusted: its mode 0777"), "{found}");
    }
    if rustix::process::geteuid().is_root() {
        mode(&open, 0o755);
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        assert!(load(&file).contains("it belongs to uid 12345, and not to root"), "{}", load(&file));
    }
}

#[test]
fn tests_and_thresholds_are_overridden() {
    let rule = "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  \
                threshold: {count: 3, within: 1m}\n  tests:\n  - {name: a, event: {evt.type: setns}, match: true}\n";
    let change = |more: &str| {
        let text = format!("- rule: R\n{more}");
        let rules = RuleSet::from_sources(&[("1.yaml", rule), ("2.yaml", &text)]).unwrap();
        let names: Vec<String> = rules.rules()[0].tests.iter().map(|test| test.name.clone()).collect();
        (
            names,
            rules.run_tests().passed(),
            rules.rules()[0].threshold.clone().map(|threshold| threshold.count),
        )
    };
    let narrower = "  condition: and proc.name = x\n  override: {condition: append}\n";
    assert_eq!(change(narrower), (vec!["a".to_owned()], false, Some(3)));
    let with_tests = "  condition: and proc.name = x\n  tests:\n  - {name: b, event: {evt.type: setns, proc.name: x}, match: true}\n  \
                      override: {condition: append, tests: replace}\n";
    assert_eq!(change(with_tests), (vec!["b".to_owned()], true, Some(3)));
    let more = "  tests:\n  - {name: b, event: {evt.type: unshare}, match: false}\n  threshold: {count: 5, within: 1m}\n  \
                override: {tests: append, threshold: replace}\n";
    assert_eq!(change(more), (vec!["a".to_owned(), "b".to_owned()], true, Some(5)));
}

#[test]
fn unknown_fields_in_macros_count_where_the_macro_is_used() {
    let unknown =
        "- macro: inner\n  condition: foo.bar = 1\n- macro: mx\n  condition: inner or evt.type = setns\n";
    let rule = |skip: bool| {
        format!(
            "{unknown}- rule: R\n  desc: d\n  condition: mx\n  output: o\n  priority: INFO\n  skip-if-unknown-filter: {skip}\n"
        )
    };
    let load = |text: &str| RuleSet::from_sources(&[("1.yaml", text)]);
    let warned = |rules: &RuleSet| rules.warnings().iter().map(ToString::to_string).collect::<Vec<_>>();
    let skipped = load(&rule(true)).unwrap();
    assert!(skipped.rules().is_empty());
    assert_eq!(warned(&skipped), ["1.yaml:2:14: unknown field `foo.bar`"]);
    let error = load(&rule(false)).unwrap_err().to_string();
    assert!(error.contains("1.yaml:2:14") && error.contains("unknown field `foo.bar`"), "{error}");
    assert_eq!(warned(&load(unknown).unwrap()), ["1.yaml:2:14: unknown field `foo.bar`"]);
    // Another mistake beside it is one in any case.
    let worse = unknown.replace("inner or", "nosuch or inner or");
    assert!(load(&worse).unwrap_err().to_string().contains("unknown macro `nosuch`"));
}

#[test]
fn a_text_that_looks_like_a_field_is_warned_of() {
    let warned = |value: &str| {
        let text = format!(
            "- rule: R\n  desc: d\n  condition: evt.type = setns and proc.name = {value}\n  output: o\n  priority: INFO\n"
        );
        let rules = RuleSet::from_sources(&[("1.yaml", text.as_str())]).unwrap();
        rules.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warned("proc.pname"),
        ["1.yaml:3:47: `proc.pname` is taken for a text, though it looks like a field"]
    );
    for fine in ["val(proc.pname)", "\"proc.pname\"", "proc.nosuch", "x.service"] {
        assert_eq!(warned(fine), [""; 0], "{fine}");
    }
}
