//! What is recorded is what was made, and judged again it is what the daemon said.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use tests::cgroup::{Cgroup, NAMINGS, container_id};
use tests::harness::alerts::Expectation;
use tests::harness::{self, Daemon, PATIENCE, Settings};

use crate::cases::cases;
use crate::law::flood;
use crate::places::suite_rules;

/// Calls of a flood: some blocks of a recording.
const CALLS: u64 = 3000;
/// The same in a guest, whose emulated processor judges some hundred a second.
const CALLS_IN_GUESTS: u64 = 600;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(
        settings,
        &[
            ("recording::replay_says_what_the_daemon_said", replay_is_the_daemon),
            ("recording::record_has_what_was_made", record_has_all),
        ],
    )
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// Runs a command of the program to its end.
fn ringfence(settings: &Settings, arguments: &[&str]) -> Result<Output, String> {
    Command::new(&settings.ringfence).args(arguments).stdin(Stdio::null()).output().map_err(text)
}

/// The alerts of a replay, and what it said besides.
fn replay(
    settings: &Settings,
    files: &Path,
    rules: &Path,
    code: i32,
) -> Result<(Vec<Value>, String), String> {
    let (files, rules) = (files.display().to_string(), rules.display().to_string());
    let output = ringfence(settings, &["replay", &files, "--rules", &rules, "-o", "json"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() != Some(code) {
        return Err(format!("replay ended with {} instead of {code}: {said}", output.status));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let alerts: Result<Vec<Value>, String> =
        lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect();
    Ok((alerts?, said))
}

/// Floods in a container's cgroup; gives the container's id as alerts have it, and the process.
fn flood_in_container(settings: &Settings, seed: &str) -> Result<(String, u32, u64), String> {
    let id = container_id(seed);
    let naming = NAMINGS.first().ok_or("no naming")?;
    let cgroup = Cgroup::make(&naming.path(&id)).map_err(text)?;
    let count = if settings.guest { CALLS_IN_GUESTS } else { CALLS }.to_string();
    let (pid, made) = flood(settings, Some(&cgroup), &["--count", &count, "--seconds", "60"])?;
    cgroup.remove().map_err(text)?;
    Ok((id[..12].to_owned(), pid, made))
}

fn of_process(alerts: &[Value], pid: u32) -> usize {
    alerts.iter().filter(|alert| alert["output_fields"]["proc.pid"] == pid).count()
}

/// A daemon records beside its alerts; the recording replayed gives the same alerts in the same order.
fn replay_is_the_daemon(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let dir = tempfile::tempdir().map_err(text)?;
    let ring = dir.path().join("ring");
    let arguments =
        ["--rules", &rules.path().display().to_string(), "--record-dir", &ring.display().to_string()];
    let daemon = Daemon::start(settings, &arguments)?;
    let (container, pid, made) = flood_in_container(settings, "recording-daemon")?;
    // Some of each kind that hurts nobody.
    for name in ["setns-badfd", "unshare-user"] {
        let _ =
            Command::new(&settings.attempt).args(["run", name, "--abi", "x86_64"]).output().map_err(text)?;
    }
    let wanted = Expectation::new().is("proc.pid", pid).is("container.id", &container);
    let end = Instant::now() + PATIENCE;
    while (daemon.inbox().count(&wanted) as u64) < made {
        if Instant::now() > end {
            let metrics = daemon.metrics()?;
            let lost = metrics.lines("ringfence_events_lost");
            return Err(format!("{} of {made} alerts came\n{lost}", daemon.inbox().count(&wanted)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = daemon.stop()?;
    ended.check()?;
    let live: Vec<&Value> =
        ended.alerts.iter().map(|alert| &alert.json).filter(|json| json["source"] == "syscall").collect();
    let (again, said) = replay(settings, &ring, rules.path(), 0)?;
    if let Some((live, again)) = live.iter().zip(&again).find(|(live, again)| **live != *again) {
        return Err(format!("the daemon said\n  {live}\nthe recording\n  {again}"));
    }
    if live.len() != again.len() {
        return Err(format!("the daemon wrote {} alerts, the recording {}: {said}", live.len(), again.len()));
    }
    Ok(())
}

/// `ringfence record`, until it is stopped.
fn recorder(settings: &Settings, file: &Path) -> Result<Child, String> {
    let mut child = Command::new(&settings.ringfence)
        .args(["record", "--attach", &settings.attach, "--no-color", "--output"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut log = std::io::BufReader::new(child.stderr.take().ok_or("no log")?);
    let (mut seen, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if std::io::BufRead::read_line(&mut log, &mut line).map_err(text)? == 0 {
            return Err(format!("`record` ended before it was attached: {seen}"));
        }
        seen.push_str(&line);
        if line.contains(" recording") {
            // It logs no more than a pipe holds.
            child.stderr = Some(log.into_inner());
            return Ok(child);
        }
    }
}

/// Every call that was made is recorded, also in a second run into the same file; a cut file is read up to the cut.
fn record_has_all(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let dir = tempfile::tempdir().map_err(text)?;
    let file = dir.path().join("calls.rfrec");
    let mut made = Vec::new();
    for seed in ["recording-one", "recording-two"] {
        let mut child = recorder(settings, &file)?;
        made.push(flood_in_container(settings, seed)?);
        // SAFETY: our child, not yet waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        let status = harness::wait(&mut child)?;
        let mut said = String::new();
        if let Some(mut out) = child.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut said).map_err(text)?;
        }
        // 1: something was lost, which a machine may do; then the numbers below need not hold.
        if !status.success() {
            return Err(format!("`record` ended with {status}: {said}"));
        }
        if !said.contains("recorded") || !said.contains("0 were lost") {
            return Err(format!("`record` said: {said}"));
        }
    }
    let (alerts, _) = replay(settings, &file, rules.path(), 0)?;
    for (_, pid, made) in &made {
        let found = of_process(&alerts, *pid) as u64;
        if found != *made {
            return Err(format!("{made} calls were made and {found} recorded"));
        }
    }
    backtest_counts(settings, &file, rules.path(), &made)?;
    // A file that was cut: what is before the cut is read, and the damage told.
    let bytes = fs::read(&file).map_err(text)?;
    fs::write(&file, &bytes[..bytes.len() - 100]).map_err(text)?;
    let (fewer, said) = replay(settings, &file, rules.path(), 1)?;
    if fewer.len() >= alerts.len() || fewer[..] != alerts[..fewer.len()] || !said.contains("damaged at byte")
    {
        return Err(format!("of {} alerts a cut file has {}: {said}", alerts.len(), fewer.len()));
    }
    Ok(())
}

fn backtest_counts(
    settings: &Settings,
    file: &Path,
    rules: &Path,
    made: &[(String, u32, u64)],
) -> Result<(), String> {
    let (file, rules) = (file.display().to_string(), rules.display().to_string());
    let output = ringfence(settings, &["rules", "backtest", &file, "--rules", &rules, "-o", "json"])?;
    let json: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let fired = json["fired"].as_array().ok_or("no `fired`")?;
    let containers: Vec<&Value> =
        fired.iter().filter_map(|rule| rule["containers"].as_array()).flatten().collect();
    for (container, _, made) in made {
        let counted: u64 = containers
            .iter()
            .filter(|entry| entry["container.id"] == **container)
            .filter_map(|entry| entry["count"].as_u64())
            .sum();
        if counted < *made {
            return Err(format!("backtest counts {counted} of {made} on {container}: {json}"));
        }
    }
    Ok(())
}
