//! The containers whose first program was seen: the namespaces in which it began are the measure of all others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use monitor_common::ids::{BootNs, NsInum};

use super::KindSet;
use crate::decode::{NsSet, ProcessKey};
use crate::enrich::process::same_process;

/// Bound of the table: more than one machine runs.
pub const MAX_CONTAINERS: usize = 16_384;
/// How long a container is remembered when its cgroup is gone.
const KEEP_GONE_NS: u64 = 60_000_000_000;

/// A container that runs, or ran a minute ago.
#[derive(Clone, Debug)]
pub struct Resident {
    /// Its first program's process.
    pub main: ProcessKey,
    /// The namespaces in which its first program began.
    pub base: NsSet,
    /// Its first program has ended, or its cgroup is gone: who comes in next begins it anew.
    pub over: bool,
    /// When its cgroup was removed.
    gone: Option<BootNs>,
}

impl Resident {
    /// The kinds of which it has a namespace of its own, or shares one with other containers, but not the host's.
    pub fn apart(&self, host: &NsSet) -> KindSet {
        KindSet::where_(|kind| self.base[kind].0 != 0 && self.base[kind] != host[kind])
    }

    /// True if the namespace of that kind is the one in which its first program began.
    pub fn began_in(&self, kind: usize, inum: NsInum) -> bool {
        inum.0 != 0 && self.base.get(kind) == Some(&inum)
    }
}

/// The known containers by key.
#[derive(Debug)]
pub struct Residents {
    table: HashMap<Arc<str>, Resident>,
    gone: VecDeque<(BootNs, Arc<str>)>,
    capacity: usize,
    /// Containers that found no room since the number was last taken.
    pub refused: u64,
}

impl Residents {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        Residents { table: HashMap::new(), gone: VecDeque::new(), capacity: capacity.max(1), refused: 0 }
    }

    /// The container with this key.
    pub fn get(&self, id: &str) -> Option<&Resident> {
        self.table.get(id)
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Resident)> {
        self.table.iter()
    }

    /// The container, if its first program still runs.
    pub fn running(&self, id: &str) -> Option<&Resident> {
        self.get(id).filter(|resident| !resident.over)
    }

    /// A container's first program began; false if there is no room.
    pub fn began(&mut self, id: &Arc<str>, main: ProcessKey, base: NsSet) -> bool {
        if self.table.len() >= self.capacity && !self.table.contains_key(id) {
            self.refused += 1;
            return false;
        }
        self.table.insert(Arc::clone(id), Resident { main, base, over: false, gone: None });
        true
    }

    /// A process ended.
    pub fn ended(&mut self, id: &str, process: ProcessKey) {
        if let Some(resident) = self.table.get_mut(id)
            && same_process(resident.main, process)
        {
            resident.over = true;
        }
    }

    /// Its cgroup was made: whatever ran there before is over, as after a restart.
    pub fn anew(&mut self, id: &str) {
        if let Some(resident) = self.table.get_mut(id) {
            resident.over = true;
            resident.gone = None;
        }
    }

    /// Its cgroup was removed.
    pub fn removed(&mut self, id: &str, now: BootNs) {
        let Some((id, _)) = self.table.get_key_value(id) else { return };
        let id = Arc::clone(id);
        if let Some(resident) = self.table.get_mut(&id) {
            (resident.over, resident.gone) = (true, Some(now));
        }
        self.gone.push_back((now, id));
        // One that comes and goes over and over stands in the queue more than once.
        if self.gone.len() > 2 * self.capacity {
            let table = &self.table;
            self.gone.retain(|(when, id)| table.get(id).is_some_and(|resident| resident.gone == Some(*when)));
        }
    }

    /// Forgets the containers that have been gone for a minute, and gives their keys.
    pub fn expire(&mut self, now: BootNs) -> HashSet<Arc<str>> {
        let mut expired = HashSet::new();
        while let Some((when, _)) = self.gone.front()
            && now.0.saturating_sub(when.0) >= KEEP_GONE_NS
        {
            let Some((when, id)) = self.gone.pop_front() else { break };
            // It may have come back since.
            if self.table.get(&id).is_some_and(|resident| resident.gone == Some(when)) {
                self.table.remove(&id);
                expired.insert(id);
            }
        }
        expired
    }

    /// Number of known containers.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if none is known.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
