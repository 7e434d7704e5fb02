//! The thread of an output that takes records: batches, tries again, keeps on disk what the peer cannot take now.
//!
//! Order is kept: what is in the spool goes before what is in its hands, and that before the queue. While the peer is
//! away, everything moves to the spool, if there is one; otherwise it waits in memory while there is room. What was
//! accepted is lost only if the peer refuses it, or at the end if there is no spool, or no room in it.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kept::{Kept, Load, MAX_BYTES, MAX_RECORDS, publish};
use super::spool::{AppendError, Recovered};
use super::{Batch, Deliver, DropReason, Fate, Record, Shared, Undelivered};

/// How soon a peer that is away is tried again, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Longer than this no peer can ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How soon the peer is tried again when the end was announced.
const LAST_TRIES: Duration = Duration::from_millis(250);

/// How soon a spool that takes no writes is tried again.
const SPOOL_PAUSE: Duration = Duration::from_secs(5);

/// A failing output is named in the log at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// What to do next.
enum Work {
    /// Deliver what is in the spool.
    Spooled,
    /// Deliver what is in the hand.
    Hand,
    /// Move these, behind what is in the hand, to the spool.
    Spill(VecDeque<Batch>),
}

/// How far an attempt came.
enum Attempt {
    All,
    /// The peer takes what it is given, slowly: it goes on when all else was seen to.
    Partly,
    Later,
    Abandoned,
}

pub(super) struct Courier {
    shared: Arc<Shared>,
    name: Arc<str>,
    output: Box<dyn Deliver>,
    kept: Arc<Mutex<Kept>>,
    has_spool: bool,
    /// Records in the spool.
    spooled: u64,
    /// Something is in the hand.
    holds: bool,
    back_off: Duration,
    /// When the peer is tried again.
    not_before: Option<Instant>,
    /// When the spool is written to again.
    spool_not_before: Option<Instant>,
    last_log: Option<Instant>,
    /// The failure at hand was named in the log.
    named: bool,
    last_refusal: Option<Instant>,
    last_spool_log: Option<Instant>,
}

impl Courier {
    pub(super) fn new(
        shared: Arc<Shared>,
        name: Arc<str>,
        output: Box<dyn Deliver>,
        kept: Arc<Mutex<Kept>>,
    ) -> Self {
        Courier {
            shared,
            name,
            output,
            kept,
            has_spool: false,
            spooled: 0,
            holds: false,
            back_off: BACK_OFF.0,
            not_before: None,
            spool_not_before: None,
            last_log: None,
            named: false,
            last_refusal: None,
            last_spool_log: None,
        }
    }

    pub(super) fn run(mut self) {
        self.recover();
        while let Some(work) = self.next() {
            let attempt = match work {
                Work::Spooled => self.deliver_spooled(),
                Work::Hand => self.deliver_hand(),
                Work::Spill(queue) => {
                    self.spill(queue);
                    continue;
                }
            };
            match attempt {
                Attempt::All | Attempt::Partly => {}
                Attempt::Later => self.keep(),
                Attempt::Abandoned => return,
            }
        }
        if let Some(spool) = &mut self.kept().spool {
            spool.sync();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // It is whole at every unlock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what an earlier process left in the spool.
    fn recover(&mut self) {
        let kept = Arc::clone(&self.kept);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spool) = &mut kept.spool else { return };
        self.has_spool = true;
        match spool.recover() {
            Ok(Recovered { records, torn_bytes, lost }) => {
                self.spooled = spool.records();
                if records > 0 {
                    tracing::info!(
                        output = &*self.name,
                        records,
                        "alerts of an earlier run wait in the spool"
                    );
                }
                if lost > 0 {
                    self.shared.stats.drop_lines(DropReason::SpoolError, lost);
                    tracing::error!(
                        output = &*self.name,
                        lost,
                        torn_bytes,
                        "the spool is damaged: alerts in it are lost, at least so many"
                    );
                }
            }
            Err(error) => self.name_spool_failure(&error),
        }
        publish(spool, &self.shared.stats);
    }

    /// Waits until there is something to do; none means that the end was announced and nothing is left to do here.
    fn next(&mut self) -> Option<Work> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            let now = Instant::now();
            let away = self.not_before.filter(|until| *until > now);
            let spool_rests = self.spool_not_before.is_some_and(|until| until > now);
            let waiting = self.holds || !state.queue.is_empty();
            // While the peer is away, when memory becomes short, and what is behind the spool at the end. Without a spool
            // behind it a slow peer has until the end what is in memory; then the rest is put there.
            let spills = away.is_some()
                || state.closing && self.spooled > 0
                || !state.closing && state.bytes > self.shared.spill_above();
            if self.has_spool && waiting && spills && !spool_rests {
                return Some(Work::Spill(std::mem::take(&mut state.queue)));
            }
            if away.is_none() {
                if self.spooled > 0 && !state.closing {
                    return Some(Work::Spooled);
                }
                if self.spooled == 0 && waiting {
                    if !self.holds {
                        let load = Load::take(&mut state.queue);
                        drop(state);
                        self.kept().hand = Some((Arc::new(load), 0));
                        self.holds = true;
                    }
                    return Some(Work::Hand);
                }
            }
            let mut until = away;
            if state.closing {
                let over = state.deadline.is_none_or(|deadline| deadline <= now);
                // What is in the spool stays there; what could not be put there is counted by who waits for the end.
                if !waiting || self.spooled > 0 || over {
                    return None;
                }
                let soon = now + LAST_TRIES;
                until = until.map(|until| until.min(soon));
                self.not_before = until;
            }
            state = match until.or(self.spool_not_before.filter(|_| spool_rests)) {
                None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => shared
                    .work
                    .wait_timeout(state, until.saturating_duration_since(now))
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state),
            };
        }
    }

    /// Delivers what is in the hand, and clears it away once that is done.
    fn deliver_hand(&mut self) -> Attempt {
        let Some((load, done)) = self.kept().hand.clone() else {
            self.holds = false;
            return Attempt::All;
        };
        let records = load.records();
        let rest = records.get(done..).unwrap_or_default();
        let attempt = self.attempt(rest, |kept, count| {
            if let Some((_, done)) = &mut kept.hand {
                *done += count;
            }
        });
        drop(records);
        if let Attempt::All = attempt {
            self.kept().hand = None;
            self.holds = false;
            self.settle(load);
        }
        attempt
    }

    fn deliver_spooled(&mut self) -> Attempt {
        let mut kept = self.kept();
        let Some(spool) = &mut kept.spool else { return Attempt::All };
        let read = spool.read(MAX_RECORDS, MAX_BYTES);
        let lost = spool.take_lost();
        let left = spool.records();
        publish(spool, &self.shared.stats);
        drop(kept);
        self.spooled = left;
        if lost > 0 {
            self.shared.stats.drop_lines(DropReason::SpoolError, lost);
            tracing::error!(output = &*self.name, lost, "the spool is damaged: alerts in it are lost");
        }
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
                self.name_spool_failure(&error);
                self.not_before = Some(Instant::now() + SPOOL_PAUSE);
                return Attempt::All;
            }
        };
        let attempt = self.attempt(&read.records(), |kept, count| {
            if let Some(spool) = &mut kept.spool {
                spool.advance(count);
            }
        });
        let mut kept = self.kept();
        if let Some(spool) = &mut kept.spool {
            publish(spool, &self.shared.stats);
            let left = spool.records();
            drop(kept);
            self.spooled = left;
        }
        attempt
    }

    /// Offers records to the peer until all are settled or it has to be tried later. `settled` notes the progress.
    fn attempt(&mut self, records: &[Record<'_>], settled: impl Fn(&mut Kept, usize)) -> Attempt {
        let mut rest = records;
        while !rest.is_empty() {
            let outcome = self.output.deliver(rest);
            let (taken, missed) = match outcome {
                Ok(()) => (rest.len(), None),
                Err(Undelivered { taken, fate, cause }) => (taken.min(rest.len() - 1), Some((fate, cause))),
            };
            let (done, left) = rest.split_at(taken);
            rest = left;
            let stats = &self.shared.stats;
            stats.wrote(taken as u64, done.iter().map(|record| record.line.len() as u64).sum());
            let mut count = taken;
            if let Some((Fate::Refused, _)) = missed {
                stats.drop_lines(DropReason::Rejected, 1);
                rest = rest.get(1..).unwrap_or_default();
                count += 1;
            }
            let mut kept = self.kept();
            if kept.abandoned {
                return Attempt::Abandoned;
            }
            settled(&mut kept, count);
            drop(kept);
            if taken > 0 {
                self.recovered();
            }
            let Some((fate, cause)) = missed else { continue };
            if fate != Fate::Unasked {
                self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
            }
            match fate {
                Fate::Unasked => return Attempt::Partly,
                Fate::Refused => self.name_refusal(&cause),
                Fate::Retry { after } => {
                    self.put_off(after, &cause);
                    return Attempt::Later;
                }
            }
        }
        // Also refusals are answers.
        self.recovered();
        Attempt::All
    }

    /// Sets when the peer is tried again: doubled each time, less up to half of it, so that many daemons do not come back
    /// at once; later if the peer asked for that.
    fn put_off(&mut self, after: Option<Duration>, cause: &str) {
        // Each has keys of its own.
        let share = RandomState::new().build_hasher().finish();
        let half = self.back_off / 2;
        let jitter = half.mul_f64((share % 1024) as f64 / 1024.0);
        let pause = (half + jitter).max(after.unwrap_or_default().min(MAX_RETRY_AFTER));
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        self.not_before = Some(Instant::now() + pause);
        if self.last_log.is_none_or(|last| last.elapsed() >= LOG_PERIOD) {
            self.last_log = Some(Instant::now());
            self.named = true;
            let waiting = self.shared.stats.queued_lines() + self.shared.stats.spooled_lines();
            let next_try_ms = pause.as_millis() as u64;
            tracing::error!(
                output = &*self.name,
                cause,
                waiting,
                next_try_ms,
                "alerts cannot be delivered; they are kept while there is room"
            );
        }
        let mut state = self.shared.lock();
        state.failing.get_or_insert(DropReason::WriteError);
    }

    /// After an attempt that is to be repeated: to the spool with what is in the hand.
    fn keep(&mut self) {
        if self.has_spool && self.holds {
            self.spill(VecDeque::new());
        }
    }

    /// Moves what is in the hand, then these, to the spool. What it does not take stays in memory.
    fn spill(&mut self, mut queue: VecDeque<Batch>) {
        let arc = Arc::clone(&self.kept);
        let mut kept = arc.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { spool, hand, .. } = &mut *kept;
        let Some(spool) = spool else { return };
        let mut failed = None;
        let mut settled = None;
        if let Some((load, done)) = hand {
            for (batch, skip) in load.rest(*done).collect::<Vec<_>>() {
                match spool.append(batch, skip) {
                    Ok(()) => *done += batch.lines as usize - skip,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if failed.is_none() {
                settled = hand.take().map(|(load, _)| load);
            }
        }
        let mut moved = Vec::new();
        while failed.is_none()
            && let Some(batch) = queue.pop_front()
        {
            match spool.append(&batch, 0) {
                Ok(()) => moved.push(batch),
                Err(error) => {
                    failed = Some(error);
                    queue.push_front(batch);
                }
            }
        }
        publish(spool, &self.shared.stats);
        self.spooled = spool.records();
        self.holds = hand.is_some();
        drop(kept);
        if let Some(load) = settled {
            self.settle(load);
        }
        let mut state = self.shared.lock();
        for batch in moved {
            self.shared.settle(&mut state, batch);
        }
        while let Some(batch) = queue.pop_back() {
            state.queue.push_front(batch);
        }
        state.failing = match &failed {
            None => state.failing.map(|_| DropReason::WriteError),
            Some(AppendError::Full) => Some(DropReason::SpoolFull),
            Some(AppendError::Io(_)) => Some(DropReason::SpoolError),
        };
        drop(state);
        self.spool_not_before = failed.as_ref().map(|_| Instant::now() + SPOOL_PAUSE);
        match failed {
            None => {}
            Some(AppendError::Full) if self.spool_log_is_due() => {
                tracing::error!(
                    output = &*self.name,
                    "the spool is full; what memory has no room for is lost"
                );
            }
            Some(AppendError::Full) => {}
            Some(AppendError::Io(error)) => self.name_spool_failure(&error),
        }
    }

    /// Takes what is delivered or in the spool off the books.
    fn settle(&self, load: Arc<Load>) {
        let mut state = self.shared.lock();
        match Arc::try_unwrap(load) {
            Ok(load) => load.0.into_iter().for_each(|batch| self.shared.settle(&mut state, batch)),
            // Somebody else has it, who has seen that the end came.
            Err(load) => {
                state.lines -= load.lines() as u64;
                state.bytes -= load.0.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                self.shared.publish(&state);
            }
        }
    }

    fn recovered(&mut self) {
        self.not_before = None;
        self.back_off = BACK_OFF.0;
        if std::mem::take(&mut self.named) {
            let waiting = self.shared.stats.queued_lines() + self.shared.stats.spooled_lines();
            tracing::info!(output = &*self.name, waiting, "alerts are delivered again");
        }
        // A full spool is still full.
        let mut state = self.shared.lock();
        state.failing = state.failing.filter(|_| self.spool_not_before.is_some());
    }

    fn name_refusal(&mut self, cause: &str) {
        if self.last_refusal.is_none_or(|last| last.elapsed() >= LOG_PERIOD) {
            self.last_refusal = Some(Instant::now());
            let rejected = self.shared.stats.dropped_lines(DropReason::Rejected);
            tracing::error!(
                output = &*self.name,
                cause,
                rejected,
                "the peer refuses an alert; it is skipped"
            );
        }
    }

    fn spool_log_is_due(&mut self) -> bool {
        let due = self.last_spool_log.is_none_or(|last| last.elapsed() >= LOG_PERIOD);
        if due {
            self.last_spool_log = Some(Instant::now());
        }
        due
    }

    fn name_spool_failure(&mut self, error: &std::io::Error) {
        if self.spool_log_is_due() {
            tracing::error!(
                output = &*self.name,
                cause = %error,
                "the spool cannot be used; alerts wait in memory while there is room"
            );
        }
    }
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
