//! What the kernel counts of our programs: runs that it skipped, because the same probe was under way on that CPU, and,
//! if somebody asks for it, how often they ran and what that took.
//!
//! The kernel keeps a program from entering itself, per program and CPU. Where programs can be preempted (from 5.12
//! on with `CONFIG_PREEMPTION` in force: `__bpf_prog_enter_recur`; for BTF tracepoints from 7.0 on), another task on
//! that CPU meets the same guard: its run is skipped, and the kernel counts it (`bpf_prog_inc_misses_counter`). What
//! such a run would have seen is not in the ledger, so the count is shown beside it.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bpf_files::{ProgramCounts, ProgramFile};
use crate::metrics::{
    BPF_PROGRAM_MEMORY, MetricSpec, PROBE_COST_MEASURED, PROBE_MISSED, PROBE_RUN_SECONDS, PROBE_RUNS,
    Samples, Source,
};

/// Says whether the administrator has the kernel measure all programs.
const STATS_ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The programs of all probes, by name.
#[derive(Debug)]
pub struct Misses {
    /// Without a descriptor where the probe is not attached.
    programs: Vec<(String, Option<ProgramFile>)>,
    /// As long as it is open, the kernel measures programs.
    stats: Option<OwnedFd>,
}

impl Misses {
    /// Watches these programs.
    pub fn new(programs: Vec<(String, Option<ProgramFile>)>) -> Self {
        Misses { programs, stats: None }
    }

    /// Has the kernel measure what programs cost: all of the machine, as long as this lives. Where it refuses
    /// (`BPF_ENABLE_STATS`, since 5.8, wants CAP_SYS_ADMIN) that is logged.
    #[must_use]
    pub fn measured(mut self) -> Self {
        match aya::sys::enable_stats(aya::sys::Stats::RunTime) {
            Ok(stats) => {
                tracing::info!(
                    "probe_cost: the kernel measures each run of each BPF program of this machine"
                );
                self.stats = Some(stats);
            }
            Err(error) => {
                tracing::warn!(%error, "probe_cost: the kernel does not measure what probes cost");
            }
        }
        self
    }

    /// Skipped runs of each program since it was loaded. Kernels before 5.12 skip none and count none.
    pub fn read(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts().map(|(name, counts)| (name, counts.recursion_misses))
    }

    fn counts(&self) -> impl Iterator<Item = (&str, ProgramCounts)> {
        self.programs
            .iter()
            .map(|(name, file)| (name.as_str(), file.and_then(ProgramFile::counts).unwrap_or_default()))
    }

    fn is_measured(&self) -> bool {
        self.stats.is_some() || fs::read_to_string(STATS_ENABLED).is_ok_and(|text| text.trim() == "1")
    }
}

/// Lets the daemon share them between the scrape and the log.
impl Source for Arc<Misses> {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![&PROBE_MISSED, &PROBE_RUNS, &PROBE_RUN_SECONDS, &PROBE_COST_MEASURED, &BPF_PROGRAM_MEMORY]
    }

    fn sample(&self, out: &mut Samples) {
        let mut memory = 0;
        for (probe, counts) in self.counts() {
            out.push(&PROBE_MISSED, &[probe], counts.recursion_misses);
            out.push(&PROBE_RUNS, &[probe], counts.runs);
            out.push_float(&PROBE_RUN_SECONDS, &[probe], counts.run_ns as f64 / 1e9);
            memory += counts.memory;
        }
        out.push(&PROBE_COST_MEASURED, &[], self.is_measured().into());
        out.push(&BPF_PROGRAM_MEMORY, &[], memory);
    }
}
