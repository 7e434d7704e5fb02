//! Attempts on capabilities and namespaces: capset, setns, unshare, clone, clone3.

use libc::{CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, SIGCHLD};
use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;
use monitor_common::verdict::RefusedBy;

use super::prep::{self, CapSets};
use super::raw::{Arena, call};
use super::{Attempt, BOTH, BY_CAPABILITY, Want, row, wait};

/// The kernel compares the sets itself and answers `EPERM`: nobody's capability check said no.
const BY_COMPARISON: Want = Want::Any(&[
    Want::Refused(RefusedBy::Capability, libc::EPERM),
    Want::Refused(RefusedBy::Other, libc::EPERM),
]);

/// Docker's default profile answers clone3 with `ENOSYS`, so that the C library falls back to clone.
const CLONE3_BY_SECCOMP: Want = Want::Refused(RefusedBy::Seccomp, libc::ENOSYS);

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
    row("capset-gain", Call::Capset, BOTH, BY_COMPARISON, |arena, abi| {
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
    .contained(BY_COMPARISON)
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
