//! The command line under test.

use std::fs;

use super::*;
use crate::cli::rules_command::RuleFiles;
use crate::preflight::CheckState;
use crate::rules::RuleSet;

const RULES: &str = "- rule: Enter a namespace\n  id: enter\n  desc: |\n    What it means.\n    What to check.\n  \
                     condition: evt.type = setns\n  output: \"%proc.name\"\n  priority: WARNING\n  tags: [a, b]\n";

fn settings(args: &[&str]) -> Settings {
    let all = ["ringfence", "run"].iter().chain(args);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Run(args) => args.settings().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_names_the_real_defaults() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
    for default in [
        crate::config::DEFAULT_RING_BYTES.to_string(),
        crate::config::DEFAULT_RECORD_BYTES.to_string(),
        crate::config::DEFAULT_LISTEN.to_string(),
        crate::control::DEFAULT_CONTROL_SOCKET.to_owned(),
        crate::config::DEFAULT_CONFIG.to_owned(),
    ] {
        assert!(help.contains(&default), "{default} is missing in {help}");
    }
}

#[test]
fn arguments_override_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, "attach: tracepoint\nrules: [/x]\nring_bytes: 8192\nlisten: off\nno_color: true\n")
        .unwrap();
    let config = path.to_str().unwrap();
    let from_file = settings(&["-c", config]);
    assert_eq!(from_file.attach, AttachChoice::Tracepoint);
    assert_eq!((from_file.listen, from_file.no_color), (Listen::Off, true));
    let args = "--rules /a --rules /b --attach trampoline --strict -o json --alert-file /x.jsonl \
                --record-dir /r --record-bytes 16777216 --listen 127.0.0.1:0 --control-socket off --ring-bytes 4096 --min-priority notice";
    let both = settings(&["-c", config].into_iter().chain(args.split_whitespace()).collect::<Vec<_>>());
    assert_eq!(
        both,
        Settings {
            attach: AttachChoice::Trampoline,
            strict: true,
            rules: vec!["/a".into(), "/b".into()],
            output: Some(OutputFormat::Json),
            alert_file: Some("/x.jsonl".into()),
            record_dir: Some("/r".into()),
            record_bytes: 16 << 20,
            listen: Listen::On("127.0.0.1:0".parse().unwrap()),
            control_socket: ControlSocket::Off,
            ring_bytes: 4096,
            min_priority: Priority::Notice,
            no_color: true,
            ..Settings::default()
        }
    );
}

#[test]
fn wrong_arguments_are_refused() {
    for args in [
        &["run", "--ring-bytes", "4097"][..],
        &["run", "--listen", "localhost"],
        &["run", "--min-priority", "loud"],
        &["run", "--attach", "x"],
        &["run", "--record-bytes", "1"],
        &["run", "--record-dir", "relative"],
        &["record"],
        &["record", "-o", "x", "--max-bytes", "1"],
        &["replay"],
        &["rules", "backtest", "--since", "yesterday"],
        &["rules"],
        &["rules", "show"],
        &["fields", "--format", "xml"],
        &["nonsense"],
        &[],
    ] {
        let error = Cli::try_parse_from(["ringfence"].iter().chain(args)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
    }
}

#[test]
fn check_tells_good_from_bad() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.yaml"), dir.path().join("bad.yaml"));
    fs::write(&good, RULES).unwrap();
    fs::write(&bad, RULES.replace("evt.type = setns", "evt.typ = setns")).unwrap();
    let report = check::report(vec![good.clone()], &ConfigArg::default(), false);
    assert!(!report.wrong && report.text.ends_with("ok: 1 rule, 1 enabled, 0 warnings\n"), "{}", report.text);
    let report = check::report(vec![bad.clone()], &ConfigArg::default(), false);
    assert!(
        report.wrong && report.text.contains("bad.yaml") && report.text.contains("evt.typ"),
        "{}",
        report.text
    );
    assert!(report.text.ends_with("wrong: 1 error, 0 warnings\n"), "{}", report.text);

    let config = dir.path().join("c.yaml");
    fs::write(&config, "rulez: []\n").unwrap();
    let named = ConfigArg { config: Some(config.clone()), ..ConfigArg::default() };
    let report = check::report(Vec::new(), &named, false);
    assert!(report.wrong && report.text.contains("did you mean `rules`"), "{}", report.text);
    assert!(report.text.ends_with("configuration wrong; rules not checked\n"), "{}", report.text);
    // Named rules are checked all the same.
    let report = check::report(vec![bad], &named, false);
    for part in ["did you mean `rules`", "unknown field `evt.typ`", "wrong: 1 error, 0 warnings\n"] {
        assert!(report.wrong && report.text.contains(part), "{part:?} is missing in {}", report.text);
    }
    let report = check::report(vec![good.clone()], &named, false);
    let end =
        "ok: 1 rule, 1 enabled, 0 warnings\nconfiguration wrong; the named rules were checked without it\n";
    assert!(report.wrong && report.text.ends_with(end), "{}", report.text);
    fs::write(&config, format!("rules: [{}]\n", good.display())).unwrap();
    assert!(!check::report(Vec::new(), &named, false).wrong);
}

#[test]
fn rules_are_listed_and_shown() {
    let set = RuleSet::from_sources(&[("r.yaml", RULES)]).unwrap();
    assert_eq!(rules::list(&set, OutputFormat::Text), "enter  Warning        Enter a namespace\n");
    let list: serde_json::Value = serde_json::from_str(&rules::list(&set, OutputFormat::Json)).unwrap();
    assert_eq!(list[0]["event_types"], serde_json::json!(["setns"]));
    let shown = rules::show(&set, "enter", OutputFormat::Text).unwrap();
    for part in
        ["priority    Warning\n", "\nmeaning\n  What it means.\n  What to check.\n", "  evt.type = setns\n"]
    {
        assert!(shown.contains(part), "{part:?} is missing in {shown}");
    }
    assert_eq!(rules::show(&set, "Enter a namespace", OutputFormat::Text).unwrap(), shown);
    let error = rules::show(&set, "nope\x1b[2J", OutputFormat::Text).unwrap_err();
    assert!(error.to_string().contains("nope\\x1b[2J") && error.code() == 2, "{error}");
}

#[test]
fn the_linter_shows_what_it_found_and_when_it_could_not_look() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        vec![path]
    };
    let tested = format!(
        "{RULES}  tests:\n  - {{name: a, event: {{evt.type: setns}}, match: true}}\n  - {{name: b, event: {{evt.type: unshare}}, match: false}}\n"
    );
    let good = file("lint-good.yaml", &tested);
    let odd = file("odd.yaml", &format!("- list: idle\n  items: [a]\n{tested}"));
    let bad = file("bad.yaml", &RULES.replace("evt.type", "evt.typ"));
    let look = |paths: &[PathBuf], output| {
        lint::report(&RuleFiles::plain(paths.to_vec()), None, output, false).unwrap()
    };
    let report = look(&good, OutputFormat::Text);
    assert_eq!((report.text.as_str(), report.wrong), ("clean: 0 warnings, 0 notes\n", false));
    let report = look(&odd, OutputFormat::Text);
    assert!(report.wrong && report.text.starts_with("warning: unused-list\n"), "{}", report.text);
    for part in ["odd.yaml:1:9", "- list: idle", "found: 1 warning, 0 notes\n"] {
        assert!(report.text.contains(part), "{part:?} is missing in {}", report.text);
    }
    let json = |paths: &[PathBuf]| {
        let report = look(paths, OutputFormat::Json);
        (serde_json::from_str::<serde_json::Value>(&report.text).unwrap(), report.wrong)
    };
    let (found, wrong) = json(&odd);
    assert!(wrong);
    assert_eq!(
        found,
        serde_json::json!({ "errors": [], "findings": [{
            "kind": "unused-list", "level": "warning", "file": odd[0].to_str().unwrap(), "line": 1, "column": 9,
            "message": "no rule uses the list `idle`", "help": "take it out",
        }] })
    );
    assert_eq!(json(&good), (serde_json::json!({ "errors": [], "findings": [] }), false));
    let (found, wrong) = json(&bad);
    assert!(wrong && found["errors"][0]["message"] == "unknown field `evt.typ`", "{found}");
    assert!(look(&bad, OutputFormat::Text).text.ends_with("so they were not looked at\n"));
}

#[test]
fn doctor_shows_what_fails() {
    let checks =
        [Check::ok("kernel", "6.1"), Check::bad("BTF", CheckState::Fail, "missing", "boot another kernel")];
    let table = doctor::table(&checks, false);
    assert!(table.starts_with("ok    kernel  6.1\nFAIL  BTF     missing\n"), "{table}");
    assert!(table.contains("remedy: boot another kernel"), "{table}");
    assert!(doctor::is_wrong(&checks) && !doctor::is_wrong(&checks[..1]));
}

#[test]
fn every_field_is_in_every_format() {
    for format in [FieldsFormat::Text, FieldsFormat::Md, FieldsFormat::Json] {
        let text = fields::text(format);
        for spec in crate::fields::CATALOGUE {
            assert!(text.contains(spec.name), "{format:?}: {}", spec.name);
        }
    }
    serde_json::from_str::<serde_json::Value>(&fields::text(FieldsFormat::Json)).unwrap();
}

#[test]
fn the_published_field_reference_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fields.md");
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        fs::write(path, fields_markdown()).unwrap();
    }
    let published = fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == fields_markdown(),
        "docs/fields.md is stale; `RINGFENCE_BLESS=1 cargo test -p monitor fresh` rewrites it"
    );
}

#[test]
fn the_published_rule_reference_is_fresh() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let rules = RuleSet::load(&[format!("{root}/rules").into()]).unwrap();
    let reference = crate::rules::reference::markdown(&rules);
    let path = format!("{root}/docs/rules.md");
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == reference,
        "docs/rules.md is stale; `RINGFENCE_BLESS=1 cargo test -p monitor fresh` rewrites it"
    );
}

#[test]
fn errors_with_a_place_keep_it() {
    let load = RuleSet::from_sources(&[("r.yaml", "- rule: x\n  nope: 1\n")]).unwrap_err();
    let failure = Failure::from(anyhow::Error::from(load).context("loading rules"));
    assert!(failure.to_string().contains("r.yaml"), "{failure}");
    let plain = Failure::from(anyhow::anyhow!("cause; remedy").context("attaching"));
    assert_eq!(plain.to_string(), "ringfence: attaching: cause; remedy\n");
}

#[test]
fn the_reference_of_falcos_files_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/falco.md");
    let fresh = crate::rules::falco::markdown();
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        fs::write(path, &fresh).unwrap();
    }
    assert!(
        fs::read_to_string(path).is_ok_and(|text| text == fresh),
        "docs/falco.md is stale; `RINGFENCE_BLESS=1 cargo test -p monitor fresh` rewrites it"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    man::write(Cli::command(), dir.path()).unwrap();
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let main = page("ringfence.1");
    assert!(main.contains(".SH FILES") && main.contains("Exit codes"), "{main}");
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let text = page(&format!("ringfence-{}.1", command.get_name()));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{text}");
    }
    assert!(page("ringfence-rules-lint.1").contains("OPTIONS"));
    // It is for packages, and no command of a user's.
    assert!(!dir.path().join("ringfence-man.1").exists());
}
