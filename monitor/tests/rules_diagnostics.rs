//! What is said about mistakes: every one of a file in one run, with line, column, caret and a suggestion.

mod rules_common;

use std::fs;
use std::path::PathBuf;

use monitor::rules::{LoadError, RuleSet, Severity};
use proptest::prelude::*;
use rules_common::rule_with;

fn errors(text: &str) -> LoadError {
    match RuleSet::from_sources(&[("t.yaml", text)]) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    }
}

/// `line:column message`, and the hint in brackets, for each diagnostic.
fn summary(error: &LoadError) -> Vec<String> {
    let line = |found: &monitor::rules::Diagnostic| {
        let (line, column) = found.line_column().unwrap_or_default();
        let hint = found.hint().map(|hint| format!(" [{hint}]")).unwrap_or_default();
        format!("{line}:{column} {}{hint}", found.message())
    };
    error.diagnostics().iter().map(line).collect()
}

#[test]
fn a_report_has_the_line_and_a_caret() {
    let error = errors(
        "- rule: R\n  desc: d\n  condition: evt.type = setns and evt.verdikt = allowed\n  output: o\n  priority: DEBUG\n",
    );
    let expected = "  × unknown field `evt.verdikt`
   ╭─[t.yaml:3:35]
 2 │   desc: d
 3 │   condition: evt.type = setns and evt.verdikt = allowed
   ·                                   ───────────
 4 │   output: o
   ╰────
";
    let rendered = error.to_string();
    assert!(rendered.starts_with(expected), "{rendered}");
    assert!(rendered.contains("help: did you mean `evt.verdict`?"), "{rendered}");
    assert_eq!(error.diagnostics()[0].to_string(), "t.yaml:3:35: unknown field `evt.verdikt`");
}

/// A file may be one line of a megabyte; its reports may not.
#[test]
fn of_a_long_line_an_excerpt_is_shown() {
    let text =
        format!("[{}{{ruel: ä}}, {}{{lsit: l}}]", "{list: l, items: []}, ".repeat(500), "null, ".repeat(500));
    let error = errors(&text);
    let found: Vec<String> = error.diagnostics().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{error}");
    assert!(found[0].starts_with("t.yaml:1:11003: this item is neither"), "{found:?}");
    let rendered = error.to_string();
    assert!(rendered.len() < 2000, "{rendered}");
    for part in ["╭─[t.yaml:1:11003]", "items: []}, {ruel: ä}, null", "────", "help: did you mean `rule`?"]
    {
        assert!(rendered.contains(part), "{part}\n{rendered}");
    }
    // A long text that is wrong as a whole.
    let error = errors(&format!(
        "- rule: R\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: {}\n",
        "x".repeat(5000)
    ));
    assert!(error.diagnostics()[0].render(false).len() < 8000, "{error}");
}

#[test]
fn every_mistake_of_every_file_is_reported_in_one_run() {
    let one = "\
- list: calls
  itms: [setns]

- macro: here
  condition: container.id != host and calls

- rule: First
  id: Not Kebab
  desc: d
  condition: >
    evt.type in (calls)
    and heer
    and proc.pid = many
  output: \"%proc.nme and 5% off\"
  priority: HIGH
  attack: [T1]
";
    let two = "\
- rule: Second
  id: same
  desc: d
  condition: proc.name < 5
  output: o
  priority: INFO
- rule: Third
  id: same
  condition: evt.failed = yes
  desc: d
  output: o
  priority: debug
- rule: Fourth
  condition: nothing = of this
  desc: d
  output: o
  priority: debug
  source: sysall
";
    let error = RuleSet::from_sources(&[("one.yaml", one), ("two.yaml", two)]).unwrap_err();
    assert_eq!(
        summary(&error),
        [
            "1:3 this item has no `items`",
            "2:3 unknown key `itms` [did you mean `items`?]",
            "5:39 unknown macro `calls` [`calls` is a list; compare a field with it by `in`]",
            "8:7 `Not Kebab` is not kebab-case [did you mean `not-kebab`?]",
            "12:9 unknown macro `heer` [did you mean `here`?]",
            "13:20 `many` is not a number [the field is a number; write decimal, or hexadecimal with 0x]",
            "14:13 unknown field `proc.nme` [did you mean `proc.name`?]",
            "14:27 expected a field, such as `proc.name`, or a transformer [a percent sign is written `%%`]",
            "15:13 unknown priority `HIGH` [the priorities are EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, \
             NOTICE, INFORMATIONAL, DEBUG]",
            "16:12 `T1` is not an ATT&CK id [techniques look like T1611 or T1548.001, tactics like TA0004]",
            "4:24 `<` does not work on a text [`<`, `<=`, `>` and `>=` are for numbers]",
            "9:27 `yes` is neither `true` nor `false`",
            "18:11 unknown source `sysall`: the rule `Fourth` is left out [did you mean `syscall`?]",
        ]
    );
}

#[test]
fn columns_are_right_in_every_kind_of_scalar() {
    let condition_at = |condition: &str| {
        let text =
            format!("- rule: R\n  desc: d\n  output: o\n  priority: DEBUG\n  condition: {condition}\n");
        let error = errors(&text);
        let found = &error.diagnostics()[0];
        assert_eq!(found.message(), "unknown macro `wrong`", "{text}");
        found.line_column().unwrap()
    };
    assert_eq!(condition_at("wrong"), (5, 14));
    assert_eq!(condition_at("evt.failed = true and wrong"), (5, 36));
    assert_eq!(condition_at("evt.failed = true\n    and wrong"), (6, 9));
    assert_eq!(condition_at("'proc.name = ''x'' and wrong'"), (5, 37));
    assert_eq!(condition_at("\"proc.name = \\\"\\u00e4\\\" and \\\n      wrong\""), (6, 7));
    assert_eq!(condition_at(">\n    evt.failed = true and\n\n    wrong"), (8, 5));
    assert_eq!(condition_at("|-  # comment\n    proc.name = 'ä' and\n      wrong"), (7, 7));
    assert_eq!(condition_at(">-\n    proc.name = ö or wrong"), (6, 22));
}

#[test]
fn single_mistakes() {
    let rule = |condition: &str| rule_with(condition);
    let with = |extra: &str| format!("{}  {extra}\n", rule_with("evt.failed = true"));
    for (text, expected) in [
        // Conditions; theirs begin in line 4, column 5.
        (rule("evt.arg[flgs] = x"), "4:5 field `evt.arg` does not accept the argument `flgs`"),
        (rule("evt.arg = x"), "4:5 field `evt.arg` needs an argument in brackets"),
        (rule("proc.aname[9] = x"), "4:5 field `proc.aname` does not accept the argument `9`"),
        (rule("evt.type[0] = x"), "4:5 field `evt.type` takes no argument"),
        (rule("evt.type contain x"), "4:14 expected an operator [did you mean `contains`?]"),
        (rule("evt.type in (a\n  b)"), "5:7 expected `)`"),
        (rule("evt.type in nothing"), "4:17 unknown list `nothing`"),
        (rule("proc.pid contains 4"), "4:14 `contains` does not work on a number"),
        (rule("proc.pid = ''"), "4:16 `` is not a number"),
        (rule("proc.pid in (1, x)"), "4:21 `x` is not a number"),
        (rule("evt.failed > 1"), "4:16 `>` does not work on a bool"),
        (rule("proc.name > 1"), "4:15 `>` does not work on a text"),
        (rule("evt.flags < 1"), "4:15 `<` does not work on a list of texts"),
        (rule("proc.name = val(proc.pid)"), "4:5 a text cannot be compared with a number"),
        (rule("proc.name glob val(proc.pname)"), "4:24 `glob` needs a value that is known at load"),
        (rule("len(proc.pid) = 1"), "4:9 `len` needs a text, this is a number"),
        (rule("getopt('-a', 'a')['a'] = x"), "4:12 `getopt` needs a list of texts here"),
        (
            rule("getopt(proc.args, 'ab')['ab'] = x"),
            "4:5 in brackets behind `getopt` stands the letter of one option",
        ),
        (rule("concat(proc.name) = x"), "4:5 `concat` needs at least two values"),
        (rule("join('-', proc.name) = x"), "4:15 `join` needs a list here, this is a text"),
        (rule("b64(proc.name, proc.pname) exists"), "4:5 `b64` takes one value"),
        (rule("evt.arg[''] = x"), "4:5 the argument of `evt.arg` is empty"),
        (rule("proc.name regex 'a[b-a]'"), "4:24 not a regular expression: invalid character class range"),
        (rule("join('-') = x"), "4:5 `join` needs two arguments"),
        (rule("proc.name regex '('"), "4:22 not a regular expression: unclosed group"),
        (rule("proc.name regex '(a{999}){999}'"), "4:21 the pattern is too large"),
        (rule("proc.name bcontains 7f4"), "4:25 expected bytes as pairs of hexadecimal digits"),
        (rule("proc.name pmatch (/a, '')"), "4:27 an empty path"),
        (rule("evt.failed = true # why"), "4:23 there are no comments inside a condition"),
        (rule(&format!("{}evt.failed = true", "(".repeat(101))), "4:105 nested more than 100 deep"),
        // Items and keys.
        (with("prioritty: DEBUG"), "7:3 unknown key `prioritty` [did you mean `priority`?]"),
        (with("priority: DEBUG"), "7:3 the key `priority` stands twice in this item"),
        (with("enabled: maybe"), "7:12 `enabled` must be `true` or `false`"),
        (with("tags: container"), "7:9 `tags` must be a sequence, found a value"),
        (with("tags: [[a]]"), "7:10 a member of `tags` must be a text, found a sequence"),
        (with("id: Clock_Set"), "7:7 `Clock_Set` is not kebab-case [did you mean `clock-set`?]"),
        (with("attack: [T1611, T16]"), "7:19 `T16` is not an ATT&CK id"),
        (with("maturity: stabel"), "7:13 unknown maturity `stabel` [did you mean `stable`?]"),
        (
            "- rule: …\n  desc: d\n  condition: evt.failed = true\n  output: o\n  priority: INFO\n"
                .to_owned(),
            "1:9 no id can be made from this name",
        ),
        (
            "- rule: R\n  desc: d\n  output: o\n  priority: INFO\n".to_owned(),
            "1:3 this item has no `condition`",
        ),
        ("- macro: m\n  condition:\n".to_owned(), "`condition` is empty"),
        ("- list: l\n  items: x\n".to_owned(), "2:10 `items` must be a sequence, found a value"),
        (
            "- ruel: R\n".to_owned(),
            "1:3 this item is neither a rule nor a macro nor a list [did you mean `rule`?]",
        ),
        ("- just text\n".to_owned(), "1:3 expected an item, found a value"),
        ("rule: R\n".to_owned(), "1:1 expected a sequence of items, found a mapping"),
        ("- rule: [\n".to_owned(), "not valid YAML"),
        ("- required_engine_version: new\n".to_owned(), "1:28 expected a version"),
        // Circles and bombs.
        (
            "- macro: a\n  condition: b\n- macro: b\n  condition: evt.failed = true\n".to_owned(),
            "2:14 the macro `b` is defined only later",
        ),
        (
            "- macro: a\n  condition: c.d = x\n- macro: b\n  condition: a\n- macro: a\n  condition: b\n"
                .to_owned(),
            "4:14 the macro `a` contains itself",
        ),
        (
            "- list: a\n  items: [b]\n- list: b\n  items: [x, a]\n".to_owned(),
            "4:14 the list `a` contains itself",
        ),
        // Templates.
        (with("").replace("output: o", "output: 100% sure"), "5:14 expected a field, such as `proc.name`"),
        (with("").replace("output: o", "output: x %proc.nam."), "5:14 unknown field `proc.nam`"),
        (with("").replace("output: o", "output: '%evt.arg[flags'"), "5:26 expected `]`"),
        (with("").replace("output: o", "output: '%tolower(proc.pid)'"), "5:21 `tolower` needs a text"),
    ] {
        let error = errors(&text);
        let found = summary(&error);
        assert_eq!(found.len(), 1, "{text}\n{error}");
        assert!(found[0].contains(expected), "{text}\nexpected {expected}\nfound    {}\n{error}", found[0]);
    }
}

#[test]
fn bombs_of_macros_and_lists_are_refused() {
    let mut macros = String::from("- macro: m0\n  condition: evt.failed = true\n");
    let mut lists = String::from("- list: l0\n  items: [a, b, c, d, e, f, g, h, i, j]\n");
    for i in 1..40 {
        let below = i - 1;
        macros.push_str(&format!("- macro: m{i}\n  condition: m{below} or m{below}\n"));
        lists.push_str(&format!("- list: l{i}\n  items: [{}]\n", vec![format!("l{below}"); 10].join(", ")));
    }
    assert!(errors(&macros).to_string().contains("more than 10000 tests"));
    assert!(errors(&lists).to_string().contains("more than 100000 members"));
    let mut chain = String::from("- macro: m0\n  condition: evt.failed = true\n");
    for i in 1..5_000 {
        chain.push_str(&format!("- macro: m{i}\n  condition: m{} or m0\n", i - 1));
    }
    assert!(errors(&chain).to_string().contains("deep"));
}

#[test]
fn a_later_definition_replaces_an_earlier_one_where_it_stood() {
    let one = format!(
        "- list: calls\n  items: [setns]\n- macro: m\n  condition: evt.type in (calls)\n{}- rule: Other\n  desc: d\n  condition: m\n  output: o\n  priority: INFO\n",
        rule_with("m").replace("rule: R", "rule: First")
    );
    let two = "- list: calls\n  items: [unshare]\n- rule: First\n  desc: new\n  condition: not m\n  output: o\n  priority: ALERT\n  enabled: false\n";
    let rules =
        RuleSet::from_sources(&[("one.yaml", &one), ("two.yaml", two)]).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<(&str, &str, bool)> =
        rules.rules().iter().map(|rule| (rule.name.as_str(), rule.desc.as_str(), rule.enabled)).collect();
    assert_eq!(names, [("First", "new", false), ("Other", "d", true)]);
    let unshare = rules_common::Fake::default().text("evt.type", "unshare");
    let setns = rules_common::Fake::default().text("evt.type", "setns");
    use monitor_common::call::Call;
    assert_eq!(rules_common::matching(&rules, Call::Unshare, &unshare), ["other"]);
    assert!(rules_common::matching(&rules, Call::Setns, &setns).is_empty());
}

#[test]
fn odd_rules_are_warned_about() {
    let never = rule_with("evt.type = unshar");
    let rules = RuleSet::from_sources(&[("t.yaml", &never)]).unwrap();
    assert_eq!(rules.warnings().len(), 1);
    assert_eq!(rules.warnings()[0].severity(), Severity::Warning);
    assert_eq!(rules.warnings()[0].message(), "no event can ever match this rule");
    let silenced = format!("{never}  warn_evttypes: false\n");
    assert!(RuleSet::from_sources(&[("t.yaml", &silenced)]).unwrap().warnings().is_empty());

    let unknown = rule_with("k8s.ns.nam = x");
    let skipped = format!("{unknown}  skip-if-unknown-filter: true\n");
    let rules = RuleSet::from_sources(&[("t.yaml", &skipped)]).unwrap();
    assert!(rules.rules().is_empty());
    assert!(rules.warnings()[0].message().contains("unknown field"));
    let also_wrong = format!("{}  skip-if-unknown-filter: true\n", rule_with("k8s.ns.nam = x or nosuch"));
    assert!(RuleSet::from_sources(&[("t.yaml", &also_wrong)]).is_err());
}

#[test]
fn versions_and_empty_files_are_fine() {
    let text =
        "- required_engine_version: 0.50.0\n- required_plugin_versions:\n  - name: x\n    version: 1.0.0\n";
    assert!(RuleSet::from_sources(&[("a.yaml", text), ("b.yaml", ""), ("c.yaml", "# nothing\n")]).is_ok());
}

#[test]
fn files_and_directories_are_read_in_order_and_what_cannot_be_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let named = |name: &str| rule_with("evt.failed = true").replace("rule: R", &format!("rule: {name}"));
    file("rules/20-b.yaml", named("B").as_bytes());
    file("rules/10-a.yml", named("A").as_bytes());
    file("rules/notes.txt", b"not a rule");
    file("rules/.30-hidden.yaml", named("Hidden").as_bytes());
    let rules = RuleSet::load(&[dir.path().join("rules")]).unwrap();
    assert_eq!(rules.rules().iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["A", "B"]);

    fs::create_dir(dir.path().join("empty")).unwrap();
    let large = file("large.yaml", &vec![b'#'; (1 << 20) + 1]);
    let binary = file("binary.yaml", b"# ok\n- \xff\xfe\n");
    let missing = dir.path().join("missing.yaml");
    let paths = [dir.path().join("empty"), large, binary, missing, PathBuf::from("/proc/self/mem")];
    let error = RuleSet::load(&paths).unwrap_err();
    let report = error.to_string();
    assert_eq!(error.diagnostics().len(), 5, "{report}");
    for part in [
        "no rule file in this directory",
        "larger than 1 MiB",
        "not UTF-8 in line 2, byte ",
        "cannot read the rules: No such file",
        "cannot read the rules: Input/output error",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    for found in error.diagnostics() {
        assert!(found.file_name().starts_with('/'), "{found}");
    }
    let full = vec![b'#'; 1 << 20];
    assert!(RuleSet::load(&[file("full.yaml", &full)]).is_ok());
}

/// The shipped rules as one text, to be spoilt.
fn shipped() -> String {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "yaml"));
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 48 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever becomes of a rule file, it is loaded or complained of, and the complaint can be printed.
    #[test]
    fn spoilt_files_never_panic(
        at in any::<proptest::sample::Index>(),
        length in 0_usize..40,
        with in prop_oneof![
            Just(String::new()), any::<String>(), "[-:{}()&*%#>|\\[\\]'\"\\\\ \n\t,!?@`]{0,6}",
        ],
    ) {
        let mut text: Vec<char> = shipped().chars().collect();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, with.chars());
        let text: String = text.into_iter().collect();
        if let Err(error) = RuleSet::from_sources(&[("spoilt.yaml", &text)]) {
            prop_assert!(!error.diagnostics().is_empty());
            prop_assert!(error.to_string().contains("spoilt.yaml"));
        }
    }
}
