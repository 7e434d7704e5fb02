//! What was last known of each task: where it is at home, and its credentials.
//!
//! A task is at home in the cgroup in which it, or the task that it descends from, last began a program from its own
//! mount namespace. In another cgroup it is a visitor: a runtime that builds a container or enters it. Whoever began in a
//! container's mount namespace is at home in all of the tree below, so that no container can make a visitor of itself
//! by a cgroup of its own. Credentials that are larger than the last that were known were gained: by a door that the
//! kernel means for it, or by none.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use monitor_common::capability::Door;
use monitor_common::caps::Cap;
pub use monitor_common::gains::NO_DOOR;
use monitor_common::gains::{Moved, explains};
use monitor_common::wire::{ExecRecord, GainRecord, gain_flag, kind};

use crate::canary;
use crate::kernel::creds::{Creds, is_child_ns, own_cred};
use crate::kernel::{
    Current, Ptr, Running, cgroup_of, cgroup_ptr, describe_child, lies_within, mount_ns_of, namespaces_of,
    nsproxy_of,
};
use crate::maps::{add, kind_slot, reserve, submit};
use crate::settings::{offset, setting};

/// Bound of [`TASKS`].
const TASK_ENTRIES: u32 = 65_536;

/// By thread. Full, it gives up whoever was not looked at for longest.
#[map]
static TASKS: LruHashMap<u32, Known> = LruHashMap::with_max_entries(TASK_ENTRIES, 0);

/// Tasks of which nothing was known when it was asked for: they ran before, were given up, or an exec of theirs was not
/// seen. They pass for tasks at home.
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
    /// Highest directory in which it, or whoever it descends from, was at home in a container's mount namespace.
    top: u64,
    /// `task_struct.self_exec_id`: another one says that an exec was not seen.
    exec_id: u64,
    creds: Creds,
    /// 1 if its home was set in another mount namespace than the host's.
    inside: u32,
    /// One more than the number of the call in which its last check was a denied one for CAP_SYS_RESOURCE; else 0.
    denied_in: u32,
    /// Mount namespace in which its program began; 0 if that is not known.
    exec_mnt_ns: u32,
    /// Zero.
    pad: u32,
}

/// Who was asked for a capability.
#[derive(Clone, Copy)]
pub struct Asked {
    /// A visitor in its cgroup.
    pub visits: bool,
    /// The check before this one was a denied one for CAP_SYS_RESOURCE in the same call.
    pub over_limit: bool,
}

impl Known {
    #[inline(always)]
    fn of(tid: u32, start_ns: u64) -> Option<&'static mut Known> {
        // SAFETY: the map's memory outlives the program. An entry is written by its own thread, and by its maker
        // before it runs.
        let known = TASKS.get_ptr_mut(tid).map(|known| unsafe { &mut *known })?;
        if known.start_ns == start_ns { Some(known) } else { None }
    }

    /// What is known of a thread, unless an exec of it was not seen.
    #[inline(always)]
    fn up_to_date(task: Ptr, tid: u32) -> Option<&'static mut Known> {
        let known = Self::of(tid, task.get(offset!(task_start)))?;
        if known.exec_id == task.get::<u64>(offset!(task_exec_id)) { Some(known) } else { None }
    }

    /// A task that is at home in this cgroup, and whose program began in this mount namespace.
    #[inline(always)]
    fn at_home(task: Ptr, cgroup_id: u64, mount_ns: u32, creds: &Creds) -> Self {
        let host = setting!(host_mnt_ns);
        Known {
            start_ns: task.get(offset!(task_start)),
            home: cgroup_id,
            top: cgroup_id,
            exec_id: task.get(offset!(task_exec_id)),
            creds: *creds,
            inside: (host != 0 && mount_ns != 0 && mount_ns != host) as u32,
            denied_in: 0,
            exec_mnt_ns: mount_ns,
            pad: 0,
        }
    }

    #[inline(always)]
    fn note(&self, tid: u32) {
        // A table that gives up the oldest has always room but for moments of contention; then the task is unknown.
        let _ = TASKS.insert(tid, self, 0);
    }

    /// True if a cgroup in which a task like this is now is not its home.
    #[inline(always)]
    fn is_away(&self, task: Ptr, cgroup_id: u64) -> bool {
        self.home != cgroup_id && !self.owns(task)
    }

    /// The same of the running thread, whose it is. Who is at home in a tree is spared the way up the next time.
    #[inline(always)]
    fn visits(&mut self, running: &Running) -> bool {
        if self.home == running.cgroup_id {
            return false;
        }
        if !self.owns(running.task) {
            return true;
        }
        self.home = running.cgroup_id;
        false
    }

    /// True if a task like this began in a container and is still in that container's tree of cgroups.
    #[inline(always)]
    fn owns(&self, task: Ptr) -> bool {
        self.inside != 0 && lies_within(cgroup_ptr(task), self.top)
    }
}

/// Learns of a task that was not known. It passes for one that is at home where it is.
#[inline(always)]
fn learn(task: Ptr, tid: u32, cgroup_id: u64) {
    if let Some(unknown) = TASKS_UNKNOWN.get_ptr_mut(0) {
        add(unknown);
    }
    Known::at_home(task, cgroup_id, mount_ns_of(task), &Creds::of(own_cred(task))).note(tid);
}

/// What is known of the running thread; `None` if that was nothing, or an exec of it was not seen: then it was learned
/// anew just now. Inside an exec the kernel has counted it, and its end is still to come.
#[inline(always)]
fn known_of(running: &Running) -> Option<&'static mut Known> {
    match Known::of(running.tid, running.start_ns) {
        Some(known) if known.exec_id == running.exec_id || running.is_in_exec() => Some(known),
        _ => {
            learn(running.task, running.tid, running.cgroup_id);
            None
        }
    }
}

/// True if the running thread is a visitor in its cgroup.
#[inline(always)]
pub fn visits(running: &Running) -> bool {
    let Some(known) = known_of(running) else { return false };
    known.visits(running)
}

/// The running thread is asked for a capability.
#[inline(always)]
pub fn asked(running: &Running, cap: u32, denied: bool) -> Asked {
    let Some(known) = known_of(running) else { return Asked { visits: false, over_limit: false } };
    let call = running.nr.wrapping_add(1);
    let over_limit = known.denied_in != 0 && known.denied_in == call;
    let denied_in = if denied && cap == Cap::SysResource as u32 { call } else { 0 };
    if known.denied_in != denied_in {
        known.denied_in = denied_in;
    }
    Asked { visits: known.visits(running), over_limit }
}

/// The running thread gets these credentials. Of a canary it is told in any case, as a test of the hook.
#[inline(always)]
pub fn committed(current: &Current, cred: Ptr, door: u16) {
    if canary::is_current() {
        let creds = Creds::of(cred);
        send(current.task, cgroup_of(current.task), &creds, &creds, cred, kind::GAINED, door, 0);
        return;
    }
    settle(current, cred, door);
}

/// Holds the running thread's credentials against the last known; they may have grown by `door`.
#[inline(always)]
pub fn settle(current: &Current, cred: Ptr, door: u16) {
    let task = current.task;
    let Some(known) = Known::up_to_date(task, current.tid) else {
        return learn(task, current.tid, cgroup_of(task));
    };
    let creds = Creds::of(cred);
    tell(task, known, &creds, cred, door, 0);
    known.creds = creds;
}

/// A thread has made another, which has not run yet.
#[inline(always)]
pub fn forked(current: &Current, child: Ptr) {
    let task = current.task;
    let known = match Known::up_to_date(task, current.tid) {
        Some(known) => known,
        None => {
            learn(task, current.tid, cgroup_of(task));
            let Some(known) = Known::up_to_date(task, current.tid) else { return };
            known
        }
    };
    let cred = own_cred(child);
    let creds = Creds::of(cred);
    // A child has its maker's user namespace but by a clone that asks for a new one.
    let parted = cred.follow(offset!(cred_user_ns)).0 != own_cred(task).follow(offset!(cred_user_ns)).0;
    let door = if parted { Door::Clone as u16 } else { NO_DOOR };
    tell(child, known, &creds, cred, door, gain_flag::CHILD);
    let of_child = Known {
        start_ns: child.get(offset!(task_start)),
        exec_id: child.get(offset!(task_exec_id)),
        creds,
        denied_in: 0,
        ..*known
    };
    of_child.note(child.get(offset!(task_pid)));
}

/// The running thread, whose number was `old_tid`, has begun another program, with these credentials.
#[inline(always)]
pub fn execed(current: &Current, old_tid: u32, record: &ExecRecord, creds: &Creds) {
    let task = current.task;
    let own_ns = record.ns.inum[0];
    let mut next = Known::at_home(task, record.task.cgroup_id, own_ns, creds);
    // If it was not the leader, it has taken the leader's number, and its start.
    let known = if old_tid == current.tid {
        Known::of(old_tid, next.start_ns)
    } else {
        // SAFETY: as in `Known::of`.
        TASKS.get_ptr_mut(old_tid).map(|known| unsafe { &mut *known })
    };
    if let Some(known) = known
        && known.exec_id.wrapping_add(1) == next.exec_id
    {
        tell(task, known, creds, own_cred(task), Door::Exec as u16, 0);
        // In another mount namespace than its maker's the file does not matter: an image may point back at the runtime by
        // /proc/self/exe. Before, a runtime begins only sealed copies of itself, which lie in no mount namespace.
        let moved = next.inside != 0 && known.exec_mnt_ns != 0 && known.exec_mnt_ns != own_ns;
        if !moved && (record.exe_mnt_ns == 0 || record.exe_mnt_ns != own_ns) {
            (next.home, next.top, next.inside) = (known.home, known.top, known.inside);
        } else if known.owns(task) {
            (next.top, next.inside) = (known.top, 1);
        }
    }
    if old_tid != current.tid {
        let _ = TASKS.remove(old_tid);
    }
    next.note(current.tid);
}

/// Nobody will ask for this thread any more: it has ended, and was waited for.
#[inline(always)]
pub fn freed(task: Ptr) {
    let tid = task.get(offset!(task_pid));
    if Known::of(tid, task.get(offset!(task_start))).is_some() {
        let _ = TASKS.remove(tid);
    }
}

/// Tells if a task has more than was known: `cred` is where `creds` were read.
#[inline(always)]
fn tell(task: Ptr, known: &Known, creds: &Creds, cred: Ptr, door: u16, flags: u16) {
    let before = &known.creds;
    if creds.user_ns == before.user_ns && creds.caps.gained(before.caps).is_empty() {
        return;
    }
    let parent = cred.follow(offset!(cred_user_ns)).follow(offset!(user_ns_parent));
    let parent = parent.get(offset!(user_ns_inum));
    let moved = Moved::between(before.user_ns, before.level, creds.user_ns, creds.level, parent);
    let explained = explains(door, &before.caps, &creds.caps, creds.uid == before.uid, moved);
    // Without a watch at every door, growth that none explains is nobody's proof.
    if (!explained && setting!(doors_watched) == 0) || canary::is_current() {
        return;
    }
    let kind = if explained { kind::GAINED } else { kind::GAINED_UNSEEN };
    let cgroup_id = cgroup_of(task);
    let flags = if known.is_away(task, cgroup_id) { flags | gain_flag::VISITOR } else { flags };
    send(task, cgroup_id, before, creds, cred, kind, door, flags);
}

/// Sends a record.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "it is drawn into its callers, and each is a part of the record"
)]
fn send(
    task: Ptr,
    cgroup_id: u64,
    before: &Creds,
    after: &Creds,
    cred: Ptr,
    kind: u16,
    door: u16,
    flags: u16,
) {
    let Some(mut entry) = reserve::<GainRecord>(kind_slot(kind), kind, cgroup_id) else { return };
    let record = entry.as_mut_ptr();
    let user_ns = cred.follow(offset!(cred_user_ns));
    let child = if is_child_ns(user_ns) { gain_flag::CHILD_NS } else { 0 };
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        describe_child(task, &raw mut (*record).task);
        (*record).task.euid = cred.get(offset!(cred_euid));
        (*record).task.egid = cred.get(offset!(cred_egid));
        namespaces_of(nsproxy_of(task), user_ns, true, &raw mut (*record).ns);
        (*record).before = before.caps;
        (*record).after = after.caps;
        (*record).user_ns_before = before.user_ns;
        (*record).door = door;
        (*record).flags = flags | child;
    }
    submit(entry);
}
