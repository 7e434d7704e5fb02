//! Names of containers as fields, and events that were put by: they must say what they would have said at once.

use std::sync::Arc;

use monitor_common::ids::CgroupId;

use super::*;
use crate::decode::{ProcessKey, RawExec};
use crate::enrich::container::Cgroup;
use crate::enrich::lineage::Ancestors;
use crate::enrich::metadata::{Labels, Metadata, PodInfo};
use crate::enrich::names::{NAME_FIELDS, Named};
use crate::enrich::namespaces::{At, Namespaces, Standing};
use crate::event_type::EventType;
use crate::held::Held;

fn metadata() -> Metadata {
    let text = |text: &str| Some(text.to_owned());
    Metadata {
        runtime: None,
        name: text("web"),
        image: text("registry.example/nginx:1.27"),
        image_repository: text("registry.example/nginx"),
        image_tag: text("1.27"),
        image_id: text("0123456789abcdef"),
        image_digest: text("sha256:fedcba"),
        labels: Labels::from_iter([("app", "shop"), ("a b", "c"), ("other", "x")]),
        pod: Some(PodInfo {
            name: text("web-0"),
            namespace: text("prod"),
            uid: text(POD),
            container_name: text("nginx"),
        }),
        privileged: Some(false),
        created: text("2026-11-23T12:00:00Z"),
    }
}

const NAMES: &str = "
    container.metadata: complete
    container.name: web
    container.image: registry.example/nginx:1.27
    container.image.repository: registry.example/nginx
    container.image.tag: 1.27
    container.image.id: 0123456789abcdef
    container.image.digest: sha256:fedcba
    container.label[app]: shop
    container.label[a b]: c
    container.privileged: false
    k8s.pod.name: web-0
    k8s.ns.name: prod
    k8s.container.name: nginx
";

const SYSLOG: &str = "
    evt.type: syslog
    evt.category: kernel-log
    evt.nr: 103
    evt.arg[type]: CLOSE
    evt.arg[len]: 0
    evt.args: type=CLOSE len=0
    syslog.action: CLOSE
";

#[test]
fn a_container_has_what_its_runtime_wrote() {
    let (world, raw, metadata) = (World::container(), raw(Call::Syslog, 103), metadata());
    let with = |named| Event { named, ..world.event(&raw) };
    assert_fields(&with(Named::Complete(&metadata)), &[COMMON, SYSLOG, NAMES]);
    assert_fields(&with(Named::Missing), &[COMMON, SYSLOG, "container.metadata: missing"]);
    assert_fields(&with(Named::Pending), &[COMMON, SYSLOG, "container.metadata: pending"]);
    // What the runtime did not write is absent, and the container is named all the same.
    let bare = Metadata::default();
    assert_fields(&with(Named::Complete(&bare)), &[COMMON, SYSLOG, "container.metadata: complete"]);
    let nobody = present(&with(Named::Nobody));
    let of_names =
        |name: &String| NAME_FIELDS.iter().any(|field| name.split('[').next() == Some(field.spec().name));
    assert_eq!(nobody.keys().find(|name| of_names(name)), None);
}

/// Records of each kind that reads its own part of it: calls, and what is no call.
fn records() -> Vec<RawCall<'static>> {
    let asked = call_flag::DEVICE_ASKED;
    vec![
        RawCall::of_state(BootNs(9_000_000_009), task(SELF, PARENT, b"probe"), CONTAINER_NS),
        raw(Call::Syslog, 103),
        RawCall { args: [5, 0x2002_0000, 0, 0], ns_before: CONTAINER_NS, ..raw(Call::Setns, 308) },
        RawCall { ret: -1, path: b"/\xffmem", flags: asked, major: 1, minor: 1, ..raw(Call::Openat, 257) },
        RawCall { claimed: [1, 2, 3, 4], caps_after: SYS_TIME, ..raw(Call::Capset, 126) },
    ]
}

#[test]
fn an_event_that_was_put_by_says_the_same() {
    let mut world = World::container();
    let cgroup = Arc::new(Cgroup::new(world.cgroup.path.as_bytes()));
    let metadata = metadata();
    let records = records();
    let mut kept = Vec::new();
    let (mut namespaces, mut standing) = (Namespaces::new(HOST_NS), Standing::default());
    let main = At { process: PARENT, cgroup: Some(&cgroup), starting: false, boot: BootNs(9) };
    assert!(namespaces.execed(main, true, &CONTAINER_NS, &mut Standing::default()).is_empty());
    for raw in &records {
        let device = (raw.call == Call::Openat).then(|| ProcFiles::read().of(raw).ok()).flatten();
        let at = At { process: SELF, cgroup: Some(&cgroup), starting: false, boot: raw.boot };
        let (facts, _) = namespaces.called(at, raw, true, &mut standing);
        let ty = if kept.is_empty() { EventType::Escaped } else { raw.call.into() };
        let at_once = Event { ty, device, namespaces: facts, ..world.event(raw) };
        let held = Held::of(&at_once, &world.processes, Some(Arc::clone(&cgroup)), 7);
        let expected = present(&Event { named: Named::Complete(&metadata), ..at_once });
        kept.push((held, expected));
    }
    // The events have what may be lost on the way.
    for (at, name, value) in [
        (0, "evt.type", "escaped"),
        (1, "proc.aname[2]", "shim"),
        (2, "ns.owner[mnt]", "4d5ce26ae5a9"),
        (3, "device.name", "mem"),
        (3, "fd.name", "/\\xffmem"),
        (4, "cap.after", "CAP_SYS_TIME"),
    ] {
        assert_eq!(kept[at].1.get(name).map(String::as_str), Some(value), "{name}");
    }
    // Meanwhile each of them is moved, execs another program and ends.
    for key in [SELF, PARENT, GRANDPARENT] {
        world.processes.attached(key, CgroupId(5), true, BootNs(1));
        let task = task(key, ProcessKey::default(), b"other");
        let components = b"other\0";
        world.processes.execed(&RawExec { task, exe_ino: 1, components, ..RawExec::default() });
        world.processes.exited(key, BootNs(9_000_000_010));
    }
    assert_ne!(present(&world.event(&records[0]))["proc.exepath"], kept[0].1["proc.exepath"]);
    for (held, expected) in &kept {
        let raw = held.raw();
        let later = held.event(&raw, Named::Complete(&metadata), &world.host, &world.users);
        assert_eq!(present(&later), *expected, "{:?}", later.ty);
        assert_eq!(held.unix_ns, 7);
    }
}

#[test]
fn a_parent_that_is_known_is_kept_though_the_caller_is_not() {
    let world = World::container();
    let mut raw = raw(Call::Syslog, 103);
    raw.task.process.start = BootNs(1);
    let at_once = world.event(&raw);
    let held = Held::of(&at_once, &world.processes, None, 0);
    let again = held.raw();
    let later = held.event(&again, Named::Nobody, &world.host, &world.users);
    assert_eq!((later.process.is_none(), present(&later)["proc.aname[2]"].as_str()), (true, "shim"));
    assert!(matches!(later.ancestors, Ancestors::Kept(_)));
}
