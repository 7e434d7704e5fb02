//! A port that is taken and on which nobody listens.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A port of loopback that refuses connections, and that nobody else gets as long as this is there.
#[derive(Debug)]
pub struct HeldPort(TcpListener);

impl HeldPort {
    /// Takes one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take() -> Result<HeldPort, String> {
        bound().map(HeldPort).map_err(|error| format!("no port: {error}"))
    }

    /// Its number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn port(&self) -> Result<u16, String> {
        self.0.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
    }
}

/// What the standard library binds, it listens on, too.
fn bound() -> io::Result<TcpListener> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_in of `len` bytes, and outlives the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound == 0 { Ok(TcpListener::from(socket)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::listens;

    #[test]
    fn it_refuses_and_is_nobody_elses() {
        let held = HeldPort::take().unwrap();
        let port = held.port().unwrap();
        assert!(!listens(port));
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        drop(held);
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
}
