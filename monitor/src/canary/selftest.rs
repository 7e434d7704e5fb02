//! `ringfence doctor --selftest`: all canaries once, with a pipeline that has no rules and no outputs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::COUNT;
use super::{Canaries, State, Trial};
use crate::attach::Attached;
use crate::config::{DEFAULT_PROCESS_TABLE_ENTRIES, DEFAULT_RING_BYTES};
use crate::enrich::names::Names;
use crate::enrich::users::Users;
use crate::pipeline::{self, Parts, Pipeline};
use crate::preflight::{Check, CheckState};
use crate::rules::{Priority, RuleSet};

/// Rounds: a cgroup's directory goes with the round after the one that made it.
const ROUNDS: usize = 2;
/// So many in all if some test is still out. A preemptible kernel may skip a probe now and then, which is not
/// blindness: what is blind stays out.
const MOST_ROUNDS: usize = 4;
/// How long a round may take. Nothing else waits for it, so there is time for slow machines.
const PATIENCE: Duration = Duration::from_secs(3);
const NAME: &str = "selftest";

/// Tests each hook and says how it went, one line for each. The trial was made before anything was attached.
pub fn checks(trial: Trial, attached: &mut Attached) -> Vec<Check> {
    match run(trial, attached) {
        Ok(canaries) => canaries.hooks.iter().map(|hook| check(hook, &canaries)).collect(),
        Err(why) => {
            let remedy = "`ringfence run` watches all the same, but does not notice when it goes blind";
            vec![Check::bad(NAME, CheckState::Fail, why, remedy)]
        }
    }
}

fn run(trial: Trial, attached: &mut Attached) -> Result<Canaries, String> {
    let canaries = Canaries::start(trial, attached, DEFAULT_RING_BYTES, None)?;
    let mut ring = attached.take_ring().ok_or("a map is missing from the object")?;
    let metrics = Arc::new(pipeline::metrics().map_err(|error| error.to_string())?);
    let mut pipeline = Pipeline::new(Parts {
        rules: RuleSet::from_sources(&[]).map_err(|error| error.to_string())?,
        min_priority: Priority::Debug,
        alert_why: false,
        process_entries: DEFAULT_PROCESS_TABLE_ENTRIES as usize,
        hierarchy: attached.hierarchy.clone(),
        outputs: Vec::new(),
        hostname: String::new(),
        names: Names::off(Arc::clone(&metrics)),
        users: Users::default(),
        metadata_wait: Duration::ZERO,
        metrics,
        canary: Some(canaries.matcher().map_err(|error| error.to_string())?),
        recorder: None,
    })
    .map_err(|error| error.to_string())?;
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && !canaries.is_any_out() {
            break;
        }
        canaries.order();
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !(canaries.is_done() && canaries.all_back()) {
            while let Some(record) = ring.next() {
                pipeline.handle(&record);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // What came between the last look and the end of the round.
        while let Some(record) = ring.next() {
            pipeline.handle(&record);
        }
    }
    let board = &canaries.board;
    for canary in (0..COUNT).filter(|canary| board.untested(*canary).is_none()) {
        if let Some(why) = board.may_never_come(canary) {
            board.excuse(canary, why.to_owned());
        }
    }
    Ok(canaries)
}

fn check(hook: &super::Hook, canaries: &Canaries) -> Check {
    let name = &hook.name;
    match hook.state(&canaries.board) {
        State::Up(trip_ns) => {
            let excuses = hook.excuses(&canaries.board);
            let mut detail = format!("{name}: ok, came back after {:.1} ms", trip_ns as f64 / 1e6);
            if let Some((_, why)) = excuses.first() {
                let calls: Vec<&str> = excuses.iter().map(|(call, _)| call.as_str()).collect();
                detail.push_str(&format!("; untested: {} ({why})", calls.join(", ")));
            }
            Check::ok(NAME, detail)
        }
        State::Untested(why) => {
            let remedy = format!("nobody notices when it goes blind: {}", hook.cost);
            Check::bad(NAME, CheckState::Warn, format!("{name}: untested: {why}"), remedy)
        }
        State::Silent(_) | State::Pending => {
            let cause = if hook.is_detached() { "its link is gone" } else { "the kernel did not report it" };
            let remedy =
                format!("{}; look at kernel.ftrace_enabled, and for programs that detach others'", hook.cost);
            Check::bad(
                NAME,
                CheckState::Fail,
                format!("{name}: blind: its test did not come back, {cause}"),
                remedy,
            )
        }
    }
}

impl Canaries {
    fn all_back(&self) -> bool {
        !self.is_any_out()
    }
}
