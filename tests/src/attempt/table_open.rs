//! Attempts on the kernel's log, memory and I/O port devices: opens by every call and under other names.

use std::fs;

use libc::{O_NONBLOCK, O_RDONLY};
use monitor_common::call::{Abi, Call};
use monitor_common::verdict::RefusedBy;

use super::raw::{Arena, call};
use super::{Attempt, BOTH, BY_CAPABILITY, BY_SECCOMP, Want, prep, row, uring};

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
const KMSG: &str = "/dev/kmsg";
const MISSING: Want = Want::Nothing(libc::ENOENT);
/// A device that the machine may lack: no node, or a node without a driver.
const DEVICE: Want = Want::Any(&[Want::Allowed, MISSING, Want::Failed(libc::ENXIO)]);
/// The device controller of a container's cgroup; a node that was made there can only be opened past it.
const BY_DEVICES: Want = Want::Refused(RefusedBy::DeviceCgroup, libc::EPERM);

pub(super) const ROWS: &[Attempt] = &[
    row("open-kmsg", Call::Open, BOTH, Want::Allowed, |arena, abi| open(arena, abi, KMSG))
        .done(&[("device.name", "kmsg")])
        .what("opens the kernel log for reading")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("creat-kmsg", Call::Creat, BOTH, Want::Allowed, |arena, abi| {
        // In a container there is no such node, and creat would make a plain file of that name.
        if fs::metadata(KMSG).is_err() {
            return creat(arena, abi, "/dev/no-such-directory/kmsg");
        }
        creat(arena, abi, KMSG)
    })
    .done(&[("device.name", "kmsg")])
    .what("opens the kernel log for writing")
    .harmless("it writes nothing, and a device is not truncated")
    .contained(Want::NoEvent),
    row("openat-kmsg", Call::Openat, BOTH, Want::Allowed, |arena, abi| openat(arena, abi, AT_FDCWD, KMSG))
        .what("opens the kernel log for reading")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("openat-relative", Call::Openat, BOTH, Want::Allowed, |arena, abi| {
        openat(arena, abi, prep::open_fd("/dev") as u64, "./kmsg")
    })
    .done(&[("device.name", "kmsg")])
    .what("opens the kernel log by a path that starts at a directory's descriptor")
    .harmless("it reads nothing")
    // Nothing tells that this path, which leads nowhere, was meant for a device.
    .contained(Want::NoEvent),
    row("openat2-kmsg", Call::Openat2, BOTH, Want::Allowed, |arena, abi| openat2(arena, abi, KMSG))
        .done(&[("device.name", "kmsg")])
        .what("opens the kernel log for reading")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("open_by_handle_at-node", Call::OpenByHandleAt, BOTH, Want::Allowed, |arena, abi| {
        with_node(1, 11, |path| open_by_handle(arena, abi, path))
    })
    .done(&[("device.name", "kmsg")])
    .what("opens a node of the kernel log's number by file handle")
    .harmless("it reads nothing")
    .contained(BY_SECCOMP),
    row("openat-mem", Call::Openat, BOTH, DEVICE, |arena, abi| openat(arena, abi, AT_FDCWD, "/dev/mem"))
        .done(&[("device.name", "mem")])
        .what("opens the machine's memory")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("open-kmem", Call::Open, BOTH, DEVICE, |arena, abi| open(arena, abi, "/dev/kmem"))
        .done(&[("device.name", "kmem")])
        .what("opens the kernel's memory")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("openat-port", Call::Openat, BOTH, DEVICE, |arena, abi| openat(arena, abi, AT_FDCWD, "/dev/port"))
        .done(&[("device.name", "port")])
        .what("opens the I/O ports")
        .harmless("it reads nothing")
        .contained(MISSING),
    row("openat-msr", Call::Openat, BOTH, DEVICE, |arena, abi| {
        openat(arena, abi, AT_FDCWD, "/dev/cpu/0/msr")
    })
    .done(&[("device.name", "msr")])
    .what("opens the processor's model-specific registers")
    .harmless("it reads nothing")
    .contained(MISSING),
    row("open-proc-kmsg", Call::Open, BOTH, Want::Allowed, |arena, abi| open(arena, abi, "/proc/kmsg"))
        .done(&[("device.name", "proc_kmsg")])
        .what("opens the kernel log in /proc")
        .harmless("it reads nothing, so no message is taken from anyone")
        .contained(BY_CAPABILITY)
        .granted("SYSLOG", Want::Allowed),
    row("openat-proc-kmsg-nocap", Call::Openat, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, &[monitor_common::caps::Cap::Syslog, monitor_common::caps::Cap::SysAdmin]);
        openat(arena, abi, AT_FDCWD, "/proc/kmsg")
    })
    .what("opens the kernel log in /proc without CAP_SYSLOG")
    .contained(BY_CAPABILITY)
    .drops(),
    row("openat-kcore", Call::Openat, BOTH, DEVICE, |arena, abi| openat(arena, abi, AT_FDCWD, "/proc/kcore"))
        .done(&[("device.name", "proc_kcore")])
        .what("opens the kernel's memory in /proc")
        .harmless("it reads nothing")
        // Docker masks it by /dev/null, and where the kernel lacks it there is nothing to open.
        .contained(Want::NoEvent),
    row("openat-node-kmsg", Call::Openat, BOTH, Want::Allowed, |arena, abi| {
        with_node(1, 11, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "kmsg")])
    .what("makes a node of the kernel log's number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-node-mem", Call::Openat, BOTH, DEVICE, |arena, abi| {
        with_node(1, 1, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "mem")])
    .what("makes a node of the memory's number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-node-kmem", Call::Openat, BOTH, DEVICE, |arena, abi| {
        with_node(1, 2, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "kmem")])
    .what("makes a node of the kernel memory's number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-node-port", Call::Openat, BOTH, DEVICE, |arena, abi| {
        with_node(1, 4, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "port")])
    .what("makes a node of the I/O ports' number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-node-msr", Call::Openat, BOTH, DEVICE, |arena, abi| {
        with_node(202, 0, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "msr")])
    .what("makes a node of the first processor's registers under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-node-msr-none", Call::Openat, BOTH, Want::Failed(libc::ENXIO), |arena, abi| {
        with_node(202, 255, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .what("opens a node of the registers of a processor that the machine has not")
    .contained(BY_DEVICES)
    .nameless(),
    row("open-node-mem", Call::Open, BOTH, DEVICE, |arena, abi| {
        with_node(1, 1, |path| open(arena, abi, path))
    })
    .done(&[("device.name", "mem")])
    .what("makes a node of the memory's number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("creat-node-mem", Call::Creat, BOTH, DEVICE, |arena, abi| {
        with_node(1, 1, |path| creat(arena, abi, path))
    })
    .done(&[("device.name", "mem")])
    .what("makes a node of the memory's number under another name and opens it for writing")
    .harmless("it writes nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat2-node-mem", Call::Openat2, BOTH, DEVICE, |arena, abi| {
        with_node(1, 1, |path| openat2(arena, abi, path))
    })
    .done(&[("device.name", "mem")])
    .what("makes a node of the memory's number under another name and opens it")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("open_by_handle_at-mem", Call::OpenByHandleAt, BOTH, DEVICE, |arena, abi| {
        with_node(1, 1, |path| open_by_handle(arena, abi, path))
    })
    .done(&[("device.name", "mem")])
    .what("opens a node of the memory's number by file handle")
    .harmless("it reads nothing, and the node is removed")
    .contained(BY_SECCOMP)
    .nameless(),
    row("openat-bound-kmsg", Call::Openat, BOTH, Want::Allowed, |arena, abi| {
        bound("kmsg", 1, 11, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "kmsg")])
    .what("opens the kernel log by an ordinary file's name, over which its node is mounted")
    .harmless("it reads nothing, and the mount is in a mount namespace of its own")
    .mounts()
    // It may not mount, so what is opened is the ordinary file.
    .contained(Want::NoEvent),
    row("openat-bound-mem", Call::Openat, BOTH, DEVICE, |arena, abi| {
        bound("mem", 1, 1, |path| openat(arena, abi, AT_FDCWD, path))
    })
    .done(&[("device.name", "mem")])
    .what("opens the machine's memory by an ordinary file's name, over which its node is mounted")
    .harmless("it reads nothing, and the mount is in a mount namespace of its own")
    .mounts()
    .contained(Want::NoEvent)
    .nameless(),
    row("uring-node-kmsg", Call::Openat, BOTH, Want::NoEvent, |arena, abi| {
        with_node(1, 11, |path| uring::openat(arena, abi, path))
    })
    .what("opens a node of the kernel log's number by io_uring")
    .harmless("it reads nothing, and the node is removed")
    .contained(Want::NoEvent),
    row("uring-node-mem", Call::Openat, BOTH, Want::NoEvent, |arena, abi| {
        with_node(1, 1, |path| uring::openat(arena, abi, path))
    })
    .what("opens a node of the memory's number by io_uring")
    .harmless("it reads nothing, and the node is removed")
    .contained(Want::NoEvent),
    row("openat-symlink", Call::Openat, BOTH, Want::Allowed, |arena, abi| {
        with_node(1, 11, |path| {
            let link = prep::temp_name("link");
            // A failure shows in the open.
            let _ = std::os::unix::fs::symlink(path, &link);
            let ret = openat(arena, abi, AT_FDCWD, &link);
            let _ = fs::remove_file(link);
            ret
        })
    })
    .done(&[("device.name", "kmsg")])
    .what("opens such a node by a symbolic link")
    .harmless("it reads nothing, and both are removed")
    .contained(BY_DEVICES)
    .nameless(),
    row("openat-null", Call::Openat, BOTH, Want::NoEvent, |arena, abi| {
        openat(arena, abi, AT_FDCWD, "/dev/null")
    })
    .what("opens a device that is no wall")
    .contained(Want::NoEvent),
    row("open-status", Call::Open, BOTH, Want::NoEvent, |arena, abi| open(arena, abi, "/proc/self/status"))
        .what("opens an ordinary file")
        .contained(Want::NoEvent),
    row("openat-missing", Call::Openat, BOTH, Want::NoEvent, |arena, abi| {
        openat(arena, abi, AT_FDCWD, "/no-such-directory/kmsg")
    })
    .what("opens a file that does not exist")
    .contained(Want::NoEvent),
];

fn open(arena: &Arena, abi: Abi, path: &str) -> i64 {
    let path = arena.put_path(0, path);
    let nr = if abi == Abi::I386 { 5 } else { libc::SYS_open as u32 };
    // SAFETY: the path stands in the arena.
    unsafe { call(abi, nr, [path, (O_RDONLY | O_NONBLOCK) as u64, 0, 0, 0, 0]) }
}

fn creat(arena: &Arena, abi: Abi, path: &str) -> i64 {
    let path = arena.put_path(0, path);
    let nr = if abi == Abi::I386 { 8 } else { libc::SYS_creat as u32 };
    // SAFETY: the path stands in the arena.
    unsafe { call(abi, nr, [path, 0o600, 0, 0, 0, 0]) }
}

fn openat(arena: &Arena, abi: Abi, dirfd: u64, path: &str) -> i64 {
    let path = arena.put_path(0, path);
    let nr = if abi == Abi::I386 { 295 } else { libc::SYS_openat as u32 };
    // SAFETY: the path stands in the arena.
    unsafe { call(abi, nr, [dirfd, path, (O_RDONLY | O_NONBLOCK) as u64, 0, 0, 0]) }
}

fn openat2(arena: &Arena, abi: Abi, path: &str) -> i64 {
    let path = arena.put_path(0, path);
    let how = arena.put_u64s(512, &[(O_RDONLY | O_NONBLOCK) as u64, 0, 0]);
    // SAFETY: path and structure stand in the arena.
    unsafe { call(abi, libc::SYS_openat2 as u32, [AT_FDCWD, path, how, 24, 0, 0]) }
}

/// Mounts a device's node over an ordinary file, and takes both away after use. Where no node can be made, a node
/// that is there does; where nothing can be mounted, the ordinary file is used.
fn bound(name: &str, major: u32, minor: u32, use_it: impl FnOnce(&str) -> i64) -> i64 {
    if !prep::has_own_mounts() {
        eprintln!("attempt: the mounts are those of process 1: nothing is mounted, the attempt is not made");
        // SAFETY: ends this child at once.
        unsafe { libc::_exit(3) }
    }
    with_node(major, minor, |node| {
        let file = prep::temp_name(&format!("bound-{name}"));
        let _ = fs::write(&file, ""); // A failure shows in the open.
        let mounted = prep::bind(node, &file);
        let ret = use_it(&file);
        if mounted {
            prep::unmount(&file);
        }
        let _ = fs::remove_file(&file);
        ret
    })
}

/// Makes a device node of this child's own, and removes it after use.
fn with_node(major: u32, minor: u32, use_it: impl FnOnce(&str) -> i64) -> i64 {
    let path = prep::temp_name("node");
    prep::make_node(&path, major, minor);
    let ret = use_it(&path);
    let _ = fs::remove_file(&path); // Nothing to remove if it could not be made.
    ret
}

/// Room for a file handle: size and type, then at most 128 bytes.
const HANDLE_BYTES: u32 = 128;

fn open_by_handle(arena: &Arena, abi: Abi, path: &str) -> i64 {
    let c_path = arena.put_path(0, path);
    let handle = arena.put_u32s(512, &[HANDLE_BYTES, 0]);
    let mount_id = arena.put_u32s(1024, &[0]);
    // SAFETY: path, handle and mount id stand in the arena, which has room for the largest handle.
    unsafe {
        call(Abi::X86_64, libc::SYS_name_to_handle_at as u32, [AT_FDCWD, c_path, handle, mount_id, 0, 0])
    };
    let directory = path.rfind('/').map_or("/", |slash| if slash == 0 { "/" } else { &path[..slash] });
    let mount = prep::open_fd(directory) as u64;
    let nr = if abi == Abi::I386 { 342 } else { libc::SYS_open_by_handle_at as u32 };
    // SAFETY: the handle stands in the arena.
    unsafe { call(abi, nr, [mount, handle, (O_RDONLY | O_NONBLOCK) as u64, 0, 0, 0]) }
}
