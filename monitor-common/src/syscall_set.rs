//! Which system calls were seen in a cgroup, as the programs note it: a byte for each number of each table.
//!
//! A byte and not a bit: a plain store sets it. Adding a bit to a word that others write takes an atomic instruction
//! that the programs have from 5.12 on only.

use crate::call::NEW_NAMESPACES;

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
    /// Beside [`OWN`]: its first argument was one that usual filters refuse; see [`super::is_unusual`].
    pub const UNUSUAL: u8 = 1 << 5;
}

/// Personalities that Docker's default profile allows: Linux, `PER_LINUX32`, `UNAME26` with each, and the question.
pub const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];
/// The address family of sockets between virtual machines and their host, which no network namespace holds in.
pub const AF_VSOCK: u32 = 40;

/// Whether Docker's default profile lets a call with this first argument pass only with capabilities that it does not
/// give (moby's `profiles/seccomp/default_linux.go`): a clone that makes namespaces, an odd personality, a socket to the
/// machine's host. Other calls are judged without their arguments.
#[inline(always)]
pub fn is_unusual(table: usize, nr: usize, first: impl FnOnce() -> u64) -> bool {
    match (table, nr) {
        (TABLE_64, 56) | (TABLE_32, 120) => first() & NEW_NAMESPACES != 0,
        // The kernel takes 32 bits of a personality, and a filter compares all 64 of the register.
        (TABLE_64, 135) => !is_usual_personality(first()),
        (TABLE_32, 136) => !is_usual_personality(u64::from(first() as u32)),
        (TABLE_64, 41) | (TABLE_32, 359) => first() as u32 == AF_VSOCK,
        _ => false,
    }
}

/// One of [`PERSONALITIES`], in a form of which the compiler makes no table: the programs could not read that.
#[inline(always)]
fn is_usual_personality(personality: u64) -> bool {
    matches!(personality, 0 | 8 | 0x2_0000 | 0x2_0008 | 0xffff_ffff)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_calls_have_unusual_arguments() {
        let unusual = |table, nr, first: u64| is_unusual(table, nr, || first);
        // SIGCHLD, as fork and threads have it, and CLONE_NEWUSER.
        assert!(!unusual(TABLE_64, 56, 0x3d_0f00) && unusual(TABLE_64, 56, 0x1000_0011));
        assert!(unusual(TABLE_32, 120, 0x2_0000) && !unusual(TABLE_32, 120, 17));
        assert!(PERSONALITIES.iter().all(|per| !unusual(TABLE_64, 135, u64::from(*per))));
        // ADDR_NO_RANDOMIZE.
        assert!(unusual(TABLE_64, 135, 0x4_0000) && unusual(TABLE_32, 136, 0x4_0000));
        assert!(
            unusual(TABLE_64, 135, u64::MAX) && !unusual(TABLE_32, 136, u64::MAX),
            "-1 is not 0xffffffff"
        );
        assert!(unusual(TABLE_64, 41, 40) && !unusual(TABLE_64, 41, 2) && unusual(TABLE_32, 359, 40));
        assert!(!unusual(TABLE_32, 56, u64::MAX) && !unusual(TABLE_64, 120, u64::MAX));
    }
}
