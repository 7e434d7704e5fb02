//! Asking a daemon. The answer is bounded in bytes and time: whoever listens may be no Ringfence.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::control::protocol::{Reply, Request};
use crate::control::server::MAX_ROWS;

/// How long connecting, asking and reading may take together.
const TIMEOUT: Duration = Duration::from_secs(15);
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

async fn converse(path: &Path, request: Request) -> Result<Reply, ClientError> {
    let fail = |cause| ClientError::Io { path: path.to_owned(), cause };
    let garbled = |reason: String| ClientError::Garbled { path: path.to_owned(), reason };
    let mut stream = UnixStream::connect(path).await.map_err(|cause| no_connection(path, cause))?;
    let mut line = serde_json::to_vec(&request).map_err(|error| fail(error.into()))?;
    line.push(b'\n');
    // A daemon that refuses may do so, and close, before it has read anything: its answer tells more.
    let _ = stream.write_all(&line).await;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER + 1).read_to_end(&mut answer).await;
    if answer.len() as u64 > MAX_ANSWER {
        return Err(garbled(format!("the answer has more than {MAX_ANSWER} bytes")));
    }
    if answer.is_empty() {
        return Err(read.err().map_or_else(|| garbled("it closed without an answer".to_owned()), fail));
    }
    match serde_json::from_slice(&answer).map_err(|error| garbled(error.to_string()))? {
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
