//! Outputs with a peer of their own: syslog, journald, webhooks, Alertmanager, OpenTelemetry, Falcosidekick.
//!
//! Each implements [`Deliver`](super::Deliver) and runs in the thread of its worker. Those that speak TCP drive their
//! one connection by a runtime of a single thread, so that every wait has a limit, a name's resolution and a peer that
//! sends one byte a second included. A connection is kept from batch to batch; no redirect is followed, no proxy asked,
//! and of an answer no more than 64 KiB is read.
//!
//! Secrets come from files, which are read again when they change, or from the environment. None is ever part of an
//! error, a log line or a `Debug` text.

mod alert;
pub mod alertmanager;
mod connect;
pub mod falcosidekick;
pub mod journald;
pub mod otlp;
mod peer;
mod requests;
mod secret;
mod settings;
mod suspect;
pub mod syslog;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod webhook;

use std::path::Path;

pub use alertmanager::{Alertmanager, AlertmanagerConfig};
pub use falcosidekick::{Falcosidekick, FalcosidekickConfig};
pub use journald::{Journald, JournaldConfig};
pub use otlp::{Otlp, OtlpConfig};
pub use peer::{HeaderSource, Url};
pub use syslog::{Address as SyslogAddress, Syslog, SyslogConfig};
pub use tls::TlsConfig;
pub use webhook::{Webhook, WebhookConfig};

use super::OutputError;

/// How long connecting, and then sending with the answer, may take unless told otherwise, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// Shortest and longest such limit, in milliseconds.
pub const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=300_000;

/// A setting is missing or wrong: what is wrong, and what fits.
fn setting(setting: &str, reason: impl std::fmt::Display) -> OutputError {
    OutputError(format!("`{setting}`: {reason}"))
}

/// A file that a setting names cannot be used.
fn unusable(setting: &str, path: &Path, reason: impl std::fmt::Display) -> OutputError {
    OutputError(format!("`{setting}`: {} {reason}", path.display()))
}

/// A runtime of the thread that uses it. Resolving a name blocks a second thread, at most one.
fn runtime() -> Result<tokio::runtime::Runtime, OutputError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .thread_name("sink-resolver")
        .build()
        .map_err(|error| OutputError(format!("the system refuses what an output needs: {error}")))
}

/// Checks a time limit.
fn check_timeout(ms: u64) -> Result<std::time::Duration, OutputError> {
    if TIMEOUT_MS.contains(&ms) {
        return Ok(std::time::Duration::from_millis(ms));
    }
    let (least, most) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
    Err(setting("timeout_ms", format!("{ms} is not within {least} to {most}")))
}
