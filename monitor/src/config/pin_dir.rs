//! Where probes and maps are pinned, so that the next process takes them over.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where pins are kept if a BPF file system is mounted there, unless told otherwise.
pub const DEFAULT_PIN_DIR: &str = "/run/ringfence/bpf";

/// Where probes and maps are pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PinChoice {
    /// In [`DEFAULT_PIN_DIR`], if it is a BPF file system of our own: who mounts one there also sees to its end.
    #[default]
    IfMounted,
    /// Nowhere: the probes go with the process.
    Off,
    /// In this directory, an absolute path in a BPF file system. If it cannot be used, nothing starts.
    At(PathBuf),
}

impl FromStr for PinChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(PinChoice::IfMounted),
            "off" => return Ok(PinChoice::Off),
            _ => {}
        }
        if !Path::new(text).is_absolute() || text.contains('\0') {
            return Err(format!(
                "`{text}` is neither the absolute path of a directory in a BPF file system, nor auto or off"
            ));
        }
        Ok(PinChoice::At(PathBuf::from(text)))
    }
}

impl fmt::Display for PinChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinChoice::IfMounted => f.write_str("auto"),
            PinChoice::Off => f.write_str("off"),
            PinChoice::At(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_two_words() {
        for text in ["auto", "off", "/sys/fs/bpf/ringfence"] {
            assert_eq!(text.parse::<PinChoice>().unwrap().to_string(), text);
        }
        for wrong in ["", "on", "run/x", "/a\0b"] {
            assert!(wrong.parse::<PinChoice>().is_err(), "{wrong:?}");
        }
    }
}
