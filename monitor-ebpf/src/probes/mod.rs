//! The programs, one file per family of hooks. Each is thin: early exit, then one call.

mod calls;
mod canary;
mod capability;
mod cgroups;
mod credentials;
mod device;
mod namespaces;
mod processes;
mod syscalls;
