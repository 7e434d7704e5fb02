//! A thousand short containers: each one's alert names it; and two hundred whole lives of containers, with all that
//! people do to them: no alert above `notice`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use libtest_mimic::Trial;
use tests::attempt::mark;
use tests::cri;
use tests::docker::{Engine, IMAGE};
use tests::engine_api::Plan;
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, MOST_TURNS, PATIENCE, Settings};
use tests::many::{self, Made, Tally};
use tests::state::Config;

use crate::benign::{self, Part};
use crate::corpus::loud;
use crate::places::Suite;

/// Containers of the engine.
const OF_ENGINE: usize = 1000;
/// Containers of a runtime in a guest, when these are asked for by name: each takes an emulated processor half a second
/// or more, so `cargo xtask test` asks for the smaller number.
const OF_RUNTIME: [(&str, usize); 2] =
    [("many::crun_names_each_of_200", 200), ("many::crun_names_each_of_1000", 1000)];
/// The same in every guest.
const FEW_OF_RUNTIME: usize = 4;
/// Begins a fault that may come of that.
const SKIPPED: &str = "the kernel skipped probes";
/// Containers that live whole lives, and images that are built.
const LIVES: usize = 200;

/// Names of one image: an alert with another's would pass unseen if all had the same.
const TAGS: [&str; 4] =
    ["ringfence-suite-a:1", "ringfence-suite-b:2", "ringfence-suite-c:3", "ringfence-suite-d:4"];

pub(crate) fn trials(suite: &Arc<Suite>, asked_for: &str) -> Vec<Trial> {
    if !suite.settings().guest {
        return vec![
            suite.trial("many::docker_names_each_of_1000", of_engine),
            suite.trial("many::docker_lives_of_200_stay_quiet", lives),
        ];
    }
    let of = |name: &str, count| suite.trial(name, move |suite| of_runtime(suite.settings(), count));
    let mut trials = vec![of("many::crun_names_each_of_a_few", FEW_OF_RUNTIME)];
    for (name, count) in OF_RUNTIME {
        // Minutes of a guest's time: only where they are asked for.
        if asked_for.split(',').any(|part| part == name) {
            trials.push(of(name, count));
        }
    }
    trials
}

/// Waits until the mark of each container has come, or no more will.
fn await_marks(daemon: &Daemon, numbers: impl Iterator<Item = u32>) {
    let end = Instant::now() + PATIENCE;
    for number in numbers {
        let came = Expectation::new().is("evt.args", mark::arguments(number));
        let left = end.saturating_duration_since(Instant::now());
        // What is missing is found when all are counted.
        let _ = daemon.inbox().expect(&came, left);
    }
}

/// Stops the daemon and holds its alerts against the containers that were made.
pub(crate) fn judge(daemon: Daemon, made: &BTreeMap<u32, Made>, since: Instant) -> Result<(), String> {
    await_marks(&daemon, made.keys().copied());
    let metrics = daemon.metrics()?;
    let ended = daemon.stop()?;
    ended.check()?;
    let tally = Tally::of(made, &ended.alerts);
    println!(
        "  {} containers in {:.0} s, {} alerts, {} named",
        made.len(),
        since.elapsed().as_secs_f64(),
        ended.alerts.len(),
        tally.named
    );
    tally.check(made.len()).map_err(|fault| {
        let rules = Tally::by_rule(&ended.alerts);
        let counts = [
            "ringfence_metadata",
            "ringfence_events_waited",
            "ringfence_events_lost",
            "ringfence_probe_missed",
        ]
        .map(|prefix| metrics.lines(prefix));
        let counts: Vec<&str> =
            counts.iter().flat_map(|lines| lines.lines()).filter(|line| !line.ends_with(" 0")).collect();
        format!("{fault}\n{rules}{}", counts.join("\n"))
    })?;
    // A container that makes its one attempt does nothing else that is loud.
    let marks = |alert: &Alert| alert.get("evt.args").is_some_and(|text| mark::number(&text).is_some());
    loud(ended.everything().filter(|alert| !marks(alert)))
}

fn of_engine(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    for tag in TAGS {
        engine.client(&["tag", IMAGE, tag]).map_err(|error| error.to_string())?;
    }
    let daemon = start(suite, engine)?;
    let api = engine.api();
    let since = Instant::now();
    let made = many::make(OF_ENGINE, |number| {
        let (name, image) = (format!("many-{number}"), TAGS[number as usize % TAGS.len()]);
        let id =
            api.create(&Plan { name: &name, image, command: &["/attempt", "mark", &number.to_string()] })?;
        api.start(&id)?;
        let code = api.wait(&id)?;
        api.remove(&id)?;
        if code != 0 {
            return Err(io::Error::other(format!("{name} ended with {code}")));
        }
        Ok(Made { id, named: vec![("container.name", name), ("container.image", image.to_owned())] })
    });
    judge(daemon, &made.map_err(|error| error.to_string())?, since)
}

/// The daemon under the shipped rules, told where the engine has its state.
fn start(suite: &Suite, engine: &Engine) -> Result<Daemon, String> {
    let shipped = suite.settings().rules.display().to_string();
    // Read before the daemon is ready.
    let config = Config::docker(&engine.state()).map_err(|error| error.to_string())?;
    Daemon::start(suite.settings(), &["--rules", &shipped, "--config", &config.path()])
}

/// The same by a runtime alone, from bundles as containerd makes them for Kubernetes. What failed while the kernel
/// skipped probes is done again: that proves nothing.
fn of_runtime(settings: &Settings, count: usize) -> Result<(), String> {
    let mut turns = 1;
    loop {
        match of_runtime_once(settings, count) {
            Err(fault) if fault.starts_with(SKIPPED) && turns < MOST_TURNS => turns += 1,
            judged => return judged,
        }
    }
}

fn of_runtime_once(settings: &Settings, count: usize) -> Result<(), String> {
    let host = cri::Host::new(&settings.attempt).map_err(|error| error.to_string())?;
    let shipped = settings.rules.display().to_string();
    let config = Config::new(&[("containerd_roots", &[host.state()])]).map_err(|error| error.to_string())?;
    // Canaries of a daemon on an emulated processor that has much to do may come too late.
    let config = config.path();
    let options = ["--rules", &shipped, "--config", &config, "--canary-interval-ms", "off"];
    let daemon = Daemon::start(settings, &options)?;
    let since = Instant::now();
    let made = many::make(count, |number| host.run(number));
    let skipped = daemon.skipped()?;
    match judge(daemon, &made.map_err(|error| error.to_string())?, since) {
        // What joined a container, or began in it, may have gone unseen.
        Err(fault) if skipped > 0 => Err(format!("{SKIPPED}: {fault}")),
        judged => judged,
    }
}

/// Whole lives: made, started, entered, frozen and thawed, stopped, removed; and images built by a step that runs.
fn lives(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let daemon = start(suite, engine)?;
    let (since, turn) = (Instant::now(), AtomicUsize::new(0));
    let api = engine.api();
    let lived = many::make(2 * LIVES, |number| {
        // Lives and builds take turns, so that they meet.
        if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            build(engine, number)?;
            return Ok(Made { id: number.to_string(), named: Vec::new() });
        }
        let name = format!("life-{number}");
        // The first process of a container is not ended by a signal that it has no handler for.
        let script = "trap 'exit 0' TERM; sleep 600 & wait";
        let id = api.create(&Plan { name: &name, image: IMAGE, command: &["/bin/sh", "-c", script] })?;
        api.start(&id)?;
        api.exec(&id, &["/bin/ls", "/"])?;
        api.freeze(&id, true)?;
        api.freeze(&id, false)?;
        api.stop(&id)?;
        api.remove(&id)?;
        Ok(Made { id, named: Vec::new() })
    });
    let lived = lived.map_err(|error| error.to_string())?;
    println!("  {} lives and builds in {:.0} s", lived.len(), since.elapsed().as_secs_f64());
    // One mark after all shows that what came before has come, and that the rules were in force.
    let number = mark::FIRST + 3 * LIVES as u32;
    let last = api
        .create(&Plan { name: "last", image: IMAGE, command: &["/attempt", "mark", &number.to_string()] })
        .and_then(|id| api.start(&id).map(|()| id))
        .and_then(|id| api.wait(&id).map(|_| id))
        .and_then(|id| api.remove(&id).map(|()| id))
        .map_err(|error| error.to_string())?;
    let mark = Expectation::new().is("evt.args", mark::arguments(number)).is("container.id", &last[..12]);
    daemon.expect(&mark)?;
    let metrics = daemon.metrics()?;
    let ended = daemon.stop()?;
    ended.check()?;
    let came: Vec<&Alert> = ended.everything().filter(|alert| !mark.fits(alert)).collect();
    let what = "whole lives of containers (created, started, entered, frozen and thawed, stopped, removed), \
                and as many images built by a step that runs a program";
    // Each image was built in a container of its own, and the mark made in one.
    let part = Part { what, containers: lived.len() as u64 + 1, engine: Some(engine) };
    benign::record(suite.settings(), &part, &metrics, &came)?;
    loud(came.into_iter())
}

/// Builds an image with a step that runs a program in a container.
fn build(engine: &Engine, number: u32) -> io::Result<()> {
    let context = tempfile::tempdir()?;
    let steps = format!("FROM {IMAGE}\nRUN [\"/bin/sh\", \"-c\", \"echo {number} > /built\"]\n");
    std::fs::write(context.path().join("Dockerfile"), steps)?;
    let (tag, context) = (format!("built:{number}"), context.path().display().to_string());
    engine.client(&["build", "--quiet", "--network", "none", "--tag", &tag, &context])?;
    engine.client(&["rmi", "--force", &tag]).map(drop)
}
