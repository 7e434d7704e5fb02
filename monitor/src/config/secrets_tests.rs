//! Secrets under test: none is shown, all are found again, and nothing else is taken out.

use serde_json::json;

use super::super::dump::tests::loaded;
use super::super::{OutputKind, Settings, Shown, loaded_with_written, yaml};
use super::*;
use crate::metrics::{Labels, Metrics};

const INSTEAD: &str = "(gone)";

fn texts(outputs: &Json) -> Vec<String> {
    let mut found = Found::default();
    found.outputs(outputs);
    found.0
}

fn scrubbed(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| secret.taken_out(&text, INSTEAD).unwrap_or(text))
}

/// Whoever adds a member to an output says here whether it may be a secret; until then it is hidden.
#[test]
fn every_member_of_every_type_is_listed() {
    let members = OutputKind::all_members();
    for member in &members {
        assert!(MEMBERS.iter().any(|(known, _)| known == member), "{member} has no line in MEMBERS");
    }
    for (known, _) in MEMBERS {
        assert!(members.contains(known), "{known} is a member of no type");
    }
    assert!(members.len() > 50, "{members:?}");
}

#[test]
fn secrets_are_hidden_and_known() {
    let outputs = json!([
        {
            "type": "webhook",
            "name": "siem",
            "url": "https://user-1:pa55word@hooks.example:8443/services/T0001/B0002/aB3xK9mQ?key=sesame-1",
            "headers": {
                "Authorization": "Bearer abcdefgh12345678",
                "X-Tenant": "tenant-secret",
                "X-Word": "ringfence",
                "X-Key": {"file": "/run/secrets/key", "env": "PATH"},
            },
            "token": "plain-token",
            "pin": 123_456,
            "user": "ringfence",
            "token_file": "/run/secrets/token",
            "password_file": "the-password-itself",
            "token_env": "PATH",
            "min_priority": "Warning",
            "timeout_ms": 5000,
            "tls": {"ca": "/etc/ca.pem", "key": "-----BEGIN PRIVATE KEY-----\nMIIsecret\n-----END", "server_name": "s"},
            "spool": {"dir": "/var/spool", "bytes": 1_048_576},
            "unheard_of": ["novel-secret"],
        },
        {"type": "syslog", "address": "unix:/dev/log", "message": "json", "bom": false},
        {"type": "alertmanager", "urls": ["http://am:9093"], "labels": {"job": "ringfence"}, "resolve_after_s": 3600},
    ]);
    let mut hides = false;
    let shown = redacted(&outputs, &mut hides);
    assert!(hides);
    assert_eq!(
        shown,
        json!([
            {
                "type": "webhook",
                "name": "siem",
                "url": "https://hooks.example:8443/(not shown)",
                "headers": {
                    "Authorization": HIDDEN,
                    "X-Tenant": HIDDEN,
                    "X-Word": HIDDEN,
                    "X-Key": {"file": "/run/secrets/key", "env": "PATH"},
                },
                "token": HIDDEN,
                "pin": HIDDEN,
                "user": "ringfence",
                "token_file": "/run/secrets/token",
                "password_file": HIDDEN,
                "token_env": "PATH",
                "min_priority": "Warning",
                "timeout_ms": 5000,
                "tls": {"ca": "/etc/ca.pem", "key": HIDDEN, "server_name": "s"},
                "spool": {"dir": "/var/spool", "bytes": 1_048_576},
                "unheard_of": [HIDDEN],
            },
            {"type": "syslog", "address": "unix:/dev/log", "message": "json", "bom": false},
            {"type": "alertmanager", "urls": ["http://am:9093"], "labels": {"job": "ringfence"}, "resolve_after_s": 3600},
        ])
    );
    let found = texts(&outputs);
    for secret in [
        "user-1",
        "pa55word",
        "/services/T0001/B0002/aB3xK9mQ?key=sesame-1",
        "/services/T0001/B0002/aB3xK9mQ",
        "aB3xK9mQ",
        "sesame-1",
        "Bearer abcdefgh12345678",
        "abcdefgh12345678",
        "tenant-secret",
        "plain-token",
        "123456",
        "the-password-itself",
        "MIIsecret",
        "novel-secret",
        &std::env::var("PATH").unwrap(),
    ] {
        assert!(found.iter().any(|known| known == secret), "{secret} is not known: {found:?}");
    }
    for word in
        ["services", "T0001", "ringfence", "hooks.example:8443", "webhook", "json", "3600", "/dev/log"]
    {
        assert!(!found.iter().any(|known| known == word), "{word} is no secret: {found:?}");
    }
}

#[test]
fn places_lose_what_lets_somebody_in() {
    for (text, shown) in [
        ("127.0.0.1:514", "127.0.0.1:514"),
        ("siem.example:6514", "siem.example:6514"),
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example/"),
        ("https://a.example/hook/x", "https://a.example/(not shown)"),
        ("http://u:p@a.example", "http://a.example/(not shown)"),
        ("http://u:1/p@a.example", "http://(not shown)"),
        ("u:p@a.example:1", "a.example:1/(not shown)"),
        ("https://a.example?k=v", "https://a.example/(not shown)"),
        ("/dev/log", "/dev/log"),
        ("unix:/dev/log", "unix:/dev/log"),
        ("unix:///run/x", "unix:///run/x"),
    ] {
        assert_eq!(place(text), shown, "{text}");
    }
    for (text, shown) in [
        ("https://wiki.example/ringfence", "https://wiki.example/ringfence"),
        ("https://wiki.example/r?token=x", "https://wiki.example/r/(not shown)"),
        ("https://u:p@wiki.example/r", "https://wiki.example/r/(not shown)"),
    ] {
        assert_eq!(link(text), shown, "{text}");
    }
}

#[test]
fn a_secret_is_a_word_of_its_own() {
    for (secret, text, expected) in [
        (
            "hunter2",
            "said hunter2, hunter21 and xhunter2; _hunter2",
            Some("said (gone), hunter21 and xhunter2; _hunter2"),
        ),
        ("hunter2", "hunter2", Some("(gone)")),
        ("hunter2", "xhunter2", None),
        // Nobody writes that by chance.
        ("abcdefgh12345678", "xabcdefgh12345678y", Some("x(gone)y")),
        ("/a/b", "x/a/b", Some("x(gone)")),
        ("/a/b", "x/a/bc", None),
        ("a\"b\nc", r#"{"x":"a\"b\nc"} a"b"#, Some(r#"{"x":"(gone)"} a"b"#)),
        ("ä-1", "üä-1 ä-1", Some("üä-1 (gone)")),
    ] {
        assert_eq!(
            Secret(secret.to_owned()).taken_out(text, INSTEAD).as_deref(),
            expected,
            "{secret} in {text}"
        );
    }
}

/// The configurations in a document: each block of YAML, the settings in comments as well.
fn examples(document: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```yaml") {
        let block = lines.by_ref().take_while(|line| *line != "```").map(|line| {
            let key = line.strip_prefix("# ").and_then(|setting| setting.split_once(':')).map(|(key, _)| key);
            let is_setting = key.is_some_and(|key| super::super::file::keys().contains(&key));
            let line = if is_setting { line.strip_prefix("# ").unwrap_or(line) } else { line };
            line.to_owned() + "\n"
        });
        blocks.push(block.collect());
    }
    blocks
}

#[test]
fn examples_of_the_documents_are_shown_and_take_nothing_out() {
    let labels = Labels {
        kinds: &["setns"],
        decode_errors: &["too_short"],
        causes: &["detached"],
        tables: &["process"],
    };
    let metrics = Metrics::new(&labels).unwrap().encode().unwrap();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/prometheus.md");
    let others = metrics + &std::fs::read_to_string(docs).unwrap();
    assert!(others.contains("ringfence_alerts_total") && others.contains(" alerts "));
    let (mut seen, mut hidden) = (0, 0);
    let extra =
        "outputs: [{type: webhook, url: 'https://soc.example/alerts', user: ringfence, batch: 1000}]\n";
    let words =
        "outputs: [{type: stdout, format: off}, {type: journald, json: off}, {type: syslog, bom: yes}]\n";
    let documents = ["README.md", "docs/outputs.md", "docs/outputs-network.md"];
    for example in documents.into_iter().flat_map(examples).chain([extra, words].map(str::to_owned)) {
        seen += 1;
        let it =
            loaded(&[("example", &example)], &[], &[]).unwrap_or_else(|error| panic!("{error}\n{example}"));
        let shown = it.shown();
        let text = yaml(&shown);
        let again = loaded(&[("dump", &text)], &[], &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let without_rules = |settings: &Settings| Settings { rules: Vec::new(), ..settings.clone() };
        let mut expected = without_rules(&it.settings);
        if shown.iter().any(|Shown { hides, .. }| *hides) {
            hidden += 1;
            assert!(example.contains("https://soc.example/alerts"), "{text}");
            expected.outputs = Vec::new();
        }
        assert_eq!(without_rules(&again.settings), expected, "{text}");
        let secrets = it.secrets();
        assert_eq!(scrubbed(&others, &secrets), others, "{example}");
        assert_eq!(scrubbed(&text, &secrets), text, "{example}");
    }
    assert!(seen > 8 && hidden == 2, "{seen} {hidden}");
}

#[test]
fn files_and_variables_that_hold_secrets_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let outputs = json!([{
        "type": "webhook",
        "url_file": at("url", "https://hooks.slack.example/services/T01/B02/aB3xK9mQ\n"),
        "password_file": at("password", "open5\n"),
        "headers": {"X-Key": {"file": at("key", "a line\n")}},
        "template_file": at("template", "{\"text\": \"%output\"}\n"),
    }]);
    let secrets = loaded_with_written("outputs", outputs).secrets();
    let text = "open5 a line aB3xK9mQ /services/T01/B02/aB3xK9mQ hooks.slack.example {\"text\": \"%output\"}";
    let expected = "(gone) (gone) (gone) (gone) hooks.slack.example {\"text\": \"%output\"}";
    assert_eq!(scrubbed(text, &secrets), expected);
}
