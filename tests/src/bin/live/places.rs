//! Every attempt from every place: the host, cgroups named like containers, real containers, under seccomp.
//!
//! A place is visited once: all attempts are made there, then a marker; when the marker's event has come,
//! all that were to come have come. Each attempt is then a test of its own.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libtest_mimic::{Failed, Trial};
use monitor_common::call::Abi;
use serde_json::Value;
use tempfile::TempDir;
use tests::attempt::prep::FIRST_PID_NAMESPACE;
use tests::attempt::{self, Attempt, BY_CAPABILITY, Want};
use tests::cgroup::{self, Cgroup, NAMINGS, Naming};
use tests::docker::{Engine, Ran};
use tests::harness::alerts::Expectation;
use tests::harness::{ALL_EVENTS, Daemon, Settings};
use tests::oci::{self, Profile};

use crate::judge;

/// The attempt whose event says that all earlier ones have come.
const MARKER: &str = "setns-badfd";

/// What a container without a seccomp profile is refused for want of a capability.
const UNCONFINED: &[&str] = &[
    "setns-uts",
    "unshare-uts",
    "unshare-mnt",
    "clone-uts",
    "clone3-uts",
    "settimeofday-nocap",
    "clock_settime-nocap",
    "stime-nocap",
    "syslog-unread",
    "open-proc-kmsg",
];

/// A place from which attempts are made.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// Our own cgroup, as root.
    Host,
    /// A cgroup named as a runtime names a container's.
    Named(&'static Naming),
    /// As `Host`, under a filter like Docker's.
    Seccomp,
    /// A real container with Docker's default profile.
    Docker,
    /// A real container without a seccomp profile: only the missing capability is in the way.
    DockerUnconfined,
    /// A real container with a capability added.
    DockerWith(&'static str),
    /// A real container that a runtime starts as Docker Engine would have it.
    Oci(Profile),
}

impl Place {
    fn label(self) -> String {
        match self {
            Place::Host => "host".to_owned(),
            Place::Named(naming) => naming.name.to_owned(),
            Place::Seccomp => "seccomp".to_owned(),
            Place::Docker => "docker".to_owned(),
            Place::DockerUnconfined => "docker-unconfined".to_owned(),
            Place::DockerWith(cap) => format!("docker+{cap}"),
            Place::Oci(profile) => format!("oci-{}", profile.name()),
        }
    }

    /// What must come of an attempt here; `None` if it is not made here.
    fn want(self, attempt: &Attempt) -> Option<Want> {
        match self {
            Place::Host | Place::Seccomp if attempt.mounts => None,
            Place::Oci(Profile::Privileged) if attempt.names_cgroup && !has_version2_alone() => None,
            Place::Host => Some(attempt.native),
            // One naming gets everything; for the others recognition is the point, which a few show.
            Place::Named(naming) if naming.name == "docker-cgroupfs" => Some(attempt.native),
            Place::Named(_) => {
                [MARKER, "unshare-uts", "capset-same"].contains(&attempt.name).then_some(attempt.native)
            }
            // The filter refuses what Docker's refuses, but the capabilities are all there.
            Place::Seccomp if is_by_seccomp(attempt.contained) => Some(attempt.contained),
            Place::Seccomp => Some(attempt.native),
            Place::Docker | Place::Oci(Profile::Default) => Some(attempt.contained),
            Place::Oci(Profile::Privileged) => Some(attempt.native),
            Place::DockerUnconfined => UNCONFINED.contains(&attempt.name).then_some(BY_CAPABILITY),
            Place::DockerWith(cap) => attempt.granted.filter(|(of, _)| *of == cap).map(|(_, want)| want),
        }
    }
}

/// Only then the runtime mounts version 2 into a container.
fn has_version2_alone() -> bool {
    cgroup::hierarchies().is_ok_and(|all| all.iter().all(|one| one.name == "v2"))
}

fn is_by_seccomp(want: Want) -> bool {
    want.verdict() == Some(("refused", Some("seccomp")))
}

/// What `attempt run` said about one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) pid: i64,
    pub(crate) ret: i64,
    /// Later answers of a repeated attempt that differ from the first.
    pub(crate) odd: i64,
}

/// A visit to a place.
pub(crate) struct Visit {
    pub(crate) cgroup_id: u64,
    /// Full container id and runtimes, unless it is the host.
    pub(crate) container: Option<(String, &'static [&'static str])>,
    pub(crate) pod: bool,
    /// Whether process ids are the host's.
    pub(crate) host_pids: bool,
    pub(crate) made: HashMap<(String, String), Made>,
}

impl Visit {
    /// A visit to a container whose cgroup is named as Docker names it.
    fn of_container(ran: Ran) -> Result<Visit, String> {
        let named = ran.cgroup_path.rsplit_once("docker/").is_some_and(|(_, name)| name == ran.id);
        if !named {
            return Err(format!("container {} is in the cgroup {}", ran.id, ran.cgroup_path));
        }
        Ok(Visit {
            cgroup_id: ran.cgroup_id,
            container: Some((ran.id, &["docker"])),
            pod: false,
            host_pids: false,
            made: read_made(ran.lines.iter().map(String::as_str))?,
        })
    }
}

impl Visit {
    /// What came of an attempt, if it was made in this visit.
    pub(crate) fn made_of(&self, attempt: &Attempt, abi: Abi) -> Option<&Made> {
        self.made.get(&(attempt.name.to_owned(), abi.name().to_owned()))
    }

    /// The container's id as alerts show it, or `host`.
    pub(crate) fn short_id(&self) -> &str {
        self.container.as_ref().map_or("host", |(id, _)| &id[..12])
    }
}

/// The visits to a place, each with attempts of its own, or why there are none.
pub(crate) type Visits = Arc<Result<Vec<Visit>, String>>;

/// The one in which an attempt was made, and what came of it.
pub(crate) fn made<'v>(
    visits: &'v Result<Vec<Visit>, String>,
    attempt: &Attempt,
    abi: Abi,
) -> Result<(&'v Visit, &'v Made), String> {
    let visits = visits.as_ref().map_err(String::clone)?;
    let found = visits.iter().find_map(|visit| visit.made_of(attempt, abi).map(|made| (visit, made)));
    found.ok_or_else(|| "it was not made".to_owned())
}

/// What the tests of all places share.
pub(crate) struct Suite {
    settings: Arc<Settings>,
    daemon: OnceLock<Result<Daemon, String>>,
    rules: OnceLock<TempDir>,
    engine: OnceLock<Result<Engine, String>>,
    visits: Mutex<HashMap<String, Visits>>,
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

    /// A trial of a case that needs the suite; what differs comes back as a text for people.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: impl Into<String>,
        case: impl Fn(&Suite) -> Result<(), String> + Send + 'static,
    ) -> Trial {
        let suite = self.clone();
        Trial::test(name, move || case(&suite).map_err(Failed::from))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn daemon(&self) -> Result<&Daemon, String> {
        let start = || {
            let dir = suite_rules()?;
            let rules = self.rules.get_or_init(|| dir).path().display().to_string();
            let shipped = self.settings.rules.display().to_string();
            // It lives as long as the suite: to the daemons of other tests its canaries would be calls like any other.
            // Most of its containers are cgroups that no runtime made, so nobody wrote names for them to wait for: the
            // events of one would come after the marker of another.
            let quiet = ["--canary-interval-ms", "off", "--metadata-wait-ms", "0"];
            Daemon::start(&self.settings, &[&["--rules", &rules, "--rules", &shipped][..], &quiet].concat())
        };
        self.daemon.get_or_init(start).as_ref().map_err(String::clone)
    }

    pub(crate) fn engine(&self) -> Result<&Engine, String> {
        if let Some(pod) = &self.settings.pod {
            return pod.engine();
        }
        let start = || Engine::start(&self.settings.attempt).map_err(|error| error.to_string());
        self.engine.get_or_init(start).as_ref().map_err(String::clone)
    }

    pub(crate) fn visits(&self, place: Place) -> Visits {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.entry(place.label()).or_insert_with(|| Arc::new(self.make_visits(place))).clone()
    }

    fn make_visits(&self, place: Place) -> Result<Vec<Visit>, String> {
        let daemon = self.daemon()?;
        let names: Vec<&str> = attempt::all()
            .filter(|attempt| place.want(attempt).is_some())
            .filter(|attempt| !attempt.guest_only || self.settings.guest)
            .map(|attempt| attempt.name)
            .filter(|name| *name != MARKER)
            .collect();
        daemon.undisturbed_parts(&names, &mut |names| self.make_visit(daemon, place, names))
    }

    /// Makes attempts in a place, and last the marker.
    fn make_visit(&self, daemon: &Daemon, place: Place, names: &[&str]) -> Result<Visit, String> {
        let names = [names, &[MARKER]].concat();
        let visit = match place {
            Place::Host => self.visit_by_exec(&names, None, &[])?,
            Place::Seccomp => self.visit_by_exec(&names, None, &["--seccomp"])?,
            Place::Named(naming) => self.visit_by_exec(&names, Some(naming), &[])?,
            Place::Docker => self.visit_by_docker(&names, &[])?,
            Place::DockerUnconfined => {
                self.visit_by_docker(&names, &["--security-opt", "seccomp=unconfined"])?
            }
            Place::DockerWith(cap) => self.visit_by_docker(&names, &["--cap-add", cap])?,
            Place::Oci(profile) => self.visit_by_oci(&names, profile)?,
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
        if let Some(cgroup) = &cgroup {
            cgroup.contain(&mut command);
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
        Visit::of_container(ran)
    }

    fn visit_by_oci(&self, names: &[&str], profile: Profile) -> Result<Visit, String> {
        let program = [&["/attempt", "run", "--allow-clock"], names].concat();
        let ran = oci::run(&self.settings.attempt, profile, &program).map_err(|error| error.to_string())?;
        Visit::of_container(ran)
    }

    /// Stops the shared daemon, if it was started, and holds its end against what it must be.
    ///
    /// The places made far fewer events than the ring holds: none may be lost.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Some(Ok(daemon)) = self.daemon.into_inner() else { return Ok(()) };
        let metrics = daemon.metrics()?;
        daemon.stop()?.check()?;
        // What a slow reader of ours made the daemon drop is missing in the tests' counts, too.
        for gone in ["ringfence_events_lost_total", "ringfence_output_dropped_total"] {
            match metrics.sum(gone, &[]) {
                Some(0.0) => {}
                other => {
                    let lines = metrics.lines(gone);
                    return Err(format!("{gone}: {other:?}, expected Some(0.0)\n{lines}"));
                }
            }
        }
        Ok(())
    }
}

/// A directory with the suite's own rules.
pub(crate) fn suite_rules() -> Result<TempDir, String> {
    let dir = tempfile::tempdir().map_err(|error| format!("temporary directory: {error}"))?;
    std::fs::write(dir.path().join("all-events.yaml"), ALL_EVENTS).map_err(|error| error.to_string())?;
    Ok(dir)
}

pub(crate) fn in_first_pid_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST_PID_NAMESPACE)
}

pub(crate) fn read_made<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<HashMap<(String, String), Made>, String> {
    let mut made = HashMap::new();
    for line in lines {
        let json: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let text = |key: &str| json[key].as_str().map(str::to_owned).ok_or(format!("no {key}: {line}"));
        let number = |key: &str| json[key].as_i64().ok_or(format!("no {key}: {line}"));
        let one = Made { pid: number("pid")?, ret: number("ret")?, odd: number("odd")? };
        made.insert((text("name")?, text("abi")?), one);
    }
    Ok(made)
}

/// All trials of all places.
pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut places = vec![Place::Host, Place::Seccomp];
    places.extend(NAMINGS.iter().map(Place::Named));
    if suite.settings.guest {
        places.extend(Profile::ALL.map(Place::Oci));
    } else {
        places.extend([Place::Docker, Place::DockerUnconfined]);
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
                let trial = move || judge::check(&suite, place, attempt, abi, want).map_err(Failed::from);
                trials.push(Trial::test(name, trial));
            }
        }
    }
    trials
}
