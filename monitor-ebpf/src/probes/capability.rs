//! Capability checks: each is counted, and during a watched call it shows who refused, and what was before.
//!
//! The first check of a call runs before the call has changed anything, so it also shows the state before.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, TracePointContext};
use monitor_common::call::{Abi, X32_SYSCALL_BIT};
use monitor_common::caps::Cap;

use crate::call::is_watched;
use crate::checks::Check;
use crate::kernel::creds::own_cred;
use crate::kernel::{Current, Ptr, Running, caps_of, namespaces};
use crate::maps::{Mark, mark};
use crate::settings::{offset, setting};
use crate::tasks;

/// Since 6.14.
/// match-proto: cap_capable(const struct cred *cred, struct user_namespace *target_ns,
///              const struct user_namespace *capable_ns, int cap, int ret)
#[btf_tracepoint(function = "cap_capable")]
pub fn cap_capable_tp(ctx: BtfTracePointContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    let (cred, target) = (Ptr(ctx.arg(0)), Ptr(ctx.arg(1)));
    checked(&Check { cap: ctx.arg(3), denied: ret != 0, cred, target, opts: None });
    0
}

/// Fields of `capability:cap_capable` in its record (`events/capability/cap_capable/format` in tracefs).
const CRED: usize = 8;
const TARGET_NS: usize = 16;
const CAP: usize = 32;
const RET: usize = 36;

/// From 7.0 on, in both modes. Programs run preemptible there (`__bpf_trace_run`, `__bpf_prog_enter_recur`), those on
/// perf's tracepoints do not.
#[tracepoint]
pub fn cap_capable_perf(ctx: TracePointContext) -> u32 {
    // SAFETY: members of the program's context, which the verifier lets it read.
    let (cred, target, cap, ret) = unsafe {
        let at = |offset: usize| ctx.as_ptr().cast::<u8>().add(offset);
        (
            *at(CRED).cast::<u64>(),
            *at(TARGET_NS).cast::<u64>(),
            *at(CAP).cast::<u32>(),
            *at(RET).cast::<i32>(),
        )
    };
    let first = checked(&Check { cap, denied: ret != 0, cred: Ptr(cred), target: Ptr(target), opts: None });
    // That hook is there in the trampoline mode alone.
    if setting!(seccomp_hooked) != 0 {
        settle(first);
    }
    0
}

/// Before 7.0 where the machine allows trampolines, and before 6.14: it is told how the kernel asks.
/// match-proto: int cap_capable(const struct cred *cred, struct user_namespace *targ_ns, int cap, unsigned int opts)
#[fexit]
pub fn cap_capable(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    let (cred, target) = (Ptr(ctx.arg(0)), Ptr(ctx.arg(1)));
    let first = checked(&Check { cap: ctx.arg(2), denied: ret != 0, cred, target, opts: Some(ctx.arg(3)) });
    settle(first);
    0
}

/// In the trampoline mode no one program sees the end of every watched call, and one for each would make old verifiers
/// walk the comparison forty times. But nearly every watched call is asked for a capability before it changes anything.
#[inline(always)]
fn settle(first: bool) {
    if first {
        let current = Current::get();
        tasks::settle(&current, own_cred(current.task), tasks::NO_DOOR);
    }
}

/// Before 6.14: the compiler may have drawn the check that capset makes into capset, where no hook sees it
/// (`cap_inh_is_capped`, which every capset asks). Its answer stands in the credentials.
/// match-proto: int security_capset(struct cred *new, const struct cred *old, const kernel_cap_t *effective, ...)
#[fexit]
pub fn security_capset(_ctx: FExitContext) -> i32 {
    // The new credentials are committed later: the task still has the old ones.
    let running = Running::get();
    let setpcap = Cap::Setpcap.mask();
    if let Some((mark, _)) = note(running.task, running.tid, running.orig_ax, running.abi == Abi::I386)
        && (mark.granted | mark.denied) & setpcap == 0
    {
        let (cap, cred) = (Cap::Setpcap as u32, running.cred);
        let denied = caps_of(running.task) & setpcap == 0;
        let target = cred.follow(offset!(cred_user_ns));
        Check { cap, denied, cred, target, opts: Some(0) }.count(&running);
    }
    0
}

/// True for the first check in a watched call.
#[inline(always)]
fn checked(check: &Check) -> bool {
    let running = Running::get();
    check.count(&running);
    if let Some((mark, first)) = note(running.task, running.tid, running.orig_ax, running.abi == Abi::I386) {
        let bit = 1u64 << (check.cap & 63);
        if check.denied {
            mark.denied |= bit;
        } else {
            mark.granted |= bit;
        }
        return first;
    }
    false
}

/// The mark of the call that the thread is in, with the state before the call, and whether that was noted just now;
/// `None` if the call is not watched.
#[inline(always)]
fn note(task: Ptr, tid: u32, number: u64, is_compat: bool) -> Option<(&'static mut Mark, bool)> {
    if !is_watched(number, is_compat) {
        return None;
    }
    let mark = Mark::of_call(tid, number as u32 & !X32_SYSCALL_BIT)?;
    let first = mark.filled & mark::BEFORE == 0;
    if first {
        mark.filled |= mark::BEFORE;
        mark.caps_before = caps_of(task);
        namespaces(task, true, &raw mut mark.ns_before);
    }
    Some((mark, first))
}
