//! Where the control socket is, as the configuration and the command line say it.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the control socket is unless told otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/ringfence/ringfence.sock";

/// Bytes of a path that fit the kernel's `sockaddr_un`, without the NUL.
const MAX_PATH: usize = 107;

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// Nowhere: nobody can ask.
    Off,
    /// At this absolute path, which fits a socket's address.
    At(PathBuf),
}

impl Default for ControlSocket {
    fn default() -> Self {
        ControlSocket::At(PathBuf::from(DEFAULT_CONTROL_SOCKET))
    }
}

impl ControlSocket {
    /// The path, if there is a socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ControlSocket::Off => None,
            ControlSocket::At(path) => Some(path),
        }
    }
}

impl FromStr for ControlSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(ControlSocket::Off);
        }
        let path = Path::new(text);
        // The name of a file, not `/`, `..` or a directory with a slash behind it.
        if !path.is_absolute() || path.file_name().is_none() || text.ends_with('/') || text.contains('\0') {
            return Err(format!(
                "`{text}` is neither the absolute path of a socket, such as {DEFAULT_CONTROL_SOCKET}, nor off"
            ));
        }
        let bytes = path.as_os_str().as_bytes().len();
        if bytes > MAX_PATH {
            return Err(format!(
                "a socket's path may have {MAX_PATH} bytes, this one has {bytes}: choose a shorter one"
            ));
        }
        Ok(ControlSocket::At(path.to_owned()))
    }
}

impl fmt::Display for ControlSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlSocket::Off => f.write_str("off"),
            ControlSocket::At(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_and_off() {
        assert_eq!("off".parse(), Ok(ControlSocket::Off));
        assert_eq!(DEFAULT_CONTROL_SOCKET.parse(), Ok(ControlSocket::default()));
        let longest = format!("/{}", "a".repeat(MAX_PATH - 1));
        assert!(longest.parse::<ControlSocket>().is_ok());
        for wrong in ["", "on", "run/x.sock", "/", "/run/", "/run/..", "/a\0b", &format!("{longest}a")] {
            assert!(wrong.parse::<ControlSocket>().is_err(), "{wrong:?}");
        }
    }
}
