//! What waits in the ring when a process takes it over tells of a time that is gone: what is learnt of the system at the
//! start is younger.

use std::collections::HashSet;

use monitor_common::ids::CgroupId;
use monitor_common::wire::kind;

use super::Pipeline;
use crate::decode::{ProcessKey, RawEvent, decode};
use crate::enrich::process::StableId;

/// Directories and programs of which the backlog is remembered, each; more only makes names unknown.
const MOST: usize = 65_536;

/// What the backlog says of what was there before it.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    made: HashSet<CgroupId>,
    /// Directories that were there and are removed in it.
    removed: Vec<(CgroupId, Vec<u8>)>,
    forked: HashSet<StableId>,
    /// Processes that ran another program before.
    execed: HashSet<ProcessKey>,
}

impl Backlog {
    /// Takes the next record.
    pub fn look(&mut self, bytes: &[u8]) {
        self.records += 1;
        // Most are calls, which tell nothing of that; they are not even decoded.
        let number = bytes.get(2..4).and_then(|number| number.try_into().ok()).map(u16::from_ne_bytes);
        if number.is_none_or(|number| number & !kind::CANARY_BIT != kind::CALL)
            && let Ok(event) = decode(bytes)
        {
            self.take(&event);
        }
    }

    fn take(&mut self, event: &RawEvent<'_>) {
        match event {
            RawEvent::Cgroup { made: true, id, .. } if self.made.len() < MOST => {
                self.made.insert(*id);
            }
            RawEvent::Cgroup { made: false, id, path, .. }
                if !self.made.contains(id) && self.removed.len() < MOST =>
            {
                self.removed.push((*id, path.to_vec()));
            }
            RawEvent::Fork { task, .. } if self.forked.len() < MOST => {
                self.forked.insert(task.process.into());
            }
            RawEvent::Exec(exec)
                if self.execed.len() < MOST && !self.forked.contains(&exec.task.process.into()) =>
            {
                self.execed.insert(exec.task.process);
            }
            _ => {}
        }
    }
}

impl Pipeline {
    /// As [`Pipeline::seed`], before a backlog is read: directories that are gone by now are known again, and of a process
    /// that exec'ed since it is not known what it ran, until the record of the exec comes.
    pub fn seed_before(&mut self, backlog: &Backlog) {
        for (id, path) in &backlog.removed {
            self.cgroups.made(*id, path);
            self.namespaces.cgroup_made(path);
        }
        self.seed();
        for process in &backlog.execed {
            self.processes.forget_program(*process);
        }
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::ids::{BootNs, Tgid};

    use super::*;
    use crate::decode::{RawExec, RawTask};

    #[test]
    fn only_what_was_there_before_is_remembered() {
        let key = |tgid| ProcessKey { tgid: Tgid(tgid), start: BootNs(u64::from(tgid)) };
        let mut backlog = Backlog::default();
        backlog.forked.insert(StableId::from(key(7)));
        backlog.made.insert(CgroupId(3));
        for id in [3, 4] {
            backlog.take(&RawEvent::Cgroup { made: false, boot: BootNs(1), id: CgroupId(id), path: b"/x" });
        }
        for tgid in [7, 8] {
            let task = RawTask { process: key(tgid), ..RawTask::default() };
            backlog.take(&RawEvent::Exec(RawExec { task, ..RawExec::default() }));
        }
        assert_eq!(backlog.removed, [(CgroupId(4), b"/x".to_vec())]);
        assert_eq!(backlog.execed, HashSet::from([key(8)]));
    }
}
