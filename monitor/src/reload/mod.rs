//! New rules without a gap: files are watched and SIGHUP is obeyed; what they say is read, checked, laid out and
//! tested beside the event path, and takes the place of the rules in force between two events.
//!
//! A set that is wrong in any way changes nothing but what is told: an internal alert, metrics, `/readyz`, `status`.

mod board;
mod debounce;
mod places;
mod vanished;
mod watch;

pub use board::{Refused, RulesBoard, RulesState, Watching};

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::Date;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::alert::Fact;
use crate::config::Settings;
use crate::daemon::{DaemonError, load_rules};
use crate::generation::{FIRST, Generation, Handover, Maker};
use crate::http::Health;
use crate::metrics::{Metrics, ReloadOutcome};
use crate::pipeline::Output;
use crate::rules::{LoadOptions, Sources};
use crate::telling::{Kind, Teller, unix_seconds};
use crate::watchers::Hub;
use vanished::Vanished;
use watch::{Watched, Watcher, lay};

const REFUSED: (&str, &str, &str) =
    ("ringfence-rules-refused", "Ringfence keeps its rules: new ones are wrong", "Error");
const ACCEPTED: (&str, &str, &str) =
    ("ringfence-rules-accepted", "Ringfence's rules are those of the files again", "Notice");

/// The ids and priorities of these alerts.
pub const INTERNAL_ALERTS: [(&str, &str); 2] = [(REFUSED.0, REFUSED.2), (ACCEPTED.0, ACCEPTED.2)];

/// From one reading of the files to the next, if they keep changing.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is asked whether an exception has ended.
const LOOK: Duration = Duration::from_secs(60);

/// Why rules are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    FilesChanged,
    Signal,
    /// The last day of an exception has passed.
    ExceptionEnded,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Cause::FilesChanged => "files_changed",
            Cause::Signal => "signal",
            Cause::ExceptionEnded => "exception_ended",
        }
    }
}

/// The watch over the rule files, begun before they are read for the first time.
#[derive(Debug)]
pub struct Watch(Result<Option<Watcher>, io::Error>);

impl Watch {
    /// Watches the files from here on, if that is wanted. Needs a runtime of tokio.
    pub fn start(settings: &Settings) -> Self {
        Watch(settings.watch_rules.then(|| Watcher::start(&settings.watched_rule_paths())).transpose())
    }
}

/// What a reloader is made of.
pub struct Parts<'o> {
    /// Tells when files change.
    pub watch: Watch,
    /// Where the rules are, and how they are chosen.
    pub settings: Settings,
    /// The files of the rules in force.
    pub sources: Sources,
    /// The next last day of an exception in them ([`RuleSet::next_expiry`](crate::rules::RuleSet::next_expiry)).
    pub expiry: Option<Date>,
    /// Where alerts go.
    pub outputs: &'o [Output],
    /// The machine's name.
    pub hostname: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says.
    pub health: Arc<Health>,
    /// What `status` says.
    pub board: Arc<RulesBoard>,
}

/// Reads rules anew when there is a reason to.
pub struct Reloader {
    settings: Settings,
    maker: Maker,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    board: Arc<RulesBoard>,
    teller: Teller,
    refused: Kind,
    accepted: Kind,
    watcher: Option<Watcher>,
    /// The files of the rules in force, and the number of those.
    sources: Sources,
    number: u64,
    /// The next last day of an exception in them.
    expiry: Option<Date>,
    /// What was wrong when they were last read.
    wrong: Option<Vec<String>>,
    vanished: Vanished,
}

/// What a reading of the files came to.
struct Reading {
    watched: Option<Watched>,
    outcome: Result<Outcome, Vec<String>>,
}

enum Outcome {
    New(Box<Generation>),
    Unchanged,
}

impl Reloader {
    /// For rules that are in force.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub fn new(parts: Parts<'_>) -> prometheus::Result<Self> {
        let Parts { watch, settings, sources, expiry, outputs, hostname, metrics, health, board } = parts;
        metrics.reload_succeeded(unix_seconds());
        metrics.rules_last_reload.set(unix_seconds());
        let mut reloader = Reloader {
            maker: Maker::new(&hostname, Arc::clone(&metrics)),
            teller: Teller::new(outputs, Arc::clone(&metrics)),
            refused: Kind::new(REFUSED, &hostname, &metrics)?,
            accepted: Kind::new(ACCEPTED, &hostname, &metrics)?,
            watcher: None,
            number: FIRST,
            wrong: None,
            vanished: Vanished::default(),
            settings,
            sources,
            expiry,
            metrics,
            health,
            board,
        };
        match watch.0 {
            Ok(watcher) => reloader.watcher = watcher,
            Err(error) => reloader.watch_failed(&error),
        }
        reloader.say_what_is_watched();
        Ok(reloader)
    }

    /// Tells what becomes of the rules from now on also to whoever watches there.
    pub fn show_at(&mut self, hub: &Arc<Hub>) {
        self.teller.show_at(hub);
    }

    /// Obeys SIGHUP and follows the files until the future is dropped.
    pub async fn run(mut self, mut hangup: Signal, handover: Handover) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let cause = tokio::select! {
                _ = hangup.recv() => Cause::Signal,
                changed = changed(&mut self.watcher) => match changed {
                    Ok(()) => Cause::FilesChanged,
                    Err(error) => {
                        self.watch_failed(&error);
                        continue;
                    }
                },
                _ = look.tick() => match self.expiry {
                    Some(day) if day < LoadOptions::default().today => Cause::ExceptionEnded,
                    _ => continue,
                },
            };
            self.reload(cause, &handover).await;
            if cause == Cause::FilesChanged {
                sleep(PAUSE).await;
            }
        }
    }

    fn watch_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "rule files are not watched: after a change send SIGHUP");
        self.watcher = None;
        self.board.watching(Watching::Impossible(error.to_string()));
    }

    async fn reload(&mut self, cause: Cause, handover: &Handover) {
        let start = Instant::now();
        let reading = self.read(cause).await;
        if let (Some(watcher), Some(watched)) = (&mut self.watcher, reading.watched) {
            watcher.set(watched);
            self.say_what_is_watched();
        }
        self.metrics.rules_last_reload.set(unix_seconds());
        match reading.outcome {
            Ok(Outcome::New(generation)) => {
                self.number = generation.number;
                self.sources = generation.rules.sources().clone();
                self.expiry = generation.rules.next_expiry();
                self.put_in_force(generation, handover, start).await;
                self.good_again(cause);
            }
            Ok(Outcome::Unchanged) => {
                self.count(ReloadOutcome::Unchanged);
                tracing::debug!(cause = cause.name(), "rule files are as they were");
                self.good_again(cause);
            }
            // The same mistakes are not told again, unless somebody asks.
            Err(wrong) if cause != Cause::Signal && self.wrong.as_ref() == Some(&wrong) => {
                self.count(ReloadOutcome::Unchanged);
            }
            Err(wrong) => self.refuse(cause, wrong),
        }
    }

    /// Watches the places that count now, reads the files, and makes a generation of what they say; on a thread
    /// of its own, because files may take their time.
    async fn read(&mut self, cause: Cause) -> Reading {
        let notifier = self.watcher.as_ref().map(Watcher::notifier);
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.forget()
        {
            self.watch_failed(&error);
        }
        let (settings, maker) = (self.settings.clone(), self.maker.clone());
        let (sources, number) = (self.sources.clone(), self.number + 1);
        let has_rules = self.board.read().0.enabled > 0;
        let reading = spawn_blocking(move || {
            let watched = notifier.map(|notifier| lay(&notifier, &settings.watched_rule_paths()));
            let outcome = match load_rules(&settings) {
                // The same files say something else when an exception has ended.
                Ok(rules) if cause != Cause::ExceptionEnded && *rules.sources() == sources => {
                    Ok(Outcome::Unchanged)
                }
                // A file that is being written, or that the disk had no room for, must not end detection quietly.
                Ok(rules) if has_rules && !rules.rules().iter().any(|rule| rule.enabled) => {
                    Err(vec!["no rule is enabled any more: to run without any, start anew".to_owned()])
                }
                Ok(rules) => {
                    rules.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
                    maker.make(number, rules).map(Outcome::New).map_err(|error| vec![error.to_string()])
                }
                Err(error) => Err(findings(&error)),
            };
            Reading { watched, outcome }
        });
        reading.await.unwrap_or_else(|_| Reading {
            watched: None,
            outcome: Err(vec!["reading the rules broke down; see the log".to_owned()]),
        })
    }

    /// Notes, and once logs, what is not watched.
    fn say_what_is_watched(&self) {
        let Some(watcher) = &self.watcher else { return };
        let state = watcher.fault().map_or(Watching::On, |fault| Watching::Partly(fault.to_owned()));
        if self.board.watching(state.clone())
            && let Watching::Partly(fault) = state
        {
            tracing::warn!(fault, "not all rule files are watched: after a change send SIGHUP");
        }
    }

    /// Hands the new rules to the path, and says so when they are in force.
    async fn put_in_force(&mut self, generation: Box<Generation>, handover: &Handover, start: Instant) {
        let (number, state) = (generation.number, RulesState::of(&generation.rules, generation.number));
        let labels = Vanished::labels(&generation.rules);
        self.metrics.set_rules_loaded(generation.rules.rules());
        self.metrics.set_rules_files(&generation.rules.sources().sha256());
        let before = handover.offer(generation).await;
        for (id, priority) in self.vanished.gone(before.as_ref().map(|before| &before.rules), &labels) {
            self.metrics.forget_rule(&id, priority);
            if !labels.iter().any(|(other, _)| *other == id) {
                self.metrics.forget_suppressed(&id);
            }
        }
        self.count(ReloadOutcome::Ok);
        let rules = state.enabled;
        // First the state, then the news of it.
        self.board.in_force(state);
        let ms = start.elapsed().as_millis() as u64;
        tracing::info!(generation = number, rules, ms, "rules reloaded");
        // Taking a set apart takes time, too.
        drop(spawn_blocking(move || drop(before)));
    }

    /// The rules in force are those of the files.
    fn good_again(&mut self, cause: Cause) {
        self.metrics.reload_succeeded(unix_seconds());
        if self.wrong.take().is_none() {
            return;
        }
        self.board.accepted();
        self.health.set_rules_refused(None);
        let number = self.number;
        tracing::info!(generation = number, "the rule files are right again");
        let text = format!("The rules in force are those of the files again (cause={})", cause.name());
        let facts = [("ringfence.cause", Fact::Text(cause.name().to_owned()))];
        self.teller.tell(&self.accepted, &text, &facts);
    }

    /// The files are wrong: the rules in force stay.
    fn refuse(&mut self, cause: Cause, wrong: Vec<String>) {
        self.count(ReloadOutcome::Failed);
        self.metrics.reload_successful.set(0);
        let refused = Refused::new(&wrong);
        tracing::error!(
            cause = cause.name(),
            generation = self.number,
            findings = refused.findings,
            "rules refused, those before stay in force: {}",
            refused.diagnostics.join("; ")
        );
        let first = refused.diagnostics.first().map_or("", String::as_str);
        self.health.set_rules_refused(Some(format!("new rules were refused: {first}")));
        let text = format!(
            "New rules were refused, those before stay in force (cause={} findings={} first={first})",
            cause.name(),
            refused.findings
        );
        let facts = [
            ("ringfence.cause", Fact::Text(cause.name().to_owned())),
            ("ringfence.diagnostics", Fact::List(refused.diagnostics.clone())),
            ("ringfence.findings", Fact::Number(refused.findings)),
        ];
        self.board.refused(refused);
        self.teller.tell(&self.refused, &text, &facts);
        self.wrong = Some(wrong);
    }

    fn count(&self, outcome: ReloadOutcome) {
        if let Some(counter) = self.metrics.rules_reloads.get(outcome as usize) {
            counter.inc();
        }
    }
}

/// Waits until files change; for ever if none are watched.
async fn changed(watcher: &mut Option<Watcher>) -> io::Result<()> {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// What is wrong, finding by finding.
fn findings(error: &DaemonError) -> Vec<String> {
    match error {
        DaemonError::Rules(error) => error.diagnostics().iter().map(ToString::to_string).collect(),
        DaemonError::RuleTests(failed) => failed.clone(),
        other => vec![other.to_string()],
    }
}
