//! Canaries: calls by which the daemon tests its own hooks. Their records pass the same code, but carry a mark
//! and have a slot of their own in the ledger, so that what is counted for real calls stays exact.
//!
//! Who is a canary is state of the kernel's: a thread enrols itself by running a program that only the daemon can
//! run, and what that program notes is the running task's own id and start time. No argument, name or number
//! that a caller chooses makes a canary of its call.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use monitor_common::control::{CanaryTask, CanaryTasks};
use monitor_common::wire::kind;

use crate::kernel::{Current, Ptr};
use crate::settings::offset;

/// Who is a canary. The daemon reads it, to notice that somebody else wrote to it.
#[map]
static CANARIES: Array<CanaryTasks> = Array::with_max_entries(1, 0);

/// Places in [`CanaryTasks`].
const THREAD: usize = 0;
const CHILD: usize = 1;

/// Makes the running thread a canary.
#[inline(always)]
pub fn enrol() {
    let current = Current::get();
    note(THREAD, current.task, current.tid);
}

/// Makes a process that a canary has just made one, too.
#[inline(always)]
pub fn adopt(child: Ptr) {
    note(CHILD, child, child.get(offset!(task_pid)));
}

#[inline(always)]
fn note(place: usize, task: Ptr, tid: u32) {
    if let Some(tasks) = CANARIES.get_ptr_mut(0) {
        // SAFETY: the map's memory outlives the program. Only the daemon's canary thread comes here.
        unsafe { (*tasks)[place] = CanaryTask { start_ns: task.get(offset!(task_start)), tid, pad: 0 } };
    }
}

/// True if the running thread is a canary.
#[inline(always)]
pub fn is_current() -> bool {
    let current = Current::get();
    let Some(tasks) = CANARIES.get(0) else { return false };
    let same = |task: &CanaryTask| {
        task.tid == current.tid && task.start_ns == current.task.get::<u64>(offset!(task_start))
    };
    same(&tasks[THREAD]) || same(&tasks[CHILD])
}

/// Slot of the ledger and kind of a record by the running thread.
#[inline(always)]
pub fn filed(slot: u32, record: u16) -> (u32, u16) {
    if is_current() {
        (crate::maps::kind_slot(kind::CANARY), record | kind::CANARY_BIT)
    } else {
        (slot, record)
    }
}
