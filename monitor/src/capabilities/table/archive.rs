//! Containers that ended. Those that others than root on the host may make at will have a part of the room, and go before
//! the rest.

use std::collections::VecDeque;

use super::{DELEGATED_PART, Kept};

/// Ended containers, oldest first, up to a number.
#[derive(Debug)]
pub(super) struct Archive {
    host: VecDeque<Kept>,
    /// In users' slices and inside other containers.
    delegated: VecDeque<Kept>,
    most: usize,
}

impl Archive {
    /// With room for so many.
    pub(super) fn new(most: usize) -> Self {
        Archive { host: VecDeque::new(), delegated: VecDeque::new(), most }
    }

    /// Adds the latest. Gives whom it takes the place of.
    pub(super) fn put(&mut self, kept: Kept) -> Option<Kept> {
        let delegated = kept.run.is_delegated();
        let gone = if delegated && self.delegated.len() >= self.most / DELEGATED_PART {
            self.forget(true)
        } else if self.host.len() + self.delegated.len() >= self.most {
            self.forget(false)
        } else {
            None
        };
        self.queue(delegated).push_back(kept);
        gone
    }

    /// Takes the oldest out, those first that are delegated; with `delegated` none but these.
    pub(super) fn forget(&mut self, delegated: bool) -> Option<Kept> {
        self.delegated.pop_front().or_else(|| if delegated { None } else { self.host.pop_front() })
    }

    /// Takes the oldest out of which that is true; all of them are delegated, or none.
    pub(super) fn take(&mut self, delegated: bool, is_it: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let queue = self.queue(delegated);
        queue.iter().position(is_it).and_then(|at| queue.remove(at))
    }

    /// All of them; who has the same key is of the same part, and so in the order of age.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.host.iter().chain(&self.delegated)
    }

    /// One part.
    pub(super) fn queue(&mut self, delegated: bool) -> &mut VecDeque<Kept> {
        if delegated { &mut self.delegated } else { &mut self.host }
    }
}
