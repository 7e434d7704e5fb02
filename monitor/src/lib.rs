//! Ringfence: a runtime threat monitor for Linux containers.
#![warn(missing_docs)]

pub mod attach;
pub mod btf;
pub mod fields;
pub mod kernel_files;
pub mod rules;
