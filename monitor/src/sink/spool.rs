//! Alerts that wait on disk, in the order in which they came, while an output's peer is away.
//!
//! A spool is a directory of numbered files ([`segment`]), of which only the last grows, and a note of how far the first
//! was delivered ([`cursor`]). The directory is private, held by a lock, and bounded in bytes and in files. It outlives the
//! process: the note is written after each delivery, so what a crash leaves is delivered from there on, at most one batch
//! twice. Each record has a checksum; a tail that a crash left torn is cut off, and what else is damaged is passed over
//! and told. After a power failure what the kernel had not written yet is gone, too.

mod cursor;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use self::cursor::{Cursor, Position};
use self::segment::{Segment, push_frame};
use super::kept::records;
use super::{Batch, Record};
use crate::append;
use crate::rules::Priority;
use crate::trust::Trust;

/// Permissions of the directory: nobody else's business.
const DIR_MODE: u32 = 0o700;

/// A spool is made of about so many files, so that room becomes free in small parts.
const SEGMENTS: u64 = 16;

/// Smallest and largest size at which a file is no longer appended to.
const SEGMENT_BYTES: (u64, u64) = (64 << 10, 16 << 20);

/// Why a spool cannot be used. Each message names cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory in which it shall be is missing.
    #[error("spool {}: its parent directory does not exist; create it with `mkdir -p`, or name another spool.dir", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Others than root and we can write to the directory.
    #[error("spool {} is not trusted: {reason}; `chown` it to the daemon's user and `chmod 0700` it", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process uses it.
    #[error("spool {} is used by another process; end it, or name another spool.dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else.
    #[error("spool {}: {cause}; check the path and its permissions", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Why records did not go into the spool. None of them did.
#[derive(Debug)]
pub(super) enum AppendError {
    /// There is no room for them.
    Full,
    /// The disk refused them.
    Io(io::Error),
}

/// What an earlier process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Records that wait.
    pub(super) records: u64,
    /// Bytes that were cut off or passed over.
    pub(super) torn_bytes: u64,
}

/// Alerts on disk.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// Nobody else uses the directory while this is open.
    _lock: File,
    limit: u64,
    segment_bytes: u64,
    /// From the oldest to the one that is appended to.
    segments: VecDeque<Segment>,
    /// Where the next record to be delivered begins, in the oldest.
    read_at: u64,
    /// Where each record of the last reading ends.
    ends: VecDeque<u64>,
    cursor: Cursor,
    next_id: u64,
    /// Records that were passed over because of damage, since this was last asked.
    lost: u64,
    frames: Vec<u8>,
}

/// Records that were read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    bytes: Vec<u8>,
    lines: Vec<(Range<usize>, Priority)>,
}

impl Loaded {
    pub(super) fn records(&self) -> Vec<Record<'_>> {
        let record = |(range, priority): &(Range<usize>, Priority)| Record {
            line: self.bytes.get(range.clone()).unwrap_or_default(),
            priority: *priority,
        };
        self.lines.iter().map(record).collect()
    }
}

impl Spool {
    /// Opens the spool of the output of this name below `dir`, and makes it if there is none. It may take `limit` bytes on
    /// disk. What is in it is read later, by [`Spool::recover`].
    ///
    /// # Errors
    /// [`SpoolError`] names cause and remedy.
    pub fn open(dir: &Path, name: &str, limit: u64) -> Result<Self, SpoolError> {
        private_dir(dir)?;
        let dir = dir.join(name);
        private_dir(&dir)?;
        let fail = |cause| SpoolError::Io { path: dir.clone(), cause };
        let lock = append::open(&dir.join("lock"), 0).map_err(fail)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => SpoolError::InUse { path: dir.clone() },
            error => fail(error.into()),
        })?;
        let cursor = Cursor::open(&dir.join("cursor")).map_err(fail)?;
        Ok(Spool {
            _lock: lock,
            limit,
            segment_bytes: (limit / SEGMENTS).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1),
            segments: VecDeque::new(),
            read_at: 0,
            ends: VecDeque::new(),
            cursor,
            next_id: 1,
            lost: 0,
            frames: Vec::new(),
            dir,
        })
    }

    /// Reads through what an earlier process left, and cuts off what is torn. To be called once, before anything else.
    ///
    /// # Errors
    /// The directory cannot be read; files that cannot are left out of what waits, and stay.
    pub(super) fn recover(&mut self) -> io::Result<Recovered> {
        let position = self.cursor.position();
        let mut ids: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            ids.extend(entry?.file_name().to_str().and_then(segment::id_of));
        }
        ids.sort_unstable();
        self.next_id = ids.last().copied().max(Some(position.segment)).unwrap_or(0).saturating_add(1);
        let mut found = Recovered::default();
        for id in ids {
            let path = segment::path(&self.dir, id);
            let begin = match id.cmp(&position.segment) {
                // Delivered whole; the process ended before it could remove it.
                std::cmp::Ordering::Less => {
                    fs::remove_file(&path)?;
                    continue;
                }
                std::cmp::Ordering::Equal => position.offset,
                std::cmp::Ordering::Greater => 0,
            };
            let (segment, torn) = Segment::recover(&path, id, begin)?;
            found.torn_bytes += torn;
            if segment.records == 0 {
                segment.remove()?;
                continue;
            }
            if self.segments.is_empty() {
                self.read_at = begin.max(segment::HEAD);
            }
            found.records += segment.records;
            self.segments.push_back(segment);
        }
        Ok(found)
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Records lost by damage since this was last asked.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Puts the records of a batch behind the first `skip` into the spool: all of them or none.
    pub(super) fn append(&mut self, batch: &Batch, skip: usize) -> Result<(), AppendError> {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let mut count = 0;
        for record in records(batch).skip(skip) {
            push_frame(&record, &mut frames);
            count += 1;
        }
        let outcome = self.append_frames(&frames, count);
        frames.shrink_to(1 << 20);
        self.frames = frames;
        outcome
    }

    fn append_frames(&mut self, frames: &[u8], count: u64) -> Result<(), AppendError> {
        let opens = self.segments.back().is_none_or(|segment| segment.len >= self.segment_bytes);
        let head = if opens { segment::HEAD } else { 0 };
        if self.bytes() + head + frames.len() as u64 > self.limit {
            return Err(AppendError::Full);
        }
        if opens {
            let segment = Segment::create(&self.dir, self.next_id).map_err(AppendError::Io)?;
            self.next_id += 1;
            if self.segments.is_empty() {
                self.read_at = segment::HEAD;
            }
            self.segments.push_back(segment);
        }
        match self.segments.back_mut() {
            Some(segment) => segment.append(frames, count).map_err(AppendError::Io),
            None => Err(AppendError::Full),
        }
    }

    /// Reads the next records: as many as that, or until so many bytes are read, but at least one if there is one.
    ///
    /// # Errors
    /// The disk does not give them.
    pub(super) fn read(&mut self, max_records: usize, max_bytes: usize) -> io::Result<Loaded> {
        self.ends.clear();
        while let Some(segment) = self.segments.front() {
            let mut bytes = Vec::new();
            let frames = segment.read(self.read_at, max_records, max_bytes, &mut bytes)?;
            if frames.is_empty() {
                // Nothing whole is left in it, though there should be: it was changed on disk.
                self.lost += segment.records;
                self.drop_front();
                continue;
            }
            self.ends = frames.iter().map(|frame| frame.end).collect();
            return Ok(Loaded {
                bytes,
                lines: frames.into_iter().map(|frame| (frame.line, frame.priority)).collect(),
            });
        }
        Ok(Loaded::default())
    }

    /// The first `count` records of the last reading are settled: they will not be read again.
    pub(super) fn advance(&mut self, count: usize) {
        let count = count.min(self.ends.len());
        let Some(end) = self.ends.drain(..count).next_back() else { return };
        let Some(segment) = self.segments.front_mut() else { return };
        self.read_at = end;
        segment.records = segment.records.saturating_sub(count as u64);
        if segment.records == 0 {
            self.drop_front();
        } else {
            let position = Position { segment: segment.id, offset: end };
            // If it cannot be noted, more than one batch may come twice after a crash.
            let _ = self.cursor.note(position);
        }
    }

    /// The oldest file is done with.
    fn drop_front(&mut self) {
        let Some(segment) = self.segments.pop_front() else { return };
        // Noted first: a number that was used is not used again, and what is left of the file is not read again.
        let _ = self.cursor.note(Position { segment: segment.id + 1, offset: 0 });
        if let Err(error) = segment.remove()
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(spool = %self.dir.display(), cause = %error, "a delivered part of the spool cannot be removed");
        }
        self.read_at = segment::HEAD;
    }

    /// Makes what was appended outlive the machine, too, as far as that can be had.
    pub(super) fn sync(&mut self) {
        if let Some(segment) = self.segments.back() {
            segment.sync();
        }
    }
}

/// Makes the directory if it is missing, and checks that nobody else can write to it.
fn private_dir(dir: &Path) -> Result<(), SpoolError> {
    let path = dir.to_owned();
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(SpoolError::NoDirectory { path }),
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(SpoolError::Io { path, cause: error });
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(dir).map_err(|cause| SpoolError::Io { path: path.clone(), cause })?;
    if !meta.is_dir() {
        let reason = "it is no directory".to_owned();
        return Err(SpoolError::Untrusted { path, reason });
    }
    Trust::Strict.check(&meta).map_err(|reason| SpoolError::Untrusted { path, reason })
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
