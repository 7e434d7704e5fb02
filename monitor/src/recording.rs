//! Recorded events: what an event had, in a file that later and earlier versions can read. docs/recording.md has the
//! format.
//!
//! On the path of events there is only [`Recorder`], which lays an event's values into a block; a thread of its own
//! compresses and writes. A file is hostile to whoever reads it: every length is checked against a bound, and what is
//! damaged costs what is damaged.

mod blocks;
mod decode;
mod encode;
mod file;
mod format;
mod fuzz;
mod reader;
mod recorder;
mod ring;

pub use blocks::{Damage, Why};
pub use encode::{BlockEncoder, TooLarge};
pub use file::{RecordingError, RecordingFile};
pub use format::{EXTENSION, FORMAT_VERSION, MAX_EVENT_TEXT, MAX_RAW, MAX_UNFOLDED};
pub use fuzz::{read_any, read_content};
pub use reader::{Item, Recorded, Recording, Span, Tally};
pub use recorder::{RecordDrop, RecordSource, RecordStats, Recorder, Single, Store, Stored};
pub use ring::{RING_BYTES, Ring, check_record_bytes, list};

#[cfg(test)]
pub(crate) mod tests;
