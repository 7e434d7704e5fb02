//! Rules against sets of probes.

use super::*;
use crate::attach::hooked_functions;
use crate::rules::RuleSet;

/// A rule set of one rule with this condition.
fn rule(condition: &str) -> RuleSet {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.yaml");
    let text = format!("- rule: One\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n");
    std::fs::write(&file, text).unwrap();
    RuleSet::load(&[file]).unwrap()
}

fn probe(name: &str, present: bool) -> Probe {
    Probe {
        name: name.to_owned(),
        hook: format!("hook/{name}"),
        program: None,
        missing: (!present).then(|| "refused".to_owned()),
        cost: "it costs",
    }
}

/// Every probe of a mode; those in `missing` did not attach.
fn sight(mode: AttachMode, missing: &[&str]) -> Sight {
    let mut names: Vec<String> = LIFE_CYCLE_FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(["cap_capable_tp", "device_asked"].map(str::to_owned));
    match mode {
        AttachMode::Tracepoint => names.push("sys_exit".to_owned()),
        AttachMode::Trampoline => {
            names.extend(hooked_functions().map(|name| name.replacen("__", "on_", 1)));
            names.push("credentials_committed".to_owned());
        }
    }
    let probes: Vec<Probe> = names
        .iter()
        .filter(|name| mode == AttachMode::Tracepoint || *name != "cap_capable")
        .map(|name| probe(name, !missing.contains(&name.as_str())))
        .collect();
    Sight::new(mode, &probes, true)
}

fn coverage(condition: &str, mode: AttachMode, missing: &[&str]) -> Coverage {
    sight(mode, missing).of_rule(&rule(condition).rules()[0])
}

#[test]
fn a_rule_whose_every_situation_is_seen_is_covered() {
    for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
        for condition in [
            "evt.type = setns",
            "evt.type = open and evt.verdict = allowed",
            "evt.type in (clone, clone3) and ns.changed exists",
            "evt.type = stime",
        ] {
            assert_eq!(coverage(condition, mode, &[]), Coverage::Covered, "{condition}");
        }
    }
}

#[test]
fn a_missing_wrapper_degrades_and_both_missing_blind() {
    let mode = AttachMode::Trampoline;
    let one = coverage("evt.type = setns", mode, &["on_ia32_sys_setns"]);
    assert_eq!(one.reasons(), ["no probe on setns in the 32-bit table"]);
    assert_eq!(one.name(), "degraded");
    let both = coverage("evt.type = setns", mode, &["on_ia32_sys_setns", "on_x64_sys_setns"]);
    assert_eq!((both.name(), both.reasons().len()), ("blind", 2));
    let abi = coverage("evt.type = setns and evt.abi = i386", mode, &["on_ia32_sys_setns"]);
    assert_eq!(abi.name(), "blind");
    let other = coverage("evt.type = unshare", mode, &["on_ia32_sys_setns", "on_x64_sys_setns"]);
    assert_eq!(other, Coverage::Covered);
    // A call with two wrappers in a table is seen while one of them is left.
    let clock = coverage("evt.type = clock_settime", mode, &["on_ia32_sys_clock_settime32"]);
    assert_eq!(clock, Coverage::Covered);
}

#[test]
fn who_refused_is_a_fact_only_where_a_hook_sits_on_seccomp() {
    let condition = "evt.type = unshare and evt.refused_by = seccomp";
    assert_eq!(coverage(condition, AttachMode::Trampoline, &[]), Coverage::Covered);
    let inferred = coverage(condition, AttachMode::Tracepoint, &[]);
    assert_eq!(inferred.name(), "degraded");
    assert!(inferred.reasons()[0].contains("inferred"), "{inferred:?}");
    let any = coverage("evt.type = unshare and evt.verdict = refused", AttachMode::Tracepoint, &[]);
    assert_eq!(any, Coverage::Covered);
    let unseen = coverage(condition, AttachMode::Tracepoint, &["cap_capable_tp"]);
    assert!(unseen.reasons()[0].contains("`other`"), "{unseen:?}");
}

#[test]
fn checks_and_gains_rest_on_their_hooks() {
    let types = ["capability", "gained", "gained_unseen"];
    for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
        for ty in types {
            assert_eq!(coverage(&format!("evt.type = {ty}"), mode, &[]), Coverage::Covered, "{ty}");
        }
        let no_exec = coverage("evt.type = gained", mode, &["process_exec"]);
        assert_eq!(no_exec.name(), "degraded");
    }
    let used = "evt.type = capability and evt.verdict = allowed";
    let unseen = coverage(used, AttachMode::Tracepoint, &["cap_capable_tp"]);
    assert_eq!((unseen.name(), unseen.reasons().len()), ("blind", 1));
    let no_commit = |ty| coverage(ty, AttachMode::Trampoline, &["credentials_committed"]).name();
    assert_eq!(no_commit("evt.type = gained"), "degraded");
    assert_eq!(no_commit("evt.type = gained_unseen"), "blind");
}

#[test]
fn opens_that_seccomp_refuses_are_named() {
    let by_seccomp = "evt.type = openat and evt.refused_by = seccomp";
    for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
        let refused = coverage("evt.type = openat and evt.verdict = refused", mode, &[]);
        assert_eq!(refused.name(), "degraded");
        let by_others =
            coverage("evt.type = openat and evt.refused_by in (capability, device-cgroup)", mode, &[]);
        assert_eq!(by_others, Coverage::Covered);
        let only = coverage(by_seccomp, mode, &[]);
        assert_eq!(only.name(), "degraded");
        assert!(only.reasons()[0].contains("path"), "{only:?}");
    }
    // There a filter's refusal shows by the absence of a check.
    let unseen = coverage(by_seccomp, AttachMode::Tracepoint, &["cap_capable_tp"]);
    assert_eq!(unseen.name(), "blind");
}

#[test]
fn what_can_be_missed_degrades_each_rule_that_rests_on_it() {
    for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
        let opened = coverage("evt.type = openat and evt.verdict = allowed", mode, &[]);
        assert_eq!(opened.reasons(), ["opens through io_uring are not seen, on any kernel"]);
        let refused = "evt.type = openat and evt.refused_by = device-cgroup";
        assert_eq!(coverage(refused, mode, &["device_asked"]).name(), "degraded");
    }
}

#[test]
fn a_rule_is_touched_only_by_gaps_in_what_it_reads() {
    let mode = AttachMode::Tracepoint;
    let phase = "evt.type = setns and evt.phase = running";
    assert_eq!(coverage(phase, mode, &[]), Coverage::Covered);
    assert_eq!(coverage(phase, mode, &["cgroup_attach"]).name(), "degraded");
    assert_eq!(coverage("evt.type = setns", mode, &["cgroup_attach"]), Coverage::Covered);
    let changed = "evt.type = clone and ns.changed exists";
    assert_eq!(coverage(changed, mode, &["process_fork"]).name(), "degraded");
    assert_eq!(coverage("evt.type = setns and ns.host exists", mode, &["process_fork"]), Coverage::Covered);
    assert_eq!(
        coverage("evt.type = setns and cap.gained exists", mode, &["cap_capable_tp"]).name(),
        "degraded"
    );
}

#[test]
fn a_condition_that_can_never_hold_is_blind() {
    let never = coverage("evt.type = setns and evt.type = unshare", AttachMode::Tracepoint, &[]);
    assert_eq!(never.name(), "blind");
    let never = coverage("evt.type = stime and evt.abi = x86_64", AttachMode::Tracepoint, &[]);
    assert_eq!(never.name(), "blind");
}

#[test]
fn the_shipped_rules_are_never_blind_where_every_probe_attaches() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let rules = RuleSet::load(&[dir]).unwrap();
    for mode in [AttachMode::Trampoline, AttachMode::Tracepoint] {
        let sight = sight(mode, &[]);
        for rule in rules.rules() {
            let coverage = sight.of_rule(rule);
            assert_ne!(coverage.name(), "blind", "{}: {:?}", rule.id, coverage.reasons());
        }
    }
}
