//! Ringfence: a runtime threat monitor for Linux containers.
//!
//! The modules stand in the order in which an event passes them; see ARCHITECTURE.md for the whole path.
#![warn(missing_docs)]

// The kernel's side of the line: load, attach, count.
pub mod attach;
pub mod bpf_files;
pub mod bpf_maps;
pub mod btf;
pub mod canary;
pub mod ledger;
pub mod misses;
pub mod pins;

// The path of one event.
pub mod reader;
pub mod decode;
pub mod enrich;
pub mod event;
pub mod event_type;
pub mod held;
pub mod fields;
pub mod rules;
pub mod threshold;
pub mod grouping;
pub mod alert;
pub mod alerting;
pub mod tally;
pub mod watchers;
pub mod generation;
pub mod sink;
pub mod recording;
pub mod pipeline;

// Beside the path: what is counted without events.
pub mod capabilities;

// What the path's stations use.
pub mod append;
pub mod args;
pub mod errno;
pub mod hierarchy;
pub mod host_names;
pub mod kernel_files;
pub mod syscall_names;
pub mod telling;
pub mod text;
pub mod trust;
pub mod wall_clock;

// Around it: settings, life cycle, commands, health.
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod coverage;
pub mod daemon;
pub mod doctor;
pub mod http;
pub mod metrics;
pub mod preflight;
pub mod reload;
pub mod service;
