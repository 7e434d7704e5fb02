//! A sink's thread: takes batches from the queue and writes them, whatever the output does.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::alert::Shaper;
use crate::sink::{Batch, DropReason, Shared};

/// A failing output is named in the log at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// How soon a failing output is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long to wait for an output in non-blocking mode that is full.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Worker<W> {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// Where the output is, for messages: a path, or the name again.
    place: String,
    output: W,
    /// Makes other shapes of lines.
    shaper: Shaper,
    /// The batch at hand in its shape, if that is another.
    shaped: Vec<u8>,
    /// End of a line whose beginning the output has taken: the next thing that it must see.
    torn: Vec<u8>,
    retry: Duration,
    last_log: Option<Instant>,
    /// Lines dropped for a write error when the failure was last named.
    lost_before: u64,
}

/// Bytes that were taken before the write failed.
struct Failed {
    taken: usize,
    error: io::Error,
}

impl<W: io::Write> Worker<W> {
    pub(super) fn new(shared: Arc<Shared>, name: Arc<str>, place: String, output: W, shaper: Shaper) -> Self {
        let (torn, shaped) = (Vec::new(), Vec::new());
        let (retry, last_log, lost_before) = (RETRY.0, None, 0);
        Self { shared, name, place, output, shaper, shaped, torn, retry, last_log, lost_before }
    }

    pub(super) fn run(mut self) {
        while let Some(batch) = self.next() {
            self.deliver(batch);
        }
        // What fails now was counted when it was written.
        let _ = self.output.flush();
    }

    /// Waits for a batch; none means that the end was announced and the queue is empty.
    fn next(&mut self) -> Option<Batch> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if std::mem::take(&mut state.nudged) {
                drop(state);
                if let Err(error) = self.output.flush() {
                    self.name_failure(&error);
                }
                state = shared.lock();
            }
            if let Some(batch) = state.queue.pop_front() {
                return Some(batch);
            }
            if state.closing {
                return None;
            }
            state = shared.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Writes a batch. A full disk is waited for while the queue has room behind it; a reader that went
    /// away does not come back for old lines, so they are dropped.
    fn deliver(&mut self, batch: Batch) {
        let mut shaped = std::mem::take(&mut self.shaped);
        shaped.clear();
        if self.shaper.changes() {
            self.shaper.push_lines(&batch.bytes, &mut shaped);
        }
        let bytes = if self.shaper.changes() { &shaped } else { &batch.bytes };
        let mut done = 0;
        let mut lines = u64::from(batch.lines);
        loop {
            let Err(failed) = self.write_from(bytes, &mut done, &mut lines) else {
                self.recovered();
                break;
            };
            self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
            let closing = self.pause_after(&failed);
            if closing || failed.kind() == ErrorKind::BrokenPipe {
                // What the output has seen half of is kept, the rest is lost.
                if done > 0 && bytes[done - 1] != b'\n' {
                    let rest = &bytes[done..];
                    let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
                    self.torn.extend_from_slice(&rest[..end]);
                }
                self.shared.stats.drop_lines(DropReason::WriteError, lines);
                break;
            }
        }
        self.shaped = shaped;
        let mut state = self.shared.lock();
        self.shared.settle(&mut state, batch);
    }

    /// Completes a torn line, then goes on with the batch from `done`. `lines` are those not yet written.
    fn write_from(&mut self, bytes: &[u8], done: &mut usize, lines: &mut u64) -> io::Result<()> {
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            if let Err(failed) = self.write_all(&torn) {
                self.torn = torn[failed.taken..].to_vec();
                return Err(failed.error);
            }
        }
        let (taken, outcome) = match self.write_all(&bytes[*done..]) {
            Ok(()) => (bytes.len() - *done, Ok(())),
            Err(failed) => (failed.taken, Err(failed.error)),
        };
        let whole = match outcome {
            Ok(()) => *lines,
            Err(_) => bytes[*done..*done + taken].iter().filter(|byte| **byte == b'\n').count() as u64,
        };
        *done += taken;
        *lines = lines.saturating_sub(whole);
        self.shared.stats.written_lines.fetch_add(whole, Ordering::Relaxed);
        outcome
    }

    /// As `Write::write_all`, but says how far it came.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.output.write(&bytes[taken..]) {
                Ok(0) => return Err(Failed { taken, error: ErrorKind::WriteZero.into() }),
                Ok(n) => {
                    taken += n;
                    self.shared.stats.written_bytes.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(WOULD_BLOCK_PAUSE);
                }
                Err(error) => return Err(Failed { taken, error }),
            }
        }
        Ok(())
    }

    /// Names the failure in the log, if it is time to, and waits a little. True if the end was announced:
    /// then there is no later.
    fn pause_after(&mut self, error: &io::Error) -> bool {
        self.name_failure(error);
        let mut state = self.shared.lock();
        state.failing = Some(DropReason::WriteError);
        if state.closing || error.kind() == ErrorKind::BrokenPipe {
            return state.closing;
        }
        let until = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        // New batches wake the thread too; they are no reason to try again earlier. A nudge is: room was made.
        while !state.closing && !state.nudged {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .work
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        let nudged = std::mem::take(&mut state.nudged);
        drop(state);
        if nudged {
            // The write that follows says whether it helped.
            let _ = self.output.flush();
        }
        // The end announced during the pause still leaves one attempt.
        false
    }

    fn name_failure(&mut self, error: &io::Error) {
        if self.last_log.is_none_or(|last| last.elapsed() >= LOG_PERIOD) {
            self.last_log = Some(Instant::now());
            let lost = self.shared.stats.dropped_lines(DropReason::WriteError);
            let fate = match error.kind() {
                ErrorKind::BrokenPipe => "they are lost",
                _ => "they wait in memory while there is room",
            };
            tracing::error!(
                output = &*self.name,
                place = self.place,
                cause = %error,
                lost_lines = lost - self.lost_before,
                remedy = remedy(error),
                "alerts cannot be written; {fate}",
            );
            self.lost_before = lost;
        }
    }

    fn recovered(&mut self) {
        if self.last_log.is_none() {
            return;
        }
        let lost = self.shared.stats.dropped_lines(DropReason::WriteError);
        tracing::info!(
            output = &*self.name,
            lost_lines = lost - self.lost_before,
            "alerts are written again"
        );
        self.lost_before = lost;
        self.last_log = None;
        self.retry = RETRY.0;
        self.shared.lock().failing = None;
    }
}

/// What an operator can do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on the file system of the alert file, or move alert_file to another"
        }
        ErrorKind::BrokenPipe => "the program that reads the alerts has ended; start it again with ringfence",
        ErrorKind::ReadOnlyFilesystem => "mount the file system of the alert file writable",
        _ => "check the output; writing is tried again on its own",
    }
}
