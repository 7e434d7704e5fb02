//! Where the daemon keeps what must outlive it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The state directory unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/ringfence";

/// Series of `capability_unused_info` that can be asked for, at most.
const MAX_UNUSED_SERIES: u64 = 10_000;

/// Where the daemon keeps what must outlive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDir {
    /// Nowhere: a restart forgets.
    Off,
    /// In this directory, an absolute path.
    At(PathBuf),
}

impl Default for StateDir {
    fn default() -> Self {
        StateDir::At(PathBuf::from(DEFAULT_STATE_DIR))
    }
}

impl StateDir {
    /// The directory, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            StateDir::Off => None,
            StateDir::At(path) => Some(path),
        }
    }
}

impl FromStr for StateDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(StateDir::Off);
        }
        let path = Path::new(text);
        if !path.is_absolute() || text.contains('\0') {
            return Err(format!(
                "`{text}` is neither the absolute path of a directory, such as {DEFAULT_STATE_DIR}, nor off"
            ));
        }
        Ok(StateDir::At(path.to_owned()))
    }
}

impl fmt::Display for StateDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateDir::Off => f.write_str("off"),
            StateDir::At(path) => path.display().fmt(f),
        }
    }
}

/// Checks a number of series of `capability_unused_info`.
///
/// # Errors
/// A sentence that says what fits.
pub fn check_unused_series(series: u64) -> Result<u32, String> {
    match u32::try_from(series) {
        Ok(number) if series <= MAX_UNUSED_SERIES => Ok(number),
        _ => Err(format!("{series} series are too many: from 0, for none, to {MAX_UNUSED_SERIES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_and_off() {
        assert_eq!("off".parse(), Ok(StateDir::Off));
        assert_eq!(DEFAULT_STATE_DIR.parse(), Ok(StateDir::default()));
        for wrong in ["", "on", "var/lib", "/a\0b"] {
            assert!(wrong.parse::<StateDir>().is_err(), "{wrong:?}");
        }
        assert_eq!((check_unused_series(0), check_unused_series(10_000)), (Ok(0), Ok(10_000)));
        assert!(check_unused_series(10_001).is_err() && check_unused_series(1 << 32).is_err());
    }
}
