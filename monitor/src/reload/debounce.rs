//! When to read files that change: when they have been at rest for a moment, and at the latest a second after the
//! first change.

use std::time::{Duration, Instant};

/// So long nothing may have changed. A program that writes a file does so in several steps.
pub(super) const REST: Duration = Duration::from_millis(100);
/// So long after the first change files are read even if they are not at rest.
pub(super) const MOST: Duration = Duration::from_secs(1);

/// Changes that were not read yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debounce {
    /// When the first and the last change came.
    changes: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Something changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let first = self.changes.map_or(now, |(first, _)| first);
        self.changes = Some((first, now));
    }

    /// Forgets the changes: the files are about to be read.
    pub(super) fn clear(&mut self) {
        self.changes = None;
    }

    /// When to read the files; `None` if nothing changed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.changes.map(|(first, last)| (last + REST).min(first + MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_waited_for_but_not_for_long() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.changed(at(0));
        assert_eq!(debounce.due(), Some(at(100)));
        debounce.changed(at(50));
        assert_eq!(debounce.due(), Some(at(150)));
        // A steady stream is cut.
        for ms in (60..=2000).step_by(10) {
            debounce.changed(at(ms));
        }
        assert_eq!(debounce.due(), Some(at(1000)));
        debounce.clear();
        assert_eq!(debounce.due(), None);
        debounce.changed(at(3000));
        assert_eq!(debounce.due(), Some(at(3100)));
    }
}
