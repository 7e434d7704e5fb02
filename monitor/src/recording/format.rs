//! The layout of a recording: what stands at the head of the file and of each block, and the bounds of both.

use super::blocks::Why;

/// The version that is written. It grows when an earlier version could no longer read what is written; another field is
/// no reason, since fields stand by name.
pub const FORMAT_VERSION: u16 = 1;

/// What names of recordings end in.
pub const EXTENSION: &str = "rfrec";

/// What a recording begins with. As in PNG, a transfer as text does not survive it.
pub(super) const FILE_MAGIC: [u8; 8] = *b"\x89RFREC\r\n";
/// What each block begins with. The first byte is in no UTF-8 text, so none of a block's texts can look like it.
pub(super) const BLOCK_MAGIC: [u8; 8] = *b"\xF8RFBLK\r\n";

/// Bytes of the file's head: magic, version, two bytes that are 0, checksum of these.
pub(super) const FILE_HEAD: usize = 16;
/// Bytes of a block's head, see [`Head`].
pub(super) const HEAD: usize = 56;

/// Bytes of a block before compression, and as it is stored, at most.
pub const MAX_RAW: usize = 1 << 20;
/// A block is ended when it has grown to this size.
pub(super) const FULL_RAW: usize = 256 << 10;
/// Bytes of the values of one event, at most; a larger one is not recorded.
pub const MAX_EVENT_TEXT: usize = 512 << 10;
/// Bytes of all values of a block's events, at most: one text of a block can stand in many events.
pub const MAX_UNFOLDED: usize = 16 << 20;
/// A block is ended when its events' values have grown to this size.
pub(super) const FULL_UNFOLDED: usize = MAX_UNFOLDED - MAX_EVENT_TEXT;
/// Names of fields, with their arguments, in one block at most.
pub(super) const MAX_NAMES: usize = 4096;
/// A block is ended when it has so many names. One event brings at most 64 labels more, and the catalogue's fields.
pub(super) const FULL_NAMES: usize = MAX_NAMES - 1024;

/// Kind of a block that holds events.
pub(super) const KIND_EVENTS: u8 = 1;
/// The payload stands as it is.
pub(super) const STORED: u8 = 0;
/// The payload is a DEFLATE stream (RFC 1951).
pub(super) const DEFLATE: u8 = 1;

/// The low bits of a value's name say what follows.
pub(super) mod tag {
    pub(in super::super) const TEXT: u64 = 0;
    pub(in super::super) const NUMBER: u64 = 1;
    pub(in super::super) const FALSE: u64 = 2;
    pub(in super::super) const TRUE: u64 = 3;
    pub(in super::super) const LIST: u64 = 4;
    /// Bits of a tag.
    pub(in super::super) const BITS: u32 = 3;
}

/// The head of a file.
pub(super) fn file_head() -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&FILE_MAGIC);
    head[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let sum = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What a block's head says. Its layout, up to the checksum, stays what it is in later versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u16,
    pub(super) kind: u8,
    pub(super) codec: u8,
    /// Bytes behind the head.
    pub(super) stored: u32,
    /// Bytes of the payload before compression.
    pub(super) raw: u32,
    pub(super) events: u32,
    /// The earliest and the latest of the events' times.
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    /// Events that could not be written since the block before.
    pub(super) dropped: u64,
    /// Checksum of the payload as it is stored.
    pub(super) sum: u32,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&BLOCK_MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10] = self.kind;
        bytes[11] = self.codec;
        bytes[12..16].copy_from_slice(&self.stored.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.raw.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.events.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last_ns.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.dropped.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..52]);
        bytes[52..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a head and holds it against its checksum and the bounds.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Why> {
        let mut input = Input(bytes);
        let magic = input.take(8).ok_or(Why::Cut)?;
        if magic != BLOCK_MAGIC {
            return Err(Why::NoBlock);
        }
        let read = |input: &mut Input<'_>| {
            Some((
                Head {
                    version: u16::from_le_bytes(input.array()?),
                    kind: u8::from_le_bytes(input.array()?),
                    codec: u8::from_le_bytes(input.array()?),
                    stored: u32::from_le_bytes(input.array()?),
                    raw: u32::from_le_bytes(input.array()?),
                    events: u32::from_le_bytes(input.array()?),
                    first_ns: i64::from_le_bytes(input.array()?),
                    last_ns: i64::from_le_bytes(input.array()?),
                    dropped: u64::from_le_bytes(input.array()?),
                    sum: u32::from_le_bytes(input.array()?),
                },
                u32::from_le_bytes(input.array()?),
            ))
        };
        let (head, sum) = read(&mut input).ok_or(Why::Cut)?;
        if bytes.get(..HEAD - 4).map(crc32fast::hash) != Some(sum) {
            return Err(Why::Head);
        }
        let fits = |len: u32| len as usize <= MAX_RAW;
        // An event takes four bytes at least.
        if !fits(head.stored) || !fits(head.raw) || head.events > head.raw / 4 {
            return Err(Why::Bounds);
        }
        Ok(head)
    }
}

/// Bytes that are read from the front; `None` where they end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'b>(pub(super) &'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// LEB128, at most ten bytes.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn text(&mut self) -> Option<&'b str> {
        let len = usize::try_from(self.number()?).ok()?;
        str::from_utf8(self.take(len)?).ok()
    }
}

/// Appends a number as LEB128.
pub(super) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number in zigzag form, so that small negative ones are short, too.
pub(super) fn push_signed(number: i64, out: &mut Vec<u8>) {
    push_number((number << 1 ^ number >> 63).cast_unsigned(), out);
}

/// Appends a text behind its length.
pub(super) fn push_text(text: &str, out: &mut Vec<u8>) {
    push_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 1 << 62, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            push_number(number, &mut out);
            push_signed(number.cast_signed(), &mut out);
            let mut input = Input(&out);
            assert_eq!((input.number(), input.signed()), (Some(number), Some(number.cast_signed())));
            assert!(input.0.is_empty());
        }
        // Eleven bytes, and more than 64 bits.
        assert_eq!(Input(&[0x80; 11]).number(), None);
        assert_eq!(Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number(), None);
        assert_eq!(Input(&[0x80]).number(), None);
        assert_eq!(Input(&[5, b'a']).text(), None);
        assert_eq!(Input(&[1, 0xff]).text(), None, "not UTF-8");
    }

    #[test]
    fn a_head_comes_back_and_no_flipped_bit_passes() {
        let head = Head { version: 1, kind: KIND_EVENTS, stored: 9, raw: 40, events: 3, ..Head::default() };
        let bytes = head.to_bytes();
        assert_eq!(Head::from_bytes(&bytes), Ok(head));
        for at in 0..HEAD * 8 {
            let mut wrong = bytes;
            wrong[at / 8] ^= 1 << (at % 8);
            assert!(Head::from_bytes(&wrong).is_err(), "bit {at}");
        }
        let large = Head { raw: MAX_RAW as u32 + 1, ..head };
        assert_eq!(Head::from_bytes(&large.to_bytes()), Err(Why::Bounds));
        assert_eq!(Head::from_bytes(&bytes[..HEAD - 1]), Err(Why::Cut));
    }
}
