//! Ways to hide an attempt that are known: each must be reported, in time and once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::attempt::evade::WAYS;
use tests::harness::alerts::Expectation;
use tests::harness::wait;

use crate::law::await_marker;
use crate::places::Suite;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let shared = suite.clone();
    let killed = move || killed_thread(&shared).map_err(Failed::from);
    let shared = suite.clone();
    let asked = move || asked_before(&shared).map_err(Failed::from);
    let mut trials =
        vec![Trial::test("evasions::killed_thread", killed), Trial::test("evasions::asked_before", asked)];
    trials.extend(WAYS.iter().map(|(way, _)| {
        let suite = suite.clone();
        let trial = move || hidden_clone(&suite, way).map_err(Failed::from);
        Trial::test(format!("evasions::clone_by_{way}"), trial)
    }));
    trials
}

/// After everything that was made so far has come: exactly one of the alerts fits.
fn told_once(suite: &Suite, expectation: &Expectation) -> Result<(), String> {
    let daemon = suite.daemon()?;
    await_marker(suite.settings(), daemon)?;
    match daemon.inbox().count(expectation) {
        1 => Ok(()),
        several => Err(format!("{several} events of one call")),
    }
}

/// Runs a way that ends by itself; gives the id of the process that went it.
fn go(suite: &Suite, way: &str) -> Result<String, String> {
    // It must be there before.
    suite.daemon()?;
    let output = Command::new(&suite.settings().attempt)
        .args(["evade", way])
        .output()
        .map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (pid, _) = text
        .trim_end()
        .split_once(' ')
        .ok_or_else(|| format!("{}: `{text}` {}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    Ok(pid.to_owned())
}

/// The call never returns; the thread's end tells.
fn killed_thread(suite: &Suite) -> Result<(), String> {
    let pid = go(suite, "killed-thread")?;
    let of_caller = Expectation::new().is("rule", "Suite unshare").is("proc.vpid", pid);
    let event = of_caller
        .clone()
        .is("evt.verdict", "refused")
        .is("evt.refused_by", "seccomp")
        .is("evt.res", "SIGSYS")
        .is("evt.flags", "CLONE_NEWUTS");
    suite.daemon()?.expect(&event)?;
    told_once(suite, &of_caller)
}

/// What the device controller was asked by another call is no part of those that follow.
fn asked_before(suite: &Suite) -> Result<(), String> {
    let pid = go(suite, "asked-before")?;
    let of_caller = Expectation::new().is("proc.vpid", pid);
    let unshare = of_caller.clone().is("rule", "Suite unshare");
    let event = unshare.clone().is("evt.verdict", "refused").is("evt.refused_by", "seccomp");
    suite.daemon()?.expect(&event)?;
    told_once(suite, &unshare)?;
    match suite.daemon()?.inbox().count(&of_caller.is("device.name", "mem")) {
        0 => Ok(()),
        some => Err(format!("{some} events tell of an open of /dev/mem, and there was none")),
    }
}

/// The event comes while the call may still be under way, and there is no second one when it has returned.
fn hidden_clone(suite: &Suite, way: &str) -> Result<(), String> {
    let daemon = suite.daemon()?;
    let mut attempt = Command::new(&suite.settings().attempt)
        .args(["evade", way])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("attempt: {error}"))?;
    let mut line = String::new();
    let out = attempt.stdout.take().ok_or("no standard output")?;
    BufReader::new(out).read_line(&mut line).map_err(|error| format!("attempt: {error}"))?;
    let (maker, child) = line.trim_end().split_once(' ').ok_or(format!("no two numbers: `{line}`"))?;
    let of_maker = Expectation::new().is("rule", "Suite clone").is("proc.vpid", maker);
    let event = of_maker
        .clone()
        .is("evt.rawres", child)
        .is("evt.verdict", "allowed")
        .is("evt.flags", if way == "vfork" { "CLONE_VFORK CLONE_NEWUTS" } else { "CLONE_NEWUTS" })
        .is("ns.changed", "uts");
    let came = daemon.expect(&event);
    drop(attempt.stdin.take());
    let status = wait(&mut attempt)?;
    came?;
    if !status.success() {
        return Err(format!("attempt: {status}"));
    }
    told_once(suite, &of_maker)
}
