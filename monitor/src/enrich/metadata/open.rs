//! Reading state files that may be anything: links, pipes, giants, somebody else's.

use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use crate::enrich::metadata::Miss;

/// A state file may have this many bytes. What the runtimes write has a few kilobytes for each container.
pub(super) const MAX_BYTES: u64 = 4 << 20;
/// Entries of a directory that are looked at, at most.
const MAX_ENTRIES: usize = 64;
/// A path that changes under the kernel's hands is tried again so often.
const TRIES: usize = 4;

/// File systems whose server somebody else runs: a look may wait for ever.
const SERVED: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "autofs", "fuse"];

/// A directory below which a runtime keeps its state.
#[derive(Debug)]
pub(super) struct StateDir {
    handle: OwnedFd,
    /// Who may have written the files.
    owners: [u32; 2],
    resolve: ResolveFlags,
}

impl StateDir {
    /// Opens a directory of the system's, named as the host names it. Links on the way are followed, but not out of
    /// the host's root.
    pub(super) fn of_system(host: &Path, dir: &Path) -> Result<Self, Miss> {
        let handle = open_in_root(host, dir)?;
        let us = rustix::process::geteuid().as_raw();
        // No ".." and no link leaves the directory.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(StateDir { handle, owners: [0, us], resolve })
    }

    /// Opens a directory of a user's. Below it nothing may be mounted, for the user may run the server of what is.
    pub(super) fn of_user(host: &Path, dir: &Path, uid: u32) -> Result<Self, Miss> {
        let mut opened = Self::of_system(host, dir)?;
        if is_served(&opened.handle) {
            return Err(Miss::Io);
        }
        opened.owners = [uid, uid];
        opened.resolve |= ResolveFlags::NO_XDEV;
        Ok(opened)
    }

    /// Reads a file below it. Never waits for anybody: a pipe without a writer and a file with a lease are refused
    /// at once.
    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, Miss> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            retried(|| openat2(&self.handle, path, flags, Mode::empty(), self.resolve)).map_err(miss)?;
        let stat = fstat(&file).map_err(miss)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Miss::NotRegular);
        }
        if !self.owners.contains(&stat.st_uid) {
            return Err(Miss::WrongOwner);
        }
        if u64::try_from(stat.st_size).map_or(true, |size| size > MAX_BYTES) {
            return Err(Miss::TooLarge);
        }
        let mut bytes = Vec::new();
        // It may grow while it is read.
        std::fs::File::from(file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|_| Miss::Io)?;
        if bytes.len() as u64 > MAX_BYTES { Err(Miss::TooLarge) } else { Ok(bytes) }
    }

    /// Names in a directory below it, at most [`MAX_ENTRIES`]; none if it cannot be read.
    pub(super) fn entries(&self, path: &str) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = retried(|| openat2(&self.handle, path, flags, Mode::empty(), self.resolve));
        let Ok(dir) = opened.and_then(Dir::new) else { return Vec::new() };
        let names = dir.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        names.filter(|name| name != "." && name != "..").take(MAX_ENTRIES).collect()
    }
}

/// Reads a file of the host's that only root writes, such as `/etc/passwd`.
pub(super) fn read_host(host: &Path, path: &Path) -> Result<Vec<u8>, Miss> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Miss::NotFound);
    };
    StateDir::of_system(host, dir)?.read(name)
}

fn open_in_root(host: &Path, dir: &Path) -> Result<OwnedFd, Miss> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let no_dir = |error| match error {
        Errno::NOENT | Errno::NOTDIR => Miss::NotFound,
        _ => Miss::Io,
    };
    let host = open(host, flags, Mode::empty()).map_err(no_dir)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    retried(|| openat2(&host, dir, flags, Mode::empty(), resolve)).map_err(no_dir)
}

/// The kernel answers EAGAIN if a directory on the way was renamed meanwhile (`handle_dots`, since 5.6).
fn retried<T>(mut attempt: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    attempt()
}

const fn miss(error: Errno) -> Miss {
    match error {
        Errno::NOENT => Miss::NotFound,
        Errno::LOOP => Miss::Symlink,
        // A part of the path is no directory, or the file is a socket.
        Errno::NOTDIR | Errno::NXIO => Miss::NotRegular,
        _ => Miss::Io,
    }
}

/// True if the directory's file system has a server that may never answer, or that cannot be told. The kernel knows
/// without asking it.
fn is_served(dir: &OwnedFd) -> bool {
    let fs_type = || {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", dir.as_raw_fd())).ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned();
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        let mounts = String::from_utf8_lossy(&mounts);
        let mount = mounts.lines().find(|line| line.split(' ').next() == Some(&id))?;
        // The options before the dash vary in number.
        Some(mount.split_once(" - ")?.1.split(' ').next()?.to_owned())
    };
    fs_type().is_none_or(|fs_type| SERVED.contains(&fs_type.split('.').next().unwrap_or_default()))
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
