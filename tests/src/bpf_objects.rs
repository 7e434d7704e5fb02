//! Which BPF programs and links exist, as the kernel tells.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `BPF_PROG_GET_FD_BY_ID` (include/uapi/linux/bpf.h).
const PROG_BY_ID: u64 = 13;
/// `BPF_LINK_GET_FD_BY_ID`, since 5.8.
const LINK_BY_ID: u64 = 30;

/// A program or a link, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A program.
    Program(u32),
    /// A link, which holds a program on its hook.
    Link(u32),
}

impl Object {
    /// True while the kernel has it.
    pub fn exists(self) -> bool {
        let (command, id) = match self {
            Object::Program(id) => (PROG_BY_ID, id),
            Object::Link(id) => (LINK_BY_ID, id),
        };
        // `union bpf_attr`: the number, the next number, flags.
        let attributes = [id, 0, 0, 0];
        // SAFETY: the kernel reads as many bytes as it is told there are.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), 16) };
        if fd >= 0 {
            // SAFETY: a descriptor that the kernel has just given us.
            drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        }
        fd >= 0
    }
}

/// One descriptor of a process, as `/proc/PID/fdinfo` shows it.
#[derive(Clone, Debug)]
pub struct FdInfo {
    /// Its number there.
    pub fd: u32,
    text: String,
}

impl FdInfo {
    /// All descriptors of a process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn all(pid: i32) -> io::Result<Vec<FdInfo>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
            let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // It may have been closed since the directory was read.
            if let (Some(fd), Ok(text)) = (fd, fs::read_to_string(entry.path())) {
                all.push(FdInfo { fd, text });
            }
        }
        Ok(all)
    }

    /// The text behind `key:`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
    }

    /// The number behind `key:`.
    pub fn number(&self, key: &str) -> Option<u32> {
        self.get(key)?.parse().ok()
    }
}

/// The programs and links that a process holds by descriptors.
///
/// # Errors
/// The kernel's, if the process is gone.
pub fn held_by(pid: i32) -> io::Result<BTreeSet<Object>> {
    let mut objects = BTreeSet::new();
    for info in FdInfo::all(pid)? {
        objects.extend(info.number("prog_id").map(Object::Program));
        objects.extend(info.number("link_id").map(Object::Link));
    }
    Ok(objects)
}
