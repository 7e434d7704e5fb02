//! Asking a daemon. The answer is bounded in bytes and time: whoever listens may be no Ringfence.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::control::protocol::{Notice, Reply, Request};
use crate::control::server::MAX_ROWS;

/// How long connecting, asking and reading may take together.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that a line of what is watched may have; an event's hold paths and command lines of several processes.
const MAX_LINE: u64 = 4 << 20;
/// Bytes that an answer may have: rows, the commas between them, and what stands around them.
const MAX_ANSWER: u64 = 2 * MAX_ROWS as u64;

/// Why there is no answer. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("no daemon answers at {path}: there is no such socket; start one with `ringfence run`, or name its control_socket with --socket PATH", path = path.display())]
    NoSocket {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens at it.
    #[error("no daemon answers at {path}: the one that made the socket is gone; start it again, or name another socket with --socket PATH", path = path.display())]
    NobodyListens {
        /// The socket.
        path: PathBuf,
    },
    /// The file's permissions, or the daemon, do not allow it.
    #[error("not allowed to ask the daemon at {path}: {reason}; run the command as root, or as a member of the socket's group", path = path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
        /// Who says so.
        reason: String,
    },
    /// The daemon has no answer.
    #[error("the daemon at {path} does not answer this: {message}", path = path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it says.
        message: String,
    },
    /// It took too long.
    #[error("the daemon at {path} gave no whole answer within {} seconds: it is too busy or stands still; see /readyz", TIMEOUT.as_secs(), path = path.display())]
    Slow {
        /// The socket.
        path: PathBuf,
    },
    /// It ended while somebody watched.
    #[error("the daemon at {path} is gone: it closed the connection without a word, as one that was killed; see its log", path = path.display())]
    Gone {
        /// The socket.
        path: PathBuf,
    },
    /// It was no answer.
    #[error("what answers at {path} is no Ringfence, or one of another version: {reason}; check --socket", path = path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else.
    #[error("cannot ask the daemon at {path}: {cause}; check --socket, and try again", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Asks the daemon whose control socket this is, and waits for the answer. Must not be called inside a runtime.
///
/// # Errors
/// [`ClientError`]; a [`Reply::Error`] is one, too.
pub fn ask(path: &Path, request: Request) -> Result<Reply, ClientError> {
    let fail = |cause| ClientError::Io { path: path.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    runtime.block_on(async {
        match tokio::time::timeout(TIMEOUT, converse(path, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Slow { path: path.to_owned() }),
        }
    })
}

/// What is heard while somebody watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<'l> {
    /// The daemon has begun to show what it was asked for.
    Begun,
    /// An event or an alert: a line of JSON without its line feed.
    Line(&'l str),
    /// So many were left out here.
    Missed(u64),
}

/// Asks the daemon whose control socket this is to show what it sees, and gives it to `each` until that says `false`;
/// `None` then. If the daemon ends, the reason that it gave. Must not be called inside a runtime.
///
/// # Errors
/// [`ClientError`].
pub fn watch(
    path: &Path,
    request: Request,
    mut each: impl FnMut(Heard<'_>) -> bool,
) -> Result<Option<String>, ClientError> {
    let fail = |cause| ClientError::Io { path: path.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    runtime.block_on(async {
        let stream = match tokio::time::timeout(TIMEOUT, open(path, &request)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(ClientError::Slow { path: path.to_owned() }),
        };
        let mut stream = BufReader::new(stream);
        let begun = tokio::time::timeout(TIMEOUT, line(path, &mut stream)).await;
        let begun = begun.map_err(|_| ClientError::Slow { path: path.to_owned() })??;
        match reply(path, begun.unwrap_or_default().as_bytes())? {
            Reply::Watching(_) => {}
            _ => return Err(garbled(path, "it answered another question".to_owned())),
        }
        let mut go_on = each(Heard::Begun);
        while go_on {
            let Some(text) = line(path, &mut stream).await? else {
                return Err(ClientError::Gone { path: path.to_owned() });
            };
            // Events and alerts have more members, and other ones.
            go_on = match serde_json::from_str(&text) {
                Ok(Notice::Missed(lines)) => each(Heard::Missed(lines)),
                Ok(Notice::End(reason)) => return Ok(Some(reason)),
                Err(_) => each(Heard::Line(&text)),
            };
        }
        Ok(None)
    })
}

/// The next line without its line feed; `None` at the end.
async fn line(path: &Path, stream: &mut BufReader<UnixStream>) -> Result<Option<String>, ClientError> {
    let mut line = Vec::new();
    let read = (&mut *stream).take(MAX_LINE).read_until(b'\n', &mut line).await;
    if line.pop_if(|byte| *byte == b'\n').is_none() {
        return match read {
            _ if line.len() as u64 >= MAX_LINE => {
                Err(garbled(path, format!("a line has more than {MAX_LINE} bytes")))
            }
            // A daemon that ends while a line is under way is gone like any other.
            _ => Ok(None),
        };
    }
    String::from_utf8(line).map(Some).map_err(|_| garbled(path, "a line is not UTF-8".to_owned()))
}

fn garbled(path: &Path, reason: String) -> ClientError {
    ClientError::Garbled { path: path.to_owned(), reason }
}

/// Connects and asks.
async fn open(path: &Path, request: &Request) -> Result<UnixStream, ClientError> {
    let fail = |cause: serde_json::Error| ClientError::Io { path: path.to_owned(), cause: cause.into() };
    let mut stream = UnixStream::connect(path).await.map_err(|cause| no_connection(path, cause))?;
    let mut line = serde_json::to_vec(request).map_err(fail)?;
    line.push(b'\n');
    // A daemon that refuses may do so, and close, before it has read anything: its answer tells more.
    let _ = stream.write_all(&line).await;
    Ok(stream)
}

async fn converse(path: &Path, request: Request) -> Result<Reply, ClientError> {
    let fail = |cause| ClientError::Io { path: path.to_owned(), cause };
    let stream = open(path, &request).await?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER + 1).read_to_end(&mut answer).await;
    if answer.len() as u64 > MAX_ANSWER {
        return Err(garbled(path, format!("the answer has more than {MAX_ANSWER} bytes")));
    }
    if answer.is_empty()
        && let Err(cause) = read
    {
        return Err(fail(cause));
    }
    reply(path, &answer)
}

/// Reads an answer; a refusal is an error.
fn reply(path: &Path, answer: &[u8]) -> Result<Reply, ClientError> {
    if answer.is_empty() {
        return Err(garbled(path, "it closed without an answer".to_owned()));
    }
    match serde_json::from_slice(answer).map_err(|error| garbled(path, error.to_string()))? {
        Reply::Error(refusal) if refusal.reason == "denied" => {
            Err(ClientError::NotAllowed { path: path.to_owned(), reason: refusal.message })
        }
        Reply::Error(refusal) => {
            Err(ClientError::Refused { path: path.to_owned(), message: refusal.message })
        }
        reply => Ok(reply),
    }
}

fn no_connection(path: &Path, cause: io::Error) -> ClientError {
    let path = path.to_owned();
    match cause.kind() {
        ErrorKind::NotFound => ClientError::NoSocket { path },
        ErrorKind::ConnectionRefused => ClientError::NobodyListens { path },
        ErrorKind::PermissionDenied => ClientError::NotAllowed { path, reason: cause.to_string() },
        // Its backlog is full.
        ErrorKind::WouldBlock => ClientError::Slow { path },
        _ => ClientError::Io { path, cause },
    }
}
