//! The table of containers under test: hostile names, narrow terminals, JSON.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::control::{Phase, Pod};

const ID: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";

fn info(name: Option<&str>) -> ContainerInfo {
    ContainerInfo {
        id: ID.to_owned(),
        name: name.map(str::to_owned),
        metadata: "complete".to_owned(),
        metadata_miss: None,
        image: name.map(|name| format!("registry.example/{name}:1")),
        runtime: "docker".to_owned(),
        pod: None,
        phase: Phase::Running,
        processes: 3,
        namespaces: BTreeMap::from([("mnt".to_owned(), 4_026_532_001), ("net".to_owned(), 4_026_531_840)]),
        host_namespaces: vec!["net".to_owned()],
        cgroup_id: 4711,
        cgroup_path: format!("/docker/{ID}"),
        chain: vec![ID.to_owned()],
    }
}

fn lines(containers: &[ContainerInfo], columns: Option<usize>) -> Vec<String> {
    list(containers, OutputFormat::Text, columns).lines().map(str::to_owned).collect()
}

#[test]
fn a_table_for_people() {
    let mut pod = info(None);
    pod.pod = Some(Pod {
        uid: Some("u".to_owned()),
        name: Some("web-0".to_owned()),
        namespace: Some("shop".to_owned()),
        container_name: None,
    });
    (pod.namespaces, pod.host_namespaces) = (BTreeMap::new(), Vec::new());
    pod.chain.push(ID.replace('4', "5"));
    assert_eq!(
        lines(&[info(Some("web")), pod], None),
        [
            "CONTAINER     NAME  IMAGE                   RUNTIME  POD         PHASE    NAMESPACES  CGROUP  INSIDE",
            "4d5ce26ae5a9  web   registry.example/web:1  docker   -           running  host: net   4711    -",
            "4d5ce26ae5a9  -     -                       docker   shop/web-0  running  -           4711    5d5ce26ae5a9",
        ]
    );
    assert_eq!(lines(&[], None), ["no containers"]);
    let plain = lines(&[info(Some("web"))], None);
    assert!(!plain[0].contains("POD") && !plain[0].contains("INSIDE"), "{plain:?}");
    let named = ContainerInfo { id: "lxc-web".to_owned(), ..info(None) };
    assert!(lines(&[named], None)[1].starts_with("lxc-web  "), "names that stand for ids are whole");
}

#[test]
fn it_fits_the_terminal() {
    let long = info(Some(&"a".repeat(300)));
    for columns in [1, 2, 12, 40, 80, 100, 200] {
        for line in lines(&[info(Some("日本語のなまえ")), long.clone()], Some(columns)) {
            assert!(width(&line) <= columns, "{columns}: {line}");
        }
    }
    let shown = lines(&[long], Some(100));
    assert!(shown[1].contains('…') && shown[1].ends_with("4711"), "{shown:?}");
}

#[test]
fn hostile_names_stay_in_their_cell() {
    let hostile = "a\x1b[2J\r\n4d5ce26ae5a9  b\u{202e}c\u{9b}31m\u{200b}d\u{301}\u{7f}\0";
    let mut container = info(Some(hostile));
    (container.id, container.runtime) = (format!("\x1b]0;x\x07{ID}"), hostile.to_owned());
    container.host_namespaces = vec![hostile.to_owned()];
    let shown = lines(&[container.clone()], None);
    assert_eq!(shown.len(), 2);
    assert!(
        shown[1].contains(r"a\x1b[2J\r\n4d5ce26ae5a9  b\u{202e}c\u{9b}31m\u{200b}d\u{301}\x7f\x00"),
        "{shown:?}"
    );
    let json = list(&[container.clone()], OutputFormat::Json, None);
    assert!(json.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{json}");
    assert_eq!(serde_json::from_str::<Vec<ContainerInfo>>(&json).unwrap(), [container]);
}

#[test]
fn json_for_programs() {
    let json: serde_json::Value =
        serde_json::from_str(&list(&[info(Some("web"))], OutputFormat::Json, Some(5))).unwrap();
    assert_eq!(json[0]["id"], ID);
    assert_eq!(json[0]["phase"], "running");
    assert_eq!(json[0]["pod"], serde_json::Value::Null);
    assert_eq!(json[0]["namespaces"]["net"], 4_026_531_840_u32);
    assert_eq!(list(&[], OutputFormat::Json, None), "[]\n");
}

#[test]
fn without_a_daemon_the_message_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let (config, socket) = (dir.path().join("c.yaml"), dir.path().join("none\x1b.sock"));
    let error = ask(Some(socket), &ConfigArg::default()).unwrap_err();
    assert_eq!(error.code(), 2);
    let text = error.to_string();
    assert!(text.contains("ringfence run") && text.contains("--socket") && !text.contains('\x1b'), "{text}");
    for (setting, expected) in
        [("off", "control_socket: off"), ("/nonexistent/y.sock", "/nonexistent/y.sock")]
    {
        std::fs::write(&config, format!("control_socket: {setting}\n")).unwrap();
        let error = ask(None, &ConfigArg { config: Some(config.clone()), ..ConfigArg::default() })
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn whatever_the_names_it_is_a_table(name in any::<String>(), id in any::<String>(), columns in 1..200_usize) {
        let container = ContainerInfo { id, ..info(Some(&name)) };
        let text = list(&[container], OutputFormat::Text, Some(columns));
        prop_assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            prop_assert!(width(line) <= columns && !line.chars().any(char::is_control), "{:?}", line);
        }
    }
}
