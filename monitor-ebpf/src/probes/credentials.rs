//! A task gets other credentials, by whatever door.

use core::mem::offset_of;

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;

use crate::call::door_of;
use crate::kernel::{Current, Ptr, Registers, Regs};
use crate::tasks;

/// Before the new ones are in force; it cannot fail. An exec's are judged where it has succeeded.
/// match-proto: int commit_creds(struct cred *new)
#[fentry]
pub fn credentials_committed(ctx: FEntryContext) -> i32 {
    let current = Current::get();
    let number = Registers::get(current.registers(), offset_of!(Regs, orig_ax));
    let is_compat = current.is_compat();
    if !is_exec(number as u32, is_compat) {
        let first = if is_compat { offset_of!(Regs, bx) } else { offset_of!(Regs, di) };
        let argument = Registers::get(current.registers(), first);
        tasks::settle(&current, Ptr(ctx.arg(0)), door_of(number, is_compat, argument));
    }
    0
}

/// execve and execveat; the x32 ABI has its own numbers.
#[inline(always)]
const fn is_exec(number: u32, is_compat: bool) -> bool {
    if is_compat {
        matches!(number, 11 | 358)
    } else {
        matches!(number, 59 | 322 | 0x4000_0208 | 0x4000_0221)
    }
}
