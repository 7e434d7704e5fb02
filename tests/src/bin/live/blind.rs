//! Ringfence notices that it has gone blind: an internal alert and a metric within two seconds, and again when it
//! sees. And the canaries by which it notices never leave it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::features::{FTRACE_CAN_BE_SWITCHED_OFF, NAMESPACE_SWITCH, SWITCH_IS_UNTESTED, running};
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{PATIENCE, Settings};
use tests::tamper::{Map, Stopped, detach_link, threads};

use crate::cases::cases;
use crate::law::{flood, hold};
use crate::shared::{self, Life};
use crate::watched::Watched;

const STOOD: &str = "Ringfence stood still";

/// The last case leaves it blind for good.
const WATCHED: Life<Watched> = Life {
    start: |settings| Watched::start(settings, &[]),
    last: "blind::detached_device_link",
    end: detached_device_link,
};

/// The same with a ring of one page.
const WITH_TINY_RING: Life<Watched> = Life {
    start: |settings| Watched::start(settings, &["--ring-bytes", "4096"]),
    last: "blind::stopped_daemon",
    end: stopped_daemon,
};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let mut all = cases(
        settings,
        &[
            ("blind::canaries_never_leave", canaries_never_leave),
            ("blind::selftest", selftest),
            ("blind::closed_link", closed_link),
        ],
    );
    let mut shared: Vec<(&str, shared::Case<Watched>)> = vec![
        ("blind::law_holds_with_canaries", law_holds),
        ("blind::wiped_counters", wiped_counters),
        ("blind::wiped_losses", wiped_losses),
        ("blind::full_losses", full_losses),
        ("blind::wiped_marks_cost_nothing", wiped_marks),
        ("blind::forged_canary_hides_nothing", forged_canary),
        ("blind::stopped_reader", stopped_reader),
        ("blind::stopped_canary_thread", stopped_canary_thread),
        ("blind::stopped_watch", stopped_watch),
    ];
    // What tells blindness is the same program everywhere; what it looks at differs on the oldest kernel (other ways to
    // what is told) and on the newest (perf's tracepoint), and this machine's own has the rest. Guests take minutes for
    // them, so those between have what hangs on links alone, and so has the newest with trampolines, which the oldest has too.
    let is_between = running().is_some_and(|version| ((5, 15)..(7, 0)).contains(&version));
    let has_trampolines = settings.attach == "trampoline";
    let links_alone = settings.guest && (is_between || has_trampolines && running() >= Some((7, 0)));
    if links_alone {
        shared.clear();
        all.retain(|trial| trial.name() == "blind::closed_link");
    }
    if settings.guest && has_trampolines {
        shared.push(("blind::ftrace_disabled", ftrace_disabled));
    }
    all.extend(shared::trials(settings, WATCHED, &shared));
    if links_alone {
        return all;
    }
    all.extend(shared::trials(settings, WITH_TINY_RING, &[("blind::full_ring", full_ring)]));
    all
}

/// Rounds of canaries under rules that match everything, and none of it is seen outside.
fn canaries_never_leave(settings: &Settings) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("alerts.jsonl");
    let watched = Watched::start(settings, &["--alert-file", &file.display().to_string()])?;
    let received = |metrics: &tests::harness::http::Metrics| {
        metrics.sum("ringfence_events_received_total", &[("kind", "canary")])
    };
    let before = received(&watched.daemon.metrics()?).unwrap_or_default();
    watched.await_metrics("three more rounds", |metrics| Some(received(metrics)? > before + 100.0))?;
    let trip = watched.gauge("ringfence_canary_round_trip_seconds", &[])?;
    if !(trip > 0.0 && trip < 1.0) {
        return Err(format!("a round trip of {trip} s"));
    }
    watched.told(0)?;
    let pid = watched.daemon.pid();
    let metrics = watched.daemon.metrics()?;
    let alerts = metrics.sum("ringfence_alerts_total", &[]).unwrap_or_default();
    let ended = watched.stop()?;
    let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let own = |alert: &&Alert| {
        alert.get("proc.name").as_deref() == Some("canary")
            || alert.get("proc.pid").as_deref() == Some(&pid.to_string())
    };
    if let Some(alert) = ended.alerts.iter().find(own) {
        return Err(format!("a canary left the daemon: {}", alert.json));
    }
    if text.contains("\"canary\"") || text.lines().count() != ended.alerts.len() {
        return Err(format!("the alert file differs from standard output:\n{text}"));
    }
    if alerts > ended.alerts.len() as f64 {
        return Err(format!("{alerts} alerts were counted, {} came out", ended.alerts.len()));
    }
    Ok(())
}

/// A flood of real calls is counted to the last one while canaries make the same call.
fn law_holds(settings: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let before = watched.daemon.metrics()?;
    // What an emulated processor cannot judge in time is told as a stalled reader, and rightly so.
    let rate = if settings.guest { "200" } else { "1000" };
    let (pid, made) = flood(settings, None, &["--rate", rate, "--seconds", "3"])?;
    let of_flood = Expectation::new().is("rule", "Suite unshare").is("proc.vpid", pid);
    let start = Instant::now();
    while (watched.daemon.inbox().count(&of_flood) as u64) < made && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    hold(&before, &watched.daemon, made, watched.daemon.inbox().count(&of_flood) as u64)?;
    watched.await_metrics("a ledger of canaries that is in step", |metrics| {
        let of = |name: &str| metrics.sum(name, &[("call", "canary")]);
        let seen = of("ringfence_events_seen_total")?;
        let sent = of("ringfence_events_sent_total")?;
        let received = metrics.sum("ringfence_events_received_total", &[("kind", "canary")])?;
        Some(seen > 40.0 && seen == sent && sent == received && of("ringfence_events_lost_total")? == 0.0)
    })?;
    watched.told(0)
}

fn selftest(settings: &Settings) -> Result<(), String> {
    let output = Command::new(&settings.ringfence)
        .args(["doctor", "--selftest", "--no-color"])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("selftest")).collect();
    let ok = lines.iter().filter(|line| line.contains(": ok, came back after")).count();
    let drawn_in =
        lines.iter().filter(|line| line.contains(NAMESPACE_SWITCH) && line.contains("untested: this"));
    let is_excused = running().is_some_and(|kernel| SWITCH_IS_UNTESTED.contains(&kernel));
    let excused = if is_excused { drawn_in.count() } else { 0 };
    if !output.status.success() || ok + excused != lines.len() || ok < 9 {
        return Err(format!("{}: {ok} of {} hooks are ok\n{text}", output.status, lines.len()));
    }
    Ok(())
}

fn detached_device_link(_: &Settings, watched: Watched) -> Result<(), String> {
    watched.begin()?;
    let link = watched.descriptor(&[("link_type", "cgroup")])?;
    let start = Instant::now();
    detach_link(link.number("link_id").unwrap_or_default()).map_err(|error| format!("detach: {error}"))?;
    watched.expect_blind(start, "detached", "cgroup/device")?;
    watched.stays_blind("cgroup/device")?;
    if watched.gauge("ringfence_canary_up", &[("hook", "cgroup/device")])? != 0.0 {
        return Err("canary_up of the device probe is not 0".to_owned());
    }
    // It stays so, and is told once.
    std::thread::sleep(Duration::from_millis(2500));
    watched.told(1)?;
    watched.stop().map(drop)
}

/// A link that cannot be detached by its id is lost when the daemon's only descriptor of it is closed.
fn closed_link(settings: &Settings) -> Result<(), String> {
    let watched = Watched::start(settings, &[])?;
    let (link, hook) = if settings.attach == "trampoline" {
        (watched.descriptor(&[("link_type", "tracing")])?, "fexit/")
    } else if let Ok(link) = watched.perf_link("sys_exit_perf") {
        // From 7.0 on.
        (link, "tracepoint/raw_syscalls/sys_exit")
    } else {
        (watched.descriptor(&[("tp_name", "sys_exit")])?, "tp_btf/sys_exit")
    };
    let main = Stopped::new(watched.daemon.pid()).map_err(|error| format!("ptrace: {error}"))?;
    let start = Instant::now();
    main.close(link.fd).map_err(|error| format!("close({}) in the daemon: {error}", link.fd))?;
    drop(main);
    watched.expect_blind(start, "detached", hook)?;
    watched.stays_blind(hook)?;
    watched.stop().map(drop)
}

fn wiped_counters(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let slots = monitor_common::control::COUNTER_SLOTS as u32;
    let counters = watched.map("6", slots)?;
    let start = Instant::now();
    for slot in 0..slots {
        counters.write(&slot.to_ne_bytes(), 0, possible_cpus()).map_err(|error| error.to_string())?;
    }
    watched.expect_blind(start, "map_changed", "map COUNTERS")?;
    watched.expect_sight("map_changed")?;
    watched.told(2)
}

/// Highest processor number that can occur, plus one: so many values has an entry of a per-CPU map.
fn possible_cpus() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    text.trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<usize>().ok())
        .map_or(1, |last| last + 1)
}

fn wiped_losses(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let lost = watched.map("1", monitor_common::control::LOST_ENTRIES)?;
    let start = Instant::now();
    let count = lost.delete_all().map_err(|error| error.to_string())?;
    if count == 0 {
        return Err("the table of losses has no entry of the daemon's own".to_owned());
    }
    watched.expect_blind(start, "map_changed", "map LOST")?;
    watched.expect_sight("map_changed")
}

fn full_losses(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let lost = watched.map("1", monitor_common::control::LOST_ENTRIES)?;
    let key = |number: u64| [number.to_ne_bytes(), 1_u64.to_ne_bytes()].concat();
    let start = Instant::now();
    let written = (1_u64..).take_while(|number| lost.write(&key(*number), 0, 1).is_ok()).count() as u64;
    let alert = watched.expect_blind(start, "map_full", "map LOST")?;
    watched.stays_blind("map LOST")?;
    for number in 1..=written {
        lost.delete(&key(number)).map_err(|error| format!("{error} after {}", alert.json))?;
    }
    watched.expect_sight("map_full")?;
    watched.told(2)
}

/// Marks live as long as a call. Between calls there is nothing to lose: what is made afterwards is judged rightly.
fn wiped_marks(settings: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let marks = watched.map("9", 4096)?;
    marks.delete_all().map_err(|error| error.to_string())?;
    let output = Command::new(&settings.attempt)
        .args(["run", "syslog-unread", "--abi", "x86_64"])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let made: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    watched.daemon.expect(&Expectation::new().is("evt.type", "syslog").is("proc.vpid", &made["pid"]))?;
    let before = watched.gauge("ringfence_events_received_total", &[("kind", "canary")])?;
    watched.await_metrics("two more rounds", |metrics| {
        Some(metrics.sum("ringfence_events_received_total", &[("kind", "canary")])? > before + 60.0)
    })?;
    watched.told(0)
}

/// A process of one thread that makes a call whenever it is told to; it ends when dropped.
struct Caller {
    pid: i32,
    orders: File,
}

impl Caller {
    fn start() -> Result<Caller, String> {
        let text = |error: io::Error| error.to_string();
        let (mut read, write) = io::pipe().map_err(text)?;
        // SAFETY: the child makes system calls only, on memory that it has; it ends without running anything of ours.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            drop(write);
            let mut order = [0];
            while read.read(&mut order).is_ok_and(|count| count == 1) {
                // SAFETY: no such flag exists: the call fails.
                unsafe { libc::unshare(1) };
            }
            // SAFETY: ends this child at once.
            unsafe { libc::_exit(0) };
        }
        if pid < 0 {
            return Err(format!("fork: {}", io::Error::last_os_error()));
        }
        Ok(Caller { pid, orders: File::from(OwnedFd::from(write)) })
    }

    fn call(&mut self) -> Result<(), String> {
        self.orders.write_all(b"x").map_err(|error| error.to_string())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Whoever can write to the daemon's maps can name itself a canary: its calls are reported all the same, and it is told.
fn forged_canary(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let wanted = [("map_type", "2"), ("max_entries", "1"), ("value_size", "32")];
    let canaries = Map::open(&watched.descriptor(&wanted)?).map_err(|error| error.to_string())?;
    let mut caller = Caller::start()?;
    let of_caller = Expectation::new().is("rule", "Suite unshare").is("proc.pid", caller.pid);
    caller.call()?;
    let alert = watched.daemon.expect(&of_caller)?;
    let number = |key: &str| alert.get(key).and_then(|text| text.parse::<u64>().ok());
    let (Some(start), Some(tid)) = (number("proc.start"), number("thread.tid")) else {
        return Err(format!("no start or thread: {}", alert.json));
    };
    let mut value = canaries.read(&[0; 4]).map_err(|error| error.to_string())?;
    // The second of the two tasks: the child that the canary thread made last.
    value[16..32].copy_from_slice(&[start.to_ne_bytes(), tid.to_ne_bytes()].concat());
    watched.daemon.inbox().forget(&Expectation::new());
    let forged = Instant::now();
    // The canary thread's next child takes the place back, so one of several calls may be an ordinary one.
    for _ in 0..5 {
        canaries.set(&[0; 4], &value).map_err(|error| error.to_string())?;
        caller.call()?;
        watched.daemon.expect(&of_caller)?;
        watched.daemon.inbox().forget(&of_caller);
    }
    watched.expect_blind(forged, "map_changed", "map CANARIES")?;
    watched.expect_sight("map_changed")
}

/// Killed and waited for when dropped.
struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn full_ring(settings: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let flood = Command::new(&settings.attempt)
        .args(["flood", "--call", "unshare", "--count", "100000000", "--seconds", "60"])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("attempt: {error}"))?;
    let (flood, start) = (Flood(flood), Instant::now());
    // Which canaries find no room is chance; under an endless flood some of each round do not.
    watched.expect_blind(start, "ring_full", "ring buffer")?;
    drop(flood);
    watched.expect_sight("ring_full")
}

fn stopped_reader(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let [reader] = threads(watched.daemon.pid(), "reader")[..] else {
        return Err("the daemon has not one thread named `reader`".to_owned());
    };
    let start = Instant::now();
    let stopped = Stopped::new(reader).map_err(|error| format!("ptrace: {error}"))?;
    watched.expect_blind(start, "reader_stalled", "reader thread")?;
    watched.stays_blind("reader_stalled")?;
    drop(stopped);
    watched.expect_sight("reader_stalled")?;
    watched.told(2)
}

fn stopped_canary_thread(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let [thread] = threads(watched.daemon.pid(), "canary")[..] else {
        return Err("the daemon has not one thread named `canary`".to_owned());
    };
    let start = Instant::now();
    let stopped = Stopped::new(thread).map_err(|error| format!("ptrace: {error}"))?;
    watched.expect_blind(start, "canary_stalled", "canary thread")?;
    drop(stopped);
    watched.expect_sight("canary_stalled")
}

/// The one that would tell stands still: the metric and `/readyz` say so all the same.
fn stopped_watch(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let [thread] = threads(watched.daemon.pid(), "watch")[..] else {
        return Err("the daemon has not one thread named `watch`".to_owned());
    };
    let stopped = Stopped::new(thread).map_err(|error| format!("ptrace: {error}"))?;
    watched.await_metrics("that the watch stands still", |metrics| {
        Some(metrics.sum("ringfence_blind", &[])? == 1.0)
    })?;
    watched.stays_blind("the watch over the hooks")?;
    drop(stopped);
    // It tells of the gap itself.
    watched.daemon.expect(&Expectation::new().is("rule", STOOD))?;
    watched.await_metrics("that nothing is blind", |metrics| {
        Some(metrics.sum("ringfence_blind", &[])? == 0.0)
    })?;
    Ok(())
}

fn stopped_daemon(settings: &Settings, watched: Watched) -> Result<(), String> {
    watched.begin()?;
    crate::law::stall(&watched.daemon)?;
    let stopped = Instant::now();
    flood(settings, None, &["--count", "2000", "--seconds", "60"])?;
    std::thread::sleep(Duration::from_secs(4).saturating_sub(stopped.elapsed()));
    let stood = stopped.elapsed();
    let start = Instant::now();
    watched.daemon.signal(libc::SIGCONT)?;
    let wanted = Expectation::new().is("rule", STOOD).is("ringfence.cause", "stood_still");
    let alert = watched.daemon.expect(&wanted)?;
    let took = alert.arrived.saturating_duration_since(start);
    if took > watched.limit {
        return Err(format!("the gap was told after {took:?}"));
    }
    let number = |key: &str| alert.get(key).and_then(|text| text.parse::<u64>().ok());
    // The pause that was under way is no part of the gap.
    let (seconds, lost) = (number("ringfence.seconds"), number("ringfence.lost"));
    if seconds.is_none_or(|seconds| seconds < stood.as_secs() - 2 || seconds > stood.as_secs() + 1)
        || lost.is_none_or(|lost| lost == 0)
    {
        return Err(format!("it stood still for {stood:?} and lost records; told: {}", alert.json));
    }
    watched.await_metrics("that nothing is blind", |metrics| {
        Some(metrics.sum("ringfence_blind", &[])? == 0.0)
    })?;
    watched.stop().map(drop)
}

/// Put back when dropped.
#[derive(Debug)]
struct FtraceOff;

const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";

impl FtraceOff {
    fn new() -> io::Result<FtraceOff> {
        fs::write(FTRACE, "0").map(|()| FtraceOff)
    }
}

impl Drop for FtraceOff {
    fn drop(&mut self) {
        // The case has failed already if this does not work: sight does not come back.
        let _ = fs::write(FTRACE, "1");
    }
}

fn ftrace_disabled(_: &Settings, watched: &Watched) -> Result<(), String> {
    watched.begin()?;
    let start = Instant::now();
    let off = FtraceOff::new();
    if running() < Some(FTRACE_CAN_BE_SWITCHED_OFF) {
        return match off {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => watched.told(0),
            other => Err(format!("{FTRACE} while trampolines are attached, on this old kernel: {other:?}")),
        };
    }
    let off = off.map_err(|error| format!("{FTRACE}: {error}"))?;
    let alert = watched.expect_blind(start, "ftrace_disabled", "fexit/__x64_sys_setns")?;
    let hooks = alert.get("ringfence.hooks").unwrap_or_default();
    if hooks.contains("tp_btf/") || hooks.contains("cgroup/device") {
        return Err(format!("hooks without trampolines are said to be blind: {hooks}"));
    }
    watched.stays_blind("ftrace_disabled")?;
    drop(off);
    watched.expect_sight("ftrace_disabled")?;
    watched.told(2)
}
