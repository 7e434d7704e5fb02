//! Who is making a call, for programs that every call of the machine passes: as few helpers as the kernel allows.

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_task_btf};
use monitor_common::control::MISSING;

use super::{Ptr, TS_COMPAT, cgroup_of};
use crate::settings::{offset, setting};

/// The running thread, with its status read.
#[derive(Clone, Copy)]
pub struct Caller {
    /// Its `task_struct`.
    pub task: Ptr,
    /// True if the running call came through the 32-bit table.
    pub is_compat: bool,
}

impl Caller {
    /// Asks the kernel.
    #[inline(always)]
    pub fn get() -> Self {
        if setting!(has_task_pt_regs) != 0 {
            // SAFETY: a helper of 5.11 without arguments, called only where one of 5.15 exists: the verifier removes
            // this branch elsewhere. It knows the type of what it returns and lets it be read directly; a read that
            // fails gives zero.
            let (task, status) = unsafe {
                let task = bpf_get_current_task_btf();
                (task, *task.cast::<u8>().add(offset!(task_status) as usize).cast::<u32>())
            };
            return Caller { task: Ptr(task as u64), is_compat: status & TS_COMPAT != 0 };
        }
        // SAFETY: a helper without arguments.
        let task = Ptr(unsafe { bpf_get_current_task() });
        Caller { task, is_compat: task.get::<u32>(offset!(task_status)) & TS_COMPAT != 0 }
    }

    /// As [`cgroup_of`]; in version 2 with one helper instead of four reads.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        if setting!(hierarchy) == 0 && setting!(hierarchy_subsys) == MISSING {
            // SAFETY: a helper without arguments.
            return unsafe { bpf_get_current_cgroup_id() };
        }
        cgroup_of(self.task)
    }

    /// See [`super::Current::has_seccomp_filter`].
    #[inline(always)]
    pub fn has_seccomp_filter(self) -> bool {
        super::has_seccomp_filter(self.task)
    }
}
