//! Any bytes as a recording, for whoever throws bytes at the reader.

use super::format::{FORMAT_VERSION, Head, KIND_EVENTS, MAX_RAW, STORED, file_head};
use super::reader::{Item, Recording};

/// Reads bytes as a recording to their end. Gives how many events and how many damaged parts there were.
///
/// It must neither panic nor take more memory than a recording may ([`super::MAX_RAW`], [`super::MAX_EVENT_TEXT`]),
/// whatever the bytes are, and each byte is passed once: what was read and what is damaged can be no more than there is.
pub fn read_any(bytes: &[u8]) -> (u64, u64) {
    let mut recording = Recording::new(bytes);
    let mut offset = 0;
    // A slice can always be read.
    while let Ok(Some(item)) = recording.next_item() {
        if let Item::Damage(damage) = item {
            assert!(damage.offset >= offset, "damage is told in the order of the file");
            offset = damage.offset;
        }
    }
    let tally = recording.tally();
    assert!(tally.damaged_bytes <= bytes.len() as u64, "{tally:?}");
    (tally.events, tally.damaged)
}

/// Reads bytes as what a block holds: packed into one whose checksums are right, so that they reach whoever takes events
/// apart. Bytes that no block has room for are left out.
pub fn read_content(bytes: &[u8]) -> (u64, u64) {
    let content = bytes.get(..MAX_RAW).unwrap_or(bytes);
    let head = Head {
        version: FORMAT_VERSION,
        kind: KIND_EVENTS,
        codec: STORED,
        stored: content.len() as u32,
        raw: content.len() as u32,
        // As many as there is room for.
        events: content.len() as u32 / 4,
        sum: crc32fast::hash(content),
        ..Head::default()
    };
    read_any(&[&file_head()[..], &head.to_bytes(), content].concat())
}
