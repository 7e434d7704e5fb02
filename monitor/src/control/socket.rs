//! Making the control socket: who may reach it, and what stands in its place already.
//!
//! A daemon that was killed leaves its socket behind. It is replaced if nobody answers there any more. A lock file
//! beside it decides between daemons that start at the same time, and is left where it is: whoever removed it could
//! remove another daemon's.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tokio::net::UnixListener;

use crate::control::ControlSocket;

/// Permissions of the socket: its owner and its group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Permissions of a directory that is made for it.
const DIRECTORY_MODE: u32 = 0o755;
/// Permissions of the lock: who could open it could keep a daemon from starting.
const LOCK_MODE: u32 = 0o600;
/// Connections that wait in the kernel; a client finds out at once that there is no room for more.
const BACKLOG: i32 = 16;
/// Permission bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a directory with this bit only its owner removes or renames a file.
const STICKY: u32 = 0o1000;

/// The socket cannot be had. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon, or another program, answers there.
    #[error("control socket {path}: another program, perhaps a second ringfence, answers there; stop it, or choose another with --control-socket PATH (or --control-socket off)", path = path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("control socket {path} exists and is no socket; remove it, or choose another with --control-socket PATH", path = path.display())]
    NotASocket {
        /// What stands there.
        path: PathBuf,
    },
    /// Others could put a socket of their own in its place.
    #[error("control socket {path}: {reason}, who could put a socket of their own there; `chown root {dir}` and `chmod go-w {dir}`, or choose another place with --control-socket PATH", path = path.display(), dir = dir.display())]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What is wrong with the directory.
        reason: String,
    },
    /// Anything else.
    #[error("control socket {path}: {what}: {cause}; check the directory, or choose another place with --control-socket PATH (or --control-socket off)", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// A socket that listens. Dropped, it removes its name.
#[derive(Debug)]
pub struct Bound {
    /// Where clients arrive.
    pub(super) listener: UnixListener,
    /// Who may ask besides root: the socket's owner and its group.
    pub(super) owner: Owner,
    path: PathBuf,
    /// Device and inode of the name.
    name: (u64, u64),
    /// Held as long as the socket is.
    _lock: File,
}

/// Whose a socket is, by the ids of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if name_of(&self.path).is_ok_and(|name| name == self.name) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket, if one is wanted, and logs `control socket open path=…`. A missing directory is made.
///
/// Needs a runtime of tokio.
///
/// # Errors
/// [`ControlError`] names cause and remedy.
pub fn bind(place: &ControlSocket) -> Result<Option<Bound>, ControlError> {
    let Some(path) = place.path() else { return Ok(None) };
    let fail = |what| move |cause: io::Error| ControlError::Io { path: path.to_owned(), what, cause };
    check_directory(path)?;
    let lock = take_lock(path)?;
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = || -> io::Result<_> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before it listens, so it is never more open than this, nor less for a umask. The
        // directory is ours, so the name is still the socket.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        let meta = fs::symlink_metadata(path)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok((UnixListener::from_std(StdListener::from(socket))?, meta))
    };
    let (listener, meta) = make().map_err(fail("cannot listen there"))?;
    tracing::info!(path = %path.display(), "control socket open");
    Ok(Some(Bound {
        listener,
        owner: Owner { uid: meta.uid(), gid: meta.gid() },
        path: path.to_owned(),
        name: (meta.dev(), meta.ino()),
        _lock: lock,
    }))
}

fn name_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Makes the directory if it is missing, and refuses one in which others could replace the socket.
fn check_directory(path: &Path) -> Result<(), ControlError> {
    let fail = |what| move |cause| ControlError::Io { path: path.to_owned(), what, cause };
    let dir = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(DIRECTORY_MODE).create(dir) {
        // The umask may have taken rights away.
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(fail("cannot set its directory's permissions"))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // Only a directory that does not exist is in need of being made.
        Err(_) if dir.is_dir() => {}
        Err(error) => return Err(fail("cannot make its directory")(error)),
    }
    let meta = fs::metadata(dir).map_err(fail("cannot look at its directory"))?;
    let untrusted =
        |reason| Err(ControlError::Untrusted { path: path.to_owned(), dir: dir.to_owned(), reason });
    if meta.mode() & WRITABLE_BY_OTHERS != 0 && meta.mode() & STICKY == 0 {
        return untrusted(format!(
            "mode {:04o} of {} lets others write",
            meta.mode() & 0o7777,
            dir.display()
        ));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return untrusted(format!("{} belongs to uid {}", dir.display(), meta.uid()));
    }
    Ok(())
}

/// Takes the lock beside the socket, for as long as the file is open.
fn take_lock(path: &Path) -> Result<File, ControlError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let nofollow = OFlags::NOFOLLOW.bits() as i32;
    let options = {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(LOCK_MODE).custom_flags(nofollow);
        options
    };
    let fail = |cause| ControlError::Io { path: path.to_owned(), what: "cannot lock its place", cause };
    let file = options.open(name).map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ControlError::InUse { path: path.to_owned() }),
        Err(error) => Err(fail(error.into())),
    }
}

/// Removes a socket at which nobody answers.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let fail = |what| move |cause| ControlError::Io { path: path.to_owned(), what, cause };
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => return Err(ControlError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("cannot look at its place")(error)),
    }
    match answers(path) {
        Ok(true) => Err(ControlError::InUse { path: path.to_owned() }),
        Ok(false) => fs::remove_file(path).map_err(fail("cannot remove the old one")),
        Err(error) => Err(fail("cannot tell whether anybody answers there")(error)),
    }
}

/// Whether a program listens at a socket. One that has no room for a connection at the moment does.
fn answers(path: &Path) -> io::Result<bool> {
    use rustix::io::Errno;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // EPROTOTYPE: it listens, but speaks another type of socket.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
