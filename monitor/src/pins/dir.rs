//! The private directory: who may use it, what lies in it, and who uses it now.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, ResolveFlags, fchmod, flock, fstat, fstatfs, mkdirat, openat2,
    renameat, unlinkat,
};
use rustix::io::Errno;

use super::low;

/// `BPF_FS_MAGIC`.
const BPF_FS: u64 = 0xcafe_4a11;
/// How long the process before may take to let go of the directory: its outputs have five seconds for what it has read.
const PATIENCE: Duration = Duration::from_secs(8);
/// What a set's directory is called, before its key and its number.
const SET: &str = "set-";
/// What it is called as long as it is not whole.
const UNFINISHED: &str = "new-";
/// Objects in a set, at most; there are some 150.
const MAX_OBJECTS: usize = 1024;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is not there, or is no directory, or a link leads to it.
    #[error("{path}: {cause}")]
    Open {
        /// The directory, or what lies in it.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It lies in another kind of file system.
    #[error("{0} lies in no BPF file system: mount -t bpf -o mode=0700 bpf {0}")]
    NotBpf(String),
    /// It, or what lies in it, is somebody else's, or others may get at it.
    #[error("{path} is of user {owner}, mode {mode:04o}: it must be user {wanted}'s alone (mode 0700)")]
    NotPrivate {
        /// The directory, or what lies in it.
        path: String,
        /// Its user.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// The user that Ringfence runs as.
        wanted: u32,
    },
    /// Another process uses it.
    #[error("another Ringfence uses {0}: give each its own pin_dir, or start one with --no-pin")]
    InUse(String),
    /// Something lies in it that Ringfence did not make.
    #[error("{0} is not Ringfence's: give Ringfence a directory of its own as pin_dir")]
    Foreign(String),
}

/// The directory, checked and taken: as long as this lives no other Ringfence uses it.
#[derive(Debug)]
pub struct PinDir {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

/// The name of a whole set: the key of what it was made from, and a number that grows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    /// The number.
    pub number: u64,
    /// The key.
    pub key: u64,
}

impl SetName {
    fn parse(name: &str) -> Option<Self> {
        let (key, number) = name.split_once('-')?;
        let hex = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
        Some(SetName { key: hex(key)?, number: hex(number)? })
    }

    fn dir(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}-{:016x}", self.key, self.number)
    }
}

impl PinDir {
    /// Opens the directory and takes it. The last part of its path is made, if what lies above is a BPF file system.
    ///
    /// # Errors
    /// [`PinError`]. Nothing was changed then.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let own = rustix::process::geteuid().as_raw();
        Self::open_of(path, |_| own)
    }

    /// The same for whoever tidies up: root may also take the directory of the user that Ringfence runs as.
    ///
    /// # Errors
    /// As [`PinDir::open`].
    pub fn open_to_clear(path: &Path) -> Result<Self, PinError> {
        let own = rustix::process::geteuid().as_raw();
        Self::open_of(path, |its| if own == 0 { its } else { own })
    }

    fn open_of(path: &Path, wanted: impl Fn(u32) -> u32) -> Result<Self, PinError> {
        let shown = || path.display().to_string();
        let failed = |cause: Errno| PinError::Open { path: shown(), cause: cause.into() };
        let fd = match open_dir(path) {
            Err(Errno::NOENT) => make(path).map_err(failed)?,
            other => other.map_err(failed)?,
        };
        if fstatfs(&fd).map_err(failed)?.f_type as u64 != BPF_FS {
            return Err(PinError::NotBpf(shown()));
        }
        let stat = fstat(&fd).map_err(failed)?;
        let dir = PinDir { fd, path: path.to_owned(), owner: wanted(stat.st_uid) };
        check(path, stat.st_uid, stat.st_mode, dir.owner)?;
        dir.take()?;
        Ok(dir)
    }

    /// The lock goes with the last descriptor, and so with the process, however that ends.
    fn take(&self) -> Result<(), PinError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(Errno::WOULDBLOCK) => return Err(PinError::InUse(self.shown(""))),
                Err(cause) => return Err(PinError::Open { path: self.shown(""), cause: cause.into() }),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// The path of something in it by our descriptor, so that nothing that happens to the path's parts matters.
    fn at(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// The whole sets, newest last. What a process that was killed left unfinished is removed.
    ///
    /// # Errors
    /// [`PinError`], if there is something that Ringfence did not make.
    pub fn sets(&self) -> Result<Vec<SetName>, PinError> {
        let mut sets = Vec::new();
        for name in self.list("")? {
            let shown = self.shown(&name);
            let (is_whole, rest) = match (name.strip_prefix(SET), name.strip_prefix(UNFINISHED)) {
                (Some(rest), _) => (true, rest),
                (None, Some(rest)) => (false, rest),
                (None, None) => return Err(PinError::Foreign(shown)),
            };
            let set = SetName::parse(rest).ok_or(PinError::Foreign(shown))?;
            if is_whole {
                sets.push(set);
            } else {
                self.clear(&name)?;
            }
        }
        sets.sort();
        Ok(sets)
    }

    /// The names in a directory of ours, each checked to be of our user.
    fn list(&self, name: &str) -> Result<Vec<String>, PinError> {
        let failed = |path: String| move |cause| PinError::Open { path, cause };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(name)).map_err(failed(self.shown(name)))? {
            let entry = entry.map_err(failed(self.shown(name)))?;
            // The kernel lays iterators of its own there (`CONFIG_BPF_PRELOAD`), and nobody else can make such a name.
            if entry.file_name().as_encoded_bytes().contains(&b'.') {
                continue;
            }
            let Some(inner) = name_of(entry.file_name()) else {
                return Err(PinError::Foreign(self.shown(name)));
            };
            let path = Path::new(name).join(&inner);
            let shown = self.path.join(path);
            let metadata = entry.metadata().map_err(failed(shown.display().to_string()))?;
            if metadata.is_symlink() || names.len() >= MAX_OBJECTS {
                return Err(PinError::Foreign(shown.display().to_string()));
            }
            check(&shown, metadata.uid(), metadata.mode(), self.owner)?;
            names.push(inner);
        }
        Ok(names)
    }

    /// Begins a set: what is pinned there does not count before [`PinDir::finish`].
    ///
    /// # Errors
    /// [`PinError`].
    pub fn begin(&self, set: &SetName) -> Result<(), PinError> {
        let name = set.dir(UNFINISHED);
        let failed = |cause: Errno| PinError::Open { path: self.shown(&name), cause: cause.into() };
        mkdirat(&self.fd, &*name, Mode::RWXU).map_err(failed)
    }

    /// Pins the object behind a descriptor, given by its number, in a set that was begun.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn pin(&self, set: &SetName, name: &str, object: u32) -> io::Result<()> {
        low::pin(object, &self.place(set, name))
    }

    /// Where [`PinDir::pin`] puts a name.
    pub fn place(&self, set: &SetName, name: &str) -> PathBuf {
        self.at(&set.dir(UNFINISHED)).join(name)
    }

    /// From here on the set is whole; a single step, so that there is nothing between.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn finish(&self, set: &SetName) -> Result<(), PinError> {
        let failed = |cause: Errno| PinError::Open { path: self.shown(&set.dir(SET)), cause: cause.into() };
        renameat(&self.fd, set.dir(UNFINISHED), &self.fd, set.dir(SET)).map_err(failed)
    }

    /// The names in a whole set.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn names(&self, set: &SetName) -> Result<Vec<String>, PinError> {
        self.list(&set.dir(SET))
    }

    /// An object of a whole set.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn get(&self, set: &SetName, name: &str) -> io::Result<OwnedFd> {
        low::get(&self.at(&set.dir(SET)).join(name))
    }

    /// Removes a set, whole or not. Links go first: nothing runs any more that would write to a map without a name.
    ///
    /// # Errors
    /// [`PinError`]; what could be removed is.
    pub fn remove(&self, set: &SetName) -> Result<(), PinError> {
        let cleared = [SET, UNFINISHED].map(|prefix| match self.clear(&set.dir(prefix)) {
            Err(PinError::Open { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        cleared.into_iter().collect()
    }

    /// Takes a whole set's programs off their hooks; its maps stay, to be read.
    ///
    /// # Errors
    /// [`PinError`]; what could be taken off is.
    pub fn unhook(&self, set: &SetName) -> Result<(), PinError> {
        let dir = set.dir(SET);
        let mut result = Ok(());
        for name in self.list(&dir)?.into_iter().filter(|name| name.starts_with(super::LINK)) {
            let path = format!("{dir}/{name}");
            if let Err(cause) = unlinkat(&self.fd, &*path, AtFlags::empty()) {
                result = Err(PinError::Open { path: self.shown(&path), cause: cause.into() });
            }
        }
        result
    }

    fn clear(&self, dir: &str) -> Result<(), PinError> {
        let mut names = self.list(dir)?;
        names.sort_by_key(|name| !name.starts_with(super::LINK));
        let mut result = Ok(());
        let mut drop_it = |path: &str, flags| {
            if let Err(cause) = unlinkat(&self.fd, path, flags) {
                result = Err(PinError::Open { path: self.shown(path), cause: cause.into() });
            }
        };
        for name in names {
            drop_it(&format!("{dir}/{name}"), AtFlags::empty());
        }
        drop_it(dir, AtFlags::REMOVEDIR);
        result
    }

    /// Removes all sets, and gives how many there were.
    ///
    /// # Errors
    /// [`PinError`]; foreign things stay.
    pub fn remove_all(&self) -> Result<usize, PinError> {
        let sets = self.sets()?;
        sets.iter().try_for_each(|set| self.remove(set))?;
        Ok(sets.len())
    }
}

fn name_of(name: OsString) -> Option<String> {
    let is_plain =
        |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    name.into_string().ok().filter(is_plain)
}

/// No link counts, whatever part of the path it is.
fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

fn make(path: &Path) -> rustix::io::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
    let parent = open_dir(parent)?;
    if fstatfs(parent.as_fd())?.f_type as u64 != BPF_FS {
        return Err(Errno::NOENT);
    }
    mkdirat(&parent, name, Mode::RWXU)?;
    let fd = open_dir(path)?;
    // The umask may have taken something.
    fchmod(&fd, Mode::RWXU)?;
    Ok(fd)
}

/// Only who Ringfence runs as may get at it: whoever can may change what it takes over.
fn check(path: &Path, owner: u32, mode: u32, wanted: u32) -> Result<(), PinError> {
    let mode = mode & 0o7777;
    if owner == wanted && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(PinError::NotPrivate { path: path.display().to_string(), owner, mode, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_are_read_as_they_are_written() {
        let set = SetName { key: 0xab, number: 7 };
        let name = set.dir(SET);
        assert_eq!(name, "set-00000000000000ab-0000000000000007");
        assert_eq!(SetName::parse(&name[SET.len()..]), Some(set));
        for wrong in ["", "ab-7", "00000000000000ab", "00000000000000ab-000000000000000g"] {
            assert_eq!(SetName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_ordinary_directory_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(PinDir::open(dir.path()), Err(PinError::NotBpf(_))));
        let missing = dir.path().join("none");
        assert!(matches!(PinDir::open(&missing), Err(PinError::Open { .. })));
        assert!(!missing.exists());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/sys/fs/bpf", &link).unwrap();
        assert!(matches!(PinDir::open(&link), Err(PinError::Open { .. })));
    }

    #[test]
    fn what_others_can_get_at_is_not_private() {
        let path = Path::new("/x");
        assert!(check(path, 7, 0o40700, 7).is_ok() && check(path, 7, 0o100_600, 7).is_ok());
        for (owner, mode) in [(7, 0o40701), (7, 0o40770), (8, 0o40700)] {
            assert!(matches!(check(path, owner, mode, 7), Err(PinError::NotPrivate { .. })));
        }
    }
}
