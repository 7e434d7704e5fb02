//! Fields of events about capabilities that are no calls.

use monitor_common::capability::{CapSets, Door, cap_flag};
use monitor_common::wire::gain_flag;

use super::*;
use crate::decode::{RawCheck, RawGain};
use crate::event::CapFacts;

/// What such events have in common with [`raw`], and what not.
const NO_CALL: &str = "
    evt.category: capability
    evt.res: -
    evt.rawres: -
    evt.abi: -
    evt.args_claimed: -
    cap.before: -
    cap.after: -
    thread.cap_effective: -
    ns.before[mnt]: -
    ns.before[pid]: -
    ns.before[user]: -
";

fn told<'e>(world: &'e World, raw: &'e RawCall<'e>, caps: CapFacts) -> Event<'e> {
    Event { ty: caps.event_type(), verdict: caps.verdict(), caps: Some(caps), ..world.event(raw) }
}

fn state() -> RawCall<'static> {
    RawCall::of_state(BootNs(9_000_000_009), task(SELF, PARENT, b"probe"), three(CONTAINER_NS))
}

#[test]
fn a_first_check() {
    let (world, raw) = (World::container(), state());
    let check = RawCheck {
        effective: CHOWN,
        cap: 25,
        flags: cap_flag::DENIED,
        call: Some((Abi::X86_64, 227)),
        target_ns: NsInum(102),
    };
    let denied = "
        evt.type: capability
        evt.verdict: refused
        evt.refused_by: capability
        evt.failed: true
        cap.denied: CAP_SYS_TIME
        cap.name: CAP_SYS_TIME
        cap.audited: true
        cap.call: clock_settime
        cap.user_ns: initial
        cap.after: CAP_CHOWN
        thread.cap_effective: CAP_CHOWN
    ";
    assert_fields(&told(&world, &raw, CapFacts::Check(check)), &[COMMON, NO_CALL, denied]);
    // Of a page fault, by a runtime, of a capability that our table does not have, and nobody can tell what for.
    let flags = cap_flag::MAYBE_SILENT | cap_flag::VISITOR | cap_flag::CHILD_NS;
    let check = RawCheck { cap: 50, flags, call: None, ..check };
    let found = "
        evt.type: capability
        cap.name: CAP_50
        cap.used: CAP_50
        cap.user_ns: child
        cap.after: CAP_CHOWN
        thread.cap_effective: CAP_CHOWN
    ";
    assert_fields(&told(&world, &raw, CapFacts::Check(check)), &[COMMON, NO_CALL, found]);
    let used = RawCheck { cap: 0, flags: cap_flag::SILENT, ..check };
    let event = told(&world, &raw, CapFacts::Check(used));
    let fields = present(&event);
    assert_eq!((fields["cap.used"].as_str(), fields["cap.audited"].as_str()), ("CAP_CHOWN", "false"));
    assert!(!fields.contains_key("cap.denied"));
}

const BEFORE: CapSets =
    CapSets { effective: CHOWN, permitted: CHOWN, inheritable: 0, bounding: 1 | SYS_TIME, ambient: 0 };

fn gain() -> RawGain {
    RawGain {
        before: BEFORE,
        after: CapSets { effective: SYS_TIME, permitted: CHOWN | SYS_TIME, ambient: CHOWN, ..BEFORE },
        user_ns_before: NsInum(102),
        moved: false,
        door: Some(Door::Exec),
        unseen: false,
        flags: 0,
    }
}

#[test]
fn a_gain_by_a_door_and_one_by_none() {
    let (world, raw) = (World::container(), state());
    let sets = "
        cap.before: CAP_CHOWN
        cap.after: CAP_SYS_TIME
        cap.gained: CAP_SYS_TIME
        cap.dropped: CAP_CHOWN
        cap.gained_permitted: CAP_SYS_TIME
        cap.permitted: CAP_CHOWN CAP_SYS_TIME
        cap.permitted_before: CAP_CHOWN
        cap.bounding: CAP_CHOWN CAP_SYS_TIME
        cap.bounding_before: CAP_CHOWN CAP_SYS_TIME
        cap.ambient: CAP_CHOWN
        cap.user_ns: initial
        thread.cap_effective: CAP_SYS_TIME
    ";
    let by_door = "
        evt.type: gained
        cap.door: exec
    ";
    assert_fields(&told(&world, &raw, CapFacts::Gain(gain())), &[COMMON, NO_CALL, sets, by_door]);
    let unseen = RawGain { door: None, unseen: true, flags: gain_flag::VISITOR, ..gain() };
    let by_none = "
        evt.type: gained_unseen
    ";
    assert_fields(&told(&world, &raw, CapFacts::Gain(unseen)), &[COMMON, NO_CALL, sets, by_none]);
}

#[test]
fn the_kernel_s_word_on_visitors_counts_only_of_unknown_processes() {
    let (world, raw) = (World::container(), state());
    let check =
        RawCheck { effective: CHOWN, cap: 0, flags: cap_flag::VISITOR, call: None, target_ns: NsInum(102) };
    let gain = RawGain { flags: gain_flag::VISITOR, ..gain() };
    let unseen = RawGain { door: None, unseen: true, ..gain };
    for (facts, of_unknown) in [
        (CapFacts::Check(check), "starting"),
        (CapFacts::Gain(gain), "starting"),
        (CapFacts::Gain(unseen), "running"),
    ] {
        let known = told(&world, &raw, facts);
        assert_eq!(present(&known)["evt.phase"], "running", "the process table knows better");
        let unknown = Event { process: None, ..known };
        assert_eq!(present(&unknown)["evt.phase"], of_unknown);
    }
}

#[test]
fn what_a_user_namespace_gives_is_all_new_there() {
    let (world, raw) = (World::container(), state());
    let moved = RawGain {
        after: BEFORE,
        moved: true,
        door: Some(Door::Unshare),
        flags: gain_flag::CHILD_NS,
        user_ns_before: NsInum(9),
        ..gain()
    };
    let fields = present(&told(&world, &raw, CapFacts::Gain(moved)));
    assert_eq!((fields["cap.gained"].as_str(), fields["cap.user_ns"].as_str()), ("CAP_CHOWN", "child"));
    assert_eq!(
        (fields["cap.gained_permitted"].as_str(), fields["cap.door"].as_str()),
        ("CAP_CHOWN", "unshare")
    );
}
