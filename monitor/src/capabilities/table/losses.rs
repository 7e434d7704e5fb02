//! What was lost, and who is told of it. The kernel does not say whose it was: it may be anybody's who ran then. Of a
//! container's beginning the pipeline may learn later than of the loss, so what was lost is remembered, and a run holds how
//! much of it was told.

use std::collections::VecDeque;
use std::sync::Arc;

use monitor_common::capability::{CAP_SLOTS, cap_slot};

use super::{Entry, Now, Table};
use crate::capabilities::run::{Heard, Lost, Run};

/// Looks that found something lost and are remembered one by one; older ones are taken together.
const MAX_LOSSES: usize = 64;

/// What a look found.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// When the counters had been read, in boot time.
    noted: u64,
    /// What had been lost before that.
    before: Lost,
    lost: Lost,
}

/// What was lost of one kind since the programs were attached.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// When the counters were last read.
    looked: u64,
    total: Lost,
    /// Oldest first.
    remembered: VecDeque<Loss>,
}

impl Losses {
    /// All of it.
    pub(super) fn total(&self) -> Lost {
        self.total
    }

    /// Notes what a look found, whose reading ended at `now`. Gives when the one before ended.
    fn look(&mut self, lost: Lost, now: u64) -> u64 {
        let before = std::mem::replace(&mut self.looked, now);
        if lost.is_any() {
            self.remembered.push_back(Loss { noted: now, before: self.total, lost });
            self.total.join(lost);
        }
        // The oldest counts as found at the next one: who began between the two is told of both.
        if self.remembered.len() > MAX_LOSSES
            && let Some(oldest) = self.remembered.pop_front()
            && let Some(next) = self.remembered.front_mut()
        {
            next.before = oldest.before;
            next.lost.join(oldest.lost);
        }
        before
    }

    /// What was found at `from` or later, without what was heard of.
    fn since(&self, from: u64, heard: Lost) -> Lost {
        let more = |before: u64, lost: u64, heard: u64| lost.saturating_sub(heard.saturating_sub(before));
        let mut sum = Lost::default();
        for Loss { before, lost, .. } in self.remembered.iter().filter(|loss| loss.noted >= from) {
            let no_room = more(before.no_room, lost.no_room, heard.no_room);
            let skipped = more(before.skipped, lost.skipped, heard.skipped);
            sum.join(Lost { no_room, allowed: if no_room > 0 { lost.allowed } else { 0 }, skipped });
        }
        sum
    }
}

/// What a container had lost before it was told of everything, for nobody knew yet since when it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    checks: Lost,
    calls: u64,
    heard: Heard,
}

impl Doubt {
    fn of(run: &Run) -> Self {
        let calls = run.calls.as_ref().map_or(0, |calls| calls.lost);
        Doubt { checks: run.lost, calls, heard: run.heard }
    }

    fn restore(self, run: &mut Run) {
        (run.lost, run.heard) = (self.checks, self.heard);
        if let Some(calls) = &mut run.calls {
            calls.lost = self.calls;
        }
    }
}

/// Whoever ran when the last look ended, or later.
fn ran(looked: u64) -> impl Fn(&&mut Entry) -> bool {
    move |entry| entry.ended.is_none_or(|ended| ended >= looked)
}

fn lose_calls(run: &mut Run, more: u64) {
    let calls = run.calls.get_or_insert_default();
    calls.lost = calls.lost.saturating_add(more);
}

impl Table {
    /// Takes the counters of what went uncounted since the programs were attached: by [`cap_slot`], and skipped runs of the
    /// probe. Whoever ran since they were last read may miss some. Called after [`Table::learn`] only, so that nobody
    /// is left out who began since. `now` is a time after they were read: who began before it may be meant.
    pub fn note_lost(&mut self, uncounted: &[u64], skipped: u64, now: Now) {
        let more: Vec<u64> = (0..self.uncounted.len())
            .map(|slot| uncounted.get(slot).copied().unwrap_or(0))
            .zip(&self.uncounted)
            .map(|(now, before)| now.saturating_sub(*before))
            .collect();
        let allowed = (0..CAP_SLOTS)
            .filter(|cap| more.get(cap_slot(*cap, false) as usize).is_some_and(|more| *more > 0))
            .fold(0, |mask, cap| mask | 1u64 << cap);
        let lost = Lost {
            no_room: more.iter().fold(0u64, |sum, more| sum.saturating_add(*more)),
            allowed,
            skipped: skipped.saturating_sub(self.losses.total().skipped),
        };
        for (known, more) in self.uncounted.iter_mut().zip(&more) {
            *known = known.saturating_add(*more);
        }
        let looked = self.losses.look(lost, now.boot);
        if !lost.is_any() {
            return;
        }
        for Entry { run, .. } in self.runs.values_mut().filter(ran(looked)) {
            run.lost.join(lost);
            (run.heard.checks, run.dirty) = (self.losses.total(), true);
        }
    }

    /// The same of system calls that could not be noted.
    pub fn note_lost_calls(&mut self, lost: u64, now: Now) {
        let Some(sets) = &mut self.sets else { return };
        let more = lost.saturating_sub(sets.losses.total().no_room);
        let looked = sets.losses.look(Lost { no_room: more, ..Lost::default() }, now.boot);
        if more == 0 {
            return;
        }
        for Entry { run, .. } in self.runs.values_mut().filter(ran(looked)) {
            lose_calls(run, more);
            (run.heard.calls, run.dirty) = (sets.losses.total(), true);
        }
    }

    /// Tells a container what was lost since it began at `began`, if one of its directories `is_new`. As long as its beginning
    /// is not known that is all that was lost and it was not told yet; once it is known, only what is left of that.
    pub(super) fn hear(&mut self, key: &Arc<str>, began: Option<u64>, is_new: bool) {
        let Table { runs, losses, sets, .. } = self;
        let Some(Entry { run, doubt, .. }) = runs.get_mut(key) else { return };
        if let Some(before) = doubt.take_if(|_| began.is_some()) {
            before.restore(run);
            run.dirty = true;
        } else if !is_new {
            return;
        }
        let before = Doubt::of(run);
        let from = began.unwrap_or(0);
        let checks = losses.since(from, run.heard.checks);
        let calls = sets.as_ref().map_or(0, |sets| sets.losses.since(from, run.heard.calls).no_room);
        run.heard.checks = losses.total();
        if let Some(sets) = sets {
            run.heard.calls = sets.losses.total();
        }
        if !checks.is_any() && calls == 0 {
            return;
        }
        run.lost.join(checks);
        if calls > 0 {
            lose_calls(run, calls);
        }
        run.dirty = true;
        if began.is_none() {
            *doubt = Some(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(no_room: u64, allowed: u64, skipped: u64) -> Lost {
        Lost { no_room, allowed, skipped }
    }

    #[test]
    fn what_was_found_before_or_heard_of_does_not_count() {
        let mut losses = Losses::default();
        assert_eq!(losses.look(lost(1, 1, 0), 10), 0);
        assert_eq!(losses.look(Lost::default(), 20), 10);
        assert_eq!(losses.look(lost(2, 2, 5), 30), 20);
        let none = Lost::default();
        assert_eq!(losses.since(0, none), lost(3, 3, 5));
        assert_eq!(losses.since(30, none), lost(2, 2, 5));
        assert_eq!(losses.since(31, none), none);
        assert_eq!(losses.since(0, lost(1, 0, 0)), lost(2, 2, 5));
        assert_eq!(losses.since(0, losses.total()), none);
    }

    #[test]
    fn old_losses_are_taken_together_and_none_is_forgotten() {
        let mut losses = Losses::default();
        const LOOKS: u64 = 200;
        for look in 1..=LOOKS {
            losses.look(lost(1, 1 << (look % 8), 2), look * 10);
        }
        assert_eq!(losses.remembered.len(), MAX_LOSSES);
        assert_eq!(losses.since(0, Lost::default()), lost(LOOKS, 0xff, 2 * LOOKS));
        // Of what is taken together a part may be known.
        assert_eq!(losses.since(0, lost(100, 0, 200)), lost(LOOKS - 100, 0xff, 2 * (LOOKS - 100)));
        assert_eq!(losses.since(LOOKS * 10, Lost::default()), lost(1, 1, 2));
    }
}
