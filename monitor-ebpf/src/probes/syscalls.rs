//! Which system calls each cgroup makes: for seccomp profiles. Loaded only where the configuration asks for it, since
//! every call of the machine passes here.
//!
//! `tp_btf/sys_enter`, `(struct pt_regs *regs, long id)`: what got past seccomp. The end of a call would not do for
//! that: `exit` has none, `rt_sigreturn` has no number there any more, `execveat` ends as `execve`, and who sits in
//! `accept` may never come back. What a filter refused shows at the end alone, so `tp_btf/sys_exit` is looked at for
//! answers that filters give. From 7.0 on the same by perf's tracepoints; see `calls`.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use monitor_common::call::X32_SYSCALL_BIT;
use monitor_common::syscall_set::{NUMBERS, TABLE_32, TABLE_64, is_unusual, seen};

use crate::kernel::calling::Caller;
use crate::kernel::{Current, Registers, Regs, Running};
use crate::maps::syscall_sets;
use crate::tasks;

/// Answers that filters give.
const EPERM: i64 = -1;
const EACCES: i64 = -13;
const ENOSYS: i64 = -38;

/// Fields of `raw_syscalls:sys_enter` and `raw_syscalls:sys_exit` in their records (`format` in tracefs).
const ID: usize = 8;
const FIRST_ARGUMENT: usize = 16;
const RET: usize = 16;

/// match-proto: sys_enter(struct pt_regs *regs, long id)
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_entered(ctx: BtfTracePointContext) -> i32 {
    entered(ctx.arg(1), |is_compat| {
        let regs = ctx.arg::<*const Regs>(0);
        regs.get(if is_compat { offset_of!(Regs, bx) } else { offset_of!(Regs, di) })
    });
    0
}

/// From 7.0 on.
#[tracepoint]
pub fn syscall_entered_perf(ctx: TracePointContext) -> u32 {
    entered(field(&ctx, ID).cast_unsigned(), |_| field(&ctx, FIRST_ARGUMENT).cast_unsigned());
    0
}

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_refused(ctx: BtfTracePointContext) -> i32 {
    let ret: i64 = ctx.arg(1);
    if is_refusal(ret) {
        let regs = ctx.arg::<*const Regs>(0);
        refused(regs.get(offset_of!(Regs, orig_ax)), ret);
    }
    0
}

/// From 7.0 on.
#[tracepoint]
pub fn syscall_refused_perf(ctx: TracePointContext) -> u32 {
    let ret = field(&ctx, RET);
    if is_refusal(ret) {
        // The record has the number as the program sees it; the registers have it whole.
        refused(Current::get().call_number(), ret);
    }
    0
}

#[inline(always)]
fn field(ctx: &TracePointContext, offset: usize) -> i64 {
    // SAFETY: a member of the program's context, which the verifier lets it read.
    unsafe { *ctx.as_ptr().cast::<u8>().add(offset).cast::<i64>() }
}

#[inline(always)]
fn is_refusal(ret: i64) -> bool {
    ret == EPERM || ret == EACCES || ret == ENOSYS
}

/// A call that the kernel will run. `first` gives its first argument, told by which table it came.
#[inline(always)]
fn entered(id: u64, first: impl FnOnce(bool) -> u64) {
    let Some((caller, place, own)) = place(id) else { return };
    let unusual = is_unusual(place.0, place.1, || first(caller.is_compat));
    let own = if unusual { own | seen::UNUSUAL } else { own };
    let cgroup_id = caller.cgroup_id();
    let Some(calls) = syscall_sets::of_or_new(cgroup_id) else { return };
    let Some(bits) = calls.at(place) else { return };
    if *bits & own == own {
        return;
    }
    // Rare: the first call of its kind, or a runtime's.
    let add = if !tasks::visits(&Running::get()) {
        own
    } else if caller.has_seccomp_filter() {
        seen::RUNTIME | (own & seen::UNUSUAL)
    } else {
        return;
    };
    if *bits & add != add {
        *bits |= add;
        calls.note(now());
    }
}

/// A call that ended as if a filter had refused it.
#[inline(always)]
fn refused(id: u64, ret: i64) {
    let Some((caller, place, _)) = place(id) else { return };
    if !caller.has_seccomp_filter() {
        return;
    }
    let Some(calls) = syscall_sets::of_or_new(caller.cgroup_id()) else { return };
    let Some(bits) = calls.at(place) else { return };
    let add = if ret == ENOSYS { seen::REFUSED_ENOSYS } else { seen::REFUSED };
    // What got past a filter once was refused by the kernel itself.
    if *bits & (seen::OWN | seen::RUNTIME | add) == 0 && !tasks::visits(&Running::get()) {
        *bits |= add;
        calls.note(now());
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Who calls, the call's place in a set, and the bits that stand for it. `None` for what is no call: a tracer may put
/// -1 there, and a signal's return leaves it.
#[inline(always)]
fn place(id: u64) -> Option<(Caller, (usize, usize), u8)> {
    let x32 = id as u32 & X32_SYSCALL_BIT != 0;
    let nr = (id as u32 & !X32_SYSCALL_BIT) as usize;
    if nr >= NUMBERS {
        return None;
    }
    let caller = Caller::get();
    if caller.is_compat {
        return Some((caller, (TABLE_32, nr), seen::OWN));
    }
    Some((caller, (TABLE_64, nr), if x32 { seen::OWN | seen::X32 } else { seen::OWN }))
}
