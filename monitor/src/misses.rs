//! Runs of probes that the kernel skipped, because the same probe was under way on that CPU.
//!
//! The kernel keeps a program from entering itself, per program and CPU. Where programs can be preempted (from 5.12
//! on with `CONFIG_PREEMPTION` in force: `__bpf_prog_enter_recur`; for BTF tracepoints from 7.0 on), another task on
//! that CPU meets the same guard: its run is skipped, and the kernel counts it (`bpf_prog_inc_misses_counter`). What
//! such a run would have seen is not in the ledger, so the count is shown beside it.

use std::sync::Arc;

use crate::bpf_files::ProgramFile;
use crate::metrics::{MetricSpec, PROBE_MISSED, Samples, Source};

/// The attached programs, by name.
#[derive(Debug)]
pub struct Misses(Vec<(String, ProgramFile)>);

impl Misses {
    /// Watches these programs.
    pub fn new(programs: Vec<(String, ProgramFile)>) -> Self {
        Misses(programs)
    }

    /// Skipped runs of each program since it was loaded. Kernels before 5.12 skip none and count none.
    pub fn read(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, file)| (name.as_str(), file.recursion_misses().unwrap_or(0)))
    }
}

/// Lets the daemon share them between the scrape and the log.
impl Source for Arc<Misses> {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![&PROBE_MISSED]
    }

    fn sample(&self, out: &mut Samples) {
        for (probe, missed) in self.read() {
            out.push(&PROBE_MISSED, &[probe], missed);
        }
    }
}
