//! Attempts on the clock. None can change it: values are impossible, or the capability is gone.
//!
//! The kernel checks values before the capability in settimeofday and clock_settime, and after it in
//! adjtimex and clock_adjtime. Where an attempt must be refused for want of the capability its value is
//! valid (the current time or setting), and it is made only after [`prep::without`] saw CAP_SYS_TIME gone.

use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;

use super::raw::{Arena, call, clock_ns};
use super::{Attempt, BOTH, BY_CAPABILITY, BY_SECCOMP, I386, Want, prep, row};

const REALTIME: u64 = libc::CLOCK_REALTIME as u64;
const MONOTONIC: u64 = libc::CLOCK_MONOTONIC as u64;
/// Nanoseconds or microseconds that no second has.
const IMPOSSIBLE: i64 = 2_000_000_000;
const INVALID: Want = Want::Failed(libc::EINVAL);

pub(super) const ROWS: &[Attempt] = &[
    row("settimeofday-invalid", Call::Settimeofday, BOTH, INVALID, |arena, abi| {
        settimeofday(arena, abi, 0, IMPOSSIBLE)
    })
    .what("sets a time with more than a million microseconds")
    .harmless("the kernel checks the value before anything else")
    .granted("SYS_TIME", INVALID),
    row("settimeofday-nocap", Call::Settimeofday, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        let (sec, nsec) = now();
        settimeofday(arena, abi, sec, nsec / 1000)
    })
    .what("sets the current time without CAP_SYS_TIME")
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("settimeofday-now", Call::Settimeofday, BOTH, Want::Allowed, |arena, abi| {
        let (sec, nsec) = now();
        settimeofday(arena, abi, sec, nsec / 1000)
    })
    .what("sets the current time")
    .guest_only(),
    row("clock_settime-invalid", Call::ClockSettime, BOTH, INVALID, |arena, abi| {
        clock_settime(arena, abi, REALTIME, (0, IMPOSSIBLE))
    })
    .asked(&[("clock.id", "CLOCK_REALTIME")])
    .what("sets a time with more than a thousand million nanoseconds")
    .harmless("the kernel checks the value before anything else")
    .granted("SYS_TIME", INVALID),
    row("clock_settime-monotonic", Call::ClockSettime, BOTH, INVALID, |arena, abi| {
        clock_settime(arena, abi, MONOTONIC, (0, 0))
    })
    .asked(&[("clock.id", "CLOCK_MONOTONIC")])
    .what("sets the monotonic clock")
    .harmless("that clock cannot be set")
    .granted("SYS_TIME", INVALID),
    row("clock_settime-nocap", Call::ClockSettime, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        clock_settime(arena, abi, REALTIME, now())
    })
    .what("sets the current time without CAP_SYS_TIME")
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("clock_settime-now", Call::ClockSettime, BOTH, Want::Allowed, |arena, abi| {
        clock_settime(arena, abi, REALTIME, now())
    })
    .what("sets the current time")
    .guest_only(),
    row("clock_settime64-invalid", Call::ClockSettime, I386, INVALID, |arena, abi| {
        clock_settime64(arena, abi, (0, IMPOSSIBLE))
    })
    .what("sets an impossible time by the 64-bit variant of the 32-bit table")
    .harmless("the kernel checks the value before anything else")
    // The profile of Docker 20.10 opens only the older variant.
    .granted("SYS_TIME", BY_SECCOMP),
    row("clock_settime64-nocap", Call::ClockSettime, I386, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        clock_settime64(arena, abi, now())
    })
    .what("sets the current time by the 64-bit variant of the 32-bit table without CAP_SYS_TIME")
    // The profile of Docker 20.10 opens only the older variant.
    .granted("SYS_TIME", BY_SECCOMP)
    .drops(),
    row("clock_settime64-now", Call::ClockSettime, I386, Want::Allowed, |arena, abi| {
        clock_settime64(arena, abi, now())
    })
    .what("sets the current time by the 64-bit variant of the 32-bit table")
    .guest_only(),
    row("stime-badpointer", Call::Stime, I386, Want::Failed(libc::EFAULT), |_, abi| {
        // SAFETY: the pointer is meant to be wrong: page 0 is never mapped.
        unsafe { call(abi, 25, [8, 0, 0, 0, 0, 0]) }
    })
    .what("sets a time that it does not pass")
    .harmless("there is no value to set")
    .granted("SYS_TIME", Want::Failed(libc::EFAULT)),
    row("stime-nocap", Call::Stime, I386, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        stime(arena, abi, now().0)
    })
    .what("sets the current time without CAP_SYS_TIME")
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("stime-now", Call::Stime, I386, Want::Allowed, |arena, abi| stime(arena, abi, now().0))
        .what("sets the current second")
        .guest_only(),
    row("adjtimex-read", Call::Adjtimex, BOTH, Want::NoEvent, |arena, abi| {
        adjtime(arena, abi, Variant::Adjtimex, Timex::default())
    })
    .what("reads the clock's settings")
    .harmless("it changes nothing: modes is 0")
    .contained(Want::NoEvent),
    row("adjtimex-tick", Call::Adjtimex, BOTH, INVALID, |arena, abi| {
        adjtime(arena, abi, Variant::Adjtimex, Timex { modes: libc::ADJ_TICK, ..Timex::default() })
    })
    .what("sets a tick of no length")
    .harmless("the kernel accepts only ticks within a tenth of the nominal one")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", INVALID),
    row("adjtimex-freq-nocap", Call::Adjtimex, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        adjtime(arena, abi, Variant::Adjtimex, same_frequency(arena))
    })
    .what("sets the frequency that the clock has, without CAP_SYS_TIME")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("adjtimex-freq", Call::Adjtimex, BOTH, Want::Allowed, |arena, abi| {
        adjtime(arena, abi, Variant::Adjtimex, same_frequency(arena))
    })
    .what("sets the frequency that the clock has")
    .contained(BY_CAPABILITY)
    .guest_only(),
    row("adjtimex-offset-nocap", Call::Adjtimex, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        adjtime(arena, abi, Variant::Adjtimex, NO_OFFSET)
    })
    .what("moves the clock by nothing, without CAP_SYS_TIME")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("adjtimex-offset-invalid", Call::Adjtimex, BOTH, INVALID, |arena, abi| {
        adjtime(arena, abi, Variant::Adjtimex, BAD_OFFSET)
    })
    .what("moves the clock by less than no microseconds")
    .harmless("the kernel refuses negative parts of a second")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", INVALID),
    row("adjtimex-offset", Call::Adjtimex, BOTH, Want::Allowed, |arena, abi| {
        adjtime(arena, abi, Variant::Adjtimex, NO_OFFSET)
    })
    .asked(&[("clock.id", "CLOCK_REALTIME"), ("evt.args", "modes=ADJ_SETOFFSET")])
    .what("moves the clock by nothing")
    .contained(BY_CAPABILITY)
    .guest_only(),
    row("clock_adjtime-offset", Call::ClockAdjtime, BOTH, Want::Allowed, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime, NO_OFFSET)
    })
    .asked(&[("evt.args", "clockid=CLOCK_REALTIME modes=ADJ_SETOFFSET")])
    .what("moves the clock by nothing")
    .contained(BY_CAPABILITY)
    .guest_only(),
    row("clock_adjtime-offset-invalid", Call::ClockAdjtime, BOTH, INVALID, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime, BAD_OFFSET)
    })
    .what("moves the clock by less than no microseconds")
    .harmless("the kernel refuses negative parts of a second")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", INVALID),
    row("clock_adjtime64-offset", Call::ClockAdjtime, I386, Want::Allowed, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime64, NO_OFFSET)
    })
    .what("moves the clock by nothing, by the 64-bit variant of the 32-bit table")
    .contained(BY_CAPABILITY)
    .guest_only(),
    row("clock_adjtime64-nocap", Call::ClockAdjtime, I386, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        adjtime(arena, abi, Variant::ClockAdjtime64, NO_OFFSET)
    })
    .what("moves the clock by nothing without CAP_SYS_TIME, by the 64-bit variant of the 32-bit table")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("clock_adjtime-read", Call::ClockAdjtime, BOTH, Want::NoEvent, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime, Timex::default())
    })
    .what("reads the clock's settings")
    .harmless("it changes nothing: modes is 0")
    .contained(Want::NoEvent),
    row("clock_adjtime-tick", Call::ClockAdjtime, BOTH, INVALID, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime, Timex { modes: libc::ADJ_TICK, ..Timex::default() })
    })
    .asked(&[("clock.id", "CLOCK_REALTIME")])
    .what("sets a tick of no length")
    .harmless("the kernel accepts only ticks within a tenth of the nominal one")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", INVALID),
    row("clock_adjtime-nocap", Call::ClockAdjtime, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysTime]);
        adjtime(arena, abi, Variant::ClockAdjtime, NO_OFFSET)
    })
    .what("moves the clock by nothing, without CAP_SYS_TIME")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", BY_CAPABILITY)
    .drops(),
    row("clock_adjtime64-tick", Call::ClockAdjtime, I386, INVALID, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime64, Timex { modes: libc::ADJ_TICK, ..Timex::default() })
    })
    .what("sets a tick of no length by the 64-bit variant of the 32-bit table")
    .harmless("the kernel accepts only ticks within a tenth of the nominal one")
    .contained(BY_CAPABILITY)
    .granted("SYS_TIME", INVALID),
    row("clock_adjtime64-read", Call::ClockAdjtime, I386, Want::NoEvent, |arena, abi| {
        adjtime(arena, abi, Variant::ClockAdjtime64, Timex::default())
    })
    .what("reads the clock's settings by the 64-bit variant of the 32-bit table")
    .harmless("it changes nothing: modes is 0")
    .contained(Want::NoEvent),
];

/// Seconds and nanoseconds of the current time.
fn now() -> (i64, i64) {
    let now = clock_ns(libc::CLOCK_REALTIME) as i64;
    (now / 1_000_000_000, now % 1_000_000_000)
}

fn settimeofday(arena: &Arena, abi: Abi, sec: i64, usec: i64) -> i64 {
    let time = arena.put_longs(256, abi, &[sec, usec]);
    let nr = if abi == Abi::I386 { 79 } else { libc::SYS_settimeofday as u32 };
    // SAFETY: the kernel only reads the structure. See the module's comment on why the clock stays.
    unsafe { call(abi, nr, [time, 0, 0, 0, 0, 0]) }
}

fn clock_settime(arena: &Arena, abi: Abi, clock: u64, (sec, nsec): (i64, i64)) -> i64 {
    let time = arena.put_longs(256, abi, &[sec, nsec]);
    let nr = if abi == Abi::I386 { 264 } else { libc::SYS_clock_settime as u32 };
    // SAFETY: as in `settimeofday`.
    unsafe { call(abi, nr, [clock, time, 0, 0, 0, 0]) }
}

fn clock_settime64(arena: &Arena, abi: Abi, (sec, nsec): (i64, i64)) -> i64 {
    let time = arena.put_u64s(256, &[sec as u64, nsec as u64]);
    // SAFETY: as in `settimeofday`.
    unsafe { call(abi, 404, [REALTIME, time, 0, 0, 0, 0]) }
}

fn stime(arena: &Arena, abi: Abi, sec: i64) -> i64 {
    let time = arena.put_longs(256, abi, &[sec]);
    // SAFETY: as in `settimeofday`.
    unsafe { call(abi, 25, [time, 0, 0, 0, 0, 0]) }
}

/// The members of `struct timex` that attempts fill in; the rest is zero.
#[derive(Clone, Copy, Default)]
struct Timex {
    modes: u32,
    freq: i64,
    /// Microseconds by which `ADJ_SETOFFSET` moves the clock.
    usec: i64,
}

/// Moves the clock by nothing.
const NO_OFFSET: Timex = Timex { modes: libc::ADJ_SETOFFSET, freq: 0, usec: 0 };
/// `timekeeping_validate_timex` answers EINVAL to negative microseconds, whatever else is asked for.
const BAD_OFFSET: Timex = Timex { usec: -1, ..NO_OFFSET };

/// The doors to the same function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Adjtimex,
    ClockAdjtime,
    ClockAdjtime64,
}

/// Size of the largest layout of `struct timex`.
const TIMEX_SIZE: usize = 208;

fn adjtime(arena: &Arena, abi: Abi, variant: Variant, timex: Timex) -> i64 {
    // The 32-bit layout has words of 4 bytes: modes, offset, freq. The other pads modes to 8.
    let narrow = abi == Abi::I386 && variant != Variant::ClockAdjtime64;
    let mut bytes = [0; TIMEX_SIZE];
    bytes[..4].copy_from_slice(&timex.modes.to_le_bytes());
    if narrow {
        bytes[8..12].copy_from_slice(&(timex.freq as i32).to_le_bytes());
        bytes[40..44].copy_from_slice(&(timex.usec as i32).to_le_bytes());
    } else {
        bytes[16..24].copy_from_slice(&timex.freq.to_le_bytes());
        bytes[80..88].copy_from_slice(&timex.usec.to_le_bytes());
    }
    let address = arena.put(512, &bytes);
    let (nr, args) = match (variant, abi) {
        (Variant::Adjtimex, Abi::I386) => (124, [address, 0, 0, 0, 0, 0]),
        (Variant::Adjtimex, _) => (libc::SYS_adjtimex as u32, [address, 0, 0, 0, 0, 0]),
        (Variant::ClockAdjtime, Abi::I386) => (343, [REALTIME, address, 0, 0, 0, 0]),
        (Variant::ClockAdjtime, _) => (libc::SYS_clock_adjtime as u32, [REALTIME, address, 0, 0, 0, 0]),
        (Variant::ClockAdjtime64, _) => (405, [REALTIME, address, 0, 0, 0, 0]),
    };
    // SAFETY: the kernel reads and writes at most TIMEX_SIZE bytes in the arena. See the module's comment.
    unsafe { call(abi, nr, args) }
}

/// A request to set the frequency that the clock has.
fn same_frequency(arena: &Arena) -> Timex {
    adjtime(arena, Abi::X86_64, Variant::Adjtimex, Timex::default());
    let bytes = arena.bytes(512, 24);
    let freq = bytes[16..24].try_into().map(i64::from_le_bytes).unwrap_or(0);
    Timex { modes: libc::ADJ_FREQUENCY, freq, ..Timex::default() }
}
