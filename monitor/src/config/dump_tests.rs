//! The dump under test: it says what is in force and who said so, reads back, and gives no secret away.

use super::*;
use crate::config::file;

pub(in crate::config) fn loaded(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
    set: &[&str],
) -> Result<Loaded, String> {
    let files = files.iter().map(|(name, text)| {
        file::parse(name, (*text).to_owned()).map(|read| (std::path::PathBuf::from(name), read))
    });
    let files = files.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let set: Vec<_> = set.iter().map(|text| text.parse().unwrap()).collect();
    Loaded::assemble(files, environment, &set).map_err(|error| {
        let help = miette::Diagnostic::help(&error).map(|help| help.to_string());
        format!("{error} [{}]", help.unwrap_or_default())
    })
}

fn one(loaded: &Loaded, key: &str) -> (Json, String) {
    let shown = loaded.shown().into_iter().find(|shown| shown.key == key).unwrap();
    let from: Vec<String> = shown.from.iter().map(Origin::to_string).collect();
    (shown.value, from.join(", then "))
}

#[test]
fn every_setting_has_a_value_that_is_shown() {
    let known: Vec<&str> = VALUES.iter().map(|(key, _)| *key).collect();
    // Lists of mappings are shown as they were written.
    let as_written = ["rule_selection", "append_output", "outputs"];
    for key in keys() {
        assert!(known.contains(key) || as_written.contains(key), "{key} has no line in VALUES");
    }
    assert!(known.iter().all(|key| keys().contains(key)));
    assert!(keys().len() >= known.len() + 2);
}

#[test]
fn what_set_a_setting_is_said() {
    let it = loaded(
        &[
            ("/etc/a.yaml", "ring_bytes: 8192\nstrict: true\nrules: [/a]\nlisten: off\nalert_file: /x\n"),
            ("/etc/b.yaml", "ring_bytes: 16384\ncanary_interval_ms: off\ngroup_seconds: 60\n"),
        ],
        &[("RINGFENCE_LISTEN", "127.0.0.1:1"), ("RINGFENCE_DOCKER_ROOTS", "[/d, /e]"), ("PATH", "/bin")],
        &["min_priority=notice", "rules[]=/b", "podman_roots[]=/p", "rule_selection[].disable.rule=*"],
    )
    .unwrap();
    for (key, value, from) in [
        ("attach", json!("auto"), "built in"),
        ("strict", json!(true), "/etc/a.yaml"),
        ("ring_bytes", json!(16384), "/etc/b.yaml"),
        ("canary_interval_ms", json!("off"), "/etc/b.yaml"),
        ("listen", json!("127.0.0.1:1"), "environment: RINGFENCE_LISTEN"),
        ("docker_roots", json!(["/d", "/e"]), "environment: RINGFENCE_DOCKER_ROOTS"),
        ("min_priority", json!("Notice"), "command line: --set"),
        ("rules", json!(["/a", "/b"]), "/etc/a.yaml, then command line: --set"),
        ("alert_file", json!("/x"), "/etc/a.yaml"),
        ("record_dir", Json::Null, "built in"),
        ("group_by", json!(["container.id", "proc.exepath"]), "built in"),
        ("group_seconds", json!(60), "/etc/b.yaml"),
        ("rule_selection", json!([{"disable": {"rule": "*"}}]), "built in, then command line: --set"),
    ] {
        assert_eq!(one(&it, key), (value, from.to_owned()), "{key}");
    }
    assert_eq!(one(&it, "podman_roots").1, "built in, then command line: --set");
    let text = yaml(&it.shown());
    assert!(text.contains("\nring_bytes: 16384  # /etc/b.yaml\n"), "{text}");
    assert!(text.contains("\n# record_dir: (none)  # built in\n"), "{text}");
    // Read again, it says the same.
    let again = loaded(&[("dump", &text)], &[], &[]).unwrap();
    assert_eq!(again.settings, it.settings);
    let json = json(&it.shown());
    assert_eq!(
        json["listen"],
        json!({"value": "127.0.0.1:1", "from": ["environment: RINGFENCE_LISTEN"], "hides": false})
    );
}

#[test]
fn a_dump_of_nothing_reads_back_as_the_built_in_settings() {
    let nothing = loaded(&[], &[], &[]).unwrap();
    let again = loaded(&[("dump", &yaml(&nothing.shown()))], &[], &[]).unwrap();
    // Of the rules those are named that are there.
    assert_eq!(Settings { rules: Vec::new(), ..again.settings }, Settings::default());
}

#[test]
fn the_environment_is_read_strictly() {
    for (name, value, part) in [
        (
            "RINGFENCE_RIGN_BYTES",
            "8192",
            "environment: RINGFENCE_RIGN_BYTES: there is no such setting [did you mean `RINGFENCE_RING_BYTES`?",
        ),
        ("RINGFENCE_", "1", "no such setting"),
        ("RINGFENCE_ring_bytes", "8192", "did you mean"),
        ("RINGFENCE_RING_BYTES", "4097", "environment: RINGFENCE_RING_BYTES: 4097 is no size"),
        ("RINGFENCE_RING_BYTES", "", "the value is empty"),
        ("RINGFENCE_RULES", "/a", "RINGFENCE_RULES"),
        ("RINGFENCE_ATTACH", "tracpoint", "did you mean `tracepoint`?"),
        ("RINGFENCE_STRICT", "true\n---\nlisten: off", "no single value"),
        ("RINGFENCE_RULE_SELECTION", "[{enabel: {rule: a}}]", "did you mean `enable`?"),
    ] {
        let error = loaded(&[], &[(name, value)], &[]).unwrap_err();
        assert!(error.contains(part), "{name}={value}: {error}");
    }
    let fine = [
        ("RINGFENCE_LOG", "debug"),
        ("RINGFENCE_SKIP_BPF", "1"),
        ("RINGFENCE_SERVICE_HOST", "10.0.0.1"),
        ("RINGFENCE_SERVICE_PORT_METRICS", "9477"),
        ("RINGFENCE_PORT", "tcp://10.0.0.1:9477"),
        ("RINGFENCE_PORT_9477_TCP", "tcp://10.0.0.1:9477"),
        ("RINGFENCE_PORT_9477_TCP_ADDR", "10.0.0.1"),
        ("RINGFENCE_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("RINGFENCE_METRICS_PORT_9477_UDP_PROTO", "udp"),
        ("RINGFENCE_ALERT_WHY", "true"),
    ];
    let it = loaded(&[], &fine, &[]).unwrap();
    assert!(it.settings.alert_why);
    for key in keys() {
        let word = key.to_ascii_uppercase();
        assert!(!crate::config::environment::is_service_link(&word), "{word} is what Kubernetes may set");
    }
}

/// A variable that holds an output's token is no misspelt setting, whichever layer names it, and stays none when a later
/// layer replaces that output.
#[test]
fn variables_that_outputs_name_are_no_settings() {
    let outputs = "[{type: webhook, url: 'https://soc.example', token_env: RINGFENCE_TOKEN}]";
    let (file, set) = (format!("outputs: {outputs}\n"), format!("outputs={outputs}"));
    let token = ("RINGFENCE_TOKEN", "x");
    let none = ("RINGFENCE_OUTPUTS", "[]");
    for (files, environment, set) in [
        (vec![("a", file.as_str())], vec![token], vec![]),
        (vec![("a", &file), ("b", "outputs: []\n")], vec![token], vec![]),
        (vec![("a", &file)], vec![token, none], vec![]),
        (vec![], vec![token, ("RINGFENCE_OUTPUTS", outputs)], vec![]),
        (vec![], vec![token, ("RINGFENCE_OUTPUTS", outputs)], vec!["outputs=[]"]),
        (vec![], vec![token], vec![set.as_str()]),
        (vec![], vec![token], vec![&set, "outputs=[]"]),
        (vec![], vec![token], vec!["outputs[].type=webhook", &set]),
    ] {
        let outcome = loaded(&files, &environment, &set).map(|it| it.secrets().len());
        assert!(outcome.is_ok(), "{files:?} {environment:?} {set:?}: {outcome:?}");
    }
    // Without anybody who names it, it is one.
    let error = loaded(&[], &[token, none], &[]).unwrap_err();
    assert!(error.contains("environment: RINGFENCE_TOKEN: there is no such setting"), "{error}");
}
