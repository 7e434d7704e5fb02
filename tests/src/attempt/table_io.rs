//! Attempts on the kernel log by syslog(2) and on I/O ports by iopl and ioperm.

use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;

use super::raw::call;
use super::{Attempt, BOTH, BY_CAPABILITY, Want, prep, row};

/// Kernels built without I/O port privileges answer `ENOSYS` to everything.
const NO_PORTS: Want = Want::Failed(libc::ENOSYS);
const PORTS: Want = Want::Any(&[Want::Allowed, NO_PORTS]);
const PORTS_INVALID: Want = Want::Any(&[Want::Failed(libc::EINVAL), NO_PORTS]);
const PORTS_REFUSED: Want = Want::Any(&[BY_CAPABILITY, NO_PORTS]);

/// Port 0x80: firmware's diagnostic display, which nothing listens to.
const PORT: u64 = 0x80;

/// Reading may need CAP_SYSLOG, or CAP_SYS_ADMIN on older kernels.
const LOG_CAPS: &[Cap] = &[Cap::Syslog, Cap::SysAdmin];

const READ: u64 = 2;
const READ_ALL: u64 = 3;
const CLEAR: u64 = 5;
const SIZE_UNREAD: u64 = 9;
const SIZE_BUFFER: u64 = 10;

pub(super) const ROWS: &[Attempt] = &[
    row("syslog-size", Call::Syslog, BOTH, Want::Allowed, |_, abi| syslog(abi, SIZE_BUFFER, 0, 0))
        .asked(&[("syslog.action", "SIZE_BUFFER")])
        .what("asks for the size of the kernel log")
        .harmless("it only reads")
        .granted("SYSLOG", Want::Allowed),
    row("syslog-read", Call::Syslog, BOTH, Want::Allowed, |arena, abi| {
        syslog(abi, READ_ALL, arena.put(0, &[0; 4096]), 4096)
    })
    .asked(&[("syslog.action", "READ_ALL")])
    .what("reads the kernel log")
    .harmless("it only reads, and removes nothing")
    .granted("SYSLOG", Want::Allowed),
    row("syslog-unread", Call::Syslog, BOTH, Want::Allowed, |_, abi| syslog(abi, SIZE_UNREAD, 0, 0))
        .what("asks how much of the kernel log is unread")
        .harmless("it only reads")
        .granted("SYSLOG", Want::Allowed),
    row("syslog-badtype", Call::Syslog, BOTH, Want::Failed(libc::EINVAL), |_, abi| syslog(abi, 99, 0, 0))
        .what("asks for an action that does not exist")
        .granted("SYSLOG", Want::Failed(libc::EINVAL)),
    row("syslog-nocap", Call::Syslog, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, LOG_CAPS);
        syslog(abi, SIZE_UNREAD, 0, 0)
    })
    .what("asks how much is unread, without CAP_SYSLOG")
    .granted("SYSLOG", BY_CAPABILITY)
    .drops(),
    row("syslog-clear-nocap", Call::Syslog, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, LOG_CAPS);
        syslog(abi, CLEAR, 0, 0)
    })
    .asked(&[("syslog.action", "CLEAR")])
    .what("asks to clear the kernel log, without CAP_SYSLOG")
    .granted("SYSLOG", BY_CAPABILITY)
    .drops(),
    row("syslog-clear", Call::Syslog, BOTH, Want::Allowed, |_, abi| syslog(abi, CLEAR, 0, 0))
        .asked(&[("syslog.action", "CLEAR")])
        .what("clears the kernel log")
        .guest_only(),
    row("syslog-read-nocap", Call::Syslog, BOTH, BY_CAPABILITY, |arena, abi| {
        prep::without(arena, LOG_CAPS);
        syslog(abi, READ, arena.put(0, &[0]), 1)
    })
    .asked(&[("syslog.action", "READ")])
    .what("takes a line from the kernel log without CAP_SYSLOG")
    .granted("SYSLOG", BY_CAPABILITY)
    .drops(),
    row("iopl-0", Call::Iopl, BOTH, PORTS, |_, abi| iopl(abi, 0))
        .what("asks for the I/O privilege level that it has")
        .granted("SYS_RAWIO", PORTS),
    row("iopl-3", Call::Iopl, BOTH, PORTS, |_, abi| iopl(abi, 3))
        .what("asks for access to every I/O port")
        .harmless("the child touches no port and ends at once")
        .granted("SYS_RAWIO", PORTS),
    row("iopl-4", Call::Iopl, BOTH, PORTS_INVALID, |_, abi| iopl(abi, 4))
        .what("asks for a level that does not exist")
        .granted("SYS_RAWIO", PORTS_INVALID),
    row("iopl-nocap", Call::Iopl, BOTH, PORTS_REFUSED, |arena, abi| {
        prep::without(arena, &[Cap::SysRawio]);
        iopl(abi, 3)
    })
    .what("asks for access to every I/O port without CAP_SYS_RAWIO")
    .granted("SYS_RAWIO", PORTS_REFUSED)
    .drops(),
    row("ioperm-on", Call::Ioperm, BOTH, PORTS, |_, abi| ioperm(abi, PORT, 1, 1))
        .what("asks for access to one I/O port")
        .harmless("the child touches no port and ends at once")
        .granted("SYS_RAWIO", PORTS),
    row("ioperm-off", Call::Ioperm, BOTH, PORTS, |_, abi| ioperm(abi, PORT, 1, 0))
        .what("gives up access to one I/O port")
        .granted("SYS_RAWIO", PORTS),
    row("ioperm-badport", Call::Ioperm, BOTH, PORTS_INVALID, |_, abi| ioperm(abi, 0x1_0000, 1, 1))
        .what("asks for a port that does not exist")
        .granted("SYS_RAWIO", PORTS_INVALID),
    row("ioperm-nocap", Call::Ioperm, BOTH, PORTS_REFUSED, |arena, abi| {
        prep::without(arena, &[Cap::SysRawio]);
        ioperm(abi, PORT, 1, 1)
    })
    .what("asks for access to one I/O port without CAP_SYS_RAWIO")
    .granted("SYS_RAWIO", PORTS_REFUSED)
    .drops(),
];

fn syslog(abi: Abi, action: u64, buffer: u64, len: u64) -> i64 {
    // SAFETY: the kernel writes at most `len` bytes, which stand in the arena; no action here changes the log.
    unsafe { call(abi, libc::SYS_syslog as u32, [action, buffer, len, 0, 0, 0]) }
}

fn iopl(abi: Abi, level: u64) -> i64 {
    let nr = if abi == Abi::I386 { 110 } else { libc::SYS_iopl as u32 };
    // SAFETY: concerns this thread alone, which touches no port.
    unsafe { call(abi, nr, [level, 0, 0, 0, 0, 0]) }
}

fn ioperm(abi: Abi, from: u64, count: u64, on: u64) -> i64 {
    let nr = if abi == Abi::I386 { 101 } else { libc::SYS_ioperm as u32 };
    // SAFETY: concerns this thread alone, which touches no port.
    unsafe { call(abi, nr, [from, count, on, 0, 0, 0]) }
}
