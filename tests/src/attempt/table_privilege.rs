//! Attempts on capabilities and namespaces: capset, setns, unshare, clone, clone3.

use libc::{CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, SIGCHLD};
use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;
use monitor_common::verdict::RefusedBy;

use super::prep::{self, CapSets};
use super::raw::{Arena, call};
use super::{Attempt, BOTH, BY_CAPABILITY, Want, row, wait};
use crate::cgroup;

/// Docker's default profile answers clone3 with `ENOSYS`, so that the C library falls back to clone.
const CLONE3_BY_SECCOMP: Want = Want::Refused(RefusedBy::Seccomp, libc::ENOSYS);

/// A machine may guard its process 1 by a module that asks for no capability: then nobody can be named.
const INIT: Want = Want::Any(&[Want::Allowed, Want::Refused(RefusedBy::Other, libc::EPERM)]);
/// `CLONE_INTO_CGROUP` (clone3 alone, since 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_NEWTIME` (unshare, setns and clone3, since 5.6).
const CLONE_NEWTIME: u64 = 0x80;
/// Kernels can be built without time namespaces.
const TIME_NS: Want = Want::Any(&[Want::Allowed, Want::Failed(libc::EINVAL)]);

pub(super) const ROWS: &[Attempt] = &[
    row("capset-same", Call::Capset, BOTH, Want::Allowed, |arena, abi| {
        let sets = prep::capget(arena);
        prep::capset(arena, abi, prep::cap_version(), 0, sets)
    })
    .what("sets the capabilities that it has")
    .contained(Want::Allowed),
    row("capset-drop", Call::Capset, BOTH, Want::Allowed, |arena, abi| {
        let sets = prep::capget(arena);
        let mask = !Cap::Kill.mask();
        let fewer = CapSets { effective: sets.effective & mask, permitted: sets.permitted & mask, ..sets };
        prep::capset(arena, abi, prep::cap_version(), 0, fewer)
    })
    .done(&[("cap.dropped", "CAP_KILL")])
    .what("drops CAP_KILL")
    .contained(Want::Allowed),
    row("capset-gain", Call::Capset, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::Kill]);
        let sets = prep::capget(arena);
        let more = CapSets {
            effective: sets.effective | Cap::Kill.mask(),
            permitted: sets.permitted | Cap::Kill.mask(),
            ..sets
        };
        prep::capset(arena, abi, prep::cap_version(), 0, more)
    })
    .what("asks for CAP_KILL after it was dropped")
    .contained(BY_CAPABILITY)
    .drops(),
    row("capset-other", Call::Capset, BOTH, Want::Refused(RefusedBy::Other, libc::EPERM), |arena, abi| {
        let sets = prep::capget(arena);
        // SAFETY: a plain question.
        let parent = unsafe { libc::getppid() };
        prep::capset(arena, abi, prep::cap_version(), parent.max(1), sets)
    })
    .what("sets the capabilities of another process")
    .harmless("the kernel has refused this since 2.6.25")
    .contained(Want::Refused(RefusedBy::Other, libc::EPERM)),
    row("capset-version", Call::Capset, BOTH, Want::Failed(libc::EINVAL), |arena, abi| {
        prep::capset(arena, abi, 0, 0, prep::capget(arena))
    })
    .what("passes a version that does not exist")
    .contained(Want::Failed(libc::EINVAL)),
    row("capset-badpointer", Call::Capset, BOTH, Want::Failed(libc::EFAULT), |_, abi| {
        let nr = if abi == Abi::I386 { 185 } else { libc::SYS_capset as u32 };
        // SAFETY: the pointers are meant to be wrong: page 0 is never mapped.
        unsafe { call(abi, nr, [8, 8, 0, 0, 0, 0]) }
    })
    .what("passes no capabilities at all")
    .contained(Want::Failed(libc::EFAULT)),
    row("setns-badfd", Call::Setns, BOTH, Want::Failed(libc::EBADF), |_, abi| setns(abi, -1, 0))
        .what("enters the namespace of no file")
        .harmless("there is no file -1")
        .granted("SYS_ADMIN", Want::Failed(libc::EBADF)),
    row("setns-uts", Call::Setns, BOTH, Want::Allowed, |_, abi| {
        setns(abi, prep::open_fd("/proc/self/ns/uts"), CLONE_NEWUTS)
    })
    .what("enters the UTS namespace that it is in")
    .granted("SYS_ADMIN", Want::Allowed),
    row("setns-mnt", Call::Setns, BOTH, Want::Allowed, |_, abi| {
        setns(abi, prep::open_fd("/proc/self/ns/mnt"), CLONE_NEWNS)
    })
    .what("enters the mount namespace that it is in")
    .granted("SYS_ADMIN", Want::Allowed),
    row("setns-init", Call::Setns, BOTH, Want::Any(&[Want::Allowed, Want::Failed(libc::EBADF)]), |_, abi| {
        setns(abi, prep::open_fd("/proc/1/ns/uts"), 0)
    })
    // Process 1 shows its namespaces only to processes with all of its capabilities.
    .what("enters the UTS namespace of process 1")
    .granted("SYS_ADMIN", Want::Allowed),
    row("setns-wrong-type", Call::Setns, BOTH, Want::Failed(libc::EINVAL), |_, abi| {
        setns(abi, prep::open_fd("/proc/self/ns/uts"), CLONE_NEWNS)
    })
    .what("takes a UTS namespace for a mount namespace")
    .granted("SYS_ADMIN", Want::Failed(libc::EINVAL)),
    row("setns-nocap", Call::Setns, BOTH, BY_CAPABILITY, |arena, abi| {
        let fd = prep::open_fd("/proc/self/ns/uts");
        prep::without(arena, &[Cap::SysAdmin]);
        setns(abi, fd, CLONE_NEWUTS)
    })
    .what("enters its UTS namespace without CAP_SYS_ADMIN")
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("setns-pidfd", Call::Setns, BOTH, Want::Allowed, |_, abi| setns(abi, own_pidfd(), CLONE_NEWUTS))
        .asked(&[("evt.flags", "CLONE_NEWUTS")])
        .what("enters its own UTS namespace, given by a process")
        .granted("SYS_ADMIN", Want::Allowed),
    row("setns-pidfd-init", Call::Setns, BOTH, INIT, |_, abi| setns(abi, pidfd(1), CLONE_NEWUTS))
        .asked(&[("evt.flags", "CLONE_NEWUTS")])
        .what("enters the UTS namespace of process 1, given by that process")
        .granted("SYS_ADMIN", Want::Allowed),
    row("setns-pidfd-nokind", Call::Setns, BOTH, Want::Failed(libc::EINVAL), |_, abi| {
        setns(abi, own_pidfd(), 0)
    })
    .what("names a process and no kind of namespace")
    .granted("SYS_ADMIN", Want::Failed(libc::EINVAL)),
    row("setns-pidfd-nocap", Call::Setns, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysAdmin]);
        setns(abi, own_pidfd(), CLONE_NEWUTS)
    })
    .what("enters its own UTS namespace without CAP_SYS_ADMIN, given by a process")
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("setns-pidfd-parent-nocap", Call::Setns, BOTH, BY_CAPABILITY, |arena, abi| {
        // SAFETY: a plain question.
        let parent = pidfd(unsafe { libc::getppid() });
        prep::without(arena, &[Cap::SysAdmin, Cap::SysPtrace]);
        setns(abi, parent, CLONE_NEWUTS)
    })
    .what("enters the UTS namespace of a process that has more capabilities, given by that process")
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("unshare-uts", Call::Unshare, BOTH, Want::Allowed, |_, abi| unshare(abi, CLONE_NEWUTS))
        .done(&[("ns.changed", "uts")])
        .what("moves into a new UTS namespace")
        .granted("SYS_ADMIN", Want::Allowed),
    row("unshare-mnt", Call::Unshare, BOTH, Want::Allowed, |_, abi| unshare(abi, CLONE_NEWNS))
        .done(&[("ns.changed", "mnt")])
        .what("moves into a new mount namespace")
        .granted("SYS_ADMIN", Want::Allowed),
    row("unshare-user", Call::Unshare, BOTH, Want::Allowed, |_, abi| unshare(abi, CLONE_NEWUSER))
        .done(&[("ns.changed", "user")])
        .what("moves into a new user namespace, with every capability inside it")
        .granted("SYS_ADMIN", Want::Allowed),
    row("unshare-badflags", Call::Unshare, BOTH, Want::Failed(libc::EINVAL), |_, abi| unshare(abi, 1))
        .what("passes a flag that does not exist")
        .granted("SYS_ADMIN", Want::Failed(libc::EINVAL)),
    row("unshare-nocap", Call::Unshare, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysAdmin]);
        unshare(abi, CLONE_NEWUTS)
    })
    .asked(&[("evt.flags", "CLONE_NEWUTS")])
    .what("asks for a new UTS namespace without CAP_SYS_ADMIN")
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("clone-uts", Call::Clone, BOTH, Want::Allowed, |_, abi| clone(abi, CLONE_NEWUTS))
        .done(&[("ns.changed", "uts")])
        .what("makes a child in a new UTS namespace")
        .granted("SYS_ADMIN", Want::Allowed),
    row("clone-user", Call::Clone, BOTH, Want::Allowed, |_, abi| clone(abi, CLONE_NEWUSER))
        .done(&[("ns.changed", "user")])
        .what("makes a child in a new user namespace")
        .granted("SYS_ADMIN", Want::Allowed),
    row("clone-nocap", Call::Clone, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysAdmin]);
        clone(abi, CLONE_NEWUTS)
    })
    .asked(&[("evt.flags", "CLONE_NEWUTS")])
    .what("asks for a child in a new UTS namespace without CAP_SYS_ADMIN")
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("clone-conflict", Call::Clone, BOTH, Want::Failed(libc::EINVAL), |_, abi| {
        clone(abi, CLONE_NEWNS | libc::CLONE_FS)
    })
    .what("asks for a new mount namespace and a shared root at once")
    .granted("SYS_ADMIN", Want::Failed(libc::EINVAL)),
    row("clone3-uts", Call::Clone3, BOTH, Want::Allowed, |arena, abi| {
        clone3(arena, abi, CLONE_NEWUTS as u64, SIGCHLD as u64)
    })
    .done(&[("ns.changed", "uts")])
    .what("makes a child in a new UTS namespace")
    .contained(CLONE3_BY_SECCOMP)
    .granted("SYS_ADMIN", Want::Allowed),
    row("clone3-nocap", Call::Clone3, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[Cap::SysAdmin]);
        clone3(arena, abi, CLONE_NEWUTS as u64, SIGCHLD as u64)
    })
    .what("asks for a child in a new UTS namespace without CAP_SYS_ADMIN")
    .contained(CLONE3_BY_SECCOMP)
    .granted("SYS_ADMIN", BY_CAPABILITY)
    .drops(),
    row("clone3-into-cgroup", Call::Clone3, BOTH, Want::Allowed, |arena, abi| {
        let cgroup = cgroup::version2_directory("self");
        let cgroup = cgroup.map_or(-1, |directory| prep::open_fd(&directory.display().to_string()));
        let flags = CLONE_NEWUTS as u64 | CLONE_INTO_CGROUP;
        let args = arena.put_u64s(0, &[flags, 0, 0, 0, SIGCHLD as u64, 0, 0, 0, 0, 0, cgroup as u64]);
        // SAFETY: as in `clone3`; the structure with the cgroup is 88 bytes long.
        reap(unsafe { call(abi, libc::SYS_clone3 as u32, [args, 88, 0, 0, 0, 0]) })
    })
    .done(&[("ns.changed", "uts")])
    .what("makes a child in a new UTS namespace, and in a cgroup that it names")
    .harmless("the cgroup is the one that it is in")
    .names_cgroup()
    .contained(CLONE3_BY_SECCOMP),
    row("clone3-time", Call::Clone3, BOTH, TIME_NS, |arena, abi| {
        clone3(arena, abi, CLONE_NEWTIME, SIGCHLD as u64)
    })
    .what("makes a child in a new time namespace")
    .contained(CLONE3_BY_SECCOMP)
    .granted("SYS_ADMIN", TIME_NS),
    row("unshare-time", Call::Unshare, BOTH, TIME_NS, |_, abi| unshare(abi, CLONE_NEWTIME as i32))
        .asked(&[("evt.flags", "CLONE_NEWTIME")])
        .what("makes a time namespace for its children")
        .granted("SYS_ADMIN", TIME_NS),
    row("clone3-badsignal", Call::Clone3, BOTH, Want::Failed(libc::EINVAL), |arena, abi| {
        clone3(arena, abi, CLONE_NEWUTS as u64, 1 << 20)
    })
    .what("asks for a new UTS namespace and a signal that does not exist")
    .contained(CLONE3_BY_SECCOMP)
    .granted("SYS_ADMIN", Want::Failed(libc::EINVAL)),
    row("clone-plain", Call::Clone, BOTH, Want::NoEvent, |_, abi| clone(abi, 0))
        .what("makes an ordinary child")
        .contained(Want::NoEvent),
    row("clone3-plain", Call::Clone3, BOTH, Want::NoEvent, |arena, abi| {
        clone3(arena, abi, 0, SIGCHLD as u64)
    })
    .what("makes an ordinary child")
    .contained(Want::NoEvent),
    row("fork-plain", Call::Clone, BOTH, Want::NoEvent, |_, abi| {
        let nr = if abi == Abi::I386 { 2 } else { libc::SYS_fork as u32 };
        // SAFETY: a child with a copy of everything, which ends at once.
        reap(unsafe { call(abi, nr, [0; 6]) })
    })
    .what("makes an ordinary child")
    .contained(Want::NoEvent),
];

fn setns(abi: Abi, fd: i32, kind: i32) -> i64 {
    let nr = if abi == Abi::I386 { 346 } else { libc::SYS_setns as u32 };
    // SAFETY: two numbers; only this child moves.
    unsafe { call(abi, nr, [fd as u64, kind as u64, 0, 0, 0, 0]) }
}

/// A descriptor of a process; -1 if there is none (the attempt then shows `EBADF`).
fn pidfd(pid: i32) -> i32 {
    // SAFETY: two numbers.
    unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32 }
}

fn own_pidfd() -> i32 {
    // SAFETY: a plain question.
    pidfd(unsafe { libc::syscall(libc::SYS_getpid) } as i32)
}

fn unshare(abi: Abi, flags: i32) -> i64 {
    let nr = if abi == Abi::I386 { 310 } else { libc::SYS_unshare as u32 };
    // SAFETY: a number; only this child moves.
    unsafe { call(abi, nr, [flags as u64, 0, 0, 0, 0, 0]) }
}

fn clone(abi: Abi, flags: i32) -> i64 {
    let nr = if abi == Abi::I386 { 120 } else { libc::SYS_clone as u32 };
    // SAFETY: no shared memory and no new stack: the grandchild has a copy, as after fork.
    reap(unsafe { call(abi, nr, [(flags | SIGCHLD) as u32 as u64, 0, 0, 0, 0, 0]) })
}

fn clone3(arena: &Arena, abi: Abi, flags: u64, exit_signal: u64) -> i64 {
    let args = arena.put_u64s(0, &[flags, 0, 0, 0, exit_signal, 0, 0, 0]);
    // SAFETY: as in `clone`; the structure stands in the arena, its first version is 64 bytes long.
    reap(unsafe { call(abi, libc::SYS_clone3 as u32, [args, 64, 0, 0, 0, 0]) })
}

/// Ends the grandchild, or waits for it.
fn reap(ret: i64) -> i64 {
    if ret == 0 {
        // SAFETY: we are the grandchild and end at once.
        unsafe { libc::_exit(0) }
    }
    if ret > 0 {
        wait(ret as i32);
    }
    ret
}
