//! What happened between two processes: who came and went, and programs of other settings that take over.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::bpf_objects::FdInfo;
use tests::cgroup::{Cgroup, NAMINGS};
use tests::harness::http::Metrics;
use tests::harness::{PATIENCE, Settings};
use tests::tamper::detach_link;

use super::load::{self, Load};
use super::process::{BpfFs, Place};
use super::{A_LOOK, RATE, STAY, await_all, faults, first, hold_law};

/// Ids of containers that no runtime made.
const GONE: &str = "90e090e090e090e090e090e090e090e090e090e090e090e090e090e090e090e0";
const CAME: &str = "ca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4eca4e";

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// A container by its cgroup.
fn container(id: &str) -> Result<Cgroup, String> {
    let naming = NAMINGS.first().ok_or("no naming of containers")?;
    Cgroup::make(naming.path(id).trim_start_matches('/')).map_err(text)
}

/// Makes an attempt in a container, by a program that is gone when this returns.
fn attempt(settings: &Settings, cgroup: &Cgroup) -> Result<(), String> {
    let mut command = Command::new(&settings.attempt);
    command.args(["run", "setns-badfd", "--abi", "x86_64"]).stdout(Stdio::null());
    cgroup.contain(&mut command);
    let status = command.status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("attempt: {status}")) }
}

/// A container that was there before and is removed between two processes, and one that comes and goes between them.
pub(crate) fn who(settings: &Settings) -> Result<(), String> {
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path()])?;
    let gone = container(GONE)?;
    place.start()?.stop(libc::SIGTERM)?;
    attempt(settings, &gone)?;
    gone.remove().map_err(text)?;
    let came = container(CAME)?;
    attempt(settings, &came)?;
    came.remove().map_err(text)?;
    let process = place.start()?;
    let wanted = [GONE, CAME].map(|id| format!("by attempt running {} in {id}", settings.attempt.display()));
    let end = Instant::now() + PATIENCE;
    let lacks = || {
        let lines = place.lines();
        wanted.iter().find(|wanted| !lines.iter().any(|line| line.contains(wanted.as_str()))).cloned()
    };
    while let Some(lacking) = lacks() {
        if Instant::now() > end {
            return Err(format!("`{lacking}` is in no alert:\n{}", place.lines().join("\n")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    process.stop(libc::SIGINT)?;
    fs.must_be_empty()
}

/// Each start has another ring than the one before, so programs and maps are replaced each time.
pub(crate) fn changed(settings: &Settings) -> Result<(), String> {
    const CHANGES: u32 = 6;
    let fs = BpfFs::mount()?;
    let with =
        |ring: &'static str| ["--pin-dir".to_owned(), fs.path(), "--ring-bytes".to_owned(), ring.to_owned()];
    let mut place = Place::new(settings, &with("67108864").each_ref().map(String::as_str))?;
    let mut process = place.start()?;
    let load = Load::start(RATE);
    let mut pauses = Vec::new();
    for change in 0..CHANGES {
        std::thread::sleep(Duration::from_millis(100));
        process.stop(libc::SIGTERM)?;
        let ring = if change % 2 == 0 { "33554432" } else { "67108864" };
        place.with(&with(ring).each_ref().map(String::as_str));
        process = place.start()?;
        pauses.push(process.handed.clone().ok_or("nothing was replaced")?);
    }
    let made = load.stop()?;
    await_all(&place, made)?;
    hold_law(&process, made)?;
    process.stop(libc::SIGINT)?;
    println!("{CHANGES} changes, {made} attempts: {}", pauses.join("; "));
    let (missing, doubled) = faults(&place.told(), made);
    if missing.is_empty() && doubled.is_empty() {
        return fs.must_be_empty();
    }
    Err(format!(
        "of {made} attempts lost: {}, doubled: {}; {}",
        first(&missing),
        first(&doubled),
        pauses.join("; ")
    ))
}

/// The next process is started while the one before still ends: one ring is never read by two.
pub(crate) fn overlapping(settings: &Settings) -> Result<(), String> {
    const RESTARTS: u32 = 20;
    let fs = BpfFs::mount()?;
    let new = || Place::new(settings, &["--pin-dir", &fs.path(), "--ring-bytes", "67108864"]);
    let places = [new()?, new()?];
    let mut place = places.iter().cycle();
    let mut next = || place.next().ok_or("no place".to_owned()).and_then(Place::start);
    let mut process = next()?;
    let load = Load::start(RATE);
    for _ in 0..RESTARTS {
        std::thread::sleep(STAY);
        process.send(libc::SIGTERM);
        let after = next()?;
        process.stop(libc::SIGTERM)?;
        process = after;
    }
    let made = load.stop()?;
    let told = || places.iter().flat_map(Place::told).collect::<Vec<u64>>();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && told().iter().max().is_none_or(|last| *last + 1 < made) {
        std::thread::sleep(Duration::from_millis(20));
    }
    hold_law(&process, made)?;
    process.stop(libc::SIGINT)?;
    let (missing, doubled) = faults(&told(), made);
    if missing.is_empty() && doubled.is_empty() {
        return fs.must_be_empty();
    }
    Err(format!("of {made} attempts lost: {}, doubled: {}", first(&missing), first(&doubled)))
}

/// Processes that are killed while they replace what is pinned, each at another moment. What waited in the old ring is not
/// lost with them; it may be told of twice.
pub(crate) fn killed(settings: &Settings) -> Result<(), String> {
    const KILLS: u32 = 12;
    let fs = BpfFs::mount()?;
    let with =
        |ring: &'static str| ["--pin-dir".to_owned(), fs.path(), "--ring-bytes".to_owned(), ring.to_owned()];
    let rings = ["33554432", "67108864"];
    let mut place = Place::new(settings, &with("67108864").each_ref().map(String::as_str))?;
    let load = Load::start(RATE);
    place.start()?.stop(libc::SIGTERM)?;
    place.with(&with("33554432").each_ref().map(String::as_str));
    let process = place.start()?;
    let whole = process.ready_after;
    process.stop(libc::SIGTERM)?;
    for (kill, ring) in (1..=KILLS).zip(rings.iter().rev().cycle()) {
        place.with(&with(ring).each_ref().map(String::as_str));
        let process = place.begin()?;
        std::thread::sleep(whole * (KILLS + kill) / (2 * KILLS));
        process.stop(libc::SIGKILL)?;
        // Also the one that goes on has its own to replace, or what the killed one began.
        if kill % 3 == 0 {
            place.start()?.stop(libc::SIGTERM)?;
        }
    }
    let process = place.start()?;
    let made = load.stop()?;
    await_all(&place, made)?;
    process.stop(libc::SIGINT)?;
    let (missing, doubled) = faults(&place.told(), made);
    println!("{KILLS} kills, {made} attempts: lost {}, doubled {}", missing.len(), doubled.len());
    // One look at the ring, and the tenth of a second in which both are on their hooks.
    let bound = u64::from(KILLS) * (A_LOOK + RATE / 10);
    if missing.len() as u64 > bound {
        return Err(format!("lost {} of {made}", first(&missing)));
    }
    fs.must_be_empty()
}

/// Counters go on from the first page that there is, also where the programs are replaced; and that it was blind is not
/// forgotten by the start that made it see again.
pub(super) fn counts_go_on(settings: &Settings) -> Result<(), String> {
    const MADE: u64 = 2000;
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path()])?;
    let process = place.start()?;
    (0..MADE).for_each(load::attempt);
    await_all(&place, MADE)?;
    let all = FdInfo::all(process.pid()).map_err(|error| error.to_string())?;
    let device = all.iter().find(|info| info.get("link_type") == Some("cgroup"));
    let link = device.and_then(|info| info.number("link_id")).ok_or("no link of the device probe")?;
    detach_link(link).map_err(|error| format!("detach: {error}"))?;
    let blind = |metrics: &Metrics| metrics.sum("ringfence_blindness_total", &[("cause", "detached")]);
    let seen = |metrics: &Metrics| metrics.sum("ringfence_events_seen_total", &[("call", "setns")]);
    let end = Instant::now() + PATIENCE;
    while blind(&process.metrics()?) != Some(1.0) {
        if Instant::now() > end {
            return Err("that the probe is off is not told".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    process.stop(libc::SIGTERM)?;
    let process = place.start_and(|process| {
        let end = Instant::now() + PATIENCE;
        let first = loop {
            match process.metrics() {
                Ok(first) => break first,
                Err(fault) if Instant::now() > end => return Err(fault),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        match (seen(&first), blind(&first)) {
            (Some(seen), Some(1.0)) if seen >= MADE as f64 => Ok(()),
            other => Err(format!("the first page has, of {MADE} attempts and one blindness: {other:?}")),
        }
    })?;
    process.stop(libc::SIGINT)?;
    fs.must_be_empty()
}
