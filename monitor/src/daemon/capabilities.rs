//! Starts the thread that keeps the capability ledger.

use std::sync::Arc;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::runtime::Handle;

use crate::attach::{Attached, Probe};
use crate::capabilities::{
    Capabilities, CapabilitySource, FileLooker, Keeper, KeeperParts, KernelMaps, KernelSets, LAST_ROUND,
    Looker, NoLooker, Now, SetSource, State, directories, processes,
};
use crate::config::Settings;
use crate::control::{Answer, Asker, Topic};
use crate::hierarchy::Hierarchy;
use crate::kernel_files;
use crate::misses::Misses;
use crate::wall_clock::BootOffset;

/// Part of the names of the probes that see checks. Without one of them there is no ledger.
const PROBE: &str = "cap_capable";
/// Parts of the names of all probes that count checks: [`PROBE`], and the one that counts what that may not see. Alone
/// it would count next to nothing.
const COUNTING: &[&str] = &[PROBE, "security_capset"];
/// Part of the name of the probe that notes system calls.
const SETS_PROBE: &str = "syscall_entered";
/// Part of the name of the probe that notes those that a filter refused.
const REFUSED_PROBE: &str = "syscall_refused";

/// Parts of the names of all probes that note system calls.
const NOTING: &[&str] = &[SETS_PROBE, REFUSED_PROBE];

/// Starts the ledger's thread. Where it cannot be, the daemon watches without and says so: what it reports does not rest
/// on the ledger.
pub(super) fn start_capabilities(
    attached: &mut Attached,
    settings: &Settings,
    hierarchy: Option<&Hierarchy>,
    asker: &Arc<Asker>,
    misses: &Arc<Misses>,
    metrics: &CapabilitySource,
) -> Option<Capabilities> {
    if !runs(&attached.probes, PROBE) {
        // A ledger of nothing would look like one of containers that need nothing.
        tracing::warn!("no capability ledger: capability checks cannot be seen here");
        return None;
    }
    let Some(maps) = attached.take_cap_ledger() else {
        tracing::error!("no capability ledger: its maps are missing from the object");
        return None;
    };
    let Some(boot) = kernel_files::whole_boot_id() else {
        tracing::error!("no capability ledger: the kernel does not tell the boot's id");
        return None;
    };
    let notes = settings.syscall_sets && runs(&attached.probes, SETS_PROBE);
    if settings.syscall_sets && !notes {
        // The same: empty sets would make profiles that allow nothing.
        tracing::warn!("no sets of system calls: where calls enter cannot be seen here");
    }
    let sets = notes.then(|| attached.take_syscall_sets()).flatten();
    // What replaced programs counted after they were read last is missing in every record of that time, by at least one run.
    let replaced = attached.pinned().map_or(0, |pinned| pinned.carried().replaced());
    let sets_misses = Arc::clone(misses);
    let sets_skipped = move || sum_of(sets_misses.read(), NOTING).saturating_add(replaced);
    let refusals = runs(&attached.probes, REFUSED_PROBE);
    let sets = sets.map(|maps| Box::new(KernelSets::new(maps, refusals, sets_skipped)) as Box<dyn SetSource>);
    let misses = Arc::clone(misses);
    let skipped = move || sum_of(misses.read(), COUNTING).saturating_add(replaced);
    let (asker, runtime) = (Arc::clone(asker), Handle::current());
    let places = move || match runtime.block_on(asker.ask(Topic::Capabilities)) {
        Ok(Answer::Capabilities(places)) => Ok(places),
        Ok(_) => Err("the pipeline answered something else".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let root = hierarchy.map(|hierarchy| hierarchy.root.clone());
    let hierarchy = hierarchy.cloned();
    let (state_dir, metrics) = (settings.state_dir.clone(), metrics.clone());
    let unused_series = settings.capability_unused_series as usize;
    let started = Capabilities::start(move || {
        let state = state_dir.path().and_then(|path| match State::open(path) {
            Ok(state) => Some(state),
            Err(error) => {
                metrics.state_is_unusable();
                tracing::error!(%error, "capability checks are not kept: a restart forgets them");
                None
            }
        });
        let looker: Box<dyn Looker> = match hierarchy.clone() {
            Some(hierarchy) => Box::new(FileLooker::new(hierarchy)),
            None => Box::new(NoLooker),
        };
        let seen = hierarchy.as_ref().map(processes).unwrap_or_default();
        Keeper::new(KeeperParts {
            source: Box::new(KernelMaps::new(maps, skipped)),
            places: Box::new(places),
            seen: seen.sets,
            seen_programs: seen.programs,
            looker,
            tree: Box::new(move || directories(root.as_deref()?)),
            clock: Box::new(|| (now(), BootOffset::now())),
            state,
            boot: Arc::from(boot),
            metrics,
            unused_series,
            last: LAST_ROUND,
        })
        .with_sets(sets)
    });
    match started {
        Ok(capabilities) => Some(capabilities),
        Err(error) => {
            tracing::error!(%error, "no capability ledger: its thread cannot be started");
            None
        }
    }
}

/// Whether a probe whose name has this part is attached.
fn runs(probes: &[Probe], part: &str) -> bool {
    probes.iter().any(|probe| probe.name.contains(part) && probe.missing.is_none())
}

/// The skipped runs of all probes whose names have one of these parts.
fn sum_of<'p>(misses: impl Iterator<Item = (&'p str, u64)>, parts: &[&str]) -> u64 {
    let counts = misses.filter(|(probe, _)| parts.iter().any(|part| probe.contains(part)));
    counts.fold(0, |sum, (_, skipped)| sum.saturating_add(skipped))
}

/// The kernel's clocks.
fn now() -> Now {
    let ns = |time: Timespec| {
        let ns = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
        u64::try_from(ns).unwrap_or(0)
    };
    Now { boot: ns(clock_gettime(ClockId::Boottime)), mono: ns(clock_gettime(ClockId::Monotonic)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_is_missing_notes_nothing() {
        let probe = |name: &str, missing: Option<&str>| Probe {
            name: name.to_owned(),
            hook: String::new(),
            missing: missing.map(str::to_owned),
            cost: "",
            program: None,
        };
        let probes = [probe("cap_capable", None), probe("syscall_entered", Some("the kernel refuses it"))];
        assert!(runs(&probes, PROBE) && !runs(&probes, SETS_PROBE));
        assert!(runs(&[probe("syscall_entered_raw", None)], SETS_PROBE) && !runs(&[], PROBE));
        let only_capset = [probe("cap_capable", Some("no such function")), probe("security_capset", None)];
        assert!(!runs(&only_capset, PROBE), "it sees one check of one call");
    }

    #[test]
    fn skipped_runs_of_every_probe_that_counts_checks_are_summed() {
        let misses =
            [("cap_capable", 2), ("security_capset", 3), ("on_x64_sys_capset", 5), ("syscall_entered", 7)];
        assert_eq!(sum_of(misses.into_iter(), COUNTING), 5);
        assert_eq!(sum_of([("cap_capable_perf", 2)].into_iter(), COUNTING), 2);
        let noting = [("syscall_entered", 7), ("syscall_refused", 11), ("cap_capable", 2)];
        assert_eq!(sum_of(noting.into_iter(), NOTING), 18);
        let noting = [("syscall_entered_perf", 7), ("syscall_refused_perf", 11)];
        assert_eq!(sum_of(noting.into_iter(), NOTING), 18);
    }
}
