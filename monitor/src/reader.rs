//! Drains the ring buffer into the pipeline, in the kernel's order, without copying a record twice.
//!
//! The kernel wakes the reader only when it had caught up. A reader that rushes back to sleep after each
//! record would be woken for each; so after a drain it looks again a millisecond later, and only an empty
//! ring lets it wait for a wakeup.

use std::io;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::pipeline::Pipeline;

/// How long records are gathered after a drain that found some.
const GATHER: Duration = Duration::from_millis(1);
/// After so many records other tasks get a turn, and lines go to the sinks.
const TURN: usize = 4096;

/// Reads until `stop` turns true, then whatever is left, and gives the pipeline back.
///
/// # Errors
/// The ring buffer cannot be polled.
pub async fn read(
    ring: RingBuf<MapData>,
    mut pipeline: Pipeline,
    mut stop: watch::Receiver<bool>,
) -> io::Result<(RingBuf<MapData>, Pipeline)> {
    // SAFETY: the descriptor belongs to the ring, which the registration owns and never replaces.
    let mut ring = unsafe { AsyncFd::register(ring) }?;
    let looked_at = stop.clone();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stopping(&mut stop) => break,
            _ = second.tick() => pipeline.tick(),
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                while drain(ready.get_inner_mut(), &mut pipeline).await > 0 {
                    if is_stopping(&looked_at) {
                        break;
                    }
                    sleep(GATHER).await;
                }
                ready.clear_ready();
            }
        }
    }
    let mut ring = ring.into_inner();
    drain(&mut ring, &mut pipeline).await;
    Ok((ring, pipeline))
}

/// Waits for the end; a sender that is gone means the end too. The guard that `wait_for` gives is dropped here,
/// so that no lock is held across an `await`.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn is_stopping(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow()
}

/// Empties the ring and returns how many records there were.
pub async fn drain(ring: &mut RingBuf<MapData>, pipeline: &mut Pipeline) -> usize {
    let mut count = 0;
    while let Some(record) = ring.next() {
        pipeline.handle(&record);
        drop(record);
        count += 1;
        if count % TURN == 0 {
            pipeline.hand_over();
            tokio::task::yield_now().await;
        }
    }
    pipeline.hand_over();
    count
}
