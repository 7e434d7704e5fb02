//! The ledger of capability checks: each is counted, and the first of its kind makes a record.
//!
//! A row per cgroup, capability, outcome, and who asked how (see [`CapKey`]). What finds no room is counted apart, by
//! capability and outcome, so the sum over all is exact.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use monitor_common::call::Abi;
use monitor_common::capability::{
    CAP_LEDGER_ENTRIES, CAP_SLOTS, CapCount, CapKey, NO_CALL, cap_flag, cap_slot,
};
use monitor_common::caps::Cap;
use monitor_common::wire::{CapabilityRecord, kind};

use crate::canary;
use crate::kernel::creds::is_child_ns;
use crate::kernel::{Current, Ptr, Running, namespaces};
use crate::maps::{add, kind_slot, reserve, submit};
use crate::settings::offset;
use crate::tasks;

/// The ledger. The daemon takes rows of cgroups that are gone out of it.
#[map]
static CAP_LEDGER: HashMap<CapKey, CapCount> = HashMap::with_max_entries(CAP_LEDGER_ENTRIES, 0);

/// Checks that found no room in the ledger, by [`cap_slot`].
#[map]
static CAP_UNCOUNTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(CAP_SLOTS * 2, 0);

/// `CAP_OPT_NOAUDIT` (include/linux/security.h).
const NOAUDIT: u32 = 2;
/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// A check, as the hook was told.
#[derive(Clone, Copy)]
pub struct Check {
    /// The capability's number.
    pub cap: u32,
    /// The kernel did not find it.
    pub denied: bool,
    /// The user namespace in which it was asked for.
    pub target: Ptr,
    /// How it was asked for (`CAP_OPT_*`), where the hook is told.
    pub opts: Option<u32>,
}

impl Check {
    /// Counts the check. `running` is whom it is about: checks of others' credentials are made by the running task, too.
    #[inline(always)]
    pub fn count(&self, running: &Running) {
        if self.cap >= CAP_SLOTS {
            return;
        }
        let child = is_child_ns(self.target);
        let mut flags = self.silence(running, child);
        if self.denied {
            flags |= cap_flag::DENIED;
        }
        if child {
            flags |= cap_flag::CHILD_NS;
        }
        if tasks::visits(running) {
            flags |= cap_flag::VISITOR;
        }
        let key = CapKey { cgroup_id: running.cgroup_id, cap: self.cap as u16, flags, pad: 0 };
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let (row, new) = match CAP_LEDGER.get_ptr_mut(key) {
            Some(row) => (Some(row), false),
            None => self.new_row(&key, now),
        };
        let Some(row) = row else {
            if let Some(uncounted) = CAP_UNCOUNTED.get_ptr_mut(cap_slot(self.cap, self.denied)) {
                add(uncounted);
            }
            return;
        };
        // SAFETY: the map's memory outlives the program. Others may write the last check's members at the same time:
        // each is whole, and either is a last one.
        unsafe {
            add(&raw mut (*row).count);
            (*row).last_ns = now;
            (*row).last_nr = running.nr;
            (*row).last_abi = running.abi as u32;
        }
        if new {
            self.report(running, &key);
        }
    }

    /// Makes a row, and says whether it was us who did.
    #[inline(always)]
    fn new_row(&self, key: &CapKey, now: u64) -> (Option<*mut CapCount>, bool) {
        let row = CapCount { count: 0, first_ns: now, last_ns: now, last_nr: NO_CALL, last_abi: 0 };
        // Another CPU may have been faster, or the map may be full; the look-up tells.
        let made = CAP_LEDGER.insert(key, row, NOEXIST).is_ok();
        (CAP_LEDGER.get_ptr_mut(key), made)
    }

    /// Whether the kernel only looked, as far as that can be told.
    #[inline(always)]
    fn silence(&self, running: &Running, child: bool) -> u16 {
        match self.opts {
            Some(opts) if opts & NOAUDIT != 0 => cap_flag::SILENT,
            Some(_) => 0,
            None if self.cap == Cap::SysAdmin as u32 && !child && only_looks(running) => cap_flag::SILENT,
            None => cap_flag::MAYBE_SILENT,
        }
    }

    /// Tells of the first check of its kind. What a canary does makes no record.
    #[inline(always)]
    fn report(&self, running: &Running, key: &CapKey) {
        if canary::is_current() {
            return;
        }
        let slot = kind_slot(kind::CAPABILITY);
        let current = Current::get();
        let Some(mut entry) = reserve::<CapabilityRecord>(slot, kind::CAPABILITY, key.cgroup_id) else {
            return;
        };
        let record = entry.as_mut_ptr();
        // SAFETY: the reserved room; each member behind the header is written.
        unsafe {
            current.describe(&raw mut (*record).task);
            namespaces(current.task, true, &raw mut (*record).ns);
            (*record).effective = current.caps();
            (*record).cap = key.cap;
            (*record).flags = key.flags;
            (*record).nr = running.nr;
            (*record).abi = running.abi as u16;
            (*record).pad = 0;
            (*record).target_ns = self.target.get(offset!(user_ns_inum));
        }
        submit(entry);
    }
}

/// Calls in which the kernel asks for CAP_SYS_ADMIN of the initial user namespace only to see how much memory the task
/// may have (`cap_vm_enough_memory`), or which attributes it may list (`simple_xattr_list` and the file systems' own),
/// and refuses nothing for want of it. Outside of a call that is a page fault. Where threads share a call's number with
/// other questions, as in clone, there is a doubt, and it is not listed.
#[inline(always)]
fn only_looks(running: &Running) -> bool {
    match running.abi {
        // mmap, mprotect, munmap, brk, mremap, madvise, shmget, shmat, fork, vfork, execve, listxattr, llistxattr,
        // flistxattr, execveat, listxattrat.
        Abi::X86_64 => matches!(
            running.nr,
            9 | 10 | 11 | 12 | 25 | 28 | 29 | 30 | 57 | 58 | 59 | 194 | 195 | 196 | 322 | 465 | NO_CALL
        ),
        // The same, with mmap2; shmat and shmget also by ipc, which has other questions.
        Abi::I386 => matches!(
            running.nr,
            2 | 11 | 45 | 90 | 91 | 125 | 163 | 190 | 192 | 219 | 232 | 233 | 234 | 358 | 395 | 397 | 465
        ),
        // execve and execveat have numbers of their own.
        Abi::X32 => matches!(
            running.nr,
            9 | 10 | 11 | 12 | 25 | 28 | 29 | 30 | 57 | 58 | 194 | 195 | 196 | 465 | 520 | 545
        ),
    }
}
