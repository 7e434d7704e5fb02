//! Who watches live: events and alerts that pass a filter, offered to bounded queues by the path of events.
//!
//! The path asks one flag for each record, and while nobody watches that is all it does. A watcher's queue is bounded
//! in lines and bytes; what finds no room there is counted, and the watcher is told how many there were at the place
//! where they are missing. All watchers together get at most a tenth of the path's time: what could not be looked at
//! for want of it counts as missed, too.

mod hub;

pub use hub::{Hub, Refused, Said, Subscription, Watch};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::alert::{Alert, JsonLines, WallClock, write_event};
use crate::fields::{Enumerate, FieldSource};
use crate::rules::Rule;

/// Lines that wait for one watcher.
const QUEUE_LINES: usize = 1024;
/// Bytes that wait for one watcher.
const QUEUE_BYTES: usize = 1 << 20;
/// Of each such time …
const WINDOW: Duration = Duration::from_millis(100);
/// … watchers get at most so much, but for what one event takes.
const SHARE: Duration = Duration::from_millis(10);

/// What a watcher wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// Every event that is judged by the rules.
    Events,
    /// Every alert that goes to the outputs.
    #[default]
    Alerts,
}

/// A watcher, as the path has it.
#[derive(Debug)]
struct Watcher {
    sight: Sight,
    /// Events that it fits are shown; all, without.
    filter: Option<Arc<Rule>>,
    lines: Lines,
}

impl Watcher {
    fn wants<E: FieldSource + ?Sized>(&self, event: &E) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(event))
    }
}

/// Where a watcher's lines go.
#[derive(Debug)]
struct Lines {
    queue: mpsc::Sender<Said>,
    /// Bytes in the queue.
    queued: Arc<AtomicUsize>,
    /// What it missed since it was last told. The server reads it when the path has ended: what found no room then is
    /// told nevertheless.
    missed: Arc<AtomicU64>,
}

impl Lines {
    /// Whether a line has a chance.
    fn has_room(&self) -> bool {
        self.queue.capacity() > 1 && self.queued.load(Ordering::Relaxed) < QUEUE_BYTES
    }

    /// Tells what was missed, if there is room for that.
    fn tell_missed(&self) {
        if self.missed.load(Ordering::Relaxed) == 0 {
            return;
        }
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 && self.queue.try_send(Said::Missed(missed)).is_err() {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
    }

    fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    fn offer(&self, line: &Arc<[u8]>) {
        self.tell_missed();
        self.queued.fetch_add(line.len(), Ordering::Relaxed);
        // There was room, unless the watcher is gone, which `Watching::tend` finds out, or somebody was quicker.
        let is_told = self.missed.load(Ordering::Relaxed) == 0;
        if !is_told || self.queue.try_send(Said::Line(Arc::clone(line))).is_err() {
            self.queued.fetch_sub(line.len(), Ordering::Relaxed);
            self.miss();
        }
    }
}

/// The path's end: the watchers, and what their lines are made with.
#[derive(Debug, Default)]
pub struct Watching {
    watchers: Vec<Watcher>,
    json: JsonLines,
    clock: WallClock,
    line: Vec<u8>,
    budget: Budget,
}

impl Watching {
    /// Takes over watchers that have come. One load of a flag if there are none.
    pub fn turn(&mut self, hub: &Hub) {
        if hub.waits() {
            hub.take_over(&mut self.watchers);
        }
    }

    /// Whether nobody watches.
    pub fn is_idle(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Once a second: lets go of watchers that have gone, and tells the others what they missed.
    pub fn tend(&mut self) {
        self.watchers.retain(|watcher| !watcher.lines.queue.is_closed());
        self.watchers.iter().for_each(|watcher| watcher.lines.tell_missed());
    }

    /// Offers an event.
    pub fn event<E: Enumerate>(&mut self, event: &E, unix_ns: i64) {
        let clock = &mut self.clock;
        let all = &self.watchers;
        offer(all, Sight::Events, &mut self.budget, &mut self.line, event, |out| {
            write_event(event, unix_ns, clock, out);
        });
    }

    /// Offers an alert.
    pub fn alert<E: FieldSource + ?Sized>(&mut self, alert: &Alert<'_, E>) {
        let json = &mut self.json;
        let all = &self.watchers;
        offer(all, Sight::Alerts, &mut self.budget, &mut self.line, alert.event, |out| {
            json.write(alert, out)
        });
    }

    /// The last event was offered: those who watch are told what they missed, and that this was all.
    pub fn end(&mut self) {
        self.watchers.iter().for_each(|watcher| watcher.lines.tell_missed());
        self.watchers.clear();
    }
}

/// Offers what `write` makes, once, to whom it may concern.
fn offer<E: FieldSource + ?Sized>(
    watchers: &[Watcher],
    sight: Sight,
    budget: &mut Budget,
    buffer: &mut Vec<u8>,
    event: &E,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let mut concerned = watchers.iter().filter(|watcher| watcher.sight == sight).peekable();
    if concerned.peek().is_none() {
        return;
    }
    let start = Instant::now();
    if !budget.may(start) {
        concerned.for_each(|watcher| watcher.lines.miss());
        return;
    }
    let mut write = Some(write);
    let mut line: Option<Arc<[u8]>> = None;
    for watcher in concerned.filter(|watcher| watcher.wants(event)) {
        if !watcher.lines.has_room() {
            watcher.lines.miss();
            continue;
        }
        let line = line.get_or_insert_with(|| {
            buffer.clear();
            if let Some(write) = write.take() {
                write(buffer);
            }
            buffer.as_slice().into()
        });
        watcher.lines.offer(line);
    }
    budget.spend(start.elapsed());
}

/// How much of the path's time was spent on watchers.
#[derive(Debug)]
struct Budget {
    /// When the window began.
    since: Instant,
    spent: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { since: Instant::now(), spent: Duration::ZERO }
    }
}

impl Budget {
    fn may(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Budget { since: now, spent: Duration::ZERO };
        }
        self.spent < SHARE
    }

    fn spend(&mut self, time: Duration) {
        self.spent += time;
    }
}

#[cfg(test)]
mod tests;
