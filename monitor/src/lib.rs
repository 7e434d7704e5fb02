//! Ringfence: a runtime threat monitor for Linux containers.
#![warn(missing_docs)]

pub mod alert;
pub mod args;
pub mod attach;
pub mod btf;
pub mod config;
pub mod daemon;
pub mod decode;
pub mod enrich;
pub mod errno;
pub mod event;
pub mod fields;
pub mod http;
pub mod kernel_files;
pub mod ledger;
pub mod metrics;
pub mod pipeline;
pub mod preflight;
pub mod reader;
pub mod rules;
pub mod sink;
pub mod text;
pub mod wall_clock;
