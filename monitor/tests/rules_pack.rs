//! The shipped rules: they load, each has an event that it matches and a near miss that it does not, and
//! together they keep their promises on every call, outcome and place.

mod rules_common;

use std::path::Path;

use monitor::rules::{Priority, Rule, RuleSet};
use monitor_common::call::Call;
use rules_common::{Fake, matching};

fn pack() -> RuleSet {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    RuleSet::load(&[rules]).unwrap_or_else(|error| panic!("{error}"))
}

const OPENS: &[Call] = &[Call::Open, Call::Creat, Call::Openat, Call::Openat2, Call::OpenByHandleAt];
const VERDICTS: &[&str] = &["allowed", "refused", "failed"];

/// An event of this call, outcome and place, without what is particular to the call.
fn event(call: Call, verdict: &'static str, place: &'static str) -> Fake {
    let event = Fake::default()
        .text("evt.type", call.name())
        .text("evt.verdict", verdict)
        .text("proc.name", "probe")
        .text("proc.exepath", "/bin/probe")
        .number("proc.pid", 4242)
        .number("proc.vpid", 7)
        .number("user.uid", 0);
    match place {
        "host" => event.text("container.id", "host").number("proc.vpid", 4242),
        phase => event.text("container.id", "0123456789ab").text("evt.phase", phase),
    }
}

/// The variants of a call: what its decoded fields can say.
fn variants(call: Call, verdict: &'static str, place: &'static str) -> Vec<Fake> {
    let event = || event(call, verdict, place);
    let allowed = verdict == "allowed";
    match call {
        Call::Capset if allowed => vec![
            event().list("cap.dropped", &["CAP_CHOWN"]),
            event().list("cap.gained", &["CAP_CHOWN"]),
            event().list("cap.gained", &["CAP_CHOWN", "CAP_SYS_ADMIN"]),
        ],
        Call::Setns | Call::Unshare | Call::Clone | Call::Clone3 if allowed => vec![
            event(),
            event().list("ns.changed", &["net"]),
            event().list("ns.changed", &["user", "mnt"]),
            event().list("ns.changed", &["mnt"]).number("proc.vpid", 4242),
        ],
        Call::Syslog => ["READ", "READ_ALL", "READ_CLEAR", "CLEAR", "CONSOLE_LEVEL", "SIZE_UNREAD"]
            .map(|action| event().text("syslog.action", action))
            .to_vec(),
        _ if OPENS.contains(&call) => ["mem", "kmem", "port", "kmsg", "msr", "proc_kmsg", "proc_kcore"]
            .map(|device| event().text("device.name", device))
            .into_iter()
            .chain([event()])
            .collect(),
        _ => vec![event()],
    }
}

fn found<'r>(rules: &'r RuleSet, call: Call, event: &Fake) -> Vec<&'r Rule> {
    let mut found = Vec::new();
    rules.matches(call, event, |rule| found.push(rule));
    found
}

#[test]
fn it_loads_without_a_warning_and_every_rule_is_complete() {
    let rules = pack();
    assert!(rules.warnings().is_empty(), "{:?}", rules.warnings());
    for rule in rules.rules() {
        let id = &rule.id;
        assert!(rule.enabled && rule.maturity.is_some() && rule.source == "syscall", "{id}");
        let next = rule.desc.contains("Check next") || rule.desc.contains("Check nothing");
        assert!(next, "{id}: says what to check next");
        assert!(!rule.attack.is_empty() || rule.desc.contains("No technique applies"), "{id}: ATT&CK");
        for place in ["container", "host"] {
            let tagged = rule.tags.iter().any(|tag| tag == place);
            assert_eq!(tagged, rule.tags.first().is_some_and(|tag| tag == place), "{id}: place comes first");
        }
        let fields: Vec<&str> = rule.output.fields().iter().map(|(key, _)| key.as_str()).collect();
        for field in [
            "proc.name",
            "proc.exepath",
            "proc.pid",
            "container.id",
            "user.uid",
            "evt.verdict",
            "evt.refused_by",
            "evt.args",
        ] {
            assert!(fields.contains(&field), "{id}: the output does not name {field}");
        }
        for name in ["proc.name", "proc.pname", "proc.aname", "fd.name"] {
            assert!(!rule.condition.contains(name), "{id}: judges by {name}, which the watched can choose");
        }
    }
}

#[test]
fn every_outcome_in_a_running_container_alerts_exactly_once() {
    let rules = pack();
    for call in Call::ALL {
        for verdict in VERDICTS {
            for event in variants(*call, verdict, "running") {
                let found = found(&rules, *call, &event);
                assert_eq!(
                    found.len(),
                    1,
                    "{event:?}: {:?}",
                    found.iter().map(|r| &r.id).collect::<Vec<_>>()
                );
                assert!(found[0].tags.contains(&"container".to_owned()));
            }
        }
    }
}

#[test]
fn on_the_host_what_succeeded_alerts_once_and_nothing_else_does() {
    let rules = pack();
    for call in Call::ALL {
        for verdict in VERDICTS {
            for event in variants(*call, verdict, "host") {
                let found = found(&rules, *call, &event);
                assert_eq!(found.len(), usize::from(*verdict == "allowed"), "{event:?}");
                assert!(found.iter().all(|rule| rule.tags.contains(&"host".to_owned())));
                assert!(found.iter().all(|rule| rule.priority <= Priority::Warning), "{event:?}");
            }
        }
    }
}

#[test]
fn a_starting_container_raises_nothing_but_the_record() {
    let rules = pack();
    for call in Call::ALL {
        for verdict in VERDICTS {
            for event in variants(*call, verdict, "starting") {
                let found = found(&rules, *call, &event);
                assert_eq!(found.len(), 1);
                assert_eq!(found[0].priority, Priority::Debug, "{event:?}");
            }
        }
    }
}

#[test]
fn what_succeeds_in_a_container_weighs_more_than_what_does_not() {
    let rules = pack();
    let weight = |call: Call, event: &Fake| found(&rules, call, event)[0].priority;
    for call in Call::ALL.iter().filter(|call| **call != Call::Capset) {
        let refused = variants(*call, "refused", "running");
        let failed = variants(*call, "failed", "running");
        let allowed = variants(*call, "allowed", "running");
        for (i, event) in allowed.iter().enumerate() {
            // Somebody who enters from outside is no attempt of the container's.
            if found(&rules, *call, event)[0].id == "container-entered-from-outside" {
                continue;
            }
            let i = i.min(refused.len() - 1);
            assert!(weight(*call, event) > weight(*call, &refused[i]), "{event:?}");
            assert!(weight(*call, event) > weight(*call, &failed[i]), "{event:?}");
        }
    }
    let gained = event(Call::Capset, "allowed", "running").list("cap.gained", &["CAP_CHOWN"]);
    let refused = event(Call::Capset, "refused", "running");
    let dropped = event(Call::Capset, "allowed", "running");
    assert!(weight(Call::Capset, &gained) > weight(Call::Capset, &refused));
    assert_eq!(weight(Call::Capset, &dropped), Priority::Informational);
}

#[test]
fn an_unknown_phase_counts_as_running() {
    let rules = pack();
    let event = Fake::default()
        .text("evt.type", "iopl")
        .text("evt.verdict", "allowed")
        .text("container.id", "0123456789ab");
    assert_eq!(matching(&rules, Call::Iopl, &event), ["raw-io-obtained-in-container"]);
}

/// For each rule one event that it must match and one near miss that it must not.
fn cases() -> Vec<(&'static str, Call, Fake, Fake)> {
    use Call::{Adjtimex, Capset, ClockSettime, Clone3, Ioperm, Openat, Setns, Syslog, Unshare};
    let run = |call, verdict| event(call, verdict, "running");
    let host = |call| event(call, "allowed", "host");
    let gained = |event: Fake, cap| event.list("cap.gained", &[cap]);
    let action = |event: Fake, action| event.text("syslog.action", action);
    let device = |event: Fake, device| event.text("device.name", device);
    let changed = |event: Fake, kind| event.list("ns.changed", &[kind]);
    let in_host_pid_ns = |event: Fake| event.number("proc.vpid", 4242);
    vec![
        (
            "capability-dangerous-gained-in-container",
            Capset,
            gained(run(Capset, "allowed"), "CAP_SYS_ADMIN"),
            gained(run(Capset, "allowed"), "CAP_KILL"),
        ),
        (
            "capability-gained-in-container",
            Capset,
            gained(run(Capset, "allowed"), "CAP_KILL"),
            run(Capset, "allowed"),
        ),
        (
            "capability-change-refused-in-container",
            Capset,
            run(Capset, "failed"),
            event(Capset, "failed", "starting"),
        ),
        ("capability-dropped-in-container", Capset, run(Capset, "allowed"), run(Capset, "refused")),
        (
            "capability-gained-on-host",
            Capset,
            gained(host(Capset), "CAP_SYS_ADMIN"),
            gained(run(Capset, "allowed"), "CAP_SYS_ADMIN"),
        ),
        ("capability-dropped-on-host", Capset, host(Capset), gained(host(Capset), "CAP_KILL")),
        (
            "host-namespace-entered-from-container",
            Setns,
            changed(run(Setns, "allowed"), "mnt").list("ns.entered_host", &["mnt"]),
            changed(run(Setns, "allowed"), "mnt"),
        ),
        (
            "namespace-entered-in-container",
            Setns,
            changed(run(Setns, "allowed"), "mnt"),
            changed(in_host_pid_ns(run(Setns, "allowed")), "mnt"),
        ),
        (
            "container-entered-from-outside",
            Setns,
            in_host_pid_ns(run(Setns, "allowed")),
            run(Setns, "allowed"),
        ),
        (
            "namespace-entry-refused-in-container",
            Setns,
            run(Setns, "refused"),
            event(Setns, "refused", "host"),
        ),
        (
            "user-namespace-created-in-container",
            Clone3,
            changed(run(Clone3, "allowed"), "user"),
            changed(run(Clone3, "refused"), "user"),
        ),
        (
            "namespace-created-in-container",
            Unshare,
            changed(run(Unshare, "allowed"), "net"),
            changed(run(Unshare, "allowed"), "user"),
        ),
        (
            "namespace-creation-refused-in-container",
            Unshare,
            run(Unshare, "refused"),
            changed(run(Unshare, "allowed"), "net"),
        ),
        (
            "user-namespace-created-on-host",
            Unshare,
            changed(host(Unshare), "user"),
            changed(host(Unshare), "net"),
        ),
        ("namespace-used-on-host", Setns, changed(host(Setns), "user"), event(Setns, "failed", "host")),
        ("clock-changed-from-container", ClockSettime, run(ClockSettime, "allowed"), host(ClockSettime)),
        (
            "clock-change-refused-in-container",
            ClockSettime,
            run(ClockSettime, "refused"),
            run(ClockSettime, "allowed"),
        ),
        ("clock-set-on-host", ClockSettime, host(ClockSettime), event(ClockSettime, "refused", "host")),
        ("clock-tuned-on-host", Adjtimex, host(Adjtimex), run(Adjtimex, "allowed")),
        (
            "kernel-log-tampered-from-container",
            Syslog,
            action(run(Syslog, "allowed"), "CLEAR"),
            action(run(Syslog, "allowed"), "READ_ALL"),
        ),
        (
            "kernel-log-tampering-refused-in-container",
            Syslog,
            action(run(Syslog, "refused"), "CONSOLE_OFF"),
            action(run(Syslog, "refused"), "READ"),
        ),
        (
            "kernel-log-read-from-container",
            Openat,
            device(run(Openat, "allowed"), "kmsg"),
            device(run(Openat, "allowed"), "mem"),
        ),
        (
            "kernel-log-access-refused-in-container",
            Syslog,
            action(run(Syslog, "refused"), "READ_ALL"),
            action(run(Syslog, "refused"), "READ_CLEAR"),
        ),
        (
            "kernel-log-cleared-on-host",
            Syslog,
            action(host(Syslog), "READ_CLEAR"),
            action(host(Syslog), "READ_ALL"),
        ),
        (
            "kernel-log-console-changed-on-host",
            Syslog,
            action(host(Syslog), "CONSOLE_LEVEL"),
            action(host(Syslog), "CLEAR"),
        ),
        (
            "kernel-log-read-on-host",
            Openat,
            device(host(Openat), "proc_kmsg"),
            device(host(Openat), "proc_kcore"),
        ),
        (
            "raw-io-obtained-in-container",
            Openat,
            device(run(Openat, "allowed"), "mem"),
            device(event(Openat, "allowed", "starting"), "mem"),
        ),
        ("raw-io-refused-in-container", Ioperm, run(Ioperm, "failed"), event(Ioperm, "failed", "host")),
        ("raw-io-obtained-on-host", Openat, device(host(Openat), "port"), device(host(Openat), "msr")),
        (
            "raw-io-inspected-on-host",
            Openat,
            device(host(Openat), "msr"),
            device(run(Openat, "allowed"), "msr"),
        ),
        (
            "wall-touched-while-container-starts",
            Setns,
            event(Setns, "allowed", "starting"),
            run(Setns, "allowed"),
        ),
    ]
}

#[test]
fn each_rule_matches_its_event_and_not_its_near_miss() {
    let rules = pack();
    let cases = cases();
    for (id, call, event, near_miss) in &cases {
        assert!(matching(&rules, *call, event).contains(id), "{id} does not match {event:?}");
        assert!(!matching(&rules, *call, near_miss).contains(id), "{id} matches {near_miss:?}");
    }
    for rule in rules.rules() {
        assert!(cases.iter().any(|(id, ..)| *id == rule.id), "{} has no case", rule.id);
    }
}

#[test]
fn the_index_by_call_changes_nothing() {
    let rules = pack();
    for call in Call::ALL {
        for (verdict, place) in VERDICTS.iter().flat_map(|v| ["host", "running", "starting"].map(|p| (v, p)))
        {
            for event in variants(*call, verdict, place) {
                let indexed = matching(&rules, *call, &event);
                let each = rules.rules().iter().filter(|rule| rule.holds(&event));
                assert_eq!(indexed, each.map(|rule| rule.id.as_str()).collect::<Vec<_>>(), "{event:?}");
            }
        }
    }
    let clock = rules.rules().iter().find(|rule| rule.id == "clock-set-on-host").unwrap();
    let calls: Vec<Call> = Call::ALL.iter().copied().filter(|call| clock.calls().has(*call)).collect();
    assert_eq!(calls, [Call::Settimeofday, Call::ClockSettime, Call::Stime]);
}

#[test]
fn output_names_the_actor() {
    let rules = pack();
    let event = event(Call::ClockSettime, "refused", "running")
        .text("evt.refused_by", "seccomp")
        .text("evt.args", "clockid=CLOCK_REALTIME sec=0")
        .text("proc.name", "da\u{1b}[2Jte\n");
    let mut out = String::new();
    rules.matches(Call::ClockSettime, &event, |rule| rule.output.render(&event, &mut out));
    assert_eq!(
        out,
        "Clock change refused in a container (clock=<NA> call=clock_settime clockid=CLOCK_REALTIME sec=0 \
         result=<NA> verdict=refused refused_by=seccomp process=da\\x1b[2Jte\\x0a exe=/bin/probe pid=4242 \
         parent=<NA> uid=0 container=0123456789ab runtime=<NA> abi=<NA>)"
    );
}

#[test]
fn the_reference_has_every_rule_and_its_examples_compile() {
    let rules = pack();
    let markdown = monitor::rules::reference::markdown(&rules);
    for rule in rules.rules() {
        assert!(markdown.contains(&format!("\n### {}\n", rule.id)), "{}", rule.id);
    }
    for example in monitor::rules::reference::examples() {
        let text = rules_common::rule_with(example);
        RuleSet::from_sources(&[("example.yaml", &text)])
            .unwrap_or_else(|error| panic!("{example}\n{error}"));
        assert!(markdown.contains(&example.replace('|', "\\|")), "{example}");
    }
}
