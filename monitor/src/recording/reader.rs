//! Reading a recording event by event, around what is damaged, and counting what could not be read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::blocks::{Blocks, Damage, Found, Why};
use super::decode::Block;
use crate::event_type::EventType;
use crate::fields::FieldValues;

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// When it happened: nanoseconds since 1970 UTC, by the clock of that time.
    pub unix_ns: i64,
    /// The same in nanoseconds since boot.
    pub boot_ns: u64,
    /// What it is.
    pub ty: EventType,
    /// Everything that it had.
    pub values: FieldValues,
    /// The machine that it was recorded on.
    pub hostname: Arc<str>,
}

/// What comes next in a recording.
#[derive(Debug)]
pub enum Item {
    /// An event.
    Event(Box<Recorded>),
    /// A part that cannot be read; reading goes on behind it.
    Damage(Damage),
}

/// What was read, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events read.
    pub events: u64,
    /// Damaged parts.
    pub damaged: u64,
    /// Bytes of them.
    pub damaged_bytes: u64,
    /// Events of them, as far as heads told. There may be more.
    pub events_lost: u64,
    /// Events that the recorder itself could not write.
    pub dropped: u64,
    /// Values of fields that this version does not have; the rest of their events was read.
    pub unknown_values: u64,
    /// Events of types that this version does not have.
    pub unknown_events: u64,
    /// Blocks of a later version, or of a kind that is not known.
    pub foreign_blocks: u64,
    /// Events of these.
    pub foreign_events: u64,
    /// Events that lie outside the span that was asked for, of blocks that lie outside it.
    pub outside: u64,
}

/// A recording that is being read. Holds one block at a time: at most some ten megabytes, whatever the file is.
#[derive(Debug)]
pub struct Recording<R> {
    blocks: Blocks<R>,
    block: Option<(Block, u64)>,
    spare: Vec<u8>,
    tally: Tally,
    span: Span,
}

/// Between which times events are wanted, both included, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The earliest.
    pub from: i64,
    /// The latest.
    pub to: i64,
}

impl Default for Span {
    fn default() -> Self {
        Span { from: i64::MIN, to: i64::MAX }
    }
}

impl Span {
    fn has(self, unix_ns: i64) -> bool {
        (self.from..=self.to).contains(&unix_ns)
    }
}

impl Recording<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A pipe without a writer would block for ever.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Recording::new(File::open(path)?))
    }
}

impl<R: Read> Recording<R> {
    /// A recording of these bytes.
    pub fn new(input: R) -> Self {
        Recording {
            blocks: Blocks::new(input),
            block: None,
            spare: Vec::new(),
            tally: Tally::default(),
            span: Span::default(),
        }
    }

    /// Leaves out what did not happen in the span. Blocks that lie outside it are not unpacked.
    #[must_use]
    pub fn within(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// What was read so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the file is none of Ringfence's: neither its head nor any block is one's.
    pub fn is_foreign(&self) -> bool {
        !self.blocks.head_is_whole && self.blocks.good_end == 0
    }

    /// Where the last good block that was read ends, in bytes.
    pub(super) fn good_end(&self) -> u64 {
        self.blocks.good_end
    }

    /// The next event or damage; `None` at the end.
    ///
    /// # Errors
    /// The input's.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.next_of_block() {
                return Ok(Some(item));
            }
            let Some(found) = self.blocks.next()? else { return Ok(None) };
            match found {
                Found::Damage { offset, bytes, events, why } => {
                    return Ok(Some(self.damage(offset, bytes, events, why)));
                }
                Found::Foreign { head } => {
                    self.tally.foreign_blocks += 1;
                    self.tally.foreign_events += u64::from(head.events);
                }
                Found::Block { head, offset } => {
                    self.tally.dropped = self.tally.dropped.saturating_add(head.dropped);
                    if head.last_ns < self.span.from || head.first_ns > self.span.to {
                        self.tally.outside += u64::from(head.events);
                        continue;
                    }
                    let spare = std::mem::take(&mut self.spare);
                    match Block::open(head, self.blocks.payload(), spare) {
                        Some(block) => self.block = Some((block, offset)),
                        None => {
                            let bytes = self.blocks.good_end - offset;
                            let events = Some(u64::from(head.events));
                            return Ok(Some(self.damage(offset, bytes, events, Why::Nonsense)));
                        }
                    }
                }
            }
        }
    }

    fn next_of_block(&mut self) -> Option<Item> {
        while let Some((block, offset)) = &mut self.block {
            if block.left == 0 {
                let (block, _) = self.block.take()?;
                self.tally.unknown_values += block.skipped.values;
                self.tally.unknown_events += block.skipped.events;
                self.spare = block.into_buffer();
                return None;
            }
            let Some(decoded) = block.next() else {
                let (offset, left) = (*offset, u64::from(block.left));
                self.block = None;
                let bytes = self.blocks.good_end - offset;
                return Some(self.damage(offset, bytes, Some(left), Why::Nonsense));
            };
            let Some(ty) = decoded.ty else { continue };
            if !self.span.has(decoded.unix_ns) {
                self.tally.outside += 1;
                continue;
            }
            self.tally.events += 1;
            return Some(Item::Event(Box::new(Recorded {
                unix_ns: decoded.unix_ns,
                boot_ns: decoded.boot_ns,
                ty,
                values: decoded.values,
                hostname: Arc::clone(&block.hostname),
            })));
        }
        None
    }

    fn damage(&mut self, offset: u64, bytes: u64, events_lost: Option<u64>, why: Why) -> Item {
        self.tally.damaged += 1;
        self.tally.damaged_bytes += bytes;
        self.tally.events_lost = self.tally.events_lost.saturating_add(events_lost.unwrap_or(0));
        Item::Damage(Damage { offset, bytes, events_before: self.tally.events, events_lost, why })
    }
}
