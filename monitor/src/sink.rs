//! Where alerts leave: standard output, files, and outputs that have a peer of their own.
//!
//! Each sink has a queue bounded in bytes and a thread of its own, so that a slow or dead reader never
//! holds detection back. What does not fit is dropped and counted by reason. Standard output and files take bytes
//! ([`worker`]): a write that ends inside a line is completed by the next one, so no line is ever torn in two. The
//! others take whole records ([`Deliver`], [`courier`]), and may have a [`spool`] on disk.

mod courier;
mod deliver;
mod file;
pub mod net;
mod kept;
mod rotate;
mod spool;
mod stats;
mod worker;

pub use deliver::{Deliver, Fate, OutputError, Record, Undelivered};
pub use file::{FileError, check_alert_file, open_alert_file};
pub use rotate::{AlertFile, FileOutput, Rotation};
pub use spool::{Spool, SpoolError};
pub use stats::{DropReason, SinkStats};

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use kept::Kept;

use crate::alert::{Shape, Shaper};
use crate::rules::Priority;

/// Bytes that a sink's queue holds unless told otherwise, those being written included.
pub const DEFAULT_QUEUE_BYTES: usize = 8 << 20;

/// Empty buffers that are kept for reuse.
const SPARE_BUFFERS: usize = 4;

/// A buffer that grew beyond this is not kept.
const SPARE_BUFFER_BYTES: usize = 1 << 20;

/// Whole lines, on their way to a sink.
#[derive(Debug, Default)]
pub struct Batch {
    /// The lines, each with its line feed.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub lines: u32,
    /// The priority of each, for outputs that take records; empty for those that take bytes.
    pub priorities: Vec<Priority>,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.priorities.clear();
        self.lines = 0;
    }
}

/// A batch that was not taken. It is counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lines} lines dropped: {}", reason.name())]
pub struct Dropped {
    /// Lines lost.
    pub lines: u32,
    /// Why.
    pub reason: DropReason,
}

/// What the sink and its thread share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something came in, or the end was announced.
    work: Condvar,
    /// The thread ended.
    ended: Condvar,
    stats: Arc<SinkStats>,
    /// Bytes that the queue may hold, those being written included.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Batch>,
    /// Bytes in `queue` and in the thread's hands.
    bytes: usize,
    /// Lines in `queue` and in the thread's hands.
    lines: u64,
    spare: Vec<Batch>,
    /// The output refused the last write: why what finds no room is lost.
    failing: Option<DropReason>,
    /// The output is asked to look whether its file is still the one at its path.
    nudged: bool,
    closing: bool,
    /// When nobody will wait any longer, once the end is announced.
    deadline: Option<Instant>,
    /// Lines that were lost when it was: what is lost from then on is lost by the end.
    lost_before: Option<u64>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every unlock, also where a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Above so many bytes in memory, what waits behind a spool goes there.
    fn spill_above(&self) -> usize {
        self.limit / 2
    }

    /// Takes what left the queue off the books and keeps its buffer.
    fn settle(&self, state: &mut State, mut batch: Batch) {
        state.bytes -= batch.bytes.len();
        state.lines -= u64::from(batch.lines);
        batch.clear();
        if state.spare.len() < SPARE_BUFFERS && batch.bytes.capacity() <= SPARE_BUFFER_BYTES {
            state.spare.push(batch);
        }
        self.publish(state);
    }

    fn publish(&self, state: &State) {
        self.stats.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        self.stats.queued_lines.store(state.lines, Ordering::Relaxed);
    }
}

/// What became of the lines at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Lines that were still waiting and are lost; counted under their reason.
    pub lost_lines: u64,
}

/// Says that the thread ended, also where it panicked.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.ended.notify_all();
    }
}

/// One output with its queue and its thread.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// What the thread of an output that takes records has in its hands.
    kept: Option<Arc<Mutex<Kept>>>,
}

impl Sink {
    /// Starts a sink on standard output.
    ///
    /// # Errors
    /// Standard output is closed, or no thread can be started.
    pub fn stdout(name: &str, shape: Shape, limit: usize) -> io::Result<Self> {
        let output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start_at(name, name.to_owned(), output, shape, limit)
    }

    /// Starts a sink that writes to `output`. `name` stands in logs and metrics; `limit` bounds the queue
    /// in bytes.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start<W: io::Write + Send + 'static>(name: &str, output: W, limit: usize) -> io::Result<Self> {
        Self::start_at(name, name.to_owned(), output, Shape::Ringfence, limit)
    }

    /// As [`Sink::start`], for an output whose `place`, such as a path, messages shall name, and which gets the lines in
    /// this shape. Lines for people are taken as they are: their shape is [`Shape::Ringfence`].
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start_at<W: io::Write + Send + 'static>(
        name: &str,
        place: String,
        output: W,
        shape: Shape,
        limit: usize,
    ) -> io::Result<Self> {
        let sink = Self::new(name, limit, None);
        let (shared, name) = (Arc::clone(&sink.shared), Arc::clone(&sink.name));
        sink.spawn(move || worker::Worker::new(shared, name, place, output, Shaper::new(shape)).run())
    }

    /// Starts a sink that delivers records, kept in the spool, if there is one, while the peer is away.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn deliver(
        name: &str,
        output: Box<dyn Deliver>,
        limit: usize,
        spool: Option<Spool>,
    ) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(Kept::new(spool)));
        let sink = Self::new(name, limit, Some(Arc::clone(&kept)));
        let (shared, name) = (Arc::clone(&sink.shared), Arc::clone(&sink.name));
        sink.spawn(move || courier::Courier::new(shared, name, output, kept).run())
    }

    fn new(name: &str, limit: usize, kept: Option<Arc<Mutex<Kept>>>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            stats: Arc::default(),
            limit,
        });
        Self { shared, name: name.into(), kept }
    }

    fn spawn(self, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let guard = EndGuard(Arc::clone(&self.shared));
        thread::Builder::new().name(format!("sink-{}", self.name)).spawn(move || {
            let _guard = guard;
            run();
        })?;
        Ok(self)
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sink's counters.
    pub fn stats(&self) -> &Arc<SinkStats> {
        &self.shared.stats
    }

    /// Bytes that its queue may hold, those being written included.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Whether it takes records: batches tell their priorities then.
    pub fn takes_records(&self) -> bool {
        self.kept.is_some()
    }

    /// An empty batch, a used one if there is one, so that steady work allocates nothing.
    pub fn batch(&self) -> Batch {
        self.shared.lock().spare.pop().unwrap_or_default()
    }

    /// Hands lines over. Never blocks on the output.
    ///
    /// # Errors
    /// [`Dropped`] if there is no room; the lines are lost and counted.
    pub fn offer(&self, batch: Batch) -> Result<(), Dropped> {
        let lines = batch.lines;
        if lines == 0 {
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.lines += u64::from(lines);
        state.bytes += batch.bytes.len();
        let reason = match () {
            () if state.closing => DropReason::Shutdown,
            () if state.bytes <= self.shared.limit => {
                self.shared.publish(&state);
                state.queue.push_back(batch);
                drop(state);
                self.shared.work.notify_one();
                return Ok(());
            }
            () => state.failing.unwrap_or(DropReason::QueueFull),
        };
        self.shared.settle(&mut state, batch);
        drop(state);
        self.shared.stats.drop_lines(reason, lines.into());
        Err(Dropped { lines, reason })
    }

    /// Asks the output to look whether its file is still the one at its path, and to open that anew if not.
    pub fn nudge(&self) {
        self.shared.lock().nudged = true;
        self.shared.work.notify_one();
    }

    /// Announces the end: nothing is taken any more, and what waits has time until the deadline.
    pub fn close(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.deadline = Some(deadline);
        state.lost_before.get_or_insert_with(|| self.lost());
        self.shared.work.notify_one();
    }

    /// Lines that the output, and not its queue, has lost so far.
    fn lost(&self) -> u64 {
        DropReason::ALL[1..].iter().map(|reason| self.stats().dropped_lines(*reason)).sum()
    }

    /// Announces the end and waits until everything is written, at the latest until the deadline. An output
    /// that still blocks then is left behind; it cannot hold the exit back. What it has not taken goes into its spool.
    pub fn flush(&self, deadline: Instant) -> Flushed {
        self.close(deadline);
        let mut state = self.shared.lock();
        let before = state.lost_before.unwrap_or_default();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .ended
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        if state.lines > 0 {
            // The thread may keep its hands on a batch, but nobody will see its end any more.
            let queue = std::mem::take(&mut state.queue);
            let waiting = state.lines;
            drop(state);
            // An output whose disk hangs holds the lock.
            let kept = self.kept.as_ref().and_then(|kept| kept.try_lock().ok());
            let settled = kept.map_or(0, |mut kept| kept.abandon(&queue, self.stats()));
            self.stats().drop_lines(DropReason::Shutdown, waiting.saturating_sub(settled));
        }
        Flushed { lost_lines: self.lost() - before }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
    }
}

#[cfg(test)]
mod tests;
