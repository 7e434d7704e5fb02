//! Blocks out of bytes: each is held against its checksums, and behind damage the next good one is looked for.

use std::io::{self, Read};

use super::format::{BLOCK_MAGIC, FILE_HEAD, FILE_MAGIC, HEAD, Head, MAX_RAW, file_head};

/// What is wrong with bytes of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It ends too early.
    #[error("it ends inside a block")]
    Cut,
    /// Other bytes where a block should begin.
    #[error("no block begins here")]
    NoBlock,
    /// The head of the file.
    #[error("the file's head is damaged")]
    FileHead,
    /// The head's checksum.
    #[error("a block's head is damaged")]
    Head,
    /// Sizes beyond the bounds of the format.
    #[error("a block claims to be larger than blocks are")]
    Bounds,
    /// The payload's checksum.
    #[error("a block's content is damaged")]
    Content,
    /// The checksums are right, and it is not what a writer makes.
    #[error("a block's content makes no sense")]
    Nonsense,
}

/// A damaged part of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins, in bytes from the file's beginning.
    pub offset: u64,
    /// How many bytes could not be read.
    pub bytes: u64,
    /// Events that had been read before it.
    pub events_before: u64,
    /// Events in it, as far as that is known: of a block whose head is whole.
    pub events_lost: Option<u64>,
    /// What is wrong.
    pub why: Why,
}

/// A block whose checksums are right, or the lack of one.
#[derive(Debug)]
pub(super) enum Found {
    /// Its payload is [`Blocks::payload`].
    Block {
        head: Head,
        offset: u64,
    },
    /// A block of a later version, or of a kind that is not known: passed over.
    Foreign {
        head: Head,
    },
    Damage {
        offset: u64,
        bytes: u64,
        events: Option<u64>,
        why: Why,
    },
}

/// Bytes that may be checked in vain for each byte that was passed: many heads could each claim the same megabyte.
const VAIN_PER_BYTE: u64 = 16;
/// And besides.
const VAIN: u64 = 4 << 20;

/// Reads block by block. Holds one block at a time.
#[derive(Debug)]
pub(super) struct Blocks<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    start: usize,
    /// The place of `start` in the file.
    offset: u64,
    ended: bool,
    at_head: bool,
    payload: Vec<u8>,
    /// Bytes checked in vain.
    vain: u64,
    /// Behind the last good block, or behind the file's head.
    pub(super) good_end: u64,
    /// Whether the file's head was whole.
    pub(super) head_is_whole: bool,
}

/// So much is read at once.
const CHUNK: usize = 64 << 10;

impl<R: Read> Blocks<R> {
    pub(super) fn new(input: R) -> Self {
        Blocks {
            input,
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            ended: false,
            at_head: true,
            payload: Vec::new(),
            vain: 0,
            good_end: 0,
            head_is_whole: false,
        }
    }

    /// The payload of the block that was found last, as it is stored.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Tries to have `len` bytes unread, at most a block's; there are fewer only at the end.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.unread().len() < len && !self.ended {
            self.buffer.drain(..self.start);
            self.start = 0;
            let had = self.buffer.len();
            let wanted = (len - had).max(CHUNK);
            let got = (&mut self.input).take(wanted as u64).read_to_end(&mut self.buffer)?;
            self.ended = got < wanted;
        }
        Ok(())
    }

    fn advance(&mut self, len: usize) {
        self.start = (self.start + len).min(self.buffer.len());
        self.offset += len as u64;
    }

    /// The next block or damage; `None` at the end.
    ///
    /// # Errors
    /// The input's.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if std::mem::take(&mut self.at_head) {
            self.fill(FILE_HEAD)?;
            let found = self.unread().get(..FILE_HEAD);
            // A later version's head may say another number.
            let is_ours = found.is_some_and(|head| {
                head.starts_with(&FILE_MAGIC)
                    && head.get(12..) == Some(&crc32fast::hash(&head[..12]).to_le_bytes()[..])
            });
            if is_ours {
                self.head_is_whole = true;
                self.good_end = FILE_HEAD as u64;
                self.advance(FILE_HEAD);
            } else {
                let why = if file_head().starts_with(self.unread()) { Why::Cut } else { Why::FileHead };
                return self.resync(0, None, why).map(Some);
            }
        }
        self.fill(HEAD)?;
        if self.unread().is_empty() {
            return Ok(None);
        }
        let head = match Head::from_bytes(self.unread()) {
            Ok(head) => head,
            Err(why) => return self.resync(1, None, why).map(Some),
        };
        let stored = head.stored as usize;
        self.fill(HEAD + stored)?;
        let events = Some(u64::from(head.events));
        let Some(payload) = self.unread().get(HEAD..HEAD + stored) else {
            return self.resync(1, events, Why::Cut).map(Some);
        };
        if crc32fast::hash(payload) != head.sum {
            self.vain += stored as u64;
            let exhausted = self.vain > VAIN + VAIN_PER_BYTE * self.offset;
            let over = if exhausted { HEAD + stored } else { 1 };
            return self.resync(over, events, Why::Content).map(Some);
        }
        if head.version != super::format::FORMAT_VERSION || head.kind != super::format::KIND_EVENTS {
            self.advance(HEAD + stored);
            self.good_end = self.offset;
            return Ok(Some(Found::Foreign { head }));
        }
        let mut copy = std::mem::take(&mut self.payload);
        copy.clear();
        copy.extend_from_slice(self.unread().get(HEAD..HEAD + stored).unwrap_or_default());
        self.payload = copy;
        let offset = self.offset;
        self.advance(HEAD + stored);
        self.good_end = self.offset;
        Ok(Some(Found::Block { head, offset }))
    }

    /// Passes over `least` bytes at least, up to the next thing that looks like a block.
    fn resync(&mut self, least: usize, events: Option<u64>, why: Why) -> io::Result<Found> {
        let offset = self.offset;
        self.fill(least)?;
        self.advance(least.min(self.unread().len()));
        loop {
            self.fill(BLOCK_MAGIC.len())?;
            let unread = self.unread();
            if unread.len() < BLOCK_MAGIC.len() {
                self.advance(unread.len());
                break;
            }
            match unread.windows(BLOCK_MAGIC.len()).position(|window| window == BLOCK_MAGIC) {
                Some(at) => {
                    self.advance(at);
                    break;
                }
                // The magic may begin in the last bytes.
                None => self.advance(unread.len() - (BLOCK_MAGIC.len() - 1)),
            }
        }
        Ok(Found::Damage { offset, bytes: self.offset - offset, events, why })
    }
}

const _: () = assert!(HEAD + MAX_RAW < u32::MAX as usize);
