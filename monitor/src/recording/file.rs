//! One recording that is written: opened without following links, appended to behind its last good block.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::format::{FILE_HEAD, file_head};
use super::reader::{Item, Recording};
use crate::append;

/// Why a recording cannot be written. Each message names cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is a symbolic link.
    #[error("{} is a symbolic link, which could lead anywhere; name the file itself", path.display())]
    SymbolicLink {
        /// The file or directory.
        path: PathBuf,
    },
    /// It is a directory, a pipe, a device.
    #[error("{} is not a regular file; name one", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is some other file.
    #[error("{} is no recording of Ringfence, and is left as it is; name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{} is being written by another process; end it, or name another place", path.display())]
    InUse {
        /// The file or directory.
        path: PathBuf,
    },
    /// Others than root and we can write to the directory.
    #[error("{} is not trusted: {reason}; `chown root` and `chmod go-w` it", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Anything else.
    #[error("{}: {cause}; check the path and its permissions", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A bug in the table of metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl RecordingError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.raw_os_error() {
            Some(libc::ELOOP) => RecordingError::SymbolicLink { path },
            Some(libc::EISDIR | libc::ENXIO) => RecordingError::NotAFile { path },
            Some(libc::EWOULDBLOCK) => RecordingError::InUse { path },
            _ => RecordingError::Io { path, cause },
        }
    }
}

/// A recording that is appended to. Nobody else appends to it meanwhile (flock).
#[derive(Debug)]
pub struct RecordingFile {
    file: File,
    path: PathBuf,
    /// Bytes that are whole blocks.
    len: u64,
    /// Events that it held when it was opened.
    pub events_before: u64,
    /// Bytes of a torn block at its end that were cut off.
    pub cut: u64,
}

impl RecordingFile {
    /// Opens a recording behind its last good block, or makes one of mode 0640.
    ///
    /// # Errors
    /// [`RecordingError`]; a file that is no recording is not touched.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let fail = |cause| RecordingError::io(path, cause);
        // A FIFO without a reader must not hold us.
        let file = append::open(path, libc::O_NONBLOCK).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(RecordingError::NotAFile { path: path.to_owned() });
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| fail(errno.into()))?;
        let mut opened = RecordingFile { file, path: path.to_owned(), len: 0, events_before: 0, cut: 0 };
        opened.find_end()?;
        Ok(opened)
    }

    fn find_end(&mut self) -> Result<(), RecordingError> {
        let fail = |cause| RecordingError::io(&self.path, cause);
        let len = self.file.metadata().map_err(fail)?.len();
        // What a crash can leave of a new file.
        let mut begin = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        (&self.file).take(FILE_HEAD as u64).read_to_end(&mut begin).map_err(fail)?;
        if begin.len() < FILE_HEAD && file_head().starts_with(&begin) {
            self.file.set_len(0).map_err(fail)?;
            self.file.write_all(&file_head()).map_err(fail)?;
            self.len = FILE_HEAD as u64;
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let mut recording = Recording::new(&self.file);
        while let Some(item) = recording.next_item().map_err(fail)? {
            if let Item::Damage(damage) = item {
                tracing::debug!(?damage, "a damaged part of the recording that is appended to");
            }
        }
        if recording.is_foreign() {
            return Err(RecordingError::Foreign { path: self.path.clone() });
        }
        let (end, events) = (recording.good_end(), recording.tally().events);
        self.file.set_len(end).map_err(fail)?;
        (self.len, self.events_before, self.cut) = (end, events, len - end.min(len));
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no block is in it.
    pub fn is_empty(&self) -> bool {
        self.len <= FILE_HEAD as u64
    }

    /// Appends a whole block. The kernel has it then: it survives this process.
    ///
    /// # Errors
    /// The disk is full, say. What was written of the block is taken back, so that the next one can follow.
    pub fn append(&mut self, block: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(block) {
            // If that fails too, readers find the next block behind the torn one.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += block.len() as u64;
        Ok(())
    }

    /// False when somebody removed it: what is appended then is lost.
    pub fn is_there(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() > 0)
    }

    /// Waits until the disk has everything.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
