//! Hands out the maps of the capability ledger.

use aya::maps::{HashMap, PerCpuArray};

use super::{Attached, Begun, Pinned};
use crate::capabilities::{CapMaps, CapUncountedMap, Marks};

impl Attached {
    /// Takes the capability ledger: its rows, and the counters of what is not in them. The next call gives `None`.
    pub fn take_cap_ledger(&mut self) -> Option<CapMaps> {
        let adopted = matches!(self.pinned.as_ref().map(Pinned::begun), Some(Begun::Adopted(_)));
        let marks = self.take_map("CAP_MARKS").and_then(|map| HashMap::try_from(map).ok());
        let ledger = HashMap::try_from(self.take_map("CAP_LEDGER")?).ok()?;
        let mut counters =
            |name| -> Option<CapUncountedMap> { PerCpuArray::try_from(self.take_map(name)?).ok() };
        Some(CapMaps {
            ledger,
            uncounted: counters("CAP_UNCOUNTED")?,
            borrowed: counters("CAP_BORROWED")?,
            unknown: counters("TASKS_UNKNOWN")?,
            marks: marks.map(|map| Marks::new(map, adopted)),
        })
    }
}
