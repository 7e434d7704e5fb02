//! How far a spool was delivered, noted in a file of two slots that are written in turn: if one is torn, the other holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Bytes of a slot: number of the note, segment, offset (8 each), CRC-32 of them (4), nothing (4).
const SLOT: usize = 32;

/// Where the next record to be delivered begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The file's number.
    pub(super) segment: u64,
    /// Where in it.
    pub(super) offset: u64,
}

#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    /// Number of the last note.
    number: u64,
    position: Position,
}

impl Cursor {
    /// Opens the note and reads it. One that is damaged says nothing: all that is there is delivered.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let mut slots = [0; 2 * SLOT];
        let mut read = 0;
        while let Some(rest) = slots.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, read as u64)? {
                0 => break,
                count => read += count,
            }
        }
        let newest = slots.chunks_exact(SLOT).filter_map(decode).max_by_key(|(number, _)| *number);
        let (number, position) = newest.unwrap_or_default();
        Ok(Cursor { file, number, position })
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Notes a position.
    pub(super) fn note(&mut self, position: Position) -> io::Result<()> {
        self.number += 1;
        self.position = position;
        let at = (self.number % 2) * SLOT as u64;
        self.file.write_all_at(&encode(self.number, position), at)
    }
}

fn encode(number: u64, position: Position) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let fields = [number, position.segment, position.offset];
    for (bytes, field) in slot.chunks_exact_mut(8).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(slot.get(..24).unwrap_or_default());
    if let Some(bytes) = slot.get_mut(24..28) {
        bytes.copy_from_slice(&crc.to_le_bytes());
    }
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Position)> {
    let field = |at: usize| slot.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let crc = slot.get(24..28)?.try_into().ok().map(u32::from_le_bytes)?;
    (crc32fast::hash(slot.get(..24)?) == crc).then_some(())?;
    let number = field(0).filter(|number| *number > 0)?;
    Some((number, Position { segment: field(8)?, offset: field(16)? }))
}
