//! Read-only globals that the daemon fills before it loads the programs.
//!
//! They lie in a frozen map, so the verifier takes them as constants and removes branches that this
//! kernel does not need, helpers that it does not have included.

use core::ptr::read_volatile;

use monitor_common::call::{I386_CALLS, I386_DOORS, NrTable, X86_64_CALLS, X86_64_DOORS, nr_table};
use monitor_common::control::{Offsets, Settings};

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNSET;

#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings::UNSET;

/// Watched numbers of the 64-bit table, and doors.
#[unsafe(no_mangle)]
static CALLS_X86_64: NrTable = nr_table(X86_64_CALLS, X86_64_DOORS);

/// The same of the 32-bit table.
#[unsafe(no_mangle)]
static CALLS_I386: NrTable = nr_table(I386_CALLS, I386_DOORS);

/// Reads a value that the daemon replaced behind the compiler's back.
#[inline(always)]
pub fn volatile<T: Copy>(value: &'static T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { read_volatile(value) }
}

/// Reads a member of [`Offsets`].
macro_rules! offset {
    ($member:ident) => {
        $crate::settings::volatile(&$crate::settings::OFFSETS.$member)
    };
}
pub(crate) use offset;

/// Reads a member of [`Settings`].
macro_rules! setting {
    ($member:ident) => {
        $crate::settings::volatile(&$crate::settings::SETTINGS.$member)
    };
}
pub(crate) use setting;

/// What a number of the 64-bit table stands for: see [`NrTable`].
#[inline(always)]
pub fn slot_x86_64(nr: u32) -> u16 {
    slot(&CALLS_X86_64, nr)
}

/// The same for the 32-bit table.
#[inline(always)]
pub fn slot_i386(nr: u32) -> u16 {
    slot(&CALLS_I386, nr)
}

/// Wire number of the watched call in a slot, 0 if it is not watched.
#[inline(always)]
pub const fn call_in(slot: u16) -> u16 {
    slot & 0xff
}

/// Wire number of the door in a slot, 0 if it is none.
#[inline(always)]
pub const fn door_in(slot: u16) -> u16 {
    slot >> 8
}

#[inline(always)]
fn slot(table: &'static NrTable, nr: u32) -> u16 {
    match table.get(nr as usize) {
        Some(slot) => volatile(slot),
        None => 0,
    }
}
