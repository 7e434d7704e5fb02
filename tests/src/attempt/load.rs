//! Many attempts at a set rate, and the cost of an unrelated call: what measurements are made with.

use monitor_common::call::{Abi, Call};

use super::raw::{call, clock_ns};

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
}

/// Nanoseconds per call, the mean over `count` calls.
pub fn spin(what: Unrelated, count: u64) -> f64 {
    let (nr, argument) = match what {
        Unrelated::Getppid => (libc::SYS_getppid as u32, 0),
        Unrelated::Read => (libc::SYS_read as u32, u64::MAX),
    };
    let start = clock_ns(libc::CLOCK_MONOTONIC);
    for _ in 0..count {
        // SAFETY: neither call touches memory.
        unsafe { call(Abi::X86_64, nr, [argument, 0, 0, 0, 0, 0]) };
    }
    (clock_ns(libc::CLOCK_MONOTONIC) - start) as f64 / count.max(1) as f64
}
