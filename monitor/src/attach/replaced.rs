//! Programs of another version, or with other settings, take the place of pinned ones, and nothing falls between: for a
//! moment both are on their hooks, and each event lies in two rings.
//!
//! One moment of that time is the cut. Of the old ring what is older counts, of the new one what is younger. The two
//! programs of a hook run one after the other, so an event on the cut would count twice or not at all; therefore the cut lies
//! where neither ring has a record for the longest time.

use std::borrow::Borrow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use monitor_common::WIRE_VERSION;
use monitor_common::call::CALL_SLOTS;
use monitor_common::control::{COUNTER_SLOTS, Counter};
use monitor_common::ids::BootNs;
use monitor_common::wire::{KIND_SLOTS, kind};

use super::pinned::{EVENTS, Manifest, map_of};
use super::{Attached, CounterMap, LostMap};
use crate::decode::{RawEvent, boot_of, canary_boot, decode};
use crate::ledger::is_of_ours;
use crate::pins::{CARRIED, Carried, PinDir, SetName, peek};
use crate::pipeline::boot_now;

/// How long both are on their hooks: long enough for a pause between two events, whoever makes many.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long the kernel may take to let go of the old programs.
const QUIET: Duration = Duration::from_millis(20);
const MOST_LOOKS: u32 = 100;

/// What an earlier process left, as far as the one that replaces it reads it.
pub(super) struct Old {
    /// What comes before the records in the ring.
    before: Vec<Vec<u8>>,
    /// Of whom these are.
    earlier: Vec<Carried>,
    ring: RingBuf<MapData>,
    ring_bytes: u32,
    counters: CounterMap,
    lost: LostMap,
    carried: Carried,
}

/// What goes from the old programs to the new ones.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Records before those that wait in the new ring, in their order.
    pub(super) records: Vec<Vec<u8>>,
    /// What is to be noted in once these were told of.
    pub(super) old: Vec<Carried>,
    /// What the widest pause was, and with it how sure it is that no event counts twice or not at all.
    pub(super) pause: Duration,
}

impl Old {
    /// Opens what is needed of a set.
    ///
    /// # Errors
    /// A text: it cannot be read, or its records are of another version.
    pub(super) fn open(dir: &PinDir, set: &SetName) -> Result<Self, String> {
        let get = |name: &str| dir.get(set, name).map_err(|error| format!("{name}: {error}"));
        let carried = Carried::adopt(get(CARRIED)?).map_err(|error| error.to_string())?;
        let manifest: Manifest = serde_json::from_str(&carried.text()).map_err(|error| error.to_string())?;
        if manifest.wire != WIRE_VERSION {
            let wire = manifest.wire;
            return Err(format!("its records are of version {wire}, and this is {WIRE_VERSION}"));
        }
        let ring = get(EVENTS)?;
        let ring_bytes = ring.try_clone().map_err(|error| error.to_string()).and_then(bytes_of)?;
        let ring = RingBuf::try_from(map_of(ring)?).map_err(|error| error.to_string())?;
        let counters = PerCpuArray::try_from(map_of(get("COUNTERS")?)?).map_err(|error| error.to_string())?;
        let lost = HashMap::try_from(map_of(get("LOST")?)?).map_err(|error| error.to_string())?;
        Ok(Old { before: Vec::new(), earlier: Vec::new(), ring, ring_bytes, counters, lost, carried })
    }

    /// Lets both run for a moment, takes the old ones off by `switch`, and divides what both saw. The new programs'
    /// counters go on from the old ones', as if there was one ring.
    pub(super) fn hand_over<E>(
        mut self,
        new: &mut Attached,
        carried: &Carried,
        switch: impl FnOnce() -> Result<(), E>,
    ) -> Result<Handed, E> {
        let begin = boot_now();
        sleep(TOGETHER);
        let end = boot_now();
        switch()?;
        self.await_quiet();
        let old = self.waiting();
        let young = new.ring().map(|mut ring| take_until(&mut ring, end)).unwrap_or_default();
        let (cut, pause) = widest(old.iter().chain(&young).map(|record| boot_of(record)), begin, end);
        let records = self.divide(old, young, cut, carried);
        new.add_lost(&self.lost);
        let mut old = self.earlier;
        old.push(self.carried);
        Ok(Handed { records, old, pause })
    }

    /// Everything that waits. It stays in the ring, for whoever comes if this process is killed before it was told of.
    fn waiting(&mut self) -> Vec<Vec<u8>> {
        let mut records = std::mem::take(&mut self.before);
        if let Err(error) = peek(self.ring.as_fd(), self.ring_bytes, |record| records.push(record.to_vec())) {
            tracing::error!(%error, "what waits in the ring of replaced programs cannot be read: it is lost");
        }
        records
    }

    /// What counts of the records that both saw: of the old ones those up to the cut, of the young ones the others. The
    /// new counters go on from the old ones'.
    fn divide(&self, old: Vec<Vec<u8>>, young: Vec<Vec<u8>>, cut: BootNs, carried: &Carried) -> Vec<Vec<u8>> {
        let is_old = |record: &Vec<u8>| boot_of(record) <= cut;
        let mut base = self.totals();
        for record in old.iter().filter(|record| !is_old(record)).chain(young.iter().filter(|r| is_old(r))) {
            // Of an event that both saw one record counts.
            if let Some(base) = slot_of(record).and_then(|slot| base.get_mut(slot)) {
                base.seen = base.seen.wrapping_sub(1);
                base.sent = base.sent.wrapping_sub(1);
            }
        }
        // A process that was killed since may have done this already, with the young records that are missing now.
        if carried.replaced() <= self.carried.replaced() {
            base.into_iter().enumerate().for_each(|(slot, base)| carried.set_base(slot, base));
            (0..COUNTER_SLOTS).for_each(|slot| carried.add_gone(slot, self.carried.gone(slot)));
            carried.set_replaced(self.carried.replaced() + 1);
        }
        carried.set_received(self.carried.all_received());
        carried.take_blindness(&self.carried);
        carried.tell(self.carried.told().0, 0);
        old.into_iter().filter(is_old).chain(young.into_iter().filter(|record| !is_old(record))).collect()
    }

    /// The records of programs that are off their hooks already, before those of the next ones' ring. A process was killed
    /// after it had taken them off, so both saw what came shortly before their last record.
    fn remains<M: Borrow<MapData>>(&mut self, ring: &mut RingBuf<M>, carried: &Carried) -> Vec<Vec<u8>> {
        if self.carried.is_handed_over() {
            return Vec::new();
        }
        let old = self.waiting();
        let last = old.last().map_or(BootNs(0), |record| boot_of(record));
        let young = take_until(ring, last);
        self.divide(old, young, last, carried)
    }

    /// Everything that the old programs and those before them counted.
    fn totals(&self) -> [Counter; COUNTER_SLOTS] {
        std::array::from_fn(|slot| {
            let mut total = self.carried.base(slot);
            for [seen, sent, lost, unattributed] in
                self.counters.get(&(slot as u32), 0).iter().flat_map(|values| values.iter())
            {
                total.seen = total.seen.wrapping_add(*seen);
                total.sent = total.sent.wrapping_add(*sent);
                total.lost = total.lost.wrapping_add(*lost);
                total.unattributed = total.unattributed.wrapping_add(*unattributed);
            }
            total
        })
    }

    /// The kernel takes programs off in its own time. When nothing is counted any more they are off, or nothing happens.
    fn await_quiet(&self) {
        let mut before = self.totals();
        for _ in 0..MOST_LOOKS {
            sleep(QUIET);
            let now = self.totals();
            if now == before {
                return;
            }
            before = now;
        }
        tracing::error!("the replaced programs still count: the ledger may be wrong by what they see");
    }
}

/// Opens the newest of these sets, which is on its hooks, with what waits in the others before it.
pub(super) fn newest(dir: &PinDir, sets: &[SetName]) -> Option<Old> {
    let (newest, others) = sets.split_last()?;
    let mut newest = open(dir, newest)?;
    for mut old in others.iter().filter_map(|set| open(dir, set)) {
        let records = old.remains(&mut newest.ring, &newest.carried);
        newest.before.extend(records);
        newest.earlier.push(old.carried);
    }
    Some(newest)
}

/// What waits in sets that a process was about to replace when it was killed, before what waits in the ring of `new`.
pub(super) fn take_remains(dir: &PinDir, sets: &[SetName], new: &mut Attached, carried: &Carried) -> Handed {
    let mut handed = Handed::default();
    for set in sets {
        if let Err(error) = dir.unhook(set) {
            tracing::error!(%error, "programs that were replaced stay on their hooks");
        }
        let Some(mut old) = open(dir, set) else { continue };
        if let Some(mut ring) = new.ring() {
            handed.records.extend(old.remains(&mut ring, carried));
        }
        handed.old.push(old.carried);
    }
    if !sets.is_empty() {
        let records = handed.records.len();
        tracing::warn!(records, "took over what a process left that was killed while it replaced programs");
    }
    handed
}

fn bytes_of(ring: OwnedFd) -> Result<u32, String> {
    let info = MapData::from_fd(ring).and_then(|data| data.info()).map_err(|error| error.to_string())?;
    Ok(info.max_entries())
}

fn open(dir: &PinDir, set: &SetName) -> Option<Old> {
    Old::open(dir, set)
        .inspect_err(|reason| {
            let what = "what waits in the ring of an earlier version cannot be read: it is lost";
            tracing::error!(reason, "{what}");
        })
        .ok()
}

/// Takes the records up to this time out of the ring, and one more, if there is one.
fn take_until<M: Borrow<MapData>>(ring: &mut RingBuf<M>, end: BootNs) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(record) = ring.next() {
        let is_last = boot_of(&record) > end;
        records.push(record.to_vec());
        if is_last {
            break;
        }
    }
    records
}

impl Attached {
    /// Adds what was lost with other programs, by cgroup. Where both lost something of one cgroup in the moment in which
    /// both were on their hooks, what is counted meanwhile may be missed here; the totals have it.
    fn add_lost(&mut self, old: &LostMap) {
        /// `BPF_NOEXIST`.
        const NEW: u64 = 1;
        let Some(map) = self.ebpf.as_mut().and_then(|ebpf| ebpf.map_mut("LOST")) else { return };
        let Ok(mut map) = HashMap::<_, [u64; 2], u64>::try_from(map) else { return };
        for (key, lost) in old.iter().filter_map(Result::ok).filter(|(key, _)| !is_of_ours(key)) {
            if map.insert(key, lost, NEW).is_err()
                && let Ok(more) = map.get(&key, 0)
            {
                // A table without room has told its losses by the totals alone, here as there.
                let _ = map.insert(key, more.saturating_add(lost), 0);
            }
        }
    }
}

/// The middle of the longest time between `begin` and `end` in which nothing was recorded, and how long that is.
fn widest(times: impl Iterator<Item = BootNs>, begin: BootNs, end: BootNs) -> (BootNs, Duration) {
    let mut times: Vec<u64> =
        times.map(|time| time.0).filter(|time| (begin.0..=end.0).contains(time)).collect();
    times.extend([begin.0, end.0]);
    times.sort_unstable();
    let pauses = times.iter().zip(times.iter().skip(1)).map(|(from, to)| (to - from, *from));
    let (pause, from) = pauses.max().unwrap_or((0, begin.0));
    (BootNs(from + pause / 2), Duration::from_nanos(pause))
}

/// Where the ledger counts a record.
fn slot_of(record: &[u8]) -> Option<usize> {
    if canary_boot(record).is_some() {
        return Some(CALL_SLOTS + usize::from(kind::CANARY));
    }
    if let Ok(RawEvent::Call(call)) = decode(record) {
        return Some(call.call as usize);
    }
    let kind = usize::from(u16::from_ne_bytes([*record.get(2)?, *record.get(3)?]));
    (kind < KIND_SLOTS).then_some(CALL_SLOTS + kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_lies_in_the_widest_pause() {
        let times = |times: &[u64]| times.iter().map(|time| BootNs(*time)).collect::<Vec<_>>();
        let cut = |all: &[u64]| widest(times(all).into_iter(), BootNs(100), BootNs(200));
        assert_eq!(cut(&[110, 111, 150, 151, 190]), (BootNs(170), Duration::from_nanos(39)));
        // What lies outside does not count; the beginning and the end do.
        assert_eq!(cut(&[10, 90, 210]), (BootNs(150), Duration::from_nanos(100)));
        assert_eq!(cut(&[180]), (BootNs(140), Duration::from_nanos(80)));
    }
}
