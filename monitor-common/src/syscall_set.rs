//! Which system calls were seen in a cgroup, as the programs note it: a byte for each number of each table.
//!
//! A byte and not a bit: a plain store sets it. Adding a bit to a word that others write takes an atomic instruction
//! that the programs have from 5.12 on only.

/// Numbers that a table has room for: the highest is x32's 547. A call with a higher one is not noted.
pub const NUMBERS: usize = 576;

/// The 64-bit table, which serves x32, too ([`seen::X32`]), and the 32-bit one.
pub const TABLES: usize = 2;

/// Place of the 64-bit table in [`SyscallSet::calls`].
pub const TABLE_64: usize = 0;
/// Place of the 32-bit table.
pub const TABLE_32: usize = 1;

/// Bits of a call's byte.
pub mod seen {
    /// A program of the container made the call, and no seccomp filter refused it: the kernel ran it.
    pub const OWN: u8 = 1 << 0;
    /// A runtime made it inside the container's cgroup, with the container's filter already on it.
    pub const RUNTIME: u8 = 1 << 1;
    /// A program of the container made it, and a filter answered EPERM or EACCES.
    pub const REFUSED: u8 = 1 << 2;
    /// The same with ENOSYS.
    pub const REFUSED_ENOSYS: u8 = 1 << 3;
    /// Beside [`OWN`]: it came by an x32 number.
    pub const X32: u8 = 1 << 4;
}

/// What was seen in one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallSet {
    /// Boot time of the first call, in nanoseconds.
    pub first_ns: u64,
    /// Boot time of the last that was new.
    pub last_new_ns: u64,
    /// Bits of [`seen`] by table and number.
    pub calls: [[u8; NUMBERS]; TABLES],
}

impl SyscallSet {
    /// Nothing seen.
    pub const EMPTY: Self = SyscallSet { first_ns: 0, last_new_ns: 0, calls: [[0; NUMBERS]; TABLES] };
}

/// Bound of the table of cgroups, for more than 10,000 containers. When it is full, calls of further cgroups are
/// counted and not noted.
pub const SYSCALL_SETS: u32 = 12_288;

const _: () = assert!(size_of::<SyscallSet>() == 16 + NUMBERS * TABLES);
