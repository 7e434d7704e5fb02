//! What the tests of fields share: a record, the tables around it, and what they have in common.

use std::collections::BTreeMap;

use monitor_common::call::{Abi, Call};
use monitor_common::ids::{BootNs, CgroupId, Gid, NsInum, Tgid, Tid, Uid};
use monitor_common::wire::call_flag;

use crate::decode::{NsSet, ProcessKey, RawCall, RawExec, RawTask};
use crate::enrich::Host;
use crate::enrich::container::Cgroup;
use crate::enrich::lineage::Ancestors;
use crate::enrich::names::Named;
use crate::enrich::namespaces::Facts;
use crate::enrich::process::Processes;
use crate::enrich::users::Users;
use crate::event::{Event, verdict};
use crate::fields::{ArgSpec, CATALOGUE, FieldArg, FieldRef, FieldSource, FieldType, NS_KINDS, Name, Value};

pub(super) const CONTAINER: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
pub(super) const POD: &str = "6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f";

pub(super) const SELF: ProcessKey = ProcessKey { tgid: Tgid(4242), start: BootNs(5_000_000_001) };
pub(super) const PARENT: ProcessKey = ProcessKey { tgid: Tgid(4200), start: BootNs(4_000_000_001) };
pub(super) const GRANDPARENT: ProcessKey = ProcessKey { tgid: Tgid(4100), start: BootNs(3_000_000_001) };

/// The host's namespaces, and those of the container, which has its own but for user and time.
pub(super) const HOST_NS: NsSet = ns([100, 101, 102, 103, 104, 105, 106, 107]);
pub(super) const CONTAINER_NS: NsSet = ns([200, 201, 102, 203, 204, 205, 206, 107]);

pub(super) const CHOWN: u64 = 1;
pub(super) const SYS_ADMIN: u64 = 1 << 21;
pub(super) const SYS_TIME: u64 = 1 << 25;

pub(super) const fn ns(inums: [u32; 8]) -> NsSet {
    let mut set = [NsInum(0); 8];
    let mut i = 0;
    while i < set.len() {
        set[i] = NsInum(inums[i]);
        i += 1;
    }
    set
}

/// The set with one namespace changed.
pub(super) fn with(mut set: NsSet, kind: &str, inum: u32) -> NsSet {
    set[NS_KINDS.iter().position(|known| *known == kind).unwrap()] = NsInum(inum);
    set
}

/// What most records hold: the namespaces that are always read.
pub(super) fn three(set: NsSet) -> NsSet {
    let mut three = NsSet::default();
    three[..3].copy_from_slice(&set[..3]);
    three
}

pub(super) fn padded(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

pub(super) fn task(process: ProcessKey, parent: ProcessKey, comm: &[u8]) -> RawTask {
    RawTask {
        process,
        tid: Tid(process.tgid.0 + 1),
        parent,
        ns_tgid: 7,
        cgroup: CgroupId(77),
        euid: Uid(0),
        egid: Gid(5),
        loginuid: Uid(1000),
        session: 4200,
        comm: padded(comm),
    }
}

/// A call that succeeded in a container and changed nothing.
pub(super) fn raw(call: Call, nr: u32) -> RawCall<'static> {
    RawCall {
        boot: BootNs(9_000_000_009),
        task: task(SELF, PARENT, b"probe"),
        call,
        abi: Abi::X86_64,
        flags: call_flag::CAPS_VISIBLE,
        nr,
        ret: 0,
        args: [0; 4],
        claimed: [0; 4],
        caps_before: CHOWN,
        caps_after: CHOWN,
        caps_denied: 0,
        caps_granted: 0,
        ns_before: three(CONTAINER_NS),
        ns_after: three(CONTAINER_NS),
        major: 0,
        minor: 0,
        file_ino: 0,
        path: b"",
    }
}

/// The daemon's tables around an event.
pub(super) struct World {
    pub(super) processes: Processes,
    pub(super) cgroup: Cgroup,
    pub(super) host: Host,
    pub(super) users: Users,
}

impl World {
    pub(super) fn new(cgroup: &str) -> Self {
        let mut processes = Processes::new(100, HOST_NS[0]);
        for (process, parent, name) in [
            (GRANDPARENT, ProcessKey::default(), "shim"),
            (PARENT, GRANDPARENT, "sh"),
            (SELF, PARENT, "probe"),
        ] {
            processes.execed(&RawExec {
                task: task(process, parent, name.as_bytes()),
                exe_ino: 99,
                exe_dev: 8 << 20 | 1,
                exe_mnt_ns: CONTAINER_NS[0],
                ns: CONTAINER_NS,
                components: match name {
                    "shim" => b"shim\0bin\0usr\0",
                    "sh" => b"sh\0bin\0",
                    _ => b"probe\0bin\0",
                },
                cwd_components: b"srv\0",
                tty: 136 << 20,
                args: match name {
                    "probe" => b"./probe\0-x\0a b\0",
                    "sh" => b"-sh\0",
                    _ => b"",
                },
                // The eldest's command line could not be read.
                args_total: match name {
                    "probe" => 15,
                    _ => 4,
                },
                ..RawExec::default()
            });
        }
        World {
            processes,
            cgroup: Cgroup::new(cgroup.as_bytes()),
            host: Host { namespaces: HOST_NS, boot_id: Some(0xb007) },
            users: Users::default(),
        }
    }

    pub(super) fn container() -> Self {
        Self::new(&format!("/kubepods/besteffort/pod{POD}/{CONTAINER}"))
    }

    pub(super) fn event<'e>(&'e self, raw: &'e RawCall<'e>) -> Event<'e> {
        Event {
            ty: raw.call.into(),
            raw,
            verdict: verdict(raw),
            process: self.processes.get(raw.task.process),
            ancestors: Ancestors::Table(&self.processes),
            named: self.cgroup.container().map_or(Named::Nobody, |_| Named::Missing),
            cgroup: Some(&self.cgroup),
            device: None,
            namespaces: Facts::default(),
            caps: None,
            host: &self.host,
            users: &self.users,
        }
    }
}

/// A field's name and argument as rules write them, for each argument that it takes.
pub(super) fn references() -> Vec<(String, FieldRef)> {
    let mut references = Vec::new();
    for spec in CATALOGUE {
        let mut push = |name: String, arg| references.push((name, FieldRef { field: spec.field, arg }));
        match spec.arg {
            ArgSpec::None => push(spec.name.to_owned(), FieldArg::None),
            ArgSpec::Index { max } => {
                push(spec.name.to_owned(), FieldArg::None);
                (0..=max).for_each(|i| push(format!("{}[{i}]", spec.name), FieldArg::Index(i)));
            }
            ArgSpec::Name => {
                for key in ["app", "a b"] {
                    let arg = FieldArg::Name(Name::new(key).unwrap());
                    push(format!("{}[{key}]", spec.name), arg);
                }
            }
            ArgSpec::Key(keys) => keys
                .iter()
                .enumerate()
                .for_each(|(i, key)| push(format!("{}[{key}]", spec.name), FieldArg::Key(i as u16))),
        }
    }
    references
}

/// Every field that the event has; each value has the type that the catalogue promises.
pub(super) fn present(event: &Event<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (name, field) in references() {
        let value = event.value(field);
        let ty = match &value {
            Value::Absent => continue,
            Value::Text(_) => FieldType::Text,
            Value::List(_) => FieldType::TextList,
            Value::Number(_) => FieldType::Number,
            Value::Bool(_) => FieldType::Bool,
        };
        assert_eq!(ty, field.field.spec().ty, "{name}");
        assert!(field.types().has(event.ty), "{name} is said to be absent of {:?}", event.ty);
        values.insert(name, value.to_string());
    }
    values
}

/// Lines of `name: value`; a name that stands twice has its last value, and `-` takes it away.
pub(super) fn parse<'t>(blocks: &[&'t str]) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    let lines = blocks.iter().flat_map(|block: &&'t str| block.lines()).map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
        match value.trim() {
            "-" => assert!(expected.remove(name).is_some(), "{name} was absent anyway"),
            value => {
                expected.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    expected
}

/// What [`raw`] in [`World::container`] has in common.
pub(super) const COMMON: &str = "
    evt.verdict: allowed
    evt.res: SUCCESS
    evt.rawres: 0
    evt.failed: false
    evt.abi: x86_64
    evt.args_claimed: false
    evt.boot_ns: 9000000009
    evt.phase: running
    container.id: 4d5ce26ae5a9
    container.full_id: 4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21
    container.runtime: kubernetes
    container.type: kubernetes
    container.chain: 4d5ce26ae5a9
    container.metadata: missing
    k8s.pod.uid: 6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f
    k8s.pod.qos: BestEffort
    cgroup.id: 77
    cgroup.path: /kubepods/besteffort/pod6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f/4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21
    proc.name: probe
    proc.exepath: /bin/probe
    proc.exe_ino: 99
    proc.exe_dev: 8:1
    proc.is_exe_upper_layer: false
    proc.is_exe_from_memfd: false
    proc.cmdline: probe -x a b
    proc.args: -x a b
    proc.exe: ./probe
    proc.cwd: /srv
    proc.tty: 34816
    proc.sid: 4200
    proc.pid: 4242
    proc.vpid: 7
    proc.ppid: 4200
    proc.pname: sh
    proc.pexepath: /bin/sh
    proc.pcmdline: sh
    proc.aname: sh
    proc.aname[0]: probe
    proc.aname[1]: sh
    proc.aname[2]: shim
    proc.apid: 4200
    proc.apid[0]: 4242
    proc.apid[1]: 4200
    proc.apid[2]: 4100
    proc.aexepath: /bin/sh
    proc.aexepath[0]: /bin/probe
    proc.aexepath[1]: /bin/sh
    proc.aexepath[2]: /usr/bin/shim
    proc.acmdline: sh
    proc.acmdline[0]: probe -x a b
    proc.acmdline[1]: sh
    proc.id: 0000b007-500-4242
    proc.parent_id: 0000b007-400-4200
    proc.start: 5000000001
    thread.tid: 4243
    user.uid: 0
    user.loginuid: 1000
    group.gid: 5
    cap.before: CAP_CHOWN
    cap.after: CAP_CHOWN
    thread.cap_effective: CAP_CHOWN
    ns.before[mnt]: 200
    ns.before[pid]: 201
    ns.before[user]: 102
    ns.after[mnt]: 200
    ns.after[pid]: 201
    ns.after[user]: 102
    ns.host: user
";

/// The rest of a container's namespaces, for calls that may change them.
pub(super) const ALL_NAMESPACES: &str = "
    ns.before[net]: 203
    ns.before[uts]: 204
    ns.before[ipc]: 205
    ns.before[cgroup]: 206
    ns.before[time]: 107
    ns.after[net]: 203
    ns.after[uts]: 204
    ns.after[ipc]: 205
    ns.after[cgroup]: 206
    ns.after[time]: 107
    ns.host: user time
";

pub(super) fn assert_fields(event: &Event<'_>, blocks: &[&str]) {
    let (found, expected) = (present(event), parse(blocks));
    let differences: Vec<String> = references()
        .into_iter()
        .filter(|(name, _)| found.get(name) != expected.get(name))
        .map(|(name, _)| format!("{name}: found {:?}, expected {:?}", found.get(&name), expected.get(&name)))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
    let unknown: Vec<_> =
        expected.keys().filter(|name| !references().iter().any(|(n, _)| n == *name)).collect();
    assert!(unknown.is_empty(), "no such fields: {unknown:?}");
}
