//! What the shipped rules promise of capabilities: first use, refusal and gain.

use monitor::event_type::EventType;
use monitor::fields::Value;
use monitor::rules::{Priority, RuleSet};

use super::rules_cases::state;
use super::rules_common::Fake;
use super::{found, pack};

/// Capabilities that have rules of their own, the weightiest first.
const RULED: &[&str] = &[
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_BPF",
    "CAP_SYS_PTRACE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYS_TIME",
    "CAP_NET_ADMIN",
    "CAP_SYSLOG",
    "CAP_PERFMON",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_NICE",
    "CAP_SETPCAP",
];

fn rule_of(cap: &str, what: &str) -> String {
    format!(
        "capability-{}-{what}-in-container",
        cap.trim_start_matches("CAP_").to_lowercase().replace('_', "-")
    )
}

/// The first check of its kind by a program of a container.
fn check(cap: &'static str, verdict: &'static str, place: &'static str) -> Fake {
    let call = if cap == "CAP_DAC_READ_SEARCH" { "open_by_handle_at" } else { "mount" };
    state(EventType::Capability, place)
        .text("evt.verdict", verdict)
        .text("evt.category", "capability")
        .text("cap.name", cap)
        .text("cap.user_ns", "initial")
        .text("cap.call", call)
}

fn gain(caps: &[&'static str], door: &'static str, place: &'static str) -> Fake {
    let event = state(EventType::Gained, place).text("cap.user_ns", "initial").text("cap.door", door);
    event.list("cap.gained", caps).list("cap.gained_permitted", caps)
}

fn ids(rules: &RuleSet, ty: EventType, event: &Fake) -> Vec<String> {
    let mut ids = Vec::new();
    rules.matches(ty, event, |rule| ids.push(rule.id.clone()));
    ids
}

#[test]
fn each_capability_is_told_by_one_rule_when_it_is_used_refused_and_gained() {
    let rules = pack();
    let weight = |id: &str| rules.rules().iter().find(|rule| rule.id == id).map(|rule| rule.priority);
    for cap in RULED {
        let [used, refused, gained] = ["used", "refused", "gained"].map(|what| rule_of(cap, what));
        let told = |event: &Fake| ids(&rules, EventType::Capability, event);
        assert_eq!(told(&check(cap, "allowed", "running")), [used.as_str()]);
        assert_eq!(told(&check(cap, "refused", "running")), [refused.as_str()]);
        let of_door = |door| ids(&rules, EventType::Gained, &gain(&["CAP_CHOWN", cap], door, "running"));
        for door in ["exec", "setuid", "setreuid", "setresuid", "setfsuid", "prctl"] {
            assert_eq!(of_door(door), [gained.as_str()], "{door}");
        }
        // Their calls have alerts of their own.
        for door in ["capset", "unshare", "setns", "clone"] {
            assert!(of_door(door).is_empty(), "{door}");
        }
        assert!(weight(&used) >= weight(&refused) && weight(&gained) >= weight(&refused), "{cap}");
    }
    for of_any in [check("CAP_CHOWN", "allowed", "running"), check("CAP_CHOWN", "refused", "running")] {
        assert!(ids(&rules, EventType::Capability, &of_any).is_empty());
    }
}

#[test]
fn a_gain_of_many_is_told_by_the_rule_of_the_weightiest() {
    let rules = pack();
    for from in 0..RULED.len() {
        let told = ids(&rules, EventType::Gained, &gain(&RULED[from..], "exec", "running"));
        assert_eq!(told, [rule_of(RULED[from], "gained")]);
    }
    let others = ids(&rules, EventType::Gained, &gain(&["CAP_NET_RAW", "CAP_CHOWN"], "exec", "running"));
    assert_eq!(others, ["capability-other-gained-in-container"]);
}

#[test]
fn what_is_looked_at_by_the_runtime_on_the_host_or_in_a_namespace_of_its_own_is_not_told() {
    let rules = pack();
    for (cap, verdict) in RULED.iter().flat_map(|cap| [(*cap, "allowed"), (*cap, "refused")]) {
        let event = || check(cap, verdict, "running");
        let mut silent = vec![
            event().set("cap.audited", Value::Bool(false)),
            event().text("cap.user_ns", "child"),
            check(cap, verdict, "starting"),
            check(cap, verdict, "host"),
        ];
        if [
            "CAP_SYS_ADMIN",
            "CAP_SYS_PTRACE",
            "CAP_PERFMON",
            "CAP_SYS_RESOURCE",
            "CAP_NET_ADMIN",
            "CAP_SYSLOG",
        ]
        .contains(&cap)
        {
            silent.extend(
                ["openat", "read", "readlink", "getdents64"].map(|call| event().text("cap.call", call)),
            );
        }
        for event in silent {
            assert!(ids(&rules, EventType::Capability, &event).is_empty(), "{event:?}");
        }
    }
    for event in [gain(&["CAP_SYS_ADMIN"], "exec", "host"), gain(&["CAP_SYS_ADMIN"], "exec", "starting")] {
        assert!(ids(&rules, EventType::Gained, &event).is_empty(), "{event:?}");
    }
}

/// As measured in plain containers: su and a program that looks for a network device.
#[test]
fn usual_programs_of_a_plain_container_raise_nothing_above_notice() {
    let rules = pack();
    for (cap, call) in [
        ("CAP_NET_ADMIN", "setsockopt"),
        ("CAP_NET_ADMIN", "sendmsg"),
        ("CAP_SYS_RESOURCE", "prlimit64"),
        ("CAP_SYS_MODULE", "ioctl"),
        ("CAP_SYS_NICE", "sched_setscheduler"),
        ("CAP_SYS_TIME", "adjtimex"),
        ("CAP_DAC_READ_SEARCH", "openat"),
        ("CAP_SYS_ADMIN", "sethostname"),
    ] {
        let event = check(cap, "refused", "running").text("cap.call", call);
        for id in ids(&rules, EventType::Capability, &event) {
            let rule = rules.rules().iter().find(|rule| rule.id == id).unwrap();
            assert!(rule.priority <= Priority::Notice, "{cap} by {call}: {id}");
        }
    }
    let server = gain(&["CAP_CHOWN", "CAP_SETUID", "CAP_SETPCAP"], "setresuid", "running");
    let told = found(&rules, EventType::Gained, &server);
    assert!(told.len() == 1 && told[0].priority <= Priority::Notice);
}

#[test]
fn what_the_kernel_says_was_more_than_a_look_is_told_unless_it_only_lists() {
    let rules = pack();
    for cap in ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYSLOG"] {
        let told = |call, audited: Option<bool>| {
            let event = check(cap, "allowed", "running").text("cap.call", call);
            let event = match audited {
                Some(audited) => event.set("cap.audited", Value::Bool(audited)),
                None => event,
            };
            ids(&rules, EventType::Capability, &event)
        };
        for call in ["openat", "open", "read", "pread64"] {
            assert_eq!(told(call, Some(true)), [rule_of(cap, "used")], "{call}");
            assert!(told(call, None).is_empty() && told(call, Some(false)).is_empty(), "{call}");
        }
        for call in ["readlink", "getdents64", "newfstatat", "statx"] {
            assert!(told(call, Some(true)).is_empty() && told(call, None).is_empty(), "{call}");
        }
    }
}

#[test]
fn a_change_of_user_that_takes_back_what_was_permitted_is_no_gain() {
    let rules = pack();
    for door in ["setuid", "setreuid", "setresuid", "setfsuid"] {
        let event = state(EventType::Gained, "running")
            .text("cap.user_ns", "initial")
            .text("cap.door", door)
            .list("cap.gained", &["CAP_SYS_ADMIN", "CAP_CHOWN"])
            .list("cap.permitted_before", &["CAP_SYS_ADMIN", "CAP_CHOWN"]);
        let told = found(&rules, EventType::Gained, &event);
        let told: Vec<_> = told.iter().map(|rule| (rule.id.as_str(), rule.priority)).collect();
        assert_eq!(told, [("capability-taken-back-in-container", Priority::Informational)], "{door}");
    }
}

#[test]
fn credentials_that_grow_by_no_door_are_critical_wherever_they_are() {
    let rules = pack();
    for place in ["running", "host"] {
        let event = state(EventType::GainedUnseen, place).list("cap.gained", &["CAP_SYS_ADMIN"]);
        let told = found(&rules, EventType::GainedUnseen, &event);
        assert_eq!((told.len(), told[0].priority), (1, Priority::Critical), "{place}");
    }
}
