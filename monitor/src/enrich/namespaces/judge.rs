//! Where a call led, and whether a process is where it belongs.

use std::sync::Arc;

use monitor_common::call::Call;
use monitor_common::ids::NsInum;
use monitor_common::wire::call_flag;

use super::standing::{is_inside, lies_in};
use super::{At, Direction, Found, KindSet, Move, NET, Namespaces, Party, Place, Standing, TIME};
use crate::decode::{NsSet, RawCall};
use crate::event_type::EventType;

/// `CLONE_NEW*` by kind (include/uapi/linux/sched.h), without that of the time namespace.
const NEW: [u64; 8] =
    [0x0002_0000, 0x2000_0000, 0x1000_0000, 0x4000_0000, 0x0400_0000, 0x0800_0000, 0x0200_0000, 0];

impl Namespaces {
    /// Where a call that succeeded led. Notes what it made.
    pub(super) fn led(&mut self, place: &Place, raw: &RawCall<'_>) -> Option<Move> {
        let changed = KindSet::changed(&raw.ns_before, &raw.ns_after);
        let before_known = raw.has(call_flag::BEFORE_KNOWN)
            || raw.has(call_flag::NS_BEFORE_KNOWN)
            || raw.has(call_flag::CHILD);
        match raw.call {
            Call::Unshare | Call::Clone | Call::Clone3 => {
                let kinds = if before_known {
                    changed
                } else {
                    // What the kernel was told in a register; what it was told in memory is a claim.
                    let flags = if raw.call == Call::Clone3 { 0 } else { raw.args[0] };
                    KindSet::where_(|kind| flags & NEW[kind] != 0)
                };
                let maker = match place {
                    Place::Host => Party::HostMade,
                    Place::In(_) | Place::Unknown => place.party(),
                };
                for kind in kinds.iter() {
                    self.owners.made(raw.ns_after[kind], maker.clone(), raw.task.process, raw.boot);
                }
                Some(Move { direction: Some(Direction::New), from: place.party(), to: place.party() })
            }
            Call::Setns => {
                let kinds = if before_known { changed } else { self.not_its_own(place, &raw.ns_after) };
                let moves = kinds.iter().map(|kind| self.toward(place, kind, raw));
                let stays = Move { direction: Some(Direction::Own), from: place.party(), to: place.party() };
                Some(moves.max_by_key(Move::rank).unwrap_or(stays))
            }
            _ => None,
        }
    }

    /// Kinds in which a process is elsewhere than where it belongs: what setns changed, if nobody saw the state before.
    fn not_its_own(&self, place: &Place, ns: &NsSet) -> KindSet {
        let usual = match place {
            Place::Host => &self.host,
            Place::In(id) => match self.residents.get(id) {
                Some(resident) => &resident.base,
                None => return KindSet::where_(|kind| ns[kind].0 != 0),
            },
            Place::Unknown => return KindSet::where_(|kind| ns[kind].0 != 0),
        };
        KindSet::changed(usual, ns)
    }

    /// Where the entry into one namespace leads.
    fn toward(&self, place: &Place, kind: usize, raw: &RawCall<'_>) -> Move {
        let inum = raw.ns_after[kind];
        let owner = match (place, self.owners.of(inum).unwrap_or(Party::Unknown)) {
            (Place::In(id), Party::Container(other))
                if !is_inside(&other, id) && !self.holds(&other, inum) =>
            {
                Party::Unknown
            }
            (_, owner) => owner,
        };
        let direction = match (place, &owner) {
            (_, Party::Unknown) => None,
            (Place::Host, owner) if owner.is_host() => Some(Direction::Own),
            (Place::Host, _) => Some(Direction::HostToContainer),
            (Place::In(id), owner) => self.toward_from(id, kind, inum, owner),
            // Who belongs nobody knows where comes home to the host only if it was there before.
            (Place::Unknown, Party::Host) => {
                (raw.ns_before[kind] != inum).then_some(Direction::ContainerToHost)
            }
            (Place::Unknown, _) => None,
        };
        Move { direction, from: place.party(), to: owner }
    }

    /// The same for a process of a container.
    fn toward_from(&self, id: &str, kind: usize, inum: NsInum, owner: &Party) -> Option<Direction> {
        let resident = self.residents.get(id);
        if resident.is_some_and(|resident| resident.began_in(kind, inum)) {
            return Some(Direction::Own);
        }
        match owner {
            Party::Host => Some(Direction::ContainerToHost),
            // It may be the next pod's, which a network plugin in a container is to set up.
            Party::HostMade if kind == NET => None,
            // Where nobody saw the container begin, its own are still what a runtime made.
            Party::HostMade => resident.map(|_| Direction::ContainerToHost),
            Party::Container(other) if is_inside(other, id) => Some(Direction::Own),
            Party::Container(_) => Some(Direction::ContainerToContainer),
            Party::Unknown => None,
        }
    }

    /// True if what is known of a container's namespace may be held against another one's process: the container still
    /// runs, and the namespace is one of those in which it began, or one of its processes made it. A number that is left
    /// of its end, or of its run before, may be that of a new namespace.
    fn holds(&self, owner: &str, inum: NsInum) -> bool {
        self.residents.running(owner).is_some_and(|running| {
            self.owners.get(inum).is_some_and(|owned| !owned.is_base() || running.base.contains(&inum))
        })
    }

    /// Kinds in which a process of this container would be astray in these namespaces.
    pub(super) fn astray(&self, id: &str, ns: &NsSet) -> KindSet {
        let Some(resident) = self.residents.get(id) else { return KindSet::NONE };
        let apart = resident.apart(&self.host);
        KindSet::where_(|kind| {
            let inum = ns[kind];
            if inum.0 == 0 || !apart.has(kind) || resident.began_in(kind, inum) {
                return false;
            }
            match self.owners.of(inum) {
                Some(Party::Host) => true,
                Some(Party::HostMade) => kind != TIME && kind != NET,
                Some(Party::Container(other)) => {
                    kind != TIME && !is_inside(&other, id) && self.holds(&other, inum)
                }
                Some(Party::Unknown) | None => false,
            }
        })
    }

    /// Looks whether a process is where it belongs. Tells each kind once, and again if it has gone from another
    /// container's namespace into the host's.
    pub(super) fn judge(&mut self, at: At<'_>, ns: &NsSet, standing: &mut Standing) -> Option<Found> {
        let id = match standing.place(at.starting, at.cgroup) {
            Place::In(id) => id,
            Place::Host | Place::Unknown => return None,
        };
        let resident = self.residents.get(&id)?;
        let left = at.cgroup.filter(|cgroup| !lies_in(cgroup, &id));
        let astray = self.astray(&id, ns).without(standing.exempt);
        let kinds = match left {
            Some(_) => resident.apart(&self.host),
            // What was not read now is as it was.
            None => astray.or(standing.escaped.without(KindSet::where_(|kind| ns[kind].0 != 0))),
        };
        standing.escaped = kinds;
        let towards = |to: Party| Move {
            direction: Some(if to.is_host() {
                Direction::ContainerToHost
            } else {
                Direction::ContainerToContainer
            }),
            from: Party::Container(Arc::clone(&id)),
            to,
        };
        let to_namespaces = astray.iter().filter_map(|kind| {
            Some((towards(self.owners.of(ns[kind])?), KindSet::where_(|other| other == kind)))
        });
        let to_cgroup = left
            .map(|cgroup| cgroup.key.clone().map_or(Party::Host, Party::Container))
            .map(|party| (towards(party), kinds));
        let told = &mut standing.told;
        let news = to_namespaces.chain(to_cgroup).filter(|(led, kinds)| told.note(led.to.is_host(), *kinds));
        let led = news.map(|(led, _)| led).max_by_key(Move::rank)?;
        Some(Found { ty: EventType::Escaped, facts: self.facts(Some(led), ns, standing) })
    }
}
