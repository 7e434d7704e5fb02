//! The capability ledger at its limits, against numbers of checks that are known: a container that churns through
//! capabilities, ten thousand cgroups, a map that is full. Each check is in its row, or counted as one that found no room.
//!
//! Other programs of the machine are checked, too. What must be exact of the whole machine is asked of
//! [`crate::capability_counts::QUIET`] capabilities alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use monitor_common::capability::cap_flag;
use monitor_common::caps::Cap;
use serde_json::Value;
use tests::features;
use tests::harness::Settings;

use crate::capability::Told;
use crate::capability_counts::{
    Asked, Below, Numbers, Sides, add, await_said, await_told, begin, container, counted, end, hold, is_look,
    quiet, said_of, sides, started, text,
};
use crate::capability_full::full;
use crate::cases::cases;
use crate::shared::{self, Case, Life};

/// For how long rows of a removed cgroup stay in the kernel's map (`GRACE_NS` of the daemon).
const GRACE: Duration = Duration::from_secs(30);

/// A daemon that several cases use one after the other.
const LIFE: Life<Running> =
    Life { start, last: "capability-limits::rows_of_removed_cgroups_leave", end: rows_leave };
/// The same in guests, where nobody waits for rows to leave: the wait takes as long there, on each of their kernels, and
/// nothing of it is a matter of the kernel.
const LIFE_IN_GUESTS: Life<Running> = Life {
    start,
    last: "capability-limits::the_daemon_ends_well",
    end: |_, running| running.told.daemon.stop()?.check(),
};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    // Guests take minutes for them. The oldest kernel has other ways to what they rest on (no typed loads, and helpers in
    // place of them); the maps are the same on all.
    if settings.guest && features::running().is_some_and(|version| version >= (5, 15)) {
        return Vec::new();
    }
    let life = if settings.guest { LIFE_IN_GUESTS } else { LIFE };
    let of_one: [(&str, Case<Running>); 2] = [
        ("capability-limits::each_of_many_cgroups_is_exact", many),
        ("capability-limits::churn_through_all_capabilities_is_exact", churn),
    ];
    let mut trials = shared::trials(settings, life, &of_one);
    // While the rows of the many must stay.
    let last = trials.pop();
    if !settings.guest {
        trials.extend(cases(settings, &[("capability-limits::a_full_map_counts_what_it_lacks", full)]));
    }
    trials.extend(last);
    trials
}

struct Running {
    told: Told,
    removed: Mutex<Option<Removed>>,
}

/// Cgroups that were removed, and the container that they were of.
struct Removed {
    container: String,
    cgroups: HashMap<u64, Asked>,
    /// The daemon had noticed by then.
    at: Instant,
    /// What it said of the container.
    told: Value,
}

impl Removed {
    /// How many rows of these there are.
    fn rows(&self, told: &Told) -> Result<usize, String> {
        let rows = told.every_row()?;
        Ok(rows.iter().filter(|(key, _)| !is_look(key) && self.cgroups.contains_key(&key.cgroup_id)).count())
    }
}

fn start(settings: &Settings) -> Result<Running, String> {
    // Nothing is told: it is the numbers that count.
    let rules = "- rule: None\n  id: none\n  desc: None.\n  condition: evt.type = reboot\n  output: none\n  priority: NOTICE\n";
    Ok(Running { told: started(settings, rules)?, removed: Mutex::default() })
}

/// Two programs of a container at once ask for every capability, in turns with it and without.
fn churn(settings: &Settings, Running { told, .. }: &Running) -> Result<(), String> {
    let rounds = if settings.guest { "30" } else { "500" };
    let before = Numbers::of(settings, told)?;
    let (id, cgroup) = container("churn")?;
    let children =
        [begin(settings, &cgroup, &["--rounds", rounds])?, begin(settings, &cgroup, &["--rounds", rounds])?];
    let mut made = Sides::new();
    for child in children {
        add(&mut made, &sides(&end(child)?["home"])?, 1);
    }
    let own = cgroup.id().map_err(text)?;
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(&before);
    let found = counted(&rows, |id| id == own)?;
    hold("rows", &found, &made, since.skipped)?;
    hold("metrics", &quiet(&since.counted), &quiet(&made), since.skipped)?;
    let all = made
        .iter()
        .all(|(key, count)| since.counted.get(key).is_some_and(|all| all + since.skipped >= *count));
    if !all || !quiet(&since.uncounted).is_empty() {
        return Err(format!(
            "made {made:?}, but counted {:?} and uncounted {:?}",
            since.counted, since.uncounted
        ));
    }
    await_said(settings, told, &id, &made, since.skipped)?;
    let asked = made.keys().map(|(cap, _)| cap).collect::<BTreeSet<_>>().len();
    println!("  {} checks for {asked} capabilities", made.values().sum::<u64>());
    // Fewer would be no churn: the kernel lacks the calls.
    if asked < 25 { Err(format!("only {asked} capabilities were asked for")) } else { Ok(()) }
}

/// One container makes ten thousand cgroups of its own, and asks in each: its program is in none of them a visitor.
fn many(settings: &Settings, running: &Running) -> Result<(), String> {
    let told = &running.told;
    let count: u64 = if settings.guest { 500 } else { 10_000 };
    let before = Numbers::of(settings, told)?;
    let (id, cgroup) = container("many")?;
    let (mut below, said) = Below::tour(settings, &cgroup, count, &["--only", "CAP_LEASE"])?;
    let cgroups = std::mem::take(&mut below.cgroups);
    let rows = told.every_row()?;
    let since = Numbers::of(settings, told)?.since(&before);
    let (mut made, mut found) = (Sides::new(), Sides::new());
    for Asked { denied, count } in cgroups.values() {
        *made.entry((Cap::Lease as u16, *denied)).or_default() += count;
    }
    let mut rows_at_first = 0;
    for (key, count) in rows.iter().filter(|(key, _)| !is_look(key)) {
        let Some(asked) = cgroups.get(&key.cgroup_id) else { continue };
        let flags = key.flags & !cap_flag::MAYBE_SILENT;
        let wanted = if asked.denied { cap_flag::DENIED } else { 0 };
        if key.cap != Cap::Lease as u16
            || flags != wanted
            || *count > asked.count
            || *count + since.skipped < asked.count
        {
            return Err(format!("{key:?}: {count} instead of {}", asked.count));
        }
        *found.entry((key.cap, asked.denied)).or_default() += count;
        rows_at_first += 1;
    }
    // What is in no row found no room.
    let mut both = found.clone();
    add(&mut both, &quiet(&since.uncounted), 1);
    hold("rows and uncounted", &both, &made, since.skipped)?;
    let mut all = sides(&said["home"])?;
    add(&mut all, &found, 1);
    hold("metrics", &quiet(&since.counted), &quiet(&all), since.skipped)?;
    let told_of = await_said(settings, told, &id, &all, since.skipped)?;
    println!(
        "  {count} cgroups, {} checks counted of {}",
        found.values().sum::<u64>(),
        made.values().sum::<u64>()
    );
    let since = Instant::now();
    drop(below);
    cgroup.remove().map_err(text)?;
    let ended = |said: &Value| if said["running"] == false { Ok(()) } else { Err("it runs".to_owned()) };
    await_told(settings, &told.daemon, &id, ended)?;
    let removed = Removed { container: id, cgroups, at: Instant::now(), told: told_of };
    let left = removed.rows(told)?;
    // On a machine that is too slow for it this shows nothing.
    if since.elapsed() < GRACE && left != rows_at_first {
        return Err(format!("{left} rows of {rows_at_first} are left just after their cgroups were removed"));
    }
    *running.removed.lock().unwrap_or_else(PoisonError::into_inner) = Some(removed);
    Ok(())
}

/// Rows of cgroups that are gone stay for a while, and then make room; what they told stays.
fn rows_leave(settings: &Settings, running: Running) -> Result<(), String> {
    let taken = || running.removed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let removed = match taken() {
        Some(removed) => removed,
        None => {
            // Asked for alone.
            many(settings, &running)?;
            taken().ok_or("nothing was removed")?
        }
    };
    let Running { told, .. } = running;
    // That time is what is tested.
    std::thread::sleep(GRACE.saturating_sub(removed.at.elapsed()));
    let after = await_told(settings, &told.daemon, &removed.container, |_| Ok(()))?;
    let late = removed.rows(&told)?;
    if late != 0 {
        return Err(format!(
            "{late} rows are left {:?} after their cgroups were removed",
            removed.at.elapsed()
        ));
    }
    hold("caps, afterwards", &said_of(&after), &said_of(&removed.told), 0)?;
    hold("caps, afterwards", &said_of(&removed.told), &said_of(&after), 0)?;
    told.daemon.stop()?.check()
}
