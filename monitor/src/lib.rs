//! Ringfence: a runtime threat monitor for Linux containers.
#![warn(missing_docs)]

pub mod alert;
pub mod cli;
pub mod config;
pub mod fields;
pub mod http;
pub mod metrics;
pub mod preflight;
pub mod rules;
pub mod sink;
