//! Drains the ring buffer into the pipeline, in the kernel's order, without copying a record twice.
//!
//! The kernel wakes the reader only when it had caught up. A reader that rushes back to sleep after each
//! record would be woken for each; so after a drain it looks again a millisecond later, and only an empty
//! ring lets it wait for a wakeup.

use std::io;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout_at};

use crate::control::Questions;
use crate::enrich::names::Bell;
use crate::pipeline::Pipeline;

/// How long records are gathered after a drain that found some.
const GATHER: Duration = Duration::from_millis(1);
/// After so many records other tasks get a turn, and lines go to the sinks.
const TURN: usize = 4096;

/// How the reader is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    No,
    /// Nothing more comes: it reads what is there.
    Drain,
    /// More comes, which the next process reads: what it has begun with is the last.
    Leave,
}

/// What the reader leaves when it ends.
pub type Ended = io::Result<(RingBuf<MapData>, Pipeline)>;

/// Starts [`read`] on a thread of its own, named `reader`. The receiver gives what it leaves, or an error if it
/// panicked.
///
/// # Errors
/// No thread or no runtime can be had.
pub fn start(
    ring: RingBuf<MapData>,
    pipeline: Pipeline,
    questions: Questions,
    stop: watch::Receiver<Stop>,
) -> io::Result<oneshot::Receiver<Ended>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
        // Nobody waits for it any more when the daemon has given up.
        let _ = end.send(runtime.block_on(read(ring, pipeline, questions, stop)));
    })?;
    Ok(ended)
}

/// Reads until it is told to stop, then whatever is left, unless that is for another process; gives the pipeline back.
///
/// # Errors
/// The ring buffer cannot be polled.
pub async fn read(
    ring: RingBuf<MapData>,
    mut pipeline: Pipeline,
    mut questions: Questions,
    mut stop: watch::Receiver<Stop>,
) -> Ended {
    // SAFETY: the descriptor belongs to the ring, which the registration owns and never replaces.
    let mut ring = unsafe { AsyncFd::register(ring) }?;
    let looked_at = stop.clone();
    let bell = pipeline.bell();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stopping(&mut stop) => break,
            _ = second.tick() => pipeline.tick(),
            Some(question) = questions.recv() => pipeline.answer(question),
            () = due(&bell, pipeline.deadline()) => pipeline.tend(),
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                while drain(ready.get_inner_mut(), &mut pipeline, &mut questions, &looked_at).await > 0 {
                    if is_stopping(&looked_at) {
                        break;
                    }
                    // Under load the ring is never at rest.
                    if let Ok(question) = questions.try_recv() {
                        pipeline.answer(question);
                    }
                    sleep(GATHER).await;
                }
                ready.clear_ready();
            }
        }
    }
    let mut ring = ring.into_inner();
    drain(&mut ring, &mut pipeline, &mut questions, &looked_at).await;
    pipeline.finish();
    Ok((ring, pipeline))
}

/// Waits until a name has come, or until the deadline, if there is one.
async fn due(bell: &Bell, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            // Both mean the same: look what there is to do.
            let _ = timeout_at(deadline.into(), bell.rung()).await;
        }
        None => bell.rung().await,
    }
}

/// Waits for the end; a sender that is gone means the end too. The guard that `wait_for` gives is dropped here,
/// so that no lock is held across an `await`.
async fn stopping(stop: &mut watch::Receiver<Stop>) {
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
}

fn is_stopping(stop: &watch::Receiver<Stop>) -> bool {
    *stop.borrow() != Stop::No
}

/// Empties the ring, unless the rest of it is for another process, and returns how many records there were.
pub async fn drain(
    ring: &mut RingBuf<MapData>,
    pipeline: &mut Pipeline,
    questions: &mut Questions,
    stop: &watch::Receiver<Stop>,
) -> usize {
    let leaves = || *stop.borrow() == Stop::Leave;
    let mut count = 0;
    if leaves() {
        return count;
    }
    while let Some(record) = ring.next() {
        pipeline.handle(&record);
        drop(record);
        count += 1;
        if count % TURN == 0 {
            pipeline.hand_over();
            tokio::task::yield_now().await;
            // What waited for a restart may take long, and who ends asks once more.
            if let Ok(question) = questions.try_recv() {
                pipeline.answer(question);
            }
            if leaves() {
                return count;
            }
        }
    }
    pipeline.hand_over();
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_or_the_deadline_wakes_the_reader() {
        let (bell, patience) = (Bell::default(), Duration::from_secs(20));
        // Rung before anybody waits, as when records are being drained.
        bell.ring();
        let far = Instant::now() + Duration::from_secs(600);
        timeout_at((Instant::now() + patience).into(), due(&bell, Some(far))).await.unwrap();
        let near = Instant::now() + Duration::from_millis(20);
        timeout_at((Instant::now() + patience).into(), due(&bell, Some(near))).await.unwrap();
        assert!(Instant::now() >= near);
        let nothing = due(&bell, None);
        assert!(timeout_at((Instant::now() + Duration::from_millis(20)).into(), nothing).await.is_err());
    }
}
