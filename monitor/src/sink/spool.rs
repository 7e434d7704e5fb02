//! Alerts that wait on disk, in the order in which they came, while an output's peer is away.
//!
//! A spool is a directory of numbered files ([`segment`]), of which only the last grows, and a note of how far the first
//! was delivered ([`cursor`]). The directory is private, held by a lock, and bounded in bytes and in files. It outlives the
//! process: the note is written after each delivery, so what a crash leaves is delivered from there on, at most one batch
//! twice. Each record has a checksum; a tail that a crash left torn is cut off, and what else is damaged is passed over.
//! A file that cannot be read is put aside, and tried again by the next process. All that is counted. After a power failure
//! what the kernel had not written yet is gone, too.

mod cursor;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use self::cursor::{Cursor, Position};
use self::segment::{Damaged, Segment, push_frame};
use super::kept::records;
use super::{Batch, Record};
use crate::append;
use crate::rules::Priority;
use crate::trust::Trust;

/// Permissions of the directory: nobody else's business.
const DIR_MODE: u32 = 0o700;

/// A spool is made of about so many files, so that room becomes free in small parts.
const SEGMENTS: u64 = 16;

/// Smallest size at which a file is no longer appended to. There is no largest, since each file is kept open.
const SEGMENT_BYTES: u64 = 64 << 10;

/// A file that cannot be read is put aside after so many attempts.
const READ_TRIES: u32 = 3;

/// Between two attempts at the start.
const READ_PAUSE: Duration = Duration::from_millis(50);

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
    /// Bytes that were cut off or are passed over.
    pub(super) torn_bytes: u64,
    /// Records that are lost by that, at least; one for each file that cannot be read.
    pub(super) lost: u64,
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
    /// Attempts in a row to read the oldest file that failed.
    failures: u32,
    /// Bytes of files that were put aside.
    aside_bytes: u64,
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
            segment_bytes: (limit / SEGMENTS).max(SEGMENT_BYTES),
            segments: VecDeque::new(),
            read_at: 0,
            ends: VecDeque::new(),
            cursor,
            next_id: 1,
            lost: 0,
            failures: 0,
            aside_bytes: 0,
            frames: Vec::new(),
            dir,
        })
    }

    /// Reads through what an earlier process left, and cuts off what is torn. To be called once, before anything else.
    ///
    /// # Errors
    /// The directory cannot be read. Files that cannot are put aside.
    pub(super) fn recover(&mut self) -> io::Result<Recovered> {
        let position = self.cursor.position();
        let (mut ids, mut aside) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().unwrap_or_default();
            ids.extend(segment::id_of(name));
            aside.extend(segment::unread_of(name));
        }
        ids.sort_unstable();
        aside.sort_unstable();
        let numbers = ids.iter().copied().chain(aside.iter().map(|(id, _)| *id));
        self.next_id = numbers.chain([position.segment]).max().unwrap_or(0).saturating_add(1);
        let (last, mut found) = (ids.last().copied(), Recovered::default());
        for id in ids {
            let path = segment::path(&self.dir, id);
            let begin = match id.cmp(&position.segment) {
                // Delivered whole; the process ended before it could remove it.
                std::cmp::Ordering::Less => {
                    self.removed(fs::remove_file(&path));
                    continue;
                }
                std::cmp::Ordering::Equal => position.offset,
                std::cmp::Ordering::Greater => 0,
            };
            match recover_patiently(&path, id, begin, Some(id) == last) {
                Ok((segment, damaged)) => self.adopt(segment, damaged, &mut found),
                Err(error) => {
                    found.lost += 1;
                    self.put_aside(&path, id, begin, &error);
                }
            }
        }
        for (id, begin) in aside {
            let path = segment::unread_path(&self.dir, id, begin);
            let readable = Segment::recover(&path, id, begin, false).and_then(|(mut segment, damaged)| {
                // Behind all others: the note must not go back.
                segment.rename(&self.dir, self.next_id)?;
                Ok((segment, damaged))
            });
            match readable {
                Ok((segment, damaged)) => {
                    self.next_id += 1;
                    self.adopt(segment, damaged, &mut found);
                }
                Err(error) => self.leave_aside(&path, &error),
            }
        }
        Ok(found)
    }

    /// Takes a file over that an earlier process left.
    fn adopt(&mut self, segment: Segment, damaged: Damaged, found: &mut Recovered) {
        found.torn_bytes += damaged.bytes;
        found.lost += damaged.records;
        if segment.records == 0 {
            self.removed(segment.remove());
            return;
        }
        if self.segments.is_empty() {
            self.read_at = segment.begin;
        }
        found.records += segment.records;
        self.segments.push_back(segment);
    }

    /// Renames a file that cannot be read, so that the note does not pass it, and the next process tries it again.
    fn put_aside(&mut self, path: &Path, id: u64, begin: u64, error: &io::Error) {
        let aside = segment::unread_path(&self.dir, id, begin);
        match fs::rename(path, &aside) {
            Ok(()) => self.leave_aside(&aside, error),
            Err(_) => self.leave_aside(path, error),
        }
    }

    fn leave_aside(&mut self, path: &Path, error: &io::Error) {
        self.aside_bytes += fs::symlink_metadata(path).map_or(0, |meta| meta.len());
        tracing::error!(
            file = %path.display(),
            cause = %error,
            "a part of the spool cannot be read; it stays, takes its room, and is tried again at the next start"
        );
    }

    fn removed(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(spool = %self.dir.display(), cause = %error, "a delivered part of the spool cannot be removed");
        }
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.aside_bytes + self.segments.iter().map(|segment| segment.len).sum::<u64>()
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
        let is_full = |segment: &Segment| segment.closed || segment.len >= self.segment_bytes;
        let opens = self.segments.back().is_none_or(is_full);
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
    /// The disk does not give them. The third time in a row their file is put aside instead.
    pub(super) fn read(&mut self, max_records: usize, max_bytes: usize) -> io::Result<Loaded> {
        self.ends.clear();
        while let Some(segment) = self.segments.front() {
            let mut bytes = Vec::new();
            let frames = match segment.read(self.read_at, max_records, max_bytes, &mut bytes) {
                Ok(frames) => frames,
                Err(error) => {
                    self.failures += 1;
                    if self.failures < READ_TRIES {
                        return Err(error);
                    }
                    self.failures = 0;
                    let begin = self.read_at;
                    if let Some(segment) = self.pop_front() {
                        self.lost += segment.records;
                        self.put_aside(segment.path(), segment.id, begin, &error);
                    }
                    continue;
                }
            };
            self.failures = 0;
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
        if let Some(segment) = self.pop_front() {
            self.removed(segment.remove());
        }
    }

    fn pop_front(&mut self) -> Option<Segment> {
        let segment = self.segments.pop_front()?;
        // Noted first: a number that was used is not used again, and what is left of the file is not read again.
        let _ = self.cursor.note(Position { segment: segment.id + 1, offset: 0 });
        self.read_at = self.segments.front().map_or(segment::HEAD, |next| next.begin);
        Some(segment)
    }

    /// Makes what was appended outlive the machine, too, as far as that can be had.
    pub(super) fn sync(&mut self) {
        if let Some(segment) = self.segments.back() {
            segment.sync();
        }
    }
}

/// Opens a file that an earlier process left. The reason why it cannot be may go away: too many open files, say.
fn recover_patiently(path: &Path, id: u64, begin: u64, last: bool) -> io::Result<(Segment, Damaged)> {
    for _ in 1..READ_TRIES {
        match Segment::recover(path, id, begin, last) {
            Err(_) => thread::sleep(READ_PAUSE),
            recovered => return recovered,
        }
    }
    Segment::recover(path, id, begin, last)
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
