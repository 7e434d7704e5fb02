//! The cost for others, start-up, idle memory, and the time from a call to its line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::daemon::{Alerts, Daemon};
use super::stats::{median, percentile};
use super::{Row, Setting, Target};
use crate::process;

/// Calls per timed run, and runs per sample.
const CALLS: &str = "50000";
const RUNS: u32 = 20;
/// Single attempts per round of the latency measurement.
const ATTEMPTS: u32 = 40;
/// An attempt without a line for so long counts as this long, which misses every target.
const LINE_LIMIT: Duration = Duration::from_secs(2);

/// Nanoseconds per unrelated call without and with Ringfence, their ratio, start-up, idle memory.
pub(super) fn overhead(setting: &Setting) -> Result<Vec<Row>> {
    println!("bench: an unrelated call without and with Ringfence");
    let mut parent = [Vec::new(), Vec::new()];
    let mut read = [Vec::new(), Vec::new()];
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    let mut one = |index: usize| -> Result<()> {
        parent[index].push(per_call(setting, "getppid")?);
        read[index].push(per_call(setting, "read")?);
        Ok(())
    };
    for round in 0..setting.rounds {
        // Odd rounds the other way round, so that a drift of the machine favours neither.
        if round % 2 == 0 {
            one(0)?;
        }
        let daemon = Daemon::start(setting, Alerts::File(File::create(setting.dir.join("alerts.jsonl"))?))?;
        ready.push(daemon.ready_after.as_secs_f64());
        thread::sleep(Duration::from_secs(1));
        one(1)?;
        resident.push(daemon.resident_megabytes()?);
        daemon.stop()?;
        if round % 2 == 1 {
            one(0)?;
        }
    }
    let mut rows = Vec::new();
    let names = [
        ["getppid, bare", "getppid, watched", "getppid, ratio"],
        ["read, bare", "read, watched", "read, ratio"],
    ];
    for (names, [bare, watched]) in names.into_iter().zip([parent, read]) {
        let ratios: Vec<_> = bare.iter().zip(&watched).map(|(bare, watched)| watched / bare).collect();
        rows.push(row(names[0], "ns", None, bare));
        rows.push(row(names[1], "ns", None, watched));
        rows.push(row(names[2], "x", Some(Target::AtMost(1.35)), ratios));
    }
    rows.push(row("start-up to ready", "s", Some(Target::AtMost(1.0)), ready));
    rows.push(row("resident memory, idle", "MB", Some(Target::AtMost(24.0)), resident));
    Ok(rows)
}

/// A row whose value is the samples' median.
pub(super) fn row(name: &'static str, unit: &'static str, target: Option<Target>, samples: Vec<f64>) -> Row {
    Row { name, unit, value: median(&samples), target, samples, note: String::new() }
}

/// Nanoseconds per call in the best of [`RUNS`] runs: what disturbs a run only ever makes it longer.
pub(super) fn per_call(setting: &Setting, call: &str) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut spin = Command::new(&setting.attempt);
        let output = process::output(spin.args(["spin", "--call", call, "--count", CALLS]))?;
        let nanoseconds: f64 =
            output.trim().parse().with_context(|| format!("attempt spin said {output:?}, not a number"))?;
        best = best.min(nanoseconds);
    }
    Ok(best)
}

/// From before a call to when its line could be read from the daemon's pipe, in milliseconds.
pub(super) fn latency(setting: &Setting) -> Result<Vec<Row>> {
    println!("bench: from a call to its line");
    let mut daemon = Daemon::start(setting, Alerts::Pipe)?;
    let lines = follow(BufReader::new(daemon.alerts()?));
    thread::sleep(Duration::from_millis(500));
    // A setns into something that is no namespace: fails, changes nothing, and is an attempt.
    let nothing = File::open("/dev/null")?;
    let mut samples = Vec::new();
    let mut missing = 0;
    for number in 0..setting.rounds * ATTEMPTS {
        // Spread over the daemon's periods; a plain hash of the number is random enough for that.
        thread::sleep(Duration::from_micros(5_000 + u64::from(number.wrapping_mul(2_654_435_761) >> 17)));
        while lines.try_recv().is_ok() {}
        let before = boot_time();
        let _ = move_into_link_name_space(nothing.as_fd(), Some(LinkNameSpaceType::Network));
        match wait_for_ours(&lines) {
            Some(read_at) => samples.push((read_at - before) * 1e3),
            None => {
                missing += 1;
                samples.push(LINE_LIMIT.as_secs_f64() * 1e3);
            }
        }
    }
    daemon.stop()?;
    let note = if missing > 0 { format!("{missing} attempts had no line") } else { String::new() };
    let half = Row {
        name: "call to line, p50",
        unit: "ms",
        value: percentile(&samples, 0.5),
        target: None,
        samples: Vec::new(),
        note: String::new(),
    };
    let most = Row {
        name: "call to line, p99",
        unit: "ms",
        value: percentile(&samples, 0.99),
        target: Some(Target::AtMost(20.0)),
        samples,
        note,
    };
    Ok(vec![half, most])
}

/// Lines, each with the boot time at which it had been read.
fn follow(mut reader: BufReader<impl Read + Send + 'static>) -> Receiver<(f64, String)> {
    let (sender, receiver) = sync_channel(1024);
    thread::spawn(move || {
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
            if sender.send((boot_time(), std::mem::take(&mut line))).is_err() {
                break;
            }
        }
    });
    receiver
}

/// When the line about our own attempt was read.
fn wait_for_ours(lines: &Receiver<(f64, String)>) -> Option<f64> {
    let deadline = Instant::now() + LINE_LIMIT;
    loop {
        let (read_at, line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        if is_ours(&line).unwrap_or(false) {
            return Some(read_at);
        }
    }
}

fn is_ours(line: &str) -> Result<bool> {
    let alert: Value = serde_json::from_str(line)?;
    let fields = alert.get("output_fields").context("no output_fields")?;
    let ours = u64::from(std::process::id());
    Ok(fields.get("evt.type").and_then(Value::as_str) == Some("setns")
        && fields.get("proc.pid").and_then(Value::as_u64) == Some(ours))
}

/// Seconds since boot, on the clock that events carry.
fn boot_time() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_setns_is_ours() -> Result<()> {
        let pid = std::process::id();
        let line = |call: &str, pid: u32| {
            format!("{{\"output_fields\":{{\"evt.type\":\"{call}\",\"proc.pid\":{pid}}}}}")
        };
        assert!(is_ours(&line("setns", pid))?);
        assert!(!is_ours(&line("setns", pid + 1))?);
        assert!(!is_ours(&line("unshare", pid))?);
        assert!(is_ours("not JSON").is_err());
        Ok(())
    }
}
