//! Processes outside their containers: told by the kernel's state, also when they left by a door that nobody watched.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::cgroup;
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, PATIENCE};

use crate::places::Suite;
use crate::whose::{STRONG, Waiting, start};

/// The shipped rule.
const RULE: &str = "Process outside its container";

/// A container's program that starts another one ten times a second, so that there is something to see.
const BUSY: &str = "while true; do sleep 0.1; done";

/// Kinds of namespace that Docker gives each container, as `proc.escaped` names them.
const KINDS: [&str; 5] = ["mnt", "pid", "net", "uts", "ipc"];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    // Guests have no engine.
    if suite.settings().guest {
        return Vec::new();
    }
    type Case = fn(&Suite) -> Result<(), String>;
    let cases: [(&str, Case); 4] = [
        ("outside::left_before_the_daemon_started", before),
        ("outside::moved_to_another_containers_cgroup", moved_across),
        ("outside::moved_to_a_cgroup_of_the_host", moved_out),
        ("outside::whoever_stays_is_not_told", stays),
    ];
    cases.into_iter().map(|(name, case)| suite.trial(name, case)).collect()
}

/// Waits for the alert, and holds it against what it must say.
fn told(daemon: &Daemon, wanted: &Expectation, kinds: &[&str]) -> Result<Alert, String> {
    let alert = daemon
        .expect(&wanted.clone().is("rule", RULE).is("priority", "Critical").is("evt.type", "escaped"))?;
    let found = alert.get("proc.escaped").unwrap_or_default();
    match kinds.iter().find(|kind| !found.split(' ').any(|word| word == **kind)) {
        None => Ok(alert),
        Some(kind) => Err(format!("proc.escaped lacks {kind}: {}", alert.json)),
    }
}

/// A process of a container went into the host's namespaces, and only then the daemon was started.
fn before(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    // Its own first program stays at home, so that it can be known what the container has of its own.
    let script = format!("nsenter -t {} -m -u -i -n sleep 601 & wait", std::process::id());
    let container = Waiting::start(engine, STRONG, &script)?;
    let host = fs::read_link("/proc/self/ns/mnt").map_err(|error| error.to_string())?;
    let gone = await_some(|| {
        let tasks = fs::read_to_string(format!("/proc/{0}/task/{0}/children", container.pid)).ok()?;
        tasks.split_whitespace().map(str::to_owned).find(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|ns| ns == host)
                && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        })
    });
    let gone = gone.ok_or("nsenter did not reach the host")?;
    let (daemon, _rules) = start(suite)?;
    let by = Expectation::new().is("proc.pid", &gone).is("container.id", container.short_id());
    let by =
        by.is("ns.direction", "container_to_host").is("ns.from", container.short_id()).is("ns.to", "host");
    // The pid namespace is the host's from the start: `--pid host` is no escape.
    let alert = told(&daemon, &by, &["mnt", "net", "uts", "ipc"])?;
    if alert.get("proc.escaped").unwrap_or_default().split(' ').any(|kind| kind == "pid") {
        return Err(format!("what the container shares by its configuration is no escape: {}", alert.json));
    }
    once(&daemon, &gone)?;
    not_told(&daemon, &container.pid)?;
    drop(container);
    daemon.stop()?.check()
}

/// A process runs in one container, and its cgroup says another one: nobody called anything that is watched.
fn moved_across(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let (daemon, _rules) = start(suite)?;
    let home = Waiting::start(engine, &[], BUSY)?;
    let other = Waiting::start(engine, &[], "sleep 602")?;
    let (into, _) = cgroup::of_process(&other.pid).map_err(|error| error.to_string())?;
    move_to(&home.pid, &into)?;
    // It belongs where its namespaces are, and went where its cgroup is.
    let by = Expectation::new().is("container.id", other.short_id()).is("ns.to", other.short_id());
    let by = by.is("ns.direction", "container_to_container").is("ns.from", home.short_id());
    told(&daemon, &by, &KINDS)?;
    not_told(&daemon, &other.pid)?;
    drop((home, other));
    daemon.stop()?.check()
}

/// A process of a container took itself out of the container's cgroup, and stayed in its namespaces.
fn moved_out(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let (daemon, _rules) = start(suite)?;
    let home = Waiting::start(engine, &[], BUSY)?;
    let own = cgroup::Cgroup::make("ringfence-outside").map_err(|error| error.to_string())?;
    let (before, _) = cgroup::of_process(&home.pid).map_err(|error| error.to_string())?;
    move_to(&home.pid, "/ringfence-outside")?;
    let by = Expectation::new().is("container.id", "host").is("ns.from", home.short_id());
    let by = by.is("ns.direction", "container_to_host").is("ns.to", "host");
    told(&daemon, &by, &KINDS)?;
    // Back, so that the engine finds and ends it.
    move_to(&home.pid, &before)?;
    drop(home);
    drop(own);
    daemon.stop()?.check()
}

/// A container that does what containers do, one that shares what the host has, and an entry from outside.
fn stays(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let early = Waiting::start(engine, &[], BUSY)?;
    let (daemon, _rules) = start(suite)?;
    let home = Waiting::start(engine, &[], BUSY)?;
    let shares = ["--pid", "host", "--ipc", "host", "--uts", "host"];
    let sharing = Waiting::start(engine, &shares, BUSY)?;
    let joined = format!("container:{}", home.id);
    let joining = Waiting::start(engine, &["--pid", &joined, "--ipc", &joined], BUSY);
    // An engine that makes containers with an ipc namespace that cannot be shared refuses this.
    let joining = joining.or_else(|_| Waiting::start(engine, &["--pid", &joined], BUSY))?;
    for waiting in [&early, &home, &sharing, &joining] {
        engine.client(&["exec", &waiting.id, "/bin/ls", "/"]).map_err(|error| error.to_string())?;
        let entered = Expectation::new().is("evt.type", "entered").is("container.id", waiting.short_id());
        daemon.expect(&entered)?;
    }
    drop((early, home, sharing, joining));
    let ended = daemon.stop()?;
    ended.check()?;
    let escaped = Expectation::new().is("evt.type", "escaped");
    match ended.alerts.iter().find(|alert| escaped.fits(alert)) {
        None => Ok(()),
        Some(alert) => Err(format!("an escape that is none: {}", alert.json)),
    }
}

/// Moves a process to the cgroup with this path, in the hierarchy that Ringfence goes by.
fn move_to(pid: &str, path: &str) -> Result<(), String> {
    let mount = cgroup::hierarchy().map_err(|error| error.to_string())?.mount;
    let procs = mount.join(path.trim_start_matches('/')).join("cgroup.procs");
    fs::write(&procs, pid).map_err(|error| format!("{}: {error}", procs.display()))
}

/// A process is told of once, whatever else it does.
fn once(daemon: &Daemon, pid: &str) -> Result<(), String> {
    let of = Expectation::new().is("rule", RULE).is("proc.pid", pid);
    match daemon.inbox().count(&of) {
        1 => Ok(()),
        count => Err(format!("{count} alerts of one process that escaped once")),
    }
}

/// A process that did not leave is not told of.
fn not_told(daemon: &Daemon, pid: &str) -> Result<(), String> {
    let of = Expectation::new().is("evt.type", "escaped").is("proc.pid", pid);
    match daemon.inbox().fitting(&of).first() {
        None => Ok(()),
        Some(alert) => Err(format!("an escape of who stayed: {}", alert.json)),
    }
}

/// Asks until there is an answer, for at most [`PATIENCE`].
fn await_some<T>(ask: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let answer = ask();
        if answer.is_some() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}
