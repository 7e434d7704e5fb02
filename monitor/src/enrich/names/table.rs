//! What is known of each container's name. No channel, no clock: whoever drives it says what happened and when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::enrich::container::Container;
use crate::enrich::metadata::{Metadata, Miss};

/// Containers in the table, at most. Each holds what its runtime wrote about it: a few kilobytes.
pub const MAX_NAMES: usize = 4096;
/// The part of the table that containers of users without root's help may take: one of so many.
const USERS_PART: usize = 4;
/// What is known of a container inside another one: whose files they are that name it, and nothing else.
static NESTED: State = State::Missing(Miss::Nested);
/// How long a container is remembered when its last cgroup is gone: records of its last processes may still be on
/// their way, and alerts about them shall name it.
pub(super) const KEEP_GONE: Duration = Duration::from_secs(60);

/// After this time an event of the container has its name read again: it may have been renamed, or its runtime may
/// be found only now. Until the answer comes, what was known counts.
pub(super) const REREAD: Duration = Duration::from_secs(60);

/// What is known of a container's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody was asked yet: there was no room for the question.
    Unasked,
    /// It is being read.
    Pending,
    /// What its runtime wrote.
    Known(Arc<Metadata>),
    /// Nothing was found, and why.
    Missing(Miss),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Which question was asked last, and when.
    number: u64,
    asked: Option<Instant>,
    /// Known cgroups of the container that were not removed.
    cgroups: u32,
    /// When the last of them was removed.
    gone: Option<Instant>,
}

/// The known containers. Their whole identity is the key: a user without root's help, and whoever may make
/// cgroups inside a container, may give them the id of another one.
#[derive(Debug)]
pub struct Table {
    entries: HashMap<Arc<Container>, Entry>,
    capacity: usize,
    /// How many of them are users' containers.
    users: usize,
    number: u64,
    /// Containers that found no room, or lost it before their time, since the number was last taken.
    pub(super) evicted: u64,
}

impl Table {
    /// An empty table for at most `capacity` containers.
    pub fn new(capacity: usize) -> Self {
        Table { entries: HashMap::new(), capacity: capacity.max(1), users: 0, number: 0, evicted: 0 }
    }

    /// Number of known containers, those included that are gone.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a container; `None` if the container itself is not. One inside another takes no room, for
    /// its answer never changes.
    pub fn state(&self, container: &Container) -> Option<&State> {
        if container.nested {
            return Some(&NESTED);
        }
        self.entries.get(container).map(|entry| &entry.state)
    }

    /// The key of a container whose name is being read.
    pub fn pending(&self, container: &Container) -> Option<Arc<Container>> {
        let (key, entry) = self.entries.get_key_value(container)?;
        (entry.state == State::Pending).then(|| Arc::clone(key))
    }

    /// A cgroup of the container was found. True if its name has to be asked for: it is new, or it was gone and is
    /// started again, perhaps under another name.
    pub fn found(&mut self, container: &Arc<Container>) -> bool {
        if container.nested {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(container) {
            entry.cgroups = entry.cgroups.saturating_add(1);
            let again = entry.gone.take().is_some();
            if again {
                entry.state = State::Unasked;
            }
            return again;
        }
        if !self.make_room(container.user.is_some()) {
            return false;
        }
        self.users += usize::from(container.user.is_some());
        let entry = Entry { state: State::Unasked, number: 0, asked: None, cgroups: 1, gone: None };
        self.entries.insert(Arc::clone(container), entry);
        true
    }

    /// Makes room for one more. A user names its cgroups as it likes, so its containers have a part of the table
    /// and give way to the system's; they themselves take the place of users' dead ones only.
    fn make_room(&mut self, user: bool) -> bool {
        let part_is_full = user && self.users >= self.capacity / USERS_PART;
        if self.entries.len() < self.capacity && !part_is_full {
            return true;
        }
        self.evicted += 1;
        // Whoever is gone for the longest needs its name the least. None of the system's who lives gives way.
        let others = self.entries.iter().filter(|(key, entry)| match key.user {
            Some(_) => !user || entry.gone.is_some(),
            None => !user && entry.gone.is_some(),
        });
        let first = others.min_by_key(|(key, entry)| (key.user.is_none(), entry.gone.is_none(), entry.gone));
        let Some(first) = first.map(|(key, _)| Arc::clone(key)) else { return false };
        self.entries.remove(&first);
        self.users -= usize::from(first.user.is_some());
        true
    }

    /// A cgroup of the container was removed.
    pub fn removed(&mut self, container: &Container, now: Instant) {
        if let Some(entry) = self.entries.get_mut(container) {
            entry.cgroups = entry.cgroups.saturating_sub(1);
            if entry.cgroups == 0 {
                entry.gone.get_or_insert(now);
            }
        }
    }

    /// Whether the container has to be asked for at an event of it: nobody was asked yet, or that was long ago.
    pub fn wants(&self, container: &Container, now: Instant) -> bool {
        self.entries.get(container).is_some_and(|entry| match (&entry.state, entry.asked) {
            (State::Unasked, _) | (_, None) => true,
            (State::Pending, _) => false,
            (_, Some(asked)) => entry.gone.is_none() && now.saturating_duration_since(asked) >= REREAD,
        })
    }

    /// The number for the next question.
    pub fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// The next question was asked, about this container.
    pub fn asked(&mut self, container: &Container, now: Instant) {
        self.number += 1;
        if let Some(entry) = self.entries.get_mut(container) {
            if entry.state == State::Unasked {
                entry.state = State::Pending;
            }
            entry.number = self.number;
            entry.asked = Some(now);
        }
    }

    /// An answer came. Gives the container's key if its name was awaited and is no longer. An answer to another
    /// question than the last one counts nothing, and a look in vain takes no name away that was found before.
    pub fn answered(
        &mut self,
        container: &Container,
        number: u64,
        outcome: Result<Arc<Metadata>, Miss>,
    ) -> Option<Arc<Container>> {
        let key = self.pending(container);
        let entry = self.entries.get_mut(container).filter(|entry| entry.number == number)?;
        match (outcome, &entry.state) {
            (Ok(metadata), _) => entry.state = State::Known(metadata),
            (Err(_), State::Known(_)) => {}
            (Err(miss), _) => entry.state = State::Missing(miss),
        }
        key
    }

    /// Forgets whoever has been gone for a minute.
    pub fn forget(&mut self, now: Instant) {
        self.entries
            .retain(|_, entry| entry.gone.is_none_or(|gone| now.saturating_duration_since(gone) < KEEP_GONE));
        self.users = self.entries.keys().filter(|key| key.user.is_some()).count();
    }
}
