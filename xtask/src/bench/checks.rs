//! What a capability check costs while Ringfence counts it, and what a call pays that checks nothing.
//!
//! Every call pays for the probes of all calls, in the tracepoint mode. A check's own cost is what a call with one check
//! pays, less what a call without one pays: both are measured without Ringfence, with it, and with another daemon if
//! there is one, in turn within each round.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::daemon::{Alerts, Daemon};
use super::measure::{per_call, row};
use super::{Row, Setting, Target};

/// Calls of `attempt spin`: without a check, with one that is allowed, with one that is denied.
const CALLS: [&str; 3] = ["getppid", "checked", "denied"];

/// Who watches while calls are made.
#[derive(Clone, Copy)]
enum Watcher<'a> {
    Nobody,
    Program(&'a Path),
}

/// Nanoseconds per call of [`CALLS`], a sample for each round.
type Samples = [Vec<f64>; 3];

/// Measures both daemons and none.
pub(super) fn measure(setting: &Setting) -> Result<Vec<Row>> {
    println!("bench: a capability check without and with Ringfence");
    let mut watchers = vec![Watcher::Nobody, Watcher::Program(&setting.ringfence)];
    watchers.extend(setting.against.as_deref().map(Watcher::Program));
    let mut samples: Vec<Samples> = vec![Samples::default(); watchers.len()];
    for round in 0..setting.rounds {
        // Odd rounds the other way round, so that a drift of the machine favours nobody.
        let mut order: Vec<usize> = (0..watchers.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let new = watched(setting, watchers[index])?;
            for (all, new) in samples[index].iter_mut().zip(new) {
                all.push(new);
            }
        }
    }
    Ok(rows(&samples))
}

fn watched(setting: &Setting, watcher: Watcher<'_>) -> Result<[f64; 3]> {
    let daemon = match watcher {
        Watcher::Nobody => None,
        Watcher::Program(program) => {
            let alerts = Alerts::File(File::create(setting.dir.join("alerts.jsonl"))?);
            let daemon = Daemon::start_program(setting, program, alerts)?;
            thread::sleep(Duration::from_secs(1));
            Some(daemon)
        }
    };
    let mut measured = [0.0; 3];
    for (value, call) in measured.iter_mut().zip(CALLS) {
        *value = per_call(setting, call)?;
    }
    daemon.map_or(Ok(()), Daemon::stop)?;
    Ok(measured)
}

/// What each round's samples say, by pairs of the same round.
fn rows(samples: &[Samples]) -> Vec<Row> {
    let mut rows = Vec::new();
    let [bare, with, against @ ..] = samples else { return rows };
    let names = [
        ["call without a check, bare", "call without a check, watched", "call without a check, ratio"],
        ["call with a check, bare", "call with a check, watched", "call with a check, ratio"],
        [
            "call with a denied check, bare",
            "call with a denied check, watched",
            "call with a denied check, ratio",
        ],
    ];
    for (call, names) in names.into_iter().enumerate() {
        rows.push(row(names[0], "ns", None, bare[call].clone()));
        rows.push(row(names[1], "ns", None, with[call].clone()));
        rows.push(row(names[2], "x", None, paired(&with[call], &bare[call], |with, bare| with / bare)));
    }
    let target = Some(Target::AtMost(60.0));
    for (name, call) in [("an allowed check", 1), ("a denied check", 2)] {
        rows.push(row(name, "ns", target, own_cost(with, bare, call)));
    }
    if let [other] = against {
        // What a call pays for a check that it does not make: nothing more than before, but for the noise of a round.
        let more = paired(&with[0], &other[0], |with, other| with - other);
        rows.push(row("call without a check, against", "ns", None, other[0].clone()));
        rows.push(row("call without a check, more", "ns", Some(Target::AtMost(NOISE_NS)), more));
        for (name, call) in [("an allowed check, against", 1), ("a denied check, against", 2)] {
            rows.push(row(name, "ns", None, own_cost(other, bare, call)));
        }
    }
    rows
}

/// What two measurements of the same thing differ by on a quiet machine.
const NOISE_NS: f64 = 3.0;

/// What a check adds to what every call pays.
fn own_cost(with: &Samples, bare: &Samples, call: usize) -> Vec<f64> {
    let every = paired(&with[0], &bare[0], |with, bare| with - bare);
    let checked = paired(&with[call], &bare[call], |with, bare| with - bare);
    paired(&checked, &every, |checked, every| checked - every)
}

fn paired(one: &[f64], other: &[f64], of: fn(f64, f64) -> f64) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| of(*one, *other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_costs_what_its_call_pays_beyond_what_every_call_pays() {
        let bare = [vec![100.0, 110.0], vec![200.0, 210.0], vec![220.0, 230.0]];
        let with = [vec![130.0, 150.0], vec![270.0, 300.0], vec![250.0, 270.0]];
        assert_eq!(own_cost(&with, &bare, 1), [40.0, 50.0]);
        assert_eq!(own_cost(&with, &bare, 2), [0.0, 0.0]);
        let rows = rows(&[bare, with]);
        let check = rows.iter().find(|row| row.name == "an allowed check").map(|row| row.value);
        assert_eq!(check, Some(45.0));
    }
}
