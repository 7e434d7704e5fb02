//! Nothing is lost silently: calls made = events delivered + counted losses, and SIGTERM drains the ring.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use monitor_common::control::LOST_ENTRIES;
use tests::cgroup::Cgroup;
use tests::harness::alerts::Expectation;
use tests::harness::http::Metrics;
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::cases::cases;
use crate::faults;
use crate::places::suite_rules;
use crate::shared::{self, Case, Life};

/// The call of floods: nothing else on a machine makes it while the suite runs.
const CALL: &str = "unshare";

/// A daemon with a ring of one page, which a flood fills.
const TINY: Life<Running> = Life {
    start: |settings| start(settings, &["--ring-bytes", "4096"]),
    last: "law::a_tiny_ring_ends_well",
    end: |_, running| running.daemon.stop()?.check(),
};

/// A daemon as users start it.
const USUAL: Life<Running> = Life {
    start: |settings| start(settings, &[]),
    last: "law::sigterm_drains_the_ring",
    end: sigterm_drains,
};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let mut tiny: Vec<(&str, Case<Running>)> = vec![
        ("law::stalled_reader_and_tiny_ring", stalled_reader),
        ("law::two_floods_and_a_tiny_ring", two_floods),
        ("law::losses_are_told_by_cgroup", losses_by_cgroup),
    ];
    tiny.extend(faults::with_a_tiny_ring(settings));
    let mut all = shared::trials(settings, TINY, &tiny);
    all.extend(shared::trials(settings, USUAL, &[("law::nothing_is_lost_at_a_steady_rate", steady)]));
    if !settings.guest {
        // Sixteen thousand directories come and go, which takes a guest a minute and shows nothing more there.
        all.extend(cases(settings, &[("law::losses_beyond_the_table_are_counted", losses_beyond_the_table)]));
    }
    all
}

/// A flood of failing calls, in a cgroup or in ours; gives the process that made it and how many it made.
pub(crate) fn flood(
    settings: &Settings,
    cgroup: Option<&Cgroup>,
    arguments: &[&str],
) -> Result<(u32, u64), String> {
    let mut command = Command::new(&settings.attempt);
    command.args(["flood", "--call", CALL]).args(arguments).stdout(std::process::Stdio::piped());
    if let Some(cgroup) = cgroup {
        cgroup.enter(&mut command);
    }
    let child = command.spawn().map_err(|error| format!("attempt: {error}"))?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    json["made"].as_u64().map(|made| (pid, made)).ok_or(format!("no `made`: {text}"))
}

/// Stops the daemon's process, all of it: returns when the kernel says that it stands still.
pub(crate) fn stall(daemon: &Daemon) -> Result<(), String> {
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
pub(crate) fn await_marker(settings: &Settings, daemon: &Daemon) -> Result<(), String> {
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

/// The law itself, for the flood's call and what happened since `before`. Gives the losses.
pub(crate) fn hold(before: &Metrics, daemon: &Daemon, made: u64, delivered: u64) -> Result<u64, String> {
    let labels = [("call", CALL)];
    let metrics = daemon.metrics()?;
    let since = |name: &str, labels: &[(&str, &str)]| {
        let now = metrics.sum(name, labels)?;
        Some((now - before.sum(name, labels).unwrap_or(0.0)) as u64)
    };
    let read = |name: &str| since(name, &labels).ok_or(format!("no series {name}{{call=\"{CALL}\"}}"));
    let seen = read("ringfence_events_seen_total")?;
    let sent = read("ringfence_events_sent_total")?;
    let lost = read("ringfence_events_lost_total")?;
    // What the kernel itself skipped, because a preempted task was inside the same probe: it counts them, and only
    // they may be missing. It does not say whose call it was: a probe of all calls not which one, and that of this
    // call not whether it was one of the daemon's own test calls, which are not in `seen`.
    let skipped: u64 = ["on_x64_sys_unshare", "sys_exit", "sys_exit_perf"]
        .map(|probe| since("ringfence_probe_missed_total", &[("probe", probe)]).unwrap_or(0))
        .iter()
        .sum();
    let shown = format!("{}{}", metrics.lines("ringfence_events"), metrics.lines("ringfence_probe_missed"));
    if !(seen..=seen + skipped).contains(&made) || sent + lost != seen || delivered != sent {
        return Err(format!(
            "made {made}, seen {seen}, at most {skipped} skipped, sent {sent}, lost {lost}, delivered {delivered}: \
             made = seen + skipped, seen = sent + lost and sent = delivered do not hold\n{shown}"
        ));
    }
    let received = since("ringfence_events_received_total", &[("kind", "call")]);
    if received.is_none_or(|received| received < delivered) {
        return Err(format!(
            "received {received:?} events of calls, but {delivered} were delivered\n{shown}"
        ));
    }
    Ok(lost)
}

/// The law for one flood of which some was lost and some was delivered: otherwise the case shows nothing.
pub(crate) fn hold_with_losses(before: &Metrics, daemon: &Daemon, pid: u32, made: u64) -> Result<(), String> {
    let lost = hold(before, daemon, made, delivered(daemon, &[pid]))?;
    if lost == 0 || lost == made {
        return Err(format!("{lost} of {made} lost: the case must see both losses and deliveries"));
    }
    Ok(())
}

pub(crate) fn delivered(daemon: &Daemon, pids: &[u32]) -> u64 {
    pids.iter()
        .map(|pid| {
            let of_flood = Expectation::new().is("rule", format!("Suite {CALL}")).is("proc.vpid", pid);
            daemon.inbox().count(&of_flood) as u64
        })
        .sum()
}

/// A daemon under the suite's rules.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    pub(crate) _rules: tempfile::TempDir,
}

pub(crate) fn start(settings: &Settings, arguments: &[&str]) -> Result<Running, String> {
    let rules = suite_rules()?;
    let path = rules.path().display().to_string();
    let mut all = vec!["--rules", path.as_str()];
    all.extend(arguments);
    Ok(Running { daemon: Daemon::start(settings, &all)?, _rules: rules })
}

fn stalled_reader(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let before = daemon.metrics()?;
    stall(daemon)?;
    let flooded = flood(settings, None, &["--count", "5000", "--seconds", "60"]);
    daemon.signal(libc::SIGCONT)?;
    let (pid, made) = flooded?;
    await_marker(settings, daemon)?;
    hold_with_losses(&before, daemon, pid, made)
}

fn two_floods(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let before = daemon.metrics()?;
    let arguments = ["--count", "5000", "--seconds", "60"];
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| flood(settings, None, &arguments));
        (flood(settings, None, &arguments), other.join())
    });
    let (one, other) = (one?, other.map_err(|_| "the second flood panicked")??);
    await_marker(settings, daemon)?;
    hold(&before, daemon, one.1 + other.1, delivered(daemon, &[one.0, other.0])).map(drop)
}

fn losses_by_cgroup(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let cgroup = |name: &str| Cgroup::make(&format!("ringfence-{name}-{}", std::process::id()));
    let cgroups = [cgroup("one"), cgroup("other")];
    stall(daemon)?;
    let flooded: Result<Vec<_>, String> = ["3000", "5000"]
        .iter()
        .zip(cgroups)
        .map(|(count, cgroup)| {
            let cgroup = cgroup.map_err(|error| error.to_string())?;
            let id = cgroup.id().map_err(|error| error.to_string())?;
            Ok((id, flood(settings, Some(&cgroup), &["--count", count, "--seconds", "60"])?))
        })
        .collect();
    daemon.signal(libc::SIGCONT)?;
    let flooded = flooded?;
    await_marker(settings, daemon)?;
    for (cgroup, (pid, made)) in flooded {
        let lost = made - delivered(daemon, &[pid]);
        // Logged once a second.
        daemon.await_log(|line| line.contains(&format!("{CALL} of cgroup {cgroup}: {lost}")))?;
    }
    Ok(())
}

/// Each new cgroup is a new key of the table of losses.
fn losses_beyond_the_table(settings: &Settings) -> Result<(), String> {
    const KINDS: [&str; 2] = ["cgroup_mkdir", "cgroup_rmdir"];
    let table = u64::from(LOST_ENTRIES);
    let Running { daemon, _rules } = start(settings, &["--ring-bytes", "4096"])?;
    let parent = Cgroup::make(&format!("ringfence-many-{}", std::process::id()));
    let parent = parent.map_err(|error| error.to_string())?;
    stall(&daemon)?;
    let child = parent.path().join("child");
    let made =
        (0..table).try_for_each(|_| std::fs::create_dir(&child).and_then(|()| std::fs::remove_dir(&child)));
    daemon.signal(libc::SIGCONT)?;
    made.map_err(|error| format!("{}: {error}", child.display()))?;
    await_marker(settings, &daemon)?;
    let metrics = daemon.metrics()?;
    let sum = |name: &str| -> u64 {
        KINDS.iter().filter_map(|kind| metrics.sum(name, &[("call", kind)])).sum::<f64>() as u64
    };
    let (seen, sent) = (sum("ringfence_events_seen_total"), sum("ringfence_events_sent_total"));
    let (lost, unattributed) =
        (sum("ringfence_events_lost_total"), sum("ringfence_losses_unattributed_total"));
    // Others on this machine may have taken a few places of the table.
    let attributed = lost - unattributed;
    if seen >= 2 * table && sent + lost == seen && attributed <= table && attributed > table / 2 {
        return daemon.stop()?.check();
    }
    Err(format!(
        "{table} places for seen {seen}, sent {sent}, lost {lost}, without attribution {unattributed}"
    ))
}

fn steady(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let before = daemon.metrics()?;
    let (pid, made) = flood(settings, None, &["--rate", "2000", "--seconds", "3"])?;
    await_marker(settings, daemon)?;
    match hold(&before, daemon, made, delivered(daemon, &[pid]))? {
        0 => Ok(()),
        lost => Err(format!("{lost} of {made} events lost at 2,000 a second")),
    }
}

fn sigterm_drains(settings: &Settings, Running { daemon, .. }: Running) -> Result<(), String> {
    let (pid, made) = flood(settings, None, &["--count", "2000", "--seconds", "60"])?;
    let ended = daemon.stop()?;
    ended.check()?;
    let of_flood = Expectation::new().is("rule", format!("Suite {CALL}")).is("proc.vpid", pid);
    let delivered = ended.alerts.iter().filter(|alert| of_flood.fits(alert)).count() as u64;
    if delivered == made {
        return Ok(());
    }
    Err(format!("{made} calls were made before SIGTERM, {delivered} came out; the log:\n{}", ended.log))
}
