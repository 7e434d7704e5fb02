//! Serving the control socket: bounds for connections, bytes and time, and who may ask.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::alert::json_visible;
use crate::capabilities::{self, Capabilities, CapsInfo, CapsListing, select};
use crate::control::ask::{Answer, Asker, Topic};
use crate::control::protocol::{MAX_REQUEST, Refusal, Reply, Request, WatchStart};
use crate::control::socket::{Bound, Owner};
use crate::control::watch::{self, Desk};
use crate::control::{Board, Row};

/// Connections served at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 8;
/// A request must have arrived within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer must have been taken within this time.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Text of an answer is made and sent in pieces of about this size.
const PIECE: usize = 64 << 10;
/// Bytes that the rows of an answer may have together.
pub(super) const MAX_ROWS: usize = 16 << 20;
/// Groups that the kernel lets a process be in (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// What became of a connection, as the label `outcome` of `control_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was taken.
    Answered,
    /// The client is neither root nor the socket's owner nor in its group.
    Denied,
    /// No request that is known.
    Malformed,
    /// More bytes than a request may have.
    TooLong,
    /// The request did not arrive in time, or the answer was not taken in time.
    Slow,
    /// The client hung up.
    Disconnected,
    /// The pipeline did not answer.
    Unavailable,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Outcome; 7] = [
        Outcome::Answered,
        Outcome::Denied,
        Outcome::Malformed,
        Outcome::TooLong,
        Outcome::Slow,
        Outcome::Disconnected,
        Outcome::Unavailable,
    ];

    /// The word in metrics, and in refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Denied => "denied",
            Outcome::Malformed => "malformed",
            Outcome::TooLong => "too_long",
            Outcome::Slow => "slow",
            Outcome::Disconnected => "disconnected",
            Outcome::Unavailable => "unavailable",
        }
    }
}

/// Serves until the future is dropped, which removes the socket. Never fails: what goes wrong with a connection ends
/// that one. `outcomes` are counters by [`Outcome`]'s number.
pub async fn serve(bound: Bound, sources: Sources, outcomes: Vec<IntCounter>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match bound.listener.accept().await {
            Ok((stream, _)) => {
                let (sources, outcomes) = (sources.clone(), outcomes.clone());
                let owner = bound.owner;
                tokio::spawn(async move {
                    let outcome = connection(stream, owner, &sources, slot).await;
                    if let Some(count) = outcomes.get(outcome as usize) {
                        count.inc();
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the control socket was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who knows the answers.
#[derive(Clone)]
pub struct Sources {
    /// Asks the owner of the tables.
    pub asker: Arc<Asker>,
    /// Knows how the daemon is.
    pub board: Arc<Board>,
    /// The capability ledger, if the daemon keeps one.
    pub capabilities: Option<Capabilities>,
    /// Lets those in who want to watch.
    pub desk: Arc<Desk>,
}

/// What there is to answer.
enum Found {
    /// The owner of the tables gave it.
    Asked(Answer),
    /// What fits one text.
    Told(Reply),
    /// What the capability ledger knows.
    Caps(Box<CapsListing>),
}

/// One request, one answer, while the slot is held. Who watches holds a place of its own instead.
async fn connection(
    mut stream: UnixStream,
    owner: Owner,
    sources: &Sources,
    slot: OwnedSemaphorePermit,
) -> Outcome {
    let asked = match allowed(&stream, owner) {
        Ok(true) => request(&mut stream).await,
        Ok(false) => Err((
            Outcome::Denied,
            "only root, the socket's owner and members of its group may ask".to_owned(),
        )),
        Err(error) => Err((Outcome::Denied, format!("the kernel does not say who asks: {error}"))),
    };
    let answer = match asked {
        Ok(Request::Containers {}) => sources
            .asker
            .ask(Topic::Containers)
            .await
            .map(Found::Asked)
            .map_err(|error| (Outcome::Unavailable, error.to_string())),
        Ok(Request::Status {}) => Ok(Found::Told(Reply::Status(Box::new(sources.board.status().await)))),
        Ok(Request::Caps { container }) => caps(sources.capabilities.as_ref(), container.as_deref()).await,
        Ok(Request::Top { container }) => match sources.asker.ask(Topic::Top).await {
            Ok(Answer::Top(parts)) => {
                Ok(Found::Told(Reply::Top(Box::new(sources.board.top(*parts, container.as_deref())))))
            }
            // It was asked for what containers do.
            Ok(_) => return Outcome::Unavailable,
            Err(error) => Err((Outcome::Unavailable, error.to_string())),
        },
        Ok(Request::Watch { sight, filter }) => match sources.desk.open(sight, filter.as_deref()).await {
            Ok(subscription) => {
                drop(slot);
                return watch::serve(stream, subscription, WatchStart { sight, filter }).await;
            }
            Err(refused) => Err(refused),
        },
        Err(refused) => Err(refused),
    };
    let (outcome, sent) = match &answer {
        Ok(Found::Asked(Answer::Containers(rows))) => {
            (Outcome::Answered, timeout(SEND_TIMEOUT, send_rows(&mut stream, rows)).await)
        }
        Ok(Found::Told(reply)) => (Outcome::Answered, timeout(SEND_TIMEOUT, send(&mut stream, reply)).await),
        Ok(Found::Caps(listing)) => {
            (Outcome::Answered, timeout(SEND_TIMEOUT, send_caps(&mut stream, listing)).await)
        }
        // It was asked for containers.
        Ok(Found::Asked(Answer::Capabilities(_) | Answer::Top(_))) => return Outcome::Unavailable,
        Err((Outcome::Disconnected, _)) => return Outcome::Disconnected,
        Err((outcome, message)) => {
            (*outcome, timeout(SEND_TIMEOUT, refuse(&mut stream, *outcome, message)).await)
        }
    };
    match sent {
        Ok(Ok(())) => outcome,
        // What was refused stays refused, whether or not the client hears it.
        _ if outcome != Outcome::Answered => outcome,
        Ok(Err(_)) => Outcome::Disconnected,
        Err(_) => Outcome::Slow,
    }
}

/// Reads the request.
async fn request(stream: &mut UnixStream) -> Result<Request, (Outcome, String)> {
    let mut line = Vec::new();
    let mut bounded = BufReader::with_capacity(MAX_REQUEST, stream.take(MAX_REQUEST as u64));
    match timeout(REQUEST_TIMEOUT, bounded.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.ends_with(b"\n") => {}
        Ok(Ok(_)) if line.len() >= MAX_REQUEST => {
            return Err((Outcome::TooLong, format!("a request may have {MAX_REQUEST} bytes")));
        }
        Ok(Ok(0)) | Ok(Err(_)) => return Err((Outcome::Disconnected, String::new())),
        Ok(Ok(_)) => return Err((Outcome::Malformed, "a request ends with a line feed".to_owned())),
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            return Err((Outcome::Slow, format!("no request within {seconds} seconds")));
        }
    }
    serde_json::from_slice(&line).map_err(|error| {
        // The library's text names what it found, and a client may print what it gets.
        let what = json_visible(&error.to_string());
        let known = r#"known: {"request":"containers"}, {"request":"status"}, {"request":"caps"}, {"request":"top"}, {"request":"watch"}; is the daemon older than the command?"#;
        (Outcome::Malformed, format!("no request that this daemon knows: {what}; {known}"))
    })
}

/// What the capability ledger knows of those that are wanted.
async fn caps(capabilities: Option<&Capabilities>, wanted: Option<&str>) -> Result<Found, (Outcome, String)> {
    let unavailable = |error: capabilities::AskError| (Outcome::Unavailable, error.to_string());
    let capabilities = capabilities.ok_or_else(|| unavailable(capabilities::AskError::Gone))?;
    let mut listing = capabilities.ask().await.map_err(unavailable)?;
    match wanted {
        Some(wanted) => {
            let found = select(&listing.containers, wanted).into_iter().cloned().collect();
            listing.containers = found;
        }
        // Kilobytes each; whoever wants them asks for one.
        None => listing.containers.iter_mut().for_each(CapsInfo::shorten),
    }
    Ok(Found::Caps(Box::new(listing)))
}

async fn refuse(stream: &mut UnixStream, outcome: Outcome, message: &str) -> io::Result<()> {
    let refusal = Refusal { reason: outcome.name().to_owned(), message: message.to_owned() };
    send(stream, &Reply::Error(refusal)).await
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let text = json_line(reply)?;
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(b"\n").await
}

/// Makes the answer's text and sends it piece by piece, so that a long one takes little memory.
async fn send_rows(stream: &mut UnixStream, rows: &[Row]) -> io::Result<()> {
    let mut piece = String::with_capacity(PIECE);
    piece.push_str("{\"containers\":{\"known\":[");
    let (mut size, mut said) = (0, 0);
    for row in rows {
        let text = json_line(&row.info())?;
        size += text.len();
        if size > MAX_ROWS {
            break;
        }
        if said > 0 {
            piece.push(',');
        }
        piece.push_str(&text);
        said += 1;
        if piece.len() >= PIECE {
            stream.write_all(piece.as_bytes()).await?;
            piece.clear();
        }
    }
    piece.push_str(&format!("],\"omitted\":{}}}}}\n", rows.len() - said));
    stream.write_all(piece.as_bytes()).await
}

/// As many containers as have room.
async fn send_caps(stream: &mut UnixStream, listing: &CapsListing) -> io::Result<()> {
    let mut rows = Vec::new();
    let mut size = 0;
    for info in &listing.containers {
        let text = json_line(info)?;
        size += text.len() + 1;
        if size > MAX_ROWS {
            break;
        }
        rows.push(text);
    }
    let rest = CapsListing {
        containers: Vec::new(),
        omitted: listing.omitted + (listing.containers.len() - rows.len()) as u64,
        ..*listing
    };
    let rest = json_line(&Reply::Caps(Box::new(rest)))?;
    // The list is the first member, and empty in what stands around it.
    let Some((head, tail)) = rest.split_once("[]") else { return Err(io::Error::other("no list")) };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(b"[").await?;
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            stream.write_all(b",").await?;
        }
        stream.write_all(row.as_bytes()).await?;
    }
    stream.write_all(b"]").await?;
    stream.write_all(tail.as_bytes()).await?;
    stream.write_all(b"\n").await
}

pub(super) fn json_line(value: &impl serde::Serialize) -> io::Result<String> {
    Ok(json_visible(&serde_json::to_string(value)?))
}

/// Whether the client may ask, by what the kernel noted when it connected.
fn allowed(stream: &UnixStream, owner: Owner) -> io::Result<bool> {
    let peer = stream.peer_cred()?;
    if may_ask(peer.uid(), &[peer.gid()], owner) {
        return Ok(true);
    }
    Ok(may_ask(peer.uid(), &peer_groups(stream)?, owner))
}

/// Root, the socket's owner and its group.
fn may_ask(uid: u32, groups: &[u32], owner: Owner) -> bool {
    uid == 0 || uid == owner.uid || groups.contains(&owner.gid)
}

/// The supplementary groups of whoever connected (`SO_PEERGROUPS`, since 4.13).
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `bytes` bytes to where `groups` has as many.
        let failed = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        // It says how many there are, also when they do not fit.
        let count = (bytes as usize / size_of::<libc::gid_t>()).min(MAX_GROUPS);
        if failed == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}
