//! What the thread of an output with a peer has taken out of its queue, and the spool behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::spool::Spool;
use super::{Batch, Record, SinkStats};
use crate::rules::Priority;

/// Records that are delivered by one call, at most.
pub(super) const MAX_RECORDS: usize = 256;

/// Bytes of lines after which no more are put into one call; a single line may be longer.
pub(super) const MAX_BYTES: usize = 256 << 10;

/// Batches that were taken out of the queue together.
#[derive(Debug, Default)]
pub(super) struct Load(pub(super) Vec<Batch>);

impl Load {
    /// Takes as many batches as one call shall deliver, at least one.
    pub(super) fn take(queue: &mut VecDeque<Batch>) -> Self {
        let (mut load, mut lines, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = queue.front() {
            lines += batch.lines as usize;
            bytes += batch.bytes.len();
            if !load.is_empty() && (lines > MAX_RECORDS || bytes > MAX_BYTES) {
                break;
            }
            load.extend(queue.pop_front());
        }
        Load(load)
    }

    pub(super) fn lines(&self) -> usize {
        self.0.iter().map(|batch| batch.lines as usize).sum()
    }

    pub(super) fn records(&self) -> Vec<Record<'_>> {
        self.0.iter().flat_map(records).collect()
    }

    /// The batches behind the first `done` records, each with how many of its records are among those.
    pub(super) fn rest(&self, done: usize) -> impl Iterator<Item = (&Batch, usize)> {
        let mut before = 0;
        self.0.iter().filter_map(move |batch| {
            let skip = done.saturating_sub(before);
            before += batch.lines as usize;
            (skip < batch.lines as usize).then_some((batch, skip))
        })
    }
}

/// The records of a batch.
pub(super) fn records(batch: &Batch) -> impl Iterator<Item = Record<'_>> {
    let lines = batch.bytes.split(|byte| *byte == b'\n');
    let priorities = batch.priorities.iter().copied().chain(std::iter::repeat(Priority::Debug));
    let records = lines.zip(priorities).map(|(line, priority)| Record { line, priority });
    records.take(batch.lines as usize)
}

/// What the thread has taken out of the queue and not yet delivered. The lock is never held while the peer is spoken to,
/// so that at the end others can put it into the spool.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) spool: Option<Spool>,
    /// Out of the queue, and how many records of it are delivered or in the spool.
    pub(super) hand: Option<(Arc<Load>, usize)>,
    /// The end has come, and others have taken what there was.
    pub(super) abandoned: bool,
}

impl Kept {
    pub(super) fn new(spool: Option<Spool>) -> Self {
        Kept { spool, hand: None, abandoned: false }
    }

    /// Puts everything into the spool, for the thread is stuck. Returns how many lines need no more care: those in the
    /// spool, and those that were delivered.
    pub(super) fn abandon(&mut self, queue: &VecDeque<Batch>, stats: &SinkStats) -> u64 {
        self.abandoned = true;
        let (load, done) = self.hand.take().unwrap_or_default();
        let mut settled = done as u64;
        if let Some(spool) = &mut self.spool {
            for (batch, skip) in load.rest(done).chain(queue.iter().map(|batch| (batch, 0))) {
                if spool.append(batch, skip).is_ok() {
                    settled += u64::from(batch.lines) - skip as u64;
                }
            }
            spool.sync();
            publish(spool, stats);
        }
        settled
    }
}

/// Shows how much waits on disk.
pub(super) fn publish(spool: &Spool, stats: &SinkStats) {
    stats.spooled_lines.store(spool.records(), Ordering::Relaxed);
    stats.spooled_bytes.store(spool.bytes(), Ordering::Relaxed);
}
