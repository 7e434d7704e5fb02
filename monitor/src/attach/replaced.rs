//! Programs of another version, or with other settings, take the place of pinned ones, and nothing falls between: for a
//! moment both are on their hooks, and each event lies in two rings.
//!
//! One moment of that time is the cut. Of the old ring what is older counts, of the new one what is younger. The two
//! programs of a hook run one after the other, so an event on the cut would count twice or not at all; therefore the cut lies
//! where neither ring has a record for the longest time.

use std::thread::sleep;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use monitor_common::WIRE_VERSION;
use monitor_common::call::CALL_SLOTS;
use monitor_common::control::{COUNTER_SLOTS, Counter};
use monitor_common::ids::BootNs;
use monitor_common::wire::{KIND_SLOTS, kind};

use super::pinned::{Manifest, map_of};
use super::{Attached, CounterMap};
use crate::decode::{RawEvent, boot_of, canary_boot, decode};
use crate::pins::{CARRIED, Carried, PinDir, SetName};
use crate::pipeline::boot_now;

/// How long both are on their hooks: long enough for a pause between two events, whoever makes many.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long the kernel may take to let go of the old programs.
const QUIET: Duration = Duration::from_millis(20);
const MOST_LOOKS: u32 = 100;

/// What an earlier process left, as far as the one that replaces it reads it.
pub(super) struct Old {
    ring: RingBuf<MapData>,
    counters: CounterMap,
    carried: Carried,
}

/// What goes from the old programs to the new ones.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Records before those that wait in the new ring, in their order.
    pub(super) records: Vec<Vec<u8>>,
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
        let ring = RingBuf::try_from(map_of(get("EVENTS")?)?).map_err(|error| error.to_string())?;
        let counters = PerCpuArray::try_from(map_of(get("COUNTERS")?)?).map_err(|error| error.to_string())?;
        Ok(Old { ring, counters, carried })
    }

    /// Lets both run for a moment, takes the old ones off by `remove`, and divides what both saw. The new programs'
    /// counters go on from the old ones', as if there was one ring.
    pub(super) fn hand_over<E>(
        mut self,
        new: &mut Attached,
        carried: &Carried,
        remove: impl FnOnce() -> Result<(), E>,
    ) -> Result<Handed, E> {
        let begin = boot_now();
        sleep(TOGETHER);
        let end = boot_now();
        remove()?;
        self.await_quiet();
        let mut old = Vec::new();
        while let Some(record) = self.ring.next() {
            old.push(record.to_vec());
        }
        let young = new.take_records_until(end);
        let (cut, pause) = widest(old.iter().chain(&young).map(|record| boot_of(record)), begin, end);
        let is_old = |record: &Vec<u8>| boot_of(record) <= cut;
        let mut base = self.totals();
        for record in old.iter().filter(|record| !is_old(record)).chain(young.iter().filter(|r| is_old(r))) {
            // Of an event that both saw one record counts.
            if let Some(base) = slot_of(record).and_then(|slot| base.get_mut(slot)) {
                base.seen = base.seen.wrapping_sub(1);
                base.sent = base.sent.wrapping_sub(1);
            }
        }
        base.into_iter().enumerate().for_each(|(slot, base)| carried.set_base(slot, base));
        carried.set_received(self.carried.all_received());
        carried.tell(self.carried.told().0, 0);
        let records = old.into_iter().filter(is_old).chain(young.into_iter().filter(|r| !is_old(r)));
        Ok(Handed { records: records.collect(), pause })
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

impl Attached {
    /// Takes the records up to this time out of the ring, and one more, if there is one.
    fn take_records_until(&mut self, end: BootNs) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let Some(ebpf) = &mut self.ebpf else { return records };
        let Some(Ok(mut ring)) = ebpf.map_mut("EVENTS").map(RingBuf::try_from) else { return records };
        while let Some(record) = ring.next() {
            let is_last = boot_of(&record) > end;
            records.push(record.to_vec());
            if is_last {
                break;
            }
        }
        records
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
