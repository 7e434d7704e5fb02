//! When there is a profile, and what is said beside it.

use serde_json::{Value, json};

use super::*;

/// A container that is watched since its start, with these changes to what is known of its calls.
fn container(changes: &Value) -> CapsInfo {
    let mut calls = json!({
        "observed_seconds": 7200, "start_seen": true, "lost": 0, "last_new": "2026-01-02T03:04:05Z",
        "x86_64": {"called": ["read", "mkdir"], "runtime": ["execve"], "refused": ["unshare"], "refused_enosys": ["clone3"]},
        "i386": {"called": [], "runtime": [], "refused": [], "refused_enosys": []}, "x32": false,
    });
    for (name, value) in changes.as_object().expect("an object") {
        calls[name] = value.clone();
    }
    let info = json!({
        "id": "0123", "name": "web", "image": null, "runtime": "docker", "compose_service": null, "pod": null,
        "running": true, "since": "", "until": "", "observed_seconds": 9000, "start_seen": true, "gaps": 0,
        "restarts": 0, "own_user_namespace": null, "granted": null, "capabilities": [],
        "lost": {"no_room": 0, "capabilities": [], "skipped": 0}, "calls": calls,
    });
    serde_json::from_value(info).expect("what the daemon would say")
}

const HOUR: Duration = Duration::from_secs(3600);

fn refusal(info: &CapsInfo, least: Duration) -> String {
    advise(info, least, false).expect_err("no advice")
}

#[test]
fn the_time_it_rests_on_is_told() {
    let advice = advise(&container(&json!({})), HOUR, false).expect("advice");
    let notes = advice.notes.join("\n");
    assert!(notes.contains("rests on 2h") && notes.contains("made 2 different ones"), "{notes}");
    assert!(notes.contains("2026-01-02T03:04:05Z"), "{notes}");
    assert!(notes.contains("refused further on: unshare clone3"), "{notes}");
    assert!(!notes.contains("CAUTION"), "{notes}");
}

#[test]
fn refused_calls_that_nobody_could_see_are_told() {
    let advice = advise(&container(&json!({"refusals_unseen": true})), HOUR, false).expect("advice");
    assert!(advice.notes.join("\n").contains("CAUTION: calls that its filter refused"), "{:?}", advice.notes);
}

#[test]
fn too_short_a_time_is_none() {
    let told = refusal(&container(&json!({})), 3 * HOUR);
    assert!(told.contains("2h") && told.contains("3h") && told.contains("--min-observation"), "{told}");
    // It is the time in which calls were noted that counts.
    assert!(advise(&container(&json!({})), Duration::from_secs(7201), true).is_err());
}

#[test]
fn what_surely_misses_calls_is_no_profile_unless_that_is_accepted() {
    for (changes, word) in [(json!({"start_seen": false}), "start"), (json!({"lost": 3}), "3 calls")] {
        let info = container(&changes);
        let told = refusal(&info, HOUR);
        assert!(told.contains(word) && told.contains("--accept-losses"), "{told}");
        let advice = advise(&info, HOUR, true).expect("advice");
        assert!(advice.notes.iter().any(|note| note.starts_with("CAUTION")), "{:?}", advice.notes);
    }
}

#[test]
fn without_noted_calls_there_is_none() {
    let mut info = container(&json!({}));
    info.calls = None;
    assert!(refusal(&info, HOUR).contains("syscall_sets: true"));
}

#[test]
fn a_call_without_a_name_is_told() {
    let table = json!({"called": ["475"], "runtime": [], "refused": [], "refused_enosys": []});
    let advice = advise(&container(&json!({"x86_64": table})), HOUR, false).expect("advice");
    assert!(advice.notes.iter().any(|note| note.contains("not allowed: 475")), "{:?}", advice.notes);
}

#[test]
fn an_empty_set_is_no_profile_whatever_is_accepted() {
    let table = json!({"called": [], "runtime": ["execve"], "refused": [], "refused_enosys": []});
    let info = container(&json!({"x86_64": table}));
    let told = advise(&info, HOUR, true).expect_err("nothing was seen");
    assert!(told.contains("no system call") && told.contains("doctor"), "{told}");
}
