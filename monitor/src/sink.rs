//! Where alerts leave: standard output and the alert file.
//!
//! Each sink has a queue bounded in bytes and a thread of its own, so that a slow or dead reader never
//! holds detection back. What does not fit is dropped and counted by reason. A write that ends inside a
//! line is completed by the next one, so no line is ever torn in two.

mod deliver;
mod file;
mod worker;

pub use deliver::{Deliver, Fate, Record, Undelivered};
pub use file::{FileError, open_alert_file};

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

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
}

/// Why lines were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The reader is slower than the alerts come.
    QueueFull,
    /// The output takes no writes: disk full, pipe closed.
    WriteError,
    /// Ringfence ended before the output took them.
    Shutdown,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [DropReason; 3] = [DropReason::QueueFull, DropReason::WriteError, DropReason::Shutdown];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::WriteError => "write_error",
            DropReason::Shutdown => "shutdown",
        }
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

/// A sink's counters. They only grow; a reader may see one ahead of another.
#[derive(Debug, Default)]
pub struct SinkStats {
    written_lines: AtomicU64,
    written_bytes: AtomicU64,
    dropped_lines: [AtomicU64; DropReason::ALL.len()],
    queued_bytes: AtomicU64,
    queued_lines: AtomicU64,
    failures: AtomicU64,
}

impl SinkStats {
    /// Lines that the output took whole.
    pub fn written_lines(&self) -> u64 {
        self.written_lines.load(Ordering::Relaxed)
    }

    /// Bytes that the output took.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Lines dropped for this reason.
    pub fn dropped_lines(&self, reason: DropReason) -> u64 {
        self.dropped_lines[reason as usize].load(Ordering::Relaxed)
    }

    /// Bytes that wait or are being written.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Lines that wait or are being written.
    pub fn queued_lines(&self) -> u64 {
        self.queued_lines.load(Ordering::Relaxed)
    }

    /// Writes that ended in an error.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn drop_lines(&self, reason: DropReason, lines: u64) {
        self.dropped_lines[reason as usize].fetch_add(lines, Ordering::Relaxed);
    }
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
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Batch>,
    /// Bytes in `queue` and in the thread's hands.
    bytes: usize,
    /// Lines in `queue` and in the thread's hands.
    lines: u64,
    spare: Vec<Vec<u8>>,
    /// The output refused the last write.
    failing: bool,
    closing: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every unlock, also where a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what left the queue off the books and keeps its buffer.
    fn settle(&self, state: &mut State, bytes: usize, lines: u64, mut buffer: Vec<u8>) {
        state.bytes -= bytes;
        state.lines -= lines;
        buffer.clear();
        if state.spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BUFFER_BYTES {
            state.spare.push(buffer);
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

/// One output with its queue and its thread.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    name: &'static str,
    limit: usize,
}

impl Sink {
    /// Starts a sink on standard output.
    ///
    /// # Errors
    /// Standard output is closed, or no thread can be started.
    pub fn stdout(limit: usize) -> io::Result<Self> {
        let output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start("stdout", output, limit)
    }

    /// Starts a sink that writes to `output`. `name` stands in logs and metrics; `limit` bounds the queue
    /// in bytes.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start<W: io::Write + Send + 'static>(
        name: &'static str,
        output: W,
        limit: usize,
    ) -> io::Result<Self> {
        Self::start_at(name, name.to_owned(), output, limit)
    }

    /// As [`Sink::start`], for an output whose `place`, such as a path, messages shall name.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start_at<W: io::Write + Send + 'static>(
        name: &'static str,
        place: String,
        output: W,
        limit: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            stats: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || worker::Worker::new(theirs, name, place, output).run())?;
        Ok(Self { shared, name, limit })
    }

    /// The sink's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The sink's counters.
    pub fn stats(&self) -> &Arc<SinkStats> {
        &self.shared.stats
    }

    /// An empty buffer, a used one if there is one, so that steady work allocates nothing.
    pub fn buffer(&self) -> Vec<u8> {
        self.shared.lock().spare.pop().unwrap_or_default()
    }

    /// Hands lines over. Never blocks on the output.
    ///
    /// # Errors
    /// [`Dropped`] if there is no room; the lines are lost and counted.
    pub fn offer(&self, batch: Batch) -> Result<(), Dropped> {
        if batch.lines == 0 {
            return Ok(());
        }
        let Batch { bytes, lines } = batch;
        let mut state = self.shared.lock();
        state.lines += u64::from(lines);
        state.bytes += bytes.len();
        let reason = match () {
            () if state.closing => DropReason::Shutdown,
            () if state.bytes <= self.limit => {
                self.shared.publish(&state);
                state.queue.push_back(Batch { bytes, lines });
                drop(state);
                self.shared.work.notify_one();
                return Ok(());
            }
            () if state.failing => DropReason::WriteError,
            () => DropReason::QueueFull,
        };
        let len = bytes.len();
        self.shared.settle(&mut state, len, lines.into(), bytes);
        drop(state);
        self.shared.stats.drop_lines(reason, lines.into());
        Err(Dropped { lines, reason })
    }

    /// Announces the end and waits until everything is written, at the latest until the deadline. An output
    /// that still blocks then is left behind; it cannot hold the exit back.
    pub fn flush(&self, deadline: Instant) -> Flushed {
        let lost = || DropReason::ALL[1..].iter().map(|r| self.stats().dropped_lines(*r)).sum::<u64>();
        let before = lost();
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.work.notify_one();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The thread keeps its hands on a batch, but nobody will see its end any more.
                self.stats().drop_lines(DropReason::Shutdown, state.lines);
                break;
            }
            state = self
                .shared
                .ended
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        Flushed { lost_lines: lost() - before }
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
