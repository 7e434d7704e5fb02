//! What is not an event: settings that the daemon gives the programs, and the ledger that they keep.

use crate::call::CALL_SLOTS;
use crate::wire::KIND_SLOTS;

/// Offset that stands for "this kernel has no such member".
pub const MISSING: u32 = u32::MAX;

/// Makes [`Offsets`] and the description from which the daemon fills it.
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $ty:literal, $path:literal, $need:ident;)*) => {
        /// Byte offsets of the kernel structure members that the programs read, and a structure's size, from the running kernel's BTF.
        ///
        /// rustc emits no CO-RE relocations, so a fixed offset would silently be wrong on another kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* #[doc = concat!("`", $ty, ".", $path, "`")] pub $name: u32,)*
        }

        impl Offsets {
            /// How each offset is found, in the order of the members.
            pub const SPEC: &[OffsetSpec] = &[
                $(OffsetSpec { name: stringify!($name), ty: $ty, path: $path, need: Need::$need },)*
            ];

            /// Number of offsets.
            pub const COUNT: usize = Self::SPEC.len();

            /// Builds the structure from values in the order of [`Offsets::SPEC`].
            pub const fn from_array(values: [u32; Self::COUNT]) -> Self {
                let mut i = 0;
                $(let $name = values[i]; i += 1;)*
                let _ = i;
                Offsets { $($name,)* }
            }

            /// Every offset [`MISSING`]: what the object file holds before the daemon fills it.
            pub const UNSET: Self = Self::from_array([MISSING; Self::COUNT]);
        }
    };
}

/// Where an offset is found.
#[derive(Clone, Copy, Debug)]
pub struct OffsetSpec {
    /// The member of [`Offsets`].
    pub name: &'static str,
    /// The kernel structure.
    pub ty: &'static str,
    /// The member's name; dots descend into members that are structures themselves. Empty for the structure's size.
    pub path: &'static str,
    /// What its absence means.
    pub need: Need,
}

/// What it means when a kernel lacks a structure member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The programs cannot do their work.
    Required,
    /// Depends on the kernel's configuration; the value is reported as unknown.
    Optional,
}

offsets! {
    task_status = "task_struct", "thread_info.status", Required;
    task_stack = "task_struct", "stack", Required;
    task_tgid = "task_struct", "tgid", Required;
    task_exit_code = "task_struct", "exit_code", Required;
    task_pid = "task_struct", "pid", Required;
    task_real_parent = "task_struct", "real_parent", Required;
    task_group_leader = "task_struct", "group_leader", Required;
    /// Since 5.5.
    task_start = "task_struct", "start_boottime", Required;
    /// Execs so far, of 64 bits since 5.7.
    task_exec_id = "task_struct", "self_exec_id", Required;
    task_cred = "task_struct", "cred", Required;
    /// What the task is to others; [`Offsets::task_cred`] differs from it while the kernel acts for somebody else.
    task_real_cred = "task_struct", "real_cred", Required;
    task_nsproxy = "task_struct", "nsproxy", Required;
    task_mm = "task_struct", "mm", Required;
    task_files = "task_struct", "files", Required;
    task_comm = "task_struct", "comm", Required;
    task_signal = "task_struct", "signal", Required;
    task_fs = "task_struct", "fs", Required;
    /// Threads of the process that have not yet begun to end.
    signal_live = "signal_struct", "live", Required;
    /// Pointers, one per kind of id, by `enum pid_type` (since 4.19).
    signal_pids = "signal_struct", "pids", Required;
    /// The controlling terminal. This and the terminal's number: `CONFIG_TTY`.
    signal_tty = "signal_struct", "tty", Optional;
    tty_driver = "tty_struct", "driver", Optional;
    tty_index = "tty_struct", "index", Optional;
    tty_driver_major = "tty_driver", "major", Optional;
    tty_driver_minor = "tty_driver", "minor_start", Optional;
    task_thread_pid = "task_struct", "thread_pid", Required;
    task_cgroups = "task_struct", "cgroups", Required;
    /// `CONFIG_SECCOMP`.
    task_seccomp_mode = "task_struct", "seccomp.mode", Optional;
    /// `CONFIG_AUDIT`.
    task_loginuid = "task_struct", "loginuid", Optional;
    pid_level = "pid", "level", Required;
    pid_numbers = "pid", "numbers", Required;
    upid_nr = "upid", "nr", Required;
    cred_euid = "cred", "euid", Required;
    cred_egid = "cred", "egid", Required;
    cred_uid = "cred", "uid", Required;
    cred_cap_inheritable = "cred", "cap_inheritable", Required;
    cred_cap_permitted = "cred", "cap_permitted", Required;
    cred_cap_effective = "cred", "cap_effective", Required;
    cred_cap_bounding = "cred", "cap_bset", Required;
    cred_cap_ambient = "cred", "cap_ambient", Required;
    cred_user_ns = "cred", "user_ns", Required;
    nsproxy_mnt = "nsproxy", "mnt_ns", Required;
    nsproxy_pid = "nsproxy", "pid_ns_for_children", Required;
    nsproxy_net = "nsproxy", "net_ns", Required;
    nsproxy_uts = "nsproxy", "uts_ns", Required;
    nsproxy_ipc = "nsproxy", "ipc_ns", Required;
    nsproxy_cgroup = "nsproxy", "cgroup_ns", Required;
    /// Since 5.6.
    nsproxy_time = "nsproxy", "time_ns", Required;
    mnt_ns_inum = "mnt_namespace", "ns.inum", Required;
    pid_ns_inum = "pid_namespace", "ns.inum", Required;
    user_ns_inum = "user_namespace", "ns.inum", Required;
    user_ns_parent = "user_namespace", "parent", Required;
    user_ns_owner = "user_namespace", "owner", Required;
    user_ns_level = "user_namespace", "level", Required;
    net_inum = "net", "ns.inum", Required;
    uts_ns_inum = "uts_namespace", "ns.inum", Required;
    ipc_ns_inum = "ipc_namespace", "ns.inum", Required;
    cgroup_ns_inum = "cgroup_namespace", "ns.inum", Required;
    time_ns_inum = "time_namespace", "ns.inum", Required;
    mm_exe_file = "mm_struct", "exe_file", Required;
    mm_arg_start = "mm_struct", "arg_start", Required;
    mm_arg_end = "mm_struct", "arg_end", Required;
    fs_dentry = "fs_struct", "pwd.dentry", Required;
    fs_mnt = "fs_struct", "pwd.mnt", Required;
    file_inode = "file", "f_inode", Required;
    file_mode = "file", "f_mode", Required;
    file_dentry = "file", "f_path.dentry", Required;
    file_mnt = "file", "f_path.mnt", Required;
    files_fdt = "files_struct", "fdt", Required;
    fdtable_max_fds = "fdtable", "max_fds", Required;
    fdtable_fd = "fdtable", "fd", Required;
    inode_mode = "inode", "i_mode", Required;
    inode_rdev = "inode", "i_rdev", Required;
    inode_ino = "inode", "i_ino", Required;
    inode_sb = "inode", "i_sb", Required;
    /// Size of the structure: a file system keeps what is its own behind it.
    inode_size = "inode", "", Required;
    sb_magic = "super_block", "s_magic", Required;
    sb_dev = "super_block", "s_dev", Required;
    dentry_parent = "dentry", "d_parent", Required;
    dentry_name = "dentry", "d_name.name", Required;
    dentry_name_len = "dentry", "d_name.len", Required;
    mount_mnt = "mount", "mnt", Required;
    mount_parent = "mount", "mnt_parent", Required;
    mount_mountpoint = "mount", "mnt_mountpoint", Required;
    mount_ns = "mount", "mnt_ns", Required;
    vfsmount_root = "vfsmount", "mnt_root", Required;
    css_set_dfl_cgrp = "css_set", "dfl_cgrp", Required;
    /// Pointers, one per controller, by `enum cgroup_subsys_id`.
    css_set_subsys = "css_set", "subsys", Required;
    css_cgroup = "cgroup_subsys_state", "cgroup", Required;
    /// Of the directory above.
    css_parent = "cgroup_subsys_state", "parent", Required;
    /// The directory's own `cgroup_subsys_state`.
    cgroup_self = "cgroup", "self", Required;
    cgroup_kn = "cgroup", "kn", Required;
    cgroup_root = "cgroup", "root", Required;
    cgroup_root_hierarchy = "cgroup_root", "hierarchy_id", Required;
    kernfs_node_id = "kernfs_node", "id", Required;
}

/// Read-only settings of the programs, besides [`Offsets`] and the number tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// 1 if the helper `bpf_task_pt_regs` exists (since 5.15); without it the registers are found
    /// from the top of the kernel stack, which is right as long as there is no FRED (before 6.9).
    pub has_task_pt_regs: u32,
    /// 1 if a probe sits on `__seccomp_filter`: its refusals are facts, and need not be inferred.
    pub seccomp_hooked: u32,
    /// 1 if a probe sees capability checks.
    pub caps_hooked: u32,
    /// 1 if BTF tells what the argument of every hooked wrapper points to, so that it can be read directly.
    pub wrappers_typed: u32,
    /// Inode number of `/proc/kmsg`, the same in each instance of procfs.
    pub kmsg_ino: u64,
    /// Inode number of `/proc/kcore`; 0 if this kernel has none.
    pub kcore_ino: u64,
    /// Number of the hierarchy by which cgroups are known (`cgroup_root.hierarchy_id`; 0 is version 2);
    /// [`MISSING`] if there is none: then every cgroup's id is 0.
    pub hierarchy: u32,
    /// Place in `css_set.subsys` of the version 1 controller that leads to it; [`MISSING`] for version 2.
    pub hierarchy_subsys: u32,
    /// 1 if every known door by which credentials may grow is watched: else that they grew proves nothing.
    pub doors_watched: u32,
    /// Inode number of the host's mount namespace; 0 if unknown.
    pub host_mnt_ns: u32,
}

impl Settings {
    /// What the object file holds before the daemon fills it.
    pub const UNSET: Self = Settings {
        has_task_pt_regs: 0,
        seccomp_hooked: 0,
        caps_hooked: 0,
        wrappers_typed: 0,
        kmsg_ino: 0,
        kcore_ino: 0,
        hierarchy: MISSING,
        hierarchy_subsys: MISSING,
        doors_watched: 0,
        host_mnt_ns: 0,
    };
}

/// The ledger of one kind of record on one CPU: `seen = sent + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Happened, and was of interest.
    pub seen: u64,
    /// Went into the ring buffer.
    pub sent: u64,
    /// Did not fit into the ring buffer.
    pub lost: u64,
    /// Of those, how many found no room in the table behind [`LostKey`].
    pub unattributed: u64,
}

/// A task whose records are canaries, for ever: another task with the same id started at another time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CanaryTask {
    /// `start_boottime` of the thread; 0 while there is none.
    pub start_ns: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Zero.
    pub pad: u32,
}

/// The tasks whose records are canaries: the daemon's canary thread, and the child that it made last.
pub type CanaryTasks = [CanaryTask; 2];

/// Slots of the ledger: one per watched call, then one per kind of life cycle record, then the canaries'.
pub const COUNTER_SLOTS: usize = CALL_SLOTS + KIND_SLOTS;

/// Key of the table that says whose records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LostKey {
    /// The cgroup of the task whose record it was.
    pub cgroup_id: u64,
    /// Slot of the ledger.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// Bound of the table behind [`LostKey`]; what has no room there is in [`Counter::unattributed`].
pub const LOST_ENTRIES: u32 = 8192;
