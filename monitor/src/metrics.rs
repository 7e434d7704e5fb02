//! Metrics: every name in one table, every series created at the start, plain handles on the hot path.
//!
//! Labels come from closed sets: calls, rules, reasons, outputs, probes; never a path, a comm, a pid or a
//! container. What others count already (the kernel side, the sinks) is read when Prometheus asks.

mod attempts;
mod late;
mod names;
mod probes;
mod sources;

pub use attempts::Attempts;
pub use late::{Late, LateSource};

pub(crate) use names::{BPF_MAP_MEMORY, BPF_PROGRAM_MEMORY, MAP_CAPACITY, MAP_ENTRIES, RING_USED};
pub(crate) use names::{
    CAPABILITY_BORROWED, CAPABILITY_CHECKS, CAPABILITY_CONTAINERS, CAPABILITY_FORGOTTEN, CAPABILITY_LEDGER,
    CAPABILITY_READ_ERRORS, CAPABILITY_ROWS, CAPABILITY_ROWS_CAPACITY, CAPABILITY_STATE_ERRORS,
    CAPABILITY_TASKS_UNKNOWN, CAPABILITY_UNATTRIBUTED, CAPABILITY_UNCOUNTED, CAPABILITY_UNUSED,
    CAPABILITY_UNUSED_DROPPED, STATE_UNUSABLE, SYSCALL_SETS, SYSCALLS_UNNOTED,
};
pub(crate) use names::{CONFINED, CONFINEMENT_REFUSED};
pub use names::{Kind, METRICS, MetricSpec};
pub(crate) use names::{PROBE_COST_MEASURED, PROBE_RUN_SECONDS, PROBE_RUNS};
pub(crate) use names::{PROBE_MISSED, RECORD_DROPPED, RECORDED_BYTES, RECORDED_EVENTS};
pub use probes::ProbeGauges;
pub use sources::{KernelCounters, KernelCounts, KernelSnapshot, Samples, Source};

use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::attach::AttachMode;
use crate::control::Outcome;
use crate::enrich::metadata::Miss;
use crate::hierarchy::Hierarchy;
use crate::rules::{Priority, Rule};
use crate::sink::{Sink, SinkStats};
use names::*;

/// What enrichment may end in, as the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrichment {
    /// Process and container are known.
    Complete,
    /// The process was not in the table.
    ProcessUnknown,
    /// The cgroup could not be told to be a container or the host.
    ContainerUnknown,
}

impl Enrichment {
    /// Every result, in the order of their numbers.
    pub const ALL: [Enrichment; 3] =
        [Enrichment::Complete, Enrichment::ProcessUnknown, Enrichment::ContainerUnknown];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Enrichment::Complete => "complete",
            Enrichment::ProcessUnknown => "process_unknown",
            Enrichment::ContainerUnknown => "container_unknown",
        }
    }
}

/// How an event's wait for its container's name ended, as the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The name came.
    Named,
    /// The answer came: there is no name.
    Missing,
    /// It had waited as long as alerts may.
    TimedOut,
    /// Others needed its room.
    NoRoom,
    /// The daemon ended.
    Shutdown,
}

impl WaitEnd {
    /// Every end, in the order of their numbers.
    pub const ALL: [WaitEnd; 5] =
        [WaitEnd::Named, WaitEnd::Missing, WaitEnd::TimedOut, WaitEnd::NoRoom, WaitEnd::Shutdown];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            WaitEnd::Named => "named",
            WaitEnd::Missing => "missing",
            WaitEnd::TimedOut => "timed_out",
            WaitEnd::NoRoom => "no_room",
            WaitEnd::Shutdown => "shutdown",
        }
    }
}

/// Why a call led to no alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// No rule matched.
    NoRule,
    /// A refused open whose path led to nothing that is watched.
    NotWatched,
    /// A refused open whose path was not looked up, because there were too many in that second.
    NotLookedUp,
    /// Only rules below the least priority that was asked for matched.
    BelowPriority,
    /// It was counted for rules with a threshold that it did not reach.
    BelowThreshold,
}

impl Discard {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Discard; 5] = [
        Discard::NoRule,
        Discard::NotWatched,
        Discard::NotLookedUp,
        Discard::BelowPriority,
        Discard::BelowThreshold,
    ];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::NoRule => "no_rule",
            Discard::NotWatched => "not_watched",
            Discard::NotLookedUp => "not_looked_up",
            Discard::BelowPriority => "below_min_priority",
            Discard::BelowThreshold => "below_threshold",
        }
    }
}

/// What a reload of rules came to, as the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// New rules are in force.
    Ok,
    /// The files are wrong; the rules in force stay.
    Failed,
    /// The files are as they were.
    Unchanged,
}

impl ReloadOutcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [ReloadOutcome; 3] = [ReloadOutcome::Ok, ReloadOutcome::Failed, ReloadOutcome::Unchanged];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            ReloadOutcome::Ok => "ok",
            ReloadOutcome::Failed => "failed",
            ReloadOutcome::Unchanged => "unchanged",
        }
    }
}

/// The closed sets of labels that are known when the daemon starts.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    /// Kinds of records that the reader receives, such as the calls and `exec`, `fork`, `exit`.
    pub kinds: &'a [&'a str],
    /// Reasons for which a record may not decode.
    pub decode_errors: &'a [&'a str],
    /// Causes of blindness.
    pub causes: &'a [&'a str],
    /// Names of the bounded tables, such as `process`.
    pub tables: &'a [&'a str],
}

/// The daemon's metrics. Cheap to hand out: each handle is an atomic that is shared with the registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    alerts: IntCounterVec,
    suppressed: IntCounterVec,
    rules_loaded: IntGaugeVec,
    attach_mode: IntGaugeVec,
    hierarchy: IntGaugeVec,
    /// Events read from the ring, by position in [`Labels::kinds`].
    pub events_received: Vec<IntCounter>,
    /// Calls that led to no alert, by [`Discard`]'s number.
    pub events_discarded: Vec<IntCounter>,
    /// Records that did not decode, by position in [`Labels::decode_errors`].
    pub decode_errors: Vec<IntCounter>,
    /// Results of enrichment, by [`Enrichment`]'s number.
    pub enrichment: Vec<IntCounter>,
    /// Events that waited for a name, by [`WaitEnd`]'s number.
    pub events_waited: Vec<IntCounter>,
    /// Looks at a runtime's files: those that gave a name, then by position in [`misses`].
    metadata_reads: Vec<IntCounter>,
    /// Questions for a name that found the queue full.
    pub metadata_questions_dropped: IntCounter,
    rules_files: IntGaugeVec,
    probes: probes::ProbeSeries,
    /// Attempts that reached the rules.
    pub attempts: Attempts,
    /// 1 while something is not watched that should be.
    pub coverage_degraded: IntGauge,
    /// The slowest canary of the last whole round.
    pub canary_round_trip: Gauge,
    /// 1 while something is seen no longer.
    pub blind: IntGauge,
    /// Blindness found, by position in [`Labels::causes`].
    pub blindness: Vec<IntCounter>,
    /// Number of the rules in force; internal alerts carry it.
    pub rules_generation: IntGauge,
    /// When rules were last read, in seconds since 1970.
    pub rules_last_reload: IntGauge,
    /// 1 if the rules in force are those of the files, as last read.
    pub reload_successful: IntGauge,
    /// When that was last so.
    pub reload_success: IntGauge,
    /// Reloads by [`ReloadOutcome`]'s number.
    pub rules_reloads: Vec<IntCounter>,
    /// Connections to the control socket, by the number of [`crate::control::Outcome`].
    pub control_requests: Vec<IntCounter>,
    /// Entries in use, by position in [`Labels::tables`].
    pub table_entries: Vec<IntGauge>,
    /// Entries there is room for, by position in [`Labels::tables`].
    pub table_capacity: Vec<IntGauge>,
    /// Entries given up for want of room, by position in [`Labels::tables`].
    pub table_evictions: Vec<IntCounter>,
}

impl Metrics {
    /// Creates every series, at zero.
    ///
    /// # Errors
    /// A label set names the same value twice, or the table of names is wrong.
    pub fn new(labels: &Labels<'_>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |spec: &MetricSpec, values: &[&str]| -> prometheus::Result<Vec<IntCounter>> {
            let vec = counter_vec(&registry, spec)?;
            values.iter().map(|value| vec.get_metric_with_label_values(&[value])).collect()
        };
        let gauges = |spec: &MetricSpec, values: &[&str]| -> prometheus::Result<Vec<IntGauge>> {
            let vec = gauge_vec(&registry, spec)?;
            values.iter().map(|value| vec.get_metric_with_label_values(&[value])).collect()
        };
        let gauge = |spec: &MetricSpec| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::with_opts(opts(spec))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let coverage_degraded = gauge(&COVERAGE_DEGRADED)?;
        let blind = gauge(&BLIND)?;
        let canary_round_trip = Gauge::with_opts(opts(&CANARY_ROUND_TRIP))?;
        registry.register(Box::new(canary_round_trip.clone()))?;
        let metadata_questions_dropped = IntCounter::with_opts(opts(&METADATA_QUESTIONS_DROPPED))?;
        registry.register(Box::new(metadata_questions_dropped.clone()))?;
        let read_results: Vec<&str> = std::iter::once("ok").chain(misses().map(Miss::label)).collect();
        let build = [env!("CARGO_PKG_VERSION"), env!("RINGFENCE_REVISION")];
        gauge_vec(&registry, &BUILD_INFO)?.get_metric_with_label_values(&build)?.set(1);
        let attach_mode = gauge_vec(&registry, &ATTACH_MODE)?;
        for mode in AttachMode::ALL {
            attach_mode.get_metric_with_label_values(&[mode.name()])?;
        }
        let hierarchy = gauge_vec(&registry, &HIERARCHY)?;
        for name in Hierarchy::names().chain([NO_HIERARCHY]) {
            hierarchy.get_metric_with_label_values(&[name])?;
        }
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            alerts: counter_vec(&registry, &ALERTS)?,
            suppressed: counter_vec(&registry, &SUPPRESSED)?,
            rules_loaded: gauge_vec(&registry, &RULES_LOADED)?,
            attach_mode,
            hierarchy,
            events_received: counters(&EVENTS_RECEIVED, labels.kinds)?,
            events_discarded: counters(&EVENTS_DISCARDED, &Discard::ALL.map(Discard::name))?,
            decode_errors: counters(&DECODE_ERRORS, labels.decode_errors)?,
            enrichment: counters(&ENRICHMENT, &Enrichment::ALL.map(Enrichment::name))?,
            events_waited: counters(&EVENTS_WAITED, &WaitEnd::ALL.map(WaitEnd::name))?,
            metadata_reads: counters(&METADATA_READS, &read_results)?,
            metadata_questions_dropped,
            rules_files: gauge_vec(&registry, &RULES_FILES)?,
            probes: probes::ProbeSeries::new(&registry)?,
            attempts: Attempts::new(&counter_vec(&registry, &ATTEMPTS)?)?,
            coverage_degraded,
            canary_round_trip,
            blind,
            blindness: counters(&BLINDNESS, labels.causes)?,
            rules_generation: gauge(&RULES_GENERATION)?,
            rules_last_reload: gauge(&RULES_LAST_RELOAD)?,
            reload_successful: gauge(&CONFIG_LAST_RELOAD_SUCCESSFUL)?,
            reload_success: gauge(&CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP)?,
            rules_reloads: counters(&RULES_RELOADS, &ReloadOutcome::ALL.map(ReloadOutcome::name))?,
            control_requests: counters(&CONTROL_REQUESTS, &Outcome::ALL.map(Outcome::name))?,
            table_entries: gauges(&TABLE_ENTRIES, labels.tables)?,
            table_capacity: gauges(&TABLE_CAPACITY, labels.tables)?,
            table_evictions: counters(&TABLE_EVICTIONS, labels.tables)?,
            registry,
        })
    }

    /// Creates the series of the rules' alerts; the counters come back in the order of the rules.
    ///
    /// # Errors
    /// Only if the table of names is wrong.
    pub fn rule_alerts(&self, rules: &[Rule]) -> prometheus::Result<Vec<IntCounter>> {
        rules.iter().map(|rule| self.alerts.get_metric_with_label_values(&alert_labels(rule))).collect()
    }

    /// Creates the series of the alerts that are held together, in the order of the rules.
    ///
    /// # Errors
    /// Only if the table of names is wrong.
    pub fn rule_suppressed(&self, rules: &[Rule]) -> prometheus::Result<Vec<IntCounter>> {
        let counter =
            |rule: &Rule| self.suppressed.get_metric_with_label_values(&[rule.id.as_str(), GROUPED]);
        rules.iter().map(counter).collect()
    }

    /// Removes that series, if no rule of the id is in force any more.
    pub fn forget_suppressed(&self, id: &str) {
        let _ = self.suppressed.remove_label_values(&[id, GROUPED]);
    }

    /// Removes the series of a rule that is in force no longer. One of the same id and priority would begin at zero.
    pub fn forget_rule(&self, id: &str, priority: Priority) {
        // It may be gone already.
        let _ = self.alerts.remove_label_values(&[id, priority.as_str()]);
    }

    /// Makes the series of these probes, each with its name, its hook and whether it is attached.
    ///
    /// # Errors
    /// Only if the table of names is wrong.
    pub fn add_probes<'p>(
        &self,
        probes: impl Iterator<Item = (&'p str, &'p str, bool)>,
    ) -> prometheus::Result<()> {
        self.probes.add(probes)
    }

    /// The gauges of the probes, in the order in which they were added; none before.
    pub fn probes(&self) -> &[ProbeGauges] {
        self.probes.all()
    }

    /// The rule files were read and found right, at this Unix time in seconds.
    pub fn reload_succeeded(&self, at: i64) {
        self.reload_successful.set(1);
        self.reload_success.set(at);
    }

    /// States which rule files are in force, by the digest of [`crate::rules::Sources::sha256`].
    pub fn set_rules_files(&self, sha256: &str) {
        self.rules_files.reset();
        self.rules_files.with_label_values(&[sha256]).set(1);
    }

    /// States how many rules are in force.
    pub fn set_rules_loaded(&self, rules: &[Rule]) {
        for maturity in MATURITIES {
            let count = rules
                .iter()
                .filter(|rule| rule.enabled && rule.maturity.as_deref().unwrap_or(UNSTATED) == *maturity)
                .count();
            self.rules_loaded.with_label_values(&[maturity]).set(count as i64);
        }
    }

    /// The counter of alerts with an id and a priority that no rule file has.
    ///
    /// # Errors
    /// Only if the table of names is wrong.
    pub fn internal_alerts(&self, id: &str, priority: &str) -> prometheus::Result<IntCounter> {
        self.alerts.get_metric_with_label_values(&[id, priority])
    }

    /// Counts a look at a runtime's files, and why it gave no name if it did not.
    pub fn count_metadata_read(&self, miss: Option<Miss>) {
        let place = match miss {
            None => Some(0),
            Some(miss) => misses().position(|known| known == miss).map(|place| place + 1),
        };
        if let Some(counter) = place.and_then(|place| self.metadata_reads.get(place)) {
            counter.inc();
        }
    }

    /// States the attach mode in force.
    pub fn set_attach_mode(&self, mode: AttachMode) {
        for known in AttachMode::ALL {
            self.attach_mode.with_label_values(&[known.name()]).set((known == mode).into());
        }
    }

    /// States the cgroup hierarchy in force, by [`crate::hierarchy::Hierarchy::name`].
    pub fn set_hierarchy(&self, name: Option<&'static str>) {
        let name = name.unwrap_or(NO_HIERARCHY);
        for known in Hierarchy::names().chain([NO_HIERARCHY]) {
            self.hierarchy.with_label_values(&[known]).set((known == name).into());
        }
    }

    /// Adds counters that are kept elsewhere and read at every scrape.
    ///
    /// # Errors
    /// One of the source's metrics has a source already.
    pub fn add_source(&self, source: impl Source + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(sources::ScrapeCollector::new(source)?))
    }

    /// Adds the counters of the kernel side.
    ///
    /// # Errors
    /// They were added before.
    pub fn add_kernel(&self, kernel: Arc<dyn KernelCounters>) -> prometheus::Result<()> {
        self.add_source(sources::KernelSource::new(kernel))
    }

    /// Adds the counters of the sinks, all at once.
    ///
    /// # Errors
    /// They were added before.
    pub fn add_sinks<'s>(&self, sinks: impl IntoIterator<Item = &'s Sink>) -> prometheus::Result<()> {
        let sinks: Vec<(String, Arc<SinkStats>)> =
            sinks.into_iter().map(|sink| (sink.name().to_owned(), Arc::clone(sink.stats()))).collect();
        self.add_source(sources::SinkSource(sinks))
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A family is inconsistent, which the tests rule out.
    pub fn encode(&self) -> prometheus::Result<String> {
        let mut text = String::with_capacity(16 << 10);
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The one reason for which an alert has no line of its own.
const GROUPED: &str = "grouped";

/// Why a look at a runtime's files may give no name. At those of a container inside another nobody looks.
fn misses() -> impl Iterator<Item = Miss> {
    Miss::ALL.into_iter().filter(|miss| *miss != Miss::Nested)
}

/// Stands for a machine on which no hierarchy is mounted.
const NO_HIERARCHY: &str = "none";

/// Values of the labels of `alerts_total`.
fn alert_labels(rule: &Rule) -> [&str; 2] {
    [rule.id.as_str(), rule.priority.as_str()]
}

fn opts(spec: &MetricSpec) -> Opts {
    Opts::new(spec.name, spec.help)
}

fn counter_vec(registry: &Registry, spec: &MetricSpec) -> prometheus::Result<IntCounterVec> {
    let vec = IntCounterVec::new(opts(spec), spec.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn gauge_vec(registry: &Registry, spec: &MetricSpec) -> prometheus::Result<IntGaugeVec> {
    let vec = IntGaugeVec::new(opts(spec), spec.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod tests;
