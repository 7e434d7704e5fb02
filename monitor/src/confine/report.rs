//! What came of each layer: for the log, for `ringfence status`, and for metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{Arc, OnceLock};

use super::refused;
use crate::metrics::{CONFINED, CONFINEMENT_REFUSED, MetricSpec, Samples, Source};

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

/// What came of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(BTreeMap<Layer, Outcome>);

impl Report {
    pub(super) fn set(&mut self, layer: Layer, outcome: Outcome) {
        self.0.insert(layer, outcome);
    }

    /// What every thread's status says of new privileges counts, whoever saw to it.
    pub(super) fn look_at_threads(&mut self) {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let without = statuses.filter(|status| !status.contains("NoNewPrivs:\t1\n")).count();
        let outcome = match without {
            0 => Outcome::InForce,
            _ if self.0.values().all(|outcome| *outcome == Outcome::SwitchedOff) => Outcome::SwitchedOff,
            without => Outcome::Missing(format!("{without} threads are without it")),
        };
        self.set(Layer::NoNewPrivs, outcome);
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
