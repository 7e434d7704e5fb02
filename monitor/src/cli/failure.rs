//! How a command fails: one message with cause and remedy, and an exit code.

use std::fmt;
use std::io::{self, IsTerminal as _};

use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::config::{ConfigError, DEFAULT_RULES};
use crate::rules::LoadError;

/// Exit code: what was checked is wrong.
pub(super) const FOUND_WRONG: u8 = 1;

/// Exit code: wrong usage, or the environment does not allow it.
pub(super) const USAGE_OR_ENVIRONMENT: u8 = 2;

/// Why a command could not do its work. Its text ends with a line feed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Wrong usage or environment.
    pub fn environment(message: impl fmt::Display) -> Self {
        Self { message: format!("ringfence: {message}\n"), code: USAGE_OR_ENVIRONMENT }
    }

    pub(super) fn no_rules() -> Self {
        Self::environment(format_args!(
            "no rules: neither {} holds a rule file; name one with --rules PATH",
            DEFAULT_RULES.join(" nor ")
        ))
    }

    pub(super) fn stdout(error: &io::Error) -> Self {
        Self::environment(format_args!("standard output takes no writes: {error}; check where it leads"))
    }

    /// The same, if what the command was to check is what is wrong.
    pub(super) fn found_wrong(self) -> Self {
        Self { code: FOUND_WRONG, ..self }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { message: render_config(&error, colours_on_stderr()), code: USAGE_OR_ENVIRONMENT }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self { message: error.render(colours_on_stderr()), code: USAGE_OR_ENVIRONMENT }
    }
}

impl From<anyhow::Error> for Failure {
    /// Errors with a place in a file keep it, however deep they are wrapped.
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<LoadError>() {
            Ok(load) => return load.into(),
            Err(error) => error,
        };
        match error.downcast::<ConfigError>() {
            Ok(config) => config.into(),
            Err(error) => Self::environment(format_args!("{error:#}")),
        }
    }
}

/// Whether standard error gets colours.
pub(super) fn colours_on_stderr() -> bool {
    io::stderr().is_terminal() && anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// A mistake in the configuration with its line and a caret.
pub(super) fn render_config(error: &ConfigError, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_links(false).with_context_lines(1).with_width(110);
    let mut report = String::new();
    match handler.render_report(&mut report, error) {
        Ok(()) => report,
        // Only a span out of bounds can fail; the plain message is still right.
        Err(fmt::Error) => format!("{error}\n"),
    }
}
