//! Where canaries are noted when they are sent and when they come back. Written without a lock by the thread that
//! sends them and by the pipeline, read by the watch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use monitor_common::ids::BootNs;
use monitor_common::wire::kind;
use rustix::time::{ClockId, clock_gettime};

use super::calls::{Answer, CALLS};
use crate::attach::AttachMode;

/// Numbers of the canaries: one for each call of [`CALLS`], then those of the other hooks.
pub(super) const SECCOMP: usize = CALLS.len();
pub(super) const CAPABILITY: usize = SECCOMP + 1;
pub(super) const CAPSET: usize = SECCOMP + 2;
pub(super) const DEVICE: usize = SECCOMP + 3;
pub(super) const NSPROXY: usize = SECCOMP + 4;
pub(super) const CREDENTIALS: usize = SECCOMP + 5;
const FIRST_KIND: usize = SECCOMP + 6;
pub(super) const COUNT: usize = FIRST_KIND + (kind::CGROUP_ATTACH - kind::EXEC) as usize + 1;

/// Number of the canary for a kind of life cycle record, from [`kind::EXEC`] to [`kind::CGROUP_ATTACH`].
pub(super) const fn of_kind(kind: u16) -> usize {
    FIRST_KIND + (kind - kind::EXEC) as usize
}

/// Programs on the life cycle, in the order of their kinds.
const LIFE_CYCLE: [&str; COUNT - FIRST_KIND] =
    ["process_exec", "process_fork", "process_exit", "cgroup_mkdir", "cgroup_rmdir", "cgroup_attach"];

/// True if the canary tests the probe.
pub(super) fn tests(canary: usize, mode: AttachMode, probe: &str) -> bool {
    match (canary, mode) {
        (..=SECCOMP, AttachMode::Tracepoint) => ["sys_exit", "sys_exit_perf"].contains(&probe),
        (SECCOMP, AttachMode::Trampoline) => probe.starts_with("seccomp_filter"),
        (CAPABILITY, _) => probe.starts_with("cap_capable"),
        (CAPSET, _) => probe == "security_capset",
        (DEVICE, _) => probe == "device_asked",
        (NSPROXY, _) => probe == "nsproxy_switched",
        (CREDENTIALS, _) => probe == "credentials_committed",
        (FIRST_KIND.., _) => LIFE_CYCLE.get(canary - FIRST_KIND) == Some(&probe),
        (call, AttachMode::Trampoline) => CALLS.get(call).is_some_and(|call| call.program == probe),
    }
}

/// What a canary is, for people.
pub(super) fn describe(canary: usize) -> String {
    match canary {
        SECCOMP => "a refusal by seccomp".to_owned(),
        CAPABILITY => "a capability check".to_owned(),
        CAPSET => "capset's own check".to_owned(),
        DEVICE => "a device's open".to_owned(),
        NSPROXY => "the end of a process's namespaces".to_owned(),
        CREDENTIALS => "new credentials".to_owned(),
        FIRST_KIND.. => LIFE_CYCLE.get(canary - FIRST_KIND).copied().unwrap_or_default().to_owned(),
        call => CALLS
            .get(call)
            .map(|call| format!("{} ({}, {})", call.call.name(), call.abi.name(), call.nr))
            .unwrap_or_default(),
    }
}

/// How long a canary's record may be on its way.
pub(super) const LATE: Duration = Duration::from_millis(250);

/// Now, on the clock of records.
pub(super) fn now() -> BootNs {
    let now = clock_gettime(ClockId::Boottime);
    BootNs(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

#[derive(Debug, Default)]
struct Slot {
    /// When the first call was made that has not come back; if all have, the last one.
    asked: AtomicU64,
    /// Boot time of the last record that came back.
    back: AtomicU64,
    /// How long that took, in nanoseconds.
    trip: AtomicU64,
}

/// Why canaries may never come back, by their numbers; `None` for those that must.
pub(super) type Doubts = [Option<&'static str>; COUNT];

/// All canaries.
#[derive(Debug)]
pub(super) struct Board {
    slots: [Slot; COUNT],
    /// Why a canary cannot be sent on this machine.
    untested: Mutex<[Option<String>; COUNT]>,
    /// Why a canary may never come back, although it can be sent.
    doubts: Doubts,
    /// The call that the hook on capability checks is judged by.
    checked: usize,
    /// Records of canaries that the pipeline took.
    received: AtomicU64,
    /// Canaries that were sent.
    sent: AtomicU64,
    /// When the canary thread began what it is doing now; 0 while it does nothing.
    acting: AtomicU64,
    /// Somebody else's record bore the canaries' mark since this was last taken.
    forged: AtomicBool,
}

impl Board {
    /// Nothing was sent yet.
    pub(super) fn new(untested: [Option<String>; COUNT], doubts: Doubts, checked: usize) -> Self {
        Board {
            slots: std::array::from_fn(|_| Slot::default()),
            untested: Mutex::new(untested),
            doubts,
            checked,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acting: AtomicU64::new(0),
            forged: AtomicBool::new(false),
        }
    }

    /// Somebody else's record bears the canaries' mark: the map that says who is a canary was written to.
    pub(super) fn forged(&self) {
        self.forged.store(true, Ordering::Release);
    }

    /// Whether that happened since it was last asked.
    pub(super) fn take_forged(&self) -> bool {
        self.forged.swap(false, Ordering::AcqRel)
    }

    /// The canary is about to be sent.
    pub(super) fn ask(&self, canary: usize) {
        let Some(slot) = self.slots.get(canary) else { return };
        self.sent.fetch_add(1, Ordering::AcqRel);
        // What is asked for together is done together: the first one's time stands for all.
        let _ = self.acting.compare_exchange(0, now().0, Ordering::AcqRel, Ordering::Acquire);
        // The time of an earlier one that is still out stands: it tells since when nothing came back.
        if slot.back.load(Ordering::Acquire) >= slot.asked.load(Ordering::Acquire) {
            slot.asked.store(now().0, Ordering::Release);
        }
    }

    /// What was last asked for is done: from here on it can be late.
    pub(super) fn acted(&self) {
        self.acting.store(0, Ordering::Release);
    }

    /// It could not be sent after all, or tests nothing here: why.
    pub(super) fn excuse(&self, canary: usize, why: String) {
        if let Some(slot) = self.slots.get(canary) {
            slot.back.store(slot.asked.load(Ordering::Acquire), Ordering::Release);
        }
        self.set_untested(canary, Some(why));
    }

    /// It can be sent: an earlier excuse is over.
    pub(super) fn admit(&self, canary: usize) {
        if self.untested(canary).is_some() {
            self.set_untested(canary, None);
        }
    }

    fn set_untested(&self, canary: usize, why: Option<String>) {
        let mut untested = self.untested.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = untested.get_mut(canary) {
            *place = why;
        }
    }

    /// Why the canary is not sent here; `None` if it is.
    pub(super) fn untested(&self, canary: usize) -> Option<String> {
        self.untested.lock().unwrap_or_else(PoisonError::into_inner).get(canary)?.clone()
    }

    /// A record came through that shows that the canary was seen.
    pub(super) fn answer(&self, canary: usize, boot: BootNs) {
        let Some(slot) = self.slots.get(canary) else { return };
        let asked = slot.asked.load(Ordering::Acquire);
        if boot.0 >= asked {
            slot.trip.store(now().0.saturating_sub(asked), Ordering::Release);
            slot.back.store(boot.0, Ordering::Release);
        }
    }

    /// A record of a canary came through, whatever it shows.
    pub(super) fn count(&self) {
        self.received.fetch_add(1, Ordering::AcqRel);
    }

    /// Records of canaries so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Canaries sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// When the canary was sent that has not come back; `None` if it has, or none was sent.
    pub(super) fn silent_since(&self, canary: usize) -> Option<BootNs> {
        let slot = self.slots.get(canary)?;
        let asked = slot.asked.load(Ordering::Acquire);
        (slot.back.load(Ordering::Acquire) < asked).then_some(BootNs(asked))
    }

    /// Since when the canary is late; `None` if it is back, was sent less than [`LATE`] ago, or is being sent: the
    /// thread that sends it may wait for a processor, or for a lock of the kernel's, longer than a round takes.
    pub(super) fn late_since(&self, canary: usize, now: BootNs) -> Option<BootNs> {
        let since = self.silent_since(canary)?;
        let acting = self.acting.load(Ordering::Acquire);
        let in_flight = acting != 0 && since.0 >= acting;
        let age = Duration::from_nanos(now.0.saturating_sub(since.0));
        (!in_flight && age >= LATE).then_some(since)
    }

    /// Why a canary may never come back here; `None` once it has.
    pub(super) fn may_never_come(&self, canary: usize) -> Option<&'static str> {
        let doubt = *self.doubts.get(canary)?;
        doubt.filter(|_| !self.was_seen(canary))
    }

    /// The call with whose record a witness inside calls tells what it saw.
    pub(super) fn carrier(&self, canary: usize) -> Option<usize> {
        match canary {
            CAPABILITY => Some(self.checked),
            CAPSET => Some(0),
            DEVICE => CALLS.iter().position(|call| call.answer == Answer::Opened),
            _ => None,
        }
    }

    /// True if it was sent and came back at least once.
    pub(super) fn was_seen(&self, canary: usize) -> bool {
        self.slots.get(canary).is_some_and(|slot| slot.trip.load(Ordering::Acquire) > 0)
    }

    /// How long the last one took, in nanoseconds.
    pub(super) fn trip_ns(&self, canary: usize) -> u64 {
        self.slots.get(canary).map_or(0, |slot| slot.trip.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::CHECKED;
    use super::*;

    fn board() -> Board {
        Board::new(std::array::from_fn(|_| None), [None; COUNT], CHECKED)
    }

    #[test]
    fn a_canary_is_silent_from_the_first_call_that_did_not_come_back() {
        let board = board();
        assert_eq!(board.silent_since(SECCOMP), None);
        board.ask(SECCOMP);
        let since = board.silent_since(SECCOMP).unwrap();
        board.ask(SECCOMP);
        assert_eq!(board.silent_since(SECCOMP), Some(since));
        // A record from before says nothing.
        board.answer(SECCOMP, BootNs(since.0 - 1));
        assert!(board.silent_since(SECCOMP).is_some() && !board.was_seen(SECCOMP));
        board.answer(SECCOMP, now());
        assert_eq!(board.silent_since(SECCOMP), None);
        assert!(board.was_seen(SECCOMP));
        board.ask(SECCOMP);
        assert!(board.silent_since(SECCOMP).unwrap() > since);
        board.excuse(SECCOMP, "no filters".to_owned());
        assert_eq!(board.silent_since(SECCOMP), None);
        assert_eq!(board.untested(SECCOMP).as_deref(), Some("no filters"));
    }

    #[test]
    fn a_canary_is_late_when_it_was_sent_and_had_its_time() {
        let board = board();
        board.ask(SECCOMP);
        let since = board.silent_since(SECCOMP).unwrap();
        let at = |ms: u64| BootNs(since.0 + ms * 1_000_000);
        assert_eq!(board.late_since(SECCOMP, at(10_000)), None, "the call may not have been made yet");
        board.acted();
        assert_eq!(board.late_since(SECCOMP, at(249)), None, "its record may be on its way");
        assert_eq!(board.late_since(SECCOMP, at(250)), Some(since));
        // What is being done now says nothing about an earlier one that is still out.
        board.ask(SECCOMP);
        assert_eq!(board.late_since(SECCOMP, at(1000)), Some(since));
        board.acted();
        board.answer(SECCOMP, now());
        assert_eq!(board.late_since(SECCOMP, at(1000)), None);
    }

    #[test]
    fn each_canary_tests_one_probe_of_each_mode() {
        for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
            let others = [
                "sys_exit",
                "seccomp_filter_2",
                "cap_capable",
                "security_capset",
                "device_asked",
                "nsproxy_switched",
                "credentials_committed",
            ]
            .into_iter();
            let probes: Vec<&str> =
                CALLS.iter().map(|call| call.program).chain(others).chain(LIFE_CYCLE).collect();
            for canary in 0..COUNT {
                let tested = probes.iter().filter(|probe| tests(canary, mode, probe)).count();
                assert_eq!(tested, 1, "{mode:?} {}", describe(canary));
            }
        }
    }
}
