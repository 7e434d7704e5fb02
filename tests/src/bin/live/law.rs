//! Nothing is lost silently: calls made = events delivered + counted losses, and SIGTERM drains the ring.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tests::harness::alerts::Expectation;
use tests::harness::http::Metrics;
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::places::suite_rules;

/// The call of floods: nothing else on a machine makes it while the suite runs.
const CALL: &str = "unshare";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    type Case = fn(&Settings) -> Result<(), String>;
    let cases: [(&str, Case); 4] = [
        ("law::stalled_reader_and_tiny_ring", stalled_reader),
        ("law::two_floods_and_a_small_ring", two_floods),
        ("law::nothing_is_lost_at_a_steady_rate", steady),
        ("law::sigterm_drains_the_ring", sigterm_drains),
    ];
    cases
        .into_iter()
        .map(|(name, case)| {
            let settings = settings.clone();
            Trial::test(name, move || case(&settings).map_err(Failed::from))
        })
        .collect()
}

/// A flood of failing calls; gives the process that made it and how many it made.
fn flood(settings: &Settings, arguments: &[&str]) -> Result<(u32, u64), String> {
    let child = Command::new(&settings.attempt)
        .args(["flood", "--call", CALL])
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("attempt: {error}"))?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    json["made"].as_u64().map(|made| (pid, made)).ok_or(format!("no `made`: {text}"))
}

/// Stops the daemon's process, all of it: returns when the kernel says that it stands still.
fn stall(daemon: &Daemon) -> Result<(), String> {
    daemon.signal(libc::SIGSTOP)?;
    let status = format!("/proc/{}/task", daemon.pid());
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let tasks = std::fs::read_dir(&status).map_err(|error| format!("{status}: {error}"))?;
        let stopped = tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
        if stopped {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err("the daemon does not stop on SIGSTOP".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes marker attempts until one arrives: then everything before it has arrived. Several may be needed,
/// a ring that is still full loses them.
fn await_marker(settings: &Settings, daemon: &Daemon) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..60 {
        let child = Command::new(&settings.attempt)
            .args(["run", "setns-badfd", "--abi", "x86_64"])
            .output()
            .map_err(|error| format!("attempt: {error}"))?;
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let marker = Expectation::new().is("rule", "Suite setns").is("proc.vpid", &json["pid"]);
        match daemon.inbox().expect(&marker, Duration::from_millis(500)) {
            Ok(_) => return Ok(()),
            Err(miss) => last = miss,
        }
    }
    Err(format!("no marker arrives: {last}"))
}

/// The law itself, for the flood's call.
fn hold(metrics: &Metrics, made: u64, delivered: u64) -> Result<u64, String> {
    let labels = [("call", CALL)];
    let read = |name: &str| {
        metrics.sum(name, &labels).map(|sum| sum as u64).ok_or(format!("no series {name}{{call=\"{CALL}\"}}"))
    };
    let seen = read("ringfence_events_seen_total")?;
    let sent = read("ringfence_events_sent_total")?;
    let lost = read("ringfence_events_lost_total")?;
    let shown = metrics.lines("ringfence_events");
    if seen != made || sent + lost != seen || delivered != sent {
        return Err(format!(
            "made {made}, seen {seen}, sent {sent}, lost {lost}, delivered {delivered}: \
             made = seen = sent + lost and sent = delivered do not hold\n{shown}"
        ));
    }
    let received = metrics.sum("ringfence_events_received_total", &[("kind", "call")]);
    if received.is_none_or(|received| (received as u64) < delivered) {
        return Err(format!(
            "received {received:?} events of calls, but {delivered} were delivered\n{shown}"
        ));
    }
    Ok(lost)
}

fn delivered(daemon: &Daemon, pids: &[u32]) -> u64 {
    pids.iter()
        .map(|pid| {
            let of_flood = Expectation::new().is("rule", format!("Suite {CALL}")).is("proc.vpid", pid);
            daemon.inbox().count(&of_flood) as u64
        })
        .sum()
}

fn start(settings: &Settings, arguments: &[&str]) -> Result<(Daemon, tempfile::TempDir), String> {
    let rules = suite_rules()?;
    let path = rules.path().display().to_string();
    let mut all = vec!["--rules", path.as_str()];
    all.extend(arguments);
    Ok((Daemon::start(settings, &all)?, rules))
}

fn stalled_reader(settings: &Settings) -> Result<(), String> {
    let (daemon, _rules) = start(settings, &["--ring-bytes", "4096"])?;
    stall(&daemon)?;
    let flooded = flood(settings, &["--count", "5000", "--seconds", "60"]);
    daemon.signal(libc::SIGCONT)?;
    let (pid, made) = flooded?;
    await_marker(settings, &daemon)?;
    let lost = hold(&daemon.metrics()?, made, delivered(&daemon, &[pid]))?;
    if lost == 0 || lost == made {
        return Err(format!("{lost} of {made} lost: the case must see both losses and deliveries"));
    }
    daemon.stop()?.check()
}

fn two_floods(settings: &Settings) -> Result<(), String> {
    let (daemon, _rules) = start(settings, &["--ring-bytes", "16384"])?;
    let arguments = ["--count", "5000", "--seconds", "60"];
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| flood(settings, &arguments));
        (flood(settings, &arguments), other.join())
    });
    let (one, other) = (one?, other.map_err(|_| "the second flood panicked")??);
    await_marker(settings, &daemon)?;
    hold(&daemon.metrics()?, one.1 + other.1, delivered(&daemon, &[one.0, other.0]))?;
    daemon.stop()?.check()
}

fn steady(settings: &Settings) -> Result<(), String> {
    let (daemon, _rules) = start(settings, &[])?;
    let (pid, made) = flood(settings, &["--rate", "2000", "--seconds", "3"])?;
    await_marker(settings, &daemon)?;
    match hold(&daemon.metrics()?, made, delivered(&daemon, &[pid]))? {
        0 => daemon.stop()?.check(),
        lost => Err(format!("{lost} of {made} events lost at 2,000 a second")),
    }
}

fn sigterm_drains(settings: &Settings) -> Result<(), String> {
    let (daemon, _rules) = start(settings, &[])?;
    let (pid, made) = flood(settings, &["--count", "2000", "--seconds", "60"])?;
    let ended = daemon.stop()?;
    ended.check()?;
    let of_flood = Expectation::new().is("rule", format!("Suite {CALL}")).is("proc.vpid", pid);
    let delivered = ended.alerts.iter().filter(|alert| of_flood.fits(alert)).count() as u64;
    if delivered == made {
        return Ok(());
    }
    Err(format!("{made} calls were made before SIGTERM, {delivered} came out; the log:\n{}", ended.log))
}
