//! Attempts that go on whatever the daemons do, each with a number of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The descriptor that the first attempt names; no process has one with such a number.
pub(crate) const BASE: u64 = 100_000_000;

/// A thread that calls setns with a descriptor that does not exist, a higher one each time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    /// Starts it: so many calls each second.
    pub(crate) fn start(rate: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut made = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
                while made < due {
                    attempt(made);
                    made += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            made
        });
        Load { stop, thread }
    }

    /// Ends it and gives how many calls were made.
    pub(crate) fn stop(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread that makes attempts panicked".to_owned())
    }
}

/// One attempt with this number.
pub(crate) fn attempt(number: u64) {
    // SAFETY: no pointers; the descriptor does not exist, so nothing changes.
    unsafe { libc::syscall(libc::SYS_setns, BASE + number, 0) };
}
