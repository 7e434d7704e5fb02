//! Configuration under test: what is read, in which order, and how mistakes are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use miette::Diagnostic as _;
use proptest::prelude::*;

use super::*;
use crate::confine::Confine;
use crate::rules::reference::configuration_examples;
use crate::rules::{NamedField, Which};

fn parse(text: &str) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    settings.apply(file::parse("config.yaml", text.to_owned())?.config);
    Ok(settings)
}

#[test]
fn every_setting_is_read() {
    let settings = parse(
        "attach: tracepoint\nstrict: true\nsyscall_sets: true\nprobe_cost: true\nrules: [/a, b/c.yaml]\nwatch_rules: false\noutput: json\nhostname: node-7\nalert_file: /var/log/x.jsonl\n\
         record_dir: /var/lib/x\nrecord_bytes: 33554432\nlisten: '[::1]:9999'\ncontrol_socket: /run/x.sock\nring_bytes: 65536\nmin_priority: NOTICE\nalert_why: true\nno_color: true\n\
         process_table_entries: 2048\ncgroup_hierarchy: pids\ncanary_interval_ms: 5000\n\
         metadata_wait_ms: 0\nhost_root: /host\ndocker_roots: [/d, /e]\ncontainerd_roots: [/c]\n\
         crio_roots: []\npodman_roots: [/p]\nrule_selection: [{disable: {rule: '*'}}, {enable: {tag: t}}]\n\
         append_output: [{extra_output: o}]\ngroup_by: [proc.name]\ngroup_seconds: 7\noutputs: [{type: stdout, format: off}]\nstate_dir: /s\npin_dir: /p\ncapability_unused_series: 5\nconfine: {landlock: false}\n",
    )
    .unwrap();
    assert_eq!(
        settings,
        Settings {
            attach: AttachChoice::Tracepoint,
            strict: true,
            syscall_sets: true,
            probe_cost: true,
            rules: vec!["/a".into(), "b/c.yaml".into()],
            watch_rules: false,
            rule_selection: vec![
                Selection::Disable(Which { rule: Some("*".into()), tag: None }),
                Selection::Enable(Which { rule: None, tag: Some("t".into()) }),
            ],
            append_output: vec![AppendOutput { extra_output: Some("o".into()), ..AppendOutput::default() }],
            output: Some(OutputFormat::Json),
            hostname: Some("node-7".into()),
            alert_file: Some("/var/log/x.jsonl".into()),
            outputs: vec![OutputConfig {
                name: "stdout".into(),
                min_priority: Priority::Debug,
                queue_bytes: 8 << 20,
                spool: None,
                kind: OutputKind::Stdout(StdoutConfig {
                    format: Some(StdoutFormat::Off),
                    ..StdoutConfig::default()
                }),
            }],
            record_dir: Some("/var/lib/x".into()),
            record_bytes: 33_554_432,
            listen: Listen::On("[::1]:9999".parse().unwrap()),
            control_socket: ControlSocket::At("/run/x.sock".into()),
            ring_bytes: 65536,
            min_priority: Priority::Notice,
            alert_why: true,
            group: GroupDefault { by: vec![NamedField::parse("proc.name").unwrap()], seconds: 7 },
            no_color: true,
            process_table_entries: 2048,
            cgroup_hierarchy: "pids".parse().unwrap(),
            canary_interval: CanaryInterval::Every(5000),
            metadata_wait_ms: 0,
            roots: Roots {
                host: "/host".into(),
                docker: vec!["/d".into(), "/e".into()],
                containerd: vec!["/c".into()],
                crio: Vec::new(),
                podman: vec!["/p".into()],
            },
            state_dir: StateDir::At("/s".into()),
            pin_dir: PinChoice::At("/p".into()),
            capability_unused_series: 5,
            confine: Confine { landlock: false, ..Confine::default() },
        }
    );
}

#[test]
fn the_interval_of_canaries_is_bounded() {
    assert_eq!(parse("canary_interval_ms: off").unwrap().canary_interval, CanaryInterval::Off);
    for wrong in ["999", "60001", "-1", "never", "1.5"] {
        assert!(parse(&format!("canary_interval_ms: {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn the_ring_of_recordings_is_bounded_and_its_place_is_absolute() {
    for wrong in
        ["record_bytes: 16777215", "record_bytes: -1", "record_bytes: 1125899906842625", "record_dir: here"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse("record_bytes: 16777216").unwrap().record_bytes, 16 << 20);
}

#[test]
fn empty_files_set_nothing() {
    for text in ["", "\n", "# only a comment\n", "---\n", "{}", "null"] {
        assert_eq!(parse(text).unwrap(), Settings::default(), "{text:?}");
    }
    assert_eq!(parse("listen: off").unwrap().listen, Listen::Off);
    assert_eq!(parse("control_socket: off").unwrap().control_socket, ControlSocket::Off);
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    // (text, line, column, part of the message, part of the help)
    let cases: &[(&str, u64, u64, &str, &str)] = &[
        (
            "strict: true\nrign_bytes: 4096\n",
            2,
            1,
            "unknown setting `rign_bytes`",
            "did you mean `ring_bytes`?",
        ),
        ("zzzzzzzz: 1\n", 1, 1, "unknown setting", "allowed: attach"),
        ("attach: tracpoint\n", 1, 9, "`tracpoint` is not allowed", "did you mean `tracepoint`?"),
        ("ring_bytes: 4097\n", 1, 13, "power of two", ""),
        ("ring_bytes: 2147483648\n", 1, 13, "power of two", ""),
        ("ring_bytes: -1\n", 1, 13, "", ""),
        ("listen: localhost\n", 1, 9, "127.0.0.1:9477", ""),
        ("control_socket: run/x.sock\n", 1, 17, "absolute path", ""),
        ("min_priority: loud\n", 1, 15, "is no priority", ""),
        ("process_table_entries: 1\n", 1, 24, "1024 to", ""),
        ("cgroup_hierarchy: v3\n", 1, 19, "one of auto, v2, devices", ""),
        ("metadata_wait_ms: 5001\n", 1, 19, "from 0 to 5000", ""),
        ("host_root: host\n", 1, 12, "does not begin with `/`", ""),
        ("docker_roots: [/d, e]\n", 1, 20, "does not begin with `/`", ""),
        ("rule_selection: [{enable: {}}]\n", 1, 0, "expected `rule: PATTERN` or `tag: TAG`", ""),
        (
            "rule_selection: [{enabel: {rule: a}}]\n",
            1,
            0,
            "`enabel` is not allowed",
            "did you mean `enable`?",
        ),
        ("rule_selection: [{enable: {rules: a}}]\n", 1, 0, "unknown setting `rules`", "did you mean `rule`?"),
        ("append_output: [{extra: x}]\n", 1, 0, "unknown setting `extra`", "allowed: match"),
        ("group_seconds: 86401\n", 1, 16, "or 0 for not at all", ""),
        ("group_by: [proc.nam]\n", 1, 12, "proc.nam", ""),
        ("outputs: [{name: x}]\n", 1, 0, "has no `type`: one of stdout, file", ""),
        ("outputs:\n- path: /x\n  type: file\n", 2, 3, "`path` stands before `type`", ""),
        ("outputs:\n- type: flie\n", 2, 9, "`flie` is no type of an output; did you mean `file`?", ""),
        (
            "outputs:\n- type: file\n  path: /x\n  roatte: {}\n",
            4,
            3,
            "unknown setting `roatte` of an output of type file; did you mean `rotate`?",
            "",
        ),
        ("outputs:\n- type: file\n  pth: /x\n", 3, 3, "Allowed: type, name, min_priority", ""),
        ("outputs:\n- type: file\n  path: x\n", 3, 9, "does not begin with `/`", ""),
        ("outputs:\n- type: file\n", 2, 0, "path", ""),
        ("outputs:\n- type: file\n  name: Siem\n", 3, 9, "is no name of an output", ""),
        ("outputs:\n- name: a b\n  type: file\n", 2, 9, "is no name of an output", ""),
        ("outputs:\n- type: stdout\n  queue_bytes: 1\n", 3, 16, "from 65536 to", ""),
        ("outputs:\n- type: stdout\n  min_priority: loud\n", 3, 17, "is no priority", ""),
        ("outputs:\n- type: stdout\n  spool: {dir: /x}\n", 2, 0, "has no spool", ""),
        ("outputs:\n- type: stdout\n  spool: {dir: x}\n", 3, 16, "does not begin with `/`", ""),
        ("outputs:\n- type: stdout\n  shape: ecss\n", 3, 10, "`ecss` is not allowed", ""),
        (
            "outputs:\n- type: file\n  path: /x\n  rotate: {keep: 3}\n",
            4,
            0,
            "neither `bytes` nor `seconds`",
            "",
        ),
        ("outputs:\n- type: file\n  path: /x\n  rotate: {bytes: 1}\n", 4, 0, "from 4096 to", ""),
        ("outputs: stdout\n", 1, 10, "", ""),
        ("strict: maybe\n", 1, 9, "", ""),
        ("strict: true\nstrict: false\n", 2, 1, "uplicate", ""),
        ("rules: /a\n", 1, 8, "", ""),
        ("- a\n", 1, 1, "", ""),
        ("rules: [\n", 1, 8, "unclosed bracket", ""),
    ];
    for (text, line, column, message, help) in cases {
        let error = parse(text).unwrap_err();
        let shown = error.to_string();
        // Inside of a line the column is the library's affair.
        let place = if *column == 0 {
            format!("config.yaml:{line}:")
        } else {
            format!("config.yaml:{line}:{column}: ")
        };
        assert!(shown.starts_with(&place), "{text:?}: {shown}");
        assert!(shown.contains(message), "{text:?}: {shown}");
        let given = error.help().map(|help| help.to_string()).unwrap_or_default();
        assert!(given.contains(help), "{text:?}: {given}");
        assert!(!shown.contains('\n'), "{text:?}: more than one line: {shown}");
    }
}

fn load(path: &Path, must_exist: bool, drop_ins: Option<&Path>) -> Result<Settings, ConfigError> {
    let files = file::read_all(path, must_exist, drop_ins)?;
    Ok(Loaded::assemble(files, std::iter::empty(), &[])?.settings)
}

#[test]
fn files_and_drop_ins_are_put_together_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (main, drop_ins) = (dir.path().join("config.yaml"), dir.path().join("config.d"));
    fs::create_dir(&drop_ins).unwrap();
    fs::set_permissions(&drop_ins, fs::Permissions::from_mode(0o755)).unwrap();
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    assert_eq!(load(&main, false, Some(&drop_ins)).unwrap(), Settings::default());
    assert!(matches!(load(&main, true, None), Err(ConfigError::Read { .. })));

    write(&main, "rules: [/main]\nstrict: true\nring_bytes: 8192\n");
    write(&drop_ins.join("20-b.yaml"), "rules: [/b]\n");
    write(&drop_ins.join("10-a.yaml"), "rules: [/a]\nring_bytes: 16384\n");
    write(&drop_ins.join(".hidden.yaml"), "rules: [/hidden]\n");
    write(&drop_ins.join("note.txt"), "not yaml: [\n");
    let settings = load(&main, true, Some(&drop_ins)).unwrap();
    assert_eq!(settings.rules, [PathBuf::from("/b")]);
    assert_eq!((settings.ring_bytes, settings.strict), (16384, true));

    fs::set_permissions(drop_ins.join("10-a.yaml"), fs::Permissions::from_mode(0o664)).unwrap();
    let error = load(&main, true, Some(&drop_ins)).unwrap_err();
    assert!(matches!(&error, ConfigError::Untrusted { reason, .. } if reason.contains("0664")), "{error}");
    fs::set_permissions(&drop_ins, fs::Permissions::from_mode(0o777)).unwrap();
    let error = load(&main, true, Some(&drop_ins)).unwrap_err();
    assert!(matches!(&error, ConfigError::Untrusted { path, .. } if *path == drop_ins), "{error}");
}

/// The built-in settings with these arguments of `--set`.
fn set(arguments: &[&str]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    for argument in arguments {
        let assignment: Assignment = argument.parse()?;
        assignment.apply(&mut settings).map_err(|error| {
            format!("{error} [{}]", error.help().map(|help| help.to_string()).unwrap_or_default())
        })?;
    }
    Ok(settings)
}

#[test]
fn settings_on_the_command_line_replace_and_add() {
    let settings = set(&[
        "ring_bytes=8192",
        "listen = off",
        "canary_interval_ms=5000",
        "rules=[/a]",
        "rules[]=/b",
        "docker_roots[]=/d",
        "rule_selection[].disable.rule=*",
        "rule_selection[].enable={tag: t}",
        "rule_selection[]={\"enable\": {\"rule\": \"k8s_*\"}}",
        "append_output[].extra_output='a: b'",
        "append_output[].extra_fields=\n- proc.sid\n- proc.cmdline",
    ])
    .unwrap();
    assert_eq!((settings.ring_bytes, settings.listen), (8192, Listen::Off));
    assert_eq!(settings.canary_interval, CanaryInterval::Every(5000));
    assert_eq!(settings.rules, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(settings.roots.docker.last().unwrap(), Path::new("/d"));
    let rule = |rule: &str| Which { rule: Some(rule.into()), tag: None };
    let tag = Which { rule: None, tag: Some("t".into()) };
    assert_eq!(
        settings.rule_selection,
        [Selection::Disable(rule("*")), Selection::Enable(tag), Selection::Enable(rule("k8s_*"))]
    );
    assert_eq!(settings.append_output[0].extra_output.as_deref(), Some("a: b"));
    assert_eq!(settings.append_output[1].extra_fields, ["proc.sid", "proc.cmdline"]);
}

#[test]
fn a_value_that_is_no_yaml_is_a_text() {
    for text in ["%proc.sid", "%proc.sid: %proc.name", "% ", "@x", "`x`", "*", "x: y: z", "...more", "%a\n%b"]
    {
        let argument = format!("append_output[].extra_output={text}");
        let settings = set(&[&argument]).unwrap_or_else(|error| panic!("{argument}: {error}"));
        assert_eq!(settings.append_output[0].extra_output.as_deref(), Some(text.trim()), "{argument}");
    }
}

#[test]
fn wrong_settings_on_the_command_line_are_named() {
    for (argument, message) in [
        (
            "ring_bites=8192",
            "--set ring_bites=8192: unknown setting `ring_bites` [did you mean `ring_bytes`?",
        ),
        ("ring_bytes=1", "--set ring_bytes=1: 1 is no size for the ring buffer"),
        ("attach=tracpoint", "did you mean `tracepoint`?"),
        ("rule_selection[].enabel.rule=x", "did you mean `enable`?"),
        ("ring_bytes[]=8192", "--set ring_bytes[]=8192: "),
        ("ring_bytes", "has no `=`"),
        ("ring_bytes=", "gives no value"),
        ("a b=1", "names no setting"),
        ("rules.x=1", "names no setting"),
        ("rules[].=1", "names no setting"),
        ("=1", "names no setting"),
        ("rules=[", "--set rules=[: "),
        ("rules=a: b: c", "--set rules=a: b: c: "),
        ("strict=true\n---\nlisten: off", "not a document"),
        ("strict=---\ntrue", "not a document"),
        ("strict=--- true", "not a document"),
        ("strict=true\n...", "not a document"),
        ("strict=true\nlisten: off", "--set strict=true"),
    ] {
        let error = set(&[argument]).unwrap_err();
        assert!(error.contains(message), "{argument}: {error}");
    }
}

#[test]
fn the_examples_of_the_reference_are_configurations() {
    for example in configuration_examples() {
        assert_ne!(parse(example).unwrap_or_else(|error| panic!("{error}")), Settings::default());
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    assert!(matches!(load(dir.path(), true, None), Err(ConfigError::NotAConfig { .. })));
    fs::write(&path, vec![b'#'; file::MAX_BYTES as usize + 1]).unwrap();
    assert!(matches!(load(&path, true, None), Err(ConfigError::NotAConfig { .. })));
    fs::write(&path, b"rules: [\"\xff\"]").unwrap();
    assert!(matches!(load(&path, true, None), Err(ConfigError::NotAConfig { .. })));
}

#[test]
fn ring_sizes() {
    for good in [4096, 8192, 1 << 24, 1 << 30] {
        assert_eq!(check_ring_bytes(good), Ok(good as u32));
    }
    for bad in [0, 1, 2048, 4097, 12288, (1 << 30) + 4096, 1 << 31, u64::MAX] {
        assert!(check_ring_bytes(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(attach|rules|listen|[a-z]{1,4}|[^a-z]{0,4})(: ?(.{0,20}\n?)?)?.*") {
        let _ = parse(&text).map_err(|error| error.to_string());
    }
}

#[test]
fn the_readme_shows_the_defaults() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, example) = readme.split_once("```yaml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    assert_eq!(parse(example).unwrap(), Settings::default());
    // What has no default is shown as a comment; with it the example says everything that can be said.
    let whole = example.replace("\n# ", "\n");
    let all = parse(&whole).unwrap();
    assert!(all.output.is_some() && all.alert_file.is_some() && !all.rules.is_empty());
    assert!(!all.rule_selection.is_empty() && !all.append_output.is_empty());
}

#[test]
fn mistakes_among_outputs_show_no_secret() {
    let texts = [
        "outputs:\n  - {type: webhook, url: 'http://h/SECRET', headers: {X-Key: SECRET}, tokn_env: X}\n",
        "outputs:\n- type: webhook\n  url: http://h/SECRET\n  tokn_env: X\nring_bytes: 8192\n",
        "outputs:\n- {type: webhook, url: 'http://user:SECRET@h/'}\n",
        "outputs:\n- {type: webhook, url: 'http://h/', headers: SECRET}\n",
        "outputs:\n- {type: webhook, url: 'http://h/', queue_bytes: SECRET}\n",
        "ring_bites: 8192\noutputs: [{type: webhook, url: 'http://h/SECRET'}]\n",
    ];
    for text in texts {
        let error = parse(text).unwrap_err();
        let shown = format!("{:?}", miette::Report::new(error));
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("config.yaml:"), "{shown}");
    }
    for argument in [
        "outputs[]={type: webhook, url: 'http://h/SECRET', tokn_env: X}",
        "outputs=[{type: webhook, url: 'http://h/', headers: SECRET}]",
    ] {
        let shown = set(&[argument]).unwrap_err();
        assert!(!shown.contains("SECRET") && shown.contains("outputs"), "{shown}");
    }
    // Elsewhere the place is shown as it stands.
    let shown = format!("{:?}", miette::Report::new(parse("ring_bites: 8192\n").unwrap_err()));
    assert!(shown.contains("8192") && shown.contains("ring_bytes"), "{shown}");
}
