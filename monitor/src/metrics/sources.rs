//! Counters that are kept elsewhere and read when Prometheus asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use crate::metrics::names::*;
use crate::sink::{DropReason, SinkStats};

/// Something whose counters are read at every scrape.
pub trait Source: Send + Sync {
    /// The metrics that it may sample, of [`METRICS`].
    fn specs(&self) -> Vec<&'static MetricSpec>;

    /// Adds all its samples. Called from the thread that serves the scrape.
    fn sample(&self, out: &mut Samples);
}

/// Samples of one scrape.
#[derive(Debug, Default)]
pub struct Samples(Vec<(&'static str, proto::Metric)>);

impl Samples {
    /// Adds a sample; `labels` are the values in the order of the table.
    pub fn push(&mut self, spec: &MetricSpec, labels: &[&str], value: u64) {
        self.push_float(spec, labels, value as f64);
    }

    /// The same for a value that is no whole number, such as seconds.
    pub fn push_float(&mut self, spec: &MetricSpec, labels: &[&str], value: f64) {
        debug_assert_eq!(spec.labels.len(), labels.len(), "{}", spec.name);
        let pairs = spec.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = proto::Metric::from_label(pairs.collect());
        match spec.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0.push((spec.name, metric));
    }
}

/// Lets the registry ask a [`Source`].
pub(super) struct ScrapeCollector<S> {
    source: S,
    specs: Vec<&'static MetricSpec>,
    descs: Vec<Desc>,
}

impl<S: Source> ScrapeCollector<S> {
    pub(super) fn new(source: S) -> prometheus::Result<Self> {
        let specs = source.specs();
        let descs = specs
            .iter()
            .map(|spec| {
                let labels = spec.labels.iter().map(|label| (*label).to_owned()).collect();
                Desc::new(spec.name.to_owned(), spec.help.to_owned(), labels, HashMap::new())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { source, specs, descs })
    }
}

impl<S: Source> Collector for ScrapeCollector<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples::default();
        self.source.sample(&mut samples);
        let mut families = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            let (mine, others) = samples.0.into_iter().partition(|(name, _)| *name == spec.name);
            samples = Samples(others);
            let mine: Vec<(_, proto::Metric)> = mine;
            if mine.is_empty() {
                continue;
            }
            let mut family = proto::MetricFamily::default();
            family.set_name(spec.name.to_owned());
            family.set_help(spec.help.to_owned());
            family.set_field_type(match spec.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
            });
            family.set_metric(mine.into_iter().map(|(_, metric)| metric).collect());
            families.push(family);
        }
        debug_assert!(samples.0.is_empty(), "a sample of a metric that its source did not announce");
        families
    }
}

/// What the probes counted for one kind of event since they were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Attempts seen.
    pub seen: u64,
    /// Events put into the ring.
    pub sent: u64,
    /// Events counted instead of sent.
    pub held_back: u64,
    /// Events lost, in the order of [`KernelCounters::loss_reasons`].
    pub lost: Vec<u64>,
    /// Lost events whose cgroup is not known: the table of losses by cgroup was full.
    pub unattributed: u64,
}

/// The kernel side's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSnapshot {
    /// In the order of [`KernelCounters::calls`].
    pub calls: Vec<KernelCounts>,
    /// Size of the ring in bytes.
    pub ring_capacity_bytes: u64,
}

/// The counters that the probes keep.
pub trait KernelCounters: Send + Sync {
    /// Values of the label `call`; always the same.
    fn calls(&self) -> &[&'static str];

    /// Values of the label `reason`; always the same.
    fn loss_reasons(&self) -> &[&'static str];

    /// Reads the counters, which only grow.
    ///
    /// # Errors
    /// The kernel refused; the last snapshot stands in.
    fn snapshot(&self) -> anyhow::Result<KernelSnapshot>;
}

/// Samples of the kernel side.
pub(super) struct KernelSource {
    kernel: Arc<dyn KernelCounters>,
    last: Mutex<KernelSnapshot>,
    errors: AtomicU64,
}

impl fmt::Debug for KernelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSource").field("last", &self.last).finish_non_exhaustive()
    }
}

impl KernelSource {
    pub(super) fn new(kernel: Arc<dyn KernelCounters>) -> Self {
        Self { kernel, last: Mutex::default(), errors: AtomicU64::new(0) }
    }
}

impl Source for KernelSource {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![
            &EVENTS_SEEN,
            &EVENTS_SENT,
            &EVENTS_HELD_BACK,
            &EVENTS_LOST,
            &LOSSES_UNATTRIBUTED,
            &KERNEL_READ_ERRORS,
            &RING_CAPACITY,
        ]
    }

    fn sample(&self, out: &mut Samples) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kernel.snapshot() {
            Ok(snapshot) => *last = snapshot,
            Err(_) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        let none = KernelCounts::default();
        for (i, call) in self.kernel.calls().iter().enumerate() {
            let counts = last.calls.get(i).unwrap_or(&none);
            out.push(&EVENTS_SEEN, &[call], counts.seen);
            out.push(&EVENTS_SENT, &[call], counts.sent);
            out.push(&EVENTS_HELD_BACK, &[call], counts.held_back);
            out.push(&LOSSES_UNATTRIBUTED, &[call], counts.unattributed);
            for (i, reason) in self.kernel.loss_reasons().iter().enumerate() {
                out.push(&EVENTS_LOST, &[call, reason], counts.lost.get(i).copied().unwrap_or(0));
            }
        }
        out.push(&KERNEL_READ_ERRORS, &[], self.errors.load(Ordering::Relaxed));
        out.push(&RING_CAPACITY, &[], last.ring_capacity_bytes);
    }
}

/// Samples of the sinks.
pub(super) struct SinkSource(pub(super) Vec<(String, Arc<SinkStats>)>);

impl Source for SinkSource {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![
            &OUTPUT_RECORDS,
            &OUTPUT_DROPPED,
            &OUTPUT_BYTES,
            &OUTPUT_ERRORS,
            &OUTPUT_QUEUE_LENGTH,
            &OUTPUT_QUEUE_BYTES,
            &OUTPUT_SPOOL_LENGTH,
            &OUTPUT_SPOOL_BYTES,
            &OUTPUT_SPOOL_CAPACITY,
        ]
    }

    fn sample(&self, out: &mut Samples) {
        for (output, stats) in &self.0 {
            let mut dropped = 0;
            for reason in DropReason::ALL {
                let lines = stats.dropped_lines(reason);
                dropped += lines;
                out.push(&OUTPUT_DROPPED, &[output, reason.name()], lines);
            }
            out.push(&OUTPUT_RECORDS, &[output, "written"], stats.written_lines());
            out.push(&OUTPUT_RECORDS, &[output, "dropped"], dropped);
            out.push(&OUTPUT_BYTES, &[output], stats.written_bytes());
            out.push(&OUTPUT_ERRORS, &[output], stats.failures());
            out.push(&OUTPUT_QUEUE_LENGTH, &[output], stats.queued_lines());
            out.push(&OUTPUT_QUEUE_BYTES, &[output], stats.queued_bytes());
            out.push(&OUTPUT_SPOOL_LENGTH, &[output], stats.spooled_lines());
            out.push(&OUTPUT_SPOOL_BYTES, &[output], stats.spooled_bytes());
            out.push(&OUTPUT_SPOOL_CAPACITY, &[output], stats.spool_capacity());
        }
    }
}
