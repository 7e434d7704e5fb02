//! What a patch keeps, and what it does not.

use super::tests::{cap, count, info, patch, without_notes};
use super::*;
use crate::capabilities::{CapInfo, Count};

#[test]
fn what_may_be_its_own_use_in_a_cgroup_below_is_kept() {
    let mut info = info();
    info.capabilities[5].runtime_below = true;
    let text = patch(PatchFormat::Docker, &info);
    let change = "--cap-drop=ALL --cap-add=SETUID --cap-add=NET_RAW --cap-add=MKNOD";
    assert_eq!(without_notes(&text), [change]);
    assert!(text.contains("may be the runtime's use and not its own: CAP_MKNOD."), "{text}");
    let table = table::detail(&info, &CapsListing::default());
    let mknod = table.lines().find(|line| line.starts_with("CAP_MKNOD")).unwrap();
    assert_eq!(mknod.split_whitespace().nth(2), Some("perhaps"), "{table}");
    assert!(table.contains("granted and never used: CAP_CHOWN\n"), "{table}");
    assert!(table.contains("runtime and container are not told apart: CAP_MKNOD\n"), "{table}");
    info.capabilities[5].granted = Some("no".to_owned());
    assert!(!patch(PatchFormat::Docker, &info).contains("--cap-add=MKNOD"), "it was never granted");
}

#[test]
fn a_look_that_opens_files_is_kept() {
    let mut info = info();
    info.capabilities[2] = CapInfo { silent_allowed: Some(count(2)), ..cap("CAP_NET_ADMIN", "permitted") };
    let text = patch(PatchFormat::Docker, &info);
    let change = "--cap-drop=ALL --cap-add=SETUID --cap-add=NET_ADMIN --cap-add=NET_RAW";
    assert_eq!(without_notes(&text), [change]);
    assert!(text.contains("the kernel only looked: CAP_NET_ADMIN"), "{text}");
    assert!(text.contains("and not kept: CAP_CHOWN."), "{text}");
}

#[test]
fn capset_alone_needs_no_setpcap() {
    let mut info = info();
    let used = Count { last_call: Some("capset".to_owned()), ..count(1) };
    info.capabilities.push(CapInfo { used: Some(used), ..cap("CAP_SETPCAP", "permitted") });
    let text = patch(PatchFormat::Docker, &info);
    assert!(text.contains("perhaps not needed: CAP_SETPCAP"), "{text}");
    assert!(text.contains("--cap-add=SETPCAP"), "to keep too much breaks nothing: {text}");
}

#[test]
fn what_was_gained_is_not_granted() {
    let mut info = info();
    info.capabilities[4].used = Some(count(1));
    assert_eq!(
        without_notes(&patch(PatchFormat::Docker, &info)),
        ["--cap-drop=ALL --cap-add=SETUID --cap-add=NET_RAW"]
    );
}

#[test]
fn in_a_user_namespace_of_its_own_what_is_used_there_counts() {
    let mut info = info();
    info.capabilities[0].used_in_child = Some(count(2));
    let kept = |info: &CapsInfo| without_notes(&patch(PatchFormat::Docker, info)).join("\n");
    assert!(!kept(&info).contains("CHOWN"));
    info.own_user_namespace = Some(true);
    assert!(kept(&info).contains("--cap-add=CHOWN"), "{}", kept(&info));
}

#[test]
fn what_a_file_needs_is_kept_and_said() {
    let mut info = info();
    for cap in &mut info.capabilities {
        // Granted by the bounding set alone, only looked at, refused although it was never granted.
        cap.needed_by_file = ["CAP_MKNOD", "CAP_CHOWN", "CAP_SYS_TIME"].contains(&&*cap.capability);
    }
    assert_eq!(info.summary().unused, Some(0));
    let text = patch(PatchFormat::Docker, &info);
    let expected = "--cap-drop=ALL --cap-add=CHOWN --cap-add=SETUID --cap-add=NET_RAW --cap-add=MKNOD";
    assert_eq!(without_notes(&text), [expected]);
    let note = "Kept, for a program has it as a file capability with the effective bit and does not begin without: \
                CAP_CHOWN CAP_MKNOD.";
    assert!(text.contains(note), "{text}");
    for wrong in ["Taken away", "and not kept", "at the start (or by"] {
        assert!(!text.contains(wrong), "{wrong} in\n{text}");
    }
    let mut unknown = info.clone();
    unknown.granted = None;
    unknown.capabilities.retain(|cap| cap.capability == "CAP_MKNOD");
    unknown.capabilities[0].granted = None;
    assert_eq!(without_notes(&patch(PatchFormat::Docker, &unknown)), ["--cap-drop=ALL --cap-add=MKNOD"]);
    let listing = CapsListing { containers: vec![info.clone()], ..CapsListing::default() };
    let shown = table::detail(&info, &listing);
    let row = shown.lines().find(|line| line.starts_with("CAP_MKNOD")).unwrap();
    assert!(row.contains("by file"), "{row}");
    let line = "granted, never used, and a file capability without which a program does not begin: CAP_CHOWN CAP_MKNOD\n";
    assert!(shown.contains(line) && !shown.contains("granted and never used"), "{shown}");
}

#[test]
fn files_that_nobody_saw_are_a_reason_for_caution() {
    const NOTE: &str = "# CAUTION: the files of some programs were not looked at";
    let mut info = info();
    assert!(!patch(PatchFormat::Docker, &info).contains(NOTE));
    info.files_unseen = true;
    let text = patch(PatchFormat::Docker, &info);
    assert!(text.contains(NOTE) && text.contains("getcap"), "{text}");
    assert!(
        table::detail(&info, &CapsListing::default()).contains("not looked at: the files of some programs")
    );
    info.capabilities.iter_mut().for_each(|cap| cap.used = Some(count(1)));
    assert!(!patch(PatchFormat::Docker, &info).contains(NOTE), "nothing is taken away");
    // What another daemon told, or nobody.
    let mut old = serde_json::to_value(&info).unwrap();
    old.as_object_mut().unwrap().remove("files_unseen");
    old["capabilities"][0].as_object_mut().unwrap().remove("needed_by_file");
    let old: CapsInfo = serde_json::from_value(old).unwrap();
    assert!(!old.files_unseen && !old.capabilities[0].needed_by_file);
}
