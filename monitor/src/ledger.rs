//! The programs' ledger, read when somebody asks: what was seen, sent and lost, by call and by cgroup.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::MapError;
use monitor_common::call::{CALL_SLOTS, Call};
use monitor_common::control::{COUNTER_SLOTS, Counter};
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

impl Ledger {
    /// Takes the maps of a ring buffer of `ring_bytes`.
    pub fn new(counters: CounterMap, lost: LostMap, ring_bytes: u32) -> Self {
        Ledger {
            maps: Mutex::new((counters, lost)),
            names: slot_names().collect(),
            ring_bytes,
            carried: None,
        }
    }

    /// Adds what programs counted that these replaced.
    #[must_use]
    pub fn with_carried(self, carried: Option<Arc<Carried>>) -> Self {
        Ledger { carried, ..self }
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

    /// Lost records by cgroup and kind. What found no room in the table is [`Counter::unattributed`].
    pub fn lost_by_cgroup(&self) -> Vec<(CgroupId, &'static str, u64)> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.1
            .iter()
            .filter_map(Result::ok)
            .filter_map(|([cgroup, slot], lost)| {
                Some((CgroupId(cgroup), slot_name(slot as u32 as usize)?, lost))
            })
            .collect()
    }
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
