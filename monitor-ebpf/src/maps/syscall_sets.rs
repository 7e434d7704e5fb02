//! The sets of system calls by cgroup. The daemon gives them room only where they are wanted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use monitor_common::syscall_set::{NUMBERS, SyscallSet, TABLES};

use super::add;

/// By cgroup. One place, if the daemon asks for none.
#[map]
static SYSCALL_SETS: HashMap<u64, SyscallSet> = HashMap::with_max_entries(1, 0);

/// What a new set is made from, for it is too large for the stack. Nobody writes it.
#[map]
static SYSCALL_SET_EMPTY: Array<SyscallSet> = Array::with_max_entries(1, 0);

/// Calls of cgroups for which [`SYSCALL_SETS`] had no room.
#[map]
static SYSCALLS_UNNOTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A cgroup's set.
#[derive(Clone, Copy)]
pub struct Set(*mut SyscallSet);

/// The cgroup's set, made if there is none; `None`, and counted, if there is no room.
#[inline(always)]
pub fn of_or_new(cgroup_id: u64) -> Option<Set> {
    if let Some(set) = SYSCALL_SETS.get_ptr_mut(cgroup_id) {
        return Some(Set(set));
    }
    if let Some(empty) = SYSCALL_SET_EMPTY.get(0) {
        // Somebody else may have been faster, or there is no room: the look-up tells.
        let _ = SYSCALL_SETS.insert(cgroup_id, empty, 1 /* BPF_NOEXIST */);
    }
    let set = SYSCALL_SETS.get_ptr_mut(cgroup_id);
    if set.is_none()
        && let Some(unnoted) = SYSCALLS_UNNOTED.get_ptr_mut(0)
    {
        add(unnoted);
    }
    set.map(Set)
}

impl Set {
    /// The bits of a call, by table and number.
    #[inline(always)]
    pub fn at(self, (table, nr): (usize, usize)) -> Option<&'static mut u8> {
        if table >= TABLES || nr >= NUMBERS {
            return None;
        }
        // SAFETY: the place was checked, and the map's memory outlives the program. Others may write the byte at the
        // same time: then one of two bits that are both new is lost, until the next such call.
        unsafe { Some(&mut (*self.0).calls[table][nr]) }
    }

    /// Notes when something new was seen.
    #[inline(always)]
    pub fn note(self, now: u64) {
        // SAFETY: as above; these are single words.
        unsafe {
            if (*self.0).first_ns == 0 {
                (*self.0).first_ns = now;
            }
            (*self.0).last_new_ns = now;
        }
    }
}
