//! The shipped rules: they load, each carries tests with an event that it matches and a near miss, and together
//! they keep their promises on every call, outcome and place.

mod rules_cases;
mod rules_common;
mod rules_of_capabilities;

use std::path::Path;

use monitor::event_type::EventType;
use monitor::fields::{FieldRef, FieldSource as _, Value};
use monitor::rules::{Priority, Reason, Rule, RuleSet, RuleTest};
use monitor_common::call::Call;
use rules_cases::{event, state};
use rules_common::{Fake, matching};

fn pack() -> RuleSet {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    RuleSet::load(&[rules]).unwrap_or_else(|error| panic!("{error}"))
}

const OPENS: &[Call] = &[Call::Open, Call::Creat, Call::Openat, Call::Openat2, Call::OpenByHandleAt];
const VERDICTS: &[&str] = &["allowed", "refused", "failed"];

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
            event().list("ns.changed", &["mnt"]).text("ns.direction", "own"),
            event().list("ns.changed", &["mnt"]).text("ns.direction", "new"),
            event().list("ns.changed", &["user"]).text("ns.direction", "new"),
            event().list("ns.changed", &["mnt"]).text("ns.direction", "host_to_container"),
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

/// Events that lead out of a container.
fn leaving(call: Call, place: &'static str) -> Vec<Fake> {
    let event = || event(call, "allowed", place);
    ["container_to_host", "container_to_container"]
        .into_iter()
        .flat_map(|way| [&["mnt"][..], &["user", "mnt"]].map(|kinds| (way, kinds)))
        .map(|(way, kinds)| event().list("ns.changed", kinds).text("ns.direction", way))
        .collect()
}

/// The rules that match, but for those that count first: they come on top of what each event raises by itself.
fn found<'r>(rules: &'r RuleSet, ty: impl Into<EventType>, event: &Fake) -> Vec<&'r Rule> {
    let mut found = Vec::new();
    rules.matches(ty, event, |rule| found.push(rule));
    found.retain(|rule| rule.threshold.is_none());
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
        let of_calls = rule.types().iter().any(|ty| ty.call().is_some());
        let call = ["evt.verdict", "evt.refused_by", "evt.args"].into_iter().filter(|_| of_calls);
        for field in
            ["proc.name", "proc.exepath", "proc.pid", "container.id", "user.uid"].into_iter().chain(call)
        {
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
fn refusals_in_a_running_container_are_counted_by_wall_and_nothing_else_is() {
    let rules = pack();
    for call in Call::ALL {
        for (verdict, place) in
            VERDICTS.iter().flat_map(|v| ["host", "running", "starting"].map(|place| (*v, place)))
        {
            for event in variants(*call, verdict, place) {
                let mut counting = matching(&rules, *call, &event);
                counting
                    .retain(|id| rules.rules().iter().any(|rule| rule.id == *id && rule.threshold.is_some()));
                let counted = verdict == "refused" && place == "running";
                let expected: &[&str] = if counted { &["walls-probed-in-container"] } else { &[] };
                assert_eq!(counting, expected, "{event:?}");
            }
        }
    }
    let rule = rules.rules().iter().find(|rule| rule.id == "walls-probed-in-container").unwrap();
    let threshold = rule.threshold.as_ref().unwrap().to_string();
    assert_eq!(threshold, "3 different values of evt.category within 1m by container.id");
}

#[test]
fn a_program_from_memory_raises_a_second_alert_wherever_it_knocks() {
    let rules = pack();
    for call in Call::ALL {
        for event in VERDICTS.iter().flat_map(|verdict| variants(*call, verdict, "running")) {
            let into = format!("{event:?}").contains("host_to_container");
            let event = event.set("proc.is_exe_from_memfd", Value::Bool(true)).text("proc.entry", "main");
            let ids: Vec<_> = found(&rules, *call, &event).iter().map(|rule| rule.id.as_str()).collect();
            let told = ids.contains(&"memory-program-at-wall-in-container");
            assert_eq!((told, ids.len()), (!into, 1 + usize::from(!into)), "{event:?}: {ids:?}");
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
fn who_leads_out_of_a_container_alerts_exactly_once_wherever_its_cgroup_is() {
    let rules = pack();
    for call in [Call::Setns, Call::Unshare, Call::Clone, Call::Clone3] {
        for event in ["running", "host"].into_iter().flat_map(|place| leaving(call, place)) {
            let found = found(&rules, call, &event);
            let ids: Vec<_> = found.iter().map(|rule| rule.id.as_str()).collect();
            let to_host = format!("{event:?}").contains("container_to_host");
            let expected = if to_host {
                ("host-namespace-entered-from-container", Priority::Critical)
            } else {
                ("other-container-entered-from-container", Priority::Error)
            };
            assert_eq!((ids, found[0].priority), (vec![expected.0], expected.1), "{event:?}");
        }
    }
}

#[test]
fn what_is_no_call_alerts_exactly_once() {
    let rules = pack();
    for (ty, place, id, priority) in [
        (EventType::Entered, "running", "container-entered-from-outside", Priority::Notice),
        (EventType::Escaped, "running", "container-escaped", Priority::Critical),
        (EventType::Escaped, "host", "container-escaped", Priority::Critical),
    ] {
        let found = found(&rules, ty, &state(ty, place));
        let ids: Vec<_> = found.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!((ids, found[0].priority), (vec![id], priority), "{ty:?} {place}");
    }
}

#[test]
fn a_starting_container_raises_nothing_but_the_record() {
    let rules = pack();
    for call in Call::ALL {
        for verdict in VERDICTS {
            for event in variants(*call, verdict, "starting").into_iter().chain(leaving(*call, "starting")) {
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
    // By capset a process puts in force what it was permitted before.
    assert_eq!(weight(Call::Capset, &gained), weight(Call::Capset, &refused));
    let dangerous = event(Call::Capset, "allowed", "running").list("cap.gained", &["CAP_SYS_ADMIN"]);
    assert!(weight(Call::Capset, &dangerous) > weight(Call::Capset, &refused));
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

#[test]
fn every_test_inside_the_rules_comes_out() {
    let report = pack().run_tests();
    let failed: Vec<_> =
        report.failures().map(|(rule, test)| (&rule.id, &test.name, &test.reasons)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// `ringfence rules test --complete rules` tells the same.
#[test]
fn every_rule_carries_a_match_and_a_near_miss() {
    for rule in pack().rules() {
        let gaps = rule.gaps();
        assert!(!gaps.no_match, "{}: none of its tests shows an event that it matches", rule.id);
        assert!(!gaps.no_near_miss, "{}: none of its tests shows a near miss", rule.id);
    }
}

/// The fields that a rule reads and that two of its tests have different values for.
fn differing(rule: &Rule, one: &RuleTest, other: &RuleTest) -> Vec<FieldRef> {
    let mut fields = Vec::new();
    rule.each_field(|field| {
        let (one, other) = (one.event.values.value(field), other.event.values.value(field));
        if one != other && !fields.contains(&field) {
            fields.push(field);
        }
    });
    fields
}

#[test]
fn a_near_miss_differs_from_a_match_in_the_one_fact_that_matters() {
    for rule in pack().rules() {
        let pairs = rule.tests.iter().flat_map(|one| rule.tests.iter().map(move |other| (one, other)));
        let near =
            pairs.filter(|(one, other)| one.matches && !other.matches && rule.nearly_matches(&other.event));
        assert!(
            near.into_iter().any(|(one, other)| differing(rule, one, other).len() == 1),
            "{}: no near miss differs from a matching test in one field",
            rule.id
        );
    }
}

#[test]
fn an_event_that_a_test_matches_raises_that_rule_in_the_whole_pack() {
    let rules = pack();
    for rule in rules.rules() {
        for test in rule.tests.iter() {
            let mut ids = Vec::new();
            rules.matches(test.event.ty, &test.event.values, |rule| ids.push(rule.id.as_str()));
            assert_eq!(ids.contains(&rule.id.as_str()), test.matches, "{}: {}: {ids:?}", rule.id, test.name);
            assert_eq!(rule.explain(&test.event.values).holds, test.matches, "{}: {}", rule.id, test.name);
            let why = rule.why(&test.event.values);
            let told = |reason: &Reason<'_>| !reason.values.is_empty() && reason.condition.contains('.');
            assert!(!why.is_empty() && why.iter().all(told), "{}: {}: {why:?}", rule.id, test.name);
        }
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
    let calls: Vec<Call> = Call::ALL.iter().copied().filter(|call| clock.types().has(*call)).collect();
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
    for rule in found(&rules, Call::ClockSettime, &event) {
        rule.output.render(&event, &mut out);
    }
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
