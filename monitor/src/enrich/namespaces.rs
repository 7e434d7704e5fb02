//! Whose namespaces are whose, who entered a container from outside, and who left one.
//!
//! Three things are remembered: who owns a namespace ([`Owners`]), in which namespaces each container's first program
//! began ([`Residents`]), and with each process where it is at home ([`Standing`]). A container owns a namespace
//! if its first program began there and no other container has it, or if one of its processes made it; what runtimes
//! make for a container is the host's until then. All of it rests on inodes and cgroups, nothing on a name.

mod judge;
mod moves;
mod owners;
mod residents;
mod seed;
mod standing;
mod switches;

use std::sync::Arc;

use monitor_common::call::Call;
use monitor_common::ids::BootNs;
use monitor_common::wire::call_flag;

pub use self::moves::{Direction, KindSet, Move, Place};
pub use self::owners::{MAX_NAMESPACES, Owned, Owners, Party};
pub use self::residents::{MAX_CONTAINERS, Resident, Residents};
pub use self::seed::{Stray, namespaces_of, task_of};
pub use self::standing::{Entry, Home, Standing, Told, container_key, makers};
use self::standing::{is_inside, own_directory};
pub use self::switches::Switch;
use self::switches::Switches;
use crate::decode::{NsSet, ProcessKey, RawCall};
use crate::enrich::container::Cgroup;
use crate::enrich::process::same_process;
use crate::event_type::EventType;
use crate::fields::NS_KINDS;

/// Position of the mount namespace in an [`NsSet`].
const MNT: usize = 0;
/// Position of the network namespace: plugins of a pod enter those that the host made for a container before it begins.
const NET: usize = 3;
/// Position of the time namespace: what unshare makes of it shows only when a child is made or a program begins
/// (`timens_on_fork`), and nobody reports the number.
const TIME: usize = 7;

/// What an event tells of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    led: Option<Move>,
    owners: [Option<Party>; NS_KINDS.len()],
    /// How the process came into its container.
    pub entry: Option<Entry>,
    /// Kinds in which the process is astray.
    pub escaped: KindSet,
}

impl Facts {
    /// Where a call led, or where a process was found.
    pub fn direction(&self) -> Option<Direction> {
        self.led.as_ref().and_then(|led| led.direction)
    }

    /// Where the mover belongs.
    pub fn from(&self) -> Option<&Party> {
        self.led.as_ref().map(|led| &led.from)
    }

    /// Whose the namespace is that it moved into.
    pub fn to(&self) -> Option<&Party> {
        self.led.as_ref().map(|led| &led.to)
    }

    /// Whose the namespace of a kind is, by position in [`NS_KINDS`]; `None` where it was not read.
    pub fn owner(&self, kind: usize) -> Option<&Party> {
        self.owners.get(kind)?.as_ref()
    }
}

/// Something that no single call tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub ty: EventType,
    /// Whose namespaces.
    pub facts: Facts,
}

/// A process at a record: where it is in the cgroup tree, and how far its runtime is.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Which.
    pub process: ProcessKey,
    /// Where it is, if that is known.
    pub cgroup: Option<&'a Cgroup>,
    /// Its runtime is still at work.
    pub starting: bool,
    /// When.
    pub boot: BootNs,
}

/// The known namespaces.
#[derive(Debug)]
pub struct Namespaces {
    host: NsSet,
    owners: Owners,
    residents: Residents,
    switches: Switches,
}

impl Namespaces {
    /// Nothing but the host's own.
    pub fn new(host: NsSet) -> Self {
        Namespaces {
            host,
            owners: Owners::new(host, MAX_NAMESPACES),
            residents: Residents::new(MAX_CONTAINERS),
            switches: Switches::default(),
        }
    }

    /// Who owns what.
    pub const fn owners(&self) -> &Owners {
        &self.owners
    }

    /// The containers whose first program was seen.
    pub const fn residents(&self) -> &Residents {
        &self.residents
    }

    /// Takes the number of entries that were given up for want of room.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.owners.evicted)
            + std::mem::take(&mut self.residents.refused)
            + std::mem::take(&mut self.switches.refused)
    }

    /// A cgroup was made.
    pub fn cgroup_made(&mut self, path: &[u8]) {
        if let Some(id) = own_directory(path) {
            self.residents.anew(&id);
        }
    }

    /// A cgroup was removed.
    pub fn cgroup_removed(&mut self, path: &[u8], now: BootNs) {
        if let Some(id) = own_directory(path) {
            self.residents.removed(&id, now);
        }
        self.expire(now);
    }

    /// Forgets what belonged to containers that have been gone for a minute.
    pub fn expire(&mut self, now: BootNs) {
        let expired = self.residents.expire(now);
        if !expired.is_empty() {
            self.owners.forget(&expired);
        }
    }

    /// A process ended.
    pub fn exited(&mut self, process: ProcessKey, standing: &Standing) {
        if let Home::In(id) = &standing.home {
            self.residents.ended(id, process);
        }
    }

    /// A process of which nobody knows where it belongs is seen in a cgroup: if that lies in a container
    /// that runs, it belongs there, unless its runtime is at work.
    pub fn seen_in(&self, cgroup: Option<&Cgroup>, starting: bool, standing: &mut Standing) {
        if standing.home == Home::Unknown
            && !starting
            && let Some(id) = cgroup.and_then(|cgroup| cgroup.key.clone())
            // Else it may be the one that begins it.
            && self.residents.running(&id).is_some()
        {
            standing.home = Home::In(id);
        }
    }

    /// A process is in another cgroup than it, or its maker, was.
    pub fn moved(&mut self, at: At<'_>, standing: &mut Standing) -> Option<Found> {
        let Home::In(_) = &standing.home else { return None };
        self.judge(at, &NsSet::default(), standing)
    }

    /// A process exec'ed; `was_starting`: its runtime was at work until then.
    pub fn execed(
        &mut self,
        at: At<'_>,
        was_starting: bool,
        ns: &NsSet,
        standing: &mut Standing,
    ) -> Vec<Found> {
        let Some(cgroup) = at.cgroup else { return self.judge(at, ns, standing).into_iter().collect() };
        let Some(container) = cgroup.key.clone() else {
            if standing.home == Home::Unknown {
                standing.home = Home::Host;
            }
            return self.judge(at, ns, standing).into_iter().collect();
        };
        if at.starting {
            standing.home = Home::Host;
            return Vec::new();
        }
        let mut found = Vec::new();
        let inside = ns[MNT].0 != 0 && ns[MNT] != self.host[MNT];
        let settles = match &standing.home {
            // Its start took too long, but it begins the container after all.
            Home::In(id) if *id == container => inside && self.residents.get(id).is_none(),
            // From an outer container into one that it runs. What it is on the way is still the outer one's doing.
            Home::In(id) => {
                let outer = self.residents.get(id);
                inside
                    && is_inside(&container, id)
                    && outer.is_some_and(|outer| !outer.began_in(MNT, ns[MNT]))
            }
            Home::Host => inside || was_starting,
            Home::Unknown => inside,
        };
        if settles && !matches!(standing.home, Home::In(_)) {
            found.extend(self.settle(at, container, ns, standing));
        } else {
            found.extend(self.judge(at, ns, standing));
            if settles {
                found.extend(self.settle(at, container, ns, standing));
            }
        }
        found
    }

    /// A process has been starting for too long, as one that a restore forked into the container and that never
    /// exec's. It is at home in its cgroup's container: with its parent, or as if its program began now.
    pub fn started(
        &mut self,
        at: At<'_>,
        parent: &Standing,
        ns: &NsSet,
        standing: &mut Standing,
    ) -> Option<Found> {
        let id = at.cgroup?.key.clone()?;
        match &standing.home {
            Home::In(_) => {}
            _ if parent.home == Home::In(Arc::clone(&id)) => *standing = parent.clone(),
            _ if ns[MNT].0 != 0 && ns[MNT] != self.host[MNT] => return self.settle(at, id, ns, standing),
            _ => standing.home = Home::In(id),
        }
        self.judge(at, ns, standing)
    }

    /// A process is at home in the innermost container of its cgroup from now on.
    fn settle(&mut self, at: At<'_>, id: Arc<str>, ns: &NsSet, standing: &mut Standing) -> Option<Found> {
        let from = standing.place(true, at.cgroup);
        let running = self.residents.running(&id);
        let is_main = running.is_none_or(|running| same_process(running.main, at.process));
        let came_from_outside = standing.home != Home::Unknown;
        standing.home = Home::In(Arc::clone(&id));
        if is_main {
            self.claim(&id, at, ns);
            self.residents.began(&id, at.process, *ns);
            (standing.entry, standing.exempt) = (Some(Entry::Main), KindSet::NONE);
            return None;
        }
        if !came_from_outside {
            // Nobody knows who brought it in, if anybody did.
            return self.judge(at, ns, standing);
        }
        // Whoever brought it in chose what it enters.
        (standing.entry, standing.exempt) = (Some(Entry::Exec), self.astray(&id, ns));
        let direction = match &from {
            Place::In(outer) if is_inside(&id, outer) => Direction::Own,
            _ => Direction::HostToContainer,
        };
        let led = Move { direction: Some(direction), from: from.party(), to: Party::Container(id) };
        Some(Found { ty: EventType::Entered, facts: self.facts(Some(led), ns, standing) })
    }

    /// A container's first program begins: the namespaces that nobody else has are its own.
    fn claim(&mut self, id: &Arc<str>, at: At<'_>, ns: &NsSet) {
        for (kind, inum) in ns.iter().enumerate() {
            let others = match self.owners.of(*inum) {
                Some(Party::Host) | None => true,
                Some(Party::HostMade | Party::Unknown) => false,
                Some(Party::Container(other)) if other == *id => false,
                // One around it made it for this one, unless it lives there itself.
                Some(Party::Container(other)) if is_inside(id, &other) => {
                    self.residents.get(&other).is_some_and(|outer| outer.began_in(kind, *inum))
                }
                Some(Party::Container(other)) => self.residents.running(&other).is_some(),
            };
            if !others {
                self.owners.claim(*inum, Party::Container(Arc::clone(id)), at.process, at.boot);
            }
        }
    }

    /// A watched call returned, and for `allowed` it succeeded. Gives what it tells, and an escape that it shows.
    pub fn called(
        &mut self,
        at: At<'_>,
        raw: &RawCall<'_>,
        allowed: bool,
        standing: &mut Standing,
    ) -> (Facts, Option<Found>) {
        if allowed && matches!(raw.call, Call::Setns | Call::Unshare) {
            self.switches.told(raw.task.tid);
        }
        let place = standing.place(at.starting, at.cgroup);
        if standing.home == Home::Unknown && !at.starting {
            standing.home = match (&place, at.cgroup) {
                (Place::In(id), _) => Home::In(Arc::clone(id)),
                (Place::Host, Some(_)) => Home::Host,
                _ => Home::Unknown,
            };
        }
        let led = if allowed { self.led(&place, raw) } else { None };
        let child = raw.has(call_flag::CHILD);
        let own = if child { &raw.ns_before } else { &raw.ns_after };
        let found = if at.starting { None } else { self.judge(at, own, standing) };
        (self.facts(led, &raw.ns_after, standing), found)
    }

    /// Whose the namespaces are that a process is in, where it went nowhere.
    pub fn whose(&self, ns: &NsSet, standing: &Standing) -> Facts {
        self.facts(None, ns, standing)
    }

    fn facts(&self, led: Option<Move>, ns: &NsSet, standing: &Standing) -> Facts {
        Facts {
            led,
            owners: ns.map(|inum| self.owners.of(inum)),
            entry: standing.entry,
            escaped: standing.escaped,
        }
    }
}

#[cfg(test)]
mod tests;
