//! Opening files that grow: the alert file, recordings.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Permissions of a new file: the owner writes, the group reads.
const MODE: u32 = 0o640;

/// Opens a file for reading and appending; a new one gets the mode 0640 whatever the umask is. The last component of the
/// path may not be a symbolic link. `flags` are further flags of open(2).
///
/// # Errors
/// Those of open(2), `ELOOP` for a link.
pub fn open(path: &Path, flags: i32) -> io::Result<File> {
    let open = |create_new: bool| {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(create_new)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | flags)
            .open(path)
    };
    match open(false) {
        Err(error) if error.kind() == ErrorKind::NotFound => match open(true) {
            Ok(file) => {
                file.set_permissions(Permissions::from_mode(MODE))?;
                Ok(file)
            }
            // Somebody was quicker.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(false),
            Err(error) => Err(error),
        },
        other => other,
    }
}
