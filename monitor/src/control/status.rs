//! `status`: how the daemon is, made from what it counts and shows in any case.
//!
//! Nothing of it is asked of the pipeline, so there is an answer also while that stands still. At most ten are made a
//! second, however many ask; the others wait for their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep_until;

use crate::alert::WallClock;
use crate::attach::{Attached, Probe};
use crate::confine::{Report, Said};
use crate::control::{TopListing, TopParts};
use crate::http::{Health, State};
use crate::ledger::Ledger;
use crate::metrics::{KernelCounters as _, Metrics, ReloadOutcome};
use crate::pipeline::Output;
use crate::reload::{RulesBoard, Watching};
use crate::sink::{DropReason, SinkStats};
use crate::telling::unix_now;

/// From one answer to the next, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// Names of rule files in an answer.
const MOST_FILES: usize = 64;

/// How the daemon is. What is not known is `null` or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// When it began to watch: RFC 3339, UTC.
    pub up_since: String,
    /// For how long, in whole seconds.
    pub up_seconds: u64,
    /// How the probes are attached: `trampoline` or `tracepoint`.
    pub attach: String,
    /// How many are attached.
    pub probes_attached: u64,
    /// Those that are not.
    pub probes_missing: Vec<MissingProbe>,
    /// `starting`, `ready`, `degraded`, `blind` or `stopping`.
    pub state: String,
    /// Why it is so, if it is not `ready`.
    pub detail: String,
    /// The rules in force.
    pub rules: RulesStatus,
    /// The ledger of the probes, all kinds of records together: seen = delivered + held back + lost.
    pub events: EventsStatus,
    /// Where alerts go.
    pub outputs: Vec<OutputStatus>,
    /// What the daemon took from itself, by layer: `in force`, `switched off`, or `missing` and why.
    #[serde(default)]
    pub confinement: BTreeMap<String, String>,
}

/// A probe that is not attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingProbe {
    /// Where it would sit.
    pub hook: String,
    /// Why it does not.
    pub reason: String,
    /// What cannot be seen without it.
    pub cost: String,
}

/// The rules in force, and the last that were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesStatus {
    /// Their number: 1 for those that the daemon started with. Alerts carry it.
    pub generation: u64,
    /// Since when they are in force: RFC 3339, UTC.
    pub loaded: String,
    /// Rules that are matched.
    pub enabled: u64,
    /// All rules, the disabled ones included.
    pub total: u64,
    /// The files, in order.
    pub files: Vec<String>,
    /// How many more there are, for which the answer had no room.
    pub files_omitted: u64,
    /// Whether changes of the files are noticed: `on`, `off`, `partly` or `impossible`.
    pub watch: String,
    /// Why not, or not all.
    pub watch_detail: String,
    /// Reloads so far by what they came to: `ok`, `failed`, `unchanged`.
    pub reloads: BTreeMap<String, u64>,
    /// The last rules that were refused.
    pub refused: Option<RefusedStatus>,
}

/// Rules that were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// When: RFC 3339, UTC.
    pub at: String,
    /// Whether the files, as last read, are still wrong.
    pub stands: bool,
    /// How many things are wrong.
    pub findings: u64,
    /// The first of them, long texts cut.
    pub diagnostics: Vec<String>,
}

/// Totals of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsStatus {
    /// What the probes saw.
    pub seen: u64,
    /// What they put into the ring.
    pub delivered: u64,
    /// What they counted instead.
    pub held_back: u64,
    /// What they could not send.
    pub lost: u64,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatus {
    /// Its name: `stdout`, `file`, or what the configuration says.
    pub name: String,
    /// Lines that it took.
    pub written: u64,
    /// Lines that wait for it, in memory and on disk.
    pub waiting: u64,
    /// Lines that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Status {
    /// Something is wrong now. What was lost or dropped in the past is shown, but is not wrong now.
    pub fn is_wrong(&self) -> bool {
        self.state != State::Ready.name()
    }
}

/// Whose state it is.
pub struct BoardParts<'p> {
    /// The probes.
    pub attached: &'p Attached,
    /// Readiness.
    pub health: Arc<Health>,
    /// The kernel's counters.
    pub ledger: Arc<Ledger>,
    /// Where alerts go.
    pub outputs: &'p [Output],
    /// The rules.
    pub rules: Arc<RulesBoard>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What came of the daemon's confinement.
    pub confinement: Said,
}

/// Knows how the daemon is.
pub struct Board {
    since_ns: i64,
    since: Instant,
    attach: &'static str,
    probes_attached: u64,
    probes_missing: Vec<MissingProbe>,
    health: Arc<Health>,
    ledger: Option<Arc<Ledger>>,
    outputs: Vec<(String, Arc<SinkStats>)>,
    rules: Arc<RulesBoard>,
    metrics: Arc<Metrics>,
    confinement: Said,
    /// When the next answer may be made. Held while one waits for that.
    next: Mutex<Instant>,
}

impl Board {
    /// From parts of a daemon that has just attached its probes.
    pub fn new(parts: BoardParts<'_>) -> Self {
        let BoardParts { attached, health, ledger, outputs, rules, metrics, confinement } = parts;
        let missing = |probe: &Probe| {
            probe.missing.as_ref().map(|reason| MissingProbe {
                hook: probe.hook.clone(),
                reason: reason.clone(),
                cost: probe.cost.to_owned(),
            })
        };
        let probes_missing: Vec<_> = attached.probes.iter().filter_map(missing).collect();
        Board {
            attach: attached.mode.name(),
            probes_attached: (attached.probes.len() - probes_missing.len()) as u64,
            probes_missing,
            ledger: Some(ledger),
            outputs: outputs
                .iter()
                .map(|output| (output.sink.name().to_owned(), Arc::clone(output.sink.stats())))
                .collect(),
            confinement,
            ..Board::bare(health, rules, metrics)
        }
    }

    /// Of a daemon without probes and outputs.
    pub(super) fn bare(health: Arc<Health>, rules: Arc<RulesBoard>, metrics: Arc<Metrics>) -> Self {
        Board {
            since_ns: unix_now(),
            since: Instant::now(),
            attach: "none",
            probes_attached: 0,
            probes_missing: Vec::new(),
            health,
            ledger: None,
            outputs: Vec::new(),
            rules,
            metrics,
            confinement: Said::default(),
            next: Mutex::new(Instant::now()),
        }
    }

    /// How the daemon is now.
    pub async fn status(&self) -> Status {
        let mut next = self.next.lock().await;
        sleep_until((*next).into()).await;
        *next = Instant::now() + PAUSE;
        self.make()
    }

    /// What containers do, from what the owner of the tables gave; of one alone, if it is wanted.
    pub(super) fn top(&self, parts: TopParts, wanted: Option<&str>) -> TopListing {
        let ledger = self.ledger.as_ref();
        let lost = ledger.map(|ledger| ledger.lost_by_cgroup()).unwrap_or_default();
        let lost: Vec<_> = lost.into_iter().map(|(cgroup, _, count)| (cgroup, count)).collect();
        let events = self.events();
        let snapshot = ledger.and_then(|ledger| ledger.snapshot().ok());
        TopListing {
            up_ms: self.since.elapsed().as_millis() as u64,
            state: self.health.state().0.name().to_owned(),
            ring_bytes: snapshot.map_or(0, |snapshot| snapshot.ring_capacity_bytes),
            ring_used_bytes: self.metrics.encode().ok().and_then(|text| ring_used(&text)),
            seen: events.seen,
            delivered: events.delivered,
            lost: events.lost,
            ..parts.listing(wanted, &lost)
        }
    }

    fn make(&self) -> Status {
        let (state, detail) = self.health.state();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_since: rfc3339(self.since_ns),
            up_seconds: self.since.elapsed().as_secs(),
            attach: self.attach.to_owned(),
            probes_attached: self.probes_attached,
            probes_missing: self.probes_missing.clone(),
            state: state.name().to_owned(),
            detail,
            rules: self.rules(),
            events: self.events(),
            outputs: self.outputs.iter().map(|(name, stats)| output(name, stats)).collect(),
            confinement: self.confinement.get().map(Report::texts).unwrap_or_default(),
        }
    }

    fn rules(&self) -> RulesStatus {
        let (rules, refused, watching) = self.rules.read();
        let (watch, watch_detail) = match watching {
            Watching::Off => ("off", String::new()),
            Watching::On => ("on", String::new()),
            Watching::Partly(why) => ("partly", why),
            Watching::Impossible(why) => ("impossible", why),
        };
        let files_omitted = rules.files.len().saturating_sub(MOST_FILES) as u64;
        let reloads = ReloadOutcome::ALL.iter().zip(&self.metrics.rules_reloads);
        RulesStatus {
            generation: rules.generation,
            loaded: rfc3339(rules.loaded_ns),
            enabled: rules.enabled as u64,
            total: rules.total as u64,
            files: rules.files.into_iter().take(MOST_FILES).collect(),
            files_omitted,
            watch: watch.to_owned(),
            watch_detail,
            reloads: reloads.map(|(outcome, count)| (outcome.name().to_owned(), count.get())).collect(),
            refused: refused.map(|refused| RefusedStatus {
                at: rfc3339(refused.at_ns),
                stands: refused.stands,
                findings: refused.findings,
                diagnostics: refused.diagnostics,
            }),
        }
    }

    /// Zeros if the kernel does not let its counters be read.
    fn events(&self) -> EventsStatus {
        let mut total = EventsStatus::default();
        let snapshot = self.ledger.as_ref().and_then(|ledger| ledger.snapshot().ok());
        for counts in snapshot.map(|snapshot| snapshot.calls).unwrap_or_default() {
            total.seen += counts.seen;
            total.delivered += counts.sent;
            total.held_back += counts.held_back;
            total.lost += counts.lost.iter().sum::<u64>();
        }
        total
    }
}

/// The fill of the ring buffer among all metrics.
fn ring_used(metrics: &str) -> Option<u64> {
    let line = |line: &str| line.strip_prefix("ringfence_ring_used_bytes ")?.trim().parse().ok();
    metrics.lines().find_map(line)
}

fn output(name: &str, stats: &SinkStats) -> OutputStatus {
    OutputStatus {
        name: name.to_owned(),
        written: stats.written_lines(),
        waiting: stats.queued_lines() + stats.spooled_lines(),
        dropped: DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), stats.dropped_lines(*reason)))
            .collect(),
    }
}

/// A moment in RFC 3339.
pub(crate) fn rfc3339(unix_ns: i64) -> String {
    let mut text = Vec::new();
    WallClock::default().push_rfc3339(unix_ns, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::ring_used;

    #[test]
    fn the_rings_fill_is_found_among_the_metrics() {
        let text = "# HELP ringfence_ring_used_bytes x\nringfence_ring_capacity_bytes 4096\nringfence_ring_used_bytes 96\n";
        assert_eq!(ring_used(text), Some(96));
        assert_eq!(ring_used("ringfence_ring_used_bytes_total 1\n"), None);
    }
}
