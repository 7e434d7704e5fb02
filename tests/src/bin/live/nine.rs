//! The capabilities that have rules of their own: each used, refused and gained by the real thing in a real container,
//! which must raise exactly the right rule.
//!
//! What this machine cannot show is ignored: a capability that the suite itself lacks can be given to no container, and
//! a kernel without modules or I/O ports has no calls for them. Guests show it, and the use and gain of CAP_BPF and
//! CAP_PERFMON, which Debian's Engine (20.10) does not know. CAP_MAC_ADMIN and CAP_MAC_OVERRIDE are asked for by security
//! modules alone (AppArmor, SELinux, Smack), of which neither this suite's guests nor its machine have one in force: of
//! these two only the gain is shown.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Failed, Trial};
use monitor_common::caps::Cap;
use serde_json::{Value, json};
use tests::attempt::errno_name;
use tests::attempt::needs::{NEEDS, Need};
use tests::cgroup;
use tests::docker::Ran;
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation, Must};
use tests::oci::{self, Profile};

use crate::looks;
use crate::places::Suite;
use crate::probing::knock;

/// The capabilities with rules of their own.
const RULED: &[Cap] = &[
    Cap::MacAdmin,
    Cap::MacOverride,
    Cap::Setpcap,
    Cap::SysNice,
    Cap::SysResource,
    Cap::SysTime,
    Cap::NetAdmin,
    Cap::Syslog,
    Cap::SysRawio,
    Cap::SysAdmin,
    Cap::SysModule,
    Cap::SysPtrace,
    Cap::DacReadSearch,
    Cap::Bpf,
    Cap::Perfmon,
];

/// The types of events that tell of capabilities without a call of their own.
pub(crate) const TYPES: &[&str] = &["capability", "gained", "gained_unseen"];

/// What a container is given besides, or instead of, Docker's default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub(crate) add: Option<Cap>,
    pub(crate) drop: Option<Cap>,
    /// No seccomp profile: what the default one hides reaches the kernel.
    pub(crate) unconfined: bool,
}

/// The daemon under the shipped rules, which all cases share, and whoever makes containers.
pub(crate) struct Place {
    pub(crate) suite: Arc<Suite>,
    daemon: Mutex<Option<Daemon>>,
}

/// A case; what differs comes back as a text for people.
type Case = Box<dyn Fn(&Place) -> Result<(), String> + Send>;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let place = Arc::new(Place { suite: suite.clone(), daemon: Mutex::new(None) });
    let mut trials = Vec::new();
    // What this machine cannot do is done by another: in a guest every capability can be given.
    let mut add = |name: String, possible: bool, case: Case| {
        let place = place.clone();
        if possible {
            trials.push(Trial::test(name, move || case(&place).map_err(Failed::from)));
        }
    };
    let guest = suite.settings().guest;
    let can_give = |cap| is_ours(cap) && (guest || !matches!(cap, Cap::Bpf | Cap::Perfmon));
    for need in NEEDS {
        let possible = match need.name {
            "load-module" => std::fs::exists("/proc/modules").is_ok_and(|is| is),
            "port" => has_ports(),
            _ => true,
        };
        let name = |what| format!("nine::{}_{what}", need.name);
        add(name("used"), possible && can_give(need.cap), Box::new(|place| used(place, need)));
        add(name("refused"), possible, Box::new(|place| refused(place, need)));
    }
    for cap in RULED {
        let gained = |place: &Place| gained_by_program(place, *cap);
        add(format!("nine::{}_gained", kebab(*cap)), can_give(*cap), Box::new(gained));
    }
    for way in WAYS {
        add(format!("nine::gained_by_{}", way.way), true, Box::new(|place| gained_by(place, way)));
    }
    add("nine::ls_and_ps_raise_nothing".to_owned(), true, Box::new(looks));
    for (name, case) in looks::CASES {
        add((*name).to_owned(), true, Box::new(case));
    }
    add("nine::the_end".to_owned(), true, Box::new(Place::end));
    trials
}

/// Whether the suite has the capability itself, so that it can give it on.
fn is_ours(cap: Cap) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let set = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    set.is_some_and(|set| set & cap.mask() != 0)
}

/// Kernels can be built without access to I/O ports. No port is asked for.
fn has_ports() -> bool {
    // SAFETY: numbers only, none of which is a range of ports.
    let ret = unsafe { libc::syscall(libc::SYS_ioperm, 0, 0, 0) };
    ret == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

fn kebab(cap: Cap) -> String {
    cap.name().trim_start_matches("CAP_").to_lowercase().replace('_', "-")
}

pub(crate) fn rule(cap: Cap, what: &str) -> String {
    format!("capability-{}-{what}-in-container", kebab(cap))
}

/// Docker's default set has it.
fn is_default(cap: Cap) -> bool {
    cap == Cap::Setpcap
}

impl Place {
    /// Lends the daemon, which is started when it is first needed, and anew after a case that failed.
    pub(crate) fn with<T>(&self, case: impl FnOnce(&Daemon) -> Result<T, String>) -> Result<T, String> {
        let mut held = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = match held.take() {
            Some(daemon) => daemon,
            None => {
                let shipped = self.suite.settings().rules.display().to_string();
                let options = ["--rules", &shipped, "--canary-interval-ms", "off", "--metadata-wait-ms", "0"];
                Daemon::start(self.suite.settings(), &options)?
            }
        };
        let done = case(&daemon)?;
        *held = Some(daemon);
        Ok(done)
    }

    fn end(&self) -> Result<(), String> {
        match self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(daemon) => daemon.stop()?.check(),
            None => Ok(()),
        }
    }

    /// Runs a shell command in a new container.
    pub(crate) fn run(&self, given: Given, command: &str) -> Result<Ran, String> {
        contain(&self.suite, given, command)
    }

    /// The alerts of these types that came of a container, once all have come.
    pub(crate) fn alerts(&self, daemon: &Daemon, ran: &Ran, types: &[&str]) -> Result<Vec<Alert>, String> {
        let marker = cgroup::container_id(&format!("nine {}", ran.id));
        knock(self.suite.settings(), &marker, &["setns-badfd"])?;
        daemon.expect(&Expectation::new().is("container.id", &marker[..12]).is("evt.type", "setns"))?;
        let types = types.iter().map(|ty| (*ty).to_owned()).collect();
        let own = Expectation::new().is("container.id", &ran.id[..12]).must("evt.type", Must::BeOneOf(types));
        let mut alerts = daemon.inbox().fitting(&own);
        // The runtime's own calls.
        alerts.retain(|alert| alert.get("evt.phase").as_deref() != Some("starting"));
        Ok(alerts)
    }
}

/// Runs a shell command in a new container: by Docker Engine, or in a guest by crun.
pub(crate) fn contain(suite: &Suite, given: Given, command: &str) -> Result<Ran, String> {
    if suite.settings().guest {
        let script = format!("exec {command}");
        let change = |config: &mut Value| change(config, given);
        let words = ["/bin/sh", "-c", &script];
        let ran = oci::run_with(&suite.settings().attempt, Profile::Default, &words, &change);
        return ran.map_err(|error| error.to_string());
    }
    let mut options = Vec::new();
    let short = |cap: Cap| cap.name().trim_start_matches("CAP_");
    if let Some(cap) = given.add {
        options.extend(["--cap-add", short(cap)]);
    }
    if let Some(cap) = given.drop {
        options.extend(["--cap-drop", short(cap)]);
    }
    if given.unconfined {
        options.extend(["--security-opt", "seccomp=unconfined"]);
    }
    suite.engine()?.run(&options, command).map_err(|error| error.to_string())
}

/// The same in the configuration of a bundle. A profile knows nothing of what was added, so it goes then, too.
fn change(config: &mut Value, given: Given) {
    for set in ["bounding", "effective", "permitted", "inheritable"] {
        if let Some(caps) = config["process"]["capabilities"][set].as_array_mut() {
            caps.extend(given.add.map(|cap| json!(cap.name())));
            caps.retain(|cap| given.drop.is_none_or(|drop| *cap != drop.name()));
        }
    }
    if (given.unconfined || given.add.is_some())
        && let Some(linux) = config["linux"].as_object_mut()
    {
        linux.remove("seccomp");
    }
}

/// What the program printed: a line of JSON.
fn said(ran: &Ran) -> Result<Value, String> {
    let line = ran.lines.last().ok_or("the container printed nothing")?;
    serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))
}

/// Holds the rules that fired against those that must have.
pub(crate) fn exactly(alerts: &[Alert], rules: &[String]) -> Result<(), String> {
    let mut fired: Vec<String> = alerts.iter().filter_map(|alert| alert.get("rule_id")).collect();
    let mut wanted = rules.to_vec();
    fired.sort();
    wanted.sort();
    if fired == wanted {
        return Ok(());
    }
    let shown: Vec<String> = alerts.iter().filter_map(|alert| alert.get("output")).collect();
    Err(format!("fired: {fired:?}, expected: {wanted:?}\n  {}", shown.join("\n  ")))
}

fn used(place: &Place, need: &Need) -> Result<(), String> {
    let add = (!is_default(need.cap)).then_some(need.cap);
    need_made(place, need, Given { add, drop: None, unconfined: false }, need.granted, "used")
}

fn refused(place: &Place, need: &Need) -> Result<(), String> {
    let drop = is_default(need.cap).then_some(need.cap);
    need_made(place, need, Given { add: None, drop, unconfined: true }, &[need.refused], "refused")
}

fn need_made(place: &Place, need: &Need, given: Given, answers: &[i32], what: &str) -> Result<(), String> {
    place.with(|daemon| {
        let ran = place.run(given, &format!("/attempt need {}", need.name))?;
        let ret = said(&ran)?["ret"].as_i64().ok_or("no answer")?;
        let errno = if ret < 0 { -ret as i32 } else { 0 };
        if !answers.contains(&errno) {
            return Err(format!("the kernel answered {ret} ({})", errno_name(errno)));
        }
        let alerts = place.alerts(daemon, &ran, TYPES)?;
        exactly(&alerts, &[rule(need.cap, what)])?;
        let told = Expectation::new()
            .is("evt.type", "capability")
            .is("cap.call", need.call)
            .is("proc.name", "attempt")
            .is("container.id", &ran.id[..12]);
        if alerts.iter().all(|alert| told.fits(alert)) { Ok(()) } else { Err(told.explain(&alerts)) }
    })
}

/// A set-user-id program gives nobody what root has in this container.
fn gained_by_program(place: &Place, cap: Cap) -> Result<(), String> {
    place.with(|daemon| {
        let given = Given { add: (!is_default(cap)).then_some(cap), ..Given::default() };
        let ran = place.run(given, "/attempt gain set-uid")?;
        let alerts = place.alerts(daemon, &ran, TYPES)?;
        exactly(&alerts, &[rule(cap, "gained")])?;
        let gained = alerts.first().and_then(|alert| alert.get("cap.gained")).unwrap_or_default();
        let names: Vec<&str> = gained.split(' ').collect();
        if names.contains(&cap.name()) && names.contains(&"CAP_CHOWN") {
            return Ok(());
        }
        Err(format!("gained: {gained}, which lacks {} or CAP_CHOWN", cap.name()))
    })
}

/// A way to a capability, and what must come of it.
struct Way {
    way: &'static str,
    cap: Cap,
    given: Given,
    /// Types of events that are looked at besides [`TYPES`].
    call: Option<&'static str>,
    rules: &'static [&'static str],
}

pub(crate) const PLAIN: Given = Given { add: None, drop: None, unconfined: false };

const WAYS: &[Way] = &[
    Way {
        way: "file",
        cap: Cap::NetRaw,
        given: PLAIN,
        call: None,
        rules: &["capability-other-gained-in-container"],
    },
    Way {
        way: "file-permitted",
        cap: Cap::SysAdmin,
        given: Given { add: Some(Cap::SysAdmin), ..PLAIN },
        call: None,
        rules: &["capability-permitted-in-container"],
    },
    // It was permitted all the time.
    Way {
        way: "seteuid",
        cap: Cap::NetRaw,
        given: PLAIN,
        call: None,
        rules: &["capability-taken-back-in-container"],
    },
    // The call has rules of its own, and asks for CAP_SETPCAP in passing.
    Way {
        way: "capset",
        cap: Cap::NetRaw,
        given: PLAIN,
        call: Some("capset"),
        rules: &[
            "capability-dropped-in-container",
            "capability-gained-in-container",
            "capability-setpcap-used-in-container",
        ],
    },
    Way {
        way: "ambient",
        cap: Cap::NetRaw,
        given: PLAIN,
        call: None,
        rules: &["capability-other-gained-in-container", "capability-setpcap-used-in-container"],
    },
    Way {
        way: "user-namespace",
        cap: Cap::NetRaw,
        given: Given { unconfined: true, ..PLAIN },
        call: Some("unshare"),
        rules: &["user-namespace-created-in-container"],
    },
];

fn gained_by(place: &Place, way: &Way) -> Result<(), String> {
    place.with(|daemon| {
        let ran = place.run(way.given, &format!("/attempt gain {} --cap {}", way.way, way.cap.name()))?;
        let types: Vec<&str> = TYPES.iter().copied().chain(way.call).collect();
        let alerts = place.alerts(daemon, &ran, &types)?;
        let rules: Vec<String> = way.rules.iter().map(|rule| (*rule).to_owned()).collect();
        exactly(&alerts, &rules)
    })
}

/// What people do in a plain container that has processes of two users: processes are listed, directories, sysctls and
/// the kernel's symbols read.
const LOOK: &str = "/bin/sh -c 'set -e; /bin/busybox start-stop-daemon -S -b -c 65534:65534 -x /bin/sleep -- 60; \
    /bin/busybox mkdir -m 700 /tmp/private; /bin/busybox chown 65534 /tmp/private; \
    ls -la / /tmp/private >/dev/null; /bin/busybox ps >/dev/null; /bin/busybox df >/dev/null; \
    cat /etc/passwd /proc/kallsyms /proc/sys/kernel/ns_last_pid /proc/sys/net/ipv4/ip_forward >/dev/null 2>&1 || true; \
    for process in /proc/[0-9]*; do ls -l $process/exe $process/fd >/dev/null 2>&1 || true; done; \
    /bin/busybox netstat -tln >/dev/null 2>&1 || true; exec /attempt getpid'";

fn looks(place: &Place) -> Result<(), String> {
    place.with(|daemon| {
        let ran = place.run(PLAIN, LOOK)?;
        exactly(&place.alerts(daemon, &ran, TYPES)?, &[])
    })
}
