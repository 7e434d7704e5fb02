//! What programs' files need.

use super::{Owner, Table};

impl Table {
    /// Programs in a cgroup need these capabilities of their files to be begun; some were `unlooked` at.
    pub(in crate::capabilities) fn require(&mut self, cgroup: u64, caps: u64, unlooked: bool) {
        if let Some(Owner::Run(key)) = self.dirs.get(&cgroup).map(|dir| &dir.owner)
            && let Some(entry) = self.runs.get_mut(key)
        {
            entry.run.require(caps, unlooked);
        }
    }
}
