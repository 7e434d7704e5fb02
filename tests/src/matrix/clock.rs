//! Doors to the clock. Where an attempt would be allowed natively, it is made in guests only.

use monitor_common::call::Call;

use super::Behaviour::Clock;
use super::{Door, Entry, NO_DEVICE, WELL_FORMED, door, program};

const CHANGED: &str = "Clock changed from container";
const REFUSED: &str = "Clock change refused in container";

/// Names: allowed, failed, without the capability. Under a filter the impossible value is used: no slip of the
/// filter could set the clock.
const fn entries([allowed, failed, nocap]: [&'static str; 3]) -> [Entry; 6] {
    [
        Entry::Attempt(allowed, CHANGED),
        Entry::Attempt(failed, REFUSED),
        Entry::Attempt(failed, REFUSED),
        Entry::Attempt(nocap, REFUSED),
        Entry::Attempt(allowed, REFUSED),
        Entry::Never(NO_DEVICE),
    ]
}

/// Commands that set the current time or zone; the failing one, where there is one.
const fn commands(set: &'static [&'static str], failing: Entry) -> [Entry; 6] {
    [
        Entry::Program(set, CHANGED),
        failing,
        Entry::Program(set, REFUSED),
        Entry::Program(set, REFUSED),
        Entry::Program(set, REFUSED),
        Entry::Never(NO_DEVICE),
    ]
}

pub(super) const DOORS: &[Door] = &[
    door(Clock, "settimeofday", Call::Settimeofday)
        .entries(entries(["settimeofday-now", "settimeofday-invalid", "settimeofday-nocap"]))
        .changes_machine(),
    door(Clock, "clock_settime", Call::ClockSettime)
        .entries(entries(["clock_settime-now", "clock_settime-invalid", "clock_settime-nocap"]))
        .changes_machine(),
    door(Clock, "clock_settime64", Call::ClockSettime)
        .entries(entries(["clock_settime64-now", "clock_settime64-invalid", "clock_settime64-nocap"]))
        .changes_machine()
        .only_32(),
    door(Clock, "stime", Call::Stime)
        .entries(entries(["stime-now", "stime-badpointer", "stime-nocap"]))
        .changes_machine()
        .only_32(),
    door(Clock, "adjtimex", Call::Adjtimex)
        .entries(entries(["adjtimex-freq", "adjtimex-tick", "adjtimex-freq-nocap"]))
        .changes_machine(),
    door(Clock, "adjtimex-setoffset", Call::Adjtimex)
        .entries(entries(["adjtimex-offset", "adjtimex-offset-invalid", "adjtimex-offset-nocap"]))
        .changes_machine(),
    door(Clock, "clock_adjtime", Call::ClockAdjtime)
        .entries(entries(["clock_adjtime-offset", "clock_adjtime-offset-invalid", "clock_adjtime-nocap"]))
        .changes_machine(),
    door(Clock, "clock_adjtime64", Call::ClockAdjtime)
        .entries(entries(["clock_adjtime64-offset", "clock_adjtime64-tick", "clock_adjtime64-nocap"]))
        .changes_machine()
        .only_32(),
    program(Clock, "date", Call::ClockSettime)
        .entries(commands(
            &["date", "--set=@4000000000"],
            Entry::Program(&["date", "--set=@9999999999999"], REFUSED),
        ))
        .changes_machine(),
    program(Clock, "hwclock", Call::Settimeofday)
        .entries(commands(&["hwclock", "--systz", "--utc"], Entry::Never(WELL_FORMED)))
        .changes_machine(),
];
