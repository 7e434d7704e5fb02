//! Deliveries under test: peers that are away, refuse, hang, come back, with and without a spool.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use super::*;
use crate::rules::Priority;
use crate::sink::{Sink, Spool};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = soon();
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a peer does with a batch.
#[derive(Clone, Debug)]
enum Answer {
    /// Takes so many of the batch, then this.
    Then(usize, Fate),
    /// Takes one, and leaves the next for another call.
    One,
    /// Hangs until it is told to go on.
    Hang,
    /// Panics.
    Panic,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    /// Answers everything like that when the script is over; takes all if none.
    after: Option<Fate>,
    seen: Vec<(String, Priority)>,
    calls: Vec<(Instant, usize)>,
}

/// A peer that does what a script says; then it takes everything.
#[derive(Clone)]
struct Peer(Arc<Mutex<Script>>, Arc<Mutex<Receiver<()>>>);

impl Peer {
    fn new(answers: impl IntoIterator<Item = Answer>) -> (Self, SyncSender<()>) {
        let (go, gate) = mpsc::sync_channel(100);
        let script = Script { answers: answers.into_iter().collect(), ..Script::default() };
        (Peer(Arc::new(Mutex::new(script)), Arc::new(Mutex::new(gate))), go)
    }

    /// One that is away until it is told otherwise.
    fn away() -> Self {
        let peer = Peer::new([]).0;
        peer.answer_always(Some(Fate::Retry { after: None }));
        peer
    }

    fn answer_always(&self, fate: Option<Fate>) {
        self.0.lock().unwrap().after = fate;
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.iter().map(|(line, _)| line.clone()).collect()
    }

    fn calls(&self) -> Vec<(Instant, usize)> {
        self.0.lock().unwrap().calls.clone()
    }
}

impl Deliver for Peer {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        let mut script = self.0.lock().unwrap();
        script.calls.push((Instant::now(), batch.len()));
        let after = script.after.map(|fate| Answer::Then(0, fate));
        let (taken, fate) = match script.answers.pop_front().or(after) {
            None => (batch.len(), None),
            Some(Answer::Then(taken, fate)) => (taken, Some(fate)),
            Some(Answer::One) => (1.min(batch.len() - 1), Some(Fate::Unasked)),
            Some(Answer::Hang) => {
                drop(script);
                let _ = self.1.lock().unwrap().recv();
                script = self.0.lock().unwrap();
                (batch.len(), None)
            }
            Some(Answer::Panic) => {
                drop(script);
                panic!("a bug in an output");
            }
        };
        for record in &batch[..taken] {
            script.seen.push((String::from_utf8(record.line.to_vec()).unwrap(), record.priority));
        }
        match fate {
            None => Ok(()),
            Some(fate) => Err(Undelivered { taken, fate, cause: "as the script says".to_owned() }),
        }
    }
}

fn batch(lines: impl IntoIterator<Item = usize>) -> Batch {
    let mut batch = Batch::default();
    for line in lines {
        batch.bytes.extend_from_slice(format!("line {line}\n").as_bytes());
        batch.lines += 1;
        batch.priorities.push(if line % 2 == 0 { Priority::Notice } else { Priority::Critical });
    }
    batch
}

fn expected(lines: impl IntoIterator<Item = usize>) -> Vec<String> {
    lines.into_iter().map(|line| format!("line {line}")).collect()
}

fn sink(peer: &Peer, limit: usize, spool: Option<Spool>) -> Sink {
    Sink::deliver("peer", Box::new(peer.clone()), limit, spool).unwrap()
}

fn spool(dir: &std::path::Path) -> Option<Spool> {
    Some(Spool::open(dir, "peer", 1 << 20).unwrap())
}

fn dropped(sink: &Sink, reason: DropReason) -> u64 {
    sink.stats().dropped_lines(reason)
}

#[test]
fn records_arrive_in_order_in_bounded_batches() {
    let (peer, go) = Peer::new([Answer::Hang]);
    let sink = sink(&peer, 8 << 20, None);
    sink.offer(batch([0])).unwrap();
    wait_until("the first call", || !peer.calls().is_empty());
    for i in 0..1000 {
        sink.offer(batch([2 * i + 1, 2 * i + 2])).unwrap();
    }
    go.send(()).unwrap();
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert_eq!(peer.seen(), expected(0..=2000));
    let script = peer.0.lock().unwrap();
    assert!(script.seen.iter().enumerate().all(|(i, (_, priority))| {
        *priority == if i % 2 == 0 { Priority::Notice } else { Priority::Critical }
    }));
    let largest = script.calls.iter().map(|(_, count)| *count).max().unwrap();
    assert!(largest > 2 && largest <= MAX_RECORDS, "{largest}");
    let bytes: usize = (0..=2000).map(|i| format!("line {i}").len()).sum();
    assert_eq!((sink.stats().written_lines(), sink.stats().written_bytes()), (2001, bytes as u64));
    assert_eq!((sink.stats().queued_lines(), sink.stats().queued_bytes()), (0, 0));
}

#[test]
fn what_was_not_taken_is_tried_again_and_what_is_refused_is_skipped() {
    let retry = Fate::Retry { after: None };
    let (peer, _go) = Peer::new([
        Answer::Then(2, retry),
        Answer::Then(0, retry),
        Answer::Then(1, Fate::Refused),
        Answer::Then(0, Fate::Refused),
        // More than there are: not believed.
        Answer::Then(0, Fate::Refused),
    ]);
    let sink = sink(&peer, 8 << 20, None);
    sink.offer(batch(0..8)).unwrap();
    assert_eq!(sink.flush(soon()).lost_lines, 3);
    assert_eq!(peer.seen(), expected([0, 1, 2, 6, 7]));
    assert_eq!((dropped(&sink, DropReason::Rejected), sink.stats().failures()), (3, 5));
    assert_eq!(sink.stats().written_lines(), 5);
}

#[test]
fn a_peer_is_left_alone_for_as_long_as_it_asks_and_longer_each_time() {
    let after = Duration::from_millis(700);
    let retry = Answer::Then(0, Fate::Retry { after: None });
    let (peer, _go) = Peer::new([Answer::Then(0, Fate::Retry { after: Some(after) }), retry.clone(), retry]);
    let sink = sink(&peer, 8 << 20, None);
    sink.offer(batch([1])).unwrap();
    wait_until("the delivery", || sink.stats().written_lines() == 1);
    let times: Vec<Instant> = peer.calls().iter().map(|(time, _)| *time).collect();
    assert!(times[1] - times[0] >= after);
    // Doubled twice by then, of which at least half is waited.
    assert!(times[2] - times[1] >= BACK_OFF.0, "{:?}", times[2] - times[1]);
    assert!(times[3] - times[2] >= BACK_OFF.0 * 2, "{:?}", times[3] - times[2]);
}

#[test]
fn without_a_spool_memory_is_the_bound() {
    let peer = Peer::away();
    let sink = sink(&peer, 60, None);
    wait_until("the failure", || {
        let _ = sink.offer(batch([1]));
        sink.stats().failures() > 0 && sink.offer(batch([1])).is_err()
    });
    assert!(dropped(&sink, DropReason::WriteError) > 0);
    let waiting = sink.stats().queued_lines();
    assert!(waiting > 0);
    let start = Instant::now();
    let lost = sink.flush(Instant::now() + Duration::from_millis(600)).lost_lines;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!((lost, dropped(&sink, DropReason::Shutdown)), (waiting, waiting));
    assert!(peer.seen().is_empty());
}

#[test]
fn the_end_gives_a_peer_that_comes_back_in_time_everything() {
    let peer = Peer::away();
    let sink = sink(&peer, 8 << 20, None);
    sink.offer(batch(0..100)).unwrap();
    wait_until("the failure", || sink.stats().failures() > 2);
    let back = {
        let peer = peer.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            peer.answer_always(None);
        })
    };
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    back.join().unwrap();
    assert_eq!(peer.seen(), expected(0..100));
}

#[test]
fn a_spool_keeps_order_while_the_peer_is_away_and_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::away();
    // Memory alone would hold a tenth of it.
    let sink = sink(&peer, 1000, spool(dir.path()));
    for i in 0..100 {
        while sink.offer(batch(10 * i..10 * i + 10)).is_err() {
            // Faster than the thread gets to its spool: in life the queue has megabytes.
            thread::sleep(Duration::from_millis(1));
        }
    }
    wait_until("the move to the spool", || sink.stats().spooled_lines() == 1000);
    assert_eq!((sink.stats().queued_lines(), peer.seen().len()), (0, 0));
    peer.answer_always(None);
    sink.offer(batch([1000])).unwrap();
    wait_until("the delivery", || peer.seen().len() == 1001);
    assert_eq!(peer.seen(), expected(0..=1000));
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert_eq!((sink.stats().spooled_lines(), sink.stats().spooled_bytes()), (0, 0));
    assert_eq!(sink.stats().written_lines(), 1001);
}

#[test]
fn what_is_left_at_the_end_is_delivered_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::away();
    let first = sink(&peer, 8 << 20, spool(dir.path()));
    first.offer(batch(0..300)).unwrap();
    wait_until("the failure", || first.stats().failures() > 0);
    first.offer(batch(300..600)).unwrap();
    let start = Instant::now();
    assert_eq!(first.flush(soon()).lost_lines, 0);
    assert!(start.elapsed() < Duration::from_secs(10), "the end waits for a peer that is away");
    drop(first);
    peer.answer_always(None);
    wait_until("the lock being free", || Spool::open(dir.path(), "peer", 1 << 20).is_ok());
    let second = sink(&peer, 8 << 20, spool(dir.path()));
    second.offer(batch(600..700)).unwrap();
    wait_until("the delivery", || second.stats().written_lines() == 700);
    assert_eq!(peer.seen(), expected(0..700));
    assert_eq!(second.flush(soon()).lost_lines, 0);
}

/// The peer hangs in the middle of a call when the end comes: what it was given and what waits goes to the spool.
#[test]
fn a_hung_peer_cannot_keep_what_it_was_given_from_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, go) = Peer::new([Answer::Then(1, Fate::Refused), Answer::Hang]);
    let first = sink(&peer, 8 << 20, spool(dir.path()));
    first.offer(batch(0..10)).unwrap();
    wait_until("the second call", || peer.calls().len() == 2);
    first.offer(batch(10..20)).unwrap();
    let lost = first.flush(Instant::now() + Duration::from_millis(50)).lost_lines;
    // The refused one is counted, and was before.
    assert_eq!((lost, first.stats().spooled_lines(), dropped(&first, DropReason::Rejected)), (0, 18, 1));
    // It comes to itself after the end: nothing is taken off twice.
    go.send(()).unwrap();
    drop(first);
    wait_until("the lock being free", || Spool::open(dir.path(), "peer", 1 << 20).is_ok());
    let (fresh, _go) = Peer::new([]);
    let second = sink(&fresh, 8 << 20, spool(dir.path()));
    wait_until("the delivery", || second.stats().written_lines() == 18);
    assert_eq!(fresh.seen(), expected(2..20));
}

/// A peer that is slow without failing: what it has no time for goes to the spool before the queue is full.
#[test]
fn what_a_slow_peer_has_no_time_for_goes_to_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, go) = Peer::new([Answer::One, Answer::Hang]);
    let sink = sink(&peer, 1000, spool(dir.path()));
    sink.offer(batch(0..10)).unwrap();
    wait_until("the second call", || peer.calls().len() == 2);
    // More than half of the queue waits.
    for i in 1..9 {
        sink.offer(batch(10 * i..10 * i + 10)).unwrap();
    }
    peer.0.lock().unwrap().answers = [Answer::One, Answer::Hang].into();
    go.send(()).unwrap();
    wait_until("the move to the spool", || {
        sink.stats().spooled_lines() > 0 && sink.stats().queued_lines() == 0
    });
    assert_eq!(sink.stats().failures(), 0);
    peer.0.lock().unwrap().answers.clear();
    (0..10).for_each(|_| go.send(()).unwrap());
    wait_until("the delivery", || sink.stats().written_lines() == 90);
    assert_eq!(peer.seen(), expected(0..90));
    assert_eq!(sink.flush(soon()).lost_lines, 0);
}

/// What a slow peer took in calls that came back is not put into the spool again.
#[test]
fn the_end_does_not_repeat_what_a_slow_peer_took() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, _go) = Peer::new([Answer::One, Answer::One, Answer::One, Answer::Hang]);
    let sink = sink(&peer, 8 << 20, spool(dir.path()));
    sink.offer(batch(0..10)).unwrap();
    wait_until("the call that hangs", || peer.calls().len() == 4);
    assert_eq!(sink.flush(Instant::now() + Duration::from_millis(50)).lost_lines, 0);
    assert_eq!((sink.stats().spooled_lines(), sink.stats().written_lines()), (7, 3));
    assert_eq!(sink.stats().failures(), 0);
}

#[test]
fn damage_in_the_spool_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::away();
    let first = sink(&peer, 8 << 20, spool(dir.path()));
    first.offer(batch(0..10)).unwrap();
    assert_eq!(first.flush(soon()).lost_lines, 0);
    drop(first);
    wait_until("the lock being free", || Spool::open(dir.path(), "peer", 1 << 20).is_ok());
    let file = dir.path().join("peer/0000000000000001.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first line's first letter: behind the file's head, the frame's head and the priority.
    bytes[8 + 8 + 1] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let second = sink(&peer, 8 << 20, spool(dir.path()));
    wait_until("the count", || dropped(&second, DropReason::SpoolError) == 1);
    wait_until("what is whole", || second.stats().spooled_lines() == 9);
    // While it runs, too: a file that ends too soon cannot be read, which is a failure that is not the peer's.
    std::fs::write(&file, &bytes[..20]).unwrap();
    wait_until("the failure", || second.stats().failures() > peer.calls().len() as u64);
}

#[test]
fn a_full_spool_is_the_reason_for_what_is_lost_then() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::away();
    let small = Spool::open(dir.path(), "peer", 100).unwrap();
    let sink = sink(&peer, 60, Some(small));
    wait_until("the spool being full", || {
        let _ = sink.offer(batch([1]));
        dropped(&sink, DropReason::SpoolFull) > 0
    });
    let offered = sink.stats().queued_lines() + sink.stats().spooled_lines();
    assert!(sink.stats().spooled_lines() >= 4 && sink.stats().spooled_bytes() <= 100);
    peer.answer_always(None);
    wait_until("the delivery", || sink.stats().written_lines() == offered);
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    sink.offer(batch([1])).unwrap_err();
}

#[test]
fn a_panic_of_an_output_is_its_own_affair() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, _go) = Peer::new([Answer::Panic]);
    let sink = sink(&peer, 8 << 20, spool(dir.path()));
    sink.offer(batch(0..5)).unwrap();
    let start = Instant::now();
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert!(start.elapsed() < Duration::from_secs(10), "the end waits for a thread that is gone");
    assert_eq!(sink.stats().spooled_lines(), 5);
}
