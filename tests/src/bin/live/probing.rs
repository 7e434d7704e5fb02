//! A container that tries one wall after another is told of once, on top of what each attempt raises.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::cgroup::{self, Cgroup};
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::cases::cases;

/// The shipped rule.
const RULE: &str = "walls-probed-in-container";

/// Attempts that are refused everywhere, since they give the capability away first; two of them at the same wall.
/// With each the call and the shipped rule that must tell of it.
const AT_TWO_WALLS: [(&str, &str, &str); 3] = [
    ("unshare-nocap", "unshare", "namespace-creation-refused-in-container"),
    ("setns-nocap", "setns", "namespace-entry-refused-in-container"),
    ("clock_settime-nocap", "clock_settime", "clock-change-refused-in-container"),
];
/// One at a third wall.
const AT_THE_THIRD: (&str, &str, &str) =
    ("syslog-clear-nocap", "syslog", "kernel-log-tampering-refused-in-container");

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(settings, &[("probing::three_walls_are_told_of_once_and_two_are_not", three_walls)])
}

/// Makes attempts as a program of a container with this id, whose cgroup is named as Docker names it.
///
/// # Errors
/// A text for people.
pub(crate) fn knock(settings: &Settings, id: &str, attempts: &[&str]) -> Result<(), String> {
    let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(|error| error.to_string())?;
    let mut command = Command::new(&settings.attempt);
    command.arg("run").args(attempts).args(["--abi", "x86_64"]).stdout(Stdio::null());
    cgroup.contain(&mut command);
    let status = command.status().map_err(|error| format!("attempt: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("attempt {}: {status}", attempts.join(" "))) }
}

fn three_walls(settings: &Settings) -> Result<(), String> {
    let shipped = settings.rules.display().to_string();
    let options = ["--rules", &shipped, "--canary-interval-ms", "off", "--metadata-wait-ms", "0"];
    let daemon = Daemon::start(settings, &options)?;
    daemon.undisturbed(|| once(settings, &daemon))?;
    daemon.stop()?.check()
}

fn once(settings: &Settings, daemon: &Daemon) -> Result<(), String> {
    // A second turn must not count on the first one's.
    let turn = daemon.inbox().all().len();
    let [prober, other, last] =
        ["prober", "other", "last"].map(|name| cgroup::container_id(&format!("probing {name} {turn}")));
    let of_two = AT_TWO_WALLS.map(|(attempt, ..)| attempt);
    knock(settings, &prober, &of_two)?;
    knock(settings, &other, &of_two)?;
    // Two walls of one container and a third of another are not three of either.
    mark(settings, daemon, &last)?;
    none(daemon, &prober)?;
    none(daemon, &other)?;
    // The third, and then again two that were counted before: the count began anew.
    let (third, ..) = AT_THE_THIRD;
    knock(settings, &prober, &[third])?;
    knock(settings, &prober, &of_two)?;
    mark(settings, daemon, &last)?;
    none(daemon, &other)?;
    let told = crossed(daemon, &prober);
    let [alert] = &told[..] else {
        return Err(format!("{} alerts of three walls instead of one", told.len()));
    };
    let wanted = Expectation::new()
        .is("rule_id", RULE)
        .is("priority", "Error")
        .is("threshold.count", 3)
        .is("evt.type", AT_THE_THIRD.1)
        .is("evt.category", "kernel-log");
    if !wanted.fits(alert) {
        return Err(wanted.explain(std::slice::from_ref(alert)));
    }
    each_once(daemon, &other, &AT_TWO_WALLS, 1)?;
    each_once(daemon, &prober, &AT_TWO_WALLS, 2)?;
    each_once(daemon, &prober, &[AT_THE_THIRD], 1)
}

/// Waits until what was made before has come. Its call is wrong in itself, which is no refusal.
fn mark(settings: &Settings, daemon: &Daemon, id: &str) -> Result<(), String> {
    let marks = Expectation::new().is("container.id", &id[..12]).is("evt.type", "setns");
    let before = daemon.inbox().count(&marks);
    knock(settings, id, &["setns-badfd"])?;
    let end = Instant::now() + PATIENCE;
    while daemon.inbox().count(&marks) == before {
        if Instant::now() > end {
            return Err(marks.explain(&daemon.inbox().all()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn crossed(daemon: &Daemon, id: &str) -> Vec<Alert> {
    let own = Expectation::new().is("container.id", &id[..12]);
    daemon.inbox().crossed().into_iter().filter(|alert| own.fits(alert)).collect()
}

fn none(daemon: &Daemon, id: &str) -> Result<(), String> {
    match crossed(daemon, id).first() {
        None => Ok(()),
        Some(alert) => Err(format!("told of fewer than three walls: {}", alert.json)),
    }
}

/// Each attempt has raised its own alert and no other.
fn each_once(daemon: &Daemon, id: &str, attempts: &[(&str, &str, &str)], times: usize) -> Result<(), String> {
    for (attempt, call, rule) in attempts {
        // What becomes a container's program has made an allowed call of its own before.
        let of_call = Expectation::new().is("container.id", &id[..12]).is("evt.type", call);
        let of_call = of_call.is("evt.verdict", "refused");
        let alerts = daemon.inbox().fitting(&of_call);
        let right = alerts.iter().filter(|alert| alert.get("rule_id").as_deref() == Some(rule)).count();
        if (alerts.len(), right) != (times, times) {
            let rules: Vec<_> = alerts.iter().filter_map(|alert| alert.get("rule_id")).collect();
            return Err(format!("{attempt} was made {times} times and raised {rules:?}"));
        }
    }
    Ok(())
}
