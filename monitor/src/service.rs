//! The service manager that may have started the daemon (systemd, or whoever speaks its protocol): what it is told, and the
//! socket for metrics that it may hand over. Where there is none, nothing of this does anything.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use sd_notify::NotifyState;

use crate::http::{Health, State};

/// Name of the socket for metrics in the socket unit (`FileDescriptorName=`).
pub const METRICS_SOCKET: &str = "metrics";
/// How often it is told how the daemon is, where no watchdog asks for more.
const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// After what time it is told again that the daemon is ready, if it had no room.
const RETRY: Duration = Duration::from_millis(100);
/// Where it listens: a path, or `@` and a name.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Tells that the daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells that probes are attached and events are read; then feeds the watchdog as long as that can be believed, and tells
/// how the daemon is when that changes. Runs until it is dropped.
///
/// If hooks are `tested`, the watchdog is fed once for each look that showed that they are seen ([`Health::prove`]), and
/// not for life alone: where nothing proves it any more, the manager starts the daemon anew. With the self-test
/// switched off, what is fed says that the daemon runs, and no more.
pub async fn attend(health: Arc<Health>, tested: bool) {
    while !tell(&[NotifyState::Ready]) {
        tokio::time::sleep(RETRY).await;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Several chances within its time, so that one late one does not count.
    let mut turn = tokio::time::interval(watchdog.map_or(STATUS_PERIOD, |time| time / 4));
    let mut feeding = Feeding { tested, fed: 0 };
    let mut told = None;
    loop {
        turn.tick().await;
        let (state, detail) = health.state();
        let proofs = health.proofs();
        let status =
            if detail.is_empty() { state.name().to_owned() } else { format!("{}: {detail}", state.name()) };
        let mut states = Vec::new();
        if told.as_ref() != Some(&status) {
            states.push(NotifyState::Status(&status));
        }
        if watchdog.is_some() && feeding.is_due(state, proofs) {
            states.push(NotifyState::Watchdog);
        }
        // What the manager has no room for is tried again with the next turn.
        if !states.is_empty() && tell(&states) {
            feeding.fed = proofs;
            told = Some(status);
        }
    }
}

/// When the watchdog is fed.
struct Feeding {
    /// Whether canaries are wanted.
    tested: bool,
    /// Proofs that were there when it was fed last.
    fed: u64,
}

impl Feeding {
    /// Blindness alone is no reason to withhold: whoever floods the ring would have the daemon ended. What a start anew
    /// may mend is no proof to begin with.
    fn is_due(&self, state: State, proofs: u64) -> bool {
        let runs = !matches!(state, State::Starting | State::Stopping);
        runs && (!self.tested || proofs != self.fed)
    }
}

/// False if the service manager has no room now: never waits. True if it was told, or cannot be.
fn tell(states: &[NotifyState<'_>]) -> bool {
    let Some(socket) = std::env::var_os(NOTIFY_SOCKET) else { return true };
    let told = send(&socket, states);
    if let Err(error) = &told {
        tracing::debug!(%error, "the service manager cannot be told");
    }
    !told.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn send(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.connect_addr(&address)?;
    sender.send(message.as_bytes()).map(drop)
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
    fn the_watchdog_is_fed_for_new_proofs_and_whatever_floods_the_ring() {
        let mut feeding = Feeding { tested: true, fed: 0 };
        assert!(!feeding.is_due(State::Ready, 0), "nothing was proved yet: canaries may be missing");
        assert!(feeding.is_due(State::Blind, 1), "a full ring blinds, and is nothing that a start mends");
        feeding.fed = 1;
        assert!(!feeding.is_due(State::Ready, 1), "an old proof is none");
        assert!(!feeding.is_due(State::Stopping, 2) && !feeding.is_due(State::Starting, 2));
        assert!(Feeding { tested: false, fed: 0 }.is_due(State::Ready, 0), "the self-test is off");
    }

    #[test]
    fn the_manager_is_told_at_both_kinds_of_places_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("ringfence-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let places = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ];
        for (manager, place) in places {
            send(&place, &[NotifyState::Ready, NotifyState::Watchdog]).unwrap();
            let mut message = [0; 64];
            let len = manager.recv(&mut message).unwrap();
            assert_eq!(&message[..len], b"READY=1\nWATCHDOG=1\n");
            // It stands still: soon there is no room.
            let refused = (0..100_000).find_map(|_| send(&place, &[NotifyState::Watchdog]).err());
            assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        }
    }

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
