//! Whose namespaces, which way, who entered and who left: the records of runtimes and of attackers, made up.

use monitor_common::ids::{CgroupId, NsInum};

use super::*;

mod machine;

use machine::*;

const NS_A: NsSet = set(200);
const NS_B: NsSet = set(300);

#[test]
fn five_ways_have_five_answers() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.run(key(61), IN_B, NS_B);
    // nsenter into the host, into another container, from the host; unshare; docker exec.
    machine.fork(key(60), key(70), IN_A);
    let (facts, _) = machine.setns(key(70), NS_A, with(NS_A, "mnt", HOST_NS));
    assert_eq!(way(&facts), ["container_to_host", SHORT_A, "host"]);
    machine.fork(key(60), key(71), IN_A);
    let (facts, _) = machine.setns(key(71), NS_A, with(NS_A, "net", NS_B));
    assert_eq!(way(&facts), ["container_to_container", SHORT_A, SHORT_B]);
    machine.fork(ROOT, key(72), HOST);
    let (facts, found) = machine.setns(key(72), HOST_NS, NS_A);
    assert_eq!((way(&facts), found), (["host_to_container", "host", SHORT_A], None));
    machine.fork(key(60), key(73), IN_A);
    let (facts, found) = machine.call(Call::Unshare, key(73), NS_A, with(NS_A, "user", set(400)));
    assert_eq!((way(&facts), found), (["new", SHORT_A, SHORT_A], None));
    let found = machine.enter(key(74), IN_A, NS_A);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].ty, way(&found[0].facts)),
        (EventType::Entered, ["host_to_container", "host", SHORT_A])
    );
    assert_eq!(machine.entry(key(74)), Some(Entry::Exec));
    // What it runs further is no entry, and its children descend from it.
    assert_eq!(machine.program(key(74), IN_A, NS_A), []);
    machine.fork(key(74), key(75), IN_A);
    assert_eq!(machine.program(key(75), IN_A, NS_A), []);
    assert_eq!((machine.entry(key(75)), machine.entry(key(70))), (Some(Entry::Exec), Some(Entry::Main)));
    assert_eq!(machine.entry(key(72)), None, "on the host");
}

#[test]
fn of_several_kinds_the_worst_is_told() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.run(key(61), IN_B, NS_B);
    let after = with(with(with(NS_A, "net", NS_B), "uts", HOST_NS), "ipc", set(900));
    assert_eq!(way(&machine.setns(key(60), NS_A, after).0), ["container_to_host", SHORT_A, "host"]);
    let after = with(with(NS_A, "net", NS_B), "ipc", set(900));
    assert_eq!(way(&machine.setns(key(60), NS_A, after).0), ["container_to_container", SHORT_A, SHORT_B]);
    let after = with(NS_A, "ipc", set(900));
    assert_eq!(way(&machine.setns(key(60), NS_A, after).0), ["-", SHORT_A, "unknown"]);
    let nowhere = machine.setns(key(60), NS_A, NS_A).0;
    assert_eq!(way(&nowhere), ["own", SHORT_A, SHORT_A]);
}

#[test]
fn crun_makes_namespaces_before_the_process_joins() {
    let mut machine = Machine::new();
    let main = key(60);
    let boot = machine.tick();
    let made = RawCall {
        boot,
        task: Machine::task(RUNTIME, ROOT, HOST),
        ret: 60,
        flags: call_flag::CHILD,
        ns_before: HOST_NS,
        ns_after: NS_A,
        ..RawCall::made_up(Call::Clone)
    };
    assert_eq!(way(&machine.called(&made).0), ["new", "host", "host"]);
    assert_eq!(machine.owner(NS_A, MNT), "host-made");
    machine.fork(RUNTIME, main, HOST);
    assert_eq!(machine.attach(main, IN_A), None);
    assert_eq!(machine.exec(main, IN_A, NS_A, NsInum(0)), [], "out of a memfd, in its final namespaces");
    assert_eq!(machine.program(main, IN_A, NS_A), []);
    assert_eq!((machine.owner(NS_A, MNT), machine.entry(main)), (SHORT_A.to_owned(), Some(Entry::Main)));
    let owned = machine.namespaces.owners.get(NS_A[MNT]).unwrap();
    assert_eq!((owned.made_by, owned.since), (RUNTIME, boot), "the container has it, the runtime made it");
}

#[test]
fn a_runtime_that_forks_into_the_cgroup_is_no_stray() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    // CLONE_INTO_CGROUP: it is there before it has entered a namespace.
    assert_eq!(machine.fork(RUNTIME, key(70), IN_A), None);
    assert_eq!(machine.exec(key(70), IN_A, HOST_NS, NsInum(0)), []);
    let (facts, found) = machine.setns(key(70), HOST_NS, NS_A);
    assert_eq!((way(&facts), found), (["host_to_container", "host", SHORT_A], None));
    let found = machine.program(key(70), IN_A, NS_A);
    assert_eq!(found.iter().map(|found| found.ty).collect::<Vec<_>>(), [EventType::Entered]);
}

#[test]
fn what_is_shared_belongs_to_who_had_it_first() {
    let mut machine = Machine::new();
    // A pod: the second container has the first one's network.
    machine.run(key(60), IN_A, NS_A);
    let shared = with(NS_B, "net", NS_A);
    machine.run_from(key(61), IN_B, with(HOST_NS, "net", NS_A), shared);
    const NET: usize = 3;
    assert_eq!((machine.owner(shared, NET), machine.owner(shared, MNT)), (SHORT_A.into(), SHORT_B.into()));
    assert_eq!(machine.program(key(61), IN_B, shared), [], "it began there");
    assert_eq!(way(&machine.setns(key(61), NS_B, shared).0), ["own", SHORT_B, SHORT_A]);
    // The host's network is no way out for who began in it, nor is another container's.
    let mut machine = Machine::new();
    let open = with(NS_A, "net", HOST_NS);
    machine.run(key(60), IN_A, open);
    machine.run(key(61), IN_B, NS_B);
    assert_eq!(machine.program(key(60), IN_A, open), []);
    assert_eq!(machine.program(key(60), IN_A, with(open, "net", NS_B)), []);
    assert_eq!(way(&machine.setns(key(60), with(open, "net", set(500)), open).0), ["own", SHORT_A, "host"]);
}

#[test]
fn who_is_elsewhere_is_told_once_and_again_when_it_is_worse() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.run(key(61), IN_B, NS_B);
    // Nobody saw how.
    let out = with(NS_A, "mnt", HOST_NS);
    let found = machine.exec(key(60), IN_A, out, HOST_NS[MNT]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].ty, way(&found[0].facts)),
        (EventType::Escaped, ["container_to_host", SHORT_A, "host"])
    );
    assert_eq!(kinds(found[0].facts.escaped), ["mnt"]);
    assert_eq!(machine.exec(key(60), IN_A, out, HOST_NS[MNT]), []);
    // Nor are its children, but for more than that.
    machine.fork(key(60), key(70), IN_A);
    assert_eq!(machine.exec(key(70), IN_A, out, HOST_NS[MNT]), []);
    let found = machine.exec(key(70), IN_A, with(out, "net", NS_B), HOST_NS[MNT]);
    assert_eq!(found.len(), 1);
    assert_eq!(way(&found[0].facts), ["container_to_container", SHORT_A, SHORT_B]);
    assert_eq!(machine.exec(key(70), IN_A, with(out, "net", NS_B), HOST_NS[MNT]), []);
    let found = machine.exec(key(70), IN_A, with(out, "pid", HOST_NS), HOST_NS[MNT]);
    assert_eq!(way(&found[0].facts), ["container_to_host", SHORT_A, "host"]);
    machine.exec(key(70), IN_A, with(with(out, "net", NS_B), "pid", NS_A), HOST_NS[MNT]);
    assert_eq!(kinds(machine.processes.standing(key(70)).escaped), ["mnt", "net"]);
    // Nor is a return a way out.
    assert_eq!(machine.program(key(70), IN_A, NS_A), []);
    assert_eq!(kinds(machine.processes.standing(key(70)).escaped), Vec::<&str>::new());
    // A call shows it too.
    machine.fork(key(61), key(71), IN_B);
    let (facts, found) = machine.setns(key(71), NS_B, with(NS_B, "pid", NS_A));
    assert_eq!(way(&facts), ["container_to_container", SHORT_B, SHORT_A]);
    assert_eq!(way(&found.unwrap().facts), ["container_to_container", SHORT_B, SHORT_A]);
    let further = with(NS_B, "pid", NS_A);
    assert_eq!(machine.setns(key(71), NS_B, further).1, None);
    let found = machine.setns(key(71), further, with(further, "net", NS_A)).1.unwrap();
    assert_eq!(way(&found.facts), ["container_to_container", SHORT_B, SHORT_A]);
    let found = machine.setns(key(71), further, with(further, "net", HOST_NS)).1.unwrap();
    assert_eq!(way(&found.facts), ["container_to_host", SHORT_B, "host"]);
    assert_eq!(kinds(found.facts.escaped), ["pid", "net"]);
}

#[test]
fn who_leaves_its_cgroup_stays_its_containers() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.fork(key(60), key(70), IN_A);
    let found = machine.attach(key(70), HOST).unwrap();
    assert_eq!((found.ty, way(&found.facts)), (EventType::Escaped, ["container_to_host", SHORT_A, "host"]));
    assert_eq!(kinds(found.facts.escaped), ["mnt", "pid", "net", "uts", "ipc", "cgroup"]);
    let (facts, found) = machine.setns(key(70), NS_A, HOST_NS);
    assert_eq!((way(&facts), found), (["container_to_host", SHORT_A, "host"], None));
    // Back again it is no runtime at work.
    assert_eq!(machine.attach(key(70), IN_A), None);
    assert!(!machine.processes.get(key(70)).unwrap().starting);
    let found = machine.fork(key(60), key(71), HOST).unwrap();
    assert_eq!(found.ty, EventType::Escaped, "by CLONE_INTO_CGROUP");
    // Who came from the host stays the host's, whatever it enters.
    machine.fork(ROOT, key(72), HOST);
    machine.setns(key(72), HOST_NS, NS_A);
    assert_eq!(machine.program(key(72), HOST, NS_A), []);
}

#[test]
fn a_container_that_runs_containers() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    // Its runtime makes an inner one. That is the outer container's doing, not the host's.
    let (inner, ns) = (key(70), set(400));
    machine.fork(key(60), inner, IN_A);
    assert_eq!(machine.attach(inner, INSIDE_A), None);
    assert!(!machine.processes.get(inner).unwrap().starting);
    let (facts, found) = machine.call(Call::Unshare, inner, NS_A, ns);
    assert_eq!((way(&facts), found), (["new", SHORT_A, SHORT_A], None));
    assert_eq!(machine.program(inner, INSIDE_A, ns), []);
    assert_eq!((machine.owner(ns, MNT), machine.entry(inner)), (SHORT_B.into(), Some(Entry::Main)));
    // The outer one may enter the inner one.
    machine.fork(key(60), key(71), IN_A);
    let (facts, found) = machine.setns(key(71), NS_A, ns);
    assert_eq!((way(&facts), found), (["own", SHORT_A, SHORT_B], None));
    machine.attach(key(71), INSIDE_A);
    let found = machine.program(key(71), INSIDE_A, ns);
    assert_eq!((found[0].ty, way(&found[0].facts)), (EventType::Entered, ["own", SHORT_A, SHORT_B]));
    // The inner one may not enter the outer one, nor the host.
    machine.fork(inner, key(72), INSIDE_A);
    let (facts, found) = machine.setns(key(72), ns, with(ns, "mnt", NS_A));
    assert_eq!(way(&facts), ["container_to_container", SHORT_B, SHORT_A]);
    assert_eq!(found.unwrap().ty, EventType::Escaped);
    machine.fork(inner, key(73), INSIDE_A);
    assert_eq!(machine.program(key(73), INSIDE_A, with(ns, "net", HOST_NS))[0].ty, EventType::Escaped);
    // Nor the outer one the host by way of a directory that it calls a container.
    machine.fork(key(60), key(74), IN_A);
    machine.attach(key(74), INSIDE_A);
    let found = machine.exec(key(74), INSIDE_A, HOST_NS, HOST_NS[MNT]);
    assert_eq!(found.iter().map(|found| found.ty).collect::<Vec<_>>(), [EventType::Escaped]);
}

#[test]
fn a_container_that_starts_again_begins_anew() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    let standing = machine.processes.standing(key(60));
    machine.namespaces.exited(key(60), &standing);
    machine.run(key(61), IN_A, set(400));
    // The end was not seen, but its directory came anew.
    machine.namespaces.cgroup_made(format!("/docker/{A}").as_bytes());
    machine.run(key(62), IN_A, set(500));
    assert_eq!(machine.owner(set(500), MNT), SHORT_A);
    // A directory inside it is not its own.
    machine.namespaces.cgroup_made(format!("/docker/{A}/{A}").as_bytes());
    assert_eq!(machine.enter(key(70), IN_A, set(500)).len(), 1, "it still runs");
}

#[test]
fn a_containers_namespaces_are_forgotten_a_minute_after_its_end() {
    const MINUTE: u64 = 60_000_000_000;
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    let path = format!("/docker/{A}");
    machine.namespaces.cgroup_removed(path.as_bytes(), BootNs(5));
    machine.namespaces.cgroup_removed(b"/other", BootNs(4 + MINUTE));
    assert_eq!(machine.owner(NS_A, MNT), SHORT_A);
    machine.namespaces.expire(BootNs(5 + MINUTE));
    assert_eq!((machine.owner(NS_A, MNT).as_str(), machine.namespaces.residents.len()), ("unknown", 0));
    // Numbers are used again at once: the next container has them, whatever is remembered.
    machine.run(key(61), IN_A, NS_A);
    machine.namespaces.cgroup_removed(path.as_bytes(), BootNs(9));
    machine.run(key(62), IN_B, NS_A);
    assert_eq!(machine.owner(NS_A, MNT), SHORT_B);
}

#[test]
fn without_the_state_before_what_is_not_the_callers_own_counts() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    let raw = |after| RawCall {
        task: Machine::task(key(60), ROOT, IN_A),
        ret: 0,
        ns_before: after,
        ns_after: after,
        ..RawCall::made_up(Call::Setns)
    };
    let (facts, _) = machine.called(&raw(with(NS_A, "mnt", HOST_NS)));
    assert_eq!(way(&facts), ["container_to_host", SHORT_A, "host"]);
    assert_eq!(way(&machine.called(&raw(NS_A)).0), ["own", SHORT_A, SHORT_A]);
    // Nor is anything judged that did not succeed.
    let refused = RawCall { ret: -1, ..raw(with(NS_A, "mnt", HOST_NS)) };
    assert_eq!(way(&machine.called(&refused).0), ["-", "-", "-"]);
    // Of an unshare the flags are left, which stand in a register.
    let after = with(NS_A, "net", set(700));
    let unshare = RawCall { call: Call::Unshare, args: [0x4000_0000, 0, 0, 0], ..raw(after) };
    assert_eq!(way(&machine.called(&unshare).0), ["new", SHORT_A, SHORT_A]);
    assert_eq!(machine.owner(after, 3), SHORT_A);
}

#[test]
fn nobody_is_blamed_on_missing_facts() {
    let mut machine = Machine::new();
    // A container whose beginning nobody saw: a process without history, in namespaces of unknown owners.
    let stranger = key(90);
    let raw = RawCall {
        task: Machine::task(stranger, ROOT, IN_A),
        ret: 0,
        flags: call_flag::BEFORE_KNOWN,
        ns_before: NS_A,
        ns_after: with(NS_A, "net", set(700)),
        ..RawCall::made_up(Call::Setns)
    };
    let (facts, found) = machine.called(&raw);
    assert_eq!((way(&facts), found), (["-", SHORT_A, "unknown"], None));
    // Into the host's it is told all the same.
    let raw = RawCall { ns_after: with(NS_A, "net", HOST_NS), ..raw };
    assert_eq!(way(&machine.called(&raw).0), ["container_to_host", SHORT_A, "host"]);
    // Where no cgroup is known, who comes home to the host was there before.
    let lost = RawCall { task: Machine::task(stranger, ROOT, CgroupId(0)), ..raw };
    assert_eq!(way(&machine.called(&lost).0), ["container_to_host", "unknown", "host"]);
    let stays = RawCall { ns_before: HOST_NS, ns_after: HOST_NS, ..lost };
    assert_eq!(way(&machine.called(&stays).0), ["own", "unknown", "unknown"]);
}

#[test]
fn a_door_that_is_no_watched_call() {
    const LATER: BootNs = BootNs(10_000_000_000);
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.run(key(61), IN_B, NS_B);
    // As exploits of the kernel do it: the host's own, which nothing can be mistaken for.
    let found = machine.switch(key(60), HOST_NS).unwrap();
    assert_eq!((found.ty, way(&found.facts)), (EventType::Escaped, ["container_to_host", SHORT_A, "host"]));
    assert_eq!(kinds(found.facts.escaped), ["mnt", "pid", "net", "uts", "ipc", "cgroup"]);
    assert_eq!(machine.namespaces.overdue(LATER).len(), 0);
    // A namespace that its own call has just made may have another one's number.
    let made = with(NS_B, "net", NS_A);
    assert_eq!(machine.switch(key(61), made), None);
    assert_eq!(machine.call(Call::Unshare, key(61), NS_B, made).1, None);
    assert_eq!(machine.namespaces.overdue(LATER).len(), 0);
    // If no call tells, it was none.
    machine.fork(key(61), key(71), IN_B);
    assert_eq!(machine.switch(key(71), with(NS_B, "mnt", NS_A)), None);
    assert_eq!(machine.namespaces.overdue(BootNs(machine.now)).len(), 0, "not yet");
    let untold = machine.namespaces.overdue(LATER);
    assert_eq!((untold.len(), untold[0].task.process), (1, key(71)));
    let known = machine.processes.get(key(71)).unwrap();
    let cgroup = machine.cgroups.known(IN_B).map(Arc::as_ref);
    let at = At { process: key(71), cgroup, starting: false, boot: LATER };
    let found = machine.namespaces.untold(at, &untold[0].ns, &mut known.standing.clone()).unwrap();
    assert_eq!(way(&found.facts), ["container_to_container", SHORT_B, SHORT_A]);
    // A runtime at work changes what it likes.
    machine.fork(RUNTIME, key(80), IN_A);
    assert_eq!(machine.switch(key(80), NS_B), None);
    assert_eq!(machine.namespaces.overdue(LATER).len(), 0);
}

#[test]
fn a_network_that_the_host_made_is_no_way_out() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    // containerd makes the next pod's network, and a plugin in a container sets it up.
    let made = with(with(HOST_NS, "net", set(800)), "uts", set(800));
    machine.call(Call::Unshare, RUNTIME, HOST_NS, made);
    assert_eq!(machine.owner(made, NET), "host-made");
    let (facts, found) = machine.setns(key(60), NS_A, with(NS_A, "net", made));
    assert_eq!((way(&facts), found), (["-", SHORT_A, "host"], None));
    assert_eq!(machine.program(key(60), IN_A, with(NS_A, "net", made)), []);
    // Of the other kinds it is one.
    let (facts, found) = machine.setns(key(60), NS_A, with(NS_A, "uts", made));
    assert_eq!(way(&facts), ["container_to_host", SHORT_A, "host"]);
    assert_eq!(kinds(found.unwrap().facts.escaped), ["uts"]);
}

#[test]
fn a_process_of_unknown_maker_is_at_home_where_it_is_first_seen() {
    let mut machine = Machine::new();
    // The records of the makers are lost.
    machine.fork(key(59), key(60), IN_A);
    assert_eq!(machine.program(key(60), IN_A, NS_A), []);
    assert_eq!(machine.entry(key(60)), Some(Entry::Main), "it may begin a container");
    machine.fork(key(89), key(90), IN_A);
    let found = machine.attach(key(90), HOST).unwrap();
    assert_eq!((found.ty, way(&found.facts)), (EventType::Escaped, ["container_to_host", SHORT_A, "host"]));
    // Its own record, too: nothing that it is in is exempt, for nobody from outside is known to have chosen it.
    let found = machine.program(key(91), IN_A, with(NS_A, "net", HOST_NS));
    assert_eq!(found.iter().map(|found| found.ty).collect::<Vec<_>>(), [EventType::Escaped]);
    assert_eq!(kinds(found[0].facts.escaped), ["net"]);
    // Who is brought in is not astray for what was not entered.
    let found = machine.enter(key(92), IN_A, with(NS_A, "net", HOST_NS));
    assert_eq!(found.iter().map(|found| found.ty).collect::<Vec<_>>(), [EventType::Entered]);
    assert_eq!(machine.program(key(92), IN_A, with(NS_A, "net", HOST_NS)), []);
}

#[test]
fn the_starting_phase_ends_without_an_exec() {
    const LATE: BootNs = BootNs(10_000_000_000);
    let later = |key: ProcessKey| BootNs(key.start.0 + LATE.0);
    let mut machine = Machine::new();
    // A restore: tasks are forked into the cgroup, and go on where they were.
    machine.fork(RUNTIME, key(60), IN_A);
    machine.fork(key(60), key(61), IN_A);
    assert_eq!(machine.end_starts(BootNs(later(key(60)).0 - 1), NS_A), []);
    assert!(machine.processes.get(key(61)).unwrap().starting, "not yet");
    assert_eq!(machine.end_starts(later(key(60)), NS_A), []);
    for process in [key(60), key(61)] {
        assert!(!machine.processes.get(process).unwrap().starting, "{process:?}");
        assert_eq!(machine.entry(process), Some(Entry::Main));
    }
    assert_eq!(machine.namespaces.residents.running(&machine.key_of(IN_A)).unwrap().main, key(60));
    assert_eq!(machine.owner(NS_A, MNT), SHORT_A);
    // A later fork of it is no start.
    machine.fork(key(60), key(62), IN_A);
    assert!(!machine.processes.get(key(62)).unwrap().starting);
    // Who came into the cgroup and stayed in the host's namespaces is not on its way.
    machine.fork(RUNTIME, key(70), HOST);
    machine.attach(key(70), IN_A);
    let found = machine.end_starts(BootNs(machine.now + LATE.0), HOST_NS);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.ty), (key(70), EventType::Escaped));
    assert_eq!(way(&found[0].1.facts), ["container_to_host", SHORT_A, "host"]);
    // Nor is one that was brought in and never exec'ed unseen.
    machine.fork(RUNTIME, key(71), IN_A);
    let found = machine.end_starts(later(key(71)), NS_A);
    assert_eq!((found.len(), found[0].1.ty), (1, EventType::Entered));
}

#[test]
fn a_runtime_that_is_slow_begins_its_container_all_the_same() {
    let mut machine = Machine::new();
    machine.fork(RUNTIME, key(60), IN_A);
    assert_eq!(machine.end_starts(BootNs(u64::MAX), HOST_NS), []);
    assert!(!machine.processes.get(key(60)).unwrap().starting);
    assert_eq!(machine.program(key(60), IN_A, NS_A), []);
    assert_eq!((machine.owner(NS_A, MNT), machine.entry(key(60))), (SHORT_A.into(), Some(Entry::Main)));
}

#[test]
fn what_is_left_of_a_container_that_ended_is_held_against_nobody() {
    let mut machine = Machine::new();
    machine.run(key(60), IN_A, NS_A);
    machine.run(key(61), IN_B, NS_B);
    let astray = with(NS_A, "net", NS_B);
    machine.fork(key(60), key(70), IN_A);
    assert_eq!(way(&machine.setns(key(70), NS_A, astray).0), ["container_to_container", SHORT_A, SHORT_B]);
    let standing = machine.processes.standing(key(61));
    machine.namespaces.exited(key(61), &standing);
    machine.fork(key(60), key(71), IN_A);
    let (facts, found) = machine.setns(key(71), NS_A, astray);
    assert_eq!((way(&facts), found), (["-", SHORT_A, "unknown"], None));
    assert_eq!(machine.program(key(71), IN_A, astray), []);
    // Nor is that of its run before.
    machine.run(key(62), IN_B, set(400));
    assert_eq!(way(&machine.setns(key(71), NS_A, astray).0), ["-", SHORT_A, "unknown"]);
    let now = with(NS_A, "net", set(400));
    assert_eq!(way(&machine.setns(key(71), NS_A, now).0), ["container_to_container", SHORT_A, SHORT_B]);
}
