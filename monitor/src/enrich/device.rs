//! Which watched device or file an open was for.
//!
//! The kernel's own answer is the inode: the opened file's, or the number that the device controller was
//! asked about. Where an open was refused before either was seen, only the caller's path is left. It is
//! looked up in the caller's own root; where that is gone, well-known names are recognised. Such an answer
//! is marked as claimed.
//!
//! The caller chose the path and may run the server of the file system that it leads to. So a look-up never
//! waits: it takes what the kernel has at hand (`RESOLVE_CACHED`, since 5.12; before, only names count), which
//! the refused open has just put there. And there is a bound to look-ups per second.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use monitor_common::call::Call;
use monitor_common::ids::{BootNs, Tgid};
use monitor_common::wire::call_flag;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, open, openat2, statx};
use rustix::io::Errno;

use crate::decode::RawCall;
use crate::kernel_files::{PROC_KCORE, PROC_KMSG, proc_inode};
use crate::metrics::Discard;

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

/// Look-ups of paths per second: about a twentieth of a CPU. Whoever floods gets beyond it.
const LOOKS_PER_SECOND: u32 = 10_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Inodes of the two watched files of procfs, the same in each of its instances; and how many paths were
/// looked up in the running second.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcFiles {
    kmsg: Option<u64>,
    kcore: Option<u64>,
    second: BootNs,
    looks: u32,
}

impl ProcFiles {
    /// Asks the kernel.
    pub fn read() -> Self {
        ProcFiles { kmsg: proc_inode(PROC_KMSG), kcore: proc_inode(PROC_KCORE), ..ProcFiles::default() }
    }

    fn by_inode(&self, ino: u64) -> Option<Device> {
        let name = match ino {
            _ if self.kmsg == Some(ino) => "proc_kmsg",
            _ if self.kcore == Some(ino) => "proc_kcore",
            _ => return None,
        };
        Some(Device { name, number: None, by_kernel: true })
    }

    /// What the open was for.
    ///
    /// # Errors
    /// It was for nothing that is watched, or that could not be found out.
    pub fn of(&mut self, call: &RawCall<'_>) -> Result<Device, Discard> {
        if call.has(call_flag::FILE_KNOWN) && call.file_ino != 0 {
            return self.by_inode(call.file_ino).ok_or(Discard::NotWatched);
        }
        if call.has(call_flag::FILE_KNOWN) || call.has(call_flag::DEVICE_ASKED) {
            return by_number(call.major, call.minor, true).ok_or(Discard::NotWatched);
        }
        self.by_claim(call)
    }

    fn by_claim(&mut self, call: &RawCall<'_>) -> Result<Device, Discard> {
        let may_look = self.may_look(call.boot);
        match may_look.then(|| look(call)).flatten() {
            Some(found) => found.ok_or(Discard::NotWatched),
            // The caller or its root is gone. Whoever gave another name to the device is missed here.
            None if may_look => by_name(call.path).ok_or(Discard::NotWatched),
            None => by_name(call.path).ok_or(Discard::NotLookedUp),
        }
    }

    /// Takes one look-up from those of the second.
    fn may_look(&mut self, now: BootNs) -> bool {
        // Records of different CPUs are not quite in order: an earlier time belongs to the running second.
        if now.0.saturating_sub(self.second.0) >= SECOND_NS {
            self.second = now;
            self.looks = 0;
        }
        let may = self.looks < LOOKS_PER_SECOND;
        self.looks += u32::from(may);
        may
    }
}

/// Looks the path up as the caller would; `None` if that is impossible, `Some(None)` if it leads elsewhere.
#[expect(clippy::option_option, reason = "not found, and found to be something else, are different answers")]
fn look(call: &RawCall<'_>) -> Option<Option<Device>> {
    let tgid = call.task.process.tgid;
    let path = Path::new(std::ffi::OsStr::from_bytes(call.path));
    if call.path.is_empty() {
        return None;
    }
    // Only handles, here and below: they are had without asking the file system's server.
    let handle = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(format!("/proc/{tgid}/root"), handle, Mode::empty()).ok()?;
    let absolute;
    let path = if path.is_absolute() {
        path
    } else {
        absolute = base(call, tgid)?.join(path);
        absolute.as_path()
    };
    let resolve =
        |path| openat2(&root, path, handle, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::CACHED);
    let file = match resolve(path) {
        // Files of procfs are never at hand, but their directory is.
        Err(Errno::AGAIN) => return Some(Some(proc_file(&resolve(path.parent()?).ok()?, path)?)),
        other => other.ok()?,
    };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(&file, "", flags, StatxFlags::TYPE).ok()?;
    let is_device = u32::from(stat.stx_mode) & 0o170_000 == 0o020_000;
    Some(if is_device { by_number(stat.stx_rdev_major, stat.stx_rdev_minor, false) } else { None })
}

/// The watched file of procfs with the last name of `path`, if `dir` is where procfs is mounted in the
/// caller's mount namespace. What the kernel calls the directory tells that without asking its file system.
fn proc_file(dir: &OwnedFd, path: &Path) -> Option<Device> {
    let dir = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()?;
    by_name(dir.join(path.file_name()?).as_os_str().as_bytes()).filter(|device| device.number.is_none())
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
        Call::Openat2 => call.has(call_flag::CLAIMED).then_some(call.claimed[0]),
        Call::Creat => Some((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::decode::{ProcessKey, RawTask};

    /// A refused open by this very process, `ns` after the boot.
    fn refused(path: &Path, ns: u64) -> RawCall<'_> {
        let process = ProcessKey { tgid: Tgid(std::process::id()), start: BootNs(1) };
        RawCall {
            boot: BootNs(ns),
            task: RawTask { process, ..RawTask::default() },
            ret: -13,
            args: [libc::AT_FDCWD as u32 as u64, 0, 0, 0],
            path: path.as_os_str().as_bytes(),
            ..RawCall::made_up(Call::Openat)
        }
    }

    #[test]
    fn a_claimed_path_is_followed_in_the_callers_root() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("kmsg"));
        symlink("/dev/null", &link).unwrap();
        fs::write(&file, "").unwrap();
        for seen in [&link, &file] {
            fs::metadata(seen).unwrap();
        }
        assert_eq!(look(&refused(&link, 0)), Some(None), "another device");
        assert_eq!(look(&refused(&file, 0)), Some(None), "a file");
        assert_eq!(look(&refused(&dir.path().join("missing"), 0)), None);
        assert_eq!(look(&refused(Path::new(""), 0)), None);
        if fs::metadata(PROC_KMSG).is_ok() {
            symlink("/proc", dir.path().join("proc")).unwrap();
            let by_link = dir.path().join("proc/kmsg");
            fs::metadata(&by_link).unwrap();
            let name = |path| look(&refused(path, 0)).flatten().map(|device| device.name);
            assert_eq!(name(Path::new(PROC_KMSG)), Some("proc_kmsg"));
            assert_eq!(name(&by_link), Some("proc_kmsg"), "by another way to the same directory");
        }
    }

    #[test]
    fn look_ups_are_bounded_and_names_count_beyond_the_bound() {
        let mut files = ProcFiles { looks: LOOKS_PER_SECOND - 1, ..ProcFiles::default() };
        let other = Path::new("/dev/null");
        assert_eq!(files.of(&refused(other, 5)), Err(Discard::NotWatched));
        assert_eq!(files.of(&refused(other, 6)), Err(Discard::NotLookedUp));
        assert_eq!(files.of(&refused(Path::new("/dev/mem"), 7)).map(|device| device.name), Ok("mem"));
        assert_eq!(files.of(&refused(other, SECOND_NS)), Err(Discard::NotWatched), "a new second");
    }

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
