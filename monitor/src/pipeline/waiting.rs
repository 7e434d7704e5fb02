//! The pipeline's part that waits: it asks for containers' names, and puts events by until they have come.
//!
//! Nothing here blocks. Who drives the pipeline calls [`Pipeline::tend`] when the bell rings or the deadline comes;
//! while records come, [`Pipeline::hand_over`] does the same.

use std::sync::Arc;
use std::time::Instant;

use monitor_common::ids::{BootNs, CgroupId};

use super::Pipeline;
use crate::alerting::Moment;
use crate::enrich::container::Container;
use crate::enrich::names::Bell;
use crate::held::Held;
use crate::metrics::WaitEnd;

/// Answers about names that are taken before records get their turn again.
const ANSWERS_A_TURN: usize = 64;

impl Pipeline {
    /// The container's next event is at hand. Those that wait for a name that nobody reads any more go on before it.
    pub(super) fn heard_of(&mut self, container: &Arc<Container>) {
        self.names.heard_of(container);
        if self.room.holds(container) && self.names.awaited(container).is_none() {
            self.end_waits_of(container);
        }
    }

    fn end_waits_of(&mut self, container: &Arc<Container>) {
        let end = self.names.end_of_wait(container);
        while let Some(held) = self.room.call(container) {
            self.go_on(&held, end);
        }
    }

    /// Puts an event by until its container's name is known, or for as long as an alert may wait.
    pub(super) fn put_by(&mut self, held: Held) {
        let container = held.cgroup().and_then(|cgroup| cgroup.container());
        match container.and_then(|container| self.names.awaited(container)) {
            Some(key) => {
                let until = Instant::now() + self.metadata_wait;
                if let Some(oldest) = self.room.enter(&key, until, held) {
                    self.go_on(&oldest, WaitEnd::NoRoom);
                }
            }
            // Nobody reads it, so nobody waits for it.
            None => self.judge_held(&held),
        }
    }

    /// An event that waited goes on.
    fn go_on(&mut self, held: &Held, end: WaitEnd) {
        self.metrics.events_waited[end as usize].inc();
        self.judge_held(held);
    }

    fn judge_held(&mut self, held: &Held) {
        let raw = held.raw();
        let named = self.names.of(held.cgroup().and_then(|cgroup| cgroup.container()));
        let event = held.event(&raw, named, &self.host, &self.users);
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&event, held.unix_ns);
        }
        self.alerting.judge(event.ty, &event, Moment { unix_ns: held.unix_ns, boot_ns: raw.boot.0 });
    }

    /// A cgroup was removed: its container's name is kept for as long as the cgroup is.
    pub(super) fn cgroup_removed(&mut self, id: CgroupId, boot: BootNs) {
        if let Some(container) = self.cgroups.known(id).and_then(|cgroup| cgroup.container()) {
            self.names.removed(container, Instant::now());
        }
        self.cgroups.removed(id, boot);
    }

    /// Asks for the names of containers that were found.
    pub(super) fn ask_names(&mut self) {
        for cgroup in self.cgroups.found.drain(..) {
            if let Some(container) = cgroup.container() {
                self.names.found(container);
            }
        }
    }

    /// Lets events go on whose wait is over: their container's name has come, or the time is up.
    pub(super) fn end_waits(&mut self) {
        let mut answers = 0;
        while answers < ANSWERS_A_TURN
            && let Some(key) = self.names.answered()
        {
            answers += 1;
            self.end_waits_of(&key);
        }
        if answers == ANSWERS_A_TURN {
            self.names.bell().ring();
        }
        if self.room.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(held) = self.room.due(now) {
            self.go_on(&held, WaitEnd::TimedOut);
        }
    }

    /// What rings when [`Pipeline::tend`] has something to do.
    pub fn bell(&self) -> Bell {
        self.names.bell()
    }

    /// When [`Pipeline::tend`] has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.room.deadline()
    }

    /// Does what became due while no record came. Events that waited are judged by the rules that are in force now.
    pub fn tend(&mut self) {
        self.alerting.turn();
        self.end_waits();
        self.alerting.hand_over();
    }

    /// The last record was handled: nobody waits any longer.
    pub fn finish(&mut self) {
        self.end_waits();
        while let Some(held) = self.room.oldest() {
            self.go_on(&held, WaitEnd::Shutdown);
        }
        self.hand_over();
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
