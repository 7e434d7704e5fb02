//! What containers' programs were granted, as the pipeline sees it, and what it hands to the keeper.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monitor_common::capability::CapSets;
use monitor_common::ids::{BootNs, CgroupId};
use serde::{Deserialize, Serialize};

use super::programs::{Begun, Noted, Programs};
use crate::enrich::container::{Cgroup, Cgroups};
use crate::enrich::metadata::Metadata;

/// Cgroups whose programs' sets are kept, at most: as many as the table of cgroups has.
const MAX_CGROUPS: usize = crate::enrich::container::MAX_CGROUPS;

/// Unions of sets, as masks by the capabilities' numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sets {
    /// What an exec could give at most.
    pub bounding: u64,
    /// What programs began with.
    pub permitted: u64,
    /// What programs began with although neither root nor file capabilities gave it.
    pub ambient: u64,
}

impl Sets {
    /// Adds what somebody else had.
    pub fn join(&mut self, other: Sets) {
        self.bounding |= other.bounding;
        self.permitted |= other.permitted;
        self.ambient |= other.ambient;
    }

    /// Everything that programs had or could get.
    pub const fn all(self) -> u64 {
        self.bounding | self.permitted | self.ambient
    }
}

impl From<&CapSets> for Sets {
    fn from(sets: &CapSets) -> Self {
        Sets { bounding: sets.bounding, permitted: sets.permitted, ambient: sets.ambient }
    }
}

/// What the programs of a cgroup were granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The unions over all programs that were seen to begin.
    pub sets: Sets,
    /// When the first of them began; 0 if the sets come from `/proc`.
    pub first: BootNs,
    /// What some have of their files with the effective bit, as far as their credentials told ([`super::told`]).
    pub required: u64,
}

/// The pipeline's part: by cgroup, what the programs were granted that began at home there, and which cgroups were
/// there before anybody looked. Bounded by the table of cgroups; [`Granted::keep`] forgets with it.
#[derive(Debug, Default)]
pub struct Granted {
    grants: HashMap<CgroupId, Grant>,
    before: HashSet<CgroupId>,
    /// Which programs those were.
    noted: Noted,
    /// Programs whose sets found no room.
    refused: u64,
}

impl Granted {
    /// A program of the container's own began in this cgroup with these sets. False if there is no room for them.
    pub fn granted(&mut self, cgroup: CgroupId, sets: &CapSets, boot: BootNs) -> bool {
        if self.grants.len() >= MAX_CGROUPS && !self.grants.contains_key(&cgroup) {
            self.refused += 1;
            return false;
        }
        let grant = self.grants.entry(cgroup).or_insert(Grant { first: boot, ..Grant::default() });
        grant.sets.join(sets.into());
        true
    }

    /// The same program has these capabilities of its file with the effective bit, as far as its credentials told.
    pub fn required(&mut self, cgroup: CgroupId, caps: u64) {
        if let Some(grant) = self.grants.get_mut(&cgroup) {
            grant.required |= caps;
        }
    }

    /// The same program's file is to be looked at; its path is known whole or not at all. The cgroup is `delegated` if
    /// others than root may have made it.
    pub fn begun(&mut self, cgroup: CgroupId, delegated: bool, path: Option<&[u8]>, begun: Begun) {
        self.noted.begun(cgroup, delegated, path, begun);
    }

    /// All cgroups that are known now were there before the programs were attached, or so it must be taken.
    pub fn ran_before(&mut self, cgroups: &Cgroups) {
        self.before = cgroups.iter().map(|(id, ..)| id).collect();
    }

    /// Forgets cgroups that the table has forgotten.
    pub fn keep(&mut self, cgroups: &Cgroups) {
        self.grants.retain(|id, _| cgroups.known(*id).is_some());
        self.before.retain(|id| cgroups.known(*id).is_some());
        self.noted.keep(cgroups);
    }

    /// What is known of a cgroup.
    pub fn of(&self, cgroup: CgroupId) -> Option<Grant> {
        self.grants.get(&cgroup).copied()
    }

    /// The programs that began in a cgroup.
    pub fn programs(&self, cgroup: CgroupId) -> Option<Arc<Programs>> {
        self.noted.of(cgroup)
    }

    /// Whether the cgroup was there before the programs were attached.
    pub fn was_before(&self, cgroup: CgroupId) -> bool {
        self.before.contains(&cgroup)
    }

    /// Cgroups of which something is known.
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// True if nothing is known of any.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Programs whose sets found no room since this was last asked.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

/// A cgroup, as the pipeline's tables have it: numbers and shared parts.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id.
    pub id: CgroupId,
    /// Its path and the containers that it lies in.
    pub cgroup: Arc<Cgroup>,
    /// It was removed.
    pub removed: bool,
    /// It was there before the programs were attached.
    pub before: bool,
    /// What programs that began in it were granted.
    pub grant: Option<Grant>,
    /// Which programs began in it.
    pub programs: Option<Arc<Programs>>,
    /// Whether its container's first program began in another user namespace than the host's.
    pub own_user_ns: Option<bool>,
    /// What its container's runtime wrote.
    pub named: Option<Arc<Metadata>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions_grow_and_go_with_the_cgroup() {
        let mut cgroups = Cgroups::new(None);
        cgroups.made(CgroupId(1), b"/a");
        let mut granted = Granted::default();
        granted.ran_before(&cgroups);
        cgroups.made(CgroupId(2), b"/b");
        let sets = |permitted, bounding| CapSets { permitted, bounding, ..CapSets::default() };
        granted.granted(CgroupId(2), &sets(1, 3), BootNs(10));
        granted.granted(CgroupId(2), &sets(4, 2), BootNs(20));
        let grant = granted.of(CgroupId(2)).unwrap();
        assert_eq!((grant.sets.permitted, grant.sets.bounding, grant.first), (5, 3, BootNs(10)));
        assert!(granted.was_before(CgroupId(1)) && !granted.was_before(CgroupId(2)));
        cgroups.removed(CgroupId(2), BootNs(1));
        cgroups.expire(BootNs(61_000_000_000));
        granted.keep(&cgroups);
        assert_eq!(granted.of(CgroupId(2)), None);
    }

    #[test]
    fn no_room_is_counted() {
        let mut granted = Granted::default();
        for id in 0..MAX_CGROUPS as u64 + 2 {
            granted.granted(CgroupId(id), &CapSets::default(), BootNs(1));
        }
        granted.granted(CgroupId(0), &CapSets { permitted: 1, ..CapSets::default() }, BootNs(1));
        assert_eq!((granted.len(), granted.take_refused(), granted.take_refused()), (MAX_CGROUPS, 2, 0));
        assert_eq!(granted.of(CgroupId(0)).unwrap().sets.permitted, 1, "what is known still grows");
    }
}
