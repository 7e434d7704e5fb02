//! A restart has no gap: each of many attempts, made the whole time, is told of exactly once, whichever process read it.

mod between;
pub(crate) mod load;
mod process;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::bpf_objects::{Object, held_by};
use tests::features::running;
use tests::harness::{PATIENCE, Settings};

use crate::cases::cases;
use load::Load;
use process::{BpfFs, Place, Process};

/// Attempts a second.
pub(crate) const RATE: u64 = 10_000;
/// Restarts natively; a guest, which is emulated, takes seconds for each.
const RESTARTS: u32 = 100;
const RESTARTS_IN_GUESTS: u32 = 5;
const RATE_IN_GUESTS: u64 = 200;
/// What a ring of so many bytes holds is longer than a start takes, also on a busy machine.
const RING: &str = "67108864";
/// How long a process watches before its restart.
const STAY: Duration = Duration::from_millis(60);
/// Attempts that a killed process may have read and not told of, or told of without a note of it: one look at the ring.
const A_LOOK: u64 = 4096;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    // Links of trampolines are tried on the oldest kernel, those of perf's tracepoints on the newest; the third kind is this
    // machine's own. A guest takes two minutes for them.
    let has_turn = |version| match settings.attach.as_str() {
        "trampoline" => version < (5, 15),
        _ => version >= (7, 0),
    };
    if settings.guest && !running().is_some_and(has_turn) {
        return Vec::new();
    }
    let mut all = cases(
        settings,
        &[
            ("restart::a_hundred_lose_nothing_and_double_nothing", hundred),
            ("restart::a_stop_for_good_leaves_nothing", for_good),
            ("restart::who_came_and_went_between_two_is_known", between::who),
        ],
    );
    if !settings.guest {
        all.extend(cases(
            settings,
            &[
                ("restart::killed_processes_cost_a_look_at_most", killed),
                ("restart::changed_settings_lose_nothing_and_double_nothing", between::changed),
                ("restart::counts_go_on_from_the_first_page", between::counts_go_on),
                ("restart::two_never_read_one_ring", between::overlapping),
                ("restart::killed_while_programs_are_replaced", between::killed),
                ("restart::without_pins_nothing_is_left", without_pins),
            ],
        ));
        all.extend(refusals::trials(settings));
    }
    all
}

/// How often each attempt was told of.
fn tally(told: &[u64]) -> BTreeMap<u64, u32> {
    let mut tally = BTreeMap::new();
    for id in told {
        *tally.entry(*id).or_default() += 1;
    }
    tally
}

/// Attempts that nobody told of, and those that were told of more than once.
pub(crate) fn faults(told: &[u64], made: u64) -> (Vec<u64>, Vec<u64>) {
    let tally = tally(told);
    let missing = (0..made).filter(|id| !tally.contains_key(id)).collect();
    let doubled = tally.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id).collect();
    (missing, doubled)
}

pub(crate) fn first(ids: &[u64]) -> String {
    let first: Vec<String> = ids.iter().take(12).map(u64::to_string).collect();
    format!("{} ({})", ids.len(), first.join(", "))
}

/// Waits until the last of so many attempts was told of.
pub(crate) fn await_all(place: &Place, made: u64) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if place.told().last().is_some_and(|last| *last + 1 == made) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("of {made} attempts the last is not told of within {PATIENCE:?}"))
}

/// The law over all processes: what was seen is what was sent and what was lost, and what was sent came out of the ring.
/// Returns how often the kernel skipped a probe, because it was under way on that processor already: what such a run would
/// have seen is in no event, restart or not.
pub(crate) fn hold_law(process: &Process, made: u64) -> Result<u64, String> {
    let metrics = process.metrics()?;
    let sum = |name: &str, label: (&str, &str)| metrics.sum(name, &[label]).unwrap_or(f64::NAN) as u64;
    let call = ("call", "setns");
    let [seen, sent, lost] =
        ["seen", "sent", "lost"].map(|what| sum(&format!("ringfence_events_{what}_total"), call));
    let all_sent: u64 = metrics.sum("ringfence_events_sent_total", &[]).unwrap_or(f64::NAN) as u64;
    let received: u64 = metrics.sum("ringfence_events_received_total", &[]).unwrap_or(f64::NAN) as u64;
    let skipped = metrics.sum("ringfence_probe_missed_total", &[]).unwrap_or(f64::NAN) as u64;
    if seen + skipped < made || lost != 0 || sent != seen {
        return Err(format!("of {made} attempts seen {seen}, skipped {skipped}, sent {sent}, lost {lost}"));
    }
    // The two numbers are not of one moment, and others make records meanwhile: some hundred at most.
    if received.abs_diff(all_sent) > 1000 {
        return Err(format!("sent {all_sent}, received {received} by all processes together"));
    }
    Ok(skipped)
}

/// The programs and links by which a process watches.
fn watches(process: &Process) -> Result<BTreeSet<Object>, String> {
    held_by(process.pid()).map_err(|error| error.to_string())
}

fn hundred(settings: &Settings) -> Result<(), String> {
    let (restarts, rate) =
        if settings.guest { (RESTARTS_IN_GUESTS, RATE_IN_GUESTS) } else { (RESTARTS, RATE) };
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path(), "--ring-bytes", RING])?;
    let mut process = place.start()?;
    let first_start = process.ready_after;
    let before = watches(&process)?;
    let load = Load::start(rate);
    let began = Instant::now();
    let mut starts = Vec::new();
    for _ in 0..restarts {
        std::thread::sleep(STAY);
        process.stop(libc::SIGTERM)?;
        process = place.start()?;
        starts.push(process.ready_after);
    }
    let took = began.elapsed();
    let made = load.stop()?;
    await_all(&place, made)?;
    if watches(&process)? != before {
        return Err("other programs or links watch than at the beginning".to_owned());
    }
    let skipped = hold_law(&process, made)?;
    process.stop(libc::SIGINT)?;
    starts.sort();
    let median = starts.get(starts.len() / 2).copied().unwrap_or_default();
    println!(
        "{restarts} restarts in {took:.1?}, {made} attempts ({:.0}/s); first start {first_start:.0?}, \
         of the others half within {median:.0?}, the slowest {:.0?}",
        made as f64 / took.as_secs_f64(),
        starts.last().copied().unwrap_or_default()
    );
    let (missing, doubled) = faults(&place.told(), made);
    if missing.len() as u64 <= skipped && doubled.is_empty() {
        return fs.must_be_empty();
    }
    Err(format!(
        "of {made} attempts lost: {}, doubled: {}; the kernel skipped {skipped} runs",
        first(&missing),
        first(&doubled)
    ))
}

fn killed(settings: &Settings) -> Result<(), String> {
    const KILLS: u64 = 20;
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path(), "--ring-bytes", RING])?;
    let mut process = place.start()?;
    let load = Load::start(RATE);
    for _ in 0..KILLS {
        std::thread::sleep(STAY);
        process.stop(libc::SIGKILL)?;
        process = place.start()?;
    }
    let made = load.stop()?;
    await_all(&place, made)?;
    process.stop(libc::SIGINT)?;
    let (missing, doubled) = faults(&place.told(), made);
    println!("{KILLS} kills, {made} attempts: lost {}, doubled {}", missing.len(), doubled.len());
    let bound = KILLS * A_LOOK;
    if missing.len() as u64 > bound || doubled.len() as u64 > bound {
        return Err(format!("lost {}, doubled {}, of {made}", first(&missing), first(&doubled)));
    }
    fs.must_be_empty()
}

/// After SIGTERM everything is there, and still watches; after SIGINT nothing is.
fn for_good(settings: &Settings) -> Result<(), String> {
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path()])?;
    let process = place.start()?;
    let objects = watches(&process)?;
    process.stop(libc::SIGTERM)?;
    if let Some(gone) = objects.iter().find(|object| !object.exists()) {
        return Err(format!("after SIGTERM {gone:?} is gone"));
    }
    if fs.must_be_empty().is_ok() {
        return Err("after SIGTERM nothing is pinned".to_owned());
    }
    place.start()?.stop(libc::SIGINT)?;
    all_gone(&objects)?;
    fs.must_be_empty()?;
    // The same by hand, while no process runs.
    let process = place.start()?;
    let objects = watches(&process)?;
    process.stop(libc::SIGTERM)?;
    place.unpin(&fs, true)?;
    all_gone(&objects)?;
    fs.must_be_empty()
}

/// The kernel takes programs off in its own time.
pub(crate) fn all_gone(objects: &BTreeSet<Object>) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match objects.iter().find(|object| object.exists()) {
            None => return Ok(()),
            Some(left) if Instant::now() > end => return Err(format!("{left:?} is still there")),
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn without_pins(settings: &Settings) -> Result<(), String> {
    let place = Place::new(settings, &["--no-pin"])?;
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let process = place.start()?;
        let objects = watches(&process)?;
        process.stop(signal)?;
        all_gone(&objects)?;
    }
    Ok(())
}
