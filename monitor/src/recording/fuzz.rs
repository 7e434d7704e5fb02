//! Any bytes as a recording, for whoever throws bytes at the reader.

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
