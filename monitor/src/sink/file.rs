//! Opening the alert file.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use crate::append;

/// Why the alert file cannot be used. The message names cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its directory is missing.
    #[error("alert file {path}: the directory {dir} does not exist; create it with `mkdir -p {dir}`, or name another alert_file", path = path.display(), dir = dir.display())]
    NoDirectory {
        /// The alert file.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
    },
    /// It is a symbolic link.
    #[error("alert file {path} is a symbolic link, which could lead anywhere; name the file itself", path = path.display())]
    SymbolicLink {
        /// The alert file.
        path: PathBuf,
    },
    /// It is a directory, a pipe, a socket.
    #[error("alert file {path} is not a regular file; name one, or let another program read standard output", path = path.display())]
    NotAFile {
        /// The alert file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("alert file {path} cannot be opened: {cause}; check its permissions and those of its directory", path = path.display())]
    Io {
        /// The alert file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Opens the alert file for appending; a new one gets the mode 0640 whatever the umask is.
///
/// The last component may not be a symbolic link. A line that an earlier process left torn is ended first.
///
/// # Errors
/// [`FileError`] names cause and remedy.
pub fn open_alert_file(path: &Path) -> Result<File, FileError> {
    let fail = |cause: io::Error| explain(path, cause);
    let mut file = append::open(path, 0).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_file() {
        let mut last = [b'\n'];
        if meta.len() > 0 {
            file.read_exact_at(&mut last, meta.len() - 1).map_err(fail)?;
        }
        if last != [b'\n'] {
            // Should the disk be full, the first batch will say so.
            let _ = file.write_all(b"\n");
        }
    } else if !meta.file_type().is_char_device() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    Ok(file)
}

/// Whether it could be opened, as far as that can be told without making or changing anything.
///
/// # Errors
/// As [`open_alert_file`].
pub fn check_alert_file(path: &Path) -> Result<(), FileError> {
    let kind = match path.symlink_metadata() {
        Ok(meta) => meta.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(path, error)),
    };
    match () {
        () if kind.is_symlink() => Err(FileError::SymbolicLink { path: path.to_owned() }),
        () if kind.is_file() || kind.is_char_device() => Ok(()),
        () => Err(FileError::NotAFile { path: path.to_owned() }),
    }
}

fn explain(path: &Path, cause: io::Error) -> FileError {
    let path = path.to_owned();
    match cause.raw_os_error() {
        Some(libc::ELOOP) => FileError::SymbolicLink { path },
        Some(libc::EISDIR | libc::ENXIO) => FileError::NotAFile { path },
        Some(libc::ENOENT | libc::ENOTDIR) => {
            let dir = match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
                _ => PathBuf::from("."),
            };
            FileError::NoDirectory { path, dir }
        }
        _ => FileError::Io { path, cause },
    }
}
