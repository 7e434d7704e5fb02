//! Faults of the machine: the ledger stays exact, nothing stays attached, and the message says what was wrong.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::bpf_objects;
use tests::harness::{PATIENCE, Settings};
use tests::seccomp;

use crate::cases::{Case, cases};
use crate::law::{Running, await_marker, delivered, flood, hold, hold_with_losses, stall, start};
use crate::places::suite_rules;
use crate::shared;
use crate::starts::refused;

/// The switch of the second processor.
const CPU: &str = "/sys/devices/system/cpu/cpu1/online";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let mut all: Vec<(&str, Case)> =
        vec![("faults::killed_and_started_again", killed), ("faults::no_memory_for_maps", no_memory)];
    if settings.guest {
        all.push(("faults::ring_larger_than_memory", ring_too_large));
    }
    cases(settings, &all)
}

/// Cases that share a daemon with a ring of one page.
pub(crate) fn with_a_tiny_ring(settings: &Settings) -> Vec<(&'static str, shared::Case<Running>)> {
    let mut all: Vec<(&str, shared::Case<Running>)> =
        vec![("faults::stopped_again_and_again", stopped_again_and_again)];
    if settings.guest {
        // The machine that the suite runs on is shared: its processors stay as they are.
        all.push(("faults::processor_comes_and_goes", processor));
    }
    all
}

/// SIGKILL leaves no time to detach: the kernel must do it. A new daemon starts from zero.
fn killed(settings: &Settings) -> Result<(), String> {
    let Running { daemon, _rules } = start(settings, &[])?;
    let held = bpf_objects::held_by(daemon.pid()).map_err(|error| error.to_string())?;
    let links = held.iter().filter(|object| matches!(object, bpf_objects::Object::Link(_))).count();
    if links < 5 || held.len() < 2 * links || !held.iter().all(|object| object.exists()) {
        return Err(format!("the daemon should hold programs and links; it holds {held:?}"));
    }
    flood(settings, None, &["--count", "1000", "--seconds", "60"])?;
    daemon.signal(libc::SIGKILL)?;
    // Programs are freed a moment after their last user is gone.
    let end = Instant::now() + PATIENCE;
    while let Some(left) = held.iter().find(|object| object.exists()) {
        if Instant::now() > end {
            return Err(format!("{left:?} outlives the daemon that was killed"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(daemon);
    let Running { daemon, _rules } = start(settings, &[])?;
    let before = daemon.metrics()?;
    let (pid, made) = flood(settings, None, &["--count", "1000", "--seconds", "60"])?;
    await_marker(settings, &daemon)?;
    match hold(&before, &daemon, made, delivered(&daemon, &[pid]))? {
        0 => daemon.stop()?.check(),
        lost => Err(format!("{lost} of {made} events lost")),
    }
}

/// The reader stands still three times during one flood, with a ring of one page.
fn stopped_again_and_again(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let before = daemon.metrics()?;
    let flooded = std::thread::scope(|scope| {
        let flooding =
            scope.spawn(|| flood(settings, None, &["--count", "6000", "--rate", "2000", "--seconds", "60"]));
        let suspended = (0..3).try_for_each(|_| {
            stall(daemon)?;
            std::thread::sleep(Duration::from_millis(300));
            daemon.signal(libc::SIGCONT)?;
            std::thread::sleep(Duration::from_millis(300));
            Ok::<(), String>(())
        });
        // Whatever went wrong, it must not stay stopped.
        let resumed = daemon.signal(libc::SIGCONT);
        let flooded = flooding.join().map_err(|_| "the flood panicked".to_owned())?;
        suspended.and(resumed).and(flooded)
    });
    let (pid, made) = flooded?;
    await_marker(settings, daemon)?;
    hold_with_losses(&before, daemon, pid, made)
}

fn no_memory(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let mut command = settings.command();
    command.args(["--listen", "off", "--control-socket", "off", "--rules"]).arg(rules.path());
    // SAFETY: between fork and exec the child makes one system call and allocates a few bytes; the suite holds no
    // lock of the allocator while it starts programs one at a time.
    unsafe { command.pre_exec(seccomp::no_memory_for_maps) };
    refused(&mut command, 2, &["BPF maps", "memory"])
}

/// The kernel itself says so: a buffer of one gigabyte is more than a guest has left.
fn ring_too_large(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let mut command = settings.command();
    command.args(["--listen", "off", "--control-socket", "off"]);
    command.args(["--ring-bytes", "1073741824", "--rules"]).arg(rules.path());
    refused(&mut command, 2, &["BPF maps", "memory"])
}

/// The second processor goes offline and comes back while calls are made: its counters stay in the sum.
fn processor(settings: &Settings, Running { daemon, .. }: &Running) -> Result<(), String> {
    let switch = |state: &str| fs::write(Path::new(CPU), state).map_err(|error| format!("{CPU}: {error}"));
    let before = daemon.metrics()?;
    let floods = std::thread::scope(|scope| {
        let flooding: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    flood(settings, None, &["--count", "4000", "--rate", "1000", "--seconds", "120"])
                })
            })
            .collect();
        let switched = (0..4).try_for_each(|_| {
            switch("0")?;
            std::thread::sleep(Duration::from_millis(300));
            switch("1")?;
            std::thread::sleep(Duration::from_millis(300));
            Ok::<(), String>(())
        });
        let back = switch("1").or_else(|fault| if switched.is_ok() { Ok(()) } else { Err(fault) });
        let floods: Result<Vec<(u32, u64)>, String> = flooding
            .into_iter()
            .map(|flood| flood.join().map_err(|_| "a flood panicked".to_owned())?)
            .collect();
        switched.and(back).and(floods)
    })?;
    await_marker(settings, daemon)?;
    let pids: Vec<u32> = floods.iter().map(|(pid, _)| *pid).collect();
    let made = floods.iter().map(|(_, made)| made).sum();
    hold(&before, daemon, made, delivered(daemon, &pids)).map(drop)
}
