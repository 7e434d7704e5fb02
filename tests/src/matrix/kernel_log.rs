//! Doors to the kernel's log.

use monitor_common::call::Call;

use super::Behaviour::KernelLog;
use super::{Door, Entry, MOUNTS, NO_DEVICE, NOT_PATHS, WELL_FORMED, door, program};

const READ: &str = "Kernel log read from container";
const REFUSED: &str = "Kernel log access refused in container";
const HANDLE_REFUSED: &str = "Raw I/O refused in container";
const CLEARED: &str = "Kernel log cleared or muted from container";
const CLEARING_REFUSED: &str = "Kernel log clearing refused in container";
const OPENS: &str =
    "an open of the log's device or file succeeds or is refused; errors before that are about the path";
const NO_PROC: &str = "no device controller is asked about a file in /proc";
const NEEDS_OPENS: &str =
    "a program that may not open files does not even start; without one it is the call's own cell";

/// Opens of the device. `O_WRONLY`, as creat has it, reads nothing, so nobody is asked for a capability.
const fn opens(attempt: &'static str, capability: Entry, lsm: Entry) -> [Entry; 6] {
    [
        Entry::Attempt(attempt, READ),
        Entry::Never(OPENS),
        Entry::Attempt(attempt, REFUSED),
        capability,
        lsm,
        Entry::Attempt(attempt, REFUSED),
    ]
}

/// Opens by a name of the container's own making.
const fn renamed(attempt: &'static str) -> [Entry; 6] {
    let mut entries = reads(attempt);
    entries[2] = Entry::Never(NOT_PATHS);
    entries
}

/// Opens by a name over which the device is mounted.
const fn bound(attempt: &'static str) -> [Entry; 6] {
    let mut entries = renamed(attempt);
    entries[3] = Entry::Never(MOUNTS);
    entries[4] = Entry::Never(MOUNTS);
    entries
}

const fn reads(attempt: &'static str) -> [Entry; 6] {
    opens(attempt, Entry::Attempt(attempt, REFUSED), Entry::Attempt(attempt, REFUSED))
}

const WRITES: &str =
    "the kernel lets whoever may write to the device open it for writing, and asks for no capability";
const URING: &str =
    "io_uring makes the open itself, without a call of the open family, so no hook sees it end";

pub(super) const DOORS: &[Door] = &[
    door(KernelLog, "syslog-read", Call::Syslog).entries([
        Entry::Attempt("syslog-read", READ),
        Entry::Attempt("syslog-badtype", REFUSED),
        Entry::Attempt("syslog-read", REFUSED),
        Entry::Attempt("syslog-read-nocap", REFUSED),
        Entry::Attempt("syslog-read", REFUSED),
        Entry::Never(NO_DEVICE),
    ]),
    door(KernelLog, "syslog-clear", Call::Syslog)
        .entries([
            Entry::Attempt("syslog-clear", CLEARED),
            Entry::Never("clearing takes no arguments that could be wrong"),
            Entry::Attempt("syslog-clear-nocap", CLEARING_REFUSED),
            Entry::Attempt("syslog-clear-nocap", CLEARING_REFUSED),
            Entry::Attempt("syslog-clear", CLEARING_REFUSED),
            Entry::Never(NO_DEVICE),
        ])
        .changes_machine(),
    door(KernelLog, "open-kmsg", Call::Open).entries(reads("open-kmsg")),
    door(KernelLog, "openat-kmsg", Call::Openat).entries(reads("openat-kmsg")),
    door(KernelLog, "openat2-kmsg", Call::Openat2).entries(reads("openat2-kmsg")),
    door(KernelLog, "creat-kmsg", Call::Creat).entries(opens(
        "creat-kmsg",
        Entry::Never(WRITES),
        Entry::Never(WRITES),
    )),
    // A handle names no path, so nothing tells what a refused one was for.
    door(KernelLog, "open_by_handle_at-kmsg", Call::OpenByHandleAt).entries([
        Entry::Attempt("open_by_handle_at-node", READ),
        Entry::Never(OPENS),
        Entry::Attempt("open_by_handle_at-node", HANDLE_REFUSED),
        Entry::Attempt("open_by_handle_at-node", HANDLE_REFUSED),
        Entry::Attempt("open_by_handle_at-node", HANDLE_REFUSED),
        Entry::Attempt("open_by_handle_at-node", REFUSED),
    ]),
    door(KernelLog, "mknod-kmsg", Call::Openat).entries(renamed("openat-node-kmsg")),
    door(KernelLog, "bind-mount-kmsg", Call::Openat).entries(bound("openat-bound-kmsg")).costly(),
    door(KernelLog, "symlink-kmsg", Call::Openat).entries(renamed("openat-symlink")),
    door(KernelLog, "proc-kmsg", Call::Open).entries([
        Entry::Attempt("open-proc-kmsg", READ),
        Entry::Never(OPENS),
        Entry::Attempt("open-proc-kmsg", REFUSED),
        Entry::Attempt("open-proc-kmsg", REFUSED),
        Entry::Attempt("open-proc-kmsg", REFUSED),
        Entry::Never(NO_PROC),
    ]),
    door(KernelLog, "io_uring-kmsg", Call::Openat)
        .entries([
            Entry::Blind("uring-node-kmsg", URING),
            Entry::Never(OPENS),
            Entry::Never(
                "a filter judges io_uring_enter, which names no file; the ring's open is not asked about",
            ),
            Entry::Blind("uring-node-kmsg", URING),
            Entry::Blind("uring-node-kmsg", URING),
            Entry::Blind("uring-node-kmsg", URING),
        ])
        .costly(),
    program(KernelLog, "dmesg", Call::Openat).entries([
        Entry::Program(&["dmesg", "--kernel"], READ),
        Entry::Never(OPENS),
        Entry::Never(NEEDS_OPENS),
        Entry::Program(&["dmesg", "--kernel"], REFUSED),
        Entry::Program(&["dmesg", "--kernel"], REFUSED),
        Entry::Program(&["dmesg", "--kernel"], REFUSED),
    ]),
    program(KernelLog, "dmesg-S", Call::Syslog).entries([
        Entry::Program(&["dmesg", "-S"], READ),
        Entry::Never(WELL_FORMED),
        Entry::Program(&["dmesg", "-S"], REFUSED),
        Entry::Program(&["dmesg", "-S"], REFUSED),
        Entry::Program(&["dmesg", "-S"], REFUSED),
        Entry::Never(NO_DEVICE),
    ]),
    program(KernelLog, "dmesg-C", Call::Syslog)
        .entries([
            Entry::Program(&["dmesg", "-C"], CLEARED),
            Entry::Never(WELL_FORMED),
            Entry::Program(&["dmesg", "-C"], CLEARING_REFUSED),
            Entry::Program(&["dmesg", "-C"], CLEARING_REFUSED),
            Entry::Program(&["dmesg", "-C"], CLEARING_REFUSED),
            Entry::Never(NO_DEVICE),
        ])
        .changes_machine(),
];
