//! What is counted of an output.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why lines were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The reader is slower than the alerts come.
    QueueFull,
    /// The output takes no writes: disk full, pipe closed.
    WriteError,
    /// Ringfence ended before the output took them.
    Shutdown,
    /// The peer said that it will never take them.
    Rejected,
    /// The peer is away, and the spool has no room.
    SpoolFull,
    /// They were in the spool, or on their way there, and it was damaged or took no writes.
    SpoolError,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [DropReason; 6] = [
        DropReason::QueueFull,
        DropReason::WriteError,
        DropReason::Shutdown,
        DropReason::Rejected,
        DropReason::SpoolFull,
        DropReason::SpoolError,
    ];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::WriteError => "write_error",
            DropReason::Shutdown => "shutdown",
            DropReason::Rejected => "rejected",
            DropReason::SpoolFull => "spool_full",
            DropReason::SpoolError => "spool_error",
        }
    }
}

/// A sink's counters. They only grow, but for what waits; a reader may see one ahead of another.
#[derive(Debug, Default)]
pub struct SinkStats {
    pub(super) written_lines: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    dropped_lines: [AtomicU64; DropReason::ALL.len()],
    pub(super) queued_bytes: AtomicU64,
    pub(super) queued_lines: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) spooled_lines: AtomicU64,
    pub(super) spooled_bytes: AtomicU64,
    spool_capacity: AtomicU64,
}

impl SinkStats {
    /// Lines that the output took whole.
    pub fn written_lines(&self) -> u64 {
        self.written_lines.load(Ordering::Relaxed)
    }

    /// Bytes that the output took.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Lines dropped for this reason.
    pub fn dropped_lines(&self, reason: DropReason) -> u64 {
        self.dropped_lines[reason as usize].load(Ordering::Relaxed)
    }

    /// Bytes that wait in memory or are being written.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Lines that wait in memory or are being written.
    pub fn queued_lines(&self) -> u64 {
        self.queued_lines.load(Ordering::Relaxed)
    }

    /// Writes that ended in an error.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Lines that wait on disk; those of an earlier process count once the sink's thread has read them.
    pub fn spooled_lines(&self) -> u64 {
        self.spooled_lines.load(Ordering::Relaxed)
    }

    /// Bytes that the spool takes on disk.
    pub fn spooled_bytes(&self) -> u64 {
        self.spooled_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the spool may take on disk; 0 without one.
    pub fn spool_capacity(&self) -> u64 {
        self.spool_capacity.load(Ordering::Relaxed)
    }

    /// Notes how many bytes the spool may take.
    pub fn set_spool_capacity(&self, bytes: u64) {
        self.spool_capacity.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn drop_lines(&self, reason: DropReason, lines: u64) {
        self.dropped_lines[reason as usize].fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, lines: u64, bytes: u64) {
        self.written_lines.fetch_add(lines, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
