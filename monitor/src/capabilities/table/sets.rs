//! The system calls of containers, from the kernel's sets by cgroup. A set only grows, so it is added whole each time.

use std::collections::HashSet;

use super::losses::Losses;
use super::{Now, Owner, Run, Table, is_due};
use crate::capabilities::sets::SetSource;
use crate::capabilities::source::SourceError;

/// Which sets the kernel has, and what it could not note.
#[derive(Debug, Default)]
pub(super) struct Sets {
    cgroups: HashSet<u64>,
    /// Calls that could not be noted.
    pub(super) losses: Losses,
    /// Calls that a filter refused are noted.
    refusals: bool,
}

impl Sets {
    /// The cgroups of the sets.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = u64> {
        self.cgroups.iter().copied()
    }

    /// A directory of the container is seen for the first time; `from_start`: it was made under watch.
    pub(super) fn begin(&self, run: &mut Run, from_start: bool) {
        // What was seen of the container by then was seen with its calls, if they were noted all along.
        let is_first = from_start && run.calls.is_none() && run.gaps == 0 && run.restarts == 0;
        let observed = if is_first { run.observed } else { 0 };
        let calls = run.calls.get_or_insert_default();
        calls.observed = calls.observed.saturating_add(observed);
        calls.start_seen |= from_start;
        calls.refusals_unseen |= !self.refusals;
        run.dirty = true;
    }
}

impl Table {
    /// System calls are noted from now on, and those that a filter refused if there are `refusals`.
    pub fn note_sets(&mut self, refusals: bool) {
        self.sets.get_or_insert_default().refusals = refusals;
    }

    /// Cgroups whose calls are noted, and calls that could not be.
    pub fn sets_noted(&self) -> (u64, u64) {
        self.sets.as_ref().map_or((0, 0), |sets| (sets.cgroups.len() as u64, sets.losses.total().no_room))
    }

    /// Takes what the kernel noted. Gives how many calls it could not note since the programs were loaded, for
    /// [`Table::note_lost_calls`].
    ///
    /// # Errors
    /// [`SourceError`]: nothing was taken.
    pub fn read_sets(&mut self, source: &mut dyn SetSource) -> Result<u64, SourceError> {
        let sets = source.sets()?;
        let lost = source.lost()?;
        let Some(known) = &mut self.sets else { return Ok(0) };
        known.cgroups = sets.iter().map(|(cgroup, _)| *cgroup).collect();
        for (cgroup, set) in &sets {
            self.dir(*cgroup);
            if let Some(Owner::Run(key)) = self.dirs.get(cgroup).map(|dir| &dir.owner)
                && let Some(entry) = self.runs.get_mut(key)
            {
                entry.run.dirty |= entry.run.calls.get_or_insert_default().take(set);
            }
        }
        Ok(lost)
    }

    /// Removes the sets of cgroups that have been gone for long. They were read just now.
    ///
    /// # Errors
    /// [`SourceError`]: some may be removed.
    pub fn drop_sets(&mut self, source: &mut dyn SetSource, now: Now) -> Result<(), SourceError> {
        let Some(known) = &mut self.sets else { return Ok(()) };
        let due: Vec<u64> = known.cgroups().filter(|id| is_due(&self.dirs, *id, now)).collect();
        source.remove(&due)?;
        due.iter().for_each(|id| {
            known.cgroups.remove(id);
        });
        Ok(())
    }
}
