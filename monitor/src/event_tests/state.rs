//! Fields of events that are no calls, and of whose the namespaces are.

use super::*;
use crate::decode::RawTask;
use crate::enrich::namespaces::{At, Home, Namespaces, Standing};
use crate::event_type::EventType;

/// What an event that is no call has in common with [`raw`].
const NO_CALL: &str = "
    evt.category: namespace
    evt.res: -
    evt.rawres: -
    evt.abi: -
    evt.args_claimed: -
    cap.before: -
    cap.after: -
    thread.cap_effective: -
    ns.before[mnt]: -
    ns.before[pid]: -
    ns.before[user]: -
    ns.after[net]: 203
    ns.after[uts]: 204
    ns.after[ipc]: 205
    ns.after[cgroup]: 206
    ns.after[time]: 107
    ns.host: user time
    ns.owner[mnt]: 4d5ce26ae5a9
    ns.owner[pid]: 4d5ce26ae5a9
    ns.owner[user]: host
    ns.owner[net]: 4d5ce26ae5a9
    ns.owner[uts]: 4d5ce26ae5a9
    ns.owner[ipc]: 4d5ce26ae5a9
    ns.owner[cgroup]: 4d5ce26ae5a9
    ns.owner[time]: host
";

#[test]
fn an_entry_and_an_escape() {
    let world = World::container();
    let mut namespaces = Namespaces::new(HOST_NS);
    let at =
        |process| At { process, cgroup: Some(&world.cgroup), starting: false, boot: BootNs(9_000_000_009) };
    let mut of_main = Standing::default();
    assert!(namespaces.execed(at(PARENT), true, &CONTAINER_NS, &mut of_main).is_empty());

    // As it is for a process of the host.
    let mut standing = Standing { home: Home::Host, ..Standing::default() };
    let found = namespaces.execed(at(SELF), true, &CONTAINER_NS, &mut standing).remove(0);
    let task = task(SELF, PARENT, b"probe");
    let raw = RawCall::of_state(BootNs(9_000_000_009), task, CONTAINER_NS);
    let event = Event { ty: found.ty, namespaces: found.facts, ..world.event(&raw) };
    let own = "
        evt.type: entered
        proc.entry: exec
        ns.direction: host_to_container
        ns.from: host
        ns.to: 4d5ce26ae5a9
    ";
    assert_eq!(event.ty, EventType::Entered);
    assert_fields(&event, &[COMMON, NO_CALL, own]);

    let out = with(CONTAINER_NS, "mnt", 100);
    let found = namespaces.execed(at(SELF), false, &out, &mut standing).remove(0);
    // Of a process that is gone nobody knows the user.
    let task = RawTask { euid: NO_USER, ns_tgid: 0, tid: Tid(0), ..task };
    let raw = RawCall::of_state(BootNs(9_000_000_009), task, out);
    let event = Event { ty: found.ty, namespaces: found.facts, ..world.event(&raw) };
    let own = "
        evt.type: escaped
        proc.entry: exec
        proc.escaped: mnt
        proc.vpid: -
        thread.tid: -
        user.uid: -
        group.gid: -
        ns.after[mnt]: 100
        ns.host: mnt user time
        ns.owner[mnt]: host
        ns.direction: container_to_host
        ns.from: 4d5ce26ae5a9
        ns.to: host
    ";
    assert_fields(&event, &[COMMON, NO_CALL, own]);
}

#[test]
fn whose_a_namespace_is_that_a_process_of_the_host_made() {
    let world = World::new("/system.slice/ssh.service");
    let mut namespaces = Namespaces::new(HOST_NS);
    let raw = RawCall {
        flags: call_flag::BEFORE_KNOWN,
        ns_before: HOST_NS,
        ns_after: with(HOST_NS, "net", 500),
        ..raw(Call::Unshare, 272)
    };
    let at = At { process: SELF, cgroup: Some(&world.cgroup), starting: false, boot: raw.boot };
    let (facts, _) = namespaces.called(at, &raw, true, &mut Standing::default());
    let fields = present(&Event { namespaces: facts, ..world.event(&raw) });
    assert_eq!((&*fields["ns.owner[net]"], &*fields["ns.owner[uts]"]), ("host-made", "host"));
    assert_eq!((&*fields["ns.direction"], &*fields["ns.to"]), ("new", "host"));
    assert_eq!(fields.get("proc.entry"), None);
    assert_eq!(fields["ns.from"], "host");
}
