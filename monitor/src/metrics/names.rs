//! The table of metric names, with their help texts and labels.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct MetricSpec {
    /// Full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts, for people.
    pub help: &'static str,
}

/// Makes one constant per metric, and the table of all.
macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: MetricSpec = MetricSpec {
            name: concat!("ringfence_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric that Ringfence itself defines; the standard `process_*` ones come on top.
        pub const METRICS: &[MetricSpec] = &[$($constant),*];
    };
}

metrics! {
    EVENTS_SEEN "events_seen_total" Counter ["call"] "Attempts that the probes saw. seen = sent + held back + lost.";
    EVENTS_SENT "events_sent_total" Counter ["call"] "Events that the probes put into the ring.";
    EVENTS_HELD_BACK "events_held_back_total" Counter ["call"] "Events that were counted in the kernel instead of sent, because their cgroup sent too many.";
    EVENTS_LOST "events_lost_total" Counter ["call", "reason"] "Events that the probes could not send.";
    KERNEL_READ_ERRORS "kernel_counters_read_errors_total" Counter [] "Scrapes at which the kernel's counters could not be read; the last known ones were shown.";
    RING_CAPACITY "ring_capacity_bytes" Gauge [] "Size of the ring buffer.";
    EVENTS_RECEIVED "events_received_total" Counter ["kind"] "Records that the daemon read from the ring and decoded.";
    EVENTS_DISCARDED "events_discarded_total" Counter ["reason"] "Calls that led to no alert: no rule matched, or a refused open turned out to be for nothing that is watched, or there were too many of those to look at each.";
    DECODE_ERRORS "decode_errors_total" Counter ["reason"] "Records that the daemon could not decode.";
    ENRICHMENT "enrichment_total" Counter ["result"] "Events by what could be found out about process and container.";
    TABLE_ENTRIES "table_entries" Gauge ["table"] "Entries in use of a bounded table.";
    TABLE_CAPACITY "table_capacity_entries" Gauge ["table"] "Entries that a bounded table has room for.";
    TABLE_EVICTIONS "table_evictions_total" Counter ["table"] "Entries that a bounded table gave up for want of room.";
    ALERTS "alerts_total" Counter ["rule", "priority"] "Alerts by rule id and priority.";
    OUTPUT_RECORDS "output_records_total" Counter ["output", "result"] "Alert lines by what became of them at an output: written or dropped.";
    OUTPUT_DROPPED "output_dropped_total" Counter ["output", "reason"] "Alert lines that an output dropped.";
    OUTPUT_BYTES "output_written_bytes_total" Counter ["output"] "Bytes that an output took.";
    OUTPUT_ERRORS "output_errors_total" Counter ["output"] "Writes to an output that failed.";
    OUTPUT_QUEUE_LENGTH "output_queue_length" Gauge ["output"] "Alert lines that wait for an output.";
    OUTPUT_QUEUE_BYTES "output_queue_bytes" Gauge ["output"] "Bytes that wait for an output.";
    RULES_LOADED "rules_loaded" Gauge ["maturity"] "Enabled rules by maturity.";
    PROBE_ATTACHED "probe_attached" Gauge ["probe"] "1 if the probe is attached.";
    COVERAGE_DEGRADED "coverage_degraded" Gauge [] "1 while something is not watched that should be; `ringfence doctor` says what.";
    ATTACH_MODE "attach_mode_info" Gauge ["mode"] "The attach mode in force.";
    BUILD_INFO "build_info" Gauge ["version"] "The running version.";
}

/// Where a rule's `maturity` is missing.
pub(super) const UNSTATED: &str = "unstated";

/// Values of the label `maturity`.
pub(super) const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated", UNSTATED];
