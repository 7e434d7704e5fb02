//! What an output with a peer of its own does: it takes whole alerts, one batch after the other.
//!
//! Standard output takes bytes and is written to directly. Every other output implements [`Deliver`]. It runs in a
//! thread of its own behind a bounded queue, and gets each alert as the canonical JSON line, which it turns into its
//! own shape there: nothing of that is paid on the path of an event. When to try again, what to keep on disk and what
//! to count is the worker's business, not the output's.

use std::time::Duration;

use crate::rules::Priority;

/// One alert on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The canonical JSON line (`docs/alert.schema.json`) without its line feed. It has no line feed inside.
    pub line: &'a [u8],
    /// The priority of its rule; the line says the same.
    pub priority: Priority,
}

/// An output that takes whole records, in order, in a thread of its own.
///
/// A call may block, but not for ever: each output has a time limit of its own for connecting, sending and waiting for
/// an answer, since nothing else can end a call that hangs. One that needs several answers comes back between them
/// ([`Fate::Unasked`]) when it took about a second, so that a slow peer does not keep its thread from anything else. At the end of the process a call that is still under way is
/// left behind.
pub trait Deliver: Send + 'static {
    /// Delivers the records from the first on. `Ok`: all were taken for good. A batch is never empty.
    ///
    /// # Errors
    /// [`Undelivered`] says how many were taken and what happened to the next one.
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered>;
}

/// A batch that was not taken whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// So many records from the first on were delivered; less than the batch has.
    pub taken: usize,
    /// What happened to the next one.
    pub fate: Fate,
    /// Why, for the log. It holds no secret: no token, no password, no URL with one inside.
    pub cause: String,
}

/// What happened to the first record that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The peer is away or busy: the same record is tried again later.
    Retry {
        /// Not earlier than after this time, if the peer said so (`Retry-After`).
        after: Option<Duration>,
    },
    /// The peer will never take this record. It is counted as `rejected` and skipped.
    Refused,
    /// It was not offered yet: the peer takes what it is given, but the call took long enough. It is offered again at once,
    /// after what was taken is noted and what came meanwhile is seen to.
    Unasked,
}

impl Undelivered {
    /// The peer is away or busy.
    pub fn retry(taken: usize, cause: impl Into<String>) -> Self {
        Self { taken, fate: Fate::Retry { after: None }, cause: cause.into() }
    }

    /// The peer will never take the record behind the `taken` ones.
    pub fn refused(taken: usize, cause: impl Into<String>) -> Self {
        Self { taken, fate: Fate::Refused, cause: cause.into() }
    }

    /// The peer took so many, and there was no time for more.
    pub fn unasked(taken: usize) -> Self {
        Self { taken, fate: Fate::Unasked, cause: String::new() }
    }
}

/// Why an output cannot be set up. The message names cause and remedy, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(pub String);
