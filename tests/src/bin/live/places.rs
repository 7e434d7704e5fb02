//! Every attempt from every place: the host, cgroups named like containers, real containers, under seccomp.
//!
//! A place is visited once: all attempts are made there, then a marker; when the marker's event has come,
//! all that were to come have come. Each attempt is then a test of its own.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libtest_mimic::{Failed, Trial};
use monitor_common::call::{Abi, Call};
use serde_json::Value;
use tempfile::TempDir;
use tests::attempt::{self, Attempt, Want, errno_name};
use tests::cgroup::{self, Cgroup, NAMINGS, Naming, POD_UID};
use tests::docker::Engine;
use tests::harness::alerts::{Alert, Expectation, Must};
use tests::harness::{ALL_EVENTS, Daemon, Settings};

/// The attempt whose event says that all earlier ones have come.
const MARKER: &str = "setns-badfd";

/// A place from which attempts are made.
#[derive(Clone, Copy)]
enum Place {
    /// Our own cgroup, as root.
    Host,
    /// A cgroup named as a runtime names a container's.
    Named(&'static Naming),
    /// As `Host`, under a filter like Docker's.
    Seccomp,
    /// A real container with Docker's default profile.
    Docker,
    /// A real container with a capability added.
    DockerWith(&'static str),
}

impl Place {
    fn label(self) -> String {
        match self {
            Place::Host => "host".to_owned(),
            Place::Named(naming) => naming.name.to_owned(),
            Place::Seccomp => "seccomp".to_owned(),
            Place::Docker => "docker".to_owned(),
            Place::DockerWith(cap) => format!("docker+{cap}"),
        }
    }

    /// What must come of an attempt here; `None` if it is not made here.
    fn want(self, attempt: &Attempt) -> Option<Want> {
        match self {
            Place::Host => Some(attempt.native),
            // One naming gets everything; for the others recognition is the point, which a few show.
            Place::Named(naming) if naming.name == "docker-cgroupfs" => Some(attempt.native),
            Place::Named(_) => {
                [MARKER, "unshare-uts", "capset-same"].contains(&attempt.name).then_some(attempt.native)
            }
            // The filter refuses what Docker's refuses, but the capabilities are all there.
            Place::Seccomp if is_by_seccomp(attempt.contained) => Some(attempt.contained),
            Place::Seccomp => Some(attempt.native),
            Place::Docker => Some(attempt.contained),
            Place::DockerWith(cap) => attempt.granted.filter(|(of, _)| *of == cap).map(|(_, want)| want),
        }
    }
}

fn is_by_seccomp(want: Want) -> bool {
    want.verdict() == Some(("refused", Some("seccomp")))
}

/// What `attempt run` said about one attempt.
#[derive(Clone, Debug)]
struct Made {
    pid: i64,
    ret: i64,
}

/// A visit to a place.
struct Visit {
    cgroup_id: u64,
    /// Full container id and runtimes, unless it is the host.
    container: Option<(String, &'static [&'static str])>,
    pod: bool,
    /// Whether process ids are the host's.
    host_pids: bool,
    made: HashMap<(String, String), Made>,
}

/// What the tests of all places share.
pub(crate) struct Suite {
    settings: Arc<Settings>,
    daemon: OnceLock<Result<Daemon, String>>,
    rules: OnceLock<TempDir>,
    engine: OnceLock<Result<Engine, String>>,
    visits: Mutex<HashMap<String, Arc<Result<Visit, String>>>>,
}

impl Suite {
    pub(crate) fn new(settings: Arc<Settings>) -> Suite {
        Suite {
            settings,
            daemon: OnceLock::new(),
            rules: OnceLock::new(),
            engine: OnceLock::new(),
            visits: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn daemon(&self) -> Result<&Daemon, String> {
        let start = || {
            let dir = suite_rules()?;
            let rules = self.rules.get_or_init(|| dir).path().display().to_string();
            let shipped = self.settings.rules.display().to_string();
            Daemon::start(&self.settings, &["--rules", &rules, "--rules", &shipped])
        };
        self.daemon.get_or_init(start).as_ref().map_err(String::clone)
    }

    pub(crate) fn engine(&self) -> Result<&Engine, String> {
        let start = || Engine::start(&self.settings.attempt).map_err(|error| error.to_string());
        self.engine.get_or_init(start).as_ref().map_err(String::clone)
    }

    fn visit(&self, place: Place) -> Arc<Result<Visit, String>> {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.entry(place.label()).or_insert_with(|| Arc::new(self.make_visit(place))).clone()
    }

    fn make_visit(&self, place: Place) -> Result<Visit, String> {
        let daemon = self.daemon()?;
        let mut names: Vec<&str> = attempt::all()
            .filter(|attempt| place.want(attempt).is_some())
            .filter(|attempt| !attempt.guest_only || self.settings.guest)
            .map(|attempt| attempt.name)
            .filter(|name| *name != MARKER)
            .collect();
        names.push(MARKER);
        let visit = match place {
            Place::Host => self.visit_by_exec(&names, None, &[])?,
            Place::Seccomp => self.visit_by_exec(&names, None, &["--seccomp"])?,
            Place::Named(naming) => self.visit_by_exec(&names, Some(naming), &[])?,
            Place::Docker => self.visit_by_docker(&names, &[])?,
            Place::DockerWith(cap) => self.visit_by_docker(&names, &["--cap-add", cap])?,
        };
        let marker = visit.made.get(&(MARKER.to_owned(), Abi::I386.name().to_owned()));
        let marker = marker.ok_or("the marker was not made")?;
        let came = Expectation::new()
            .is("rule", "Suite setns")
            .is("evt.type", "setns")
            .is("evt.abi", "i386")
            .is("proc.vpid", marker.pid)
            .is("cgroup.id", visit.cgroup_id);
        daemon
            .expect(&came)
            .map_err(|miss| format!("the marker of place {} is lost: {miss}", place.label()))?;
        Ok(visit)
    }

    /// Makes attempts by a child of ours, in a cgroup of its own or in ours.
    fn visit_by_exec(
        &self,
        names: &[&str],
        naming: Option<&'static Naming>,
        options: &[&str],
    ) -> Result<Visit, String> {
        let id = cgroup::container_id(naming.map_or("host", |naming| naming.name));
        let cgroup = naming.map(|naming| Cgroup::make(&naming.path(&id))).transpose();
        let cgroup = cgroup.map_err(|error| error.to_string())?;
        let cgroup_id = match &cgroup {
            Some(cgroup) => cgroup.id(),
            None => cgroup::of_process("self").map(|(_, id)| id),
        };
        let mut command = Command::new(&self.settings.attempt);
        command.arg("run").args(options).args(names);
        if self.settings.guest {
            command.arg("--allow-clock");
        }
        if let Some(procs) = cgroup.as_ref().map(|cgroup| cgroup.path().join("cgroup.procs")) {
            // SAFETY: between fork and exec the child only writes to a file.
            unsafe { command.pre_exec(move || std::fs::write(&procs, "0")) };
        }
        let output = command.output().map_err(|error| format!("attempt: {error}"))?;
        if !output.status.success() {
            return Err(format!("attempt: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Visit {
            cgroup_id: cgroup_id.map_err(|error| error.to_string())?,
            container: naming.map(|naming| (id, naming.runtimes)),
            pod: naming.is_some_and(|naming| naming.pod),
            host_pids: in_first_pid_namespace(),
            made: read_made(text.lines())?,
        })
    }

    fn visit_by_docker(&self, names: &[&str], options: &[&str]) -> Result<Visit, String> {
        let command = format!("/attempt run {}", names.join(" "));
        let ran = self.engine()?.run(options, &command).map_err(|error| error.to_string())?;
        Ok(Visit {
            cgroup_id: ran.cgroup_id,
            container: Some((ran.id, &["docker"])),
            pod: false,
            host_pids: false,
            made: read_made(ran.lines.iter().map(String::as_str))?,
        })
    }

    /// Stops the shared daemon, if it was started, and holds its end against what it must be.
    ///
    /// The places made far fewer events than the ring holds: none may be lost.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Some(Ok(daemon)) = self.daemon.into_inner() else { return Ok(()) };
        let metrics = daemon.metrics()?;
        let lost = metrics.sum("ringfence_events_lost_total", &[]);
        daemon.stop()?.check()?;
        match lost {
            Some(0.0) => Ok(()),
            other => Err(format!(
                "lost events: {other:?}, expected Some(0.0)\n{}",
                metrics.lines("ringfence_events")
            )),
        }
    }
}

/// A directory with the suite's own rules.
pub(crate) fn suite_rules() -> Result<TempDir, String> {
    let dir = tempfile::tempdir().map_err(|error| format!("temporary directory: {error}"))?;
    std::fs::write(dir.path().join("all-events.yaml"), ALL_EVENTS).map_err(|error| error.to_string())?;
    Ok(dir)
}

fn in_first_pid_namespace() -> bool {
    // PROC_PID_INIT_INO of the kernel's headers.
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

fn read_made<'a>(lines: impl Iterator<Item = &'a str>) -> Result<HashMap<(String, String), Made>, String> {
    let mut made = HashMap::new();
    for line in lines {
        let json: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let text = |key: &str| json[key].as_str().map(str::to_owned).ok_or(format!("no {key}: {line}"));
        let number = |key: &str| json[key].as_i64().ok_or(format!("no {key}: {line}"));
        let one = Made { pid: number("pid")?, ret: number("ret")? };
        made.insert((text("name")?, text("abi")?), one);
    }
    Ok(made)
}

/// All trials of all places.
pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut places = vec![Place::Host, Place::Seccomp];
    places.extend(NAMINGS.iter().map(Place::Named));
    if !suite.settings.guest {
        places.push(Place::Docker);
        places.extend(["SYS_ADMIN", "SYS_TIME", "SYSLOG", "SYS_RAWIO"].map(Place::DockerWith));
    }
    let mut trials = Vec::new();
    for place in places {
        for attempt in attempt::all() {
            let Some(want) = place.want(attempt) else { continue };
            if attempt.guest_only && !suite.settings.guest {
                continue;
            }
            for abi in attempt.abis {
                let name = format!("{}::{}::{}", place.label(), attempt.name, abi.name());
                let suite = suite.clone();
                let abi = *abi;
                let trial = move || check(&suite, place, attempt, abi, want).map_err(Failed::from);
                trials.push(Trial::test(name, trial));
            }
        }
    }
    trials
}

fn check(suite: &Suite, place: Place, attempt: &Attempt, abi: Abi, want: Want) -> Result<(), String> {
    let visit = suite.visit(place);
    let visit = visit.as_ref().as_ref().map_err(String::clone)?;
    let daemon = suite.daemon()?;
    let made = visit.made.get(&(attempt.name.to_owned(), abi.name().to_owned())).ok_or("it was not made")?;
    let answer = if made.ret < 0 { errno_name(-made.ret as i32) } else { "SUCCESS" };
    let fitting = want.fitting(made.ret);
    if fitting.is_empty() {
        return Err(format!("the kernel answered {} ({answer}), expected: {want}", made.ret));
    }
    let of_caller = Expectation::new().is("proc.vpid", made.pid).is("cgroup.id", visit.cgroup_id);
    let events = daemon.inbox().fitting(&of_caller.clone().must("rule", suite_rule_names()));
    let silent = fitting == [Want::NoEvent];
    let came = check_count(&suite.settings, attempt, made, silent, &events)
        .map_err(|fault| format!("{fault} (the kernel answered {answer})"))?;
    if silent || !came {
        return Ok(());
    }
    check_child(daemon, visit, attempt, made)?;
    let event = describe(visit, attempt, abi, made, answer, &fitting, of_caller);
    daemon.inbox().expect(&event, std::time::Duration::ZERO).map(drop)
}

/// Exactly one event of an attempt, none of what is no attempt, and nothing else but the `capset` by which
/// capabilities were dropped first. Says whether the attempt's own event came.
fn check_count(
    settings: &Settings,
    attempt: &Attempt,
    made: &Made,
    silent: bool,
    events: &[Alert],
) -> Result<bool, String> {
    let (own, others): (Vec<&Alert>, Vec<&Alert>) =
        events.iter().partition(|alert| alert.get("evt.type").as_deref() == Some(attempt.call.name()));
    let own_drop = attempt.drops && attempt.call == Call::Capset;
    let expected = usize::from(!silent) + usize::from(own_drop);
    let may_miss = attempt.nameless && made.ret < 0 && settings.attach != "trampoline";
    // Where the capability was never there, nothing had to be dropped.
    let others_fit = others.len() <= usize::from(attempt.drops && !own_drop)
        && others.iter().all(|alert| alert.get("evt.type").as_deref() == Some("capset"));
    if (own.len() == expected || may_miss && own.is_empty()) && others_fit {
        return Ok(own.len() == expected);
    }
    let seen: Vec<String> = events.iter().filter_map(|alert| alert.get("output")).collect();
    Err(format!(
        "{} events of {} instead of {expected}, and {} others; events of process {}:\n  {}\n",
        own.len(),
        attempt.call.name(),
        others.len(),
        made.pid,
        seen.join("\n  ")
    ))
}

/// A new child returns from the clone call too, with 0; that is not a second attempt.
fn check_child(daemon: &Daemon, visit: &Visit, attempt: &Attempt, made: &Made) -> Result<(), String> {
    if !matches!(attempt.call, Call::Clone | Call::Clone3) || made.ret <= 0 {
        return Ok(());
    }
    let of_child = Expectation::new().is("proc.vpid", made.ret).is("cgroup.id", visit.cgroup_id);
    match daemon.inbox().fitting(&of_child).first().and_then(|alert| alert.get("output")) {
        None => Ok(()),
        Some(output) => Err(format!("the child's return from {} is an event: {output}", attempt.call.name())),
    }
}

fn describe(
    visit: &Visit,
    attempt: &Attempt,
    abi: Abi,
    made: &Made,
    answer: &str,
    fitting: &[Want],
    of_caller: Expectation,
) -> Expectation {
    let verdicts: Vec<_> = fitting.iter().filter_map(Want::verdict).collect();
    let refusers: Vec<String> = verdicts.iter().filter_map(|(_, by)| by.map(str::to_owned)).collect();
    let mut event = of_caller
        .is("rule", format!("Suite {}", attempt.call.name()))
        .is("evt.type", attempt.call.name())
        .is("evt.abi", abi.name())
        .is("evt.res", answer)
        .is("evt.rawres", made.ret)
        .is("proc.name", "attempt")
        .must(
            "evt.verdict",
            Must::BeOneOf(verdicts.iter().map(|(verdict, _)| (*verdict).to_owned()).collect()),
        )
        .must("evt.refused_by", if refusers.is_empty() { Must::BeAbsent } else { Must::BeOneOf(refusers) });
    event = match &visit.container {
        None => event.is("container.id", "host").is("container.runtime", "host"),
        Some((id, runtimes)) => event.is("container.id", &id[..12]).is("container.full_id", id).must(
            "container.runtime",
            Must::BeOneOf(runtimes.iter().map(|name| (*name).to_owned()).collect()),
        ),
    };
    let done = if made.ret >= 0 { attempt.done } else { &[] };
    for (key, value) in attempt.asked.iter().chain(done) {
        event = event.is(key, value);
    }
    if visit.pod {
        event = event.is("k8s.pod.uid", POD_UID);
    }
    if visit.host_pids {
        event = event.is("proc.pid", made.pid).is("thread.tid", made.pid);
    }
    event
}

fn suite_rule_names() -> Must {
    Must::BeOneOf(Call::ALL.iter().map(|call| format!("Suite {}", call.name())).collect())
}
