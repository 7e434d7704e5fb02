//! The ledger of capability checks: each is counted, and the first of its kind makes a record.
//!
//! A row per cgroup, capability, outcome, and who asked how (see [`CapKey`]). What finds no room is counted apart, by
//! capability and outcome, so the sum over all is exact.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use monitor_common::call::{Abi, NEW_NAMESPACES};
use monitor_common::cap_group::{CapGroup, cap_group};
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

/// Checks of other credentials than the task's own, by capability.
#[map]
static CAP_BORROWED: PerCpuArray<u64> = PerCpuArray::with_max_entries(CAP_SLOTS, 0);

/// Kinds of checks that found no room in the ledger and were told of all the same. Full, it gives up the oldest, which
/// may then be told of again.
#[map]
static CAP_TOLD: LruHashMap<CapKey, u8> = LruHashMap::with_max_entries(8192, 0);

/// Address of the initial user namespace, once it was met: it stays where it is, and so need not be looked at again.
#[map]
static INITIAL_NS: Array<u64> = Array::with_max_entries(1, 0);

/// True if a user namespace is not the initial one.
#[inline(always)]
fn is_child(user_ns: Ptr) -> bool {
    let Some(initial) = INITIAL_NS.get_ptr_mut(0) else { return is_child_ns(user_ns) };
    // SAFETY: the map's memory outlives the program; all who write there write the same.
    unsafe {
        if *initial == user_ns.0 {
            return false;
        }
        let child = is_child_ns(user_ns);
        if !child {
            *initial = user_ns.0;
        }
        child
    }
}

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
    /// The credentials that were looked at.
    pub cred: Ptr,
    /// The user namespace in which it was asked for.
    pub target: Ptr,
    /// How it was asked for (`CAP_OPT_*`), where the hook is told.
    pub opts: Option<u32>,
}

impl Check {
    /// Counts the check, if it is of the running task's own credentials. Others are no concern of its: overlayfs looks at
    /// those of whoever mounted it, at each step of a path, and so shows every container to use CAP_SYS_ADMIN; a file's
    /// opener may be asked, or another task.
    #[inline(always)]
    pub fn count(&self, running: &Running) {
        if self.cap >= CAP_SLOTS {
            return;
        }
        if self.cred.0 != running.cred.0 {
            if let Some(borrowed) = CAP_BORROWED.get_ptr_mut(self.cap) {
                add(borrowed);
            }
            return;
        }
        let child = is_child(self.target) && self.counts_there_alone();
        let asked = tasks::asked(running, self.cap, self.denied);
        let group = self.group(running);
        let mut flags =
            self.silence(running, child, group, asked.over_limit) | (group as u16) << cap_flag::GROUP_SHIFT;
        if self.denied {
            flags |= cap_flag::DENIED;
        }
        if child {
            flags |= cap_flag::CHILD_NS;
        }
        if asked.visits {
            flags |= cap_flag::VISITOR;
        }
        let key = CapKey { cgroup_id: running.cgroup_id, cap: self.cap as u16, flags, pad: 0 };
        // SAFETY: a helper without arguments.
        let tick = unsafe { bpf_jiffies64() } as u16;
        let (row, new) = match CAP_LEDGER.get_ptr_mut(key) {
            Some(row) => (Some(row), false),
            None => self.new_row(&key, tick),
        };
        let Some(row) = row else {
            if let Some(uncounted) = CAP_UNCOUNTED.get_ptr_mut(cap_slot(self.cap, self.denied)) {
                add(uncounted);
            }
            // Rules are not to be blinded by whoever fills the ledger.
            if CAP_TOLD.insert(key, 1, NOEXIST).is_ok() {
                self.report(running, &key);
            }
            return;
        };
        // SAFETY: the map's memory outlives the program. Others may write the last check's members at the same time:
        // each is whole, and either is a last one.
        unsafe {
            add(&raw mut (*row).count);
            if (*row).last_tick != tick {
                (*row).last_ns = bpf_ktime_get_boot_ns();
                (*row).last_tick = tick;
            }
            (*row).last_nr = running.nr;
            (*row).last_abi = running.abi as u16;
        }
        if new {
            self.report(running, &key);
        }
    }

    /// True of a check in a child namespace that has nothing to do with rights in the initial one: of credentials that
    /// count in a child alone, or of whoever made that namespace, who has all rights there. Other credentials of the
    /// initial one pass by what they have there, or are refused for want of it (`cap_capable`).
    #[inline(always)]
    fn counts_there_alone(&self) -> bool {
        /// A user namespace lies at most so deep (`create_user_ns`: 32 above it).
        const MAX_LEVEL: u32 = 33;
        if is_child(self.cred.follow(offset!(cred_user_ns))) {
            return true;
        }
        let mut ns = self.target;
        for _ in 0..MAX_LEVEL {
            if ns.get::<u32>(offset!(user_ns_level)) <= 1 {
                break;
            }
            ns = ns.follow(offset!(user_ns_parent));
        }
        ns.get::<u32>(offset!(user_ns_owner)) == self.cred.get::<u32>(offset!(cred_euid))
    }

    /// Makes a row, and says whether it was us who did.
    #[inline(always)]
    fn new_row(&self, key: &CapKey, tick: u16) -> (Option<*mut CapCount>, bool) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let row = CapCount {
            count: 0,
            first_ns: now,
            last_ns: now,
            last_nr: NO_CALL,
            last_abi: 0,
            last_tick: tick,
        };
        // Another CPU may have been faster, or the map may be full; the look-up tells.
        let made = CAP_LEDGER.insert(key, row, NOEXIST).is_ok();
        (CAP_LEDGER.get_ptr_mut(key), made)
    }

    /// What the call is about, if that is the capability.
    #[inline(always)]
    fn group(&self, running: &Running) -> CapGroup {
        // The flags of a clone stand in a register.
        if self.cap == Cap::SysAdmin as u32
            && is_clone(running)
            && running.first_argument() & NEW_NAMESPACES != 0
        {
            return CapGroup::Namespace;
        }
        cap_group(self.cap, running.abi, running.nr)
    }

    /// Whether the kernel only looked, as far as that can be told.
    #[inline(always)]
    fn silence(&self, running: &Running, child: bool, group: CapGroup, over_limit: bool) -> u16 {
        match self.opts {
            _ if self.cap == Cap::SysAdmin as u32 && is_filter(running) => 0,
            Some(opts) if opts & NOAUDIT != 0 => cap_flag::SILENT,
            Some(_) => 0,
            None if self.cap == Cap::SysAdmin as u32 && group.asks() && !is_clone(running) => 0,
            // A fork by a user who has too many processes is refused for want of CAP_SYS_RESOURCE and CAP_SYS_ADMIN, which
            // are asked for one after the other (`copy_process`).
            None if self.cap == Cap::SysAdmin as u32 && over_limit && is_fork(running) => 0,
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
/// and refuses nothing for want of it. Outside of a call that is a page fault. clone asks another question if its flags,
/// which stand in a register, name a namespace; those of clone3 stand in memory, so there is a doubt, and it is not listed.
#[inline(always)]
fn only_looks(running: &Running) -> bool {
    if is_clone(running) {
        return running.first_argument() & NEW_NAMESPACES == 0;
    }
    // madvise is left out: it also asks whether a page may be poisoned (`MADV_HWPOISON`).
    match running.abi {
        // mmap, mprotect, munmap, brk, mremap, shmget, shmat, fork, vfork, execve, listxattr, llistxattr,
        // flistxattr, execveat, listxattrat.
        Abi::X86_64 => matches!(
            running.nr,
            9 | 10 | 11 | 12 | 25 | 29 | 30 | 57 | 58 | 59 | 194 | 195 | 196 | 322 | 465 | NO_CALL
        ),
        // The same, with mmap2; shmat and shmget also by ipc, which has other questions.
        Abi::I386 => matches!(
            running.nr,
            2 | 11 | 45 | 90 | 91 | 125 | 163 | 190 | 192 | 232 | 233 | 234 | 358 | 395 | 397 | 465
        ),
        // execve and execveat have numbers of their own.
        Abi::X32 => matches!(
            running.nr,
            9 | 10 | 11 | 12 | 25 | 29 | 30 | 57 | 58 | 194 | 195 | 196 | 465 | 520 | 545
        ),
    }
}

/// seccomp, prctl and landlock_restrict_self, which ask for CAP_SYS_ADMIN without having a denial audited, and refuse a
/// filter for want of it all the same, to whoever could still gain privileges (`seccomp_prepare_filter`).
#[inline(always)]
fn is_filter(running: &Running) -> bool {
    match running.abi {
        Abi::X86_64 | Abi::X32 => matches!(running.nr, 157 | 317 | 446),
        Abi::I386 => matches!(running.nr, 172 | 354 | 446),
    }
}

#[inline(always)]
fn is_clone(running: &Running) -> bool {
    match running.abi {
        Abi::X86_64 | Abi::X32 => running.nr == 56,
        Abi::I386 => running.nr == 120,
    }
}

/// fork, vfork, clone or clone3.
#[inline(always)]
fn is_fork(running: &Running) -> bool {
    match running.abi {
        Abi::X86_64 | Abi::X32 => matches!(running.nr, 56..=58 | 435),
        Abi::I386 => matches!(running.nr, 2 | 120 | 190 | 435),
    }
}
