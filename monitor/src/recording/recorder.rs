//! From the path of events to a recording: blocks through a bounded queue to a thread that compresses and writes.
//!
//! The path never waits. What finds no room is dropped and counted, and the next block says how many there were.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::encode::{BlockEncoder, RawBlock};
use super::file::RecordingFile;
use super::ring::Ring;
use crate::event::Event;
use crate::event_type::EventType;
use crate::fields::Enumerate;
use crate::metrics::{MetricSpec, Samples, Source};

/// Blocks that may wait for the thread; about 8 MiB, at most 32.
const QUEUE: usize = 32;
/// An event is in its file after so long at the latest, if the disk takes it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why an event was not recorded, as the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordDrop {
    /// The disk is slower than the events come.
    QueueFull,
    /// The disk takes no writes: it is full, say.
    WriteError,
    /// The event is larger than a block may be.
    TooLarge,
    /// The recording has the size that was asked for.
    Limit,
    /// Ringfence ended before the disk took it.
    Shutdown,
}

impl RecordDrop {
    /// Every reason, in the order of their numbers.
    pub const ALL: [RecordDrop; 5] = [
        RecordDrop::QueueFull,
        RecordDrop::WriteError,
        RecordDrop::TooLarge,
        RecordDrop::Limit,
        RecordDrop::Shutdown,
    ];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            RecordDrop::QueueFull => "queue_full",
            RecordDrop::WriteError => "write_error",
            RecordDrop::TooLarge => "too_large",
            RecordDrop::Limit => "limit",
            RecordDrop::Shutdown => "shutdown",
        }
    }
}

/// What became of events. The counters only grow; a reader may see one ahead of another.
#[derive(Debug, Default)]
pub struct RecordStats {
    recorded: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; RecordDrop::ALL.len()],
    /// Events in blocks that wait or are being written.
    queued: AtomicU64,
}

impl RecordStats {
    /// Events that are in a file.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Events dropped for this reason.
    pub fn dropped(&self, reason: RecordDrop) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    fn drop_events(&self, reason: RecordDrop, events: u64) {
        self.dropped[reason as usize].fetch_add(events, Ordering::Relaxed);
    }
}

/// Samples of a recorder; all are 0 where nothing is recorded.
#[derive(Debug, Default)]
pub struct RecordSource(pub Arc<RecordStats>);

impl Source for RecordSource {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        vec![
            &crate::metrics::RECORDED_EVENTS,
            &crate::metrics::RECORD_DROPPED,
            &crate::metrics::RECORDED_BYTES,
        ]
    }

    fn sample(&self, out: &mut Samples) {
        out.push(&crate::metrics::RECORDED_EVENTS, &[], self.0.recorded());
        out.push(&crate::metrics::RECORDED_BYTES, &[], self.0.bytes());
        for reason in RecordDrop::ALL {
            out.push(&crate::metrics::RECORD_DROPPED, &[reason.name()], self.0.dropped(reason));
        }
    }
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is written.
    Yes,
    /// There is no more room, and will be none.
    Full,
}

/// Where blocks go.
pub trait Store: Send {
    /// Appends a block.
    ///
    /// # Errors
    /// It is not written; a later one may be.
    fn append(&mut self, block: &[u8]) -> io::Result<Stored>;

    /// Makes everything safe from a loss of power.
    ///
    /// # Errors
    /// The disk's.
    fn sync(&mut self) -> io::Result<()>;

    /// What it is, for messages.
    fn place(&self) -> String;
}

/// One file, with a bound.
#[derive(Debug)]
pub struct Single {
    file: RecordingFile,
    /// What was there before counts.
    max_bytes: u64,
}

impl Single {
    /// A file that grows to `max_bytes` at most.
    pub fn new(file: RecordingFile, max_bytes: u64) -> Self {
        Single { file, max_bytes }
    }
}

impl Store for Single {
    fn append(&mut self, block: &[u8]) -> io::Result<Stored> {
        if self.file.len() + block.len() as u64 > self.max_bytes {
            return Ok(Stored::Full);
        }
        self.file.append(block)?;
        Ok(Stored::Yes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn place(&self) -> String {
        self.file.path().display().to_string()
    }
}

impl Store for Ring {
    fn append(&mut self, block: &[u8]) -> io::Result<Stored> {
        Ring::append(self, block)?;
        Ok(Stored::Yes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ring::sync(self)
    }

    fn place(&self) -> String {
        self.dir().display().to_string()
    }
}

/// A block on its way.
struct Job {
    block: RawBlock,
    raw: Vec<u8>,
    /// Events that were dropped before it.
    dropped: u64,
}

/// Where an event is handed over to be recorded. Belongs to the path; its thread writes.
pub struct Recorder {
    encoder: BlockEncoder,
    queue: Option<SyncSender<Job>>,
    spare: Receiver<Vec<u8>>,
    stats: Arc<RecordStats>,
    /// When the first event of the block came.
    since: Instant,
    /// Events that were dropped since the last block that was handed over.
    dropped: u64,
    /// Every event waits for its container's name, not only what may raise an alert.
    waits: bool,
    ended: Receiver<()>,
    full: Arc<Notify>,
}

impl Recorder {
    /// Starts the thread that writes. `waits`: every event waits for its container's name, as alerts do.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(hostname: &str, store: impl Store + 'static, waits: bool) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (return_spare, spare) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let (stats, full) = (Arc::<RecordStats>::default(), Arc::<Notify>::default());
        let worker = Worker {
            store,
            stats: Arc::clone(&stats),
            full: Arc::clone(&full),
            packed: Vec::new(),
            dropped: 0,
            failing: false,
        };
        thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            worker.run(&jobs, &return_spare);
            let _ = end.send(());
        })?;
        Ok(Recorder {
            encoder: BlockEncoder::new(hostname),
            queue: Some(queue),
            spare,
            stats,
            since: Instant::now(),
            dropped: 0,
            waits,
            ended,
            full,
        })
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<RecordStats> {
        &self.stats
    }

    /// Told when the recording has the size that was asked for.
    pub fn full(&self) -> Arc<Notify> {
        Arc::clone(&self.full)
    }

    /// Whether every event waits for its container's name.
    pub fn waits_for_names(&self) -> bool {
        self.waits
    }

    /// Records an event that happened at `unix_ns`. Never waits for the disk.
    pub fn record(&mut self, event: &Event<'_>, unix_ns: i64) {
        self.take(unix_ns, event.raw.boot.0, event.ty, event);
    }

    #[cfg(test)]
    pub(crate) fn record_values(&mut self, event: &super::Recorded) {
        self.take(event.unix_ns, event.boot_ns, event.ty, &event.values);
    }

    fn take(&mut self, unix_ns: i64, boot_ns: u64, ty: EventType, event: &impl Enumerate) {
        if self.encoder.is_full() {
            self.hand_over();
        }
        if self.encoder.is_empty() {
            self.since = Instant::now();
        }
        if self.encoder.push(unix_ns, boot_ns, ty, event).is_err() {
            self.dropped += 1;
            self.stats.drop_events(RecordDrop::TooLarge, 1);
        }
    }

    /// Called now and then, also without events: what is old enough goes to the file.
    pub fn tend(&mut self) {
        if !self.encoder.is_empty() && self.since.elapsed() >= PATIENCE {
            self.hand_over();
        }
    }

    pub(super) fn hand_over(&mut self) {
        let mut raw = self.spare.try_recv().unwrap_or_default();
        let block = self.encoder.finish(&mut raw);
        let events = u64::from(block.events());
        let job = Job { block, raw, dropped: self.dropped };
        self.stats.queued.fetch_add(events, Ordering::Relaxed);
        let sent = match &self.queue {
            Some(queue) => queue.try_send(job),
            None => return,
        };
        match sent {
            Ok(()) => self.dropped = 0,
            Err(refused) => {
                let reason = match refused {
                    TrySendError::Full(_) => RecordDrop::QueueFull,
                    TrySendError::Disconnected(_) => RecordDrop::Shutdown,
                };
                self.stats.queued.fetch_sub(events, Ordering::Relaxed);
                self.stats.drop_events(reason, events);
                self.dropped += events;
            }
        }
    }

    /// Announces the end: the last block goes to the thread, which writes while others are waited for.
    pub fn close(&mut self) {
        if !self.encoder.is_empty() {
            self.hand_over();
        }
        self.queue = None;
    }

    /// Writes what is left, and waits for it until the deadline at the latest. Gives the counters.
    pub fn finish(mut self, deadline: Instant) -> Arc<RecordStats> {
        self.close();
        let left = deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            // The thread keeps its hands on a block, but nobody will see its end any more.
            self.stats.drop_events(RecordDrop::Shutdown, self.stats.queued.load(Ordering::Relaxed));
        }
        self.stats
    }
}

struct Worker<S> {
    store: S,
    stats: Arc<RecordStats>,
    full: Arc<Notify>,
    packed: Vec<u8>,
    /// Events that could not be written since the last block that was.
    dropped: u64,
    failing: bool,
}

impl<S: Store> Worker<S> {
    fn run(mut self, jobs: &Receiver<Job>, spare: &SyncSender<Vec<u8>>) {
        for job in jobs {
            self.write(&job);
            self.stats.queued.fetch_sub(job.block.events().into(), Ordering::Relaxed);
            let _ = spare.try_send(job.raw);
        }
        if let Err(error) = self.store.sync() {
            tracing::warn!(place = self.store.place(), %error, "recorded events may not survive a loss of power");
        }
    }

    fn write(&mut self, job: &Job) {
        let events = u64::from(job.block.events());
        self.dropped += job.dropped;
        self.packed.clear();
        job.block.write(&job.raw, self.dropped, &mut self.packed);
        let reason = match self.store.append(&self.packed) {
            Ok(Stored::Yes) => {
                self.dropped = 0;
                self.stats.recorded.fetch_add(events, Ordering::Relaxed);
                self.stats.bytes.fetch_add(self.packed.len() as u64, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(place = self.store.place(), "events are recorded again");
                }
                return;
            }
            Ok(Stored::Full) => {
                self.full.notify_one();
                RecordDrop::Limit
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let place = self.store.place();
                    tracing::error!(place, %error, "events cannot be recorded; alerts are not concerned");
                }
                RecordDrop::WriteError
            }
        };
        self.dropped += events;
        self.stats.drop_events(reason, events);
    }
}
