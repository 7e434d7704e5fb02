//! The matrix, cell by cell: each is made in its setting, judged in every field, and repeated and counted.
//!
//! A setting is a cgroup named as a container's, with something in it that refuses. The attempts of one setting and
//! one way are made together, once for the judge and, if cheap, many times for the count.

mod count;
mod programs;
mod visit;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use monitor_common::call::{Abi, Call};
use tests::attempt::{self, Attempt, Want, Way, errno_name};
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation, Must};
use tests::matrix::record::{self, Machine};
use tests::matrix::{Cell, Entry, Outcome, cells};

use crate::judge;
use crate::places::{self, Made, Suite, Visit};
use visit::Setting;

/// The rules of the suite, which match every event, begin so.
const SUITE: &str = "Suite ";

/// What the trials of all cells share.
pub(crate) struct Matrix {
    suite: Arc<Suite>,
    visits: visit::Visits,
    counts: count::Counts,
    /// Lines of the record, by the cell's place in the table.
    results: Mutex<BTreeMap<usize, record::Result>>,
}

impl Matrix {
    pub(crate) fn new(suite: Arc<Suite>) -> Matrix {
        Matrix {
            suite,
            visits: visit::Visits::default(),
            counts: count::Counts::default(),
            results: Mutex::new(BTreeMap::new()),
        }
    }

    fn guest(&self) -> bool {
        self.suite.settings().guest
    }

    /// Makes one cell and keeps what came of it for the record.
    fn perform(&self, place: usize, cell: &Cell) -> Result<(), String> {
        let result = match self.judge(cell) {
            Ok(result) => result,
            Err(fault) => record::Result::Fail(fault),
        };
        let fault = match &result {
            record::Result::Fail(fault) => Err(fault.clone()),
            _ => Ok(()),
        };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(place, result);
        fault
    }

    fn judge(&self, cell: &Cell) -> Result<record::Result, String> {
        let setting = Setting::of(cell.outcome);
        if let Some(reason) = setting.missing(cell.way) {
            return Ok(record::Result::Impossible(reason.to_owned()));
        }
        match cell.entry {
            Entry::Never(_) | Entry::Unwatched(_) => Err("nothing is made for it".to_owned()),
            Entry::Program(command, rule) => programs::judge(&self.suite, cell, setting, command, rule),
            Entry::Attempt(name, rule) => {
                let attempt = by_name(name)?;
                if attempt.guest_only && !self.guest() {
                    let reason = "natively this would change the machine: it is made in guests only";
                    return Ok(record::Result::Impossible(reason.to_owned()));
                }
                let visits = self.visits.get(&self.suite, setting, cell.way);
                let (visit, made) = places::made(&visits, attempt, cell.way.abi())?;
                self.judge_attempt(cell, setting, attempt, rule, visit, made)
            }
            Entry::Blind(name, reason) | Entry::Silent(name, reason) => {
                let attempt = by_name(name)?;
                let visits = self.visits.get(&self.suite, setting, cell.way);
                let (visit, made) = places::made(&visits, attempt, cell.way.abi())?;
                let events = self.events(visit, made)?;
                if let Some((_, what)) = cell.door.lacks.filter(|_| lacks(cell, made)) {
                    return Ok(record::Result::Impossible(what.to_owned()));
                }
                // It must be what the cell says, and only not seen.
                want(cell.outcome, made)?;
                if !events.is_empty() {
                    return Err(format!("seen now, so the table is out of date:\n{}", show(&events)));
                }
                Ok(match cell.entry {
                    Entry::Blind(..) => record::Result::Blind(reason.to_owned()),
                    _ => record::Result::Impossible(reason.to_owned()),
                })
            }
        }
    }

    /// The suite's alerts of an attempt's process.
    fn events(&self, visit: &Visit, made: &Made) -> Result<Vec<Alert>, String> {
        let of_caller = Expectation::new()
            .is("proc.vpid", made.pid)
            .is("cgroup.id", visit.cgroup_id)
            .must("rule", judge::suite_rule_names());
        Ok(self.suite.daemon()?.inbox().fitting(&of_caller))
    }

    fn judge_attempt(
        &self,
        cell: &Cell,
        setting: Setting,
        attempt: &Attempt,
        rule: &str,
        visit: &Visit,
        made: &Made,
    ) -> Result<record::Result, String> {
        let events = self.events(visit, made)?;
        let lacking = lacks(cell, made).then_some(cell.door.lacks).flatten();
        let want = if lacking.is_some() { Want::Failed(-made.ret as i32) } else { want(cell.outcome, made)? };
        let answer = if made.ret < 0 { errno_name(-made.ret as i32) } else { "SUCCESS" };
        // A missing file is no wall.
        let expected = usize::from(made.ret != -i64::from(libc::ENOENT));
        check_count(cell, attempt, expected, &events)
            .map_err(|fault| format!("{fault} (the kernel answered {answer})"))?;
        let daemon = self.suite.daemon()?;
        judge::check_child(daemon, visit, attempt, made)?;
        if expected == 1 {
            let of_caller = Expectation::new().is("proc.vpid", made.pid).is("cgroup.id", visit.cgroup_id);
            let abi: Abi = cell.way.abi();
            let event = judge::describe(visit, attempt, abi, made, answer, &[want], of_caller);
            let own = daemon.inbox().expect(&event, std::time::Duration::ZERO)?;
            if lacking.is_none() {
                check_rules(daemon, &own, rule)?;
            }
        }
        if let Some((_, what)) = lacking {
            return Ok(record::Result::Impossible(what.to_owned()));
        }
        let repeats = cell.repeats(self.guest());
        if repeats > 1 {
            self.counts.check(&self.suite, cell, setting, attempt, repeats)?;
        }
        Ok(record::Result::Pass(repeats))
    }

    /// Writes the record, if one was asked for.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Some(path) = &self.suite.settings().record else { return Ok(()) };
        let machine = Machine::here(&self.suite.settings().attach, self.guest());
        let results = self.results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let table: Vec<Cell> = cells().collect();
        let mut text = String::new();
        for (place, result) in &results {
            // What cannot be anywhere stands in the native record; a console is slow.
            if self.suite.settings().guest
                && table
                    .get(*place)
                    .is_some_and(|cell| matches!(cell.entry, Entry::Never(_) | Entry::Unwatched(_)))
            {
                continue;
            }
            // Writing to a string cannot fail.
            let _ = table.get(*place).map(|cell| writeln!(text, "{}", machine.line(cell, result)));
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn by_name(name: &str) -> Result<&'static Attempt, String> {
    attempt::by_name(name).ok_or_else(|| format!("no attempt is called {name}"))
}

/// Whether the kernel's answer says that it was built without what the door leads to.
fn lacks(cell: &Cell, made: &Made) -> bool {
    cell.outcome != Outcome::Failed && cell.door.lacks.is_some_and(|(errno, _)| made.ret == -i64::from(errno))
}

/// The judge's expectation for an outcome, if the kernel's answer fits it at all.
fn want(outcome: Outcome, made: &Made) -> Result<Want, String> {
    use monitor_common::verdict::RefusedBy;
    let errno = -made.ret as i32;
    let refusal = [libc::EPERM, libc::EACCES].contains(&errno);
    let want = match outcome {
        Outcome::Allowed if made.ret >= 0 => Some(Want::Allowed),
        Outcome::Failed if made.ret < 0 && !refusal => Some(Want::Failed(errno)),
        Outcome::Seccomp if refusal || errno == libc::ENOSYS => {
            Some(Want::Refused(RefusedBy::Seccomp, errno))
        }
        Outcome::Capability if refusal => Some(Want::Refused(RefusedBy::Capability, errno)),
        Outcome::Lsm if refusal => Some(Want::Refused(RefusedBy::Lsm, errno)),
        Outcome::DeviceCgroup if refusal => Some(Want::Refused(RefusedBy::DeviceCgroup, errno)),
        _ => None,
    };
    let answer = if made.ret < 0 { errno_name(errno) } else { "success" };
    want.ok_or_else(|| format!("the kernel answered {answer} ({}), expected: {}", made.ret, outcome.name()))
}

/// Whether the process that makes a capset has made another before, to drop the capability. The 32-bit program has not.
fn drops_itself(cell: &Cell, attempt: &Attempt) -> bool {
    attempt.drops && attempt.call == Call::Capset && cell.way != Way::Elf32
}

/// Exactly one event of the attempt's call, and nothing else but the capset by which capabilities were dropped.
fn check_count(cell: &Cell, attempt: &Attempt, expected: usize, events: &[Alert]) -> Result<(), String> {
    let (own, others): (Vec<&Alert>, Vec<&Alert>) =
        events.iter().partition(|alert| alert.get("evt.type").as_deref() == Some(attempt.call.name()));
    let own_drop = drops_itself(cell, attempt);
    let others_fit = others.len() <= usize::from(attempt.drops && !own_drop)
        && others.iter().all(|alert| alert.get("evt.type").as_deref() == Some("capset"));
    if own.len() == expected + usize::from(own_drop) && others_fit {
        return Ok(());
    }
    Err(format!(
        "{} events of {} instead of {expected}, and {} others:\n{}",
        own.len(),
        attempt.call.name(),
        others.len(),
        show(events)
    ))
}

/// Of the shipped rules exactly this one has fired on the event that the suite's alert `own` is about.
fn check_rules(daemon: &Daemon, own: &Alert, rule: &str) -> Result<(), String> {
    let mut same = Expectation::new();
    for key in ["evt.type", "proc.pid"] {
        same = same.must(key, own.get(key).map_or(Must::BeAbsent, Must::Be));
    }
    let fired: Vec<String> = daemon
        .inbox()
        .fitting(&same)
        .iter()
        .filter(|alert| alert.json.get("time") == own.json.get("time"))
        .filter_map(|alert| alert.get("rule"))
        .filter(|name| !name.starts_with(SUITE))
        .collect();
    if fired == [rule] {
        Ok(())
    } else {
        Err(format!("of the shipped rules {fired:?} fired, expected {rule:?}"))
    }
}

fn show(events: &[Alert]) -> String {
    events.iter().filter_map(|alert| alert.get("output")).map(|line| format!("  {line}\n")).collect()
}

/// One trial for each cell that can be made; the others go into the record at once.
pub(crate) fn trials(matrix: &Arc<Matrix>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (place, cell) in cells().enumerate() {
        let unmade = match cell.entry {
            Entry::Never(reason) => Some(record::Result::Impossible(reason.to_owned())),
            Entry::Unwatched(reason) => Some(record::Result::Unwatched(reason.to_owned())),
            _ => None,
        };
        if let Some(unmade) = unmade {
            matrix.results.lock().unwrap_or_else(PoisonError::into_inner).insert(place, unmade);
            continue;
        }
        let matrix = matrix.clone();
        trials.push(Trial::test(cell.name(), move || matrix.perform(place, &cell).map_err(Failed::from)));
    }
    trials
}
