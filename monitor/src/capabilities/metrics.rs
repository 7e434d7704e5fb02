//! What the metrics show of the ledger, as of the last read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use monitor_common::capability::{CAP_LEDGER_ENTRIES, cap_slot};
use monitor_common::caps::Cap;

use super::source::Overlooked;
use super::table::{RESULTS, Shortage};
use crate::metrics::{
    CAPABILITY_BORROWED, CAPABILITY_CHECKS, CAPABILITY_CONTAINERS, CAPABILITY_FORGOTTEN, CAPABILITY_LEDGER,
    CAPABILITY_READ_ERRORS, CAPABILITY_ROWS, CAPABILITY_ROWS_CAPACITY, CAPABILITY_STATE_ERRORS,
    CAPABILITY_TASKS_UNKNOWN, CAPABILITY_UNATTRIBUTED, CAPABILITY_UNCOUNTED, CAPABILITY_UNUSED,
    CAPABILITY_UNUSED_DROPPED, MetricSpec, STATE_UNUSABLE, SYSCALL_SETS, SYSCALLS_UNNOTED, Samples, Source,
};

/// Stands for capabilities that a later kernel may have.
const OTHER: &str = "other";

/// What the keeper last published.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// There is a ledger.
    pub kept: bool,
    pub totals: Vec<[u64; RESULTS.len()]>,
    pub uncounted: Vec<u64>,
    pub overlooked: Overlooked,
    pub rows: usize,
    pub running: u64,
    pub ended: u64,
    pub shortage: Shortage,
    pub read_errors: u64,
    pub state_errors: u64,
    /// Container id, name and a capability that it was granted and never used.
    pub unused: Vec<(String, String, &'static str)>,
    pub unused_dropped: u64,
    /// Cgroups whose system calls are noted, and calls that could not be.
    pub sets: (u64, u64),
}

/// The metrics' view of the ledger. Shared by the keeper, which publishes, and the scrape.
#[derive(Clone, Debug, Default)]
pub struct CapabilitySource {
    published: Arc<Mutex<Published>>,
    state_unusable: Arc<AtomicBool>,
}

impl CapabilitySource {
    pub(super) fn publish(&self, published: Published) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }

    /// The state directory could not be opened, and is not asked again.
    pub fn state_is_unusable(&self) {
        self.state_unusable.store(true, Ordering::Relaxed);
    }
}

impl Source for CapabilitySource {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![
            &CAPABILITY_LEDGER,
            &CAPABILITY_CHECKS,
            &CAPABILITY_UNCOUNTED,
            &CAPABILITY_BORROWED,
            &CAPABILITY_TASKS_UNKNOWN,
            &CAPABILITY_ROWS,
            &CAPABILITY_ROWS_CAPACITY,
            &CAPABILITY_CONTAINERS,
            &CAPABILITY_FORGOTTEN,
            &CAPABILITY_UNATTRIBUTED,
            &CAPABILITY_READ_ERRORS,
            &CAPABILITY_STATE_ERRORS,
            &STATE_UNUSABLE,
            &CAPABILITY_UNUSED,
            &CAPABILITY_UNUSED_DROPPED,
            &SYSCALL_SETS,
            &SYSCALLS_UNNOTED,
        ]
    }

    fn sample(&self, out: &mut Samples) {
        let state_unusable = self.state_unusable.load(Ordering::Relaxed);
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let total = |cap: usize, result: usize| {
            published.totals.get(cap).and_then(|results| results.get(result)).copied().unwrap_or(0)
        };
        let uncounted = |cap: usize, denied: bool| {
            let slot = cap_slot(cap as u32, denied) as usize;
            published.uncounted.get(slot).copied().unwrap_or(0)
        };
        let known = Cap::ALL.len();
        let sum = |of: &dyn Fn(usize) -> u64| (known..64).map(of).fold(0, u64::saturating_add);
        let names = Cap::ALL.iter().map(|cap| cap.name()).enumerate().chain([(known, OTHER)]);
        for (cap, name) in names {
            for (number, result) in RESULTS.iter().enumerate() {
                let value = if cap < known { total(cap, number) } else { sum(&|cap| total(cap, number)) };
                out.push(&CAPABILITY_CHECKS, &[name, result], value);
            }
            for (denied, result) in [(false, "allowed"), (true, "denied")] {
                let value =
                    if cap < known { uncounted(cap, denied) } else { sum(&|cap| uncounted(cap, denied)) };
                out.push(&CAPABILITY_UNCOUNTED, &[name, result], value);
            }
            let borrowed = |cap: usize| published.overlooked.borrowed.get(cap).copied().unwrap_or(0);
            let value = if cap < known { borrowed(cap) } else { sum(&borrowed) };
            out.push(&CAPABILITY_BORROWED, &[name], value);
        }
        out.push(&CAPABILITY_LEDGER, &[], published.kept.into());
        out.push(&CAPABILITY_TASKS_UNKNOWN, &[], published.overlooked.unknown);
        out.push(&CAPABILITY_ROWS, &[], published.rows as u64);
        out.push(&CAPABILITY_ROWS_CAPACITY, &[], CAP_LEDGER_ENTRIES.into());
        out.push(&CAPABILITY_CONTAINERS, &["running"], published.running);
        out.push(&CAPABILITY_CONTAINERS, &["ended"], published.ended);
        out.push(&CAPABILITY_FORGOTTEN, &["no_room"], published.shortage.refused);
        out.push(&CAPABILITY_FORGOTTEN, &["name_too_long"], published.shortage.overlong);
        out.push(&CAPABILITY_FORGOTTEN, &["oldest"], published.shortage.forgotten);
        out.push(&CAPABILITY_UNATTRIBUTED, &[], published.shortage.unattributed);
        out.push(&CAPABILITY_READ_ERRORS, &[], published.read_errors);
        let state_errors = published.state_errors.saturating_add(state_unusable.into());
        out.push(&CAPABILITY_STATE_ERRORS, &[], state_errors);
        out.push(&STATE_UNUSABLE, &[], state_unusable.into());
        for (id, name, capability) in &published.unused {
            out.push(&CAPABILITY_UNUSED, &[id, name, capability], 1);
        }
        out.push(&CAPABILITY_UNUSED_DROPPED, &[], published.unused_dropped);
        out.push(&SYSCALL_SETS, &[], published.sets.0);
        out.push(&SYSCALLS_UNNOTED, &[], published.sets.1);
    }
}
