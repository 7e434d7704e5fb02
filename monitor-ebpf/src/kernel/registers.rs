//! The saved registers where a hook is not handed them, or cannot read what it is handed.

use core::mem::offset_of;

use aya_ebpf::helpers::bpf_get_current_task;

use super::{Current, PT_REGS_SIZE, Ptr, Registers, Regs, THREAD_SIZE};
use crate::settings::{offset, setting};

/// What a call's wrapper was handed, where its BTF says what that points to; else found by ourselves.
///
/// Some compilation units of a kernel know `struct pt_regs` by name only, and the verifier then refuses to load the
/// argument (`btf_ctx_access`). The setting is a constant to it, so it walks one way only.
#[derive(Clone, Copy)]
pub struct WrapperRegs {
    handed: *const Regs,
    found: Ptr,
}

impl WrapperRegs {
    /// The registers of the call that ends; `handed` reads the hook's first argument.
    #[inline(always)]
    pub fn new(current: &Current, handed: impl FnOnce() -> *const Regs) -> Self {
        if setting!(wrappers_typed) != 0 {
            WrapperRegs { handed: handed(), found: Ptr(0) }
        } else {
            WrapperRegs { handed: core::ptr::null(), found: current.registers() }
        }
    }
}

impl Registers for WrapperRegs {
    #[inline(always)]
    fn get(self, offset: usize) -> u64 {
        if setting!(wrappers_typed) != 0 {
            Registers::get(self.handed, offset)
        } else {
            Registers::get(self.found, offset)
        }
    }
}

/// Number of the call that the running thread is in, 0 if unknown; for programs to which `bpf_task_pt_regs` is not offered.
///
/// The registers lie at the top of the kernel's stack, below 16 free bytes where the kernel knows FRED
/// (`TOP_OF_KERNEL_STACK_PADDING`, since 6.9). Selectors of user mode show which of the two places it is.
#[inline(always)]
pub fn call_number_from_stack() -> u32 {
    /// `__USER_CS`, `__USER32_CS` and `__USER_DS` (arch/x86/include/asm/segment.h).
    const USER_CS: u16 = 0x33;
    const USER32_CS: u16 = 0x23;
    const USER_DS: u16 = 0x2b;
    /// Offsets in `struct pt_regs` behind those of [`Regs`].
    const CS: u32 = 136;
    const SS: u32 = 160;
    // SAFETY: a helper without arguments.
    let task = Ptr(unsafe { bpf_get_current_task() });
    let top = Ptr(task.get::<u64>(offset!(task_stack)) + THREAD_SIZE - PT_REGS_SIZE);
    let saved = |at: Ptr| {
        let cs: u16 = at.get(CS);
        (cs == USER_CS || cs == USER32_CS) && at.get::<u16>(SS) == USER_DS
    };
    let with_fred = Ptr(top.0 - 16);
    let at = if saved(top) {
        top
    } else if saved(with_fred) {
        with_fred
    } else {
        return 0;
    };
    at.get(offset_of!(Regs, orig_ax) as u32)
}
