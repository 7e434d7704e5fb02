//! Hooks where a watched call ends.
//!
//! `tracepoint` mode: `tp_btf/sys_exit`, `(struct pt_regs *regs, long ret)`, called for every call of every
//! task, refused ones included: seccomp skips the call, not its exit.
//! `trampoline` mode: `fexit` on each call's wrapper, `(const struct pt_regs *regs)` and the return value,
//! for calls that ran, and `fexit/__seccomp_filter` for those that a filter refused.

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};

use crate::call::{Returned, may_be_watched};
use crate::kernel::{Current, Ptr, Regs};
use crate::settings::setting;

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    returned(ctx.arg::<*const Regs>(0), ctx.arg(1));
    0
}

#[inline(always)]
fn returned(regs: *const Regs, ret: i64) {
    // SAFETY: the hook's first argument, typed by BTF: the verifier allows direct reads, which cannot fault.
    let regs = unsafe { &*regs };
    if !may_be_watched(regs.orig_ax) {
        return;
    }
    let current = Current::get();
    if let Some(call) = Returned::new(&current, regs, ret) {
        call.report(&current);
    }
}

/// match-proto: int __seccomp_filter(int this_syscall, [const struct seccomp_data *sd,] const bool recheck_after_trace)
///
/// Not zero: the call is skipped and its result is what the filter said. The second argument left with 6.18
/// (fact: BTF), so the daemon tells where the return value stands.
#[fexit]
pub fn seccomp_filter(ctx: FExitContext) -> i32 {
    let refused: i32 = if setting!(seccomp_ret_arg) == 3 { ctx.arg(3) } else { ctx.arg(2) };
    if refused == 0 {
        return 0;
    }
    let current = Current::get();
    let address: Ptr = current.registers();
    let regs = Regs {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        bp: 0,
        bx: address.get(core::mem::offset_of!(Regs, bx) as u32),
        r11: 0,
        r10: address.get(core::mem::offset_of!(Regs, r10) as u32),
        r9: 0,
        r8: 0,
        ax: address.get(core::mem::offset_of!(Regs, ax) as u32),
        cx: address.get(core::mem::offset_of!(Regs, cx) as u32),
        dx: address.get(core::mem::offset_of!(Regs, dx) as u32),
        si: address.get(core::mem::offset_of!(Regs, si) as u32),
        di: address.get(core::mem::offset_of!(Regs, di) as u32),
        orig_ax: address.get(core::mem::offset_of!(Regs, orig_ax) as u32),
    };
    if !may_be_watched(regs.orig_ax) {
        return 0;
    }
    if let Some(mut call) = Returned::new(&current, &regs, regs.ax as i64) {
        call.seccomp_refused = true;
        call.report(&current);
    }
    0
}

/// Makes one `fexit` program per wrapper; the program's name is `on_` and the function's without its leading underscores.
macro_rules! on_return {
    ($($program:ident),* $(,)?) => {
        $(
            #[fexit]
            pub fn $program(ctx: FExitContext) -> i32 {
                returned(ctx.arg::<*const Regs>(0), ctx.arg(1));
                0
            }
        )*
    };
}

on_return! {
    on_x64_sys_capset,
    on_x64_sys_setns,
    on_x64_sys_unshare,
    on_x64_sys_clone,
    on_x64_sys_clone3,
    on_x64_sys_settimeofday,
    on_x64_sys_clock_settime,
    on_x64_sys_adjtimex,
    on_x64_sys_clock_adjtime,
    on_x64_sys_syslog,
    on_x64_sys_iopl,
    on_x64_sys_ioperm,
    on_x64_sys_open,
    on_x64_sys_creat,
    on_x64_sys_openat,
    on_x64_sys_openat2,
    on_x64_sys_open_by_handle_at,
    on_ia32_sys_capset,
    on_ia32_sys_setns,
    on_ia32_sys_unshare,
    on_ia32_compat_sys_ia32_clone,
    on_ia32_sys_clone3,
    on_ia32_compat_sys_settimeofday,
    on_ia32_sys_stime32,
    on_ia32_sys_clock_settime32,
    on_ia32_sys_clock_settime,
    on_ia32_sys_adjtimex_time32,
    on_ia32_sys_clock_adjtime32,
    on_ia32_sys_clock_adjtime,
    on_ia32_sys_syslog,
    on_ia32_sys_iopl,
    on_ia32_sys_ioperm,
    on_ia32_compat_sys_open,
    on_ia32_sys_creat,
    on_ia32_compat_sys_openat,
    on_ia32_sys_openat2,
    on_ia32_compat_sys_open_by_handle_at,
}
