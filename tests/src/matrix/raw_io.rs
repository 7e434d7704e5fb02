//! Doors to I/O ports, memory and the processor's registers.

use monitor_common::call::Call;

use super::Behaviour::RawIo;
use super::{Door, Entry, MOUNTS, NO_DEVICE, NOT_PATHS, door, refusable, unwatched};

const OBTAINED: &str = "Raw I/O obtained in container";
const REFUSED: &str = "Raw I/O refused in container";
const RULES: [&str; 2] = [OBTAINED, REFUSED];
const NO_PORTS: &str = "this kernel is built without I/O port privileges";
const NO_DRIVER: &str = "this kernel has no driver behind the device's number";
const OPENS: &str =
    "an open of a device with a driver succeeds or is refused; errors before that are about the path";
const NO_PROC: &str = "no device controller is asked about a file in /proc";

/// Opens of a device that may have no driver.
const fn opens(attempt: &'static str, failed: Entry, seccomp: Entry) -> [Entry; 6] {
    [
        Entry::Attempt(attempt, OBTAINED),
        failed,
        seccomp,
        Entry::Attempt(attempt, REFUSED),
        Entry::Attempt(attempt, REFUSED),
        Entry::Attempt(attempt, REFUSED),
    ]
}

const fn device(name: &'static str, call: Call, attempt: &'static str, seccomp: Entry) -> Door {
    door(RawIo, name, call)
        .entries(opens(attempt, Entry::Never(OPENS), seccomp))
        .lacks(libc::ENXIO, NO_DRIVER)
}

/// Refused by a filter, by the device's well-known name.
const fn by_name(attempt: &'static str) -> Entry {
    Entry::Attempt(attempt, REFUSED)
}

const URING: &str =
    "io_uring makes the open itself, without a call of the open family, so no hook sees it end";

pub(super) const DOORS: &[Door] = &[
    door(RawIo, "iopl", Call::Iopl)
        .entries(refusable(["iopl-3", "iopl-4", "iopl-nocap"], RULES, Entry::Never(NO_DEVICE)))
        .lacks(libc::ENOSYS, NO_PORTS),
    door(RawIo, "ioperm", Call::Ioperm)
        .entries(refusable(["ioperm-on", "ioperm-badport", "ioperm-nocap"], RULES, Entry::Never(NO_DEVICE)))
        .lacks(libc::ENOSYS, NO_PORTS),
    device("open-mem", Call::Open, "open-node-mem", Entry::Never(NOT_PATHS)),
    device("creat-mem", Call::Creat, "creat-node-mem", Entry::Never(NOT_PATHS)),
    device("openat-mem", Call::Openat, "openat-node-mem", by_name("openat-mem")),
    device("openat2-mem", Call::Openat2, "openat2-node-mem", Entry::Never(NOT_PATHS)),
    device(
        "open_by_handle_at-mem",
        Call::OpenByHandleAt,
        "open_by_handle_at-mem",
        by_name("open_by_handle_at-mem"),
    ),
    door(RawIo, "bind-mount-mem", Call::Openat)
        .entries([
            Entry::Attempt("openat-bound-mem", OBTAINED),
            Entry::Never(OPENS),
            Entry::Never(NOT_PATHS),
            Entry::Never(MOUNTS),
            Entry::Never(MOUNTS),
            Entry::Attempt("openat-bound-mem", REFUSED),
        ])
        .costly()
        .lacks(libc::ENXIO, NO_DRIVER),
    device("kmem", Call::Openat, "openat-node-kmem", Entry::Never(NOT_PATHS)),
    device("port", Call::Openat, "openat-node-port", by_name("openat-port")),
    door(RawIo, "msr", Call::Openat)
        .entries(opens(
            "openat-node-msr",
            Entry::Attempt("openat-node-msr-none", REFUSED),
            by_name("openat-msr"),
        ))
        .lacks(libc::ENXIO, NO_DRIVER),
    door(RawIo, "proc-kcore", Call::Openat)
        .entries([
            Entry::Attempt("openat-kcore", OBTAINED),
            Entry::Never("an open of /proc/kcore succeeds or is refused"),
            Entry::Attempt("openat-kcore", REFUSED),
            Entry::Attempt("openat-kcore", REFUSED),
            Entry::Attempt("openat-kcore", REFUSED),
            Entry::Never(NO_PROC),
        ])
        .lacks(libc::ENOENT, "this kernel is built without /proc/kcore"),
    door(RawIo, "io_uring-mem", Call::Openat)
        .entries([
            Entry::Blind("uring-node-mem", URING),
            Entry::Never(OPENS),
            Entry::Never(
                "a filter judges io_uring_enter, which names no file; the ring's open is not asked about",
            ),
            Entry::Blind("uring-node-mem", URING),
            Entry::Blind("uring-node-mem", URING),
            Entry::Blind("uring-node-mem", URING),
        ])
        .lacks(libc::ENXIO, NO_DRIVER)
        .costly(),
    unwatched(
        RawIo,
        "sysfs-pci",
        Call::Openat,
        "not watched: which of a device's files in /sys leads to its memory is its driver's affair; ordinary containers get /sys read-only, privileged ones do not",
    ),
    unwatched(
        RawIo,
        "block-devices",
        Call::Openat,
        "not watched: disks are files' homes, which belongs to escapes by mounts, not to I/O past the kernel",
    ),
];
