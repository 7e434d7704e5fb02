//! What was last known of each task: where it is at home, and its credentials.
//!
//! A task is at home in the cgroup in which it, or the task that it descends from, last began a program from its own
//! mount namespace. In another cgroup it is a visitor: a runtime that builds a container or enters it. Credentials that
//! are larger than the last that were known were gained: by a door that the kernel means for it, or by none.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use monitor_common::capability::{CapSets, Door};
use monitor_common::wire::{ExecRecord, GainRecord, gain_flag, kind};

use crate::canary;
use crate::kernel::creds::{Creds, is_child_ns, own_cred};
use crate::kernel::{Current, Ptr, Running, cgroup_of, describe_child, namespaces_of, nsproxy_of};
use crate::maps::{add, kind_slot, reserve, submit};
use crate::settings::{offset, setting};

/// Bound of [`TASKS`].
const TASK_ENTRIES: u32 = 65_536;

/// By thread. Full, it gives up whoever was not looked at for longest.
#[map]
static TASKS: LruHashMap<u32, Known> = LruHashMap::with_max_entries(TASK_ENTRIES, 0);

/// Tasks of which nothing was known when it was asked for: they ran before, or were given up. They pass for tasks at
/// home.
#[map]
static TASKS_UNKNOWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What is known of a task.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    /// When the thread started: its number may be another's later.
    start_ns: u64,
    /// Its home; 0 if no hierarchy is known.
    home: u64,
    /// `task_struct.self_exec_id`: another one says that an exec was not seen.
    exec_id: u64,
    caps: CapSets,
    user_ns: u32,
    uid: u32,
}

impl Known {
    #[inline(always)]
    fn of(tid: u32, start_ns: u64) -> Option<&'static mut Known> {
        // SAFETY: the map's memory outlives the program. An entry is written by its own thread, and by its maker
        // before it runs.
        let known = TASKS.get_ptr_mut(tid).map(|known| unsafe { &mut *known })?;
        if known.start_ns == start_ns { Some(known) } else { None }
    }

    #[inline(always)]
    fn note(task: Ptr, tid: u32, home: u64, creds: &Creds) {
        let known = Known {
            start_ns: task.get(offset!(task_start)),
            home,
            exec_id: task.get(offset!(task_exec_id)),
            caps: creds.caps,
            user_ns: creds.user_ns,
            uid: creds.uid,
        };
        // A table that gives up the oldest has always room but for moments of contention; then the task is unknown.
        let _ = TASKS.insert(tid, known, 0);
    }
}

/// Learns of a task that was not known. It passes for one that is at home where it is.
#[inline(always)]
fn learn(task: Ptr, tid: u32, cgroup_id: u64) {
    if let Some(unknown) = TASKS_UNKNOWN.get_ptr_mut(0) {
        add(unknown);
    }
    Known::note(task, tid, cgroup_id, &Creds::of(own_cred(task)));
}

/// True if the running thread is a visitor in its cgroup.
#[inline(always)]
pub fn visits(running: &Running) -> bool {
    match Known::of(running.tid, running.start_ns) {
        Some(known) => known.home != running.cgroup_id,
        None => {
            learn(running.task, running.tid, running.cgroup_id);
            false
        }
    }
}

/// Wire number of no door.
pub const NO_DOOR: u16 = 0;

/// Holds the running thread's credentials against the last known; they may have grown by `door`.
#[inline(always)]
pub fn settle(current: &Current, cred: Ptr, door: u16) {
    let task = current.task;
    let Some(known) = Known::of(current.tid, task.get(offset!(task_start))) else {
        return learn(task, current.tid, cgroup_of(task));
    };
    let creds = Creds::of(cred);
    let exec_seen = known.exec_id == task.get::<u64>(offset!(task_exec_id));
    if exec_seen {
        tell(task, known, &creds, cred, door, 0);
    }
    known.caps = creds.caps;
    known.user_ns = creds.user_ns;
    known.uid = creds.uid;
    known.exec_id = task.get(offset!(task_exec_id));
}

/// A thread has made another, which has not run yet.
#[inline(always)]
pub fn forked(current: &Current, child: Ptr) {
    let task = current.task;
    if Known::of(current.tid, task.get(offset!(task_start))).is_none() {
        learn(task, current.tid, cgroup_of(task));
    }
    let Some(known) = Known::of(current.tid, task.get(offset!(task_start))) else { return };
    let cred = own_cred(child);
    let creds = Creds::of(cred);
    let door = if creds.user_ns == known.user_ns { NO_DOOR } else { Door::Clone as u16 };
    tell(child, known, &creds, cred, door, gain_flag::CHILD);
    Known::note(child, child.get(offset!(task_pid)), known.home, &creds);
}

/// The running thread, whose number was `old_tid`, has begun another program.
#[inline(always)]
pub fn execed(current: &Current, old_tid: u32, record: &ExecRecord) {
    let task = current.task;
    let cred = own_cred(task);
    let creds = Creds { caps: record.caps, user_ns: record.ns.inum[2], uid: Creds::of(cred).uid };
    let mut home = record.task.cgroup_id;
    // If it was not the leader, it has taken the leader's number, and its start.
    let known = if old_tid == current.tid {
        Known::of(old_tid, task.get(offset!(task_start)))
    } else {
        // SAFETY: as in `Known::of`.
        TASKS.get_ptr_mut(old_tid).map(|known| unsafe { &mut *known })
    };
    if let Some(known) = known {
        if known.exec_id.wrapping_add(1) == task.get::<u64>(offset!(task_exec_id)) {
            tell(task, known, &creds, cred, Door::Exec as u16, 0);
        }
        if record.exe_mnt_ns == 0 || record.exe_mnt_ns != record.ns.inum[0] {
            home = known.home;
        }
    }
    if old_tid != current.tid {
        let _ = TASKS.remove(old_tid);
    }
    Known::note(task, current.tid, home, &creds);
}

/// The running thread ends. What a visitor asks for on its way out is still a visitor's; its entry is left to others.
#[inline(always)]
pub fn exited(current: &Current, cgroup_id: u64) {
    if let Some(known) = Known::of(current.tid, current.task.get(offset!(task_start)))
        && known.home == cgroup_id
    {
        let _ = TASKS.remove(current.tid);
    }
}

/// Sends a record if a task has more than was known: `cred` is where `creds` were read.
#[inline(always)]
fn tell(task: Ptr, known: &Known, creds: &Creds, cred: Ptr, door: u16, flags: u16) {
    let moved = creds.user_ns != known.user_ns;
    let grown = creds.caps.gained(known.caps);
    if !moved && grown.is_empty() {
        return;
    }
    let seen = explains(door, &grown, creds, known, moved);
    // Without a watch at every door, growth that none explains is nobody's proof.
    if (!seen && setting!(doors_watched) == 0) || canary::is_current() {
        return;
    }
    let kind = if seen { kind::GAINED } else { kind::GAINED_UNSEEN };
    let cgroup_id = cgroup_of(task);
    let Some(mut entry) = reserve::<GainRecord>(kind_slot(kind), kind, cgroup_id) else { return };
    let record = entry.as_mut_ptr();
    let user_ns = cred.follow(offset!(cred_user_ns));
    let mut flags = flags;
    if is_child_ns(user_ns) {
        flags |= gain_flag::CHILD_NS;
    }
    if known.home != cgroup_id {
        flags |= gain_flag::VISITOR;
    }
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        describe_child(task, &raw mut (*record).task);
        (*record).task.euid = cred.get(offset!(cred_euid));
        (*record).task.egid = cred.get(offset!(cred_egid));
        namespaces_of(nsproxy_of(task), user_ns, true, &raw mut (*record).ns);
        (*record).before = known.caps;
        (*record).after = creds.caps;
        (*record).user_ns_before = known.user_ns;
        (*record).door = door;
        (*record).flags = flags;
    }
    submit(entry);
}

/// True if credentials may have grown so by this door, as the kernel's own code has it (security/commoncap.c,
/// kernel/user_namespace.c). What is effective may grow within what is permitted, also where no door was seen: the
/// task could have done it by capset.
#[inline(always)]
fn explains(door: u16, grown: &CapSets, creds: &Creds, known: &Known, moved: bool) -> bool {
    const EXEC: u16 = Door::Exec as u16;
    const CAPSET: u16 = Door::Capset as u16;
    const PRCTL: u16 = Door::Prctl as u16;
    const UNSHARE: u16 = Door::Unshare as u16;
    const SETNS: u16 = Door::Setns as u16;
    const CLONE: u16 = Door::Clone as u16;
    if moved {
        return door == UNSHARE || door == SETNS || door == CLONE;
    }
    if grown.bounding != 0 {
        return false;
    }
    match door {
        // The real user stays, and so does what is inheritable.
        EXEC => grown.inheritable | grown.ambient == 0 && creds.uid == known.uid,
        _ => {
            grown.permitted == 0
                && grown.effective & !creds.caps.permitted == 0
                && (grown.inheritable == 0 || door == CAPSET)
                && (grown.ambient == 0 || door == PRCTL)
        }
    }
}
