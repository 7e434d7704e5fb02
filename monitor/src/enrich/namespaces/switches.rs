//! Changes of a task's namespaces that no call has told yet.
//!
//! The record of the change comes while the call that makes it is still running, and a namespace that the call has just
//! made may have the number of another one that is gone. So only the host's own namespaces are believed at once; what
//! else it shows waits for the call's own record. If none comes, it was no watched call.

use std::collections::HashMap;

use monitor_common::ids::{BootNs, Tid};

use super::{At, Found, KindSet, Namespaces, Party, Place, Standing};
use crate::decode::{NsSet, RawTask};
use crate::fields::NS_KINDS;

/// How long the call's own record may take: it follows within the same call.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Changes that may wait at once: more than there are tasks inside such a call.
const MAX_WAITING: usize = 1024;

/// A change that waits for its call.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Whose namespaces changed.
    pub task: RawTask,
    /// What it got, but for the user namespace.
    pub ns: NsSet,
    /// When.
    pub boot: BootNs,
}

/// The changes that wait, by thread.
#[derive(Debug, Default)]
pub(super) struct Switches {
    waiting: HashMap<Tid, Switch>,
    /// Changes that found no room since the number was last taken.
    pub(super) refused: u64,
}

impl Switches {
    /// The thread's own call has told.
    pub(super) fn told(&mut self, thread: Tid) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&thread);
        }
    }

    fn wait(&mut self, switch: Switch) {
        if self.waiting.len() < MAX_WAITING || self.waiting.contains_key(&switch.task.tid) {
            self.waiting.insert(switch.task.tid, switch);
        } else {
            self.refused += 1;
        }
    }
}

impl Namespaces {
    /// A task's namespaces change, by whatever door.
    pub fn switched(
        &mut self,
        at: At<'_>,
        task: &RawTask,
        ns: &NsSet,
        standing: &mut Standing,
    ) -> Option<Found> {
        let Place::In(container) = standing.place(at.starting, at.cgroup) else { return None };
        // Which user namespace it is in shows only after the call.
        let ns = only(ns, |kind| NS_KINDS[kind] != "user");
        let astray = self.astray(&container, &ns);
        if astray.is_empty() {
            return None;
        }
        let sure = KindSet::where_(|kind| self.owners.of(ns[kind]) == Some(Party::Host));
        if !astray.without(sure).is_empty() {
            self.switches.wait(Switch { task: *task, ns, boot: at.boot });
        }
        self.judge(at, &only(&ns, |kind| sure.has(kind)), standing)
    }

    /// Changes whose call has not told of them for too long.
    pub fn overdue(&mut self, now: BootNs) -> Vec<Switch> {
        let mut overdue = Vec::new();
        self.switches.waiting.retain(|_, switch| {
            let waits = now.0.saturating_sub(switch.boot.0) < PATIENCE_NS;
            if !waits {
                overdue.push(*switch);
            }
            waits
        });
        overdue
    }

    /// A change that no watched call told of.
    pub fn untold(&mut self, at: At<'_>, ns: &NsSet, standing: &mut Standing) -> Option<Found> {
        self.judge(at, ns, standing)
    }
}

/// The set with the kinds that fit, the others unknown.
fn only(ns: &NsSet, fits: impl Fn(usize) -> bool) -> NsSet {
    let mut set = *ns;
    for (kind, inum) in set.iter_mut().enumerate() {
        if !fits(kind) {
            inum.0 = 0;
        }
    }
    set
}
