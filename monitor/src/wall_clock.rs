//! Wall time from boot time. Records carry boot time, because the wall clock is one of the things we guard;
//! what is shown is derived with an offset that is logged whenever it jumps.

use std::time::{SystemTime, UNIX_EPOCH};

use monitor_common::ids::BootNs;
use rustix::time::{ClockId, clock_gettime};

/// A jump is a change that is larger than what NTP slews within a second (500 µs), with room for a busy machine.
const JUMP_NS: i64 = 100_000_000;

/// Nanoseconds between boot time and Unix time.
#[derive(Clone, Copy, Debug)]
pub struct BootOffset(i64);

impl BootOffset {
    /// Measures the offset and logs it.
    pub fn measure() -> Self {
        let offset = Self::now();
        tracing::debug!(offset_ns = offset, "wall time is boot time plus this offset");
        BootOffset(offset)
    }

    /// Measures again; a jump is logged with its size.
    pub fn refresh(&mut self) {
        let now = Self::now();
        let change = now - self.0;
        if change.abs() >= JUMP_NS {
            tracing::warn!(
                change_ns = change,
                offset_ns = now,
                "the wall clock was set: alerts from here on use it"
            );
        }
        self.0 = now;
    }

    /// Unix time of a moment since boot, in nanoseconds.
    pub fn unix_ns(self, boot: BootNs) -> i64 {
        i64::try_from(boot.0).unwrap_or(i64::MAX).saturating_add(self.0)
    }

    /// The offset as it is now, in nanoseconds.
    pub fn now() -> i64 {
        let boot = clock_gettime(ClockId::Boottime);
        let boot = boot.tv_sec * 1_000_000_000 + boot.tv_nsec;
        // A wall clock before 1970 counts as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX) - boot
    }
}
