//! From a namespace's inode to whose it is.
//!
//! The kernel gives a freed inode number to the next namespace at once (`ida_alloc_min` in `proc_alloc_inum`), of
//! whatever kind, so an entry is replaced as soon as the number shows up as made.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use monitor_common::ids::{BootNs, NsInum};

use super::standing::short_id;
use crate::decode::{NsSet, ProcessKey};

/// Whose a namespace is, or where a process belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// The host: one of the namespaces that process 1 is in.
    Host,
    /// A process of the host made it, and no container has it: that of a service, or of `ip netns`.
    HostMade,
    /// A container, by its key.
    Container(Arc<str>),
    /// Nobody knows.
    Unknown,
}

impl Party {
    /// In short: host, the container's id as in `container.id`, or unknown.
    pub fn name(&self) -> &str {
        match self {
            Party::Host | Party::HostMade => "host",
            Party::Container(key) => short_id(key),
            Party::Unknown => "unknown",
        }
    }

    /// The same, but what a process of the host made is told from the host's own.
    pub fn exactly(&self) -> &str {
        if *self == Party::HostMade { "host-made" } else { self.name() }
    }

    /// True for what is no container's.
    pub const fn is_host(&self) -> bool {
        matches!(self, Party::Host | Party::HostMade)
    }
}

/// What is known about a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Whose it is.
    pub owner: Party,
    /// The process that made it, or was found in it first.
    pub made_by: ProcessKey,
    /// When that was.
    pub since: BootNs,
    /// It is one of those in which a container's first program began; it stays until the container is gone.
    pinned: bool,
}

impl Owned {
    /// True if it is one of those in which its container's first program began.
    pub const fn is_base(&self) -> bool {
        self.pinned
    }
}

/// Bound of the table. The kernel's own bound (`max_*_namespaces`) is of the same order on small machines.
pub const MAX_NAMESPACES: usize = 65_536;

/// The known namespaces by inode.
#[derive(Debug)]
pub struct Owners {
    host: NsSet,
    table: HashMap<NsInum, Owned>,
    /// What may be given up if room is needed, oldest first: what containers made, then what the host made.
    order: [VecDeque<(NsInum, BootNs)>; 2],
    capacity: usize,
    /// Namespaces that were forgotten, or found no room, since the number was last taken.
    pub evicted: u64,
}

impl Owners {
    /// An empty table on a host with these namespaces.
    pub fn new(host: NsSet, capacity: usize) -> Self {
        Owners {
            host,
            table: HashMap::new(),
            order: Default::default(),
            capacity: capacity.max(1),
            evicted: 0,
        }
    }

    /// Number of known namespaces, the host's own not counted.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if none is known.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What is known about a namespace that is not the host's own.
    pub fn get(&self, inum: NsInum) -> Option<&Owned> {
        self.table.get(&inum)
    }

    /// Whose it is; `None` for 0, which stands for no namespace.
    pub fn of(&self, inum: NsInum) -> Option<Party> {
        if inum.0 == 0 {
            return None;
        }
        if self.host.contains(&inum) {
            return Some(Party::Host);
        }
        Some(self.table.get(&inum).map_or(Party::Unknown, |owned| owned.owner.clone()))
    }

    /// A namespace was made: whatever was known under its number is of another one.
    pub fn made(&mut self, inum: NsInum, owner: Party, made_by: ProcessKey, since: BootNs) {
        self.insert(inum, Owned { owner, made_by, since, pinned: false });
    }

    /// A container's first program began in a namespace that nobody else has.
    pub fn claim(&mut self, inum: NsInum, owner: Party, by: ProcessKey, when: BootNs) {
        let maker = self.table.get(&inum).map(|known| (known.made_by, known.since));
        let (made_by, since) = maker.unwrap_or((by, when));
        self.insert(inum, Owned { owner, made_by, since, pinned: true });
    }

    fn insert(&mut self, inum: NsInum, owned: Owned) {
        if inum.0 == 0 || self.host.contains(&inum) {
            return;
        }
        if self.table.len() >= self.capacity && !self.table.contains_key(&inum) && !self.make_room() {
            self.evicted += 1;
            return;
        }
        if !owned.pinned {
            let queue = usize::from(owned.owner == Party::HostMade);
            self.order[queue].push_back((inum, owned.since));
        }
        self.table.insert(inum, owned);
        for queue in &mut self.order {
            // Numbers that are made over and over stand in it more than once.
            if queue.len() > 2 * self.capacity {
                let table = &self.table;
                queue.retain(|(inum, since)| is_current(table, *inum, *since));
            }
        }
    }

    /// Gives up the oldest namespace that is not pinned; false if there is none.
    fn make_room(&mut self) -> bool {
        for queue in &mut self.order {
            while let Some((inum, since)) = queue.pop_front() {
                if is_current(&self.table, inum, since) {
                    self.table.remove(&inum);
                    self.evicted += 1;
                    return true;
                }
            }
        }
        false
    }

    /// Forgets what belonged to these containers.
    pub fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        self.table.retain(|_, owned| match &owned.owner {
            Party::Container(id) => !gone.contains(id),
            _ => true,
        });
    }
}

/// True if the entry is still the one that was noted, and may be given up.
fn is_current(table: &HashMap<NsInum, Owned>, inum: NsInum, since: BootNs) -> bool {
    table.get(&inum).is_some_and(|owned| owned.since == since && !owned.pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: NsSet = [NsInum(1); 8];

    fn container(id: &str) -> Party {
        Party::Container(Arc::from(id))
    }

    fn by(start: u64) -> ProcessKey {
        ProcessKey { start: BootNs(start), ..ProcessKey::default() }
    }

    #[test]
    fn the_hosts_own_are_the_hosts_whatever_is_said() {
        let mut owners = Owners::new(HOST, 10);
        owners.made(NsInum(1), container("a"), by(1), BootNs(1));
        owners.claim(NsInum(1), container("a"), by(1), BootNs(1));
        assert_eq!(owners.of(NsInum(1)), Some(Party::Host));
        assert_eq!((owners.of(NsInum(0)), owners.of(NsInum(2))), (None, Some(Party::Unknown)));
    }

    #[test]
    fn a_number_that_is_made_again_is_another_namespace() {
        let mut owners = Owners::new(HOST, 10);
        owners.claim(NsInum(7), container("a"), by(1), BootNs(1));
        owners.made(NsInum(7), Party::HostMade, by(2), BootNs(2));
        assert_eq!(owners.of(NsInum(7)), Some(Party::HostMade));
        // Who claims it did not make it.
        owners.claim(NsInum(7), container("b"), by(3), BootNs(3));
        let owned = owners.get(NsInum(7)).unwrap();
        assert_eq!((&owned.owner, owned.made_by, owned.since), (&container("b"), by(2), BootNs(2)));
        owners.forget(&HashSet::from([Arc::from("a")]));
        assert_eq!(owners.of(NsInum(7)), Some(container("b")), "not a's any more");
        owners.forget(&HashSet::from([Arc::from("b")]));
        assert_eq!(owners.len(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_what_containers_make_goes_first() {
        let mut owners = Owners::new(HOST, 3);
        owners.made(NsInum(10), Party::HostMade, by(1), BootNs(1));
        owners.claim(NsInum(11), container("a"), by(1), BootNs(1));
        for inum in 100..200 {
            owners.made(NsInum(inum), container("a"), by(2), BootNs(u64::from(inum)));
        }
        assert_eq!((owners.len(), owners.evicted), (3, 99));
        assert_eq!(owners.of(NsInum(10)), Some(Party::HostMade));
        assert_eq!(owners.of(NsInum(11)), Some(container("a")));
        assert_eq!(owners.of(NsInum(199)), Some(container("a")));
        // Where everything is pinned, there is no room.
        owners.claim(NsInum(12), container("a"), by(3), BootNs(3));
        owners.claim(NsInum(13), container("a"), by(3), BootNs(3));
        owners.claim(NsInum(14), container("a"), by(3), BootNs(3));
        assert_eq!((owners.len(), owners.of(NsInum(14))), (3, Some(Party::Unknown)));
    }

    #[test]
    fn the_queues_are_bounded_when_numbers_are_made_over_and_over() {
        let mut owners = Owners::new(HOST, 4);
        for time in 0..1000 {
            owners.made(NsInum(5), container("a"), by(1), BootNs(time));
        }
        assert!(owners.order[0].len() <= 8, "{}", owners.order[0].len());
        assert_eq!((owners.len(), owners.evicted), (1, 0));
    }
}
