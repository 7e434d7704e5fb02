//! Which growth of credentials a door explains, as the kernel's own code has it (security/commoncap.c,
//! kernel/user_namespace.c).

use crate::capability::{CapSets, Door};
use crate::caps::Cap;

/// Wire number of no door.
pub const NO_DOOR: u16 = 0;

/// Into which user namespace a task's credentials went since they were last known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// They count in the same.
    No,
    /// Into a child of it, which anybody may make.
    IntoChild,
    /// Into another one that lies deeper.
    Deeper,
    /// Anywhere else: up, or aside. The kernel has no door that leads there.
    Elsewhere,
}

impl Moved {
    /// From the namespace that was known, at its level, into the one that is, at its own, whose parent is `parent`.
    #[inline(always)]
    pub const fn between(known: u32, known_level: u32, now: u32, level: u32, parent: u32) -> Moved {
        if now == known {
            Moved::No
        } else if level == 0 || level <= known_level {
            Moved::Elsewhere
        } else if parent == known {
            Moved::IntoChild
        } else {
            Moved::Deeper
        }
    }
}

/// True if credentials may have grown so by this door, or by one at which a run of the program was skipped: what the
/// task could have done by itself is nobody's exploit. Only more permitted capabilities, a larger bounding set, and the
/// way out of a user namespace have no such door.
#[inline(always)]
pub const fn explains(door: u16, known: &CapSets, now: &CapSets, same_user: bool, moved: Moved) -> bool {
    match moved {
        Moved::No => {}
        Moved::IntoChild => return true,
        Moved::Deeper => return door == Door::Setns as u16,
        Moved::Elsewhere => return false,
    }
    let grown = now.gained(*known);
    if grown.bounding != 0 || grown.effective & !now.permitted != 0 {
        return false;
    }
    // Whoever has CAP_SETPCAP may add from the bounding set (`cap_capset`).
    let bounding = if door == Door::Capset as u16 { known.bounding } else { 0 };
    if grown.inheritable & !(known.permitted | bounding) != 0 {
        return false;
    }
    if grown.ambient & !(known.permitted & now.inheritable) != 0 {
        return false;
    }
    if grown.permitted == 0 {
        return true;
    }
    // An exec leaves the real user alone; another one could be taken before it.
    let user = same_user || known.permitted & Cap::Setuid.mask() != 0;
    door == Door::Exec as u16 && user && grown.permitted & !(known.bounding | now.inheritable) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: CapSets = CapSets { effective: 0, permitted: 0, inheritable: 0, bounding: 0, ambient: 0 };
    const BOUND: CapSets = CapSets { bounding: 0xff, ..NONE };
    const HAS: CapSets = CapSets { effective: 3, permitted: 7, bounding: 0xff, ..NONE };

    fn told(door: u16, known: CapSets, now: CapSets) -> bool {
        explains(door, &known, &now, true, Moved::No)
    }

    #[test]
    fn no_door_leads_up_or_aside() {
        let full = CapSets { effective: 1, permitted: 1, ..BOUND };
        // The initial namespace is the only one at level 0.
        let up = Moved::between(50, 1, 10, 0, 0);
        let aside = Moved::between(50, 1, 51, 1, 10);
        assert_eq!((up, aside), (Moved::Elsewhere, Moved::Elsewhere));
        for door in Door::ALL.iter().map(|door| *door as u16).chain([NO_DOOR]) {
            assert!(!explains(door, &BOUND, &full, true, up), "{door}");
            assert!(!explains(door, &BOUND, &full, true, aside), "{door}");
        }
    }

    #[test]
    fn a_child_of_the_known_namespace_is_everybodys_to_make() {
        let into = Moved::between(50, 1, 60, 2, 50);
        assert_eq!(into, Moved::IntoChild);
        for door in [NO_DOOR, Door::Clone as u16, Door::Unshare as u16, Door::Setns as u16] {
            assert!(explains(door, &BOUND, &HAS, true, into));
        }
        // A clone of one that was first given the initial namespace: its child's lies beside the known one, or deeper.
        let beside = Moved::between(50, 1, 61, 1, 10);
        assert!(!explains(Door::Clone as u16, &BOUND, &HAS, true, beside));
        let deeper = Moved::between(50, 1, 62, 3, 61);
        assert_eq!(deeper, Moved::Deeper);
        assert!(!explains(Door::Unshare as u16, &BOUND, &HAS, true, deeper));
        assert!(!explains(Door::Clone as u16, &BOUND, &HAS, true, deeper));
        assert!(explains(Door::Setns as u16, &BOUND, &HAS, true, deeper));
    }

    #[test]
    fn what_a_task_could_do_itself_needs_no_door() {
        assert!(told(NO_DOOR, HAS, CapSets { effective: 7, ..HAS }), "within what is permitted");
        assert!(told(NO_DOOR, HAS, CapSets { inheritable: 4, ..HAS }), "within what was permitted");
        assert!(told(NO_DOOR, HAS, CapSets { inheritable: 4, ambient: 4, ..HAS }));
        assert!(told(Door::Exec as u16, HAS, CapSets { inheritable: 4, ambient: 4, ..HAS }));
    }

    #[test]
    fn what_nobody_can_do_is_unseen() {
        for door in Door::ALL.iter().map(|door| *door as u16).chain([NO_DOOR]) {
            assert!(!told(door, HAS, CapSets { bounding: 0x1ff, ..HAS }), "bounding: {door}");
            assert!(!told(door, HAS, CapSets { effective: 8, ..HAS }), "effective beyond permitted: {door}");
            assert!(!told(door, HAS, CapSets { inheritable: 0x100, ..HAS }), "inheritable: {door}");
            assert!(!told(door, HAS, CapSets { ambient: 1, ..HAS }), "ambient beyond inheritable: {door}");
            let is_exec = door == Door::Exec as u16;
            assert_eq!(told(door, HAS, CapSets { permitted: 0xf, ..HAS }), is_exec, "permitted: {door}");
        }
        assert!(told(Door::Capset as u16, HAS, CapSets { inheritable: 8, ..HAS }), "CAP_SETPCAP");
        assert!(!told(NO_DOOR, HAS, CapSets { inheritable: 8, ..HAS }));
    }

    #[test]
    fn an_exec_gives_no_more_than_the_bounding_set_and_leaves_the_user() {
        const EXEC: u16 = Door::Exec as u16;
        assert!(told(EXEC, BOUND, CapSets { permitted: 0xff, effective: 0xff, ..BOUND }));
        assert!(!told(EXEC, BOUND, CapSets { permitted: 0x100, ..BOUND }));
        let more = CapSets { permitted: 0xff, ..BOUND };
        assert!(!explains(EXEC, &BOUND, &more, false, Moved::No), "another real user");
        let may = CapSets { permitted: Cap::Setuid.mask(), ..BOUND };
        assert!(explains(EXEC, &may, &more, false, Moved::No), "it could have become that user");
    }
}
