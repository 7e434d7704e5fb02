//! The state directory: a file for each container, so that a restart of the daemon goes on counting and ended
//! containers can be asked for.
//!
//! Private: 0700, files 0600, no link is followed. Each file is replaced whole. Bounded in number and bytes. What is
//! found there may be damaged or made up: it is read with bounds, checked, and refused with a message.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat, open, openat,
    renameat, syncfs, unlinkat,
};

use super::info::{CapsListing, listing};
use super::record::{self, MAX_BYTES};
use super::table::{DELEGATED_PART, Kept, MAX_ARCHIVED, MAX_RUNS, Shortage};
use crate::trust::Trust;

/// The directory of the ledger below the state directory.
const SUBDIRECTORY: &str = "capabilities";
/// A file that is being written.
const WRITING: &str = ".writing";
/// Who holds its lock writes here.
const LOCK: &str = ".lock";
/// Files, at most.
pub(super) const MAX_FILES: usize = MAX_RUNS + MAX_ARCHIVED;
/// Bytes of all files together, at most.
pub(super) const MAX_TOTAL: u64 = 64 << 20;
/// Files that are refused are told by name up to this number.
const MAX_TOLD: usize = 8;

/// Why the state directory cannot be used. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made, opened or locked.
    #[error("state directory {path}: {cause}; name another with `state_dir`, or `state_dir: off`", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Somebody else could have written there.
    #[error("state directory {path} is not trusted: {reason}; make it root's and writable by nobody else", path = path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another daemon writes there.
    #[error("state directory {path} is in use by another Ringfence; name another with `state_dir`", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// An open state directory.
#[derive(Debug)]
pub struct State {
    dir: OwnedFd,
    path: PathBuf,
    /// Held while this is; `None` for who only reads.
    _lock: Option<OwnedFd>,
    max_files: usize,
    max_total: u64,
    sizes: RefCell<Sizes>,
}

/// Bytes of the records' files.
#[derive(Debug, Default)]
struct Sizes {
    /// By name, with whether others than root may make such containers at will.
    files: HashMap<String, (u64, bool)>,
    all: u64,
    /// Those of these containers.
    delegated: u64,
}

/// What a state directory holds.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The records, whose container was last known longest ago first.
    pub kept: Vec<Kept>,
    /// Files that were refused: name and why, the first few.
    pub refused: Vec<(String, String)>,
    /// How many were refused.
    pub refused_count: u64,
    /// Records that were left out because there are too many: boot and cgroup.
    pub dropped: Vec<(Arc<str>, u64)>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const PRIVATE_DIR: Mode = Mode::RWXU;
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

impl State {
    /// Opens the directory for the daemon, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |cause: io::Error| StateError::Io { path: path.to_owned(), cause };
        make_directory(path).map_err(fail)?;
        check(path)?;
        let outer = open(path, DIRECTORY, Mode::empty()).map_err(|error| fail(error.into()))?;
        match mkdirat(&outer, SUBDIRECTORY, PRIVATE_DIR) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(fail(error.into())),
        }
        let path = path.join(SUBDIRECTORY);
        let fail = |cause: rustix::io::Errno| StateError::Io { path: path.clone(), cause: cause.into() };
        let dir = openat(&outer, SUBDIRECTORY, DIRECTORY, Mode::empty()).map_err(fail)?;
        check(&path)?;
        // Whatever the umask was, or somebody made of it.
        fchmod(&dir, PRIVATE_DIR).map_err(fail)?;
        let lock = openat(&dir, LOCK, FILE | OFlags::CREATE | OFlags::RDWR, PRIVATE).map_err(fail)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::InUse { path }),
            Err(error) => return Err(fail(error)),
        }
        Ok(State::over(dir, path, Some(lock)))
    }

    fn over(dir: OwnedFd, path: PathBuf, lock: Option<OwnedFd>) -> Self {
        State {
            dir,
            path,
            _lock: lock,
            max_files: MAX_FILES,
            max_total: MAX_TOTAL,
            sizes: RefCell::default(),
        }
    }

    /// Opens the directory to read what a daemon left, also while one runs.
    ///
    /// # Errors
    /// [`StateError`]; a directory that is not there is one.
    pub fn open_to_read(path: &Path) -> Result<Self, StateError> {
        let path = path.join(SUBDIRECTORY);
        let dir = open(&path, DIRECTORY, Mode::empty())
            .map_err(|error| StateError::Io { path: path.clone(), cause: error.into() })?;
        check(&path)?;
        Ok(State::over(dir, path, None))
    }

    /// The same with other bounds.
    #[cfg(test)]
    pub(super) fn bounded(self, max_files: usize, max_total: u64) -> Self {
        State { max_files, max_total, ..self }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all records. Those that are over the bounds, the oldest first, are left out.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(super) fn load(&self) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut records = Vec::new();
        let most = 4 * self.max_files;
        for (number, entry) in Dir::read_from(&self.dir)?.enumerate() {
            if number >= most {
                loaded.refused_count += 1;
                let what = format!("whatever follows the first {most} entries");
                loaded.refused.push((what, "the directory has more entries than records can be".to_owned()));
                break;
            }
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            match self.read(&name) {
                Ok((kept, bytes)) => {
                    self.note_size(&name, bytes, kept.run.is_delegated());
                    records.push((kept, bytes));
                }
                Err(reason) => {
                    loaded.refused_count += 1;
                    if loaded.refused.len() < MAX_TOLD {
                        loaded.refused.push((name.into_owned(), reason));
                    }
                }
            }
        }
        let age = |kept: &Kept| i128::from(kept.run.until) + i128::from(kept.offset);
        // The latest first; those that others may make at will have what is left, and no more than their part.
        records.sort_by_key(|(kept, _)| (kept.run.is_delegated(), Reverse(age(kept))));
        let (mut files, mut total) = (self.max_files, self.max_total);
        let mut is_cut = [false; 2];
        let mut is_first = true;
        for (kept, bytes) in records {
            let delegated = kept.run.is_delegated();
            if delegated && std::mem::take(&mut is_first) {
                files = files.min(self.max_files / DELEGATED_PART);
                total = total.min(self.max_total / DELEGATED_PART as u64);
            }
            let [host, others] = &mut is_cut;
            let is_cut = if delegated { others } else { host };
            *is_cut |= files == 0 || bytes > total;
            if *is_cut {
                loaded.dropped.push((kept.boot, kept.run.cgroup));
            } else {
                (files, total) = (files - 1, total - bytes);
                loaded.kept.push(kept);
            }
        }
        loaded.kept.sort_by_key(age);
        Ok(loaded)
    }

    fn read(&self, name: &str) -> Result<(Kept, u64), String> {
        if !record::is_file_name(name) {
            return Err("it is no name of a record".to_owned());
        }
        let file = openat(&self.dir, name, FILE | OFlags::RDONLY, Mode::empty())
            .map_err(|error| error.to_string())?;
        let meta = fstat(&file).map_err(|error| error.to_string())?;
        if FileType::from_raw_mode(meta.st_mode) != FileType::RegularFile {
            return Err("it is no regular file".to_owned());
        }
        let file = std::fs::File::from(file);
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        Trust::Strict.check(&metadata)?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        let kept = record::decode(&text)?;
        if record::file_name(&kept.boot, kept.run.cgroup) != name {
            return Err("it is the record of another container than its name says".to_owned());
        }
        Ok((kept, text.len() as u64))
    }

    /// Writes a record; the one before is replaced whole, or stays. It is on the disk after [`State::settle`].
    ///
    /// # Errors
    /// What the kernel said, there is no room, or it could not be read again.
    pub fn write(&self, kept: &Kept) -> io::Result<()> {
        let refused = |reason| io::Error::other(format!("a record could not be read again: {reason}"));
        let text = record::encode(kept).map_err(refused)?;
        let create = FILE | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let name = record::file_name(&kept.boot, kept.run.cgroup);
        let delegated = kept.run.is_delegated();
        self.has_room(&name, text.len() as u64, delegated)?;
        // A daemon that was killed may have left one; the lock says that nobody writes it now.
        remove(&self.dir, WRITING)?;
        let file = openat(&self.dir, WRITING, create, PRIVATE)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&text)?;
        renameat(&self.dir, WRITING, &self.dir, &name)?;
        self.note_size(&name, text.len() as u64, delegated);
        Ok(())
    }

    /// Removes a record. One that is not there is removed.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, boot: &str, cgroup: u64) -> io::Result<()> {
        let name = record::file_name(boot, cgroup);
        remove(&self.dir, &name)?;
        self.note_size(&name, 0, false);
        Ok(())
    }

    /// Whether older records should go so that newer ones have room: that of a round, and of the largest one. Of all, or of
    /// those of containers that others may make at will, which have a part.
    pub(super) fn is_tight(&self, delegated: bool) -> bool {
        let sizes = self.sizes.borrow();
        let part = self.max_total / DELEGATED_PART as u64;
        if delegated { sizes.delegated > part / 4 * 3 } else { sizes.all > self.max_total / 4 * 3 }
    }

    fn has_room(&self, name: &str, bytes: u64, delegated: bool) -> io::Result<()> {
        let sizes = self.sizes.borrow();
        let old = sizes.files.get(name).map_or(0, |(bytes, _)| *bytes);
        let with = |total: u64| total.saturating_sub(old).saturating_add(bytes);
        if with(sizes.all) > self.max_total {
            return Err(io::Error::other(format!("all records together have {} bytes", self.max_total)));
        }
        let part = self.max_total / DELEGATED_PART as u64;
        if delegated && with(sizes.delegated) > part {
            let whose = "those of users' containers and of containers in others";
            return Err(io::Error::other(format!("{whose} have {part} bytes together")));
        }
        Ok(())
    }

    /// A record's file has so many bytes now; 0: it is gone.
    fn note_size(&self, name: &str, bytes: u64, delegated: bool) {
        let mut sizes = self.sizes.borrow_mut();
        let old = match bytes {
            0 => sizes.files.remove(name),
            _ => sizes.files.insert(name.to_owned(), (bytes, delegated)),
        };
        let part = |(bytes, delegated): (u64, bool)| if delegated { bytes } else { 0 };
        let new = (bytes, delegated);
        sizes.all = sizes.all.saturating_sub(old.map_or(0, |old| old.0)).saturating_add(bytes);
        sizes.delegated = sizes.delegated.saturating_sub(old.map_or(0, part)).saturating_add(part(new));
    }

    /// Makes what was written and removed last, through a loss of power too.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn settle(&self) -> io::Result<()> {
        Ok(syncfs(&self.dir)?)
    }
}

/// What is told of a state directory without a daemon, with the first files that are refused and why.
///
/// # Errors
/// It cannot be read.
pub fn stored(path: &Path) -> Result<(CapsListing, Vec<(String, String)>), StateError> {
    let state = State::open_to_read(path)?;
    let loaded = state.load().map_err(|cause| StateError::Io { path: state.path().to_owned(), cause })?;
    // No boot is this one: each record has its own time.
    let told = listing(std::iter::empty(), loaded.kept.iter(), "", 0, Shortage::default());
    Ok((told, loaded.refused))
}

fn remove(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the state directory, private, in one that must be there.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Refuses a directory into which others than root and this user could have put something.
fn check(path: &Path) -> Result<(), StateError> {
    let untrusted = |path: PathBuf, reason| StateError::Untrusted { path, reason };
    Trust::Strict.check_way(path).map_err(|(path, reason)| untrusted(path, reason))?;
    Trust::Strict.check_dir(path).map_err(|reason| untrusted(path.to_owned(), reason))
}
