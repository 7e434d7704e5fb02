//! Events that are no calls: they are found where processes begin, move or call.

use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId};
use rustix::time::{ClockId, clock_gettime};

use super::Pipeline;
use crate::decode::{NsSet, ProcessKey, RawCall, RawExec, RawTask};
use crate::enrich::namespaces::{At, Found, Home, Standing, Switch, namespaces_of, task_of};
use crate::event::CapFacts;

impl Pipeline {
    /// Learns whose the namespaces are that exist, and tells of the processes that are astray already.
    pub(super) fn seed_namespaces(&mut self) {
        let now = boot_now();
        for stray in self.namespaces.seed(&mut self.processes, &self.cgroups, now) {
            self.found(stray.found, now, stray.task, stray.ns);
        }
    }

    /// A process is put into a container from outside; one that is at home in a container never is, wherever its
    /// cgroup was in between.
    pub(super) fn enters(&self, process: ProcessKey, to: CgroupId) -> bool {
        let known = self.processes.get(process);
        let at_home = known.is_some_and(|known| matches!(known.standing.home, Home::In(_)));
        !at_home && self.cgroups.enters_container(known.map(|known| known.cgroup), to)
    }

    /// Where a process of unknown home is at home by the cgroup that it is known in.
    pub(super) fn settle_unknown(&mut self, process: ProcessKey) {
        let Some(known) = self.processes.get(process) else { return };
        let (before, starting) = (&known.standing, known.starting);
        let cgroup = self.cgroups.known(known.cgroup).map(Arc::as_ref);
        let mut standing = before.clone();
        self.namespaces.seen_in(cgroup, starting, &mut standing);
        if standing != *before {
            self.processes.set_standing(process, standing);
        }
    }

    /// Ends the starting phase of all who are in it for too long.
    pub(super) fn end_starts(&mut self, now: BootNs) {
        for process in self.processes.late_starts(now) {
            self.end_start(process, &namespaces_of(process), None, now);
        }
    }

    /// Ends a process's starting phase if that lasts too long. `task` describes it, if a record does.
    pub(super) fn end_start(&mut self, process: ProcessKey, ns: &NsSet, task: Option<&RawTask>, now: BootNs) {
        let Some(known) = self.processes.get(process).filter(|known| known.starts_late(now)) else { return };
        let (mut standing, parent) = (known.standing.clone(), self.processes.standing(known.parent));
        let cgroup = self.cgroups.known(known.cgroup).map(Arc::as_ref);
        let at = At { process, cgroup, starting: false, boot: now };
        let found = self.namespaces.started(at, &parent, ns, &mut standing);
        let task =
            found.as_ref().and_then(|_| task.copied().or_else(|| self.processes.get(process).map(task_of)));
        self.processes.started(process);
        self.processes.set_standing(process, standing);
        if let (Some(found), Some(task)) = (found, task) {
            self.found(found, now, task, *ns);
        }
    }

    /// A process exec'ed.
    pub(super) fn execed(&mut self, exec: &RawExec<'_>, boot: BootNs) {
        let key = exec.task.process;
        self.end_start(key, &exec.ns, Some(&exec.task), boot);
        let was_starting = self.processes.get(key).is_some_and(|process| process.starting);
        self.processes.execed(exec);
        let cgroup = self.cgroups.get(exec.task.cgroup, boot);
        let starting = self.processes.get(key).is_some_and(|process| process.starting);
        if !starting && cgroup.as_ref().is_some_and(|cgroup| cgroup.container().is_some()) {
            self.granted(exec, boot);
        }
        let at = At { process: key, cgroup: cgroup.as_deref(), starting, boot };
        let mut standing = self.processes.standing(key);
        let found = self.namespaces.execed(at, was_starting, &exec.ns, &mut standing);
        self.processes.set_standing(key, standing);
        for found in found {
            self.found(found, boot, exec.task, exec.ns);
        }
    }

    /// A process is in another cgroup than it was, or than its maker is. `task` describes it, if a record does.
    pub(super) fn moved(&mut self, process: ProcessKey, to: CgroupId, task: Option<&RawTask>, boot: BootNs) {
        let Some(known) = self.processes.get(process) else { return };
        let (mut standing, starting) = (known.standing.clone(), known.starting);
        let cgroup = self.cgroups.known(to).map(Arc::as_ref);
        let at = At { process, cgroup, starting, boot };
        let found = self.namespaces.moved(at, &mut standing);
        let task =
            found.as_ref().and_then(|_| task.copied().or_else(|| self.processes.get(process).map(task_of)));
        self.processes.set_standing(process, standing);
        if let (Some(found), Some(task)) = (found, task) {
            self.found(found, boot, task, NsSet::default());
        }
    }

    /// A task's namespaces change, by whatever door.
    pub(super) fn switched(&mut self, task: &RawTask, ns: &NsSet, boot: BootNs) {
        let Some((mut standing, starting)) = self.standing(task) else { return };
        let cgroup = self.cgroups.known(task.cgroup).map(Arc::as_ref);
        let at = At { process: task.process, cgroup, starting, boot };
        let found = self.namespaces.switched(at, task, ns, &mut standing);
        if let Some(found) = found {
            self.processes.set_standing(task.process, standing);
            self.found(found, boot, *task, *ns);
        }
    }

    /// Tells of changes of namespaces that no watched call told of.
    pub(super) fn tell_untold(&mut self) {
        for Switch { task, ns, boot } in self.namespaces.overdue(boot_now()) {
            let Some((mut standing, starting)) = self.standing(&task) else { continue };
            let cgroup = self.cgroups.known(task.cgroup).map(Arc::as_ref);
            let at = At { process: task.process, cgroup, starting, boot };
            if let Some(found) = self.namespaces.untold(at, &ns, &mut standing) {
                self.processes.set_standing(task.process, standing);
                self.found(found, boot, task, ns);
            }
        }
    }

    /// Forgets cgroups and containers that have been gone for a minute, also if no other one goes.
    pub(super) fn expire(&mut self, now: BootNs) {
        if self.cgroups.expire(now) {
            self.granted.keep(&self.cgroups);
            let cgroups = &self.cgroups;
            self.alerting.forget_tallies(|id| cgroups.known(id).is_some());
        }
        self.namespaces.expire(now);
    }

    fn standing(&self, task: &RawTask) -> Option<(Standing, bool)> {
        self.processes.get(task.process).map(|process| (process.standing.clone(), process.starting))
    }

    /// Takes a capability check, or credentials that grew, to the rules.
    pub(super) fn told_of_caps(&mut self, caps: CapFacts, boot: BootNs, task: RawTask, ns: NsSet) {
        self.meet(&task);
        let raw = RawCall::of_state(boot, task, ns);
        let facts = self.namespaces.whose(&ns, &self.processes.standing(task.process));
        self.event(caps.event_type(), &raw, facts, None, Some(caps), false);
    }

    /// Takes what was found to the rules.
    pub(super) fn found(&mut self, found: Found, boot: BootNs, task: RawTask, ns: NsSet) {
        let raw = RawCall::of_state(boot, task, ns);
        self.event(found.ty, &raw, found.facts, None, None, false);
    }
}

/// The boot clock, as records have it.
pub(crate) fn boot_now() -> BootNs {
    let now = clock_gettime(ClockId::Boottime);
    let nanoseconds = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    BootNs(nanoseconds.try_into().unwrap_or(0))
}
