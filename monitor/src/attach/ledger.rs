//! Hands out the maps of the capability ledger.

use aya::maps::{HashMap, PerCpuArray};

use super::Attached;
use crate::capabilities::{CapLedgerMap, CapUncountedMap};

impl Attached {
    /// Takes the capability ledger: its rows, and the counters of what found no room. The next call gives `None`.
    pub fn take_cap_ledger(&mut self) -> Option<(CapLedgerMap, CapUncountedMap)> {
        let rows = HashMap::try_from(self.ebpf.take_map("CAP_LEDGER")?).ok()?;
        Some((rows, PerCpuArray::try_from(self.ebpf.take_map("CAP_UNCOUNTED")?).ok()?))
    }
}
