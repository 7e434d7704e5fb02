//! What came of each layer: for the log, for `ringfence status`, and for metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{CANARY, refused};
use crate::metrics::{CONFINED, CONFINEMENT_REFUSED, MetricSpec, Samples, Source};

/// How long the first round of test calls may take, and how often it is looked meanwhile.
const FIRST_ROUND: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// What the daemon gives up, as the label `layer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Capabilities that are not needed any more.
    Capabilities,
    /// New privileges by the start of a program.
    NoNewPrivs,
    /// System calls that are not made.
    Seccomp,
    /// Files and ports that are not needed.
    Landlock,
}

impl Layer {
    /// All of them.
    pub const ALL: [Layer; 4] = [Layer::Capabilities, Layer::NoNewPrivs, Layer::Seccomp, Layer::Landlock];

    /// The word in settings, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Capabilities => "capabilities",
            Layer::NoNewPrivs => "no_new_privs",
            Layer::Seccomp => "seccomp",
            Layer::Landlock => "landlock",
        }
    }
}

/// What came of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    InForce,
    /// The configuration does not want it.
    SwitchedOff,
    /// It is not in force: why.
    Missing(String),
}

impl Outcome {
    pub(super) fn of(result: io::Result<()>) -> Self {
        result.map_or_else(|error| Outcome::Missing(error.to_string()), |()| Outcome::InForce)
    }

    fn text(&self) -> String {
        match self {
            Outcome::InForce => "in force".to_owned(),
            Outcome::SwitchedOff => "switched off".to_owned(),
            Outcome::Missing(why) => format!("missing: {why}"),
        }
    }
}

/// Threads that lack a layer, by name.
type Lacks = BTreeMap<Layer, Vec<String>>;

/// What the threads of this process lack, Landlock aside, of which the kernel does not tell.
fn lacks(keep: u64) -> Lacks {
    let mut lacks = Lacks::new();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for status in tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()) {
        for layer in lacking(&status, keep) {
            let name = value(&status, "Name").unwrap_or_default().to_owned();
            lacks.entry(layer).or_default().push(name);
        }
    }
    lacks
}

fn value<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
}

/// What the status of a thread lacks (`proc_pid_status` in fs/proc/array.c).
fn lacking(status: &str, keep: u64) -> Vec<Layer> {
    let mut lacking = Vec::new();
    // The test calls take none.
    let keep = if value(status, "Name") == Some(CANARY) { 0 } else { keep };
    let permitted = value(status, "CapPrm").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    if permitted.is_none_or(|permitted| permitted & !keep != 0) {
        lacking.push(Layer::Capabilities);
    }
    if value(status, "NoNewPrivs") != Some("1") {
        lacking.push(Layer::NoNewPrivs);
    }
    // Mode 2 is a filter; a kernel without filters says nothing.
    if value(status, "Seccomp") != Some("2") {
        lacking.push(Layer::Seccomp);
    }
    lacking
}

/// What came of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(BTreeMap<Layer, Outcome>);

impl Report {
    pub(super) fn set(&mut self, layer: Layer, outcome: Outcome) {
        self.0.insert(layer, outcome);
    }

    /// What every thread's status says counts, whoever saw to it: a layer that some thread is without is not in force. The
    /// thread that makes the test calls sets its filter itself, and gives its capabilities up with its first call; so
    /// this waits for a moment until all are as they should be. `keep`: the capabilities that may stay.
    pub(super) fn look_at_threads(&mut self, keep: u64) {
        let start = Instant::now();
        let mut lacks = lacks(keep);
        let is_due =
            |lacks: &Lacks| lacks.iter().any(|(layer, _)| self.0.get(layer) == Some(&Outcome::InForce));
        while is_due(&lacks) && start.elapsed() < FIRST_ROUND {
            sleep(LOOK);
            lacks = self::lacks(keep);
        }
        self.correct(&lacks);
    }

    fn correct(&mut self, lacks: &Lacks) {
        let is_off = self.0.values().all(|outcome| *outcome == Outcome::SwitchedOff);
        let no_new_privs = if is_off && lacks.contains_key(&Layer::NoNewPrivs) {
            Outcome::SwitchedOff
        } else {
            Outcome::InForce
        };
        self.set(Layer::NoNewPrivs, no_new_privs);
        for (layer, threads) in lacks {
            if let Some(outcome) = self.0.get_mut(layer).filter(|outcome| **outcome == Outcome::InForce) {
                *outcome = Outcome::Missing(format!("threads are without it: {}", threads.join(", ")));
            }
        }
    }

    /// Says in the log what is in force and what is not.
    pub(super) fn log(&self) {
        let of = |wanted: fn(&Outcome) -> bool| {
            let layers = self.0.iter().filter(|(_, outcome)| wanted(outcome));
            layers.map(|(layer, _)| layer.name()).collect::<Vec<_>>().join(", ")
        };
        for (layer, outcome) in &self.0 {
            if let Outcome::Missing(why) = outcome {
                tracing::warn!(
                    layer = layer.name(),
                    why,
                    "Ringfence cannot take this from itself: it watches all the same"
                );
            }
        }
        let (in_force, off) =
            (of(|outcome| *outcome == Outcome::InForce), of(|outcome| *outcome == Outcome::SwitchedOff));
        tracing::info!(in_force, switched_off = off, "Ringfence has confined itself");
    }

    /// Each layer's name, and what came of it.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(layer, outcome)| (layer.name().to_owned(), outcome.text())).collect()
    }
}

/// The report, once it is there.
pub type Said = Arc<OnceLock<Report>>;

impl Source for Said {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![&CONFINED, &CONFINEMENT_REFUSED]
    }

    fn sample(&self, out: &mut Samples) {
        for layer in Layer::ALL {
            let in_force = self.get().is_some_and(|report| report.0.get(&layer) == Some(&Outcome::InForce));
            out.push(&CONFINED, &[layer.name()], in_force.into());
        }
        out.push(&CONFINEMENT_REFUSED, &[], refused::total());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, permitted: u64, no_new_privs: u8, seccomp: u8) -> String {
        format!(
            "Name:\t{name}\nCapInh:\t0\nCapPrm:\t{permitted:016x}\nNoNewPrivs:\t{no_new_privs}\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n"
        )
    }

    #[test]
    fn what_a_thread_lacks_is_in_its_status() {
        assert_eq!(lacking(&status("reader", 0b100, 1, 2), 0b110), []);
        assert_eq!(lacking(&status("reader", 0b1100, 1, 2), 0b110), [Layer::Capabilities]);
        assert_eq!(lacking(&status("canary", 0b100, 1, 2), 0b110), [Layer::Capabilities]);
        assert_eq!(lacking(&status("canary", 0, 1, 0), 0b110), [Layer::Seccomp]);
        assert_eq!(
            lacking("Name:\tx\n", 0),
            [Layer::Capabilities, Layer::NoNewPrivs, Layer::Seccomp],
            "what is not told is not there"
        );
    }

    #[test]
    fn a_layer_that_one_thread_lacks_is_not_in_force() {
        let mut report = Report::default();
        report.set(Layer::Capabilities, Outcome::InForce);
        report.set(Layer::Seccomp, Outcome::InForce);
        report.set(Layer::Landlock, Outcome::SwitchedOff);
        report.correct(&Lacks::from([(Layer::Seccomp, vec!["canary".to_owned()])]));
        let texts = report.texts();
        assert_eq!(texts["seccomp"], "missing: threads are without it: canary");
        assert_eq!((&*texts["capabilities"], &*texts["no_new_privs"]), ("in force", "in force"));
        // What was not wanted is not missing.
        let mut off = Report::default();
        off.set(Layer::Seccomp, Outcome::SwitchedOff);
        off.correct(&Lacks::from([
            (Layer::Seccomp, vec!["canary".to_owned()]),
            (Layer::NoNewPrivs, vec!["canary".to_owned()]),
        ]));
        assert_eq!(off.texts()["seccomp"], "switched off");
        assert_eq!(off.texts()["no_new_privs"], "switched off");
    }
}
