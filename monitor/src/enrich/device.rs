//! Which watched device or file an open was for.
//!
//! The kernel's own answer is the inode: the opened file's, or the number that the device controller was
//! asked about. Where an open was refused before either was seen, only the caller's path is left. It is
//! looked up in the caller's own root; where that is gone, well-known names are recognised. Such an answer
//! is marked as claimed.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use monitor_common::call::Call;
use monitor_common::ids::Tgid;
use monitor_common::wire::call_flag;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statx};

use crate::decode::RawCall;
use crate::kernel_files::{PROC_KCORE, PROC_KMSG};

/// A watched device or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its short name (`device.name`).
    pub name: &'static str,
    /// Character device number; `None` for files in procfs.
    pub number: Option<(u32, u32)>,
    /// The kernel's inode told, not the caller's path.
    pub by_kernel: bool,
}

/// Major number of the model-specific registers.
const MSR: u32 = 202;

fn by_number(major: u32, minor: u32, by_kernel: bool) -> Option<Device> {
    let name = match (major, minor) {
        (1, 1) => "mem",
        (1, 2) => "kmem",
        (1, 4) => "port",
        (1, 11) => "kmsg",
        (MSR, _) => "msr",
        _ => return None,
    };
    Some(Device { name, number: Some((major, minor)), by_kernel })
}

/// Inodes of the two watched files of procfs; the same in each of its instances.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcFiles {
    kmsg: Option<u64>,
    kcore: Option<u64>,
}

impl ProcFiles {
    /// Asks the kernel.
    pub fn read() -> Self {
        use std::os::unix::fs::MetadataExt;
        let inode = |path| fs::metadata(path).ok().map(|meta| meta.ino());
        ProcFiles { kmsg: inode(PROC_KMSG), kcore: inode(PROC_KCORE) }
    }

    fn by_inode(&self, ino: u64, by_kernel: bool) -> Option<Device> {
        let name = match ino {
            _ if self.kmsg == Some(ino) => "proc_kmsg",
            _ if self.kcore == Some(ino) => "proc_kcore",
            _ => return None,
        };
        Some(Device { name, number: None, by_kernel })
    }

    /// What the open was for; `None` if it was for nothing that is watched.
    pub fn of(&self, call: &RawCall<'_>) -> Option<Device> {
        if call.has(call_flag::FILE_KNOWN) && call.file_ino != 0 {
            return self.by_inode(call.file_ino, true);
        }
        if call.has(call_flag::FILE_KNOWN) || call.has(call_flag::DEVICE_ASKED) {
            return by_number(call.major, call.minor, true);
        }
        self.by_claim(call)
    }

    fn by_claim(&self, call: &RawCall<'_>) -> Option<Device> {
        match self.look(call) {
            Some(found) => found,
            // The caller or its root is gone. Whoever gave another name to the device is missed here.
            None => by_name(call.path),
        }
    }

    /// Looks the path up as the caller would; `None` if that is impossible, `Some(None)` if it leads elsewhere.
    #[expect(
        clippy::option_option,
        reason = "not found, and found to be something else, are different answers"
    )]
    fn look(&self, call: &RawCall<'_>) -> Option<Option<Device>> {
        let tgid = call.task.process.tgid;
        let path = Path::new(std::ffi::OsStr::from_bytes(call.path));
        if call.path.is_empty() {
            return None;
        }
        let root = File::open(format!("/proc/{tgid}/root")).ok()?;
        let absolute;
        let path = if path.is_absolute() {
            path
        } else {
            absolute = base(call, tgid)?.join(path);
            absolute.as_path()
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let stat = statx(&file, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::BASIC_STATS).ok()?;
        if u32::from(stat.stx_mode) & 0o170_000 == 0o020_000 {
            return Some(by_number(stat.stx_rdev_major, stat.stx_rdev_minor, false));
        }
        Some(self.by_inode(stat.stx_ino, false).filter(|_| is_procfs(&file)))
    }
}

fn is_procfs(file: &impl std::os::fd::AsFd) -> bool {
    /// `PROC_SUPER_MAGIC`.
    const PROC: i64 = 0x9fa0;
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == PROC)
}

/// The directory that a relative path starts from, as the caller's own root shows it.
fn base(call: &RawCall<'_>, tgid: Tgid) -> Option<std::path::PathBuf> {
    let at_cwd = libc::AT_FDCWD as u32;
    let link = match call.call {
        Call::Open | Call::Creat => "cwd".to_owned(),
        _ if call.args[0] as u32 == at_cwd => "cwd".to_owned(),
        _ => format!("fd/{}", call.args[0] as u32),
    };
    fs::read_link(format!("/proc/{tgid}/{link}")).ok()
}

/// Well-known names of the watched devices and files.
fn by_name(path: &[u8]) -> Option<Device> {
    match path {
        b"/dev/mem" => by_number(1, 1, false),
        b"/dev/kmem" => by_number(1, 2, false),
        b"/dev/port" => by_number(1, 4, false),
        b"/dev/kmsg" => by_number(1, 11, false),
        b"/proc/kmsg" => Some(Device { name: "proc_kmsg", number: None, by_kernel: false }),
        b"/proc/kcore" => Some(Device { name: "proc_kcore", number: None, by_kernel: false }),
        _ => {
            let cpu = path.strip_prefix(b"/dev/cpu/")?.strip_suffix(b"/msr")?;
            let cpu = std::str::from_utf8(cpu).ok()?.parse().ok()?;
            by_number(MSR, cpu, false)
        }
    }
}

/// Flags of the open family as the registers or the claimed structure hold them.
pub fn open_flags(call: &RawCall<'_>) -> Option<u64> {
    match call.call {
        Call::Open => Some(call.args[1]),
        Call::Openat | Call::OpenByHandleAt => Some(call.args[2]),
        Call::Openat2 => Some(call.claimed[0]),
        Call::Creat => Some((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(by_number(1, 1, true).map(|d| d.name), Some("mem"));
        assert_eq!(by_number(1, 3, true), None);
        assert_eq!(by_number(202, 17, true).map(|d| d.name), Some("msr"));
        assert_eq!(by_name(b"/dev/cpu/3/msr").and_then(|d| d.number), Some((202, 3)));
        for other in [&b"/dev/null"[..], b"/dev/cpu//msr", b"/dev/cpu/x/msr", b"dev/mem", b"\xff"] {
            assert_eq!(by_name(other), None);
        }
    }
}
