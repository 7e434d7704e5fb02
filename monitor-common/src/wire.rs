//! Record layouts of the ring buffer.
//!
//! Only integers and arrays of integers, in an order that leaves no padding: reserved ring memory is not
//! zeroed, so a hole would carry old bytes of kernel memory out.

use core::mem::{offset_of, size_of};

use crate::capability::CapSets;

/// Kinds of record. Part of the wire format: never renumbered.
pub mod kind {
    /// [`super::CallRecord`], or [`super::OpenRecord`] if the length says so.
    pub const CALL: u16 = 1;
    /// [`super::ExecRecord`].
    pub const EXEC: u16 = 2;
    /// [`super::ForkRecord`].
    pub const FORK: u16 = 3;
    /// [`super::ExitRecord`].
    pub const EXIT: u16 = 4;
    /// [`super::CgroupRecord`]: a directory was made.
    pub const CGROUP_MKDIR: u16 = 5;
    /// [`super::CgroupRecord`]: a directory was removed.
    pub const CGROUP_RMDIR: u16 = 6;
    /// [`super::AttachRecord`].
    pub const CGROUP_ATTACH: u16 = 7;
    /// Never on the wire: the ledger's slot for records of canaries, whatever their kind. On the wire such a
    /// record has its own kind with [`CANARY_BIT`] set.
    pub const CANARY: u16 = 8;
    /// [`super::NsproxyRecord`].
    pub const NSPROXY: u16 = 9;
    /// [`super::CapabilityRecord`].
    pub const CAPABILITY: u16 = 10;
    /// [`super::GainRecord`]: credentials grew by a known door.
    pub const GAINED: u16 = 11;
    /// [`super::GainRecord`]: credentials were found to have grown, and no door was seen.
    pub const GAINED_UNSEEN: u16 = 12;

    /// Set in the kind of a record that a canary made: a call by which the daemon tests its own hooks.
    pub const CANARY_BIT: u16 = 1 << 15;
}

/// Highest record kind, plus one.
pub const KIND_SLOTS: usize = 13;

/// Names of the record kinds by number, for labels; there is no kind 0.
pub const KIND_NAMES: [&str; KIND_SLOTS] = [
    "unknown",
    "call",
    "exec",
    "fork",
    "exit",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "cgroup_attach",
    "canary",
    "nsproxy",
    "capability",
    "gained",
    "gained_unseen",
];

const _: () = assert!(kind::GAINED_UNSEEN as usize + 1 == KIND_SLOTS, "each kind has its name");

/// First in each record.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// [`crate::WIRE_VERSION`].
    pub version: u16,
    /// One of [`kind`], with [`kind::CANARY_BIT`] if a canary made the record.
    pub kind: u16,
    /// Length of the whole record in bytes.
    pub len: u32,
    /// `bpf_ktime_get_boot_ns` when the record was reserved.
    pub boot_ns: u64,
}

/// Who did it: the calling task as the kernel knows it when the call returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Task {
    /// kernfs id of the task's directory in the chosen cgroup hierarchy; 0 if none is.
    pub cgroup_id: u64,
    /// `start_boottime` of the thread group leader.
    pub start_ns: u64,
    /// The same of the parent process (`real_parent`).
    pub parent_start_ns: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The parent's process id in the initial pid namespace.
    pub parent_tgid: u32,
    /// Process id in the task's own (innermost) pid namespace.
    pub ns_tgid: u32,
    /// Effective user id in the initial user namespace.
    pub euid: u32,
    /// Effective group id in the initial user namespace.
    pub egid: u32,
    /// Login user id; `u32::MAX` without a login.
    pub loginuid: u32,
    /// Session id (`signal->pids[PIDTYPE_SID]`) in the initial pid namespace; 0 if not known.
    pub session: u32,
    /// Name of the thread, NUL padded; the process chooses it.
    pub comm: [u8; 16],
}

/// Inode numbers of one task's namespaces; 0 where not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NsSet {
    /// mnt, pid (for children), user, net, uts, ipc, cgroup, time: the order of `ns.*` field arguments.
    pub inum: [u32; 8],
}

/// Bits of [`CallRecord::flags`].
pub mod call_flag {
    /// The hook on seccomp saw the refusal.
    pub const SECCOMP_REFUSED: u32 = 1 << 0;
    /// The task has a seccomp filter, and no hook sits on seccomp.
    pub const SECCOMP_POSSIBLE: u32 = 1 << 1;
    /// Capability checks are seen in this mode and on this kernel.
    pub const CAPS_VISIBLE: u32 = 1 << 2;
    /// The device controller was asked about `major:minor` during the call.
    pub const DEVICE_ASKED: u32 = 1 << 3;
    /// `major:minor` or `file_ino` is that of the opened file's inode.
    pub const FILE_KNOWN: u32 = 1 << 4;
    /// `caps_before` and `ns_before` were taken during the call, before it changed anything.
    pub const BEFORE_KNOWN: u32 = 1 << 5;
    /// `claimed` holds what stood in user memory.
    pub const CLAIMED: u32 = 1 << 6;
    /// `ns_after` is that of the child that clone made.
    pub const CHILD: u32 = 1 << 7;
    /// `ns_before` is known although `caps_before` is not: a user namespace was made without any check.
    pub const NS_BEFORE_KNOWN: u32 = 1 << 8;
}

/// A watched call that returned.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CallRecord {
    /// Kind [`kind::CALL`].
    pub header: Header,
    /// The caller.
    pub task: Task,
    /// Wire number of [`crate::call::Call`].
    pub call: u16,
    /// Wire number of [`crate::call::Abi`].
    pub abi: u16,
    /// Bits of [`call_flag`].
    pub flags: u32,
    /// The system call's number, without the x32 bit.
    pub nr: u32,
    /// Zero.
    pub pad: u32,
    /// What the call returned; an error is negative.
    pub ret: i64,
    /// The first four arguments as the registers held them.
    pub args: [u64; 4],
    /// What the arguments pointed to, decoded per call (see the programs' `user` module): user memory, so a claim.
    pub claimed: [u64; 4],
    /// Effective capabilities before the call.
    pub caps_before: u64,
    /// Effective capabilities after the call.
    pub caps_after: u64,
    /// Capabilities asked for and not found during the call.
    pub caps_denied: u64,
    /// Capabilities asked for and found during the call.
    pub caps_granted: u64,
    /// Namespaces before the call.
    pub ns_before: NsSet,
    /// Namespaces after the call.
    pub ns_after: NsSet,
    /// Device number of the opened or asked for device.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Inode number of the opened file in procfs; 0 for devices.
    pub file_ino: u64,
}

/// Longest claimed path that is carried, in bytes, its NUL included.
pub const CLAIMED_PATH: usize = 256;

/// A [`CallRecord`] of the open family, with the path that the caller gave.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OpenRecord {
    /// The call.
    pub call: CallRecord,
    /// Bytes of `path` that are filled, without the NUL; 0 if it could not be read.
    pub path_len: u32,
    /// Zero.
    pub pad: u32,
    /// The path, a claim; bytes behind `path_len` are zero.
    pub path: [u8; CLAIMED_PATH],
}

/// Components of an executable's path begin below this place of [`ExecRecord::text`].
pub const EXE_TEXT: usize = 1024;
/// Components of the working directory behind it begin below this place.
pub const CWD_TEXT: usize = 2048;
/// Longest command line that is carried, in bytes.
pub const ARGS_TEXT: usize = 1024;
/// Room for all three as the verifier sees it; they fill less (see [`ExecRecord::text`]).
pub const EXEC_TEXT: usize = 4096 + ARGS_TEXT;

/// Bits of [`ExecRecord::flags`].
pub mod exec_flag {
    /// The executable's path had more components than fit.
    pub const EXE_TRUNCATED: u32 = 1 << 0;
    /// The working directory's path had.
    pub const CWD_TRUNCATED: u32 = 1 << 1;
    /// The executable lies on an overlayfs and has a file of its own in the upper layer (`ovl_inode.__upperdentry`):
    /// made there, or copied up when somebody changed it, its owner or its mode.
    pub const UPPER_LAYER: u32 = 1 << 2;
    /// The executable is what `memfd_create` makes: a file without a directory, on the kernel's own tmpfs.
    pub const MEMFD: u32 = 1 << 3;
}

/// A process began to run another program.
///
/// On the wire it ends where `text` is no longer filled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExecRecord {
    /// Kind [`kind::EXEC`].
    pub header: Header,
    /// The process, after the exec.
    pub task: Task,
    /// Inode number of the executable.
    pub exe_ino: u64,
    /// Device of the executable's file system, `major << 20 | minor` (the kernel's `dev_t`).
    pub exe_dev: u32,
    /// Inode of the mount namespace that the executable's mount belongs to; 0 for a memfd or another internal mount.
    pub exe_mnt_ns: u32,
    /// The process's own namespaces, of all kinds.
    pub ns: NsSet,
    /// The thread's credentials after the exec.
    pub caps: CapSets,
    /// Bits of [`exec_flag`].
    pub flags: u32,
    /// Device number of the controlling terminal (`tty_devnum`), `major << 20 | minor`; 0 without one.
    pub tty: u32,
    /// Bytes of the executable's path in `text`.
    pub exe_len: u32,
    /// Bytes of the working directory's path in `text`.
    pub cwd_len: u32,
    /// Bytes of the command line in `text`.
    pub args_len: u32,
    /// Bytes of the whole command line; more than `args_len` if it was cut, or could not be read.
    pub args_total: u32,
    /// The path of the executable and that of the working directory, each as components from the leaf to the root
    /// that end with a NUL; then the arguments as the exec put them into the new program's memory, each with its NUL.
    pub text: [u8; EXEC_TEXT],
}

/// A process was made (threads are not reported).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ForkRecord {
    /// Kind [`kind::FORK`].
    pub header: Header,
    /// The new process; its parent is the process that inherits it, not always the caller.
    pub task: Task,
    /// The process that called fork or clone.
    pub caller_tgid: u32,
    /// Zero.
    pub pad: u32,
    /// Its start time.
    pub caller_start_ns: u64,
}

/// A process ended: its last thread did.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExitRecord {
    /// Kind [`kind::EXIT`].
    pub header: Header,
    /// The process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
    /// When it started.
    pub start_ns: u64,
}

/// Room for a cgroup's path.
pub const CGROUP_PATH: usize = 512;

/// A directory of the chosen cgroup hierarchy came or went.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CgroupRecord {
    /// Kind [`kind::CGROUP_MKDIR`] or [`kind::CGROUP_RMDIR`].
    pub header: Header,
    /// Its kernfs id.
    pub cgroup_id: u64,
    /// Bytes of `path` that are filled, without the NUL.
    pub path_len: u32,
    /// Zero.
    pub pad: u32,
    /// Path below the root of the hierarchy; bytes behind `path_len` are zero.
    pub path: [u8; CGROUP_PATH],
}

/// A process was moved to another directory of the chosen cgroup hierarchy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AttachRecord {
    /// Kind [`kind::CGROUP_ATTACH`].
    pub header: Header,
    /// Where it is now.
    pub cgroup_id: u64,
    /// When the process started.
    pub start_ns: u64,
    /// The process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// A task's namespaces are about to change (`switch_task_namespaces`): by setns, unshare, or any other door.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NsproxyRecord {
    /// Kind [`kind::NSPROXY`].
    pub header: Header,
    /// Whose.
    pub task: Task,
    /// What it gets. The user namespace is that of its credentials at the moment: unshare replaces them after this,
    /// setns before.
    pub ns_after: NsSet,
}

/// The first capability check of its kind: a row of the ledger was made for it ([`crate::capability::CapKey`]).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CapabilityRecord {
    /// Kind [`kind::CAPABILITY`].
    pub header: Header,
    /// Who was checked.
    pub task: Task,
    /// Its namespaces.
    pub ns: NsSet,
    /// Its effective capabilities.
    pub effective: u64,
    /// The capability's number.
    pub cap: u16,
    /// Bits of [`crate::capability::cap_flag`].
    pub flags: u16,
    /// Number of the system call that made the check, without the x32 bit; [`crate::capability::NO_CALL`] outside of one.
    pub nr: u32,
    /// Wire number of [`crate::call::Abi`] of that call.
    pub abi: u16,
    /// Zero.
    pub pad: u16,
    /// Inode of the user namespace in which the capability was asked for.
    pub target_ns: u32,
}

/// Bits of [`GainRecord::flags`].
pub mod gain_flag {
    /// The user namespace in which the sets count now is not the initial one.
    pub const CHILD_NS: u16 = 1 << 0;
    /// The task is a visitor in its cgroup, see [`crate::capability::cap_flag::VISITOR`].
    pub const VISITOR: u16 = 1 << 1;
    /// `before` is what the task that made this one had: it is a new child.
    pub const CHILD: u16 = 1 << 2;
}

/// A task's credentials are larger than the last that were known of it, or count in another user namespace.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GainRecord {
    /// Kind [`kind::GAINED`] or [`kind::GAINED_UNSEEN`].
    pub header: Header,
    /// Whose.
    pub task: Task,
    /// Its namespaces; the third is the user namespace in which `after` counts.
    pub ns: NsSet,
    /// What was known of it before.
    pub before: CapSets,
    /// What it has.
    pub after: CapSets,
    /// Inode of the user namespace in which `before` counted.
    pub user_ns_before: u32,
    /// Wire number of [`crate::capability::Door`]; 0 without one.
    pub door: u16,
    /// Bits of [`gain_flag`].
    pub flags: u16,
}

/// Fails the build if a type has padding or another size than stated.
macro_rules! assert_layout {
    ($($ty:ty: $size:expr, last $last:ident: $last_ty:ty;)*) => {
        $(const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!(offset_of!($ty, $last) + size_of::<$last_ty>() == $size);
        };)*
    };
}

assert_layout! {
    Header: 16, last boot_ns: u64;
    Task: 72, last comm: [u8; 16];
    NsSet: 32, last inum: [u32; 8];
    CallRecord: 288, last file_ino: u64;
    OpenRecord: 288 + 8 + CLAIMED_PATH, last path: [u8; CLAIMED_PATH];
    ExecRecord: 16 + 72 + 72 + 40 + EXEC_TEXT, last text: [u8; EXEC_TEXT];
    ForkRecord: 104, last caller_start_ns: u64;
    ExitRecord: 32, last start_ns: u64;
    CgroupRecord: 32 + CGROUP_PATH, last path: [u8; CGROUP_PATH];
    AttachRecord: 40, last pad: u32;
    NsproxyRecord: 120, last ns_after: NsSet;
    CapabilityRecord: 16 + 72 + 32 + 8 + 16, last target_ns: u32;
    GainRecord: 16 + 72 + 32 + 80 + 8, last flags: u16;
}
