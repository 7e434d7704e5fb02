//! The programs, one file per family of hooks. Each is thin: early exit, then one call.

mod calls;
mod capability;
mod cgroups;
mod device;
mod processes;
