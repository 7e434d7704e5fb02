//! The life of the daemon: check → load rules → open sinks → attach → ready → drain → exit.
//!
//! What can fail for a reason outside is tried first, so that nothing is attached when the start fails.

mod capabilities;
mod losses;
mod metrics;
mod outputs;
mod pins;
mod record;

pub use outputs::{output_names, try_outputs};
pub use record::{RecordPlan, RecordSummary, record};

use capabilities::start_capabilities;
use losses::report_losses;
use metrics::Shown;
use pins::{attach_all, carried, is_anything_pinned, open_pins, pinned_enrolment};

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::attach::{AttachError, Attached, Probe};
use crate::bpf_files::{BpfFiles, ProgramFile};
use crate::bpf_maps::BpfMaps;
use crate::canary::{self, Canaries, Reporter, Trial, Watch};
use crate::config::{CanaryInterval, Settings};
use crate::confine::Confinement;
use crate::control::{self, Board, BoardParts, ControlError, Desk};
use crate::enrich::names::Names;
use crate::enrich::users::Users;
use crate::generation::FIRST;
use crate::hierarchy::{Hierarchy, NotMounted};
use crate::http::{self, BindError, Health, Readiness};
use crate::ledger::Ledger;
use crate::pins::{Carried, PinDir, PinError};
use crate::pipeline::{self, Parts, Pipeline};
use crate::preflight::{self, CheckState};
use crate::reader::{self, Stop};
use crate::recording::{Recorder, RecordingError, Ring};
use crate::reload::{self, Reloader, RulesBoard, RulesState};
use crate::rules::{LoadError, RuleSet};
use crate::service;
use crate::sink::{FileError, SpoolError};
use crate::trust::Trust;

/// How long the sinks may take for their last lines.
const FLUSH: Duration = Duration::from_secs(5);
/// How long what is still being done may take at the end.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Why the daemon did not start, or had to end. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The machine or the privileges do not do.
    #[error("{0}")]
    Preflight(String),
    /// No rules at all.
    #[error("no rules: neither {} exists with a rule file in it. Name a file or directory with --rules", crate::config::DEFAULT_RULES.join(" nor "))]
    NoRules,
    /// Rules are wrong; the error renders itself with file, line and column.
    #[error(transparent)]
    Rules(#[from] LoadError),
    /// Tests inside the rules do not come out; each with its place.
    #[error("tests inside the rules do not come out; `ringfence rules test` says why:\n{}", .0.join("\n"))]
    RuleTests(Vec<String>),
    /// See [`FileError`].
    #[error(transparent)]
    AlertFile(#[from] FileError),
    /// See [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// An output cannot be set up.
    #[error("{0}")]
    Outputs(String),
    /// See [`RecordingError`].
    #[error("recorded events: {0}")]
    Recording(#[from] RecordingError),
    /// See [`BindError`].
    #[error(transparent)]
    Bind(#[from] BindError),
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// See [`NotMounted`].
    #[error(transparent)]
    Hierarchy(#[from] NotMounted),
    /// See [`AttachError`].
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// See [`PinError`].
    #[error(transparent)]
    Pins(PinError),
    /// A thread, a signal handler or a descriptor could not be had.
    #[error("{what}: {cause}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A bug in the table of metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Turns an I/O error into one that says what was being done.
fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |cause| DaemonError::System { what, cause }
}

/// Runs until SIGTERM or SIGINT, then drains the ring and flushes the sinks.
///
/// # Errors
/// [`DaemonError`], before anything is attached where possible.
pub fn run(settings: Settings) -> Result<(), DaemonError> {
    drive(run_until_signal(settings))
}

/// Drives the daemon, or what is like it, to its end.
fn drive<T>(task: impl Future<Output = Result<T, DaemonError>>) -> Result<T, DaemonError> {
    // One worker: the pipeline has a thread of its own, so that metrics can be asked for while it stands still.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    let ended = runtime.block_on(task);
    // Rule files on a file system that does not answer must not hold the exit back.
    runtime.shutdown_timeout(LAST_TASKS);
    ended
}

async fn run_until_signal(settings: Settings) -> Result<(), DaemonError> {
    // From here on a signal ends the daemon cleanly, wherever it is.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot handle SIGINT"))?;
    // Its usual action would end the daemon, also before the first rules are in force.
    let hangup = signal(SignalKind::hangup()).map_err(system("cannot handle SIGHUP"))?;
    let reopen = signal(SignalKind::user_defined1()).map_err(system("cannot handle SIGUSR1"))?;
    check_machine()?;
    let watch = reload::Watch::start(&settings);
    let rules = load_rules(&settings)?;
    for warning in rules.warnings() {
        tracing::warn!("{}", warning.message());
    }
    let outputs = outputs::open_outputs(&settings)?;
    tokio::spawn(outputs::reopen_on(reopen, outputs.iter().map(|output| Arc::clone(&output.sink)).collect()));
    let hostname = settings.hostname();
    let recorder = open_recorder(&settings, &hostname)?;
    let handed = service::metrics_socket().map_err(system("the service manager's socket for metrics"))?;
    let listener = http::bind(settings.listen, handed).await?;
    let control = control::bind(&settings.control_socket)?;
    let hierarchy = Hierarchy::find(settings.cgroup_hierarchy)?;
    let pins = open_pins(&settings)?;
    let earlier = is_anything_pinned(pins.as_ref());
    let (recorded, tree) = (recorder.as_ref(), hierarchy.as_ref());
    let shown = Shown::start(&settings, &rules, &outputs, recorded, tree, listener, earlier)?;
    let (metrics, health) = (Arc::clone(&shown.metrics), Arc::clone(&shown.health));
    let trial = try_canaries(&settings, pinned_enrolment(pins.as_ref()))?;
    let pin_dir = pins.as_ref().map(PinDir::path);
    let said = Arc::clone(&shown.confined);
    let mut confinement = Confinement::new(&settings, rules.sources(), pin_dir, said);
    let for_canaries = confinement.of_canaries();
    let (mut attached, carried, ledger, misses, earlier_canaries, canaries) = confinement
        .apart(|| {
            let mut attached = attach_all(&settings, pins, hierarchy.as_ref())?;
            shown.maps(BpfMaps::new(attached.map_files()));
            let carried = carried(&attached, &metrics);
            let ledger = take_ledger(&mut attached, settings.ring_bytes, carried.clone())?;
            // Here, because what probes cost is measured only for who may.
            let misses = shown.attached(&attached, &ledger, &settings)?;
            // Before the canaries make a directory, which is a record of theirs.
            let earlier = canary::sent(&ledger);
            let start = |trial| Canaries::start(trial, &mut attached, settings.ring_bytes, for_canaries);
            let canaries = trial.map(start);
            Ok::<_, DaemonError>((attached, carried, ledger, misses, earlier, canaries))
        })
        .map_err(system("cannot start the thread that attaches"))??;
    let ring = attached.take_ring().ok_or(missing_map())?;
    let canaries = canaries.and_then(|canaries| started_canaries(canaries, &shown));
    let since = canaries.as_ref().map_or_else(pipeline::boot_now, Canaries::since);
    let matcher = canaries.as_ref().map(Canaries::matcher).transpose()?;
    let mut reporter =
        Reporter::new(&outputs, Arc::clone(&health), Arc::clone(&metrics), &hostname, carried.clone())?;
    let rule_count = rules.rules().iter().filter(|rule| rule.enabled).count();
    let outcomes = metrics.control_requests.clone();
    let rules_board = Arc::new(RulesBoard::new(RulesState::of(&rules, FIRST), settings.watch_rules));
    let board = Arc::new(Board::new(BoardParts {
        attached: &attached,
        health: Arc::clone(&health),
        ledger: Arc::clone(&ledger),
        outputs: &outputs,
        rules: Arc::clone(&rules_board),
        metrics: Arc::clone(&metrics),
        confinement: confinement.said(),
    }));
    let mut reloader = Reloader::new(reload::Parts {
        watch,
        settings: settings.clone(),
        sources: rules.sources().clone(),
        expiry: rules.next_expiry(),
        outputs: &outputs,
        hostname: hostname.clone(),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        board: rules_board,
    })?;
    let names = Names::start(settings.roots.clone(), Arc::clone(&metrics))
        .map_err(system("cannot start the thread that reads containers' names"))?;
    let mut pipeline = Pipeline::new(Parts {
        rules,
        min_priority: settings.min_priority,
        alert_why: settings.alert_why,
        process_entries: settings.process_table_entries as usize,
        hierarchy: hierarchy.clone(),
        outputs,
        hostname,
        names,
        users: Users::read(&settings.roots.host),
        metadata_wait: Duration::from_millis(settings.metadata_wait_ms.into()),
        metrics,
        canary: matcher,
        recorder,
    })?
    .with_carried(carried.clone(), since);
    confinement.close_calls(hierarchy.as_ref());
    pins::seed(&mut pipeline, &mut attached, &ring, settings.ring_bytes);
    release_start_memory();

    let (asker, questions) = control::channel();
    let asker = Arc::new(asker);
    let capabilities = start_capabilities(
        &mut attached,
        &settings,
        hierarchy.as_ref(),
        &asker,
        &misses,
        &shown.capabilities,
    );
    let hub = pipeline.watch_hub();
    reporter.show_at(&hub);
    reloader.show_at(&hub);
    let desk = Arc::new(Desk::new(Arc::clone(&hub), settings.rule_paths()));
    let sources = control::Sources { asker, board, capabilities: capabilities.clone(), desk };
    let handover = pipeline.handover();
    let (stop, stopped) = watch::channel(Stop::No);
    let mut reading =
        reader::start(ring, pipeline, questions, stopped).map_err(system("cannot start the reader"))?;
    let watch = start_watch(canaries, &settings, &ledger, reporter, earlier_canaries)?;
    confinement.close_files();
    attached.settle();
    if rule_count == 0 {
        tracing::warn!("no rule is enabled: nothing raises an alert");
    }
    announce(&attached, hierarchy.as_ref(), &health, rule_count);
    let control = control.map(|bound| tokio::spawn(control::serve(bound, sources, outcomes)));
    let reloading = tokio::spawn(reloader.run(hangup, handover));
    let tested = settings.canary_interval != CanaryInterval::Off;
    let attending = tokio::spawn(service::attend(Arc::clone(&health), tested));
    let watching = tokio::spawn(report_losses(Arc::clone(&ledger), misses, carried, hierarchy));
    // Who has nothing pinned always stops for good.
    let mut for_good = attached.pinned().is_none();
    let ended = tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: stopping");
            None
        }
        _ = interrupt.recv() => {
            tracing::info!("SIGINT: stopping for good");
            for_good = true;
            None
        }
        // It reads until it is told to stop. If it ends before, nothing is watched any more: better no daemon
        // than one that looks alive.
        ended = &mut reading => Some(ended),
    };
    health.set(Readiness::Stopping);
    attending.abort();
    service::stopping();
    reloading.abort();
    // What follows looks like blindness. Canaries that are still out are read like everything else.
    drop(watch);
    // Detach first: what is in the ring then is all there will be. If the next process goes on, the rest is for it.
    let (how, _taken) = if for_good {
        attached.detach();
        (Stop::Drain, None)
    } else {
        (Stop::Leave, attached.leave())
    };
    if let Some(capabilities) = capabilities {
        capabilities.finish().await;
    }
    let ended = match ended {
        Some(ended) => ended,
        None => {
            let _ = stop.send(how);
            reading.await
        }
    };
    let pipeline = match ended {
        Ok(Ok((_, pipeline))) => pipeline,
        Ok(Err(cause)) => return Err(DaemonError::System { what: "cannot read the ring buffer", cause }),
        Err(_) => {
            return Err(DaemonError::System {
                what: "the pipeline broke down",
                cause: io::Error::other("its thread panicked"),
            });
        }
    };
    watching.abort();
    flush(pipeline);
    // Those who watch get their last lines.
    hub.ended(LAST_TASKS).await;
    for server in [shown.server, control].into_iter().flatten() {
        server.abort();
    }
    Ok(())
}

fn check_machine() -> Result<(), DaemonError> {
    let failed = preflight::checks().into_iter().find(|check| check.state == CheckState::Fail);
    match failed {
        Some(check) => {
            Err(DaemonError::Preflight(format!("{}: {}. {}", check.name, check.detail, check.remedy)))
        }
        None => Ok(()),
    }
}

/// Reads the rules, at the start and for each reload.
pub(crate) fn load_rules(settings: &Settings) -> Result<RuleSet, DaemonError> {
    let paths: Vec<PathBuf> = settings.rule_paths();
    if paths.is_empty() {
        return Err(DaemonError::NoRules);
    }
    let rules = RuleSet::load_with(&paths, &settings.load_options(Trust::Strict))?;
    let failed: Vec<String> = rules.run_tests().failures().map(|(rule, test)| test.told(rule)).collect();
    if failed.is_empty() { Ok(rules) } else { Err(DaemonError::RuleTests(failed)) }
}

/// The ring of recorded events, if it is wanted. What is recorded beside the alerts waits for no name that these do not
/// wait for.
fn open_recorder(settings: &Settings, hostname: &str) -> Result<Option<Recorder>, DaemonError> {
    let Some(dir) = &settings.record_dir else { return Ok(None) };
    let ring = Ring::open(dir, settings.record_bytes)?;
    let recorder = Recorder::start(hostname, ring, false);
    recorder.map(Some).map_err(system("cannot start the thread that records"))
}

fn missing_map() -> DaemonError {
    DaemonError::Attach(AttachError::Load("a map is missing from the object".to_owned()))
}

fn take_ledger(
    attached: &mut Attached,
    ring_bytes: u32,
    carried: Option<Arc<Carried>>,
) -> Result<Arc<Ledger>, DaemonError> {
    let counters = attached.take_counters().ok_or(missing_map())?;
    let lost = attached.take_lost().ok_or(missing_map())?;
    Ok(Arc::new(Ledger::new(counters, lost, ring_bytes).with_carried(carried)))
}

/// Finds out which canaries this machine allows, before anything is attached, or as what is pinned knows them.
fn try_canaries(settings: &Settings, pinned: Option<OwnedFd>) -> Result<Option<Trial>, DaemonError> {
    match settings.canary_interval {
        CanaryInterval::Off => {
            tracing::warn!("canaries are off: blindness is not noticed");
            Ok(None)
        }
        CanaryInterval::Every(_) => pinned
            .map_or_else(Trial::run, Trial::run_watched)
            .map(Some)
            .map_err(system("cannot try the canaries' calls")),
    }
}

/// Where the canary thread could not be started, the daemon watches without and says so.
fn started_canaries(started: Result<Canaries, String>, shown: &Shown) -> Option<Canaries> {
    started
        .inspect_err(|reason| {
            tracing::error!(reason, "no hook is tested: blindness is not noticed");
            shown.nothing_is_tested();
        })
        .ok()
}

fn start_watch(
    canaries: Option<Canaries>,
    settings: &Settings,
    ledger: &Arc<Ledger>,
    reporter: Reporter,
    earlier: u64,
) -> Result<Option<Watch>, DaemonError> {
    let (Some(canaries), CanaryInterval::Every(ms)) = (canaries, settings.canary_interval) else {
        return Ok(None);
    };
    let interval = Duration::from_millis(ms.into());
    let watch = Watch::start(canaries, interval, Arc::clone(ledger), reporter, earlier);
    watch.map(Some).map_err(system("cannot start the watch over the hooks"))
}

/// Each probe's program if it is attached, by the probe's name.
fn program_files(attached: &Attached) -> Vec<(String, Option<ProgramFile>)> {
    let files = BpfFiles::read();
    let file = |probe: &Probe| (probe.name.clone(), probe.program.and_then(|id| files.program(id)));
    attached.probes.iter().map(file).collect()
}

/// Says that the daemon is ready, how it is attached, and what is missing.
fn announce(attached: &Attached, hierarchy: Option<&Hierarchy>, health: &Health, rules: usize) {
    let missing: Vec<_> = attached.probes.iter().filter(|probe| probe.missing.is_some()).collect();
    for probe in &missing {
        let reason = probe.missing.as_deref().unwrap_or_default();
        tracing::warn!(hook = probe.hook, reason, cost = probe.cost, "probe missing: coverage is degraded");
    }
    let mut gaps = Vec::new();
    if !missing.is_empty() {
        let hooks: Vec<&str> = missing.iter().map(|probe| probe.hook.as_str()).collect();
        gaps.push(format!("probes missing: {}", hooks.join(", ")));
    }
    match hierarchy {
        Some(hierarchy) => tracing::info!(%hierarchy, "cgroups are known by"),
        None => {
            tracing::warn!("no cgroup hierarchy is mounted: containers cannot be told from the host");
            gaps.push("no cgroup hierarchy is mounted".to_owned());
        }
    }
    health.set(if gaps.is_empty() { Readiness::Ready } else { Readiness::Degraded(gaps.join("; ")) });
    let attached_count = attached.probes.len() - missing.len();
    tracing::info!(attach = attached.mode.name(), probes = attached_count, rules, "ready");
}

/// Gives the sinks and the recording time for what they still have.
fn flush(mut pipeline: Pipeline) {
    let deadline = Instant::now() + FLUSH;
    let recorder = pipeline.take_recorder();
    outputs::finish(&pipeline.into_outputs(), recorder, deadline);
}

/// Reading the kernel's type information takes tens of megabytes for a moment; they go back to the system.
fn release_start_memory() {
    // SAFETY: no arguments that could be wrong; the allocator is glibc's, which is built to be called so.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
