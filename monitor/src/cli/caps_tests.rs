//! `caps` under test: what is shown, what is advised, what is not.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::capabilities::{CapInfo, Count, GrantedInfo, LostInfo};
use crate::cli::caps::patch::{advise, render};
use crate::control::Pod;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn count(count: u64) -> Count {
    Count {
        count,
        first: "2026-11-25T12:00:00.123456789Z".to_owned(),
        last: "2026-11-26T11:00:00.000000000Z".to_owned(),
        last_call: Some("socket".to_owned()),
        perhaps_silent: 0,
    }
}

pub(super) fn cap(name: &str, granted: &str) -> CapInfo {
    CapInfo {
        capability: name.to_owned(),
        granted: Some(granted.to_owned()),
        used: None,
        refused: None,
        used_in_child: None,
        refused_in_child: None,
        silent_allowed: None,
        silent_denied: None,
        runtime: None,
        runtime_below: false,
        needed_by_file: false,
    }
}

/// A container with Docker's set in small.
pub(super) fn info() -> CapsInfo {
    let granted = ["CAP_CHOWN", "CAP_SETUID", "CAP_NET_RAW", "CAP_MKNOD"].map(str::to_owned).to_vec();
    CapsInfo {
        id: "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21".to_owned(),
        name: Some("web".to_owned()),
        image: Some("nginx:1.27".to_owned()),
        runtime: "docker".to_owned(),
        compose_service: None,
        pod: None,
        user: None,
        inside: Vec::new(),
        running: true,
        since: "2026-11-25T11:00:00.000000000Z".to_owned(),
        until: "2026-11-26T12:00:00.000000000Z".to_owned(),
        observed_seconds: 90_000,
        start_seen: true,
        gaps: 0,
        restarts: 0,
        own_user_namespace: Some(false),
        files_unseen: false,
        granted: Some(GrantedInfo {
            bounding: granted.clone(),
            permitted: granted,
            ambient: Vec::new(),
            from: "exec".to_owned(),
        }),
        capabilities: vec![
            CapInfo { silent_allowed: Some(count(9)), ..cap("CAP_CHOWN", "permitted") },
            CapInfo { used: Some(count(3)), ..cap("CAP_SETUID", "permitted") },
            CapInfo { used_in_child: Some(count(1)), ..cap("CAP_NET_ADMIN", "no") },
            CapInfo { used: Some(count(12)), refused: Some(count(1)), ..cap("CAP_NET_RAW", "permitted") },
            CapInfo { refused: Some(count(4)), ..cap("CAP_SYS_TIME", "no") },
            CapInfo { runtime: Some(count(7)), ..cap("CAP_MKNOD", "bounding") },
        ],
        summary: None,
        lost: LostInfo::default(),
        calls: None,
    }
}

pub(super) fn patch(format: PatchFormat, info: &CapsInfo) -> String {
    render(format, info, &advise(info, DAY, false).unwrap())
}

/// The text as YAML: all comments are, and the change is what is meant.
fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

pub(super) fn without_notes(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn docker_gets_options() {
    let text = patch(PatchFormat::Docker, &info());
    assert_eq!(without_notes(&text), ["--cap-drop=ALL --cap-add=SETUID --cap-add=NET_RAW"]);
    for note in [
        "watched for 1day 1h between 2026-11-25T11:00:00Z and 2026-11-26T12:00:00Z; its start was seen",
        "never used: CAP_CHOWN CAP_MKNOD",
        "not added: CAP_SYS_TIME",
        "Only looked at by the kernel, and not kept: CAP_CHOWN",
        "hardly ever refuse, but test it",
        "with rights of its own, and so not added: CAP_MKNOD",
    ] {
        assert!(text.contains(note), "no `{note}` in\n{text}");
    }
}

#[test]
fn compose_gets_lists_of_its_service() {
    let mut info = info();
    info.compose_service = Some("front".to_owned());
    let expected = json!({"services": {"front": {"cap_drop": ["ALL"], "cap_add": ["SETUID", "NET_RAW"]}}});
    assert_eq!(yaml(&patch(PatchFormat::Compose, &info)), expected);
    info.capabilities.iter_mut().for_each(|cap| cap.used = None);
    let expected = json!({"services": {"front": {"cap_drop": ["ALL"]}}});
    assert_eq!(yaml(&patch(PatchFormat::Compose, &info)), expected, "nothing to keep");
}

#[test]
fn kubernetes_gets_names_without_cap() {
    let mut info = info();
    info.pod = Some(Pod {
        uid: None,
        name: Some("web-1".to_owned()),
        namespace: Some("shop".to_owned()),
        container_name: Some("nginx".to_owned()),
    });
    let text = patch(PatchFormat::Kubernetes, &info);
    let capabilities = json!({"drop": ["ALL"], "add": ["SETUID", "NET_RAW"]});
    let container = json!({"name": "nginx", "securityContext": {"capabilities": capabilities}});
    assert_eq!(yaml(&text), json!({"spec": {"containers": [container]}}));
    assert!(text.contains("ip_unprivileged_port_start"), "{text}");
}

#[test]
fn systemd_gets_sets_that_replace_others() {
    let mut info = info();
    let lines = |info: &CapsInfo| -> Vec<String> {
        without_notes(&patch(PatchFormat::Systemd, info)).into_iter().map(str::to_owned).collect()
    };
    let bounding = [
        "[Service]",
        "CapabilityBoundingSet=",
        "CapabilityBoundingSet=CAP_SETUID CAP_NET_RAW",
        "AmbientCapabilities=",
    ];
    assert_eq!(lines(&info), bounding);
    assert!(patch(PatchFormat::Systemd, &info).contains("# AmbientCapabilities=CAP_SETUID CAP_NET_RAW"));
    info.granted.as_mut().unwrap().ambient = vec!["CAP_NET_RAW".to_owned(), "CAP_CHOWN".to_owned()];
    assert_eq!(lines(&info).last().unwrap(), "AmbientCapabilities=CAP_NET_RAW", "only what was used");
}

#[test]
fn names_of_containers_cannot_break_out() {
    let mut info = info();
    info.name = Some("a\": {privileged: true}\nservices:\n  b\u{1b}[2J".to_owned());
    for format in [PatchFormat::Compose, PatchFormat::Kubernetes] {
        let text = patch(format, &info);
        let value = yaml(&text);
        let (keys, privileged) =
            (value.as_object().unwrap().len(), value.to_string().contains("\"privileged\":"));
        assert_eq!((keys, privileged), (1, false), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    assert_eq!(without_notes(&patch(PatchFormat::Docker, &info)).len(), 1);
}

#[test]
fn too_short_a_time_is_no_ground() {
    let mut info = info();
    info.observed_seconds = 86_399;
    let reason = advise(&info, DAY, false).unwrap_err();
    assert!(reason.contains("23h 59m 59s") && reason.contains("at least 1day"), "{reason}");
    assert!(advise(&info, Duration::from_secs(86_399), false).is_ok());
    assert!(advise(&info, DAY, true).is_err(), "losses are something else");
}

#[test]
fn lost_checks_are_no_ground_if_they_may_matter() {
    let mut info = info();
    let lost = |names: &[&str]| LostInfo {
        no_room: 3,
        capabilities: names.iter().map(|name| (*name).to_owned()).collect(),
        skipped: 0,
    };
    // Kept anyway, or never granted: it makes no difference.
    info.lost = lost(&["CAP_NET_RAW", "CAP_SYS_TIME"]);
    assert!(patch(PatchFormat::Docker, &info).contains("CAUTION: checks may have gone uncounted: 3"));
    info.lost = lost(&["CAP_NET_RAW", "CAP_CHOWN"]);
    let reason = advise(&info, DAY, false).unwrap_err();
    assert!(reason.contains("CAP_CHOWN found no room") && reason.contains("--accept-losses"), "{reason}");
    assert!(advise(&info, DAY, true).is_ok());
    info.lost = LostInfo { skipped: 1, ..LostInfo::default() };
    assert!(advise(&info, DAY, false).unwrap_err().contains("skipped"));
    info.granted = None;
    info.capabilities.iter_mut().for_each(|cap| cap.granted = None);
    info.lost = lost(&["CAP_SYS_BOOT"]);
    assert!(advise(&info, DAY, false).is_err(), "what was granted is not known");
}

#[test]
fn what_users_are_bitten_by_is_said() {
    let says = |change: &dyn Fn(&mut CapsInfo), note: &str| {
        let mut info = info();
        assert!(!patch(PatchFormat::Docker, &info).contains(note), "{note}");
        change(&mut info);
        let text = patch(PatchFormat::Docker, &info);
        assert!(text.contains(note), "no `{note}` in\n{text}");
    };
    says(&|info| info.gaps = 1, "while no daemon watched");
    says(&|info| info.granted.as_mut().unwrap().permitted.clear(), "not root");
    says(
        &|info| info.granted.as_mut().unwrap().bounding = (0..41).map(|n| format!("CAP_{n}")).collect(),
        "as by `privileged`",
    );
    says(&|info| info.capabilities[4].used = Some(count(1)), "no program began with a right to it");
    says(
        &|info| info.capabilities[3].used.as_mut().unwrap().perhaps_silent = 12,
        "does not say whether it only looked: CAP_NET_RAW",
    );
}

#[test]
fn a_start_that_was_not_seen_is_no_ground() {
    let mut info = info();
    info.start_seen = false;
    let reason = advise(&info, DAY, false).unwrap_err();
    assert!(reason.contains("start") && reason.contains("--accept-losses"), "{reason}");
    let text = render(PatchFormat::Docker, &info, &advise(&info, DAY, true).unwrap());
    assert!(text.contains("CAUTION: its start was not seen"), "{text}");
}

#[test]
fn what_helps_against_losses_is_said() {
    let mut info = info();
    info.lost = LostInfo { skipped: 1, ..LostInfo::default() };
    let reason = advise(&info, DAY, false).unwrap_err();
    assert!(reason.contains("make it anew") && !reason.contains("restart of the daemon"), "{reason}");
}

#[test]
fn skipped_checks_leave_nothing_that_was_never_used() {
    let mut info = info();
    info.lost = LostInfo { skipped: 2, ..LostInfo::default() };
    let text = table::detail(&info, &CapsListing::default());
    for name in ["CAP_CHOWN", "CAP_MKNOD"] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line.split_whitespace().nth(2), Some("perhaps"), "{text}");
    }
    assert!(!text.contains("granted and never used"), "{text}");
    assert!(text.contains("used without being counted: CAP_CHOWN CAP_MKNOD"), "{text}");
    assert_eq!(info.summary().unused, Some(0));
    let text = render(PatchFormat::Docker, &info, &advise(&info, DAY, true).unwrap());
    assert!(text.contains("may have been used without being counted: CAP_CHOWN CAP_MKNOD"), "{text}");
    assert!(!text.contains("was never used"), "{text}");
}

#[test]
fn where_its_user_namespace_is_not_known_nothing_is_said_of_its_maker() {
    let mut info = info();
    info.capabilities[0].used_in_child = Some(count(2));
    let text = patch(PatchFormat::Docker, &info);
    // Whose namespaces those were, and whether it had the right from outside, is not known.
    assert!(
        text.contains("namespaces than the initial one, and so not added: CAP_CHOWN")
            && !text.contains("itself"),
        "{text}"
    );
    info.own_user_namespace = None;
    let text = patch(PatchFormat::Docker, &info);
    assert!(text.contains("was not seen; if it has, add them") && !text.contains("made itself"), "{text}");
}

#[test]
fn a_table_shows_each_kind_apart() {
    let mut info = info();
    info.capabilities[3].refused.as_mut().unwrap().perhaps_silent = 1;
    info.lost = LostInfo { no_room: 2, capabilities: vec!["CAP_KILL".to_owned()], skipped: 0 };
    let text = table::detail(&info, &CapsListing { forgotten: 3, ..CapsListing::default() });
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (first, last) = ("2026-11-25T12:00:00Z", "2026-11-26T11:00:00Z");
    assert_eq!(line("CAP_NET_RAW"), ["CAP_NET_RAW", "yes", "12", "1?", first, last, "socket", "-"]);
    assert_eq!(line("CAP_CHOWN"), ["CAP_CHOWN", "yes", "never", "-", "-", "-", "-", "silent", "9+0"]);
    assert_eq!(line("CAP_SYS_TIME"), ["CAP_SYS_TIME", "no", "-", "4", first, last, "socket", "-"]);
    assert_eq!(line("CAP_MKNOD"), ["CAP_MKNOD", "bounding", "never", "-", "-", "-", "-", "runtime", "7"]);
    assert_eq!(line("CAP_NET_ADMIN"), ["CAP_NET_ADMIN", "no", "-", "-", "-", "-", "-", "child", "1+0"]);
    for said in [
        "container 4d5ce26ae5a9 (web, nginx:1.27), docker, running",
        "granted and never used: CAP_CHOWN CAP_MKNOD",
        "refused: CAP_NET_RAW CAP_SYS_TIME",
        "asked for CAP_KILL",
        "since the daemon's start 3 ended containers were forgotten",
    ] {
        assert!(text.contains(said), "no `{said}` in\n{text}");
    }
}

#[test]
fn the_list_has_a_line_for_each() {
    let listing = CapsListing { containers: vec![info()], ..CapsListing::default() };
    let text = table::list(&listing);
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        ["4d5ce26ae5a9", "web", "nginx:1.27", "running", "1day", "1h", "seen", "4", "2", "2", "2"]
    );
    let mut short = listing.clone();
    short.containers.iter_mut().for_each(CapsInfo::shorten);
    assert_eq!(table::list(&short), text);
    let json = serde_json::to_string(&short.containers[0]).unwrap();
    assert!(json.len() < 1024, "{json}");
    assert_eq!(serde_json::from_str::<CapsInfo>(&json).unwrap(), short.containers[0]);
    assert_eq!(table::list(&CapsListing::default()), "no containers\n");
}

#[test]
fn a_container_is_named_by_its_id_its_beginning_or_its_name() {
    let other = CapsInfo {
        id: "4d5c000000000000000000000000000000000000000000000000000000000000".to_owned(),
        running: false,
        ..info()
    };
    let listing = CapsListing { containers: vec![info(), other.clone()], ..CapsListing::default() };
    assert_eq!(one(&listing, "web").unwrap().id, info().id, "a name stands for its latest");
    assert_eq!(one(&listing, "4d5c0").unwrap().id, other.id);
    assert_eq!(one(&listing, &other.id).unwrap().id, other.id);
    assert!(one(&listing, "4d5c").unwrap_err().to_string().contains("beginning of 2 ids"));
    for none in ["", "x", "we"] {
        assert!(one(&listing, none).unwrap_err().to_string().contains("no container is known"), "{none}");
    }
}

/// Users name their containers as they like, and containers those that they make.
#[test]
fn an_impostor_is_not_shown_in_place_of_another() {
    let id = |digit: &str| digit.repeat(64);
    let user = |info: CapsInfo| CapsInfo { user: Some(1000), ..info };
    let nested = |info: CapsInfo| CapsInfo { inside: vec![id("e"), "box".to_owned()], ..info };
    let called = |name: &str, id: &str| CapsInfo { name: Some(name.to_owned()), id: id.to_owned(), ..info() };
    let real = CapsInfo { running: false, ..called("web", &id("a")) };
    let listing = CapsListing {
        containers: vec![
            user(called("web", &id("b"))),
            nested(called("web", &id("a"))),
            user(called("aa", &id("c"))),
            user(called("db", &("a".repeat(63) + "b"))),
            nested(called("db", &id("d"))),
            user(called("db2", &id("d"))),
            real.clone(),
        ],
        ..CapsListing::default()
    };
    for wanted in ["web", "a", "aa", &id("a")] {
        assert_eq!(one(&listing, wanted).unwrap(), &real, "{wanted}");
    }
    assert_eq!(one(&listing, "db").unwrap().user, Some(1000), "what is no other's can be asked for");
    assert_eq!(one(&listing, &id("d")).unwrap().user, Some(1000), "a user's own is not nested");
    // Each says whose it is.
    let theirs = one(&listing, "b").unwrap();
    let text = table::detail(theirs, &CapsListing::default());
    assert!(
        text.starts_with("container bbbbbbbbbbbb (web, nginx:1.27), docker, running, of user 1000\n"),
        "{text}"
    );
    let text = table::detail(&nested(info()), &CapsListing::default());
    assert!(text.contains(", running, inside eeeeeeeeeeee, inside box\n"), "{text}");
    assert!(patch(PatchFormat::Docker, theirs).contains("(web), of user 1000."));
    let list = table::list(&listing);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    let ends: Vec<&[&str]> =
        [0, 1, 2, 7].iter().map(|line| &lines[*line][lines[*line].len() - 2..]).collect();
    assert_eq!(ends, [["USER", "INSIDE"], ["1000", "-"], ["-", "eeeeeeeeeeee"], ["-", "-"]]);
}

#[test]
fn two_of_an_id_that_cannot_be_told_apart_are_none() {
    let user = |user| CapsInfo { user: Some(user), ..info() };
    let listing = CapsListing { containers: vec![user(1000), user(1001)], ..CapsListing::default() };
    for wanted in [&*info().id, "4d5c"] {
        let reason = one(&listing, wanted).unwrap_err().to_string();
        assert!(reason.contains("2 "), "{reason}");
    }
    let reason = one(&listing, &info().id).unwrap_err().to_string();
    assert!(reason.contains("docker, of user 1000; docker, of user 1001"), "{reason}");
    // A name stands for the latest.
    assert_eq!(one(&listing, "web").unwrap().user, Some(1000));
}

#[test]
fn what_an_older_daemon_says_is_read() {
    let mut old = serde_json::to_value(info()).unwrap();
    assert!(old.get("user").is_none() && old.get("inside").is_none());
    old["runtime"] = json!("podman");
    let read: CapsInfo = serde_json::from_value(old).unwrap();
    assert_eq!((read.user, read.inside.len()), (None, 0));
}

#[test]
fn times_are_written_as_people_write_them() {
    assert_eq!(duration("24h"), Ok(DAY));
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    assert!(duration("soon").unwrap_err().contains("24h"));
    assert_eq!((span(59), span(90_061)), ("59s".to_owned(), "1day 1h".to_owned()));
}
