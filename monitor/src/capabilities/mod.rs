//! The capability ledger's side in the daemon: which capability checks each container made, and what it was granted.
//!
//! The programs count checks in rows of a kernel map (`monitor_common::capability`); no check makes a record. A thread
//! of its own, the [`Keeper`], reads the map every few seconds and when somebody asks, adds rows up by container, takes
//! rows of gone cgroups out of the map, and writes what must outlive the daemon to the state directory.
//!
//! ```text
//! kernel map ── Source ── Keeper ── Table ── State (files)
//!                           │  └─ what `caps` and the metrics show
//! pipeline ── Place ────────┘  (whose a cgroup is, what its programs were granted)
//! ```
//!
//! The path of events is not touched: the pipeline keeps [`Granted`] for itself, and hands a copy over when the keeper
//! asks as anybody does at the control socket.
//!
//! Files with capabilities are looked at by a thread of their own ([`FileLooker`]), for which no round waits for long.
//!
//! [`Table`] is what adds up, and knows neither clock nor kernel. Nothing is counted twice: of each row of the kernel's it
//! keeps how far it was read. Nothing is lost when a row is removed: that is done only when its cgroup has been gone for
//! [`GRACE_NS`], after the row was read in the same round. A row that appears again begins at 0 and adds up.

mod calls;
mod files;
mod granted;
mod info;
mod keeper;
mod look;
mod marks;
mod metrics;
mod names;
mod proc;
mod programs;
mod record;
mod run;
pub mod seccomp;
mod sets;
mod source;
mod state;
mod table;
mod thread;

pub use calls::{CallNames, Calls, CallsInfo};
pub use files::{Living, Looked, Looker, NoLooker, Wanted, Whose};
pub use granted::{Grant, Granted, Place, Sets};
pub use info::{CapInfo, CapsInfo, CapsListing, Count, GrantedInfo, LostInfo, Maker, Summary, select};
pub use keeper::{Keeper, KeeperParts, LAST as LAST_ROUND};
pub use look::FileLooker;
pub use marks::{CAP_MARKS, CapMarksMap, Mark, Marks};
pub use metrics::CapabilitySource;
pub use names::{call_name, cap_name, cap_names};
pub use proc::{Seen, read as processes};
pub use programs::{Begun, Programs, told};
pub use run::{Heard, Lost, Run, Tally, Who, is_delegated};
pub use sets::{KernelSets, SetSource};
pub use source::{
    CapLedgerMap, CapMaps, CapUncountedMap, KernelMaps, Overlooked, Source, SourceError, Tree, directories,
};
pub(crate) use state::make_directory;
pub use state::{State, StateError, stored};
pub use table::{GRACE_NS, MAX_RUNS, Now, Table};
pub use thread::{AskError, Capabilities};

#[cfg(test)]
pub(crate) mod tests;
