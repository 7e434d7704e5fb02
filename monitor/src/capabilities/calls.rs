//! The system calls of a container: what the programs noted by cgroup, added up, and by name for whoever asks.

use std::collections::BTreeMap;

use monitor_common::call::Abi;
use monitor_common::syscall_set::{NUMBERS, SyscallSet, TABLE_32, TABLE_64, TABLES, seen};
use serde::{Deserialize, Serialize};

use crate::syscall_names;

/// Bits of [`seen`] that are known.
const KNOWN: u8 =
    seen::OWN | seen::RUNTIME | seen::REFUSED | seen::REFUSED_ENOSYS | seen::X32 | seen::UNUSUAL;

/// What was seen of a container's calls. Times are boot times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Bits of [`seen`] by table and number.
    bits: BTreeMap<(u8, u16), u8>,
    /// When the last new call was made; 0 if none was.
    pub last_new: u64,
    /// For how long calls were noted.
    pub observed: u64,
    /// Whether one of the container's starts was seen whole, with all its calls.
    pub start_seen: bool,
    /// Calls that a filter refused could not be noted, at least for a time.
    pub refusals_unseen: bool,
    /// Calls that could not be noted while it ran: they found no room, or the kernel skipped the probe. It does not say
    /// whose they were.
    pub lost: u64,
}

impl Calls {
    /// Adds what was noted in one of the container's cgroups. True if that was anything new.
    pub fn take(&mut self, set: &SyscallSet) -> bool {
        let mut is_new = false;
        for (table, calls) in set.calls.iter().enumerate() {
            for (nr, bits) in calls.iter().enumerate().filter(|(_, bits)| **bits & KNOWN != 0) {
                is_new |= self.add((table as u8, nr as u16), bits & KNOWN);
            }
        }
        if is_new {
            self.last_new = self.last_new.max(set.last_new_ns);
        }
        is_new
    }

    fn add(&mut self, place: (u8, u16), bits: u8) -> bool {
        let known = self.bits.entry(place).or_default();
        let is_new = *known | bits != *known;
        *known |= bits;
        is_new
    }

    /// Adds what was seen of the same container at another time.
    pub fn join(&mut self, other: &Calls) {
        for (place, bits) in &other.bits {
            self.add(*place, *bits);
        }
        self.last_new = self.last_new.max(other.last_new);
        self.observed = self.observed.saturating_add(other.observed);
        self.start_seen |= other.start_seen;
        self.refusals_unseen |= other.refusals_unseen;
        self.lost = self.lost.saturating_add(other.lost);
    }

    /// By name. `time` makes a text of a moment.
    pub fn info(&self, time: impl Fn(u64) -> String) -> CallsInfo {
        CallsInfo {
            observed_seconds: self.observed / 1_000_000_000,
            start_seen: self.start_seen,
            refusals_unseen: self.refusals_unseen,
            lost: self.lost,
            last_new: (self.last_new != 0).then(|| time(self.last_new)),
            x86_64: self.names(TABLE_64),
            i386: self.names(TABLE_32),
            x32: self.bits.values().any(|bits| bits & seen::X32 != 0),
        }
    }

    fn names(&self, table: usize) -> CallNames {
        let mut names = CallNames::default();
        for ((_, nr), bits) in self.bits.iter().filter(|((of, _), _)| usize::from(*of) == table) {
            let nr = u32::from(*nr);
            let abi = match (table, bits & seen::X32 != 0) {
                (TABLE_32, _) => Abi::I386,
                // The numbers that x32 has alone are behind those of the 64-bit table.
                (_, true) if syscall_names::name(Abi::X86_64, nr).is_none() => Abi::X32,
                _ => Abi::X86_64,
            };
            // What got past a filter, or the container's own calls, is not refused: another task's filter was.
            let list = if bits & seen::OWN != 0 {
                &mut names.called
            } else if bits & seen::RUNTIME != 0 {
                &mut names.runtime
            } else if bits & seen::REFUSED_ENOSYS != 0 {
                &mut names.refused_enosys
            } else {
                &mut names.refused
            };
            list.push(syscall_names::shown(abi, nr).into_owned());
            if bits & seen::UNUSUAL != 0 {
                names.unusual.push(syscall_names::shown(abi, nr).into_owned());
            }
        }
        names
    }

    /// As it stands in a file.
    pub(super) fn to_form(&self) -> CallsForm {
        CallsForm {
            last_new: self.last_new,
            observed: self.observed,
            start_seen: self.start_seen,
            refusals_unseen: self.refusals_unseen,
            lost: self.lost,
            calls: self.bits.iter().map(|((table, nr), bits)| (*table, *nr, *bits)).collect(),
        }
    }

    /// From a file, with everything checked.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn from_form(form: CallsForm) -> Result<Self, String> {
        let CallsForm { last_new, observed, start_seen, refusals_unseen, lost, calls } = form;
        let mut bits = BTreeMap::new();
        for (table, nr, seen) in calls {
            let fits = usize::from(table) < TABLES && usize::from(nr) < NUMBERS;
            if !fits || seen == 0 || seen & !KNOWN != 0 || bits.insert((table, nr), seen).is_some() {
                return Err(format!("call {nr} of table {table} cannot be there as {seen:#x}"));
            }
        }
        Ok(Calls { bits, last_new, observed, start_seen, refusals_unseen, lost })
    }
}

/// [`Calls`] in a container's record: each call as table, number, bits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallsForm {
    last_new: u64,
    observed: u64,
    start_seen: bool,
    #[serde(default)]
    refusals_unseen: bool,
    lost: u64,
    calls: Vec<(u8, u16, u8)>,
}

/// The system calls of a container by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsInfo {
    /// For how long calls were noted.
    pub observed_seconds: u64,
    /// Whether one of the container's starts was seen whole. Otherwise what it only does at its start is missing.
    pub start_seen: bool,
    /// Whether calls that a filter refused could not be noted, at least for a time: then some are in no list.
    #[serde(default)]
    pub refusals_unseen: bool,
    /// Calls that could not be noted while it ran, of all containers together.
    pub lost: u64,
    /// When the last call was made that had not been made before, RFC 3339.
    pub last_new: Option<String>,
    /// Through the 64-bit table.
    pub x86_64: CallNames,
    /// Through the 32-bit table.
    pub i386: CallNames,
    /// Whether some of the first came by x32 numbers.
    pub x32: bool,
}

/// Calls through one table, in the order of their numbers; each in one of the first four lists. A call without a name is there by its
/// number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallNames {
    /// The container's programs made them.
    pub called: Vec<String>,
    /// The runtime alone made them, when the container's filter was on it already.
    pub runtime: Vec<String>,
    /// Programs made them, and a filter answered EPERM or EACCES.
    pub refused: Vec<String>,
    /// Programs made them, and a filter answered ENOSYS.
    pub refused_enosys: Vec<String>,
    /// Those among the called ones that had arguments which Docker's default profile refuses
    /// ([`monitor_common::syscall_set::is_unusual`]).
    #[serde(default)]
    pub unusual: Vec<String>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A set with these calls.
    pub(crate) fn set(calls: &[(usize, usize, u8)], last_new_ns: u64) -> SyscallSet {
        let mut set = SyscallSet { first_ns: 1, last_new_ns, ..SyscallSet::EMPTY };
        for (table, nr, bits) in calls {
            set.calls[*table][*nr] = *bits;
        }
        set
    }

    #[test]
    fn each_call_is_in_one_list() {
        let mut calls = Calls::default();
        let first = set(&[(TABLE_64, 83, seen::OWN | seen::RUNTIME), (TABLE_64, 59, seen::RUNTIME)], 5);
        assert!(calls.take(&first));
        assert!(!calls.take(&first), "nothing new");
        let second = [
            (TABLE_64, 272, seen::REFUSED),
            (TABLE_64, 435, seen::REFUSED_ENOSYS | seen::REFUSED),
            (TABLE_64, 475, seen::OWN),
            (TABLE_64, 521, seen::OWN | seen::X32),
            (TABLE_64, 0, seen::OWN | seen::X32),
            (TABLE_32, 39, seen::OWN | seen::REFUSED),
            (TABLE_32, 40, 0x80),
        ];
        assert!(calls.take(&set(&second, 9)));
        let info = calls.info(|ns| ns.to_string());
        assert_eq!(info.x86_64.called, ["read", "mkdir", "475", "ptrace"]);
        assert_eq!(info.x86_64.runtime, ["execve"]);
        assert_eq!(info.x86_64.refused, ["unshare"]);
        assert_eq!(info.x86_64.refused_enosys, ["clone3"]);
        assert_eq!(info.i386, CallNames { called: vec!["mkdir".into()], ..CallNames::default() });
        assert!(info.x32);
        assert_eq!(info.last_new.as_deref(), Some("9"));
    }

    #[test]
    fn what_two_daemons_saw_is_joined() {
        let mut calls = Calls { observed: 10, ..Calls::default() };
        calls.take(&set(&[(TABLE_64, 1, seen::OWN)], 5));
        let mut other = Calls { observed: 7, start_seen: true, ..Calls::default() };
        other.take(&set(&[(TABLE_64, 1, seen::REFUSED), (TABLE_64, 2, seen::OWN)], 3));
        calls.join(&other);
        assert_eq!((calls.observed, calls.start_seen, calls.last_new), (17, true, 5));
        assert_eq!(calls.names(TABLE_64).called, ["write", "open"]);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_checked() {
        let mut calls = Calls { observed: 10, start_seen: true, refusals_unseen: true, ..Calls::default() };
        calls.take(&set(&[(TABLE_64, 1, seen::OWN), (TABLE_32, 575, seen::REFUSED)], 5));
        let text = serde_json::to_string(&calls.to_form()).unwrap();
        assert_eq!(Calls::from_form(serde_json::from_str(&text).unwrap()).unwrap(), calls);
        let with = |calls| CallsForm {
            last_new: 0,
            observed: 0,
            start_seen: false,
            refusals_unseen: false,
            lost: 0,
            calls,
        };
        for wrong in [
            vec![(2, 0, 1)],
            vec![(0, 576, 1)],
            vec![(0, 0, 0)],
            vec![(0, 0, 0x40)],
            vec![(0, 1, 1), (0, 1, 1)],
        ] {
            assert!(Calls::from_form(with(wrong)).is_err());
        }
    }
}
