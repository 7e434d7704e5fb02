//! The only module that reads kernel structures, by offsets from the running kernel's BTF; what a new program is,
//! in `exec`; credentials in `creds`; what a capability check needs of the running thread in `running`, and what every
//! call of the machine needs in `calling`.
//!
//! A read that fails gives zero: the kernel hands out zeroed memory for a faulting address, and a zero
//! namespace or process id is "unknown" everywhere.

pub mod calling;
pub mod creds;
pub mod exec;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task};
use monitor_common::control::MISSING;
use monitor_common::wire::{NsSet, Task};

use crate::settings::{offset, setting};

mod registers;
mod running;
pub use registers::{WrapperRegs, call_number_from_stack};
pub use running::Running;

/// `sizeof(struct pt_regs)` on x86-64, part of the kernel's user ABI (ptrace).
const PT_REGS_SIZE: u64 = 168;
/// `THREAD_SIZE` on x86-64 without KASAN.
const THREAD_SIZE: u64 = 16384;
/// `TS_COMPAT` in `thread_info.status` (arch/x86/include/asm/thread_info.h): the call came through the 32-bit table.
const TS_COMPAT: u32 = 0x2;
/// `SECCOMP_MODE_FILTER`; the next mode, `SECCOMP_MODE_DEAD` (since 5.17), is that of a task that its filter killed.
const SECCOMP_MODE_FILTER: u32 = 2;
/// `S_IFMT`, `S_IFCHR`.
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
/// `FMODE_PATH`: the file was opened with `O_PATH`, which reaches no device.
const FMODE_PATH: u32 = 0x4000;
/// `PROC_SUPER_MAGIC`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Registers as the kernel saved them when the call entered: `struct pt_regs` of x86-64, whose layout is part of
/// the user ABI (ptrace).
#[repr(C)]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub bp: u64,
    pub bx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub ax: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub orig_ax: u64,
}

/// Where saved registers are read from, by their offset in [`Regs`].
pub trait Registers: Copy {
    /// A register.
    fn get(self, offset: usize) -> u64;
}

/// The hook's own argument, typed by BTF: the verifier allows direct reads, which cannot fault.
impl Registers for *const Regs {
    #[inline(always)]
    fn get(self, offset: usize) -> u64 {
        // SAFETY: the offset is that of a member, and the verifier checks the read.
        unsafe { *self.cast::<u8>().add(offset).cast::<u64>() }
    }
}

/// Found by ourselves: read with a helper.
impl Registers for Ptr {
    #[inline(always)]
    fn get(self, offset: usize) -> u64 {
        Ptr::get(self, offset as u32)
    }
}

/// Address of a kernel structure, or 0.
#[derive(Clone, Copy)]
pub struct Ptr(pub u64);

impl Ptr {
    /// Reads a member.
    #[inline(always)]
    pub fn get<T: Copy + Default>(self, offset: u32) -> T {
        let mut value = T::default();
        let address = (self.0 + u64::from(offset)) as *const core::ffi::c_void;
        // SAFETY: the helper writes exactly the size of `value`, checks the address itself, and fails instead of
        // faulting. The result is not looked at: on failure the helper clears its output, and a branch after each
        // read would double what the verifier has to walk.
        let _ = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address) };
        value
    }

    /// Reads a member that is a pointer.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Ptr {
        Ptr(self.get(offset))
    }
}

/// The running thread.
#[derive(Clone, Copy)]
pub struct Current {
    /// Its `task_struct`.
    pub task: Ptr,
    /// Its process.
    pub tgid: u32,
    /// Itself.
    pub tid: u32,
    /// Its cgroup, if that was read ahead.
    cgroup: Option<u64>,
}

/// Number of the running thread; for programs to which `bpf_get_current_pid_tgid` is not offered.
#[inline(always)]
pub fn current_tid() -> u32 {
    // SAFETY: a helper without arguments.
    Ptr(unsafe { bpf_get_current_task() }).get(offset!(task_pid))
}

/// Zeroes memory with one helper call: a read from address 0 fails, and the helper then clears its output. A
/// loop would cost the verifier, and before 6.x also the program, an instruction per byte.
#[inline(always)]
pub fn zero<T>(memory: &mut T) {
    // SAFETY: the helper writes exactly the size of `memory`; only plain integers and arrays of them are passed.
    let _ =
        unsafe { bpf_probe_read_kernel((&raw mut *memory).cast(), size_of::<T>() as u32, core::ptr::null()) };
}

impl Current {
    /// Asks the kernel.
    #[inline(always)]
    pub fn get() -> Self {
        let pid_tgid = bpf_get_current_pid_tgid();
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        Current { task: Ptr(task), tgid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, cgroup: None }
    }

    /// The same with its cgroup read ahead. A program that branches much must read it before: each read behind the
    /// branches is walked by the verifier once for every way there, which takes old ones minutes.
    #[inline(always)]
    pub fn with_cgroup() -> Self {
        let current = Self::get();
        Current { cgroup: Some(cgroup_of(current.task)), ..current }
    }

    /// True if the running call came through the 32-bit table.
    #[inline(always)]
    pub fn is_compat(&self) -> bool {
        self.task.get::<u32>(offset!(task_status)) & TS_COMPAT != 0
    }

    /// True if the thread has a seccomp filter.
    #[inline(always)]
    pub fn has_seccomp_filter(&self) -> bool {
        has_seccomp_filter(self.task)
    }

    /// The number (`orig_ax`) of the call that the thread is in; for hooks that are not handed the registers.
    #[inline(always)]
    pub fn call_number(&self) -> u64 {
        Registers::get(self.registers(), core::mem::offset_of!(Regs, orig_ax))
    }

    /// The thread's saved user registers.
    #[inline(always)]
    pub fn registers(&self) -> Ptr {
        if setting!(has_task_pt_regs) != 0 {
            // SAFETY: helpers of 5.15 and later, called only where they exist: the verifier removes this
            // branch elsewhere, because the setting is a constant to it.
            Ptr(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64)
        } else {
            Ptr(self.task.get::<u64>(offset!(task_stack)) + THREAD_SIZE - PT_REGS_SIZE)
        }
    }

    /// Fills the wire's description of the caller.
    #[inline(always)]
    pub fn describe(&self, out: *mut Task) {
        let parent = self.task.follow(offset!(task_real_parent));
        let cred = self.task.follow(offset!(task_cred));
        // SAFETY: `out` points to a reserved or scratch record; each member is written once.
        unsafe {
            (*out).cgroup_id = self.cgroup_id();
            (*out).comm = bpf_get_current_comm().unwrap_or_default();
            (*out).tgid = self.tgid;
            (*out).tid = self.tid;
        }
        describe_task(self.task, parent, cred, out);
    }

    /// See [`cgroup_of`].
    #[inline(always)]
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup.unwrap_or_else(|| cgroup_of(self.task))
    }

    /// Effective capabilities.
    #[inline(always)]
    pub fn caps(&self) -> u64 {
        caps_of(self.task)
    }
}

/// True if the task has a seccomp filter.
#[inline(always)]
fn has_seccomp_filter(task: Ptr) -> bool {
    let offset = offset!(task_seccomp_mode);
    offset != MISSING && task.get::<u32>(offset) >= SECCOMP_MODE_FILTER
}

/// The task's effective capabilities.
#[inline(always)]
pub fn caps_of(task: Ptr) -> u64 {
    task.follow(offset!(task_cred)).get(offset!(cred_cap_effective))
}

/// Fills what is read the same way for the caller and for a new child.
#[inline(always)]
fn describe_task(task: Ptr, parent: Ptr, cred: Ptr, out: *mut Task) {
    let loginuid = offset!(task_loginuid);
    // SAFETY: as in `Current::describe`.
    unsafe {
        (*out).start_ns = start_of(task);
        (*out).parent_start_ns = start_of(parent);
        (*out).parent_tgid = parent.get(offset!(task_tgid));
        (*out).ns_tgid = ns_pid(task.follow(offset!(task_group_leader)));
        (*out).euid = cred.get(offset!(cred_euid));
        (*out).egid = cred.get(offset!(cred_egid));
        (*out).session = session_of(task);
        (*out).loginuid = if loginuid == MISSING { u32::MAX } else { task.get(loginuid) };
    }
}

/// Fills the wire's description of a process by its task alone, which need not be running this program.
#[inline(always)]
pub fn describe_child(child: Ptr, out: *mut Task) {
    let parent = child.follow(offset!(task_real_parent));
    let cred = child.follow(offset!(task_cred));
    // SAFETY: as in `Current::describe`.
    unsafe {
        (*out).cgroup_id = cgroup_of(child);
        (*out).comm = child.get(offset!(task_comm));
        (*out).tgid = child.get(offset!(task_tgid));
        (*out).tid = child.get(offset!(task_pid));
    }
    describe_task(child, parent, cred, out);
}

/// When the task's process started.
#[inline(always)]
pub fn start_of(task: Ptr) -> u64 {
    task.follow(offset!(task_group_leader)).get(offset!(task_start))
}

/// The task's session id in the initial pid namespace, whose number is the first of each pid.
#[inline(always)]
fn session_of(task: Ptr) -> u32 {
    /// `PIDTYPE_SID`, times the size of a pointer.
    const SESSION: u32 = 3 * size_of::<u64>() as u32;
    let pid = task.follow(offset!(task_signal)).follow(offset!(signal_pids) + SESSION);
    pid.get(offset!(pid_numbers) + offset!(upid_nr))
}

/// The task's number in its own pid namespace.
#[inline(always)]
fn ns_pid(task: Ptr) -> u32 {
    pid_as_seen_by(task, task)
}

/// The task's number in the pid namespace of `viewer`, which is the task itself or its maker
/// (`task_struct.thread_pid->numbers[level].nr`).
#[inline(always)]
pub fn pid_as_seen_by(task: Ptr, viewer: Ptr) -> u32 {
    /// `sizeof(struct upid)`: an int and a pointer.
    const UPID_SIZE: u32 = 16;
    let level: u32 = viewer.follow(offset!(task_thread_pid)).get(offset!(pid_level));
    let pid = task.follow(offset!(task_thread_pid));
    pid.get(offset!(pid_numbers) + (level & 31) * UPID_SIZE + offset!(upid_nr))
}

/// kernfs id of the task's directory in the chosen cgroup hierarchy; 0 if none was chosen. The settings are
/// constants to the verifier, so only one of the ways is left.
#[inline(always)]
pub fn cgroup_of(task: Ptr) -> u64 {
    if setting!(hierarchy) == MISSING {
        return 0;
    }
    cgroup_id(cgroup_ptr(task))
}

/// The task's directory in the chosen hierarchy; without one, that of version 2.
#[inline(always)]
pub fn cgroup_ptr(task: Ptr) -> Ptr {
    let set = task.follow(offset!(task_cgroups));
    let subsys = setting!(hierarchy_subsys);
    if subsys == MISSING {
        set.follow(offset!(css_set_dfl_cgrp))
    } else {
        let css = set.follow(offset!(css_set_subsys) + subsys * size_of::<u64>() as u32);
        css.follow(offset!(css_cgroup))
    }
}

/// True if a cgroup is `top` or lies below it. Of one that lies too deep to be looked at in full it is assumed: no runtime
/// puts a container there, but whoever may make cgroups could.
#[inline(always)]
pub fn lies_within(cgroup: Ptr, top: u64) -> bool {
    /// Directories above a container's, and what it makes below.
    const MAX_DEPTH: usize = 24;
    let mut cgroup = cgroup;
    for _ in 0..MAX_DEPTH {
        if cgroup_id(cgroup) == top {
            return true;
        }
        let above = cgroup.follow(offset!(cgroup_self) + offset!(css_parent));
        if above.0 == 0 {
            return false;
        }
        cgroup = Ptr(above.0.wrapping_sub(u64::from(offset!(cgroup_self))));
    }
    true
}

/// kernfs id of a cgroup.
#[inline(always)]
pub fn cgroup_id(cgroup: Ptr) -> u64 {
    cgroup.follow(offset!(cgroup_kn)).get(offset!(kernfs_node_id))
}

/// True if the cgroup belongs to the chosen hierarchy.
#[inline(always)]
pub fn in_hierarchy(cgroup: Ptr) -> bool {
    let number: u32 = cgroup.follow(offset!(cgroup_root)).get(offset!(cgroup_root_hierarchy));
    number == setting!(hierarchy)
}

/// The task's namespaces: with `all` each kind, else those that most readers ask for (mnt, pid, user).
#[inline(always)]
pub fn namespaces(task: Ptr, all: bool, out: *mut NsSet) {
    namespaces_of(nsproxy_of(task), user_ns_of(task), all, out);
}

/// The task's set of namespaces, without that of users.
#[inline(always)]
pub fn nsproxy_of(task: Ptr) -> Ptr {
    task.follow(offset!(task_nsproxy))
}

/// Inode of the task's mount namespace.
#[inline(always)]
pub fn mount_ns_of(task: Ptr) -> u32 {
    nsproxy_of(task).follow(offset!(nsproxy_mnt)).get(offset!(mnt_ns_inum))
}

/// The task's user namespace.
#[inline(always)]
pub fn user_ns_of(task: Ptr) -> Ptr {
    task.follow(offset!(task_cred)).follow(offset!(cred_user_ns))
}

/// The same as [`namespaces`] for a set of namespaces and one of users.
#[inline(always)]
pub fn namespaces_of(proxy: Ptr, user: Ptr, all: bool, out: *mut NsSet) {
    // SAFETY: `out` points to a record or a mark; each element is written once.
    unsafe {
        let inum = &raw mut (*out).inum;
        (*inum)[0] = proxy.follow(offset!(nsproxy_mnt)).get(offset!(mnt_ns_inum));
        (*inum)[1] = proxy.follow(offset!(nsproxy_pid)).get(offset!(pid_ns_inum));
        (*inum)[2] = user.get(offset!(user_ns_inum));
        if all {
            (*inum)[3] = proxy.follow(offset!(nsproxy_net)).get(offset!(net_inum));
            (*inum)[4] = proxy.follow(offset!(nsproxy_uts)).get(offset!(uts_ns_inum));
            (*inum)[5] = proxy.follow(offset!(nsproxy_ipc)).get(offset!(ipc_ns_inum));
            (*inum)[6] = proxy.follow(offset!(nsproxy_cgroup)).get(offset!(cgroup_ns_inum));
            (*inum)[7] = proxy.follow(offset!(nsproxy_time)).get(offset!(time_ns_inum));
        } else {
            (*inum)[3] = 0;
            (*inum)[4] = 0;
            (*inum)[5] = 0;
            (*inum)[6] = 0;
            (*inum)[7] = 0;
        }
    }
}

/// Inode of the parent of the task's user namespace.
#[inline(always)]
pub fn parent_user_ns(task: Ptr) -> u32 {
    user_ns_of(task).follow(offset!(user_ns_parent)).get(offset!(user_ns_inum))
}

/// True if the child got a namespace that its maker does not have.
#[inline(always)]
pub fn namespaces_differ(parent: Ptr, child: Ptr) -> bool {
    nsproxy_of(parent).0 != nsproxy_of(child).0 || user_ns_of(parent).0 != user_ns_of(child).0
}

/// An open file, as its inode tells.
#[derive(Clone, Copy)]
pub struct Watched {
    /// One of those that are watched; otherwise the rest is zero.
    pub known: bool,
    /// A character device's number.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Inode of `/proc/kmsg` or `/proc/kcore`.
    pub ino: u64,
}

impl Watched {
    /// Not watched, or not opened.
    pub const NONE: Watched = Watched { known: false, major: 0, minor: 0, ino: 0 };
}

/// True for the devices that lead to the kernel's log, memory or I/O ports: `/dev/mem`, `/dev/kmem`,
/// `/dev/port`, `/dev/kmsg` (major 1) and the model-specific registers (major 202).
#[inline(always)]
pub fn is_watched_device(major: u32, minor: u32) -> bool {
    major == 202 || (major == 1 && (minor == 1 || minor == 2 || minor == 4 || minor == 11))
}

/// The running thread's open file `fd`.
#[inline(always)]
pub fn watched_file(current: &Current, fd: u32) -> Watched {
    let table = current.task.follow(offset!(task_files)).follow(offset!(files_fdt));
    if fd >= table.get::<u32>(offset!(fdtable_max_fds)) {
        return Watched::NONE;
    }
    let file = table.follow(offset!(fdtable_fd)).follow(fd * size_of::<u64>() as u32);
    let inode = file.follow(offset!(file_inode));
    let mode: u16 = inode.get(offset!(inode_mode));
    let reached = || file.get::<u32>(offset!(file_mode)) & FMODE_PATH == 0;
    if mode & S_IFMT == S_IFCHR {
        let dev: u32 = inode.get(offset!(inode_rdev));
        let (major, minor) = (dev >> 20, dev & 0xf_ffff);
        if is_watched_device(major, minor) && reached() {
            return Watched { known: true, major, minor, ino: 0 };
        }
        return Watched::NONE;
    }
    let ino: u64 = inode.get(offset!(inode_ino));
    if ino != 0
        && (ino == setting!(kmsg_ino) || ino == setting!(kcore_ino))
        && inode.follow(offset!(inode_sb)).get::<u64>(offset!(sb_magic)) == PROC_SUPER_MAGIC
        && reached()
    {
        return Watched { known: true, major: 0, minor: 0, ino };
    }
    Watched::NONE
}
