//! Syslog by RFC 5424: to a local daemon's socket, over TCP with octet counting (RFC 6587), or over TLS (RFC 5425).
//!
//! Syslog over TCP has no answers. What is known is whether the peer's kernel has acknowledged every byte; a batch
//! counts as taken only then, and one whose connection broke before is sent again whole. So no alert is lost with a
//! connection, and some may come twice. What a peer has acknowledged and then loses is lost.
//!
//! With TLS 1.3 a server looks at our certificate when the handshake is over for us, and its kernel acknowledges what we
//! send meanwhile. So the first batch of such a connection counts only once the connection stayed open for a while.

mod format;

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use self::format::Formatter;
use super::connect::Stream;
use super::tls::Tls;
use super::{DEFAULT_TIMEOUT_MS, TlsConfig, check_timeout, runtime, setting};
use crate::alert::Shape;
use crate::sink::{Deliver, OutputError, Record, Undelivered};

/// How long to wait before looking again whether the peer has everything.
const ACKNOWLEDGED_PAUSE: Duration = Duration::from_millis(1);

/// So long a new connection with TLS must stay open before what was sent over it counts.
const PROBATION: Duration = Duration::from_secs(1);

/// Where messages go: `unix:/path`, `tcp://host:port` or `tls://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A datagram socket of this machine.
    Unix(PathBuf),
    /// TCP.
    Tcp(String, u16),
    /// TLS.
    Tls(String, u16),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "unix:/dev/log, tcp://host:601 or tls://host:6514";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Address::Unix(path.into())),
                false => Err(format!("`{text}` has no whole path: an address is {FORMS}")),
            };
        }
        let (tls, rest) = match (text.strip_prefix("tcp://"), text.strip_prefix("tls://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(format!("`{text}` is no address of syslog: it is {FORMS}")),
        };
        let authority: http::uri::Authority =
            rest.parse().map_err(|_| format!("`{text}` names no host: an address is {FORMS}"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || rest.contains('@') || rest.ends_with(':') {
            return Err(format!("`{text}` names no host and port: an address is {FORMS}"));
        }
        // Ports 601 and 6514 are those of RFC 3195 and RFC 5425.
        let port = authority.port_u16();
        Ok(match tls {
            false => Address::Tcp(host, port.unwrap_or(601)),
            true => Address::Tls(host, port.unwrap_or(6514)),
        })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which part of a machine a message is from, by RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are the words of every syslog")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Authpriv = 10,
    Audit = 13,
    Alert = 14,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// What a message says behind its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// The alert as JSON, in the output's shape.
    Json,
    /// The rule's output, a sentence.
    Text,
}

/// Settings of a syslog output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogConfig {
    /// Where messages go.
    pub address: Address,
    /// The facility of every message.
    pub facility: Facility,
    /// The name of the program: 1 to 48 printable characters.
    pub app_name: String,
    /// What messages say.
    pub message: Message,
    /// The shape of JSON in them.
    pub shape: Shape,
    /// Whether a byte order mark says that the message is UTF-8, as RFC 5424 wants it and many readers do not.
    pub bom: bool,
    /// The name of the structured data, with a number of one's own behind the `@`; 32473 is that of examples.
    pub sd_id: String,
    /// TLS, for `tls://`.
    pub tls: TlsConfig,
    /// How long connecting, and then sending, may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            address: Address::Unix("/dev/log".into()),
            facility: Facility::Daemon,
            app_name: "ringfence".to_owned(),
            message: Message::Json,
            shape: Shape::default(),
            bom: false,
            sd_id: "ringfence@32473".to_owned(),
            tls: TlsConfig::default(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
        }
    }
}

impl SyslogConfig {
    /// The files that are read while it runs.
    pub fn files(&self) -> Vec<&Path> {
        self.tls.files().collect()
    }
}

/// A syslog output.
pub struct Syslog {
    formatter: Formatter,
    transport: Transport,
    limit: Duration,
}

enum Transport {
    Unix { path: PathBuf, socket: Option<UnixDatagram> },
    Stream(Box<Connection>),
}

struct Connection {
    runtime: Runtime,
    host: String,
    port: u16,
    tls: Option<Tls>,
    stream: Option<Stream>,
}

impl Syslog {
    /// Reads the files that are named. Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit, or a file cannot be used.
    pub fn new(config: &SyslogConfig) -> Result<Self, OutputError> {
        let (host, port, tls) = match &config.address {
            Address::Unix(_) | Address::Tcp(..) if config.tls != TlsConfig::default() => {
                return Err(setting("tls", "the address does not begin with tls://"));
            }
            Address::Unix(path) => {
                return Ok(Self {
                    formatter: Formatter::new(config)?,
                    transport: Transport::Unix { path: path.clone(), socket: None },
                    limit: check_timeout(config.timeout_ms)?,
                });
            }
            Address::Tcp(host, port) => (host, port, None),
            Address::Tls(host, port) => (host, port, Some(Tls::new(&config.tls, host, &[])?)),
        };
        let connection =
            Connection { runtime: runtime()?, host: host.clone(), port: *port, tls, stream: None };
        Ok(Self {
            formatter: Formatter::new(config)?,
            transport: Transport::Stream(Box::new(connection)),
            limit: check_timeout(config.timeout_ms)?,
        })
    }
}

impl Deliver for Syslog {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        match &mut self.transport {
            Transport::Unix { path, socket } => {
                let mut message = Vec::new();
                for (taken, record) in batch.iter().enumerate() {
                    message.clear();
                    self.formatter
                        .push(record, &mut message)
                        .map_err(|cause| Undelivered::refused(taken, cause))?;
                    send_datagram(path, socket, &message, self.limit).map_err(|error| {
                        let cause = format!("{}: {error}", path.display());
                        match error.raw_os_error() {
                            Some(libc::EMSGSIZE) => Undelivered::refused(taken, cause),
                            _ => Undelivered::retry(taken, cause),
                        }
                    })?;
                }
                Ok(())
            }
            Transport::Stream(connection) => {
                let (mut frames, mut message, mut refused) = (Vec::new(), Vec::new(), None);
                let mut framed = 0;
                for record in batch {
                    message.clear();
                    if let Err(cause) = self.formatter.push(record, &mut message) {
                        refused = Some(Undelivered::refused(framed, cause));
                        break;
                    }
                    push_frame(&message, &mut frames);
                    framed += 1;
                }
                if framed > 0 {
                    connection.send(&frames, self.limit).map_err(|cause| Undelivered::retry(0, cause))?;
                }
                refused.map_or(Ok(()), Err)
            }
        }
    }
}

/// Octet counting: the length in digits, a blank, the message.
fn push_frame(message: &[u8], frames: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    frames.extend_from_slice(digits.format(message.len()).as_bytes());
    frames.push(b' ');
    frames.extend_from_slice(message);
}

/// Sends a datagram, over a new socket if the kept one leads nowhere any more: a daemon that was started again.
fn send_datagram(
    path: &Path,
    kept: &mut Option<UnixDatagram>,
    message: &[u8],
    limit: Duration,
) -> io::Result<()> {
    let connect = || -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(limit))?;
        Ok(socket)
    };
    let fresh = kept.is_none();
    let socket = match kept.take() {
        Some(socket) => socket,
        None => connect()?,
    };
    let outcome = match socket.send(message) {
        Err(error)
            if !fresh
                && error.raw_os_error() != Some(libc::EMSGSIZE)
                && error.kind() != ErrorKind::WouldBlock =>
        {
            let socket = connect()?;
            let outcome = socket.send(message);
            *kept = Some(socket);
            outcome
        }
        outcome => {
            *kept = Some(socket);
            outcome
        }
    };
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::TimedOut, "nobody reads from the socket"))
        }
        Err(error) => Err(error),
    }
}

impl Connection {
    /// Sends bytes, and returns when the peer's kernel has them all.
    fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), String> {
        let Connection { runtime, host, port, tls, stream: kept } = self;
        let place = format!("{host}:{port}");
        runtime.block_on(async {
            let mut known = kept.take();
            if let Some(stream) = &mut known {
                match state(stream).await {
                    State::Open => {}
                    State::Closed => known = None,
                    // Said as a failure, so that it is counted and named; the next attempt makes a new connection.
                    State::Broken => {
                        return Err(format!("{place} broke the connection: what it took last may be lost"));
                    }
                }
            }
            let fresh = known.is_none() && tls.is_some();
            let mut stream = match known {
                Some(stream) => stream,
                None => Stream::open(host, *port, tls.as_mut(), limit).await?,
            };
            let steps = async {
                stream.write_all(bytes).await?;
                stream.flush().await?;
                acknowledged(&mut stream, limit).await
            };
            let sent = tokio::time::timeout(limit, steps).await;
            sent.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "it reads too slowly")))
                .map_err(|error| format!("{place} did not take messages: {error}"))?;
            if fresh {
                stays_open(&mut stream, PROBATION).await.map_err(|error| {
                    format!("{place} took messages, and then the connection ended: {error}")
                })?;
            }
            *kept = Some(stream);
            Ok(())
        })
    }
}

/// How a connection stands, as far as can be known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The peer closed it in good order. Its kernel does so only if all was read that it has acknowledged; otherwise it
    /// resets the connection.
    Closed,
    Broken,
}

/// Servers of syslog say nothing; what is read is the end, or TLS's own business.
async fn state(stream: &mut Stream) -> State {
    let mut said = [0; 512];
    loop {
        match tokio::time::timeout(Duration::ZERO, stream.read(&mut said)).await {
            Err(_) => return State::Open,
            Ok(Ok(0)) => return State::Closed,
            // Not all who speak TLS say goodbye.
            Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => return State::Closed,
            Ok(Err(_)) => return State::Broken,
            Ok(Ok(_)) => {}
        }
    }
}

/// Waits whether a connection ends within this time: an end, in whatever order, is an error.
async fn stays_open(stream: &mut Stream, time: Duration) -> io::Result<()> {
    let mut said = [0; 512];
    let ended = async {
        loop {
            match stream.read(&mut said).await {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    };
    tokio::time::timeout(time, ended).await.unwrap_or(Ok(()))
}

/// Waits until the peer's kernel has acknowledged every byte.
async fn acknowledged(stream: &mut Stream, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let mut left: libc::c_int = 0;
        // SAFETY: the descriptor is open while `stream` is borrowed, and TIOCOUTQ (SIOCOUTQ) writes one int.
        match unsafe { libc::ioctl(stream.tcp().as_raw_fd(), libc::TIOCOUTQ, &raw mut left) } {
            0 if left == 0 => {}
            0 if Instant::now() < end => {
                tokio::time::sleep(ACKNOWLEDGED_PAUSE).await;
                continue;
            }
            0 => return Err(ErrorKind::TimedOut.into()),
            _ => return Err(io::Error::last_os_error()),
        }
        // A connection that was reset has nothing left to send, either.
        return match stream.tcp().take_error()? {
            Some(error) => Err(error),
            None if state(stream).await == State::Broken => Err(ErrorKind::ConnectionReset.into()),
            None => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests;
