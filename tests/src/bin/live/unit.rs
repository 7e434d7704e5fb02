//! Ringfence as systemd's service, under a real systemd that is the guest's first process: the unit as it is shipped, from
//! the boot to a stop that leaves nothing. Then, with `--services`, every daemon of the suite runs in a copy of that unit.

mod families;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use monitor_common::caps::Cap;
use tests::bpf_objects::{Object, held_by};
use tests::cgroup::container_id;
use tests::features::NAMESPACE_SWITCH;
use tests::harness::http::{self, Metrics};
use tests::harness::{PATIENCE, Settings};
use tests::systemd::{SERVICE, SOCKET, await_property, journal, main_pid, property, systemctl};
use tests::tamper::{Stopped, threads};

use crate::cases::cases;
use crate::confined::{line, needed, set, statuses};
use crate::probing::knock;
use crate::restart::all_gone;
use crate::restart::load::Load;

pub(crate) use families::choose;

/// Where the shipped socket listens.
const ADDRESS: &str = "127.0.0.1:9477";
/// Where its probes are pinned.
const PINS: &str = "/run/ringfence/bpf";
/// Its cgroup.
const CGROUP: &str = "/sys/fs/cgroup/system.slice/ringfence.service";
/// What it brings with it, as names of capabilities.
const BOUNDING: [&str; 5] =
    ["cap_bpf", "cap_dac_read_search", "cap_net_admin", "cap_perfmon", "cap_sys_ptrace"];
/// Attempts a second while it restarts.
const RATE: u64 = 200;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.services.is_none() {
        return Vec::new();
    }
    cases(
        settings,
        &[
            ("unit::starts_with_the_machine", starts),
            ("unit::has_only_what_it_needs", has_only_what_it_needs),
            ("unit::serves_metrics_on_systemds_socket", serves),
            ("unit::answers_at_its_socket", answers),
            ("unit::tells_the_journal", tells),
            ("unit::tests_its_hooks_but_those_whose_calls_are_kept", tests_its_hooks),
            ("unit::reads_its_rules_anew", reloads),
            ("unit::a_restart_keeps_what_watches_and_loses_nothing", restarts),
            ("unit::a_crash_is_mended", crashes),
            ("unit::the_watchdog_is_fed_while_it_sees_and_only_then", watchdog),
            ("unit::a_stop_leaves_nothing", stops),
        ],
    )
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Looks again and again until it holds; gives what was wrong at last.
fn eventually(holds: impl Fn() -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match holds() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            held => return held,
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Waits until it is active; gives its process.
fn active() -> Result<i32, String> {
    await_property(SERVICE, "ActiveState", |state| state == "active")?;
    main_pid(SERVICE)
}

fn metrics() -> Result<Metrics, String> {
    match http::get(ADDRESS, "/metrics").map_err(|error| format!("{ADDRESS}: {error}"))? {
        (200, text) => Ok(Metrics::new(text)),
        (status, text) => Err(format!("/metrics answers {status}: {text}")),
    }
}

fn watches(pid: i32) -> Result<BTreeSet<Object>, String> {
    let objects = held_by(pid).map_err(text)?;
    if objects.is_empty() { Err(format!("process {pid} holds no program")) } else { Ok(objects) }
}

/// It was enabled, so it runs, at the first try, with all that it wants.
fn starts(_: &Settings) -> Result<(), String> {
    active()?;
    for unit in [SOCKET, "ringfence-pins.service", "run-ringfence-bpf.mount"] {
        let state = property(unit, "ActiveState")?;
        expect(state == "active", || format!("{unit} is {state}\n{}", journal("init.scope")))?;
    }
    let of = |name| property(SERVICE, name);
    let (restarts, result, kind) = (of("NRestarts")?, of("Result")?, of("Type")?);
    expect((restarts.as_str(), result.as_str(), kind.as_str()) == ("0", "success", "notify"), || {
        format!("{restarts} restarts, result {result}, type {kind}\n{}", journal(SERVICE))
    })?;
    await_property(SERVICE, "StatusText", |text| text == "ready")?;
    let unit = "/lib/systemd/system/ringfence.service";
    let fragment = of("FragmentPath")?;
    expect(Path::new(&fragment).ends_with(unit.trim_start_matches('/')), || {
        format!("its unit is {fragment}")
    })?;
    let dropped = of("DropInPaths")?;
    expect(dropped.is_empty(), || format!("it is changed by {dropped}"))
}

/// By the kernel's word: what the bounding set is that it starts from, and what is left of it in each thread.
fn has_only_what_it_needs(_: &Settings) -> Result<(), String> {
    let pid = active()?;
    let bounding = property(SERVICE, "CapabilityBoundingSet")?;
    let given: BTreeSet<&str> = bounding.split_whitespace().collect();
    expect(given == BTreeSet::from(BOUNDING), || format!("the unit gives {given:?}"))?;
    let user = tests::systemd::user_id("ringfence")?;
    // The thread that makes the test calls gives up the rest with the first of them.
    eventually(|| {
        statuses(pid)?.into_iter().try_for_each(|(name, status)| {
            let expected = if name == "canary" { 0 } else { needed() };
            thread_fault(&status, expected, user).map_err(|fault| format!("thread {name}: {fault}\n{status}"))
        })
    })
}

/// [`BOUNDING`] in the kernel's form.
fn bounding_mask() -> u64 {
    let is_given = |cap: &&Cap| BOUNDING.iter().any(|name| cap.name().eq_ignore_ascii_case(name));
    Cap::ALL.iter().filter(is_given).map(|cap| cap.mask()).sum()
}

fn thread_fault(status: &str, expected: u64, user: u32) -> Result<(), String> {
    for (key, value) in [("CapPrm", expected), ("CapEff", expected), ("CapInh", 0), ("CapAmb", 0)] {
        let found = set(status, key)?;
        expect(found == value, || format!("{key} is {found:x}, not {value:x}"))?;
    }
    // It cannot be emptied without CAP_SETPCAP, and no new privileges come by it.
    let (bound, given) = (set(status, "CapBnd")?, bounding_mask());
    expect(bound == given, || format!("CapBnd is {bound:x}, not {given:x}"))?;
    let ids = format!("{user}\t{user}\t{user}\t{user}");
    for (key, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Uid", &ids)] {
        let found = line(status, key)?;
        expect(found == value, || format!("{key} is {found}, not {value}"))?;
    }
    Ok(())
}

/// The service's own network has no way in; systemd listens in the host's.
fn serves(_: &Settings) -> Result<(), String> {
    let pid = active()?;
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).map_err(text);
    expect(network(&pid.to_string())? != network("1")?, || "it is in the host's network".to_owned())?;
    let (status, said) = http::get(ADDRESS, "/readyz").map_err(text)?;
    expect(status == 200, || format!("/readyz answers {status}: {said}"))?;
    let attached = metrics()?.sum("ringfence_probe_attached", &[]);
    expect(attached > Some(5.0), || format!("{attached:?} probes are attached"))
}

/// `ringfence status` without a word about where.
fn answers(_: &Settings) -> Result<(), String> {
    let output = Command::new("/usr/bin/ringfence").arg("status").output().map_err(text)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = ["seccomp in force", "capabilities in force"];
    expect(output.status.success() && wanted.iter().all(|word| said.contains(word)), || {
        format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr))
    })
}

/// Alerts under the shipped rules, one JSON line each.
fn tells(settings: &Settings) -> Result<(), String> {
    let id = container_id("unit tells");
    knock(settings, &id, &["unshare-uts", "settimeofday-nocap"])?;
    eventually(|| {
        let written = journal(SERVICE);
        let is_told = written.lines().any(|line| line.contains(&id[..12]));
        expect(is_told, || format!("no alert names {id}:\n{written}"))
    })
}

/// All but those whose calls the filter keeps, which docs/systemd.md names.
fn tests_its_hooks(_: &Settings) -> Result<(), String> {
    const KEPT: [&str; 7] =
        ["settimeofday", "stime", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm"];
    let is_kept = |hook: &str| {
        hook.ends_with("_clone3") || hook == "cgroup/device" || KEPT.iter().any(|call| hook.contains(call))
    };
    eventually(|| {
        let metrics = metrics()?;
        let value = |name: &str, hook: &str| metrics.sum(name, &[("hook", hook)]);
        let lines = metrics.lines("ringfence_canary_up{");
        let hooks: BTreeSet<&str> = lines.lines().filter_map(|line| line.split('"').nth(1)).collect();
        let wrong: Vec<&str> = hooks
            .iter()
            .copied()
            .filter(|hook| {
                let is_untested = value("ringfence_canary_untested", hook) == Some(1.0);
                let is_up = value("ringfence_canary_up", hook) == Some(1.0);
                match *hook {
                    NAMESPACE_SWITCH => !is_untested && !is_up,
                    hook if is_kept(hook) => !is_untested,
                    _ => !is_up,
                }
            })
            .collect();
        expect(wrong.is_empty() && hooks.len() > 5, || format!("{wrong:?}\n{lines}"))
    })
}

/// By the signal that the unit sends, which is obeyed although nothing changed; and without it, when a file does.
fn reloads(_: &Settings) -> Result<(), String> {
    const OWN: &str = "/etc/ringfence/rules.d/suite.yaml";
    let pid = active()?;
    let count =
        |outcome| Ok::<_, String>(metrics()?.sum("ringfence_rules_reloads_total", &[("outcome", outcome)]));
    let grows = |outcome: &'static str, begin: &dyn Fn() -> Result<(), String>| {
        let before = count(outcome)?;
        begin()?;
        eventually(|| {
            expect(count(outcome)? > before, || format!("no reload was {outcome}:\n{}", journal(SERVICE)))
        })
    };
    grows("unchanged", &|| systemctl(&["reload", SERVICE]).map(drop))?;
    let rule = "- rule: Suite\n  id: unit-suite\n  desc: Matches.\n  condition: evt.type = setns\n  output: seen\n  priority: debug\n";
    grows("ok", &|| std::fs::write(OWN, rule).map_err(text))?;
    grows("ok", &|| std::fs::remove_file(OWN).map_err(text))?;
    expect(active()? == pid, || "a reload started it anew".to_owned())
}

/// The programs and links are the same, and every attempt meanwhile was seen and came out of the ring.
fn restarts(_: &Settings) -> Result<(), String> {
    let seen = |metrics: &Metrics, what: &str| {
        metrics.sum(&format!("ringfence_events_{what}_total"), &[("call", "setns")]).unwrap_or(f64::NAN)
    };
    let before = watches(active()?)?;
    let at_first = seen(&metrics()?, "seen");
    let load = Load::start(RATE);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        systemctl(&["restart", SERVICE])?;
    }
    let made = load.stop()? as f64;
    let after = watches(active()?)?;
    expect(after == before, || format!("other programs watch than before: {before:?}, {after:?}"))?;
    eventually(|| {
        let metrics = metrics()?;
        let (new, lost) = (seen(&metrics, "seen") - at_first, seen(&metrics, "lost"));
        let [sent, received] = ["sent", "received"]
            .map(|what| metrics.sum(&format!("ringfence_events_{what}_total"), &[]).unwrap_or(f64::NAN));
        let skipped = metrics.sum("ringfence_probe_missed_total", &[]).unwrap_or(0.0);
        let figures = format!(
            "{made} attempts, {new} seen, {skipped} skipped by the kernel, {lost} lost; {sent} sent, {received} received"
        );
        // Others make records, too, but not all the time.
        expect(new + skipped >= made && lost == 0.0 && sent == received, || figures.clone())?;
        println!("{figures}");
        Ok(())
    })
}

/// systemd starts it anew, and it takes over what watched meanwhile.
fn crashes(_: &Settings) -> Result<(), String> {
    let pid = active()?;
    let before = watches(pid)?;
    // SAFETY: the service's own process.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let new = anew(pid)?;
    let after = watches(new)?;
    expect(after == before, || format!("other programs watch than before: {before:?}, {after:?}"))
}

/// Waits for another process than this one; gives it when it is ready.
fn anew(old: i32) -> Result<i32, String> {
    let old = old.to_string();
    await_property(SERVICE, "MainPID", |pid| pid != "0" && pid != old)?;
    active()
}

/// Each feeding is later than the one before; without test calls there is none, and 30 seconds later another process.
fn watchdog(_: &Settings) -> Result<(), String> {
    let pid = active()?;
    let fed = || property(SERVICE, "WatchdogTimestampMonotonic");
    for _ in 0..2 {
        let last = fed()?;
        await_property(SERVICE, "WatchdogTimestampMonotonic", |now| now != last)?;
    }
    let restarts: i32 = property(SERVICE, "NRestarts")?.parse().map_err(text)?;
    let [canaries] = threads(pid, "canary")[..] else {
        return Err("the daemon has not one thread named `canary`".to_owned());
    };
    let began = Instant::now();
    let stopped = Stopped::new(canaries).map_err(text)?;
    await_property(SERVICE, "SubState", |state| state != "running")?;
    // A process of which we hold a thread does not end.
    drop(stopped);
    anew(pid)?;
    let took = began.elapsed();
    let after: i32 = property(SERVICE, "NRestarts")?.parse().map_err(text)?;
    println!("ended and started anew after {took:.1?}, with {after} restarts");
    // It may have been fed a moment before.
    expect(took > Duration::from_secs(20) && after > restarts, || {
        format!("{restarts} restarts, then {after}, after {took:?}: {}", journal("init.scope"))
    })
}

fn stops(_: &Settings) -> Result<(), String> {
    let pid = active()?;
    let objects = watches(pid)?;
    systemctl(&["stop", SERVICE, SOCKET])?;
    await_property("ringfence-pins.service", "ActiveState", |state| state == "inactive")?;
    await_property("run-ringfence-bpf.mount", "ActiveState", |state| state == "inactive")?;
    let result = property(SERVICE, "Result")?;
    expect(result == "success", || format!("it ended with {result}\n{}", journal(SERVICE)))?;
    all_gone(&objects)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(text)?;
    expect(!mounts.contains(PINS), || format!("something is mounted at {PINS}"))?;
    // Its cgroup is removed a moment later.
    let left = [CGROUP.to_owned(), format!("/proc/{pid}")];
    eventually(|| match left.iter().find(|path| Path::new(path).exists()) {
        None => Ok(()),
        Some(left) => Err(format!("{left} is still there")),
    })
}
