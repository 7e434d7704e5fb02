//! The log: on standard error, by `RINGFENCE_LOG` (default `info`).

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts the log. A second call changes nothing.
pub(super) fn start(no_color: bool) {
    let choice = anstream::AutoStream::choice(&io::stderr());
    let ansi = io::stderr().is_terminal() && !no_color && choice != anstream::ColorChoice::Never;
    let filter = EnvFilter::builder()
        .with_env_var("RINGFENCE_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    // A closed standard error must not end the daemon, so internal errors are not printed there either.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .log_internal_errors(false)
        .try_init();
}
