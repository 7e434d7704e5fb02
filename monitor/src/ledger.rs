//! The programs' ledger, read when somebody asks: what was seen, sent and lost, by call and by cgroup.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::MapError;
use monitor_common::call::{CALL_SLOTS, Call};
use monitor_common::control::{COUNTER_SLOTS, Counter, LOST_ENTRIES};
use monitor_common::ids::CgroupId;
use monitor_common::wire::{KIND_NAMES, kind};

use crate::attach::{CounterMap, LostMap};
use crate::metrics::{KernelCounters, KernelCounts, KernelSnapshot};
use crate::pins::Carried;

/// The maps behind the ledger. The lock is taken by readers only; the programs never wait for it.
pub struct Ledger {
    maps: Mutex<(CounterMap, LostMap)>,
    names: Vec<&'static str>,
    ring_bytes: u32,
    carried: Option<Arc<Carried>>,
    /// Lost records by slot whose cgroups have no entry any more, if no other process is to know of them.
    gone: [AtomicU64; COUNTER_SLOTS],
}

/// What a slot of the ledger counts: a watched call or a life cycle record.
pub fn slot_name(slot: usize) -> Option<&'static str> {
    match slot.checked_sub(CALL_SLOTS) {
        None => Call::from_wire(slot as u16).map(Call::name),
        // Calls have slots of their own, one each.
        Some(kind) if kind <= usize::from(kind::CALL) => None,
        Some(kind) => KIND_NAMES.get(kind).copied(),
    }
}

/// Names of all slots that are in use, in their order.
pub fn slot_names() -> impl Iterator<Item = &'static str> {
    (0..COUNTER_SLOTS).filter_map(slot_name)
}

/// Why a record may be lost, as the label `reason`.
pub const fn loss_reasons() -> &'static [&'static str] {
    &["ring_full"]
}

/// What was found of the table that says whose records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostTable {
    /// As it was left, and it has room.
    Sound,
    /// Somebody else removed or changed entries.
    Changed,
    /// No room: losses of further cgroups are counted, but not attributed.
    Full,
}

/// Keys that no program writes: there is no such slot.
const SENTINEL: [u64; 2] = [u64::MAX, u32::MAX as u64];
const ROOM: [u64; 2] = [0, u32::MAX as u64];
/// What stands at the sentinel's key.
const UNTOUCHED: u64 = u64::MAX;

/// Whether an entry of the table of losses is one of ours, and no loss.
pub(crate) fn is_of_ours(key: &[u64; 2]) -> bool {
    *key == SENTINEL || *key == ROOM
}

impl Ledger {
    /// Takes the maps of a ring buffer of `ring_bytes`.
    pub fn new(counters: CounterMap, lost: LostMap, ring_bytes: u32) -> Self {
        Ledger {
            maps: Mutex::new((counters, lost)),
            names: slot_names().collect(),
            ring_bytes,
            carried: None,
            gone: Default::default(),
        }
    }

    /// Adds what programs counted that these replaced.
    #[must_use]
    pub fn with_carried(self, carried: Option<Arc<Carried>>) -> Self {
        Ledger { carried, ..self }
    }

    /// Notes for the next process whether what is pinned is of any use to it.
    pub fn note_spoilt(&self, spoilt: bool) {
        if let Some(carried) = &self.carried {
            carried.set_spoilt(spoilt);
        }
    }

    /// The counters of each slot in use, summed over the CPUs, in the order of [`slot_names`].
    ///
    /// # Errors
    /// The kernel does not let the map be read.
    pub fn counters(&self) -> Result<Vec<Counter>, MapError> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counters = Vec::with_capacity(COUNTER_SLOTS);
        for slot in (0..COUNTER_SLOTS).filter(|slot| slot_name(*slot).is_some()) {
            let mut total = self.carried.as_ref().map_or_else(Counter::default, |carried| carried.base(slot));
            for [seen, sent, lost, unattributed] in maps.0.get(&(slot as u32), 0)?.iter() {
                total.seen = total.seen.wrapping_add(*seen);
                total.sent = total.sent.wrapping_add(*sent);
                total.lost = total.lost.wrapping_add(*lost);
                total.unattributed = total.unattributed.wrapping_add(*unattributed);
            }
            counters.push(total);
        }
        Ok(counters)
    }

    /// Looks whether the table of losses is as the programs left it, by an entry that only we know, and whether it
    /// has room for another one. What was changed is put right, so it is found once.
    pub fn check_lost(&self) -> LostTable {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = &mut maps.1;
        let sound = matches!(lost.get(&SENTINEL, 0), Ok(UNTOUCHED));
        let has_room = (sound || lost.insert(SENTINEL, UNTOUCHED, 0).is_ok())
            && lost.insert(ROOM, 0, 0).is_ok()
            && lost.remove(&ROOM).is_ok();
        match (sound, has_room) {
            (_, false) => LostTable::Full,
            (false, true) => LostTable::Changed,
            (true, true) => LostTable::Sound,
        }
    }

    /// Makes room in the table of losses, if half of it is taken: what cgroups lost that are gone becomes one sum. So a host
    /// on which many came and went does not end with a full table, and neither does the process after the next. A cgroup
    /// is gone that did not exist at two looks in a row: nothing of it can be lost between the reading and the removal.
    /// `exist` tells those that there are, if it can.
    pub fn tidy_lost(&self, suspects: &mut HashSet<u64>, exist: impl FnOnce() -> Option<HashSet<u64>>) {
        let entries: Vec<_> = {
            let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
            // A bound of its own: if keys vanish while they are listed, the kernel begins anew.
            maps.1.iter().take(2 * LOST_ENTRIES as usize).filter_map(Result::ok).collect()
        };
        let cgroups: HashSet<u64> =
            entries.iter().filter(|(key, _)| !is_of_ours(key)).map(|([cgroup, _], _)| *cgroup).collect();
        if entries.len() < LOST_ENTRIES as usize / 2 {
            suspects.clear();
            return;
        }
        let Some(exist) = exist() else { return };
        let gone = of_gone(&cgroups, &exist, suspects);
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = HashSet::new();
        for (key, lost) in entries.iter().filter(|([cgroup, _], _)| gone.contains(cgroup)) {
            if done.insert(key) && maps.1.remove(key).is_ok() {
                self.add_gone(key[1] as u32 as usize, *lost);
            }
        }
        tracing::info!(entries = done.len(), "made room in the table of losses: their cgroups are gone");
    }

    fn add_gone(&self, slot: usize, lost: u64) {
        match (&self.carried, self.gone.get(slot)) {
            (Some(carried), _) => carried.add_gone(slot, lost),
            (None, Some(sum)) => drop(sum.fetch_add(lost, Ordering::Relaxed)),
            (None, None) => {}
        }
    }

    fn gone(&self, slot: usize) -> u64 {
        match &self.carried {
            Some(carried) => carried.gone(slot),
            None => self.gone.get(slot).map_or(0, |sum| sum.load(Ordering::Relaxed)),
        }
    }

    /// Lost records by cgroup and kind; those of cgroups that are gone may be one sum, as of cgroup 0. What found no room in
    /// the table is [`Counter::unattributed`].
    pub fn lost_by_cgroup(&self) -> Vec<(CgroupId, &'static str, u64)> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = (0..COUNTER_SLOTS).map(|slot| ([0, slot as u64], self.gone(slot)));
        maps.1
            .iter()
            .filter_map(Result::ok)
            .chain(gone.filter(|(_, lost)| *lost > 0))
            .filter_map(|([cgroup, slot], lost)| {
                Some((CgroupId(cgroup), slot_name(slot as u32 as usize)?, lost))
            })
            .collect()
    }
}

/// Of these cgroups those that did not exist when somebody looked last, and do not now; the others that do not are the next
/// look's suspects. Cgroup 0 is none.
fn of_gone(cgroups: &HashSet<u64>, exist: &HashSet<u64>, suspects: &mut HashSet<u64>) -> HashSet<u64> {
    let missing = cgroups.iter().copied().filter(|cgroup| *cgroup != 0 && !exist.contains(cgroup));
    let (gone, fresh) = missing.partition(|cgroup| suspects.contains(cgroup));
    *suspects = fresh;
    gone
}

impl KernelCounters for Ledger {
    fn calls(&self) -> &[&'static str] {
        &self.names
    }

    fn loss_reasons(&self) -> &[&'static str] {
        loss_reasons()
    }

    fn snapshot(&self) -> anyhow::Result<KernelSnapshot> {
        let counts = |counter: Counter| KernelCounts {
            seen: counter.seen,
            sent: counter.sent,
            // Nothing is held back yet: flood isolation has an issue of its own.
            held_back: 0,
            lost: vec![counter.lost],
            unattributed: counter.unattributed,
        };
        Ok(KernelSnapshot {
            calls: self.counters()?.into_iter().map(counts).collect(),
            ring_capacity_bytes: self.ring_bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_that_are_missing_twice_are_gone() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<HashSet<_>>();
        let mut suspects = HashSet::new();
        let cgroups = set(&[0, 1, 2, 3]);
        assert_eq!(of_gone(&cgroups, &set(&[1, 3]), &mut suspects), set(&[]));
        assert_eq!(suspects, set(&[2]));
        assert_eq!(of_gone(&cgroups, &set(&[1]), &mut suspects), set(&[2]));
        assert_eq!(suspects, set(&[3]), "it was there a look ago");
        // One that is there again, as where a directory could not be seen for a moment.
        assert_eq!(of_gone(&set(&[0, 1, 3]), &set(&[1, 3]), &mut suspects), set(&[]));
        assert_eq!(suspects, set(&[]));
    }
}
