//! Which programs began at home in a cgroup, as the pipeline notes them: their files are looked at later, by the keeper,
//! for a file's capabilities decide whether it can be begun at all.
//!
//! A file with the effective bit whose permitted capabilities are not all within the bounding set is not begun: execve
//! answers EPERM, to root as well (`bprm_caps_from_vfs_caps` in security/commoncap.c, since 2.6.24). Nothing checks such
//! a capability, so its use does not show.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monitor_common::capability::CapSets;
use monitor_common::ids::CgroupId;

use crate::enrich::container::Cgroups;

/// Programs that are noted of a cgroup, at most.
pub(super) const MAX_OF_CGROUP: usize = 128;
/// Programs that are noted of all cgroups together, at most.
const MAX_PROGRAMS: usize = 65_536;
/// And of those that others than root may have made.
const MAX_DELEGATED: usize = MAX_PROGRAMS / 4;
/// Bytes of a path that is noted, at most.
const MAX_PATH: usize = 512;

/// A program that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The process that began it last.
    pub tgid: u32,
    /// What it needs was told by the credentials that it began with ([`told`]).
    pub told: bool,
    /// Mount namespace in which its path leads to it; 0 if that is not known.
    pub mount_ns: u32,
}

/// The programs that began in a cgroup, by the path that the kernel had of them.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    pub(super) by_path: HashMap<Arc<[u8]>, Begun>,
    /// Some found no room, or their paths are not known whole.
    pub(super) unnoted: bool,
}

/// Everything that is noted.
#[derive(Debug, Default)]
pub(super) struct Noted {
    cgroups: HashMap<CgroupId, Arc<Programs>>,
    /// The cgroups among these that others than root may have made.
    delegated: HashSet<CgroupId>,
    /// Programs of all, and of those.
    count: usize,
    of_delegated: usize,
}

impl Noted {
    /// A program began, by a path that is known whole or not at all, in a cgroup that is `delegated` if others than root
    /// may have made it.
    pub(super) fn begun(&mut self, cgroup: CgroupId, delegated: bool, path: Option<&[u8]>, begun: Begun) {
        // Copied only while the keeper has it, and it is small.
        let programs = Arc::make_mut(self.cgroups.entry(cgroup).or_default());
        let path = path.filter(|path| path.len() <= MAX_PATH);
        if let Some(known) = path.and_then(|path| programs.by_path.get_mut(path)) {
            *known = Begun { told: known.told && begun.told, ..begun };
            return;
        }
        let room = self.count < MAX_PROGRAMS && (!delegated || self.of_delegated < MAX_DELEGATED);
        match path {
            Some(path) if programs.by_path.len() < MAX_OF_CGROUP && room => {
                programs.by_path.insert(Arc::from(path), begun);
                self.count += 1;
                if delegated {
                    self.of_delegated += 1;
                    self.delegated.insert(cgroup);
                }
            }
            _ => programs.unnoted |= !begun.told,
        }
    }

    /// Forgets cgroups that the table has forgotten.
    pub(super) fn keep(&mut self, cgroups: &Cgroups) {
        self.cgroups.retain(|id, _| cgroups.known(*id).is_some());
        self.delegated.retain(|id| self.cgroups.contains_key(id));
        let sum = |fits: &dyn Fn(&CgroupId) -> bool| {
            let fitting = self.cgroups.iter().filter(|(id, _)| fits(id));
            fitting.map(|(_, programs)| programs.by_path.len()).sum()
        };
        (self.count, self.of_delegated) = (sum(&|_| true), sum(&|id| self.delegated.contains(id)));
    }

    pub(super) fn into_programs(self) -> HashMap<CgroupId, Arc<Programs>> {
        self.cgroups
    }

    pub(super) fn of(&self, cgroup: CgroupId) -> Option<Arc<Programs>> {
        self.cgroups.get(&cgroup).cloned()
    }
}

/// The capabilities that a program has of its file with the effective bit, as far as the credentials tell that it began
/// with. `root`: its user is root, or may be in a user namespace of its own.
///
/// To others than root an exec gives what is ambient, and what a file gives; and puts in force what is ambient, or all if
/// the file has the effective bit. What came of the file's inheritable set by the task's own counts, too: it cannot be told
/// apart, and to keep it breaks nothing. What remains is a real user who is root where the effective one is not: that one
/// is permitted everything. Nothing does not mean that the file has none: with `no_new_privs` it has no effect, but must be
/// within the bounding set all the same.
pub fn told(root: bool, caps: &CapSets) -> u64 {
    let all = caps.bounding | caps.inheritable;
    if root || caps.permitted == all { 0 } else { caps.permitted & caps.effective & !caps.ambient }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIND: u64 = 1 << 10;
    const RAW: u64 = 1 << 13;
    const LAST: Begun = Begun { tgid: 5, told: false, mount_ns: 9 };

    #[test]
    fn credentials_of_others_than_root_tell_what_their_file_gave() {
        let caps = CapSets { permitted: BIND, effective: BIND, bounding: BIND | RAW, ..CapSets::default() };
        assert_eq!(told(false, &caps), BIND);
        assert_eq!(told(true, &caps), 0, "root is given the same without a file");
        assert_eq!(told(false, &CapSets { effective: 0, ..caps }), 0, "such a file is begun all the same");
        assert_eq!(told(false, &CapSets { ambient: BIND, ..caps }), 0, "that came with the task");
        assert_eq!(
            told(false, &CapSets { permitted: BIND | RAW, ambient: RAW, ..caps }),
            0,
            "all: a real root"
        );
        let more = CapSets { bounding: !0, ambient: RAW, permitted: BIND | RAW, effective: !0, ..caps };
        assert_eq!(told(false, &more), BIND);
    }

    #[test]
    fn a_program_is_noted_once_with_its_latest_process() {
        let mut noted = Noted::default();
        noted.begun(CgroupId(1), false, Some(b"/bin/a"), Begun { tgid: 4, told: true, ..LAST });
        let before = noted.of(CgroupId(1)).unwrap();
        noted.begun(CgroupId(1), false, Some(b"/bin/a"), LAST);
        let programs = noted.of(CgroupId(1)).unwrap();
        assert_eq!((programs.by_path[b"/bin/a".as_slice()], programs.by_path.len()), (LAST, 1));
        assert_eq!(
            before.by_path[b"/bin/a".as_slice()].tgid,
            4,
            "a copy that was handed over stays as it is"
        );
        assert!(!programs.unnoted && noted.of(CgroupId(2)).is_none());
    }

    #[test]
    fn room_is_bounded_and_what_finds_none_is_said() {
        let mut noted = Noted::default();
        let path = |number: usize| format!("/bin/{number}").into_bytes();
        for number in 0..MAX_OF_CGROUP {
            noted.begun(CgroupId(1), false, Some(&path(number)), LAST);
        }
        assert!(!noted.of(CgroupId(1)).unwrap().unnoted);
        noted.begun(CgroupId(1), false, Some(b"/told"), Begun { told: true, ..LAST });
        assert!(!noted.of(CgroupId(1)).unwrap().unnoted, "nothing need be looked at");
        noted.begun(CgroupId(1), false, Some(b"/more"), LAST);
        let programs = noted.of(CgroupId(1)).unwrap();
        assert_eq!((programs.by_path.len(), programs.unnoted), (MAX_OF_CGROUP, true));
        noted.begun(CgroupId(2), false, None, LAST);
        noted.begun(CgroupId(3), false, Some(&[b'/'; MAX_PATH + 1]), LAST);
        for cgroup in [2, 3] {
            let programs = noted.of(CgroupId(cgroup)).unwrap();
            assert!(programs.unnoted && programs.by_path.is_empty());
        }
        for cgroup in 4..4 + (MAX_PROGRAMS / MAX_OF_CGROUP) as u64 {
            for number in 0..MAX_OF_CGROUP {
                noted.begun(CgroupId(cgroup), false, Some(&path(number)), LAST);
            }
        }
        assert_eq!(noted.count, MAX_PROGRAMS);
        noted.begun(CgroupId(1 << 40), false, Some(b"/x"), LAST);
        assert!(noted.of(CgroupId(1 << 40)).unwrap().unnoted);
        noted.keep(&Cgroups::new(None));
        assert_eq!((noted.count, noted.cgroups.len()), (0, 0));
    }

    #[test]
    fn users_and_containers_have_a_quarter_of_the_room() {
        let mut noted = Noted::default();
        for cgroup in 0..(MAX_PROGRAMS / MAX_OF_CGROUP) as u64 {
            for number in 0..MAX_OF_CGROUP {
                noted.begun(CgroupId(cgroup), true, Some(format!("/bin/{number}").as_bytes()), LAST);
            }
        }
        assert_eq!((noted.count, noted.of_delegated), (MAX_DELEGATED, MAX_DELEGATED));
        noted.begun(CgroupId(1 << 40), false, Some(b"/x"), LAST);
        assert!(!noted.of(CgroupId(1 << 40)).unwrap().unnoted, "there is room for who is root's");
        noted.keep(&Cgroups::new(None));
        assert_eq!((noted.count, noted.of_delegated, noted.delegated.len()), (0, 0, 0));
    }
}
