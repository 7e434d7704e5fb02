//! Fields of made-up events.

use monitor_common::ids::NsInum;

use super::*;
use crate::enrich::container::identify;

/// Shows fields of an event of an unknown process in `cgroup`.
fn fields(raw: &RawCall<'_>, cgroup: Option<&Cgroup>, wanted: &[Field]) -> Vec<String> {
    let event = Event {
        raw,
        verdict: verdict(raw),
        process: None,
        processes: &Processes::new(1, NsInum(1)),
        cgroup,
        device: None,
        host: &Host::default(),
        users: &Users::default(),
    };
    wanted
        .iter()
        .map(|field| event.value(FieldRef { field: *field, arg: FieldArg::None }).to_string())
        .collect()
}

#[test]
fn a_place_that_is_not_known_is_not_called_the_host() {
    let raw = RawCall::made_up(Call::Unshare);
    let path = format!("/docker/{}", "a1".repeat(32));
    let inside = Cgroup { container: identify(&path), path };
    let outside = Cgroup { path: "/system.slice".to_owned(), container: None };
    let wanted = [Field::ContainerId, Field::ContainerRuntime, Field::ContainerType];
    assert_eq!(fields(&raw, Some(&inside), &wanted), ["a1a1a1a1a1a1", "docker", "docker"]);
    assert_eq!(fields(&raw, Some(&outside), &wanted), ["host", "host", "host"]);
    assert_eq!(fields(&raw, None, &wanted), ["unknown", "unknown", "unknown"]);
}

#[test]
fn who_refused_capset_depends_on_whom_it_was_for() {
    let mut raw = RawCall { ret: -1, flags: call_flag::CLAIMED, ..RawCall::made_up(Call::Capset) };
    raw.task.ns_tgid = 7;
    let wanted = [Field::EvtVerdict, Field::EvtRefusedBy, Field::EvtRes];
    for (target, refused_by) in [(0, "capability"), (7, "capability"), (8, "other")] {
        raw.claimed[0] = target;
        assert_eq!(fields(&raw, None, &wanted), ["refused", refused_by, "EPERM"], "{target}");
    }
}

#[test]
fn the_state_before_a_call_is_absent_where_nobody_saw_it() {
    let mut raw = RawCall { caps_before: 1, caps_after: 1, ..RawCall::made_up(Call::Unshare) };
    let absent = Value::Absent.to_string();
    assert_eq!(fields(&raw, None, &[Field::CapBefore, Field::CapAfter]), [absent.as_str(), "CAP_CHOWN"]);
    raw.flags = call_flag::BEFORE_KNOWN;
    assert_eq!(fields(&raw, None, &[Field::CapBefore]), ["CAP_CHOWN"]);
}
