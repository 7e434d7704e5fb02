//! The service manager that may have started the daemon (systemd, or whoever speaks its protocol): what it is told, and the
//! socket for metrics that it may hand over. Where there is none, nothing of this does anything.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use sd_notify::NotifyState;
use tokio::task::spawn_blocking;

use crate::http::{Health, State};

/// Name of the socket for metrics in the socket unit (`FileDescriptorName=`).
pub const METRICS_SOCKET: &str = "metrics";
/// How often it is told how the daemon is, where no watchdog asks for more.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// Tells that probes are attached and events are read.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Feeds the watchdog as long as Ringfence sees what it watches, and tells how it is when that changes. Runs until it is
/// dropped.
///
/// The self-test notices within seconds what is seen no longer; then the watchdog is fed no more, and in the end the
/// manager starts the daemon anew. Where the self-test is off, what is fed says that the daemon runs, and no more.
pub async fn attend(health: Arc<Health>) {
    let watchdog = sd_notify::watchdog_enabled();
    // Several chances within its time, so that one late one does not count.
    let mut turn = tokio::time::interval(watchdog.map_or(STATUS_PERIOD, |time| time / 4));
    let mut told = None;
    loop {
        turn.tick().await;
        let (state, detail) = health.state();
        let sees = matches!(state, State::Ready | State::Degraded);
        let status =
            if detail.is_empty() { state.name().to_owned() } else { format!("{}: {detail}", state.name()) };
        let is_news = told.as_ref() != Some(&status);
        if (sees && watchdog.is_some()) || is_news {
            let text = status.clone();
            // The manager may stand still; then this waits, and nothing else.
            let sent = spawn_blocking(move || {
                let mut states = Vec::new();
                if is_news {
                    states.push(NotifyState::Status(&text));
                }
                if sees && watchdog.is_some() {
                    states.push(NotifyState::Watchdog);
                }
                tell(&states);
            });
            if sent.await.is_ok() {
                told = Some(status);
            }
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// The socket for metrics that the service manager listens on and hands over, if it does. Takes it: to be called once.
///
/// # Errors
/// What was handed over is no socket that listens for TCP, or the environment contradicts itself.
pub fn metrics_socket() -> io::Result<Option<TcpListener>> {
    let named = sd_notify::listen_fds_with_names()?.find(|(_, name)| name == METRICS_SOCKET);
    named.map(|(fd, _)| listener(fd)).transpose()
}

fn listener(fd: RawFd) -> io::Result<TcpListener> {
    // SAFETY: a descriptor that the manager opened for us stays open, since nothing else here takes it.
    let handed = unsafe { BorrowedFd::borrow_raw(fd) };
    let family = socket_domain(handed)?;
    if !socket_acceptconn(handed)? || !matches!(family, AddressFamily::INET | AddressFamily::INET6) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket that listens for TCP"));
    }
    // SAFETY: as above; from here on it is the listener's.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_what_listens_for_tcp_is_taken() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(listener(tcp.into_raw_fd()).unwrap().local_addr().unwrap(), address);
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for wrong in [unix.into_raw_fd(), file.into_raw_fd()] {
            assert!(listener(wrong).is_err());
            // SAFETY: it was not taken, so it is still ours to close.
            drop(unsafe { OwnedFd::from_raw_fd(wrong) });
        }
    }
}
