//! Many attempts at a set rate, and the cost of an unrelated call: what measurements are made with.

use std::io;

use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;

use super::prep;
use super::raw::{Arena, call, clock_ns};

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Calls made.
    pub made: u64,
    /// Calls that did not return the error that they must return: 0 unless something is wrong.
    pub odd: u64,
    /// Time from the first to the last, in nanoseconds.
    pub elapsed_ns: u64,
}

/// A cheap call that fails before it does anything: number in the 64-bit table, first argument, error.
fn cheap(what: Call) -> Option<(u32, u64, i64)> {
    match what {
        Call::Setns => Some((libc::SYS_setns as u32, u64::MAX, -i64::from(libc::EBADF))),
        Call::Unshare => Some((libc::SYS_unshare as u32, 1, -i64::from(libc::EINVAL))),
        Call::Capset => Some((libc::SYS_capset as u32, 8, -i64::from(libc::EFAULT))),
        _ => None,
    }
}

/// The calls that [`flood`] can make.
pub const FLOOD_CALLS: &[Call] = &[Call::Setns, Call::Unshare, Call::Capset];

/// Makes failing calls for `seconds`, `rate` each second (0: as fast as possible), or until `limit` are made
/// (0: no limit). At a rate it makes them in small batches, at most a thousand times a second.
///
/// Returns `None` for a call that has no cheap failing form.
pub fn flood(what: Call, rate: u64, seconds: f64, limit: u64) -> Option<Flood> {
    let (nr, argument, expected) = cheap(what)?;
    let limit = if limit == 0 { u64::MAX } else { limit };
    let start = clock_ns(libc::CLOCK_MONOTONIC);
    let end = start + (seconds * 1e9) as u64;
    let mut flood = Flood { made: 0, odd: 0, elapsed_ns: 0 };
    let mut now = start;
    while now < end && flood.made < limit {
        // How many are due by now; without a rate a batch between two looks at the clock.
        let due = match rate {
            0 => flood.made + 64,
            rate => ((now - start) as u128 * u128::from(rate) / 1_000_000_000) as u64 + 1,
        };
        while flood.made < due.min(limit) {
            // SAFETY: the argument is wrong in a way that the kernel finds before it does anything.
            let ret = unsafe { call(Abi::X86_64, nr, [argument, 0, 0, 0, 0, 0]) };
            flood.made += 1;
            flood.odd += u64::from(ret != expected);
        }
        if rate > 0 {
            let next = start + (u128::from(flood.made) * 1_000_000_000 / u128::from(rate)) as u64;
            sleep_until(next.max(now + 1_000_000).min(end));
        }
        now = clock_ns(libc::CLOCK_MONOTONIC);
    }
    flood.elapsed_ns = now - start;
    Some(flood)
}

/// Sleeps until the monotonic clock shows `ns`; a signal may end it early, the caller looks at the clock.
fn sleep_until(ns: u64) {
    let until = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `until` is readable; no remainder is asked for.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut())
    };
}

/// Calls that nobody watches, for [`spin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrelated {
    /// `getppid()`.
    Getppid,
    /// `read(-1, NULL, 0)`, which fails with `EBADF`.
    Read,
    /// `sethostname(NULL, -1)`: the kernel asks for one capability, and finds then that no name is so long.
    Checked,
    /// The same by who has no capability.
    Denied,
}

/// Nanoseconds per call, the mean over `count` calls.
///
/// # Errors
/// The kernel's, or a text if a call was not answered as it must be.
pub fn spin(what: Unrelated, count: u64) -> io::Result<f64> {
    let ebadf = -i64::from(libc::EBADF);
    let (nr, arguments, expected) = match what {
        Unrelated::Getppid => (libc::SYS_getppid as u32, [0, 0], None),
        Unrelated::Read => (libc::SYS_read as u32, [u64::MAX, 0], Some(ebadf)),
        Unrelated::Checked => (libc::SYS_sethostname as u32, [0, u64::MAX], Some(-i64::from(libc::EINVAL))),
        Unrelated::Denied => {
            prep::without(&Arena::new()?, &[Cap::SysAdmin]);
            (libc::SYS_sethostname as u32, [0, u64::MAX], Some(-i64::from(libc::EPERM)))
        }
    };
    let once = |nr: u32| {
        // SAFETY: none of these calls gets as far as to touch memory.
        unsafe { call(Abi::X86_64, nr, [arguments[0], arguments[1], 0, 0, 0, 0]) }
    };
    let answer = once(nr);
    if expected.is_some_and(|expected| answer != expected) {
        return Err(io::Error::other(format!("the kernel answered {answer} instead of {expected:?}")));
    }
    let start = clock_ns(libc::CLOCK_MONOTONIC);
    for _ in 0..count {
        once(nr);
    }
    Ok((clock_ns(libc::CLOCK_MONOTONIC) - start) as f64 / count.max(1) as f64)
}
