//! Tables that are fed as the pipeline feeds them, and what runtimes do to them.

use monitor_common::ids::{CgroupId, NsInum, Tgid};

use super::super::*;
use crate::decode::{RawExec, RawTask};
use crate::enrich::container::Cgroups;
use crate::enrich::process::Processes;

pub(super) const A: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
pub(super) const B: &str = "bbbbb26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
pub(super) const SHORT_A: &str = "4d5ce26ae5a9";
pub(super) const SHORT_B: &str = "bbbbb26ae5a9";

/// Cgroups of the host, of two containers, and of one inside the first.
pub(super) const HOST: CgroupId = CgroupId(1);
pub(super) const IN_A: CgroupId = CgroupId(2);
pub(super) const IN_B: CgroupId = CgroupId(3);
pub(super) const INSIDE_A: CgroupId = CgroupId(4);

pub(super) const HOST_NS: NsSet = set(100);
pub(super) const ROOT: ProcessKey = key(1);
pub(super) const RUNTIME: ProcessKey = key(50);

pub(super) const fn key(tgid: u32) -> ProcessKey {
    // Not a whole tick, as records have it.
    ProcessKey { tgid: Tgid(tgid), start: BootNs(tgid as u64 * 1_000_000_007) }
}

/// Namespaces with these numbers; user and time are the host's.
pub(super) const fn set(first: u32) -> NsSet {
    let mut set = [NsInum(0); 8];
    let mut kind = 0;
    while kind < 8 {
        set[kind] = NsInum(if kind == 2 || kind == TIME { 100 + kind as u32 } else { first + kind as u32 });
        kind += 1;
    }
    set
}

/// The set with one kind from another.
pub(super) fn with(mut set: NsSet, kind: &str, other: NsSet) -> NsSet {
    let kind = NS_KINDS.iter().position(|known| *known == kind).unwrap();
    set[kind] = other[kind];
    set
}

/// The tables, fed as the pipeline feeds them.
pub(super) struct Machine {
    pub(super) cgroups: Cgroups,
    pub(super) processes: Processes,
    pub(super) namespaces: Namespaces,
    pub(super) now: u64,
}

impl Machine {
    pub(super) fn new() -> Self {
        let mut cgroups = Cgroups::new(None);
        cgroups.made(HOST, b"/system.slice/docker.service");
        cgroups.made(IN_A, format!("/docker/{A}").as_bytes());
        cgroups.made(IN_B, format!("/docker/{B}").as_bytes());
        cgroups.made(INSIDE_A, format!("/docker/{A}/docker/{B}").as_bytes());
        let mut machine = Machine {
            cgroups,
            processes: Processes::new(1000, HOST_NS[MNT]),
            namespaces: Namespaces::new(HOST_NS),
            now: 1,
        };
        machine.exec(ROOT, HOST, HOST_NS, HOST_NS[MNT]);
        machine.fork(ROOT, RUNTIME, HOST);
        machine.exec(RUNTIME, HOST, HOST_NS, HOST_NS[MNT]);
        machine
    }

    pub(super) fn tick(&mut self) -> BootNs {
        self.now += 1000;
        BootNs(self.now)
    }

    pub(super) fn task(process: ProcessKey, parent: ProcessKey, cgroup: CgroupId) -> RawTask {
        RawTask { process, parent, cgroup, ..RawTask::default() }
    }

    pub(super) fn enters(&self, process: ProcessKey, to: CgroupId) -> bool {
        let known = self.processes.get(process);
        let at_home = known.is_some_and(|known| matches!(known.standing.home, Home::In(_)));
        !at_home && self.cgroups.enters_container(known.map(|known| known.cgroup), to)
    }

    pub(super) fn moved(&mut self, process: ProcessKey, to: CgroupId) -> Option<Found> {
        let boot = self.tick();
        let mut standing = self.processes.standing(process);
        let starting = self.processes.get(process).unwrap().starting;
        let at = At { process, cgroup: self.cgroups.known(to).map(Arc::as_ref), starting, boot };
        let found = self.namespaces.moved(at, &mut standing);
        self.processes.set_standing(process, standing);
        found
    }

    /// The tick at a time, all processes that start being in these namespaces.
    pub(super) fn end_starts(&mut self, now: BootNs, ns: NsSet) -> Vec<(ProcessKey, Found)> {
        let mut all = Vec::new();
        for process in self.processes.late_starts(now) {
            let known = self.processes.get(process).unwrap();
            let (mut standing, parent) = (known.standing.clone(), self.processes.standing(known.parent));
            let cgroup = self.cgroups.known(known.cgroup).map(Arc::as_ref);
            let at = At { process, cgroup, starting: false, boot: now };
            let found = self.namespaces.started(at, &parent, &ns, &mut standing);
            self.processes.started(process);
            self.processes.set_standing(process, standing);
            all.extend(found.map(|found| (process, found)));
        }
        all
    }

    pub(super) fn settle_unknown(&mut self, process: ProcessKey) {
        let Some(known) = self.processes.get(process) else { return };
        let (mut standing, starting) = (known.standing.clone(), known.starting);
        let cgroup = self.cgroups.known(known.cgroup).map(Arc::as_ref);
        self.namespaces.seen_in(cgroup, starting, &mut standing);
        self.processes.set_standing(process, standing);
    }

    pub(super) fn fork(&mut self, maker: ProcessKey, child: ProcessKey, cgroup: CgroupId) -> Option<Found> {
        let enters = self.enters(maker, cgroup);
        self.processes.forked(&Self::task(child, maker, cgroup), maker, enters);
        self.settle_unknown(child);
        self.moved(child, cgroup)
    }

    pub(super) fn attach(&mut self, process: ProcessKey, cgroup: CgroupId) -> Option<Found> {
        let enters = self.enters(process, cgroup);
        let boot = self.tick();
        self.processes.attached(process, cgroup, enters, boot);
        self.settle_unknown(process);
        self.moved(process, cgroup)
    }

    pub(super) fn exec(
        &mut self,
        process: ProcessKey,
        cgroup: CgroupId,
        ns: NsSet,
        file: NsInum,
    ) -> Vec<Found> {
        let boot = self.tick();
        let was_starting = self.processes.get(process).is_some_and(|process| process.starting);
        self.processes.execed(&RawExec {
            task: Self::task(process, ROOT, cgroup),
            exe_ino: 1,
            exe_dev: 1,
            exe_mnt_ns: file,
            ns,
            components: b"x\0",
            ..RawExec::default()
        });
        let mut standing = self.processes.standing(process);
        let starting = self.processes.get(process).unwrap().starting;
        let at = At { process, cgroup: self.cgroups.known(cgroup).map(Arc::as_ref), starting, boot };
        let found = self.namespaces.execed(at, was_starting, &ns, &mut standing);
        self.processes.set_standing(process, standing);
        found
    }

    /// A program of the mount namespace that the process is in.
    pub(super) fn program(&mut self, process: ProcessKey, cgroup: CgroupId, ns: NsSet) -> Vec<Found> {
        self.exec(process, cgroup, ns, ns[MNT])
    }

    pub(super) fn called(&mut self, raw: &RawCall<'_>) -> (Facts, Option<Found>) {
        let process = raw.task.process;
        let mut standing = self.processes.standing(process);
        let starting = self.processes.get(process).is_some_and(|process| process.starting);
        let cgroup = self.cgroups.known(raw.task.cgroup).map(Arc::as_ref);
        let at = At { process, cgroup, starting, boot: raw.boot };
        let answer = self.namespaces.called(at, raw, raw.ret >= 0, &mut standing);
        self.processes.set_standing(process, standing);
        answer
    }

    pub(super) fn call(
        &mut self,
        call: Call,
        process: ProcessKey,
        before: NsSet,
        after: NsSet,
    ) -> (Facts, Option<Found>) {
        let boot = self.tick();
        let cgroup = self.processes.get(process).unwrap().cgroup;
        let raw = RawCall {
            boot,
            task: Self::task(process, ROOT, cgroup),
            call,
            ret: 0,
            flags: call_flag::BEFORE_KNOWN,
            ns_before: before,
            ns_after: after,
            ..RawCall::made_up(call)
        };
        self.called(&raw)
    }

    /// A task's namespaces change by a door that need not be a watched call.
    pub(super) fn switch(&mut self, process: ProcessKey, ns: NsSet) -> Option<Found> {
        let boot = self.tick();
        let known = self.processes.get(process).unwrap();
        let (mut standing, starting) = (known.standing.clone(), known.starting);
        let task = Self::task(process, ROOT, known.cgroup);
        let at = At { process, cgroup: self.cgroups.known(known.cgroup).map(Arc::as_ref), starting, boot };
        let found = self.namespaces.switched(at, &task, &ns, &mut standing);
        self.processes.set_standing(process, standing);
        found
    }

    pub(super) fn setns(
        &mut self,
        process: ProcessKey,
        before: NsSet,
        after: NsSet,
    ) -> (Facts, Option<Found>) {
        self.call(Call::Setns, process, before, after)
    }

    /// As runc does it: the process joins the cgroup, then makes the namespaces, then execs the program.
    pub(super) fn run(&mut self, main: ProcessKey, cgroup: CgroupId, ns: NsSet) {
        self.run_from(main, cgroup, HOST_NS, ns);
    }

    /// The same for a container that is to share some namespaces: these are entered before.
    pub(super) fn run_from(&mut self, main: ProcessKey, cgroup: CgroupId, entered: NsSet, ns: NsSet) {
        assert_eq!(self.fork(RUNTIME, main, HOST), None);
        assert_eq!(self.exec(main, HOST, HOST_NS, NsInum(0)), []);
        assert_eq!(self.attach(main, cgroup), None);
        assert_eq!(self.setns(main, HOST_NS, entered).1, None);
        let (facts, found) = self.call(Call::Unshare, main, entered, ns);
        assert_eq!((way(&facts), found), (["new", "host", "host"], None));
        assert_eq!(self.program(main, cgroup, ns), []);
        assert_eq!(self.entry(main), Some(Entry::Main));
    }

    /// As runc does it for `docker exec`: the process enters the namespaces, then joins the cgroup, then execs.
    pub(super) fn enter(&mut self, process: ProcessKey, cgroup: CgroupId, ns: NsSet) -> Vec<Found> {
        self.fork(RUNTIME, process, HOST);
        self.setns(process, HOST_NS, ns);
        assert_eq!(self.attach(process, cgroup), None);
        self.program(process, cgroup, ns)
    }

    pub(super) fn key_of(&self, cgroup: CgroupId) -> Arc<str> {
        self.cgroups.known(cgroup).unwrap().key.clone().unwrap()
    }

    pub(super) fn entry(&self, process: ProcessKey) -> Option<Entry> {
        self.processes.standing(process).entry
    }

    pub(super) fn owner(&self, ns: NsSet, kind: usize) -> String {
        self.namespaces.owners.of(ns[kind]).map_or_else(String::new, |party| party.exactly().to_owned())
    }
}

/// Direction, from, to; a dash for what is absent.
pub(super) fn way(facts: &Facts) -> [&str; 3] {
    let party = |party: Option<&'_ Party>| match party {
        Some(Party::Container(key)) if key.ends_with(A) => SHORT_A,
        Some(Party::Container(_)) => SHORT_B,
        Some(party) if party.is_host() => "host",
        Some(_) => "unknown",
        None => "-",
    };
    [facts.direction().map_or("-", Direction::name), party(facts.from()), party(facts.to())]
}

pub(super) fn kinds(set: KindSet) -> Vec<&'static str> {
    set.iter().map(|kind| NS_KINDS[kind]).collect()
}
