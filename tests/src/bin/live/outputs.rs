//! Outputs that hang, fail, or are exchanged cost the others nothing: a pipe that nobody reads, a full disk, a rotated
//! file, and one that is renamed and reopened. What reaches each is counted, and what does not is counted by reason.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use tests::harness::http::Metrics;
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::cases::cases;
use crate::law::flood;
use crate::places::suite_rules;

/// Calls of a flood: more than a small disk and a pipe have room for, less than a queue.
const CALLS: &str = "1500";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // No matter of the kernel.
        return Vec::new();
    }
    cases(
        settings,
        &[
            ("outputs::one_that_fails_costs_the_others_nothing", failing),
            ("outputs::groups_count_exactly", groups),
            ("outputs::check_names_what_is_wrong", check),
        ],
    )
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// A small file system that goes away with the test.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn new(bytes: usize) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(text)?;
        let options = format!("size={bytes},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()))?;
        Ok(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

fn metric(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Result<u64, String> {
    let value = metrics.sum(name, labels).ok_or_else(|| format!("no series {name} {labels:?}"))?;
    Ok(value as u64)
}

/// Waits until that holds of the metrics.
fn wait_until(
    daemon: &Daemon,
    what: &str,
    holds: impl Fn(&Metrics) -> Result<bool, String>,
) -> Result<Metrics, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = daemon.metrics()?;
        if holds(&metrics)? {
            return Ok(metrics);
        }
        if Instant::now() > end {
            return Err(format!("{what} did not happen\n{}", daemon.log()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The process numbers of the alerts in files, in order.
fn pids(paths: &[PathBuf]) -> Result<Vec<u64>, String> {
    let mut pids = Vec::new();
    for path in paths {
        let mut lines = String::new();
        let file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if path.extension().is_some_and(|extension| extension == "gz") {
            let out = Command::new("gzip").args(["-dc"]).arg(path).output().map_err(text)?;
            lines = String::from_utf8(out.stdout).map_err(text)?;
        } else {
            std::io::BufReader::new(file).read_to_string(&mut lines).map_err(text)?;
        }
        for line in lines.lines() {
            let alert: Value = serde_json::from_str(line)
                .map_err(|error| format!("{}: a torn line: {error}: {line}", path.display()))?;
            pids.extend(alert["output_fields"]["proc.pid"].as_u64());
        }
    }
    Ok(pids)
}

/// The file and those put aside for it, the oldest first.
fn all(path: &Path) -> Result<Vec<PathBuf>, String> {
    let dir = path.parent().ok_or("no directory")?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("no name")?;
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(text)? {
        let entry = entry.map_err(text)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.strip_prefix(name).is_some_and(|tail| tail.starts_with('.') && !tail.ends_with(".new")) {
            found.push(entry.path());
        }
    }
    found.sort();
    found.push(path.to_owned());
    Ok(found)
}

fn failing(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let dir = tempfile::tempdir().map_err(text)?;
    let small = Tmpfs::new(256 << 10)?;
    let (good, rotated, full) =
        (dir.path().join("good.jsonl"), dir.path().join("rotated.jsonl"), small.0.path().join("full.jsonl"));
    let sets = [
        format!("outputs[]={{type: file, name: good, path: {}}}", good.display()),
        format!(
            "outputs[]={{type: file, name: rotated, path: {}, rotate: {{bytes: 200000, keep: 100, compress: true}}}}",
            rotated.display()
        ),
        format!("outputs[]={{type: file, name: full, path: {}}}", full.display()),
        format!(
            "outputs[]={{type: file, name: urgent, path: {}/urgent, min_priority: emergency}}",
            dir.path().display()
        ),
    ];
    let rules_path = rules.path().display().to_string();
    let mut arguments = vec!["--rules", rules_path.as_str()];
    for set in &sets {
        arguments.extend(["--set", set]);
    }
    // Alerts on standard output go into a pipe that nobody reads.
    let (daemon, hung) = Daemon::start_text(settings, &arguments, Stdio::piped())?;
    let started = daemon.metrics()?;
    for name in ["stdout", "good", "rotated", "full", "urgent"] {
        for reason in ["queue_full", "write_error", "shutdown", "rejected", "spool_full", "spool_error"] {
            let labels = [("output", name), ("reason", reason)];
            metric(&started, "ringfence_output_dropped_total", &labels)?;
        }
        metric(&started, "ringfence_output_spool_length", &[("output", name)])?;
    }
    let (pid, made) = flood(settings, None, &["--count", CALLS, "--seconds", "60"])?;
    let written = |metrics: &Metrics, name: &str| {
        metric(metrics, "ringfence_output_records_total", &[("output", name), ("result", "written")])
    };
    wait_until(&daemon, "that all is written", |metrics| {
        Ok(written(metrics, "good")? >= made && written(metrics, "rotated")? >= made)
    })?;
    wait_until(&daemon, "that the small disk is full", |metrics| {
        Ok(metric(metrics, "ringfence_output_errors_total", &[("output", "full")])? > 0)
    })?;
    // logrotate's way: rename, then the signal.
    let moved = dir.path().join("good.jsonl.0");
    fs::rename(&good, &moved).map_err(text)?;
    daemon.signal(libc::SIGUSR1)?;
    let end = Instant::now() + PATIENCE;
    while !good.exists() {
        if Instant::now() > end {
            return Err(format!("SIGUSR1 opens no new file\n{}", daemon.log()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The small disk gets room: what waited is written, and nothing is torn.
    grow(&small)?;
    let (second, more) = flood(settings, None, &["--count", "200", "--seconds", "60"])?;
    wait_until(&daemon, "that all is written", |metrics| {
        Ok(written(metrics, "full")? >= made + more && written(metrics, "good")? >= made + more)
    })?;
    let ended = daemon.stop()?;
    drop(hung);
    let of = |pids: &[u64], pid: u32| pids.iter().filter(|found| **found == u64::from(pid)).count() as u64;
    for (name, paths) in [
        ("good", vec![moved.clone(), good.clone()]),
        ("rotated", all(&rotated)?),
        ("full", vec![full.clone()]),
    ] {
        let found = pids(&paths)?;
        if (of(&found, pid), of(&found, second)) != (made, more) {
            return Err(format!(
                "{name}: {} of {made} and {} of {more} lines\n{}",
                of(&found, pid),
                of(&found, second),
                ended.log
            ));
        }
    }
    if of(&pids(&[moved])?, pid) != made {
        return Err("lines of the first flood are not in the renamed file".to_owned());
    }
    if all(&rotated)?.len() < 3 {
        return Err("the file was not rotated".to_owned());
    }
    if fs::metadata(dir.path().join("urgent")).map_err(text)?.len() > 0 {
        return Err("alerts below min_priority were written".to_owned());
    }
    if !ended.status.success() {
        return Err(format!("the daemon ends with {}\n{}", ended.status, ended.log));
    }
    Ok(())
}

/// Makes the small file system larger.
fn grow(small: &Tmpfs) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "remount,size=64m"]).arg(small.0.path()))
}

/// One alert at once, one summary with the exact rest; the same from a recording.
fn groups(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let dir = tempfile::tempdir().map_err(text)?;
    let (out, events) = (dir.path().join("out.jsonl"), dir.path().join("events"));
    let rules_path = rules.path().display().to_string();
    let set = format!("outputs[]={{type: file, path: {}}}", out.display());
    let grouped = ["group_seconds=3600", "group_by=[proc.pid]"];
    let record = events.display().to_string();
    let arguments = [
        "--rules",
        &rules_path,
        "--record-dir",
        &record,
        "--set",
        &set,
        "--set",
        grouped[0],
        "--set",
        grouped[1],
    ];
    let daemon = Daemon::start(settings, &arguments)?;
    let (pid, made) = flood(settings, None, &["--count", "500", "--seconds", "60"])?;
    wait_until(&daemon, "that all are held back", |metrics| {
        Ok(metric(metrics, "ringfence_alerts_suppressed_total", &[])? >= made - 1)
    })?;
    daemon.stop()?.check()?;
    let alerts = fs::read_to_string(&out).map_err(text)?;
    let live = counts(&alerts, pid)?;
    if live != [None, Some(made - 1)] {
        return Err(format!("{made} calls are told as {live:?}"));
    }
    let replay = Command::new(&settings.ringfence)
        .args([
            "replay",
            "--output",
            "json",
            "--rules",
            &rules_path,
            "--set",
            grouped[0],
            "--set",
            grouped[1],
        ])
        .arg(&events)
        .output()
        .map_err(text)?;
    let again = counts(&String::from_utf8_lossy(&replay.stdout), pid)?;
    if again != live {
        let said = String::from_utf8_lossy(&replay.stderr).into_owned();
        return Err(format!("the replay tells {again:?} and not {live:?}: {said}"));
    }
    Ok(())
}

/// `group.count` of the lines of a process, in order.
fn counts(lines: &str, pid: u32) -> Result<Vec<Option<u64>>, String> {
    let mut counts = Vec::new();
    for line in lines.lines() {
        let alert: Value = serde_json::from_str(line).map_err(text)?;
        if alert["output_fields"]["proc.pid"] == pid {
            counts.push(alert["output_fields"]["group.count"].as_u64());
        }
    }
    Ok(counts)
}

/// Without a daemon.
fn check(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    for (set, right, said) in [
        ("outputs[]={type: file, path: /tmp/x.jsonl}", true, "outputs: stdout, file"),
        ("outputs[]={type: file, path: /no/such/dir/x.jsonl}", false, "mkdir -p /no/such/dir"),
        ("outputs[]={type: flie}", false, "did you mean `file`?"),
    ] {
        let run = Command::new(&settings.ringfence)
            .args(["check", "--set", set])
            .arg(rules.path())
            .output()
            .map_err(text)?;
        let out = String::from_utf8_lossy(&run.stdout).into_owned();
        if run.status.success() != right || !out.contains(said) {
            return Err(format!("{set}: {} {out}", run.status));
        }
    }
    Ok(())
}
