//! Hands out the maps of the capability ledger.

use aya::maps::{HashMap, PerCpuArray};

use super::Attached;
use crate::capabilities::{CapMaps, CapUncountedMap};

impl Attached {
    /// Takes the capability ledger: its rows, and the counters of what is not in them. The next call gives `None`.
    pub fn take_cap_ledger(&mut self) -> Option<CapMaps> {
        let ledger = HashMap::try_from(self.take_map("CAP_LEDGER")?).ok()?;
        let mut counters =
            |name| -> Option<CapUncountedMap> { PerCpuArray::try_from(self.take_map(name)?).ok() };
        Some(CapMaps {
            ledger,
            uncounted: counters("CAP_UNCOUNTED")?,
            borrowed: counters("CAP_BORROWED")?,
            unknown: counters("TASKS_UNKNOWN")?,
        })
    }
}
