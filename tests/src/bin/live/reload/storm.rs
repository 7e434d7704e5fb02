//! A thousand reloads while events come: none is lost, and each alert belongs to one generation.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::harness::{Daemon, PATIENCE, Settings};

use super::tally::Tally;
use super::{BROKEN, replace};
use crate::law;

/// Events that are asked for each second: twenty thousand, and what starting one flood after the other takes.
const RATE: u64 = 21_000;
const RELOADS: u64 = 1000;
/// So many reloads have a broken edit before them.
const BREAK_EVERY: u64 = 10;
/// Guests without hardware virtualisation are slow.
const IN_GUESTS: (u64, u64) = (500, 30);
/// A flood makes calls for so long, then the next one begins.
const SECONDS: &str = "2";
/// What memory may grow by, from the hundredth reload to the last: a generation that stays would take more.
const MOST_GROWTH_KB: u64 = 16 << 10;

/// Ids of the rules of the two sets, in turn.
const IDS: [&str; 2] = ["reload-even", "reload-odd"];

/// A set of one rule for each call of the flood.
fn set(generation: u64) -> String {
    let id = id_of(generation);
    format!(
        "- rule: Reload {id}\n  id: {id}\n  desc: Matches what the flood does.\n  condition: evt.type = unshare\n  \
         output: \"%evt.type by %proc.vpid\"\n  priority: notice\n"
    )
}

fn id_of(generation: u64) -> &'static str {
    IDS[(generation % 2) as usize]
}

/// What the reloads came to.
struct Reloaded {
    last: u64,
    refused: u64,
    took: Duration,
    slowest: Duration,
}

pub(super) fn storm(settings: &Settings) -> Result<(), String> {
    let (rate, reloads) = if settings.guest { IN_GUESTS } else { (RATE, RELOADS) };
    let text = |error: std::io::Error| error.to_string();
    let dir = tempfile::tempdir().map_err(text)?;
    let file = dir.path().join("rules.yaml");
    fs::write(&file, set(1)).map_err(text)?;
    let (output, input) = std::io::pipe().map_err(text)?;
    let mut command = settings.command();
    command.stdout(input);
    let daemon = Daemon::start_by(command, settings, &["--rules", &file.display().to_string()])?;
    let before = daemon.metrics()?;
    let (came, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (came, done) = (&came, &done);
    let (tally, floods, reloaded, ledger, ended) = std::thread::scope(|scope| {
        let counting = scope.spawn(|| Tally::read(output, |total| came.store(total, Ordering::Relaxed)));
        let flooding = scope.spawn(|| floods(settings, rate, done));
        let reloaded = reload_often(&daemon, &file, reloads);
        done.store(true, Ordering::Relaxed);
        let floods = flooding.join().map_err(|_| "a flood panicked")?;
        let made = floods.as_ref().map_or(0, |floods| floods.made.iter().map(|(_, made)| made).sum());
        await_alerts(came, made);
        let ledger = daemon.metrics();
        // Ends the output, and so the counting.
        let ended = daemon.stop()?;
        let tally = counting.join().map_err(|_| "the counting panicked")?;
        Ok::<_, String>((tally, floods?, reloaded?, ledger?, ended))
    })?;
    ended.check()?;
    let since = |name: &str, labels: &[(&str, &str)]| {
        (ledger.sum(name, labels).unwrap_or(0.0) - before.sum(name, labels).unwrap_or(0.0)) as u64
    };
    let call = [("call", "unshare")];
    let [seen, sent, lost] =
        ["seen", "sent", "lost"].map(|what| since(&format!("ringfence_events_{what}_total"), &call));
    let skipped = since("ringfence_probe_missed_total", &[]);
    let dropped = since("ringfence_output_dropped_total", &[]);
    let delivered: u64 = tally.by_rule.values().sum();
    let made: u64 = floods.made.iter().map(|(_, made)| made).sum();
    let per_second = made as f64 / floods.took.as_secs_f64();
    println!(
        "reload: {} reloads and {} refused edits in {:.1} s (slowest {:.0} ms) at {per_second:.0} events/s: \
         made {made}, seen {seen}, delivered {delivered}, lost {lost}, dropped {dropped}, skipped {skipped}",
        reloaded.last - 1,
        reloaded.refused,
        reloaded.took.as_secs_f64(),
        reloaded.slowest.as_secs_f64() * 1e3,
    );
    // Others may have made such a call after the ledger was read, and no more than raised an alert.
    let of_floods: u64 = floods.made.iter().filter_map(|(pid, _)| tally.by_pid.get(pid)).sum();
    let late = delivered.checked_sub(sent).is_some_and(|late| late <= delivered - of_floods);
    if lost != 0 || dropped != 0 || seen != sent || !late || seen + skipped < made {
        return Err(format!(
            "made {made}, skipped {skipped}, seen {seen}, sent {sent}, delivered {delivered}, lost {lost}, dropped {dropped}"
        ));
    }
    judge(&tally, &floods, &reloaded, skipped)
}

/// Every alert is of the set that its generation had, each event gave one, and generations only grow.
fn judge(tally: &Tally, floods: &Floods, reloaded: &Reloaded, skipped: u64) -> Result<(), String> {
    if let Some(garbled) = &tally.garbled {
        return Err(format!("a line that is no alert: {garbled}"));
    }
    if tally.went_back > 0 || tally.repeated > 0 {
        return Err(format!(
            "generations went back {} times, events came twice {}",
            tally.went_back, tally.repeated
        ));
    }
    let mut generations = BTreeMap::new();
    for ((rule, generation), alerts) in &tally.by_rule {
        if *rule != id_of(*generation) || *generation > reloaded.last {
            return Err(format!("{alerts} alerts of {rule} in generation {generation} of {}", reloaded.last));
        }
        *generations.entry(generation).or_insert(0) += alerts;
    }
    // Most generations live long enough to see an event.
    if generations.len() as u64 <= reloaded.last / 2 {
        return Err(format!("only {} of {} generations raised alerts", generations.len(), reloaded.last));
    }
    for (pid, made) in &floods.made {
        let came = tally.by_pid.get(pid).copied().unwrap_or_default();
        if came > *made || came + skipped < *made {
            return Err(format!(
                "{made} calls of process {pid}, {skipped} skipped by the kernel, {came} alerts"
            ));
        }
    }
    Ok(())
}

/// Exchanges the set again and again, each time as soon as the one before is in force.
fn reload_often(daemon: &Daemon, file: &Path, reloads: u64) -> Result<Reloaded, String> {
    let (start, mut slowest, mut refused, mut memory) = (Instant::now(), Duration::ZERO, 0, 0);
    let last = reloads + 1;
    for generation in 2..=last {
        if generation % BREAK_EVERY == 0 {
            replace(file, BROKEN)?;
            daemon.signal(libc::SIGHUP)?;
            let before = format!("generation={} ", generation - 1);
            daemon.await_log(|line| line.contains("rules refused") && line.contains(&before))?;
            refused += 1;
        }
        let begun = Instant::now();
        replace(file, &set(generation))?;
        daemon.signal(libc::SIGHUP)?;
        let in_force = format!("generation={generation} ");
        daemon.await_log(|line| line.contains("rules reloaded") && line.contains(&in_force))?;
        slowest = slowest.max(begun.elapsed());
        if generation == reloads / 10 {
            memory = resident_kb(daemon)?;
        }
    }
    let grown = resident_kb(daemon)?.saturating_sub(memory);
    if grown > MOST_GROWTH_KB {
        return Err(format!("from {memory} kB memory grew by {grown} kB in {} reloads", reloads * 9 / 10));
    }
    Ok(Reloaded { last, refused, took: start.elapsed(), slowest })
}

fn resident_kb(daemon: &Daemon) -> Result<u64, String> {
    let path = format!("/proc/{}/status", daemon.pid());
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or(format!("no VmRSS in {path}"))
}

/// Processes that made calls, and how many.
struct Floods {
    made: Vec<(u32, u64)>,
    took: Duration,
}

fn floods(settings: &Settings, rate: u64, done: &AtomicBool) -> Result<Floods, String> {
    let (start, rate) = (Instant::now(), rate.to_string());
    let mut made = Vec::new();
    while !done.load(Ordering::Relaxed) {
        made.push(law::flood(settings, None, &["--rate", &rate, "--seconds", SECONDS])?);
    }
    Ok(Floods { made, took: start.elapsed() })
}

/// Waits until as many alerts came as calls were made; if they do not, the ledger tells why.
fn await_alerts(came: &AtomicU64, made: u64) {
    let end = Instant::now() + PATIENCE;
    while came.load(Ordering::Relaxed) < made && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}
