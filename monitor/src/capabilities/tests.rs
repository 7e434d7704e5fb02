//! The ledger under test: a kernel that counts as the programs do, and cgroups that come and go.

mod delegated;
mod files;
mod keeping;
mod losses;
mod restarts;
mod sets;
mod states;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use monitor_common::capability::{CAP_LEDGER_ENTRIES, CapCount, CapKey, NO_CALL, cap_slot};
use monitor_common::ids::{BootNs, CgroupId};

use super::files::{Looked, Looker, Wanted};
use super::granted::{Grant, Place, Sets};
use super::keeper::{Keeper, KeeperParts};
use super::metrics::CapabilitySource;
use super::programs::{Begun, Programs};
use super::source::{Overlooked, Source, SourceError};
use super::state::State;
use super::table::Now;
use super::{CapInfo, CapsInfo, Mark};
use crate::enrich::container::Cgroup;
use crate::enrich::metadata::Metadata;

pub(crate) const BOOT: &str = "0c2a4b1f7d0c4a5e9f0a2f6f0c1d2e3f";
pub(super) const OTHER_BOOT: &str = "11111111111111111111111111111111";
/// Unix time of the boot's beginning: 2026-11-26T12:00:00Z.
pub(super) const OFFSET: i64 = 1_795_694_400_000_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// The machine: what a kernel and a pipeline would say.
#[derive(Default)]
pub(crate) struct Machine {
    pub rows: HashMap<CapKey, CapCount>,
    capacity: usize,
    pub uncounted: Vec<u64>,
    pub skipped: u64,
    /// What a keeper left; taken once.
    pub marks: Vec<Mark>,
    pub overlooked: Overlooked,
    pub places: Vec<Place>,
    pub now: Now,
    pub offset: i64,
    /// Directories that exist besides those of the places.
    pub directories: HashSet<u64>,
    /// Directories that are removed, which nobody told the pipeline.
    pub lost: HashSet<u64>,
    pub pipeline_is_busy: bool,
    pub kernel_refuses: bool,
    /// What went uncounted cannot be read.
    pub counters_refused: bool,
    /// So many seconds pass while the rows are read.
    pub slow: u64,
    /// Checks that were made.
    pub made: u64,
    /// What the files at these paths have, as far as they can be looked at.
    pub files: HashMap<&'static [u8], u64>,
    /// Programs that run before anybody looks.
    pub running: HashMap<CgroupId, Arc<Programs>>,
    /// What those that may live where the last ones were looked for began, sorted.
    pub lived_with: Vec<Vec<u8>>,
    /// Programs that were looked for.
    pub looks: Vec<Vec<u8>>,
}

/// A machine that is shared with a keeper.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Machine>>);

impl World {
    pub(crate) fn new() -> Self {
        Self::with_room(CAP_LEDGER_ENTRIES as usize)
    }

    pub(crate) fn with_room(capacity: usize) -> Self {
        World(Arc::new(Mutex::new(Machine {
            capacity,
            uncounted: vec![0; 128],
            now: Now { boot: 1000 * SECOND, mono: 900 * SECOND },
            offset: OFFSET,
            ..Machine::default()
        })))
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }

    /// A keeper over it, with a state directory or without.
    pub(crate) fn keeper(&self, boot: &str, state: Option<State>) -> Keeper {
        self.keeper_with(boot, state, HashMap::new(), 0)
    }

    pub(crate) fn keeper_with(
        &self,
        boot: &str,
        state: Option<State>,
        seen: HashMap<u64, Sets>,
        unused_series: usize,
    ) -> Keeper {
        let (places, tree, clock) = (self.clone(), self.clone(), self.clone());
        let seen_programs = self.machine().running.clone();
        Keeper::new(KeeperParts {
            source: Box::new(self.clone()),
            places: Box::new(move || {
                let machine = places.machine();
                if machine.pipeline_is_busy { Err("busy".to_owned()) } else { Ok(machine.places.clone()) }
            }),
            seen,
            seen_programs,
            looker: Box::new(self.clone()),
            tree: Box::new(move || {
                let machine = tree.machine();
                let placed = machine.places.iter().filter(|place| !place.removed).map(|place| place.id.0);
                // The root is there, too.
                let others = machine.directories.iter().copied().chain([1]);
                Some(placed.chain(others).filter(|id| !machine.lost.contains(id)).collect())
            }),
            clock: Box::new(move || {
                let machine = clock.machine();
                (machine.now, machine.offset)
            }),
            state,
            boot: Arc::from(boot),
            metrics: CapabilitySource::default(),
            unused_series,
            // A loaded machine is no reason to fail.
            last: std::time::Duration::from_secs(600),
        })
    }

    /// So many seconds pass, with a look each ten.
    pub(crate) fn pass(&self, keeper: &mut Keeper, seconds: u64) {
        for _ in 0..seconds.div_ceil(10) {
            self.wait(10);
            keeper.round();
        }
    }

    pub(crate) fn wait(&self, seconds: u64) {
        let mut machine = self.machine();
        machine.now.boot += seconds * SECOND;
        machine.now.mono += seconds * SECOND;
    }

    /// A cgroup is made.
    pub(crate) fn make(&self, id: u64, path: &str) {
        let cgroup = Arc::new(Cgroup::new(path.as_bytes()));
        let named = cgroup.container().map(|container| {
            let name = format!("name-{}", container.id.trim_start_matches('0'));
            Arc::new(Metadata { name: Some(name), ..Metadata::default() })
        });
        self.machine().places.push(Place {
            id: CgroupId(id),
            cgroup,
            removed: false,
            before: false,
            grant: None,
            programs: None,
            own_user_ns: Some(false),
            named,
        });
    }

    pub(crate) fn place(&self, id: u64, change: impl FnOnce(&mut Place)) {
        let mut machine = self.machine();
        change(machine.places.iter_mut().find(|place| place.id.0 == id).unwrap());
    }

    /// Programs begin in it with these sets.
    pub(crate) fn grant(&self, id: u64, permitted: u64, bounding: u64) {
        let first = BootNs(self.machine().now.boot);
        self.place(id, |place| {
            let sets = Sets { permitted, bounding, ambient: 0 };
            place.grant = Some(Grant { sets, first, ..Grant::default() });
        });
    }

    /// Programs begin in it.
    pub(crate) fn begin(&self, id: u64, paths: &[&str], told: bool) {
        self.place(id, |place| {
            let programs = Arc::make_mut(place.programs.get_or_insert_default());
            for path in paths {
                programs.by_path.insert(Arc::from(path.as_bytes()), Begun { tgid: 5, told, mount_ns: 9 });
            }
        });
    }

    pub(crate) fn remove(&self, id: u64) {
        self.place(id, |place| place.removed = true);
    }

    /// The pipeline forgets what was removed.
    pub(crate) fn forget_removed(&self) {
        self.machine().places.retain(|place| !place.removed);
    }

    /// So many checks, as the programs count them.
    pub(crate) fn check(&self, cgroup_id: u64, cap: u16, flags: u16, times: u64) {
        let mut machine = self.machine();
        let machine = &mut *machine;
        machine.made += times;
        let key = CapKey { cgroup_id, cap, flags, pad: 0 };
        let now = machine.now.boot;
        if machine.rows.len() >= machine.capacity && !machine.rows.contains_key(&key) {
            machine.uncounted[cap_slot(cap.into(), flags & 1 != 0) as usize] += times;
            return;
        }
        let fresh =
            CapCount { count: 0, first_ns: now, last_ns: now, last_nr: NO_CALL, last_abi: 0, last_tick: 0 };
        let row = machine.rows.entry(key).or_insert(fresh);
        row.count += times;
        (row.last_ns, row.last_nr) = (now, 126);
    }
}

impl Source for World {
    fn rows(&mut self) -> Result<Vec<(CapKey, CapCount)>, SourceError> {
        let mut machine = self.machine();
        machine.now.boot += machine.slow * SECOND;
        machine.now.mono += machine.slow * SECOND;
        if machine.kernel_refuses {
            return Err(SourceError { what: "read", cause: "no".to_owned() });
        }
        Ok(machine.rows.iter().map(|(key, row)| (*key, *row)).collect())
    }

    fn remove(&mut self, keys: &[CapKey]) -> Result<(), SourceError> {
        let mut machine = self.machine();
        for key in keys {
            machine.rows.remove(key);
        }
        Ok(())
    }

    fn uncounted(&mut self) -> Result<Vec<u64>, SourceError> {
        let machine = self.machine();
        match machine.counters_refused {
            true => Err(SourceError { what: "read", cause: "no".to_owned() }),
            false => Ok(machine.uncounted.clone()),
        }
    }

    fn overlooked(&mut self) -> Result<Overlooked, SourceError> {
        Ok(self.machine().overlooked.clone())
    }

    fn skipped(&mut self) -> u64 {
        self.machine().skipped
    }

    fn marks(&mut self) -> Result<Vec<Mark>, SourceError> {
        Ok(std::mem::take(&mut self.machine().marks))
    }

    fn leave_marks(&mut self, rows: &[Mark]) -> Result<(), SourceError> {
        self.machine().marks = rows.to_vec();
        Ok(())
    }
}

impl Looker for World {
    fn look(&mut self, wanted: Vec<Wanted>) -> Vec<Looked> {
        let mut machine = self.machine();
        let mut looked = Vec::new();
        if !wanted.is_empty() {
            let living = wanted.iter().flat_map(|one| &one.living);
            let programs = living.flat_map(|living| &living.programs);
            machine.lived_with =
                programs.flat_map(|all| all.by_path.keys().map(|path| path.to_vec())).collect();
            machine.lived_with.sort();
        }
        for (whose, path) in
            wanted.iter().flat_map(|one| one.programs.keys().map(|path| (one.whose.clone(), path.clone())))
        {
            machine.looks.push(path.to_vec());
            if let Some(required) = machine.files.get(&*path).copied() {
                looked.push(Looked { whose, path, required });
            }
        }
        looked
    }
}

/// The id of 64 digits that stands for a number.
pub(crate) fn id(number: u64) -> String {
    format!("{number:064x}")
}

pub(crate) fn path(number: u64) -> String {
    format!("/docker/{}", id(number))
}

/// What is told of the container with this id.
pub(super) fn told(keeper: &Keeper, id: &str) -> CapsInfo {
    let listing = keeper.listing();
    let found = super::select(&listing.containers, id);
    assert_eq!(found.len(), 1, "{id} in {:?}", listing.containers);
    found[0].clone()
}

pub(super) fn cap(info: &CapsInfo, name: &str) -> CapInfo {
    let found = info.capabilities.iter().find(|cap| cap.capability == name);
    found.unwrap_or_else(|| panic!("no {name} in {info:?}")).clone()
}

/// Checks that are told of all containers, of all kinds.
pub(super) fn checks_told(keeper: &Keeper) -> u64 {
    let kept = keeper.table().archived().map(|kept| kept.run.checks());
    keeper.table().runs().map(|(run, _)| run.checks()).chain(kept).sum()
}

pub(super) fn state(dir: &Path) -> State {
    State::open(dir).unwrap()
}
