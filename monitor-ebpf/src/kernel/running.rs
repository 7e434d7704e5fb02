//! What a capability check needs of the running thread, read as cheaply as the kernel allows: checks are many.
//!
//! From 5.15 on the verifier knows the type of the running task and of its registers, so members are loaded directly,
//! by the same offsets; before, each costs a call of a helper. The setting is a constant to the verifier, so it
//! walks one way only.

use core::mem::offset_of;

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use monitor_common::call::{Abi, X32_SYSCALL_BIT};
use monitor_common::capability::NO_CALL;
use monitor_common::control::MISSING;

use super::{PT_REGS_SIZE, Ptr, Registers, Regs, THREAD_SIZE, TS_COMPAT, cgroup_of};
use crate::settings::{offset, setting};

/// Offset of the code segment's selector in `struct pt_regs`. It is 0 in a thread that never was in user mode.
const CS: usize = 136;

/// The running thread.
#[derive(Clone, Copy)]
pub struct Running {
    /// Its `task_struct`.
    pub task: Ptr,
    /// Its number.
    pub tid: u32,
    /// When it started.
    pub start_ns: u64,
    /// How many programs it, and whoever it is a copy of, began (`self_exec_id`).
    pub exec_id: u64,
    /// Its own credentials (`real_cred`).
    pub cred: Ptr,
    /// Where it is; 0 if no hierarchy is known.
    pub cgroup_id: u64,
    /// Number of the call that it is in as the register has it, with the x32 bit.
    pub orig_ax: u64,
    /// That number without the bit; [`NO_CALL`] outside of a call.
    pub nr: u32,
    /// By which table.
    pub abi: Abi,
}

/// Memory of a type that the verifier knows.
#[derive(Clone, Copy)]
struct Typed(*const u8);

impl Typed {
    #[inline(always)]
    fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the verifier holds the read to the member that lies there, and one that faults gives zero.
        unsafe { self.0.add(offset).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Typed {
        Typed(self.get(offset as usize))
    }
}

impl Running {
    /// Asks the kernel.
    #[inline(always)]
    pub fn get() -> Self {
        if setting!(has_task_pt_regs) != 0 {
            // SAFETY: helpers of 5.15 and later, called only where they exist.
            let (task, regs) = unsafe {
                let task = bpf_get_current_task_btf();
                (Typed(task.cast()), Typed(bpf_task_pt_regs(task) as *const u8))
            };
            let at = |offset: u32| offset as usize;
            let call = call(regs.get(offset_of!(Regs, orig_ax)), task.get(at(offset!(task_status))), || {
                regs.get(CS)
            });
            Running::new(
                Ptr(task.0 as u64),
                task.get(at(offset!(task_pid))),
                task.get(at(offset!(task_start))),
                task.get(at(offset!(task_exec_id))),
                typed_cgroup(task),
                Ptr(task.get(at(offset!(task_real_cred)))),
                call,
            )
        } else {
            // SAFETY: a helper without arguments.
            let task = Ptr(unsafe { bpf_get_current_task() });
            let regs = Ptr(task.get::<u64>(offset!(task_stack)) + THREAD_SIZE - PT_REGS_SIZE);
            let call =
                call(Registers::get(regs, offset_of!(Regs, orig_ax)), task.get(offset!(task_status)), || {
                    regs.get(CS as u32)
                });
            let (cgroup_id, cred) = (cgroup_of(task), Ptr(task.get(offset!(task_real_cred))));
            Running::new(
                task,
                task.get(offset!(task_pid)),
                task.get(offset!(task_start)),
                task.get(offset!(task_exec_id)),
                cgroup_id,
                cred,
                call,
            )
        }
    }

    /// First argument of the call that it is in, as its register has it now.
    #[inline(always)]
    pub fn first_argument(&self) -> u64 {
        let register = if self.abi == Abi::I386 { offset_of!(Regs, bx) } else { offset_of!(Regs, di) };
        if setting!(has_task_pt_regs) != 0 {
            // SAFETY: as in `get`.
            unsafe { Typed(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8).get(register) }
        } else {
            let regs = Ptr(self.task.get::<u64>(offset!(task_stack)) + THREAD_SIZE - PT_REGS_SIZE);
            Registers::get(regs, register)
        }
    }

    /// True inside execve or execveat.
    #[inline(always)]
    pub fn is_in_exec(&self) -> bool {
        match self.abi {
            Abi::X86_64 => matches!(self.nr, 59 | 322),
            Abi::I386 => matches!(self.nr, 11 | 358),
            Abi::X32 => matches!(self.nr, 520 | 545),
        }
    }

    #[inline(always)]
    fn new(
        task: Ptr,
        tid: u32,
        start_ns: u64,
        exec_id: u64,
        cgroup_id: u64,
        cred: Ptr,
        (orig_ax, nr, abi): (u64, u32, Abi),
    ) -> Self {
        Running { task, tid, start_ns, exec_id, cred, cgroup_id, orig_ax, nr, abi }
    }
}

/// The call that a thread is in, from its saved registers.
#[inline(always)]
fn call(orig_ax: u64, status: u32, cs: impl FnOnce() -> u16) -> (u64, u32, Abi) {
    // Outside of a call the entry code puts -1 there, or an interrupt's number as a negative one.
    if (orig_ax as i64) < 0 || (orig_ax == 0 && cs() & 3 == 0) {
        return (u64::MAX, NO_CALL, Abi::X86_64);
    }
    let nr = orig_ax as u32;
    let abi = if status & TS_COMPAT != 0 {
        Abi::I386
    } else if nr & X32_SYSCALL_BIT != 0 {
        Abi::X32
    } else {
        Abi::X86_64
    };
    (orig_ax, nr & !X32_SYSCALL_BIT, abi)
}

/// See [`cgroup_of`].
#[inline(always)]
fn typed_cgroup(task: Typed) -> u64 {
    if setting!(hierarchy) == MISSING {
        return 0;
    }
    let set = task.follow(offset!(task_cgroups));
    let subsys = setting!(hierarchy_subsys);
    let cgroup = if subsys == MISSING {
        set.follow(offset!(css_set_dfl_cgrp))
    } else {
        set.follow(offset!(css_set_subsys) + subsys * size_of::<u64>() as u32).follow(offset!(css_cgroup))
    };
    cgroup.follow(offset!(cgroup_kn)).get(offset!(kernfs_node_id) as usize)
}
