//! Where watchers come in: the server puts them there, the path of events takes them over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::{QUEUE_LINES, Sight, Watcher};
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
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next; `None` when the path has ended.
    pub async fn next(&mut self) -> Option<Said> {
        let said = self.queue.recv().await?;
        Some(self.taken(said))
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

/// The place where watchers wait for the path to take them over.
#[derive(Debug)]
pub struct Hub {
    /// Somebody waits. Cleared only by whoever has the lock.
    waits: AtomicBool,
    /// `None` when the path has ended.
    new: Mutex<Option<Vec<Watcher>>>,
    places: Arc<Semaphore>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            waits: AtomicBool::new(false),
            new: Mutex::new(Some(Vec::new())),
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
        let Watch { sight, filter } = watch;
        let watcher = Watcher { sight, filter, queue, queued: Arc::clone(&queued), missed: 0 };
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = new.as_mut().ok_or(Refused::Stopping)?;
        // While the path stands still, those who give up must not pile up.
        waiting.retain(|watcher| !watcher.queue.is_closed());
        waiting.push(watcher);
        self.waits.store(true, Ordering::Release);
        Ok(Subscription { queue: receiver, queued, _place: place })
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
        watchers.retain(|watcher| !watcher.queue.is_closed());
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
