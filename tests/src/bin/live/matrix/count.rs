//! Cheap cells many times over: as many events as attempts, each with the right verdict.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use tests::attempt::{Attempt, Way};
use tests::harness::alerts::Expectation;
use tests::matrix::{Cell, cells};

use super::visit::{self, Once, Setting};
use crate::places::Suite;

/// Attempts that are made before their events are waited for. Each gives two lines of up to 2 KiB, and a sink's queue
/// holds 8 MiB: on a busy machine, whose reader of lines falls behind, nothing is dropped even so.
const AT_ONCE: u32 = 1000;

/// What came of a repeated attempt.
#[derive(Clone, Debug)]
struct Tally {
    ret: i64,
    odd: i64,
    /// Events by verdict and who refused.
    events: HashMap<(String, Option<String>), usize>,
}

type Tallies = HashMap<&'static str, Tally>;

/// What was counted so far.
#[derive(Default)]
pub(super) struct Counts {
    tallies: Once<Tallies>,
}

impl Counts {
    /// Holds the count of a cell's events against the number of its attempts.
    pub(super) fn check(
        &self,
        suite: &Suite,
        cell: &Cell,
        setting: Setting,
        attempt: &Attempt,
        repeats: u32,
    ) -> Result<(), String> {
        let tallies = {
            let mut known = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            let count = || Arc::new(count(suite, setting, cell.way));
            known.entry((setting, cell.way)).or_insert_with(count).clone()
        };
        let tallies = tallies.as_ref().as_ref().map_err(String::clone)?;
        let tally = tallies.get(attempt.name).ok_or("it was not repeated")?;
        if tally.odd != 0 {
            return Err(format!("{} of {repeats} answers differ from the first, {}", tally.odd, tally.ret));
        }
        let (verdict, by) = cell.outcome.verdict();
        let wanted = (verdict.to_owned(), by.map(str::to_owned));
        let seen = tally.events.get(&wanted).copied().unwrap_or(0);
        let others: usize = tally.events.values().sum::<usize>() - seen;
        // Before a capset that must be refused, one drops the capability.
        let drops = super::drops_itself(cell, attempt);
        if seen == repeats as usize && others == usize::from(drops) {
            return Ok(());
        }
        Err(format!("{repeats} attempts, events by verdict: {:?}; expected {wanted:?} alone", tally.events))
    }
}

/// Repeats the cheap attempts of a setting and a way.
fn count(suite: &Suite, setting: Setting, way: Way) -> Result<Tallies, String> {
    let daemon = suite.daemon()?;
    let settings = suite.settings();
    let mut by_count: HashMap<u32, Vec<&'static str>> = HashMap::new();
    let all = visit::names(setting, way, settings.guest, |cell| cell.repeats(settings.guest) > 1);
    for name in all {
        let of_name = cells().find(|cell| {
            matches!(cell.entry, tests::matrix::Entry::Attempt(of, _) if of == name) && cell.way == way
        });
        let count = of_name.map_or(1, |cell| cell.repeats(settings.guest));
        by_count.entry(count).or_default().push(name);
    }
    let mut tallies = Tallies::new();
    for (count, names) in by_count {
        for part in names.chunks((AT_ONCE / count).max(1) as usize) {
            let tallied =
                daemon.undisturbed_parts(part, &mut |part| tally(suite, setting, way, part, count))?;
            tallies.extend(tallied.into_iter().flatten());
        }
    }
    Ok(tallies)
}

/// Makes attempts, so many times each, and counts their events.
fn tally(
    suite: &Suite,
    setting: Setting,
    way: Way,
    names: &[&'static str],
    count: u32,
) -> Result<Vec<(&'static str, Tally)>, String> {
    let daemon = suite.daemon()?;
    let visit = visit::make(suite.settings(), setting, way, names, count)?;
    visit::settle(suite.settings(), daemon)?;
    let mut tallies = Vec::new();
    for name in names {
        let attempt = super::by_name(name)?;
        let made = visit.made_of(attempt, way.abi()).ok_or_else(|| format!("{name} was not made"))?;
        let own = Expectation::new()
            .is("rule", format!("Suite {}", attempt.call.name()))
            .is("proc.vpid", made.pid)
            .is("cgroup.id", visit.cgroup_id)
            .is("evt.type", attempt.call.name());
        let mut tally = Tally { ret: made.ret, odd: made.odd, events: HashMap::new() };
        daemon.inbox().each(&own, |alert| {
            let verdict = alert.get("evt.verdict").unwrap_or_default();
            *tally.events.entry((verdict, alert.get("evt.refused_by"))).or_default() += 1;
        });
        tallies.push((*name, tally));
    }
    // By the hundred thousand they would fill the memory.
    daemon.inbox().forget(&Expectation::new().is("container.id", visit.short_id()));
    Ok(tallies)
}
