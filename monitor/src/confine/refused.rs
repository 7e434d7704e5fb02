//! What the filter refused: counted by a handler of SIGSYS, for the log and the metrics.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use monitor_common::call::Abi;

use crate::syscall_names;

/// Numbers of calls that are told apart; the last place stands for all others.
const NUMBERS: usize = 512;

static REFUSED: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];

/// Sees to it that a refused call is counted and fails with `EPERM`. Without the handler SIGSYS ends the process.
///
/// # Errors
/// The kernel's.
pub(super) fn count() -> io::Result<()> {
    // SAFETY: for this structure zero is a value: no flags, and no signals that are held back.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = refused as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a structure that lives until the call returns; the handler writes to atomics and registers only.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel puts the call's number back where its result goes (`syscall_rollback`).
extern "C" fn refused(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the context of the thread that made the call.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let result = &mut registers[libc::REG_RAX as usize];
    let place = usize::try_from(*result).unwrap_or(NUMBERS).min(NUMBERS - 1);
    REFUSED[place].fetch_add(1, Ordering::Relaxed);
    *result = -i64::from(libc::EPERM);
}

/// The calls that were refused so far, with their names, and how often.
pub(super) fn so_far() -> Vec<(String, u64)> {
    let counts = REFUSED.iter().enumerate().map(|(nr, count)| (nr as u32, count.load(Ordering::Relaxed)));
    counts.filter(|(_, count)| *count > 0).map(|(nr, count)| (name(nr), count)).collect()
}

/// How many calls were refused so far.
pub(super) fn total() -> u64 {
    REFUSED.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

fn name(nr: u32) -> String {
    syscall_names::name(Abi::X86_64, nr).map_or_else(|| format!("call {nr}"), |name| name.to_string())
}
