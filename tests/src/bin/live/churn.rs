//! Processes that come and go by the ten thousand: the daemon's memory stays bounded, and nobody gets a wrong parent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::Trial;
use serde_json::Value;
use tests::attempt::mark;
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::state::Config;

use crate::cases::cases;

/// The suite's own rule.
const RULE: &str = include_str!("../../../rules/lineage.yaml");

/// Children that all parents make together.
const FORKS: u32 = 50_000;
/// Children that are made before memory is measured, so that the daemon has had its first thousands.
const BEFORE: u32 = 5_000;
/// Parents at work at a time. Each is known by a name of its own.
const PARENTS: [&str; 4] = ["parent-a", "parent-b", "parent-c", "parent-d"];
/// Of a parent's children so many make one attempt, and so many another by a child of theirs.
const EVERY: u32 = 125;
/// Process ids that the children of two of the parents take in turn, so that each id is used again within moments
/// and by children of another parent: the first, and how many.
const PIDS: [&str; 2] = ["31000", "64"];
/// The smallest process table that can be had.
const ENTRIES: u32 = 1024;
/// What the daemon may take more after the churn than before, in KiB: alerts that wait for a slow reader, and what
/// the allocator keeps. A table that kept everybody would have grown by far more.
const MORE_KIB: u64 = 12 << 10;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // Nothing of it is a matter of the kernel, and an emulated processor would take minutes.
        return Vec::new();
    }
    cases(settings, &[("churn::of_50000_forks", of_forks)])
}

/// What a parent said of a mark: the field's text, the maker, its parent, the parent's name, and whether the maker is
/// the parent's grandchild.
struct Made {
    number: u32,
    pid: i64,
    ppid: i64,
    parent: &'static str,
    below: bool,
}

fn of_forks(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let dir = tempfile::tempdir().map_err(text)?;
    fs::write(dir.path().join("lineage.yaml"), RULE).map_err(text)?;
    // The kernel names a process by the link through which its program was started.
    let program = fs::canonicalize(&settings.attempt).map_err(text)?;
    for parent in PARENTS {
        symlink(&program, dir.path().join(parent)).map_err(text)?;
    }
    let rules = dir.path().display().to_string();
    let config = Config::of_text(&format!("process_table_entries: {ENTRIES}\n")).map_err(text)?;
    let daemon = Daemon::start(settings, &["--rules", &rules, "--config", &config.path()])?;
    churn(dir.path(), BEFORE, mark::FIRST)?;
    let before = resident_kib(&daemon)?;
    let made = churn(dir.path(), FORKS, mark::FIRST + BEFORE)?;
    let mut faults = Vec::new();
    // One patience for all: what has not come when it is over does not come.
    let end = Instant::now() + PATIENCE;
    for made in &made {
        if let Err(fault) = judge(&daemon, made, end) {
            faults.push(fault);
        }
    }
    let after = resident_kib(&daemon)?;
    let metrics = daemon.metrics()?;
    let table = |name: &str| metrics.sum(name, &[("table", "processes")]).unwrap_or(f64::NAN);
    let (used, room) = (table("ringfence_table_entries"), table("ringfence_table_capacity_entries"));
    let lost = metrics.sum("ringfence_events_lost_total", &[]);
    println!("  {} marks, {before} KiB before and {after} after, {used} of {room} entries", made.len());
    daemon.stop()?.check()?;
    if room != f64::from(ENTRIES) || used.is_nan() || used > room {
        faults.push(format!("{used} entries in a table of {room}, which was to have {ENTRIES}"));
    }
    if after > before + MORE_KIB {
        faults.push(format!("{after} KiB resident after the churn, {before} before"));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let count = faults.len();
    faults.truncate(5);
    Err(format!("{count} of {} marks and bounds; {lost:?} events lost\n{}", made.len(), faults.join("\n")))
}

/// Lets all parents make children, so many in all.
fn churn(programs: &Path, forks: u32, first: u32) -> Result<Vec<Made>, String> {
    let each = forks / PARENTS.len() as u32;
    let mut children = Vec::new();
    for (turn, parent) in PARENTS.into_iter().enumerate() {
        // Marks are far fewer than children, so each parent has numbers of its own.
        let first = first + turn as u32 * each;
        let mut command = Command::new(programs.join(parent));
        command.args([
            "churn",
            &each.to_string(),
            "--every",
            &EVERY.to_string(),
            "--first",
            &first.to_string(),
        ]);
        if turn % 2 == 0 {
            command.arg("--pids").args(PIDS);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        children.push((parent, child.map_err(|error| format!("{parent}: {error}"))?));
    }
    let mut made = Vec::new();
    for (parent, mut child) in children {
        let stdout = child.stdout.take().ok_or("no pipe")?;
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| error.to_string())?;
            let json: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            let number = |key: &str| json[key].as_i64().ok_or(format!("no {key}: {line}"));
            made.push(Made {
                number: number("number")? as u32,
                pid: number("pid")?,
                ppid: number("ppid")?,
                parent,
                below: json["below"] == true,
            });
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("{parent}: {status}"));
        }
    }
    Ok(made)
}

/// Holds a mark's alert against who made it.
fn judge(daemon: &Daemon, made: &Made, end: Instant) -> Result<(), String> {
    let by = Expectation::new().is("evt.args", mark::arguments(made.number));
    // The maker of the second kind has another child of the parent between itself and it.
    let second = if made.below { made.parent } else { "live" };
    let third = if made.below { Some("live") } else { None };
    let mut wanted = by.is("proc.pid", made.pid).is("proc.ppid", made.ppid);
    wanted = wanted.is("proc.name", made.parent).is("proc.pname", made.parent).is("proc.aname[2]", second);
    if let Some(third) = third {
        wanted = wanted.is("proc.aname[3]", third);
    }
    let left = end.saturating_duration_since(Instant::now());
    daemon.inbox().expect(&wanted, left).map(|_: Alert| ())
}

/// What the daemon has in memory.
fn resident_kib(daemon: &Daemon) -> Result<u64, String> {
    let status =
        fs::read_to_string(format!("/proc/{}/status", daemon.pid())).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.ok_or_else(|| format!("no VmRSS in {status}"))
}
