//! `ringfence record`: attach as the daemon does, record every event, and say at the end what is missing.
//!
//! No rules, no outputs, no canaries: what is seen goes into one file.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monitor_common::call::Call;
use monitor_common::wire::kind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{DaemonError, FLUSH, check_machine, drive, missing_map, program_files, system, take_ledger};
use crate::attach::{Wanted, attach};
use crate::config::Settings;
use crate::control;
use crate::enrich::names::Names;
use crate::enrich::users::Users;
use crate::hierarchy::Hierarchy;
use crate::ledger::{Ledger, slot_names};
use crate::metrics::{Discard, Metrics};
use crate::misses::Misses;
use crate::pipeline::{self, Parts, Pipeline};
use crate::reader::{self, Stop};
use crate::recording::{RecordDrop, RecordStats, Recorder, RecordingFile, Single};
use crate::rules::RuleSet;

/// What is to be recorded, and when it ends at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// Where to; an existing recording is gone on with.
    pub file: PathBuf,
    /// After so many seconds.
    pub seconds: Option<u64>,
    /// When the file has so many bytes.
    pub max_bytes: Option<u64>,
}

/// What was recorded, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Where to.
    pub file: PathBuf,
    /// Events that the file had before.
    pub before: u64,
    /// Bytes of a torn block that were cut off.
    pub cut: u64,
    /// Events recorded, by [`Recorder`]'s count.
    pub recorded: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Events that were not written, by the number of [`RecordDrop`].
    pub dropped: [u64; RecordDrop::ALL.len()],
    /// Calls that the probes saw.
    pub seen: u64,
    /// Calls that found no room in the ring.
    pub lost: u64,
    /// Calls that became events. The other events are no calls: entries and escapes.
    pub calls: u64,
    /// Refused opens that turned out to be of nothing that is watched, or were too many to look at.
    pub not_watched: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Runs of probes that the kernel skipped.
    pub skipped: u64,
}

impl RecordSummary {
    /// Whether something was seen, or should have been, that is not in the file.
    pub fn is_lossy(&self) -> bool {
        self.lost + self.undecoded + self.skipped + self.dropped.iter().sum::<u64>() > 0
    }
}

impl fmt::Display for RecordSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "recorded {} events, {} bytes, into {}", self.recorded, self.bytes, self.file.display())?;
        if self.before > 0 {
            writeln!(f, "behind the {} events that it had before", self.before)?;
        }
        if self.cut > 0 {
            writeln!(f, "a torn block at its end was cut off: {} bytes", self.cut)?;
        }
        let dropped: u64 = self.dropped.iter().sum();
        let others = (self.recorded + dropped).saturating_sub(self.calls);
        writeln!(
            f,
            "the probes saw {} calls: {} became events, {} were refused opens of nothing watched, {} were lost \
             because the ring was full, {} could not be decoded; {} events are no calls",
            self.seen, self.calls, self.not_watched, self.lost, self.undecoded, others
        )?;
        for (reason, count) in RecordDrop::ALL.iter().zip(self.dropped).filter(|(_, count)| *count > 0) {
            writeln!(f, "not recorded ({}): {count} events", reason.name())?;
        }
        if self.skipped > 0 {
            writeln!(f, "the kernel skipped {} runs of probes: calls may be missing", self.skipped)?;
        }
        Ok(())
    }
}

/// Records until SIGTERM, SIGINT or the plan's end.
///
/// # Errors
/// [`DaemonError`], before anything is attached where possible.
pub fn record(settings: Settings, plan: RecordPlan) -> Result<RecordSummary, DaemonError> {
    drive(record_until_end(settings, plan))
}

async fn record_until_end(settings: Settings, plan: RecordPlan) -> Result<RecordSummary, DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot handle SIGINT"))?;
    check_machine()?;
    let file = RecordingFile::open(&plan.file)?;
    let (before, cut) = (file.events_before, file.cut);
    let hostname = settings.hostname();
    let store = Single::new(file, plan.max_bytes.unwrap_or(u64::MAX));
    let recorder =
        Recorder::start(&hostname, store, true).map_err(system("cannot start the thread that records"))?;
    let full = recorder.full();
    let hierarchy = Hierarchy::find(settings.cgroup_hierarchy)?;
    let mut attached = attach(Wanted {
        choice: settings.attach,
        strict: settings.strict,
        ring_bytes: settings.ring_bytes,
        syscall_sets: false,
        hierarchy: hierarchy.as_ref(),
    })?;
    let metrics = Arc::new(pipeline::metrics()?);
    let ledger = take_ledger(&mut attached, settings.ring_bytes, None)?;
    let misses = Misses::new(program_files(&attached));
    let ring = attached.take_ring().ok_or(missing_map())?;
    let names = Names::start(settings.roots.clone(), Arc::clone(&metrics))
        .map_err(system("cannot start the thread that reads containers' names"))?;
    let mut pipeline = Pipeline::new(Parts {
        alert_why: false,
        rules: RuleSet::from_sources(&[])?,
        min_priority: settings.min_priority,
        process_entries: settings.process_table_entries as usize,
        hierarchy: hierarchy.clone(),
        outputs: Vec::new(),
        hostname,
        names,
        users: Users::read(&settings.roots.host),
        metadata_wait: Duration::from_millis(settings.metadata_wait_ms.into()),
        metrics: Arc::clone(&metrics),
        canary: None,
        recorder: Some(recorder),
    })?;
    pipeline.seed();
    for probe in attached.probes.iter().filter(|probe| probe.missing.is_some()) {
        let reason = probe.missing.as_deref().unwrap_or_default();
        tracing::warn!(hook = probe.hook, reason, cost = probe.cost, "probe missing: less is recorded");
    }
    tracing::info!(attach = attached.mode.name(), file = %plan.file.display(), "recording");
    let (_asker, questions) = control::channel();
    let (stop, stopped) = watch::channel(Stop::No);
    let mut reading =
        reader::start(ring, pipeline, questions, stopped).map_err(system("cannot start the reader"))?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        () = full.notified() => None,
        () = sleep_for(plan.seconds) => None,
        ended = &mut reading => Some(ended),
    };
    // Detach first: what is in the ring then is all there will be.
    attached.detach();
    let ended = match ended {
        Some(ended) => ended,
        None => {
            let _ = stop.send(Stop::Drain);
            reading.await
        }
    };
    let broken = |cause| DaemonError::System { what: "recording broke down", cause };
    let (_, mut pipeline) =
        ended.map_err(|_| broken(std::io::Error::other("the reader panicked")))?.map_err(broken)?;
    let recorder = pipeline.take_recorder().ok_or(missing_map())?;
    let stats = recorder.finish(Instant::now() + FLUSH);
    let skipped = misses.read().map(|(_, missed)| missed).sum();
    let calls = count_calls(&metrics);
    Ok(RecordSummary { before, cut, skipped, ..summary(plan.file, &stats, &ledger, &metrics, calls)? })
}

async fn sleep_for(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

fn not_watched(metrics: &Metrics) -> u64 {
    let discarded = |why: Discard| metrics.events_discarded.get(why as usize).map_or(0, |count| count.get());
    discarded(Discard::NotWatched) + discarded(Discard::NotLookedUp)
}

/// Calls that became events.
fn count_calls(metrics: &Metrics) -> u64 {
    let received = metrics.events_received.get(usize::from(kind::CALL)).map_or(0, |count| count.get());
    received.saturating_sub(not_watched(metrics))
}

fn summary(
    file: PathBuf,
    stats: &RecordStats,
    ledger: &Ledger,
    metrics: &Metrics,
    calls: u64,
) -> Result<RecordSummary, DaemonError> {
    let counters = ledger.counters().map_err(|error| DaemonError::System {
        what: "cannot read the ledger",
        cause: std::io::Error::other(error),
    })?;
    let is_call = |name: &str| Call::ALL.iter().any(|call| call.name() == name);
    let (mut seen, mut lost) = (0, 0);
    for (_, counter) in slot_names().zip(counters).filter(|(name, _)| is_call(name)) {
        seen += counter.seen;
        lost += counter.lost;
    }
    Ok(RecordSummary {
        file,
        before: 0,
        cut: 0,
        recorded: stats.recorded(),
        bytes: stats.bytes(),
        dropped: RecordDrop::ALL.map(|reason| stats.dropped(reason)),
        seen,
        lost,
        calls,
        not_watched: not_watched(metrics),
        undecoded: metrics.decode_errors.iter().map(|count| count.get()).sum(),
        skipped: 0,
    })
}
