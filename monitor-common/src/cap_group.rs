//! Calls that are about a capability: a check in one of them has a row of the ledger of its own.
//!
//! The kernel asks for most capabilities in passing, too: an ioctl for CAP_SYS_MODULE to load a driver, a look into
//! `/proc` for CAP_SYS_PTRACE. Only the first check of a row makes an event, and such a look must not use up that of the
//! call which the capability is there for.

use crate::call::Abi;
use crate::caps::Cap;

/// Makes [`CapGroup`] with its numbers.
macro_rules! groups {
    ($($(#[$doc:meta])* $variant:ident = $id:literal;)*) => {
        /// A group of calls in which a capability's check is what the call is about. The numbers are part of the rows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CapGroup {
            $($(#[$doc])* $variant = $id,)*
        }

        impl CapGroup {
            /// Every group.
            pub const ALL: &[CapGroup] = &[$(CapGroup::$variant),*];
        }
    };
}

groups! {
    /// Any other call, and none.
    Other = 0;
    /// What CAP_SYS_MODULE, CAP_SYS_PTRACE and other narrow capabilities are there for.
    Own = 1;
    /// Mounts.
    Mount = 2;
    /// New and entered namespaces.
    Namespace = 3;
    /// bpf(2).
    Bpf = 4;
    /// perf_event_open(2).
    Perf = 5;
    /// Names of the machine, and swap space.
    Machine = 6;
}

impl CapGroup {
    /// True if a check for CAP_SYS_ADMIN in such a call is a question that the kernel means: without it, it refuses.
    #[inline(always)]
    pub const fn asks(self) -> bool {
        matches!(
            self,
            CapGroup::Mount | CapGroup::Namespace | CapGroup::Bpf | CapGroup::Perf | CapGroup::Machine
        )
    }
}

/// The group of a check for the capability with this number, by the call's (without the x32 bit).
#[inline(always)]
pub const fn cap_group(cap: u32, abi: Abi, nr: u32) -> CapGroup {
    const ADMIN: u32 = Cap::SysAdmin as u32;
    if cap == ADMIN {
        return match abi {
            Abi::X86_64 | Abi::X32 => admin_64(nr),
            Abi::I386 => admin_32(nr),
        };
    }
    let own = match abi {
        Abi::X86_64 => own_64(cap, nr),
        // Those with pointers to vectors or structures have numbers of their own.
        Abi::X32 => own_64(cap, nr) || own_x32(cap, nr),
        Abi::I386 => own_32(cap, nr),
    };
    if own { CapGroup::Own } else { CapGroup::Other }
}

#[inline(always)]
const fn admin_64(nr: u32) -> CapGroup {
    match nr {
        // pivot_root, mount, umount2, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr,
        // open_tree_attr.
        155 | 165 | 166 | 428..=433 | 442 | 467 => CapGroup::Mount,
        // unshare, setns.
        272 | 308 => CapGroup::Namespace,
        321 => CapGroup::Bpf,
        298 => CapGroup::Perf,
        // swapon, swapoff, sethostname, setdomainname.
        167 | 168 | 170 | 171 => CapGroup::Machine,
        _ => CapGroup::Other,
    }
}

#[inline(always)]
const fn admin_32(nr: u32) -> CapGroup {
    match nr {
        // The same, and umount.
        21 | 22 | 52 | 217 | 428..=433 | 442 | 467 => CapGroup::Mount,
        310 | 346 => CapGroup::Namespace,
        357 => CapGroup::Bpf,
        336 => CapGroup::Perf,
        87 | 115 | 74 | 121 => CapGroup::Machine,
        _ => CapGroup::Other,
    }
}

const DAC_READ_SEARCH: u32 = Cap::DacReadSearch as u32;
const SYS_MODULE: u32 = Cap::SysModule as u32;
const SYS_RAWIO: u32 = Cap::SysRawio as u32;
const SYS_CHROOT: u32 = Cap::SysChroot as u32;
const SYS_PTRACE: u32 = Cap::SysPtrace as u32;
const SYS_BOOT: u32 = Cap::SysBoot as u32;
const SYS_TIME: u32 = Cap::SysTime as u32;
const MKNOD: u32 = Cap::Mknod as u32;
const SYSLOG: u32 = Cap::Syslog as u32;
const PERFMON: u32 = Cap::Perfmon as u32;
const BPF: u32 = Cap::Bpf as u32;

#[inline(always)]
const fn own_64(cap: u32, nr: u32) -> bool {
    match cap {
        // open_by_handle_at.
        DAC_READ_SEARCH => nr == 304,
        // init_module, delete_module, finit_module.
        SYS_MODULE => matches!(nr, 175 | 176 | 313),
        // iopl, ioperm.
        SYS_RAWIO => matches!(nr, 172 | 173),
        SYS_CHROOT => nr == 161,
        // ptrace, process_vm_readv and process_vm_writev, kcmp, pidfd_getfd, process_madvise.
        SYS_PTRACE => matches!(nr, 101 | 310 | 311 | 312 | 438 | 440),
        // reboot, kexec_load, kexec_file_load.
        SYS_BOOT => matches!(nr, 169 | 246 | 320),
        // adjtimex, settimeofday, clock_settime, clock_adjtime.
        SYS_TIME => matches!(nr, 159 | 164 | 227 | 305),
        // mknod, mknodat.
        MKNOD => matches!(nr, 133 | 259),
        SYSLOG => nr == 103,
        // perf_event_open, bpf.
        PERFMON => matches!(nr, 298 | 321),
        BPF => nr == 321,
        _ => false,
    }
}

#[inline(always)]
const fn own_x32(cap: u32, nr: u32) -> bool {
    match cap {
        // ptrace, process_vm_readv, process_vm_writev.
        SYS_PTRACE => matches!(nr, 521 | 539 | 540),
        // kexec_load.
        SYS_BOOT => nr == 528,
        _ => false,
    }
}

#[inline(always)]
const fn own_32(cap: u32, nr: u32) -> bool {
    match cap {
        DAC_READ_SEARCH => nr == 342,
        SYS_MODULE => matches!(nr, 128 | 129 | 350),
        SYS_RAWIO => matches!(nr, 101 | 110),
        SYS_CHROOT => nr == 61,
        SYS_PTRACE => matches!(nr, 26 | 347 | 348 | 349 | 438 | 440),
        SYS_BOOT => matches!(nr, 88 | 283),
        // stime, settimeofday, adjtimex, clock_settime, clock_adjtime and those with times of 64 bits.
        SYS_TIME => matches!(nr, 25 | 79 | 124 | 264 | 343 | 404 | 405),
        MKNOD => matches!(nr, 14 | 297),
        SYSLOG => nr == 103,
        PERFMON => matches!(nr, 336 | 357),
        BPF => nr == 357,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_does_not_share_a_row_with_the_call_itself() {
        let group = |cap: Cap, nr| cap_group(cap as u32, Abi::X86_64, nr);
        // ioctl, readlink, openat: looks.
        assert_eq!(group(Cap::SysModule, 16), CapGroup::Other);
        assert_eq!(group(Cap::SysPtrace, 89), CapGroup::Other);
        assert_eq!(group(Cap::DacReadSearch, 257), CapGroup::Other);
        for (cap, nr) in [(Cap::SysModule, 313), (Cap::SysPtrace, 101), (Cap::DacReadSearch, 304)] {
            assert_eq!(group(cap, nr), CapGroup::Own, "{nr}");
        }
        assert_ne!(group(Cap::SysAdmin, 321), group(Cap::SysAdmin, 165), "bpf and mount");
        assert_ne!(group(Cap::SysAdmin, 298), group(Cap::SysAdmin, 272), "perf and unshare");
    }

    #[test]
    fn the_two_tables_agree() {
        let both = [
            (Cap::SysAdmin, 165, 21),
            (Cap::SysAdmin, 272, 310),
            (Cap::SysAdmin, 170, 74),
            (Cap::SysModule, 175, 128),
            (Cap::SysBoot, 169, 88),
            (Cap::Mknod, 133, 14),
            (Cap::SysTime, 227, 264),
            (Cap::SysRawio, 172, 110),
        ];
        for (cap, long, short) in both {
            let group = cap_group(cap as u32, Abi::X86_64, long);
            assert_ne!(group, CapGroup::Other, "{long}");
            assert_eq!(group, cap_group(cap as u32, Abi::I386, short), "{long}");
            // In the other table the number is another call's.
            assert_eq!(CapGroup::Other, cap_group(cap as u32, Abi::I386, long), "{long}");
        }
        assert_eq!(cap_group(Cap::SysPtrace as u32, Abi::X32, 521), CapGroup::Own);
        assert_eq!(cap_group(Cap::SysPtrace as u32, Abi::X86_64, 521), CapGroup::Other);
    }

    #[test]
    fn groups_fit_into_their_bits() {
        use crate::capability::cap_flag::{
            CHILD_NS, DENIED, GROUP, GROUP_SHIFT, MAYBE_SILENT, SILENT, VISITOR,
        };
        for group in CapGroup::ALL {
            let bits = (*group as u16) << GROUP_SHIFT;
            assert_eq!(bits & !GROUP, 0);
            assert_eq!(bits & (DENIED | CHILD_NS | SILENT | MAYBE_SILENT | VISITOR), 0);
        }
    }
}
