//! What the daemon shows from its first moment: metrics and health are served before the probes are attached, which takes
//! seconds, with every series that does not depend on which probes there are.

use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{DaemonError, program_files};
use crate::attach::Attached;
use crate::bpf_maps::BpfMaps;
use crate::capabilities::CapabilitySource;
use crate::config::{CanaryInterval, Settings};
use crate::confine::Said;
use crate::generation::FIRST;
use crate::hierarchy::Hierarchy;
use crate::http::{self, Health};
use crate::ledger::{Ledger, loss_reasons, slot_names};
use crate::metrics::{KernelCounters, KernelSnapshot, Late, Metrics};
use crate::misses::Misses;
use crate::pipeline::{self, Output};
use crate::recording::{RecordSource, Recorder};
use crate::rules::RuleSet;
use crate::telling::unix_seconds;
use crate::{canary, reload};

/// Metrics, health and who serves them.
pub(super) struct Shown {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) capabilities: CapabilitySource,
    pub(super) confined: Said,
    pub(super) server: Option<JoinHandle<()>>,
    ledger: Arc<LateLedger>,
    maps: Late<BpfMaps>,
}

impl Shown {
    /// Makes all series but those of the probes, and serves them from here on; if an earlier process counted, once its counts
    /// are taken over.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub(super) fn start(
        settings: &Settings,
        rules: &RuleSet,
        outputs: &[Output],
        recorder: Option<&Recorder>,
        hierarchy: Option<&Hierarchy>,
        listener: Option<TcpListener>,
        is_anything_pinned: bool,
    ) -> Result<Self, DaemonError> {
        let metrics = Arc::new(pipeline::metrics()?);
        metrics.rule_alerts(rules.rules())?;
        metrics.rule_suppressed(rules.rules())?;
        metrics.set_rules_loaded(rules.rules());
        metrics.set_rules_files(&rules.sources().sha256());
        metrics.rules_generation.set(FIRST as i64);
        metrics.rules_last_reload.set(unix_seconds());
        metrics.reload_succeeded(unix_seconds());
        for (id, priority) in canary::INTERNAL_ALERTS.into_iter().chain(reload::INTERNAL_ALERTS) {
            metrics.internal_alerts(id, priority)?;
        }
        metrics.set_hierarchy(hierarchy.map(Hierarchy::name));
        metrics.add_sinks(outputs.iter().map(|output| &*output.sink))?;
        let recorded = recorder.map(|recorder| Arc::clone(recorder.stats()));
        metrics.add_source(RecordSource(recorded.unwrap_or_default()))?;
        let capabilities = CapabilitySource::default();
        metrics.add_source(capabilities.clone())?;
        let confined = Said::default();
        metrics.add_source(Arc::clone(&confined))?;
        let ledger = Arc::new(LateLedger::new(settings.ring_bytes));
        metrics.add_kernel(Arc::clone(&ledger) as Arc<_>)?;
        let maps = Late::default();
        metrics.add_source(maps.clone())?;
        let health = Health::new(Arc::clone(&metrics));
        health.set_taking_over(is_anything_pinned);
        let server = listener.map(|listener| tokio::spawn(http::serve(listener, Arc::clone(&health))));
        Ok(Shown { metrics, health, capabilities, confined, server, ledger, maps })
    }

    /// Adds what there is once the probes are attached; before any map but those of the ledger is taken.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub(super) fn attached(
        &self,
        attached: &Attached,
        ledger: &Arc<Ledger>,
        settings: &Settings,
    ) -> Result<Arc<Misses>, DaemonError> {
        let metrics = &self.metrics;
        metrics.set_attach_mode(attached.mode);
        let probes = attached.probes.iter();
        metrics.add_probes(
            probes.map(|probe| (probe.name.as_str(), probe.hook.as_str(), probe.missing.is_none())),
        )?;
        if settings.canary_interval == CanaryInterval::Off {
            self.nothing_is_tested();
        }
        self.ledger.set(Arc::clone(ledger));
        let misses = Misses::new(program_files(attached));
        let misses = Arc::new(if settings.probe_cost { misses.measured() } else { misses });
        metrics.add_source(Arc::clone(&misses))?;
        self.health.set_taking_over(false);
        Ok(misses)
    }

    /// No canary is sent, so no hook is tested.
    pub(super) fn nothing_is_tested(&self) {
        self.metrics.probes().iter().for_each(|probe| probe.canary_untested.set(1));
    }

    /// The maps of the programs, by descriptors of their own.
    pub(super) fn maps(&self, maps: BpfMaps) {
        self.maps.set(maps);
    }
}

/// The ledger, which there is once the probes are attached. Until then nothing was seen.
struct LateLedger {
    names: Vec<&'static str>,
    ring_bytes: u32,
    ledger: OnceLock<Arc<Ledger>>,
}

impl LateLedger {
    fn new(ring_bytes: u32) -> Self {
        LateLedger { names: slot_names().collect(), ring_bytes, ledger: OnceLock::new() }
    }

    fn set(&self, ledger: Arc<Ledger>) {
        // There is one for each run of the daemon.
        let _ = self.ledger.set(ledger);
    }
}

impl KernelCounters for LateLedger {
    fn calls(&self) -> &[&'static str] {
        &self.names
    }

    fn loss_reasons(&self) -> &[&'static str] {
        loss_reasons()
    }

    fn snapshot(&self) -> anyhow::Result<KernelSnapshot> {
        match self.ledger.get() {
            Some(ledger) => ledger.snapshot(),
            None => Ok(KernelSnapshot { ring_capacity_bytes: self.ring_bytes.into(), ..Default::default() }),
        }
    }
}
