//! The live suite's parts: attempts on a container's walls, and what is needed to see them judged.
//!
//! [`attempt`] makes the attempts; [`harness`] starts Ringfence and holds its alerts against expectations;
//! [`docker`], [`cgroup`] and [`seccomp`] make the places from which attempts come.

pub mod attempt;
pub mod cgroup;
pub mod docker;
pub mod harness;
pub mod seccomp;
