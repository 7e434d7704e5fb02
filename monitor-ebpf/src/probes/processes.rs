//! Processes come, change and go: what keeps the daemon's process table true.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use monitor_common::wire::{ExitRecord, ForkRecord, kind};

use crate::call::{child_made, ended_inside};
use crate::canary;
use crate::kernel::creds::{Creds, own_cred};
use crate::kernel::exec::program;
use crate::kernel::{Current, Ptr, describe_child, namespaces, start_of};
use crate::maps::{EXEC_SCRATCH, kind_slot, reserve, send_exec, submit};
use crate::settings::offset;
use crate::tasks;

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(record) = EXEC_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's scratch record; a tracepoint's program is not re-entered on its CPU.
    let record = unsafe { &mut *record };
    let current = Current::get();
    current.describe(&raw mut record.task);
    namespaces(current.task, true, &raw mut record.ns);
    let creds = Creds::of(own_cred(current.task));
    record.caps = creds.caps;
    let filled = program(current.task, record);
    send_exec(record, filled);
    tasks::execed(&current, ctx.arg(1), record, &creds);
    0
}

/// Runs in the caller, when the child is complete and has not run yet.
/// match-proto: sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Ptr(ctx.arg(1));
    let current = Current::get();
    child_made(&current, child);
    let tgid: u32 = child.get(offset!(task_tgid));
    if tgid == child.get::<u32>(offset!(task_pid)) {
        if canary::is_current() {
            canary::adopt(child);
        }
        tell_fork(&current, child);
    }
    // What the child has gained follows the record that tells who it is.
    tasks::forked(&current, child);
    0
}

#[inline(always)]
fn tell_fork(current: &Current, child: Ptr) {
    let slot = kind_slot(kind::FORK);
    let Some(mut entry) = reserve::<ForkRecord>(slot, kind::FORK, crate::kernel::cgroup_of(child)) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        describe_child(child, &raw mut (*record).task);
        (*record).caller_tgid = current.tgid;
        (*record).pad = 0;
        (*record).caller_start_ns = start_of(current.task);
    }
    submit(entry);
}

/// match-proto: sched_process_exit(struct task_struct *p, ...)
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    let current = Current::get();
    ended_inside(&current);
    let cgroup_id = current.cgroup_id();
    // do_exit counts the thread down before it comes here. The leader may end long before the others do.
    if current.task.follow(offset!(task_signal)).get::<u32>(offset!(signal_live)) != 0 {
        return 0;
    }
    let slot = kind_slot(kind::EXIT);
    let Some(mut entry) = reserve::<ExitRecord>(slot, kind::EXIT, cgroup_id) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        (*record).tgid = current.tgid;
        (*record).pad = 0;
        (*record).start_ns = start_of(current.task);
    }
    submit(entry);
    0
}

/// A thread is gone for good: what it asked for on its way out was asked for before.
/// match-proto: sched_process_free(struct task_struct *p)
#[btf_tracepoint(function = "sched_process_free")]
pub fn process_freed(ctx: BtfTracePointContext) -> i32 {
    tasks::freed(Ptr(ctx.arg(0)));
    0
}
