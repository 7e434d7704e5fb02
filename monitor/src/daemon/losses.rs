//! Tells of losses in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::capabilities::directories;
use crate::confine;
use crate::hierarchy::Hierarchy;
use crate::ledger::Ledger;
use crate::misses::Misses;
use crate::pins::Carried;

/// How often losses are looked for and logged.
const LOSS_PERIOD: Duration = Duration::from_secs(1);
/// How often the table of losses is looked at, whether it gets full.
const TIDY_PERIOD: Duration = Duration::from_secs(10);

/// Logs losses with the cgroups that they belong to, and skipped probes, once per period while there are new ones. What
/// was lost while no process ran is new to the next one.
pub(super) async fn report_losses(
    ledger: Arc<Ledger>,
    misses: Arc<Misses>,
    carried: Option<Arc<Carried>>,
    hierarchy: Option<Hierarchy>,
) {
    let root = hierarchy.map(|hierarchy| hierarchy.root);
    let mut suspects = HashSet::new();
    let mut tidied = Instant::now();
    let (mut before, mut skipped_before) = carried.as_ref().map_or((0, 0), |carried| carried.told());
    let mut refused_before = 0;
    let mut period = tokio::time::interval(LOSS_PERIOD);
    loop {
        period.tick().await;
        let skipped: u64 = misses.read().map(|(_, missed)| missed).sum();
        if skipped > skipped_before {
            tracing::error!(
                skipped = skipped - skipped_before,
                since_start = skipped,
                "the kernel skipped probes inside which another task was preempted: calls may be missing"
            );
            skipped_before = skipped;
        }
        refused_before = report_refused(refused_before);
        let Ok(counters) = ledger.counters() else { continue };
        let lost: u64 = counters.iter().map(|counter| counter.lost).sum();
        if lost > before {
            let mut worst = ledger.lost_by_cgroup();
            worst.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
            worst.truncate(5);
            let unattributed: u64 = counters.iter().map(|counter| counter.unattributed).sum();
            let by_cgroup: Vec<String> = worst
                .iter()
                .map(|(cgroup, kind, count)| format!("{kind} of cgroup {cgroup}: {count}"))
                .collect();
            tracing::error!(
                lost = lost - before,
                since_start = lost,
                most = by_cgroup.join(", "),
                unattributed,
                "the ring buffer was full: records are lost (a larger --ring-bytes helps against bursts)"
            );
            before = lost;
        }
        carried.iter().for_each(|carried| carried.tell(before, skipped_before));
        // What is removed has been told of.
        if let Some(root) = root.clone().filter(|_| tidied.elapsed() >= TIDY_PERIOD) {
            tidied = Instant::now();
            let ledger = Arc::clone(&ledger);
            let tidying = spawn_blocking(move || {
                ledger.tidy_lost(&mut suspects, || directories(&root));
                suspects
            });
            suspects = tidying.await.unwrap_or_default();
        }
    }
}

/// Logs what the filter on the daemon itself refused, if there is more of it than before; gives how much there is.
fn report_refused(before: u64) -> u64 {
    let calls = confine::refused();
    let total = calls.iter().map(|(_, count)| count).sum();
    if total > before {
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        tracing::error!(
            since_start = calls.join(", "),
            "Ringfence asked for system calls that its own filter refuses: a gap in its list (please report it), or somebody else's code in it"
        );
    }
    total
}
