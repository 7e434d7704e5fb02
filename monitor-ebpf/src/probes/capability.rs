//! Capability checks that the kernel makes during a watched call: who refused, and what was before.
//!
//! The first check of a call runs before the call has changed anything, so it also shows the state before.

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use monitor_common::call::X32_SYSCALL_BIT;

use crate::call::may_be_watched;
use crate::kernel::{Current, namespaces};
use crate::maps::{Mark, mark};

/// Since 6.14.
/// match-proto: cap_capable(const struct cred *cred, struct user_namespace *target_ns,
///              const struct user_namespace *capable_ns, int cap, int ret)
#[btf_tracepoint(function = "cap_capable")]
pub fn cap_capable_tp(ctx: BtfTracePointContext) -> i32 {
    checked(ctx.arg(3), ctx.arg(4));
    0
}

/// Before 6.14, where the machine allows trampolines.
/// match-proto: int cap_capable(const struct cred *cred, struct user_namespace *targ_ns, int cap, unsigned int opts)
#[fexit]
pub fn cap_capable(ctx: FExitContext) -> i32 {
    checked(ctx.arg(2), ctx.arg(4));
    0
}

/// Before 6.14: the compiler may have drawn the check that capset makes into capset, where no hook sees it.
/// match-proto: int security_capset(struct cred *new, const struct cred *old, const kernel_cap_t *effective, ...)
#[fexit]
pub fn security_capset(_ctx: FExitContext) -> i32 {
    // The new credentials are committed later: the task still has the old ones.
    let _ = note(&Current::get());
    0
}

#[inline(always)]
fn checked(cap: i32, ret: i32) {
    let Some(mark) = note(&Current::get()) else { return };
    let bit = 1u64 << (cap as u32 & 63);
    if ret == 0 {
        mark.granted |= bit;
    } else {
        mark.denied |= bit;
    }
}

/// The mark of the call that the thread is in, with the state before the call; `None` if it is not watched.
#[inline(always)]
fn note(current: &Current) -> Option<&'static mut Mark> {
    let number = current.call_number();
    if !may_be_watched(number) {
        return None;
    }
    let mark = Mark::of_call(current.tid, number as u32 & !X32_SYSCALL_BIT)?;
    if mark.filled & mark::BEFORE == 0 {
        mark.filled |= mark::BEFORE;
        mark.caps_before = current.caps();
        namespaces(current.task, true, &raw mut mark.ns_before);
    }
    Some(mark)
}
