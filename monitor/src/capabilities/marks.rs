//! How far the kernel's rows were read, left in a map beside them for the next process: rows go on counting while nobody
//! reads them.

use aya::maps::{HashMap, MapData, MapError};
use monitor_common::capability::{CAP_LEDGER_ENTRIES, CAP_SLOTS, CapKey};

use super::source::{KernelMaps, RawKey, Source as _, SourceError, failed, key_of, raw_of, removed};

/// The map: for each row how much of it was read, and how much of that was placed.
pub type CapMarksMap = HashMap<MapData, [u64; 2], [u64; 2]>;
/// The map's bound: all rows, and what is not of a row.
pub const CAP_MARKS: u32 = CAP_LEDGER_ENTRIES + 2 * CAP_SLOTS + 2;

/// No cgroup has this id; what stands there is not of a row.
const NO_ROW: u64 = u64::MAX;
/// Behind it: the process before wrote all of it.
const WHOLE: RawKey = [NO_ROW, u64::MAX];
/// Runs of the probe that the kernel skipped.
const SKIPPED: RawKey = [NO_ROW, 1 << 32];

/// How far a row was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The row.
    pub key: CapKey,
    /// Its count when it was last read.
    pub seen: u64,
    /// How much of that went to whom it belongs.
    pub placed: u64,
}

/// The map, and whether an earlier process filled it.
pub struct Marks {
    pub(super) map: CapMarksMap,
    pub(super) adopted: bool,
}

impl Marks {
    /// Takes the map. `adopted`: so were the rows.
    pub fn new(map: CapMarksMap, adopted: bool) -> Self {
        Marks { map, adopted }
    }

    fn put(&mut self, key: RawKey, value: [u64; 2]) -> Result<(), SourceError> {
        self.map.insert(key, value, 0).map_err(failed("changed"))
    }

    /// Everything that is in it; then it is empty, so that nobody takes it for true later.
    fn take(&mut self) -> Result<Vec<(RawKey, [u64; 2])>, SourceError> {
        let mut all = Vec::new();
        for entry in self.map.iter().take(2 * CAP_MARKS as usize) {
            match entry {
                Ok(entry) => all.push(entry),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        // The sign that it is whole goes first.
        all.sort_by_key(|(key, _)| *key != WHOLE);
        all.iter().try_for_each(|(key, _)| removed(self.map.remove(key)))?;
        Ok(all)
    }
}

impl KernelMaps {
    /// What the process before read: the rows begin there, and the counters of what is not in them at their base. If that
    /// process did not come to write it, everything that is there now counts as read.
    pub(super) fn begin_at_marks(&mut self) -> Result<Vec<Mark>, SourceError> {
        let Some(marks) = self.marks.as_mut().filter(|marks| marks.adopted) else { return Ok(Vec::new()) };
        let all = marks.take()?;
        if all.first().is_none_or(|(key, _)| *key != WHOLE) {
            self.base.uncounted = self.uncounted()?;
            self.base.skipped = self.skipped();
            let rows = self.rows()?;
            let read = |(key, count): (CapKey, _)| {
                let count: monitor_common::capability::CapCount = count;
                Mark { key, seen: count.count, placed: count.count }
            };
            return Ok(rows.into_iter().map(read).collect());
        }
        let mut rows = Vec::new();
        self.base.uncounted = vec![0; 2 * CAP_SLOTS as usize];
        for (key, [seen, placed]) in all {
            match key {
                WHOLE => {}
                SKIPPED => self.base.skipped = seen,
                [NO_ROW, slot] => {
                    if let Some(base) = self.base.uncounted.get_mut(slot as usize) {
                        *base = seen;
                    }
                }
                _ => rows.push(Mark { key: key_of(key), seen, placed }),
            }
        }
        Ok(rows)
    }

    /// Leaves the same to the next process.
    pub(super) fn leave_marks_of(&mut self, rows: &[Mark]) -> Result<(), SourceError> {
        let (uncounted, skipped) = (self.told.uncounted.clone(), self.told.skipped);
        let Some(marks) = &mut self.marks else { return Ok(()) };
        for Mark { key, seen, placed } in rows {
            marks.put(raw_of(key), [*seen, *placed])?;
        }
        for (slot, count) in uncounted.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            marks.put([NO_ROW, slot as u64], [count, 0])?;
        }
        marks.put(SKIPPED, [skipped, 0])?;
        marks.put(WHOLE, [0, 0])
    }
}
