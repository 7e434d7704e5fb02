//! The journal, by its own protocol, so that each fact is a field that `journalctl` can search.
//!
//! A message is one datagram of fields; one that no datagram holds goes into sealed memory whose descriptor is handed
//! over (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). journald says nothing back. Its rate limit is per service and
//! drops silently, but for a message of its own: see `RateLimitBurst=` in journald.conf(5).

use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;

use super::alert::{Alert, severity, text};
use super::{DEFAULT_TIMEOUT_MS, check_timeout, setting};
use crate::alert::{Shape, Shaper};
use crate::sink::{Deliver, OutputError, Record, Undelivered};

/// Where journald listens.
pub const DEFAULT_SOCKET: &str = "/run/systemd/journal/socket";

/// What all our alerts have as `MESSAGE_ID`, for `journalctl MESSAGE_ID=…`.
pub const MESSAGE_ID: &str = "6f0dcb8be5c84ef3a0c1b5d2a3c54f07";

/// Settings of a journald output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournaldConfig {
    /// The socket of journald, or of a namespace of it.
    pub socket: PathBuf,
    /// What `journalctl -t` asks for.
    pub identifier: String,
    /// Whether the alert as JSON, in the output's shape, comes with it as `RINGFENCE_ALERT`.
    pub json: bool,
    /// That shape.
    pub shape: Shape,
    /// How long journald may take to read, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for JournaldConfig {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            identifier: "ringfence".to_owned(),
            json: true,
            shape: Shape::default(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
        }
    }
}

/// A journald output.
pub struct Journald {
    config: JournaldConfig,
    limit: Duration,
    socket: Option<UnixDatagram>,
    message: Vec<u8>,
}

impl Journald {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit.
    pub fn new(config: &JournaldConfig) -> Result<Self, OutputError> {
        let limit = check_timeout(config.timeout_ms)?;
        if config.identifier.is_empty() || config.identifier.chars().any(char::is_control) {
            return Err(setting("identifier", "it is one line of text"));
        }
        if !config.socket.is_absolute() {
            return Err(setting("socket", "it is a whole path"));
        }
        Ok(Self { config: config.clone(), limit, socket: None, message: Vec::new() })
    }

    fn send(&mut self) -> io::Result<()> {
        let fresh = self.socket.is_none();
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        match send(&socket, &self.message) {
            // It was started again since, and has a new socket at the same place.
            Err(error) if !fresh && error.kind() != ErrorKind::WouldBlock => {
                let socket = self.connect()?;
                let outcome = send(&socket, &self.message);
                self.socket = Some(socket);
                outcome
            }
            outcome => {
                self.socket = Some(socket);
                outcome
            }
        }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.config.socket)?;
        socket.set_write_timeout(Some(self.limit))?;
        Ok(socket)
    }
}

impl Deliver for Journald {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        for (taken, record) in batch.iter().enumerate() {
            self.message.clear();
            push_message(&self.config, record, &mut self.message)
                .map_err(|cause| Undelivered::refused(taken, cause))?;
            self.send().map_err(|error| {
                let what = match error.kind() {
                    ErrorKind::WouldBlock => "nobody reads from the socket".to_owned(),
                    _ => error.to_string(),
                };
                Undelivered::retry(taken, format!("{}: {what}", self.config.socket.display()))
            })?;
        }
        Ok(())
    }
}

fn push_message(config: &JournaldConfig, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let alert = Alert::read(record.line)?;
    let mut message = Vec::new();
    crate::alert::push_visible(&alert.sentence(), &mut message);
    push_field("MESSAGE", &message, out);
    push_field("PRIORITY", severity(record.priority).to_string().as_bytes(), out);
    push_field("SYSLOG_IDENTIFIER", config.identifier.as_bytes(), out);
    push_field("MESSAGE_ID", MESSAGE_ID.as_bytes(), out);
    push_field("RINGFENCE_TIME", alert.time.as_bytes(), out);
    push_field("RINGFENCE_RULE", alert.rule.as_bytes(), out);
    push_field("RINGFENCE_RULE_ID", alert.rule_id.as_bytes(), out);
    push_field("RINGFENCE_PRIORITY", record.priority.as_str().as_bytes(), out);
    push_field("RINGFENCE_HOSTNAME", alert.hostname.as_bytes(), out);
    // A field may come several times; then each of its values can be searched for.
    for tag in &alert.tags {
        push_field("RINGFENCE_TAG", tag.as_bytes(), out);
    }
    for technique in &alert.attack {
        push_field("RINGFENCE_ATTACK", technique.as_bytes(), out);
    }
    // As Docker's own driver for the journal names them.
    for (name, field) in [
        ("CONTAINER_ID", "container.id"),
        ("CONTAINER_ID_FULL", "container.full_id"),
        ("CONTAINER_NAME", "container.name"),
        ("IMAGE_NAME", "container.image"),
    ] {
        if alert.container_id().is_some()
            && let Some(value) = alert.text(field)
        {
            push_field(name, value.as_bytes(), out);
        }
    }
    // Every field of the event by a name of ours: `RINGFENCE_CONTAINER_ID`, `RINGFENCE_EVT_TYPE`.
    for (field, value) in &alert.output_fields {
        if let (Some(name), Some(value)) = (field_name(field), text(value)) {
            push_field(&name, value.as_bytes(), out);
        }
    }
    if config.json {
        let mut shaped = Vec::new();
        Shaper::new(config.shape).push(record.line, &mut shaped);
        push_field("RINGFENCE_ALERT", &shaped, out);
    }
    Ok(())
}

/// `container.id` as journald allows names: capitals, digits and underscores, at most 64. Fields with an argument,
/// whose text may be anything, are in the JSON alone.
fn field_name(field: &str) -> Option<String> {
    let simple = field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_');
    let name = format!("RINGFENCE_{}", field.replace('.', "_").to_ascii_uppercase());
    (simple && name.len() <= 64).then_some(name)
}

/// Appends a field: with `=` if the value has no line feed, else with its length.
fn push_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Sends a message as a datagram, or by a descriptor if it is too large for one.
fn send(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    match socket.send(message) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS)) => {
            send_memory(socket, message)
        }
        outcome => outcome.map(drop),
    }
}

fn send_memory(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    let memory = memfd_create("ringfence-alert", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(message)?;
    // journald takes no memory that could change while it reads.
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    let descriptors: [BorrowedFd<'_>; 1] = [memory.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let nothing: [IoSlice<'_>; 0] = [];
    sendmsg(socket, &nothing, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read as _, Seek as _};
    use std::time::Instant;

    use rustix::fs::fcntl_get_seals;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;
    use crate::rules::Priority;
    use crate::sink::Fate;
    use crate::sink::net::testing::{deliver, line};

    /// The example of the protocol's description.
    #[test]
    fn fields_with_and_without_line_feeds() {
        let mut out = Vec::new();
        push_field("MESSAGE", b"foobar", &mut out);
        push_field("X", b"a\nb", &mut out);
        assert_eq!(out, b"MESSAGE=foobar\nX\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn names_of_fields() {
        assert_eq!(field_name("container.image.tag").as_deref(), Some("RINGFENCE_CONTAINER_IMAGE_TAG"));
        assert_eq!(field_name("container.label[a]"), None);
        assert_eq!(field_name(&"x".repeat(60)), None);
        assert_eq!(MESSAGE_ID.bytes().filter(u8::is_ascii_hexdigit).count(), 32);
    }

    fn sink(socket: &std::path::Path) -> Journald {
        let config =
            JournaldConfig { socket: socket.to_owned(), timeout_ms: 300, ..JournaldConfig::default() };
        Journald::new(&config).unwrap()
    }

    #[test]
    fn an_alert_as_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut sink = sink(&path);
        assert_eq!(
            deliver(&mut sink, Priority::Warning, &[line()]).unwrap_err().fate,
            Fate::Retry { after: None }
        );
        let journal = UnixDatagram::bind(&path).unwrap();
        deliver(&mut sink, Priority::Warning, &[line()]).unwrap();
        let mut message = [0; 16384];
        let len = journal.recv(&mut message).unwrap();
        let text = std::str::from_utf8(&message[..len]).unwrap();
        for expected in [
            "MESSAGE=Namespace made by \"ev]il\\\\ <!channel> & co\" é (pid 4711)",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=ringfence",
            "RINGFENCE_RULE=User namespace made in a container",
            "RINGFENCE_RULE_ID=userns-in-container",
            "RINGFENCE_TAG=T1611",
            "RINGFENCE_TAG=container",
            "RINGFENCE_CONTAINER_ID=3f1c0a9b7e21",
            "CONTAINER_ID=3f1c0a9b7e21",
            "CONTAINER_NAME=shop \"front\"]",
            "IMAGE_NAME=docker.io/library/nginx:1.27",
            "RINGFENCE_K8S_POD_NAME=shop-7d9c",
            "RINGFENCE_PROC_PID=4711",
            "RINGFENCE_EVT_FLAGS=CLONE_NEWUSER CLONE_NEWNS",
            &format!("MESSAGE_ID={MESSAGE_ID}"),
            &format!("RINGFENCE_ALERT={}", line()),
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
        }
        assert!(!text.contains("REFUSED_BY"), "{text}");
    }

    #[test]
    fn a_large_one_comes_as_sealed_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let long = line().replace("unshare", &"u".repeat(1 << 20));
        deliver(&mut sink(&path), Priority::Warning, &[&long]).unwrap();
        let mut byte = [0];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&journal, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty()).unwrap();
        assert_eq!(got.bytes, 0);
        let RecvAncillaryMessage::ScmRights(mut descriptors) = ancillary.drain().next().unwrap() else {
            panic!("no descriptor")
        };
        let mut memory = std::fs::File::from(descriptors.next().unwrap());
        let seals = fcntl_get_seals(&memory).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL));
        memory.rewind().unwrap();
        let mut text = String::new();
        memory.read_to_string(&mut text).unwrap();
        assert!(text.contains(&format!("\nRINGFENCE_ALERT={long}\n")));
    }

    #[test]
    fn one_that_hangs_costs_the_time_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _journal = UnixDatagram::bind(&path).unwrap();
        let started = Instant::now();
        let outcome = deliver(&mut sink(&path), Priority::Warning, &vec![line(); 2000]).unwrap_err();
        assert!(outcome.taken > 0 && outcome.cause.contains("nobody reads"), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
