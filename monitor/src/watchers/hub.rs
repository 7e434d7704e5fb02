//! Where watchers come in: the server puts them there, the path of events takes them over.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::{Lines, QUEUE_LINES, Sight, Watcher};
use crate::rules::Rule;

/// Watchers at once.
pub(super) const MAX_WATCHERS: usize = 8;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line of JSON with its line feed.
    Line(Arc<[u8]>),
    /// So many lines found no room here.
    Missed(u64),
}

/// What somebody wants to watch.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Events or alerts.
    pub sight: Sight,
    /// Only those whose event fits this.
    pub filter: Option<Arc<Rule>>,
}

/// Why somebody cannot watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many as may watch do.
    #[error("{MAX_WATCHERS} watch already, which is as many as may; end one of them")]
    Full,
    /// The path of events has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The server's end of a watcher. Dropped, it gives its place back.
#[derive(Debug)]
pub struct Subscription {
    queue: mpsc::Receiver<Said>,
    queued: Arc<AtomicUsize>,
    missed: Arc<AtomicU64>,
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next; `None` when the path has ended.
    pub async fn next(&mut self) -> Option<Said> {
        match self.queue.recv().await {
            Some(said) => Some(self.taken(said)),
            // There was no room to tell it, and nobody counts on.
            None => {
                Some(self.missed.swap(0, Ordering::Relaxed)).filter(|missed| *missed > 0).map(Said::Missed)
            }
        }
    }

    /// The next, if there is one already.
    pub fn next_now(&mut self) -> Option<Said> {
        let said = self.queue.try_recv().ok()?;
        Some(self.taken(said))
    }

    fn taken(&self, said: Said) -> Said {
        if let Said::Line(line) = &said {
            self.queued.fetch_sub(line.len(), Ordering::Relaxed);
        }
        said
    }
}

/// [`Lines`] of a watcher, as long as there are both it and the path.
#[derive(Debug)]
struct Aside {
    queue: mpsc::WeakSender<Said>,
    queued: Arc<AtomicUsize>,
    missed: Arc<AtomicU64>,
}

impl Aside {
    fn of(Lines { queue, queued, missed }: &Lines) -> Self {
        Aside { queue: queue.downgrade(), queued: Arc::clone(queued), missed: Arc::clone(missed) }
    }

    fn lines(&self) -> Option<Lines> {
        let queue = self.queue.upgrade().filter(|queue| !queue.is_closed())?;
        Some(Lines { queue, queued: Arc::clone(&self.queued), missed: Arc::clone(&self.missed) })
    }
}

/// The place where watchers wait for the path to take them over.
#[derive(Debug)]
pub struct Hub {
    /// Somebody waits. Cleared only by whoever has the lock.
    waits: AtomicBool,
    /// `None` when the path has ended.
    new: Mutex<Option<Vec<Watcher>>>,
    /// Where those who watch alerts are told what does not come by the path. Nobody's channel is kept open by it.
    aside: Mutex<Vec<Aside>>,
    places: Arc<Semaphore>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            waits: AtomicBool::new(false),
            new: Mutex::new(Some(Vec::new())),
            aside: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }
    }
}

impl Hub {
    /// A watcher comes in. It sees each event that the path takes up after this returned.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn watch(&self, watch: Watch) -> Result<Subscription, Refused> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refused::Full)?;
        // Room for one more line: what was missed must be told before the next.
        let (queue, receiver) = mpsc::channel(QUEUE_LINES + 1);
        let queued = Arc::<AtomicUsize>::default();
        let missed = Arc::<AtomicU64>::default();
        let Watch { sight, filter } = watch;
        let lines = Lines { queue, queued: Arc::clone(&queued), missed: Arc::clone(&missed) };
        if sight == Sight::Alerts {
            let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
            aside.retain(|aside| aside.lines().is_some());
            aside.push(Aside::of(&lines));
        }
        let watcher = Watcher { sight, filter, lines };
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = new.as_mut().ok_or(Refused::Stopping)?;
        // While the path stands still, those who give up must not pile up.
        waiting.retain(|watcher| !watcher.lines.queue.is_closed());
        waiting.push(watcher);
        self.waits.store(true, Ordering::Release);
        Ok(Subscription { queue: receiver, queued, missed, _place: place })
    }

    /// Tells everybody who watches alerts of one that belongs to no event, whatever their filter: while Ringfence is blind,
    /// it is not for want of events that nothing comes. Past the path, which may be what stands still.
    pub fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watchers = aside.iter().filter_map(Aside::lines).peekable();
        if watchers.peek().is_none() {
            return;
        }
        let mut line = Vec::new();
        write(&mut line);
        let line = line.into();
        for lines in watchers {
            if lines.has_room() { lines.offer(&line) } else { lines.miss() }
        }
    }

    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Takes over who waits. Never blocks: if somebody is just coming in, the next record finds them.
    #[cold]
    pub(super) fn take_over(&self, watchers: &mut Vec<Watcher>) {
        let Ok(mut new) = self.new.try_lock() else { return };
        self.waits.store(false, Ordering::Release);
        // Those who have gone make room for those who come, however often the path ticks.
        watchers.retain(|watcher| !watcher.lines.queue.is_closed());
        watchers.extend(new.iter_mut().flat_map(|new| new.drain(..)));
    }

    /// The path has ended: nobody comes in any more, and those who wait are told so.
    pub fn close(&self) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits until all watchers have gone, at most so long.
    pub async fn ended(&self, patience: Duration) {
        // Both mean the same: it is time to go.
        let _ = timeout(patience, self.places.acquire_many(MAX_WATCHERS as u32)).await;
    }
}
