//! What programs' files need.

use super::{Owner, Table};

impl Table {
    /// What is not known yet is told anew in each round, by [`Table::require`].
    pub(in crate::capabilities) fn nothing_pending(&mut self) {
        self.runs.values_mut().for_each(|entry| entry.run.pending = false);
    }

    /// Programs in a cgroup need these capabilities of their files to be begun; some were `unlooked` at, or were not looked
    /// at yet.
    pub(in crate::capabilities) fn require(&mut self, cgroup: u64, caps: u64, unlooked: bool, pending: bool) {
        if let Some(Owner::Run(key)) = self.dirs.get(&cgroup).map(|dir| &dir.owner)
            && let Some(entry) = self.runs.get_mut(key)
        {
            entry.run.require(caps, unlooked);
            entry.run.pending |= pending;
        }
    }
}
