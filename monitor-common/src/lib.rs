//! What the two sides of the kernel line agree on.
//!
//! The BPF programs (`monitor-ebpf`) write these types into the ring buffer and read their settings
//! from them; the daemon (`monitor`) decodes and fills them. Everything that crosses the line is
//! `repr(C)`, made of integers only, without implicit padding, and its layout is asserted at compile
//! time. [`WIRE_VERSION`] stands in each record's header and changes whenever a layout does.
#![cfg_attr(not(test), no_std)]

pub mod call;
pub mod cap_group;
pub mod capability;
pub mod caps;
pub mod control;
pub mod gains;
pub mod ids;
pub mod syscall_set;
pub mod verdict;
pub mod wire;

/// Version of the record layouts in [`wire`]. A daemon refuses records of another version.
pub const WIRE_VERSION: u16 = 3;
