//! The waiting room: events whose container has no name yet, kept for a moment until it has.
//!
//! Who waits delays nobody else: an event of another container passes by. Within a container the order of
//! arrival is kept. The room is bounded, and so is the part of it that one container may take, so that a flood
//! of one does not cost the others their names. Everything that enters leaves exactly once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use monitor_common::verdict::Verdict;

use crate::decode::RawCall;
use crate::enrich::Host;
use crate::enrich::container::Cgroup;
use crate::enrich::device::Device;
use crate::enrich::lineage::Ancestors;
use crate::enrich::names::Named;
use crate::enrich::namespaces::Facts;
use crate::enrich::process::{Lineage, Processes};
use crate::enrich::users::Users;
use crate::event::{CapFacts, Event};
use crate::event_type::EventType;

/// Events that may wait at once.
pub const ROOM: usize = 4096;
/// Of these, events of one container.
pub const ROOM_OF_ONE: usize = ROOM / 4;

/// Things that wait (`T`), by the container that they belong to (`K`).
///
/// All wait for the same time, so the order of arrival is that of the deadlines, too.
#[derive(Debug)]
pub struct Room<K, T> {
    /// By number of arrival.
    places: BTreeMap<u64, Place<K, T>>,
    /// The numbers of each container that has any, in order.
    by_container: HashMap<Arc<K>, VecDeque<u64>>,
    next: u64,
    capacity: usize,
    share: usize,
}

#[derive(Debug)]
struct Place<K, T> {
    container: Arc<K>,
    until: Instant,
    waiting: T,
}

impl<K: Eq + Hash, T> Room<K, T> {
    /// A room for `capacity` things, of which `share` may belong to one container; each at least one.
    pub fn new(capacity: usize, share: usize) -> Self {
        let capacity = capacity.max(1);
        Room {
            places: BTreeMap::new(),
            by_container: HashMap::new(),
            next: 0,
            capacity,
            share: share.clamp(1, capacity),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True if something of this container waits.
    pub fn holds(&self, container: &K) -> bool {
        !self.places.is_empty() && self.by_container.contains_key(container)
    }

    /// When the next one has waited long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.places.first_key_value().map(|(_, place)| place.until)
    }

    /// Lets something in, until it is called or `until`, which must not be earlier than that of the one before.
    /// If it is the container's share that is full, the container's oldest has to leave for it; if it is the
    /// room, the oldest of all.
    #[must_use = "what has to leave must go on its way"]
    pub fn enter(&mut self, container: &Arc<K>, until: Instant, waiting: T) -> Option<T> {
        let own = self.by_container.get(container).map_or(0, VecDeque::len);
        let leaves = if own >= self.share {
            self.call(container)
        } else if self.places.len() >= self.capacity {
            self.oldest()
        } else {
            None
        };
        let number = self.next;
        self.next += 1;
        self.by_container.entry(Arc::clone(container)).or_default().push_back(number);
        self.places.insert(number, Place { container: Arc::clone(container), until, waiting });
        leaves
    }

    /// The container's oldest leaves.
    pub fn call(&mut self, container: &K) -> Option<T> {
        let first = *self.by_container.get(container)?.front()?;
        self.leave(first)
    }

    /// The oldest leaves, if it has waited until `now`.
    pub fn due(&mut self, now: Instant) -> Option<T> {
        let (number, place) = self.places.first_key_value()?;
        if place.until > now {
            return None;
        }
        self.leave(*number)
    }

    /// The oldest of all leaves.
    pub fn oldest(&mut self) -> Option<T> {
        let number = *self.places.first_key_value()?.0;
        self.leave(number)
    }

    /// Whoever leaves is the oldest of its container.
    fn leave(&mut self, number: u64) -> Option<T> {
        let place = self.places.remove(&number)?;
        if let Some(numbers) = self.by_container.get_mut(&place.container) {
            debug_assert_eq!(numbers.front(), Some(&number));
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_container.remove(&place.container);
            }
        }
        Some(place.waiting)
    }
}

/// An event that was put by, with everything that may change before it goes on.
#[derive(Debug)]
pub struct Held {
    ty: EventType,
    /// But for the path.
    raw: RawCall<'static>,
    path: Box<[u8]>,
    verdict: Verdict,
    /// The caller alone, if it is known.
    caller: Lineage,
    /// The caller's parent, and its ancestors in turn.
    ancestors: Lineage,
    cgroup: Option<Arc<Cgroup>>,
    device: Option<Device>,
    namespaces: Facts,
    caps: Option<CapFacts>,
    /// When it happened: nanoseconds since 1970 UTC, by the offset of that time.
    pub unix_ns: i64,
}

impl Held {
    /// A copy of an event, which happened in this cgroup at `unix_ns`.
    pub fn of(event: &Event<'_>, processes: &Processes, cgroup: Option<Arc<Cgroup>>, unix_ns: i64) -> Self {
        let task = &event.raw.task;
        let mut caller = processes.lineage(task.process);
        caller.truncate(1);
        Held {
            ty: event.ty,
            path: event.raw.path.into(),
            raw: RawCall { path: &[], ..*event.raw },
            verdict: event.verdict,
            caller,
            // By the parent that the record names, as for every event: the caller itself may be unknown.
            ancestors: processes.lineage(task.parent),
            cgroup,
            device: event.device,
            namespaces: event.namespaces.clone(),
            caps: event.caps,
            unix_ns,
        }
    }

    /// The call as the kernel told it.
    pub fn raw(&self) -> RawCall<'_> {
        RawCall { path: &self.path, ..self.raw }
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_deref()
    }

    /// The event again, with what is now known of its container's name. `raw` is [`Held::raw`].
    pub fn event<'e>(
        &'e self,
        raw: &'e RawCall<'e>,
        named: Named<'e>,
        host: &'e Host,
        users: &'e Users,
    ) -> Event<'e> {
        Event {
            ty: self.ty,
            raw,
            verdict: self.verdict,
            process: self.caller.first().map(|process| &**process),
            ancestors: Ancestors::Kept(&self.ancestors),
            cgroup: self.cgroup(),
            named,
            device: self.device,
            namespaces: self.namespaces.clone(),
            caps: self.caps,
            host,
            users,
        }
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
