//! What exists already when the daemon starts: containers, whose namespaces they have, and who is astray.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId, Gid, NsInum, Uid};

use super::{At, Entry, Found, Home, KindSet, MNT, Namespaces, Party, Standing};
use crate::decode::{NsSet, ProcessKey, RawTask};
use crate::enrich::container::{Cgroup, Cgroups};
use crate::enrich::process::{Process, Processes, STARTING_NS, is_running, same_process};
use crate::event::NO_USER;
use crate::fields::NS_KINDS;
use crate::kernel_files;

/// A process that was found astray, with what its event needs.
#[derive(Debug)]
pub struct Stray {
    /// The process.
    pub task: RawTask,
    /// Its namespaces.
    pub ns: NsSet,
    /// Where they are whose.
    pub found: Found,
}

/// A process as `/proc` shows it.
struct Seen {
    key: ProcessKey,
    parent: ProcessKey,
    cgroup: CgroupId,
    /// The innermost container that its cgroup lies in.
    container: Option<Arc<str>>,
    ns: NsSet,
}

impl Namespaces {
    /// Learns what exists: the namespaces of every process in the table, and where each process belongs. Gives those
    /// that are astray.
    pub fn seed(&mut self, processes: &mut Processes, cgroups: &Cgroups, now: BootNs) -> Vec<Stray> {
        let mut seen: Vec<Seen> = processes
            .iter()
            .filter_map(|process| {
                let cgroup = cgroups.known(process.cgroup)?;
                Some(see(process, cgroup, namespaces(process.key)))
            })
            .collect();
        sort(&mut seen);
        self.seed_from(&seen, processes, cgroups, now)
    }

    fn seed_from(
        &mut self,
        seen: &[Seen],
        processes: &mut Processes,
        cgroups: &Cgroups,
        now: BootNs,
    ) -> Vec<Stray> {
        // A container's first program; before it, its processes are the runtime's, in the host's mount namespace.
        for process in seen {
            if let Some(container) = &process.container
                && process.ns[MNT].0 != 0
                && process.ns[MNT] != self.host[MNT]
                && self.residents.get(container).is_none()
            {
                let at = At { process: process.key, cgroup: None, starting: false, boot: process.key.start };
                self.claim(container, at, &process.ns);
                self.residents.began(container, process.key, process.ns);
            }
        }
        // What else the host's processes are in is the host's, and the rest its container's.
        let (inside, outside): (Vec<&Seen>, Vec<&Seen>) =
            seen.iter().partition(|process| process.container.is_some());
        for process in outside.into_iter().chain(inside) {
            let owner = process.container.clone().map_or(Party::HostMade, Party::Container);
            for inum in process.ns {
                if self.owners.of(inum) == Some(Party::Unknown) {
                    self.owners.made(inum, owner.clone(), process.key, process.key.start);
                }
            }
        }
        let by_key: HashMap<ProcessKey, &Seen> = seen.iter().map(|process| (process.key, process)).collect();
        let mut strays = Vec::new();
        for process in seen {
            let mut standing = self.seeded(process, &by_key, now);
            let starting = process.container.is_some() && standing.home == Home::Host;
            if starting {
                processes.attached(process.key, process.cgroup, true, process.key.start);
            }
            let cgroup = cgroups.known(process.cgroup).map(Arc::as_ref);
            let at = At { process: process.key, cgroup, starting, boot: now };
            if let Some(found) = self.judge(at, &process.ns, &mut standing) {
                let task = processes.get(process.key).map(task_of);
                strays.extend(task.map(|task| Stray { task, ns: process.ns, found }));
            }
            processes.set_standing(process.key, standing);
        }
        strays
    }

    /// Where a process belongs that ran before anybody looked.
    fn seeded(&self, process: &Seen, by_key: &HashMap<ProcessKey, &Seen>, now: BootNs) -> Standing {
        let Some(container) = &process.container else {
            return Standing { home: Home::Host, ..Standing::default() };
        };
        let from_host = by_key.get(&process.parent).is_some_and(|parent| parent.container.is_none());
        let young = now.0.saturating_sub(process.key.start.0) < STARTING_NS;
        let outside = KindSet::changed(&self.host, &process.ns).is_empty();
        if from_host && young && outside {
            return Standing { home: Home::Host, ..Standing::default() };
        }
        let home = Home::In(Arc::clone(container));
        Standing { home, entry: self.entry_of(process, container, by_key), ..Standing::default() }
    }

    /// How a process came into its container, by its ancestors there. An orphan is given to the first process of its pid
    /// namespace; so where the container has one of its own, nobody else's child is the host's but who came from there.
    fn entry_of(
        &self,
        process: &Seen,
        container: &Arc<str>,
        by_key: &HashMap<ProcessKey, &Seen>,
    ) -> Option<Entry> {
        const PID: usize = 1;
        let resident = self.residents.get(container)?;
        let mut top = process;
        // No chain of ancestors is longer than there are processes; each is older than its child.
        while let Some(parent) = by_key.get(&top.parent)
            && parent.container.as_ref() == Some(container)
            && parent.key.start <= top.key.start
            && parent.key != top.key
            && !same_process(top.key, resident.main)
        {
            top = parent;
        }
        if same_process(top.key, resident.main) {
            return Some(Entry::Main);
        }
        let own_pids = resident.apart(&self.host).has(PID);
        let from_host = by_key.get(&top.parent).is_some_and(|parent| parent.container.is_none());
        (own_pids && from_host).then_some(Entry::Exec)
    }
}

/// Who came first owns what several share, such as the namespaces of a pod. Starts are known to the tick; of those within
/// one, who came into the container from outside is before who was made there.
fn sort(seen: &mut [Seen]) {
    let containers: HashMap<ProcessKey, Option<Arc<str>>> =
        seen.iter().map(|process| (process.key, process.container.clone())).collect();
    seen.sort_by_key(|process| {
        let made_there = containers.get(&process.parent).is_some_and(|parent| *parent == process.container);
        (process.key.start, made_there, process.key.tgid.0)
    });
}

fn see(process: &Process, cgroup: &Cgroup, ns: NsSet) -> Seen {
    Seen {
        key: process.key,
        parent: process.parent,
        cgroup: process.cgroup,
        container: cgroup.key.clone(),
        ns,
    }
}

/// The namespaces of a process that still runs; 0 where they cannot be read.
pub fn namespaces_of(process: ProcessKey) -> NsSet {
    let set = namespaces(process);
    // Another one may have its id meanwhile.
    if is_running(process) { set } else { NsSet::default() }
}

/// The namespaces of a process from `/proc/PID/ns`; 0 where they cannot be read.
fn namespaces(process: ProcessKey) -> NsSet {
    let pid = process.tgid.to_string();
    let mut set = NsSet::default();
    for (inum, kind) in set.iter_mut().zip(NS_KINDS) {
        // Records tell the pid namespace that children get; it has no link while nobody is in it.
        let children = if *kind == "pid" { kernel_files::namespace(&pid, "pid_for_children") } else { None };
        *inum = NsInum(children.or_else(|| kernel_files::namespace(&pid, kind)).unwrap_or(0));
    }
    set
}

/// A process as records describe it, for an event that no record of its own shows. What cannot be read any more is as
/// unknown as a record has it.
pub fn task_of(process: &Process) -> RawTask {
    let pid = process.key.tgid;
    let mut task = RawTask {
        process: process.key,
        parent: process.parent,
        cgroup: process.cgroup,
        euid: NO_USER,
        egid: Gid(u32::MAX),
        loginuid: Uid(u32::MAX),
        ..RawTask::default()
    };
    let name = process.comm.as_bytes();
    for (to, from) in task.comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // Only if it still is the same process is any of it true.
    if !is_running(process.key) {
        return task;
    }
    let word = |key: &str, position: usize| -> Option<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().nth(position)?.parse().ok()
    };
    task.tid.0 = pid.0;
    // Real, effective, saved, of the file system.
    task.euid = word("Uid:", 1).map_or(NO_USER, Uid);
    task.egid = Gid(word("Gid:", 1).unwrap_or(u32::MAX));
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    task.ns_tgid =
        inside.and_then(|line| line.split_whitespace().last()).and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let loginuid = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok();
    task.loginuid = Uid(loginuid.and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX));
    task
}

#[cfg(test)]
mod tests {
    use monitor_common::ids::Tgid;

    use super::*;

    #[test]
    fn of_starts_within_one_tick_who_came_from_outside_is_the_first() {
        let key = |tgid, start| ProcessKey { tgid: Tgid(tgid), start: BootNs(start) };
        let seen = |tgid, start, parent, container: Option<&str>| Seen {
            key: key(tgid, start),
            parent,
            cgroup: CgroupId(1),
            container: container.map(Arc::from),
            ns: NsSet::default(),
        };
        let shim = key(90, 1);
        // Process ids start again at the lowest: the child's is the lower one.
        let main = seen(80, 2, shim, Some("a"));
        let child = seen(20, 2, main.key, Some("a"));
        let other = seen(10, 2, main.key, Some("a"));
        let mut all = [child, other, main, seen(90, 1, key(1, 0), None)];
        sort(&mut all);
        assert_eq!(all.map(|process| process.key.tgid.0), [90, 80, 10, 20]);
    }
}
