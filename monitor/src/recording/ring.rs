//! A directory of recordings that together never exceed a size: the oldest makes room for the newest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::file::{RecordingError, RecordingFile};
use super::format::{EXTENSION, FILE_HEAD, HEAD, MAX_RAW};

/// Smallest and largest ring, in bytes.
pub const RING_BYTES: RangeInclusive<u64> = 16 << 20..=1 << 50;

/// A ring is made of so many files at least, so that room is made in small steps.
const FILES: u64 = 8;
/// The largest file.
const MAX_FILE: u64 = 256 << 20;
const PREFIX: &str = "events-";

// A file has room for a block.
const _: () = assert!(*RING_BYTES.start() / FILES >= (FILE_HEAD + HEAD + MAX_RAW) as u64);

/// Checks the size of a ring.
///
/// # Errors
/// A sentence that says what fits.
pub fn check_record_bytes(bytes: u64) -> Result<u64, String> {
    if RING_BYTES.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (RING_BYTES.start(), RING_BYTES.end());
    Err(format!("{bytes} bytes: the ring of recorded events takes {least} to {most}"))
}

/// The recordings of a directory, oldest first, with their numbers. Other files are no concern of the ring.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(EXTENSION)?.strip_suffix('.'))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else { continue };
        if entry.file_type()?.is_file() {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The ring, held by one process.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    /// Keeps the lock.
    _lock: File,
    bytes: u64,
    file_bytes: u64,
    /// The files before the current one, oldest first, with their sizes.
    old: std::collections::VecDeque<(PathBuf, u64)>,
    old_bytes: u64,
    current: Option<RecordingFile>,
    next: u64,
}

impl Ring {
    /// Opens the ring in a directory, which is made with mode 0750 if its parent exists. What is too much is removed.
    ///
    /// # Errors
    /// [`RecordingError`], also if another process holds it.
    pub fn open(dir: &Path, bytes: u64) -> Result<Self, RecordingError> {
        let fail = |cause| RecordingError::io(dir, cause);
        match fs::DirBuilder::new().mode(0o750).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
            .open(dir)
            .map_err(|cause| match cause.raw_os_error() {
                // The kernel's word for a link, with O_DIRECTORY.
                Some(libc::ENOTDIR) if dir.is_symlink() => {
                    RecordingError::SymbolicLink { path: dir.to_owned() }
                }
                _ => fail(cause),
            })?;
        check_trust(dir, &lock)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| fail(errno.into()))?;
        let mut ring = Ring {
            dir: dir.to_owned(),
            _lock: lock,
            bytes,
            file_bytes: (bytes / FILES).min(MAX_FILE),
            old: std::collections::VecDeque::new(),
            old_bytes: 0,
            current: None,
            next: 1,
        };
        for (number, path) in list(dir).map_err(fail)? {
            let len = fs::symlink_metadata(&path).map_err(|cause| RecordingError::io(&path, cause))?.len();
            ring.old.push_back((path, len));
            ring.old_bytes += len;
            ring.next = number.saturating_add(1);
        }
        ring.make_room(0).map_err(fail)?;
        ring.take_up_newest();
        Ok(ring)
    }

    /// Goes on with the newest file if it has room, so that many restarts do not leave many small files.
    fn take_up_newest(&mut self) {
        let Some((path, len)) = self.old.back().cloned() else { return };
        if len >= self.file_bytes {
            return;
        }
        match RecordingFile::open(&path) {
            Ok(file) => {
                self.old.pop_back();
                self.old_bytes -= len;
                self.current = Some(file);
            }
            // It stays as it is, and another one is begun.
            Err(error) => tracing::warn!(%error, "the newest recording cannot be appended to"),
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of all files.
    pub fn len(&self) -> u64 {
        self.old_bytes + self.current.as_ref().map_or(0, RecordingFile::len)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the oldest files until `more` bytes fit.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        while self.len() + more > self.bytes
            && let Some((path, len)) = self.old.front()
        {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.old_bytes -= len;
            self.old.pop_front();
        }
        Ok(())
    }

    /// Appends a block, in a new file if the current one is full.
    ///
    /// # Errors
    /// The file system's; the ring is as before, and may be tried again.
    pub fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let more = block.len() as u64;
        // Somebody may have tidied up.
        self.current = self.current.take().filter(RecordingFile::is_there);
        if self.current.as_ref().is_some_and(|file| file.len() + more > self.file_bytes)
            && let Some(full) = self.current.take()
        {
            // Once a file is as safe as it can be, it is only read.
            let _ = full.sync();
            self.old_bytes += full.len();
            self.old.push_back((full.path().to_owned(), full.len()));
        }
        let head = if self.current.is_none() { FILE_HEAD as u64 } else { 0 };
        self.make_room(more + head)?;
        let file = match &mut self.current {
            Some(file) => file,
            none => {
                let path = self.dir.join(format!("{PREFIX}{:020}.{EXTENSION}", self.next));
                let file = RecordingFile::open(&path).map_err(|error| match error {
                    RecordingError::Io { cause, .. } => cause,
                    other => io::Error::other(other),
                })?;
                self.next = self.next.saturating_add(1);
                none.insert(file)
            }
        };
        file.append(block)
    }

    /// Waits until the disk has everything.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), RecordingFile::sync)
    }
}

/// Refuses a directory in which others could put files in the recordings' place.
fn check_trust(dir: &Path, handle: &File) -> Result<(), RecordingError> {
    let meta = handle.metadata().map_err(|cause| RecordingError::io(dir, cause))?;
    let untrusted = |reason| Err(RecordingError::Untrusted { path: dir.to_owned(), reason });
    if meta.mode() & 0o022 != 0 {
        return untrusted(format!("its mode {:04o} lets others than its owner write", meta.mode() & 0o7777));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return untrusted(format!("it belongs to uid {}, which is neither root nor uid {us}", meta.uid()));
    }
    Ok(())
}
