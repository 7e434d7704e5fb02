//! The capabilities that have rules of their own: each used, refused and gained by the real thing in a real container,
//! which must raise exactly the right rule.
//!
//! What this machine cannot show is ignored: a capability that the suite itself lacks can be given to no container, and
//! a kernel without modules or I/O ports has no calls for them. Guests show it, and the use and gain of CAP_BPF and
//! CAP_PERFMON, which Debian's Engine (20.10) does not know. CAP_MAC_ADMIN is asked for by AppArmor, which some guests have
//! in force; CAP_MAC_OVERRIDE by Smack alone, which no kernel of Debian's has: of it only the gain is shown.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use monitor_common::caps::Cap;
use serde_json::Value;
use tests::attempt::errno_name;
use tests::attempt::needs::{NEEDS, Need};
use tests::harness::alerts::{Alert, Expectation, Must};

use crate::capability_place::{APPARMOR, Given, PLAIN, Place, TYPES};
use crate::looks;

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

/// A case; what differs comes back as a text for people.
type Case = Box<dyn Fn(&Place) -> Result<(), String> + Send>;

pub(crate) fn trials(place: &Arc<Place>) -> Vec<Trial> {
    let mut trials = Vec::new();
    // What this machine cannot do is done by another: in a guest every capability can be given.
    let mut add = |name: String, possible: bool, case: Case| {
        let place = place.clone();
        if possible {
            trials.push(Trial::test(name, move || case(&place).map_err(Failed::from)));
        }
    };
    let guest = place.suite.settings().guest;
    let can_give = |cap| is_ours(cap) && (guest || !matches!(cap, Cap::Bpf | Cap::Perfmon));
    let possible = |need: &Need| match need.name {
        // Guests with another cgroup layout than version 2 alone have AppArmor in force.
        "policy" => guest && std::fs::exists(APPARMOR).is_ok_and(|is| is),
        "load-module" => std::fs::exists("/proc/modules").is_ok_and(|is| is),
        "port" => has_ports(),
        // Before the tracepoint the check may be drawn into its caller (`cap_mmap_addr`), where no hook sees it.
        "map-zero" => tests::features::running() >= Some((6, 14)),
        _ => true,
    };
    let possible: Vec<&'static Need> = NEEDS.iter().filter(|need| possible(need)).collect();
    // Checks are counted by the same programs however others are attached; gains are not.
    let by_doors_alone = guest && place.suite.settings().attach == "trampoline";
    // A container takes a guest's processor seconds, so there one does all.
    let turns = |needs: Vec<&'static Need>| -> Vec<(&str, Vec<&'static Need>)> {
        if guest {
            let (policy, others): (Vec<_>, Vec<_>) =
                needs.into_iter().partition(|need| need.cap == Cap::MacAdmin);
            return [("all", others), ("policy", policy)]
                .into_iter()
                .filter(|(name, needs)| !needs.is_empty() && (*name != "all" || !by_doors_alone))
                .collect();
        }
        needs.into_iter().map(|need| (need.name, vec![need])).collect()
    };
    for (name, needs) in turns(possible.iter().copied().filter(|need| can_give(need.cap)).collect()) {
        add(format!("nine::{name}_used"), true, Box::new(move |place| used(place, &needs)));
    }
    for (name, needs) in turns(possible) {
        add(format!("nine::{name}_refused"), true, Box::new(move |place| refused(place, &needs)));
    }
    for cap in RULED {
        // There only what no other machine of the suite can give, and the largest.
        let here = !guest || matches!(cap, Cap::SysAdmin | Cap::SysResource | Cap::Bpf | Cap::Perfmon);
        let gained = |place: &Place| gained_by_program(place, *cap);
        add(format!("nine::{}_gained", kebab(*cap)), here && can_give(*cap), Box::new(gained));
    }
    for way in WAYS {
        add(format!("nine::gained_by_{}", way.way), true, Box::new(|place| gained_by(place, way)));
    }
    add("nine::ls_and_ps_raise_nothing".to_owned(), !by_doors_alone, Box::new(looks));
    for (name, case) in looks::CASES {
        add((*name).to_owned(), !by_doors_alone, Box::new(case));
    }
    trials
}

/// The end of the place, to be held after whatever else uses it.
pub(crate) fn the_end(place: &Arc<Place>) -> Trial {
    let place = place.clone();
    Trial::test("nine::the_end", move || place.end().map_err(Failed::from))
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

fn used(place: &Place, needs: &[&'static Need]) -> Result<(), String> {
    let add: Vec<Cap> = needs.iter().map(|need| need.cap).filter(|cap| !is_default(*cap)).collect();
    need_made(place, needs, Given { add: &add, ..PLAIN }, |need| need.granted, "used")
}

fn refused(place: &Place, needs: &[&'static Need]) -> Result<(), String> {
    let drop = needs.iter().map(|need| need.cap).find(|cap| is_default(*cap));
    let given = Given { add: &[], drop, unconfined: true };
    need_made(place, needs, given, |need| std::slice::from_ref(&need.refused), "refused")
}

/// What is asked for in the calls that need a capability: without CAP_PERFMON also CAP_SYS_ADMIN, which had allowed its
/// calls before there was that. Each is told of once.
fn told_of(needs: &[&'static Need], what: &str) -> Vec<String> {
    let mut caps: Vec<Cap> = needs.iter().map(|need| need.cap).collect();
    if what == "refused" && caps.contains(&Cap::Perfmon) {
        caps.push(Cap::SysAdmin);
    }
    caps.into_iter().map(|cap| rule(cap, what)).collect()
}

fn need_made(
    place: &Place,
    needs: &[&'static Need],
    given: Given<'_>,
    answers: impl Fn(&'static Need) -> &'static [i32],
    what: &str,
) -> Result<(), String> {
    place.with(|daemon| {
        let names: Vec<&str> = needs.iter().map(|need| need.name).collect();
        let ran = place.run(given, &format!("/attempt need {}", names.join(" ")))?;
        if ran.lines.len() != needs.len() {
            return Err(format!("{} lines of {}: {:?}", ran.lines.len(), needs.len(), ran.lines));
        }
        for (need, line) in needs.iter().zip(&ran.lines) {
            let said: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            let ret = said["ret"].as_i64().ok_or("no answer")?;
            let errno = if ret < 0 { -ret as i32 } else { 0 };
            if !answers(need).contains(&errno) {
                return Err(format!("{}: the kernel answered {ret} ({})", need.name, errno_name(errno)));
            }
        }
        let alerts = place.alerts(daemon, &ran, TYPES)?;
        exactly(&alerts, &told_of(needs, what))?;
        let calls = needs.iter().map(|need| need.call.to_owned()).collect();
        let told = Expectation::new()
            .is("evt.type", "capability")
            .must("cap.call", Must::BeOneOf(calls))
            .is("proc.name", "attempt")
            .is("container.id", &ran.id[..12]);
        if alerts.iter().all(|alert| told.fits(alert)) { Ok(()) } else { Err(told.explain(&alerts)) }
    })
}

/// A set-user-id program gives nobody what root has in this container.
fn gained_by_program(place: &Place, cap: Cap) -> Result<(), String> {
    place.with(|daemon| {
        let add: &[Cap] = if is_default(cap) { &[] } else { &[cap] };
        let given = Given { add, ..PLAIN };
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
    given: Given<'static>,
    /// Types of events that are looked at besides [`TYPES`].
    call: Option<&'static str>,
    rules: &'static [&'static str],
}

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
        given: Given { add: &[Cap::SysAdmin], ..PLAIN },
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
