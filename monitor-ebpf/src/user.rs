//! The only module that reads user memory. What stands there is a claim: another thread may have
//! rewritten it since the kernel looked. No verdict and no shipped rule rests on it alone.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use monitor_common::call::{Abi, Call};
use monitor_common::wire::{ARGS_TEXT, CLAIMED_PATH, EXEC_TEXT, ExecRecord};

/// What a call's arguments pointed to. Every word always has a value, zero at worst: the verifier takes a
/// copy of a word without one for a leak.
#[derive(Clone, Copy)]
pub struct Claims {
    /// The memory was there.
    pub known: bool,
    /// See [`claims`].
    pub values: [u64; 4],
}

impl Claims {
    const NONE: Claims = Claims { known: false, values: [0; 4] };
}

/// Reads a value; zero and `false` if the memory is not there.
#[inline(always)]
fn read<T: Copy + Default>(address: u64) -> (bool, T) {
    let mut value = T::default();
    // SAFETY: the helper checks the address itself and fails instead of faulting; it writes the size of `value`.
    let failed =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    (failed == 0, value)
}

/// A pair of C `long`s or of 64-bit numbers, as `timeval` and `timespec` are, sign-extended.
#[inline(always)]
fn pair(address: u64, narrow: bool) -> Claims {
    if narrow {
        let (known, [a, b]) = read::<[i32; 2]>(address);
        Claims { known, values: [i64::from(a) as u64, i64::from(b) as u64, 0, 0] }
    } else {
        let (known, [a, b]) = read::<[u64; 2]>(address);
        Claims { known, values: [a, b, 0, 0] }
    }
}

/// One number.
#[inline(always)]
fn one((known, value): (bool, u64)) -> Claims {
    Claims { known, values: [value, 0, 0, 0] }
}

/// What the call's arguments point to, in the order that the daemon's decoder expects:
///
/// - capset: target process, effective, permitted, inheritable
/// - settimeofday: seconds, microseconds; clock_settime: seconds, nanoseconds; stime: seconds
/// - adjtimex, clock_adjtime: modes
/// - clone3: flags; openat2: flags, mode, resolve
#[inline(always)]
pub fn claims(call: Call, abi: Abi, nr: u32, args: &[u64; 4]) -> Claims {
    let compat = matches!(abi, Abi::I386);
    let modes = |address: u64| {
        let (known, modes) = read::<u32>(address);
        one((known, u64::from(modes)))
    };
    match call {
        Call::Capset => {
            let (has_header, [_version, pid]) = read::<[u32; 2]>(args[0]);
            // Two blocks of effective, permitted, inheritable; the second has the upper 32 bits.
            let (has_data, [e0, p0, i0, e1, p1, i1]) = read::<[u32; 6]>(args[1]);
            let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
            Claims {
                known: has_header && has_data,
                values: [i64::from(pid as i32) as u64, join(e0, e1), join(p0, p1), join(i0, i1)],
            }
        }
        Call::Settimeofday => pair(args[0], compat),
        // 264 is i386's call with 32-bit seconds, 404 the one with 64-bit seconds.
        Call::ClockSettime => pair(args[1], compat && nr == 264),
        Call::Stime => {
            let (known, seconds) = read::<i32>(args[0]);
            one((known, i64::from(seconds) as u64))
        }
        Call::Adjtimex => modes(args[0]),
        Call::ClockAdjtime => modes(args[1]),
        Call::Clone3 => one(read::<u64>(args[0])),
        Call::Openat2 => {
            let (known, [flags, mode, resolve]) = read::<[u64; 3]>(args[2]);
            Claims { known, values: [flags, mode, resolve, 0] }
        }
        _ => Claims::NONE,
    }
}

/// Copies the path at `address` and returns its length without the NUL; 0 if it cannot be read.
#[inline(always)]
pub fn path(address: u64, out: &mut [u8; CLAIMED_PATH]) -> u32 {
    // SAFETY: the helper checks the address, and writes at most the given length.
    let len =
        unsafe { bpf_probe_read_user_str(out.as_mut_ptr().cast(), CLAIMED_PATH as u32, address as *const _) };
    if len > 0 { len as u32 - 1 } else { 0 }
}

/// Appends the command line between two addresses to an exec's record, at most [`ARGS_TEXT`] bytes; gives where the
/// text ends. The new program has not run yet, so what stands there is what the exec was given; from now on the
/// program may write over it.
#[inline(always)]
pub fn command_line(start: u64, end: u64, text_end: usize, record: &mut ExecRecord) -> usize {
    let total = end.saturating_sub(start);
    let (mut at, mut len) = (text_end, total as usize);
    // SAFETY: arithmetic on registers. The first changes no value (the paths end far below). Both are written so that
    // verifiers which lose track of a comparison made elsewhere see the bounds on the very register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) at, const EXEC_TEXT - ARGS_TEXT - 1);
        asm!("if {0} <= {1} goto +1", "{0} = {1}", inout(reg) len, const ARGS_TEXT);
    }
    // SAFETY: `at` leaves room for ARGS_TEXT bytes in the array; the helper checks the source.
    let failed = unsafe {
        bpf_probe_read_user(record.text.as_mut_ptr().add(at).cast(), len as u32, start as *const _)
    };
    // All ones if it failed: no branch, see `kernel`.
    let read = len & !(failed >> 63) as usize;
    record.args_total = if total > u64::from(u32::MAX) { u32::MAX } else { total as u32 };
    record.args_len = read as u32;
    at + read
}
