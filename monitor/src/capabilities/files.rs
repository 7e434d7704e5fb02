//! Which capabilities programs have of their files with the effective bit. They must stay in the bounding set though
//! nothing checks them ([`super::programs`] says why).
//!
//! Each program's file is looked at once, by a [`Looker`]. No clock and no I/O here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monitor_common::ids::CgroupId;

use super::granted::Place;
use super::programs::{Begun, Programs};
use super::run::is_delegated;
use super::table::Table;
use crate::enrich::container::Cgroup;

/// Programs that are looked at in a round, at most, of root's containers and as many of all others; the rest have their
/// turn in the next ones.
const MAX_LOOKS: usize = 4096;
/// Cgroups of a container in which somebody alive is looked for, at most.
const MAX_PLACES: usize = 8;

/// Whose files they are: a container's whose id is never given again, or those of a cgroup, for a name may go to another
/// container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// That of the container with this key.
    Container(Arc<str>),
    /// That of a cgroup.
    Cgroup(CgroupId),
}

impl Whose {
    /// `None` for what is no container's.
    fn of(place: &Place) -> Option<Self> {
        let (key, container) = (place.cgroup.key.as_ref()?, place.cgroup.container()?);
        Some(if container.has_long_id() {
            Whose::Container(Arc::clone(key))
        } else {
            Whose::Cgroup(place.id)
        })
    }
}

/// A cgroup in which somebody may live who sees the same files.
#[derive(Clone, Debug)]
pub struct Living {
    /// Its id.
    pub id: CgroupId,
    /// Its path.
    pub cgroup: Arc<Cgroup>,
    /// Which programs began in it.
    pub programs: Vec<Arc<Programs>>,
}

/// Programs to look at.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose they are.
    pub whose: Whose,
    /// Others than root may have made the container.
    pub delegated: bool,
    /// Where somebody may live who sees the same files.
    pub living: Vec<Living>,
    /// The path of each, and who began it last in each cgroup.
    pub programs: HashMap<Arc<[u8]>, Vec<Begun>>,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Whose program it is.
    pub whose: Whose,
    /// Its path.
    pub path: Arc<[u8]>,
    /// The permitted capabilities of its file, if that has the effective bit.
    pub required: u64,
}

/// Looks at programs' files.
pub trait Looker: Send {
    /// Looks at these. Programs that could not be looked at are left out, and what comes late may be of an earlier call.
    fn look(&mut self, wanted: Vec<Wanted>) -> Vec<Looked>;
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoLooker;

impl Looker for NoLooker {
    fn look(&mut self, _wanted: Vec<Wanted>) -> Vec<Looked> {
        Vec::new()
    }
}

/// What is known of programs' files.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<Whose, HashMap<Arc<[u8]>, u64>>,
    /// Programs that ran before anybody looked.
    seen: HashMap<CgroupId, Arc<Programs>>,
}

impl Files {
    /// `seen` are programs that run already.
    pub(super) fn new(seen: HashMap<CgroupId, Arc<Programs>>) -> Self {
        Files { known: HashMap::new(), seen }
    }

    /// The programs of a place.
    fn programs<'p>(&'p self, place: &'p Place) -> impl Iterator<Item = &'p Arc<Programs>> {
        place.programs.iter().chain(self.seen.get(&place.id))
    }

    /// Looks at programs that were not looked at yet, and tells the table what is known. Called after [`Table::learn`];
    /// `last` if there is no later round.
    pub(super) fn look(&mut self, looker: &mut dyn Looker, places: &[Place], table: &mut Table, last: bool) {
        let there: HashSet<Whose> = places.iter().filter_map(Whose::of).collect();
        let ids: HashSet<CgroupId> = places.iter().map(|place| place.id).collect();
        self.seen.retain(|id, _| ids.contains(id));
        let wanted = self.wanted(places);
        // Also if nothing is wanted: something may have come late.
        for Looked { whose, path, required } in looker.look(wanted) {
            if there.contains(&whose) {
                self.known.entry(whose).or_default().insert(path, required);
            }
        }
        table.nothing_pending();
        // What no program needs any more is forgotten: paths are many.
        let mut needed: HashMap<Whose, HashMap<Arc<[u8]>, u64>> = HashMap::new();
        for place in places {
            let Some(whose) = Whose::of(place) else { continue };
            let known = self.known.get(&whose);
            let (mut required, mut unknown) = (0, false);
            let still = needed.entry(whose).or_default();
            for (path, begun) in self.programs(place).flat_map(|programs| &programs.by_path) {
                match known.and_then(|known| known.get(path)) {
                    Some(caps) => {
                        required |= caps;
                        still.insert(Arc::clone(path), *caps);
                    }
                    None => unknown |= !begun.told,
                }
            }
            let unnoted = self.programs(place).any(|programs| programs.unnoted);
            let ends = last || place.removed;
            table.require(place.id.0, required, unnoted || (unknown && ends), unknown);
        }
        self.known = needed;
    }

    /// What is not known yet, by container. Maps are in another order each time, so nobody's turn never comes.
    fn wanted(&self, places: &[Place]) -> Vec<Wanted> {
        let mut wanted: HashMap<Whose, Wanted> = HashMap::new();
        for place in places {
            let Some(whose) = Whose::of(place) else { continue };
            let known = self.known.get(&whose);
            let entry = wanted.entry(whose).or_insert_with_key(|whose| Wanted {
                whose: whose.clone(),
                delegated: place.cgroup.key.as_deref().is_some_and(is_delegated),
                living: Vec::new(),
                programs: HashMap::new(),
            });
            if !place.removed && entry.living.len() < MAX_PLACES {
                let (id, cgroup) = (place.id, Arc::clone(&place.cgroup));
                entry.living.push(Living { id, cgroup, programs: self.programs(place).cloned().collect() });
            }
            for (path, begun) in self.programs(place).flat_map(|programs| &programs.by_path) {
                if known.is_none_or(|known| !known.contains_key(path)) {
                    entry.programs.entry(Arc::clone(path)).or_default().push(*begun);
                }
            }
        }
        let mut room = [MAX_LOOKS; 2];
        let mut wanted: Vec<Wanted> = wanted.into_values().collect();
        wanted.retain_mut(|one| {
            let room = &mut room[usize::from(one.delegated)];
            let mut left = if one.living.is_empty() { 0 } else { *room };
            one.programs.retain(|_, _| {
                let fits = left > 0;
                left -= usize::from(fits);
                fits
            });
            *room -= one.programs.len();
            !one.programs.is_empty()
        });
        wanted
    }
}
