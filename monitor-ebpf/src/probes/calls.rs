//! Hooks where a watched call ends.
//!
//! `tracepoint` mode: `tp_btf/sys_exit`, `(struct pt_regs *regs, long ret)`, called for every call of every
//! task, refused ones included: seccomp skips the call, not its exit. From 7.0 on the same by
//! `tracepoint/raw_syscalls/sys_exit`, because there a task that is preempted inside a `tp_btf` program would keep
//! the program from everybody else on that CPU.
//! `trampoline` mode: `fexit` on each call's wrapper, `(const struct pt_regs *regs)` and the return value,
//! for calls that ran, and `fexit/__seccomp_filter` for those that a filter refused.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, TracePointContext};
use monitor_common::call::Call;

use crate::call::{Matter, Returned, may_be_watched};
use crate::kernel::{Current, Registers, Regs, WrapperRegs};

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs = ctx.arg::<*const Regs>(0);
    if let Some(matter) = Matter::of(regs.get(offset_of!(Regs, orig_ax))) {
        let current = Current::with_cgroup();
        matter.settle(&current, regs, ctx.arg(1));
        returned(&current, None, regs, ctx.arg(1));
    }
    0
}

/// Fields of `raw_syscalls:sys_exit` in its record (`events/raw_syscalls/sys_exit/format` in tracefs).
const EXIT_ID: usize = 8;
const EXIT_RET: usize = 16;

/// From 7.0 on. Tracepoints run preemptible there (`__bpf_trace_run`), those of perf do not (`perf_trace_sys_exit`).
#[tracepoint]
pub fn sys_exit_perf(ctx: TracePointContext) -> u32 {
    // SAFETY: members of the program's context, which the verifier lets it read.
    let field = |offset: usize| unsafe { *ctx.as_ptr().cast::<u8>().add(offset).cast::<i64>() };
    if let Some(matter) = Matter::of(field(EXIT_ID).cast_unsigned()) {
        let current = Current::get();
        matter.settle(&current, current.registers(), field(EXIT_RET));
        returned(&current, None, current.registers(), field(EXIT_RET));
    }
    0
}

#[inline(always)]
fn returned(current: &Current, only: Option<Call>, regs: impl Registers, ret: i64) {
    if let Some(call) = Returned::new(current, only, regs, ret) {
        call.report(current);
    }
}

/// Up to 6.14; which one is loaded the daemon decides by BTF.
/// match-proto: int __seccomp_filter(int this_syscall, const struct seccomp_data *sd, const bool recheck_after_trace)
#[fexit]
pub fn seccomp_filter_3(ctx: FExitContext) -> i32 {
    filtered(ctx.arg(3));
    0
}

/// From 6.15 on.
/// match-proto: int __seccomp_filter(int this_syscall, const bool recheck_after_trace)
#[fexit]
pub fn seccomp_filter_2(ctx: FExitContext) -> i32 {
    filtered(ctx.arg(2));
    0
}

/// Not zero: the call is skipped, and its result is what the filter said.
#[inline(always)]
fn filtered(skipped: i32) {
    if skipped == 0 {
        return;
    }
    let current = Current::with_cgroup();
    let regs = current.registers();
    if !may_be_watched(Registers::get(regs, offset_of!(Regs, orig_ax))) {
        return;
    }
    // The filter's answer stands where the call's would.
    let ret = Registers::get(regs, offset_of!(Regs, ax)).cast_signed();
    if let Some(mut call) = Returned::new(&current, None, regs, ret) {
        call.seccomp_refused = true;
        call.report(&current);
    }
}

/// Makes one `fexit` program per wrapper; the program's name is `on_` and the function's without its leading underscores.
macro_rules! on_return {
    ($($program:ident: $call:ident,)*) => {
        $(
            #[fexit]
            pub fn $program(ctx: FExitContext) -> i32 {
                let current = Current::get();
                let regs = WrapperRegs::new(&current, || ctx.arg(0));
                returned(&current, Some(Call::$call), regs, ctx.arg(1));
                0
            }
        )*
    };
}

on_return! {
    on_x64_sys_capset: Capset,
    on_x64_sys_setns: Setns,
    on_x64_sys_unshare: Unshare,
    on_x64_sys_clone: Clone,
    on_x64_sys_clone3: Clone3,
    on_x64_sys_settimeofday: Settimeofday,
    on_x64_sys_clock_settime: ClockSettime,
    on_x64_sys_adjtimex: Adjtimex,
    on_x64_sys_clock_adjtime: ClockAdjtime,
    on_x64_sys_syslog: Syslog,
    on_x64_sys_iopl: Iopl,
    on_x64_sys_ioperm: Ioperm,
    on_x64_sys_open: Open,
    on_x64_sys_creat: Creat,
    on_x64_sys_openat: Openat,
    on_x64_sys_openat2: Openat2,
    on_x64_sys_open_by_handle_at: OpenByHandleAt,
    on_ia32_sys_capset: Capset,
    on_ia32_sys_setns: Setns,
    on_ia32_sys_unshare: Unshare,
    on_ia32_compat_sys_ia32_clone: Clone,
    on_ia32_sys_clone3: Clone3,
    on_ia32_compat_sys_settimeofday: Settimeofday,
    on_ia32_sys_stime32: Stime,
    on_ia32_sys_clock_settime32: ClockSettime,
    on_ia32_sys_clock_settime: ClockSettime,
    on_ia32_sys_adjtimex_time32: Adjtimex,
    on_ia32_sys_clock_adjtime32: ClockAdjtime,
    on_ia32_sys_clock_adjtime: ClockAdjtime,
    on_ia32_sys_syslog: Syslog,
    on_ia32_sys_iopl: Iopl,
    on_ia32_sys_ioperm: Ioperm,
    on_ia32_compat_sys_open: Open,
    on_ia32_sys_creat: Creat,
    on_ia32_compat_sys_openat: Openat,
    on_ia32_sys_openat2: Openat2,
    on_ia32_compat_sys_open_by_handle_at: OpenByHandleAt,
}
