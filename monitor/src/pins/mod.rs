//! Restart without a gap: maps, programs and links have names in a private directory of a BPF file system, so that they
//! stay when the process ends, and the next one takes them over (docs/restart.md).
//!
//! The records that nobody reads wait in the ring, whose memory keeps how far it was read. What else the next process
//! must know is in [`Carried`]. A set of pins is a directory; it counts when it is whole ([`PinDir`]).

mod carried;
mod dir;
mod low;
mod peek;

pub use carried::Carried;
pub use dir::{PinDir, PinError, SetName};
pub use peek::{is_sound, peek};

/// What the names of links and programs begin with; what follows is the program's name.
pub(crate) const LINK: &str = "link-";
pub(crate) const PROGRAM: &str = "prog-";
/// The name of [`Carried`]'s map.
pub(crate) const CARRIED: &str = "CARRIED";
