//! The watched calls and their numbers.
//!
//! A [`Call`] is what was asked for, whichever ABI asked. Several numbers may lead to one call: i386
//! `clock_settime` (264) and `clock_settime64` (404) are both [`Call::ClockSettime`].

use crate::capability::Door;

/// Makes [`Call`] together with the tables that must never miss a member.
macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal;)*) => {
        /// A watched call. The numbers are part of the wire format: never renumbered, holes are kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Call {
            $($(#[$doc])* $variant = $id,)*
        }

        impl Call {
            /// Every watched call.
            pub const ALL: &[Call] = &[$(Call::$variant),*];

            /// The call with this wire number.
            pub const fn from_wire(id: u16) -> Option<Call> {
                match id {
                    $($id => Some(Call::$variant),)*
                    _ => None,
                }
            }

            /// The call's name, which is the event's type in rules (`evt.type`).
            pub const fn name(self) -> &'static str {
                match self {
                    $(Call::$variant => $name,)*
                }
            }
        }
    };
}

calls! {
    /// Sets the capability sets of the calling thread.
    Capset = 1, "capset";
    /// Enters existing namespaces, given by a namespace file or a pidfd.
    Setns = 2, "setns";
    /// Moves the caller into new namespaces.
    Unshare = 3, "unshare";
    /// Makes a child, here with at least one `CLONE_NEW*` flag.
    Clone = 4, "clone";
    /// As [`Call::Clone`]; the flags stand in a structure in user memory.
    Clone3 = 5, "clone3";
    /// Sets the wall clock or the time zone.
    Settimeofday = 6, "settimeofday";
    /// Sets a clock.
    ClockSettime = 7, "clock_settime";
    /// Sets the wall clock, seconds only; i386 alone has it.
    Stime = 8, "stime";
    /// Tunes the wall clock; watched when it would change something.
    Adjtimex = 9, "adjtimex";
    /// Tunes a clock; watched when it would change something.
    ClockAdjtime = 10, "clock_adjtime";
    /// Reads, clears or configures the kernel log.
    Syslog = 11, "syslog";
    /// Sets the I/O privilege level.
    Iopl = 12, "iopl";
    /// Sets I/O port permissions.
    Ioperm = 13, "ioperm";
    /// Opens a file, here one of the watched devices or files.
    Open = 14, "open";
    /// As [`Call::Open`].
    Creat = 15, "creat";
    /// As [`Call::Open`].
    Openat = 16, "openat";
    /// As [`Call::Open`].
    Openat2 = 17, "openat2";
    /// As [`Call::Open`].
    OpenByHandleAt = 18, "open_by_handle_at";
}

/// Highest wire number of a [`Call`], plus one: the size of per-call tables.
pub const CALL_SLOTS: usize = 19;

/// Through which system call table a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Abi {
    /// The 64-bit table.
    X86_64 = 0,
    /// The 32-bit table (`int 0x80`, 32-bit `sysenter`/`syscall`): `TS_COMPAT` was set.
    I386 = 1,
    /// The 64-bit table with 32-bit pointers (bit 30 of the number).
    X32 = 2,
}

impl Abi {
    /// The ABI with this wire number.
    pub const fn from_wire(id: u16) -> Option<Abi> {
        match id {
            0 => Some(Abi::X86_64),
            1 => Some(Abi::I386),
            2 => Some(Abi::X32),
            _ => None,
        }
    }

    /// The ABI's name in events (`evt.abi`).
    pub const fn name(self) -> &'static str {
        match self {
            Abi::X86_64 => "x86_64",
            Abi::I386 => "i386",
            Abi::X32 => "x32",
        }
    }
}

/// Bit of a system call number that marks the x32 ABI (`__X32_SYSCALL_BIT`).
pub const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// `CLONE_NEWNS`, `CLONE_NEWCGROUP`, `CLONE_NEWUTS`, `CLONE_NEWIPC`, `CLONE_NEWUSER`, `CLONE_NEWPID` and `CLONE_NEWNET`
/// (include/uapi/linux/sched.h). `CLONE_NEWTIME` is 0x80, which clone(2) takes as part of the exit signal: only unshare,
/// setns and clone3 know it.
pub const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Size of the number tables: the next power of two above the highest number that is watched.
pub const NR_SLOTS: usize = 512;

/// Numbers of the 64-bit table (`arch/x86/entry/syscalls/syscall_64.tbl`); x32 shares those listed here.
pub const X86_64_CALLS: &[(u16, Call)] = &[
    (2, Call::Open),
    (56, Call::Clone),
    (85, Call::Creat),
    (103, Call::Syslog),
    (126, Call::Capset),
    (159, Call::Adjtimex),
    (164, Call::Settimeofday),
    (172, Call::Iopl),
    (173, Call::Ioperm),
    (227, Call::ClockSettime),
    (257, Call::Openat),
    (272, Call::Unshare),
    (304, Call::OpenByHandleAt),
    (305, Call::ClockAdjtime),
    (308, Call::Setns),
    (435, Call::Clone3),
    (437, Call::Openat2),
];

/// Numbers of the 32-bit table (`arch/x86/entry/syscalls/syscall_32.tbl`).
pub const I386_CALLS: &[(u16, Call)] = &[
    (5, Call::Open),
    (8, Call::Creat),
    (25, Call::Stime),
    (79, Call::Settimeofday),
    (101, Call::Ioperm),
    (103, Call::Syslog),
    (110, Call::Iopl),
    (120, Call::Clone),
    (124, Call::Adjtimex),
    (185, Call::Capset),
    (264, Call::ClockSettime),
    (295, Call::Openat),
    (310, Call::Unshare),
    (342, Call::OpenByHandleAt),
    (343, Call::ClockAdjtime),
    (346, Call::Setns),
    (404, Call::ClockSettime),
    (405, Call::ClockAdjtime),
    (435, Call::Clone3),
    (437, Call::Openat2),
];

/// Numbers of the 64-bit table by which credentials may grow, besides those of [`X86_64_CALLS`].
pub const X86_64_DOORS: &[(u16, Door)] = &[
    (105, Door::Setuid),
    (113, Door::Setreuid),
    (117, Door::Setresuid),
    (122, Door::Setfsuid),
    (126, Door::Capset),
    (157, Door::Prctl),
    (272, Door::Unshare),
    (308, Door::Setns),
];

/// The same of the 32-bit table, where some calls have a form with ids of 16 bits, too.
pub const I386_DOORS: &[(u16, Door)] = &[
    (23, Door::Setuid),
    (70, Door::Setreuid),
    (138, Door::Setfsuid),
    (164, Door::Setresuid),
    (172, Door::Prctl),
    (185, Door::Capset),
    (203, Door::Setreuid),
    (208, Door::Setresuid),
    (213, Door::Setuid),
    (215, Door::Setfsuid),
    (310, Door::Unshare),
    (346, Door::Setns),
];

/// A table by call number: in the lower byte the wire number of the [`Call`], 0 where nothing is watched; in the upper
/// that of the [`Door`], 0 where there is none.
pub type NrTable = [u16; NR_SLOTS];

/// Lays out the pairs as a table; numbers from [`NR_SLOTS`] on cannot occur.
pub const fn nr_table(calls: &[(u16, Call)], doors: &[(u16, Door)]) -> NrTable {
    let mut table = [0; NR_SLOTS];
    let mut i = 0;
    while i < calls.len() {
        table[calls[i].0 as usize] = calls[i].1 as u16;
        i += 1;
    }
    let mut i = 0;
    while i < doors.len() {
        table[doors[i].0 as usize] |= (doors[i].1 as u16) << 8;
        i += 1;
    }
    table
}

const _: () = assert!(CALL_SLOTS <= 256, "a call's number fits into the lower byte of its slot");
