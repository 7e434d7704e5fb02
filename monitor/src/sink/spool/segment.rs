//! A file of a spool: a head, then one frame after the other.
//!
//! A frame is the length of what follows the checksum (4 bytes), a CRC-32 of length, priority and line (4 bytes), the
//! priority's number (1 byte) and the line. Numbers are little-endian. A frame that is damaged is passed over if its length
//! makes sense; otherwise what is behind it in the file is lost with it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::append;
use crate::rules::Priority;
use crate::sink::Record;

/// How a file begins: what it is, and the version of its layout.
const MAGIC: [u8; 8] = *b"RFSPOOL\x01";

/// Bytes before the first frame.
pub(super) const HEAD: u64 = MAGIC.len() as u64;

/// Bytes of a frame before its priority.
const FRAME_HEAD: usize = 8;

/// The longest line that is believed; longer ones are damage.
const MAX_LINE: usize = 16 << 20;

/// The name of the file of this number.
fn name(id: u64) -> String {
    format!("{id:016x}.seg")
}

/// The number in a file's name, if it is one of ours.
pub(super) fn id_of(file: &str) -> Option<u64> {
    let id = u64::from_str_radix(file.strip_suffix(".seg")?, 16).ok()?;
    (name(id) == file).then_some(id)
}

/// Where the file of this number is.
pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(name(id))
}

/// What the name of a file ends in that could not be read.
const UNREAD: &str = ".unread";

/// Where the file of this number is put that could not be read, and from where on it is not delivered.
pub(super) fn unread_path(dir: &Path, id: u64, begin: u64) -> PathBuf {
    dir.join(unread_name(id, begin))
}

fn unread_name(id: u64, begin: u64) -> String {
    format!("{id:016x}.{begin:x}{UNREAD}")
}

/// Both numbers in the name of such a file.
pub(super) fn unread_of(file: &str) -> Option<(u64, u64)> {
    let (id, begin) = file.strip_suffix(UNREAD)?.split_once('.')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let (id, begin) = (number(id)?, number(begin)?);
    (unread_name(id, begin) == file).then_some((id, begin))
}

/// Appends a record as a frame.
pub(super) fn push_frame(record: &Record<'_>, out: &mut Vec<u8>) {
    let len = (record.line.len() + 1) as u32;
    let priority = record.priority as u8;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(len, priority, record.line).to_le_bytes());
    out.push(priority);
    out.extend_from_slice(record.line);
}

fn checksum(len: u32, priority: u8, line: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&len.to_le_bytes());
    crc.update(&[priority]);
    crc.update(line);
    crc.finalize()
}

/// A frame that was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) line: Range<usize>,
    pub(super) priority: Priority,
    /// Where it ends in the file.
    pub(super) end: u64,
}

/// What stands at a place of a buffer.
enum Found {
    Frame(Range<usize>, Priority),
    /// The frame is longer than the buffer: so many bytes from its begin.
    Short(usize),
    /// So many bytes that look like a frame and are none.
    Bad(usize),
    Damage,
}

fn frame_at(bytes: &[u8], at: usize) -> Found {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some((head, body)) = rest.split_at_checked(FRAME_HEAD) else { return Found::Short(FRAME_HEAD) };
    let number = |at: usize| {
        head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let (len, crc) = (number(0), number(4));
    if len == 0 || len as usize > MAX_LINE + 1 {
        return Found::Damage;
    }
    let Some((priority, line)) = body.get(..len as usize).and_then(<[u8]>::split_first) else {
        return Found::Short(FRAME_HEAD + len as usize);
    };
    let known = Priority::ALL.get(usize::from(*priority)).filter(|known| **known as u8 == *priority);
    match known {
        Some(known) if checksum(len, *priority, line) == crc => {
            let begin = at + FRAME_HEAD + 1;
            Found::Frame(begin..begin + line.len(), *known)
        }
        _ => Found::Bad(FRAME_HEAD + len as usize),
    }
}

/// A file of a spool.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    path: PathBuf,
    file: File,
    /// Where the first frame begins that is to be delivered.
    pub(super) begin: u64,
    /// Bytes of it.
    pub(super) len: u64,
    /// Whole frames that are not settled.
    pub(super) records: u64,
    /// Behind what is at its end nothing would be found: nothing is appended.
    pub(super) closed: bool,
}

/// What was wrong with a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damaged {
    /// Bytes that are no frame.
    pub(super) bytes: u64,
    /// Records that these were, at least.
    pub(super) records: u64,
}

impl Segment {
    /// Makes the file of this number.
    pub(super) fn create(dir: &Path, id: u64) -> io::Result<Self> {
        let path = path(dir, id);
        let mut file = append::open(&path, 0)?;
        // What a failure left of an earlier attempt.
        file.set_len(0)?;
        if let Err(error) = file.write_all(&MAGIC) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Segment { id, path, file, begin: HEAD, len: HEAD, records: 0, closed: false })
    }

    /// Reads through the file from `begin` on, and counts its frames. Of the `last` file, which is appended to, what is
    /// behind the last whole frame is cut off; others are left as they are.
    ///
    /// # Errors
    /// It cannot be opened or read, or is of another version.
    pub(super) fn recover(path: &Path, id: u64, begin: u64, last: bool) -> io::Result<(Self, Damaged)> {
        let file = append::open(path, 0)?;
        let (size, begin) = (file.metadata()?.len(), begin.max(HEAD));
        let mut segment =
            Segment { id, path: path.to_owned(), file, begin, len: size, records: 0, closed: true };
        if size < HEAD {
            // The last one was about to be made; of another there was more.
            return Ok((segment, Damaged { bytes: size, records: u64::from(!last) }));
        }
        let mut reader = BufReader::with_capacity(256 << 10, &segment.file);
        let mut head = [0; MAGIC.len()];
        reader.read_exact(&mut head)?;
        if head != MAGIC {
            return Err(io::Error::other("it is no part of a spool, or one of another version"));
        }
        reader.seek(SeekFrom::Start(begin))?;
        // Where the last whole frame ends; what was passed over since.
        let (mut end, mut passed, mut frames_passed) = (begin.min(size), 0, 0);
        let (mut records, mut damaged, mut frame) = (0, Damaged::default(), Vec::new());
        loop {
            frame.clear();
            (&mut reader).take(FRAME_HEAD as u64).read_to_end(&mut frame)?;
            if let Found::Short(whole) = frame_at(&frame, 0)
                && whole > FRAME_HEAD
            {
                (&mut reader).take((whole - FRAME_HEAD) as u64).read_to_end(&mut frame)?;
            }
            match frame_at(&frame, 0) {
                Found::Frame(..) => {
                    records += 1;
                    damaged.bytes += passed;
                    damaged.records += frames_passed;
                    end += passed + frame.len() as u64;
                    (passed, frames_passed) = (0, 0);
                }
                Found::Bad(whole) => {
                    passed += whole as u64;
                    frames_passed += 1;
                }
                Found::Short(_) | Found::Damage => break,
            }
        }
        let tail = size - end;
        if tail > 0 {
            damaged.bytes += tail;
            damaged.records += frames_passed.max(1);
        }
        let cut = last && tail > 0 && segment.file.set_len(end).is_ok();
        segment.len = if cut { end } else { size };
        segment.closed = tail > 0 && !cut;
        segment.records = records;
        Ok((segment, damaged))
    }

    /// Gives it another number and name.
    ///
    /// # Errors
    /// It keeps those that it had.
    pub(super) fn rename(&mut self, dir: &Path, id: u64) -> io::Result<()> {
        let path = path(dir, id);
        fs::rename(&self.path, &path)?;
        (self.id, self.path) = (id, path);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends frames; if the disk takes only a part, none of them.
    pub(super) fn append(&mut self, frames: &[u8], count: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_all(frames) {
            self.closed = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += frames.len() as u64;
        self.records += count;
        Ok(())
    }

    /// Reads frames from `at` on into `bytes`: as many as that, or until so many bytes are read. Passes over those that are
    /// damaged, and ends where it cannot be told how long one is.
    pub(super) fn read(
        &self,
        mut at: u64,
        max_records: usize,
        max_bytes: usize,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Vec<Frame>> {
        let mut wanted = max_bytes;
        let (mut frames, mut next) = (Vec::new(), 0);
        loop {
            let have = bytes.len();
            let size = (self.len.saturating_sub(at) as usize).min(wanted);
            bytes.resize(size.max(have), 0);
            let missing = bytes.get_mut(have..).unwrap_or_default();
            self.file.read_exact_at(missing, at + have as u64)?;
            while frames.len() < max_records {
                match frame_at(bytes, next) {
                    Found::Frame(line, priority) => {
                        next = line.end;
                        frames.push(Frame { line, priority, end: at + next as u64 });
                    }
                    Found::Bad(whole) => next += whole,
                    // Nothing but damage so far: on from there.
                    Found::Short(_) if frames.is_empty() && next > 0 => {
                        at += next as u64;
                        next = 0;
                        wanted = max_bytes;
                        bytes.clear();
                        break;
                    }
                    // A single one that is longer than all that should be read.
                    Found::Short(whole) if frames.is_empty() && size == wanted && wanted < whole => {
                        wanted = whole;
                        break;
                    }
                    Found::Short(_) | Found::Damage => return Ok(frames),
                }
            }
            if frames.len() >= max_records {
                return Ok(frames);
            }
        }
    }

    pub(super) fn sync(&self) {
        // What cannot be made sure is not lost for that.
        let _ = self.file.sync_data();
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
