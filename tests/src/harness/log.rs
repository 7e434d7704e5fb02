//! The log of a daemon as it comes, and waiting for a line of it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::PATIENCE;

/// The lines of standard error so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    pub(super) fn push(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    pub(super) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }

    /// Waits for a line.
    pub(super) fn wait(&self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = state.0.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.1 {
                let why = if state.1 { "ended before it logged" } else { "did not log" };
                return Err(format!("the daemon {why} what was expected; its log:\n{}", state.0.join("\n")));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
