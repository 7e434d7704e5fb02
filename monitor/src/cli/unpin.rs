//! `ringfence unpin`: takes off what an earlier process left pinned.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArg, Failure, emit};
use crate::config::{DEFAULT_PIN_DIR, PinChoice, check_root};
use crate::pins::{PinDir, PinError};

/// Arguments of `unpin`.
#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// Directory of the pins instead of the configured one
    #[arg(long, value_name = "DIR", value_parser = check_root)]
    pin_dir: Option<PathBuf>,
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
}

impl UnpinArgs {
    /// Removes every set of pins, and says how many there were.
    ///
    /// # Errors
    /// The directory cannot be used, as while a Ringfence runs that uses it.
    pub(super) fn run(self) -> Result<(), Failure> {
        let choice = match self.pin_dir {
            Some(dir) => PinChoice::At(dir),
            None => self.config.settings()?.pin_dir,
        };
        let (path, is_named) = match &choice {
            PinChoice::At(path) => (path.as_path(), true),
            PinChoice::IfMounted | PinChoice::Off => (Path::new(DEFAULT_PIN_DIR), false),
        };
        let removed = match PinDir::open_to_clear(path) {
            Ok(dir) => dir.remove_all().map_err(Failure::environment)?,
            // Where nothing is mounted nothing can be pinned.
            Err(PinError::Open { .. } | PinError::NotBpf(_)) if !is_named => 0,
            Err(error) => return Err(Failure::environment(error)),
        };
        let mut text = String::new();
        let _ = match removed {
            0 => writeln!(text, "nothing is pinned in {}", path.display()),
            _ => writeln!(text, "took off what was pinned in {}", path.display()),
        };
        emit(&text)
    }
}
