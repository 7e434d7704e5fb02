//! From whose namespaces into whose: the direction of a move.

use std::fmt;
use std::sync::Arc;

use super::Party;
use crate::decode::NsSet;
use crate::fields::NS_KINDS;

/// Kinds of namespace, one bit each in the order of [`NS_KINDS`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct KindSet(u8);

const _: () = assert!(NS_KINDS.len() == u8::BITS as usize);

impl KindSet {
    /// None.
    pub const NONE: KindSet = KindSet(0);

    /// The kinds that fit, by position.
    pub fn where_(fits: impl Fn(usize) -> bool) -> Self {
        KindSet((0..NS_KINDS.len()).fold(0, |bits, kind| bits | u8::from(fits(kind)) << kind))
    }

    /// The kinds that two sets both know and that differ.
    pub fn changed(before: &NsSet, after: &NsSet) -> Self {
        Self::where_(|kind| before[kind].0 != 0 && after[kind].0 != 0 && before[kind] != after[kind])
    }

    /// True if the kind is a member.
    pub const fn has(self, kind: usize) -> bool {
        kind < NS_KINDS.len() && self.0 & 1 << kind != 0
    }

    /// True if nothing is a member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of either.
    pub const fn or(self, other: KindSet) -> KindSet {
        KindSet(self.0 | other.0)
    }

    /// Members of this one alone.
    pub const fn without(self, other: KindSet) -> KindSet {
        KindSet(self.0 & !other.0)
    }

    /// The members, by position.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..NS_KINDS.len()).filter(move |kind| self.has(*kind))
    }
}

impl fmt::Debug for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|kind| NS_KINDS[kind])).finish()
    }
}

/// Where a move led, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Into namespaces that are the mover's own: those of its container, of one inside it, or for the host the host's.
    Own,
    /// Into namespaces that the call made.
    New,
    /// From the host into a container's.
    HostToContainer,
    /// From a container into another container's.
    ContainerToContainer,
    /// From a container into the host's.
    ContainerToHost,
}

impl Direction {
    /// The word in events (`ns.direction`).
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Own => "own",
            Direction::New => "new",
            Direction::HostToContainer => "host_to_container",
            Direction::ContainerToContainer => "container_to_container",
            Direction::ContainerToHost => "container_to_host",
        }
    }
}

/// Where a process belongs, which it cannot change by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host; also on its way into a container.
    Host,
    /// A container, by its key.
    In(Arc<str>),
    /// Nobody knows.
    Unknown,
}

impl Place {
    /// As a party.
    pub fn party(&self) -> Party {
        match self {
            Place::Host => Party::Host,
            Place::In(id) => Party::Container(Arc::clone(id)),
            Place::Unknown => Party::Unknown,
        }
    }
}

/// A move that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where to; `None` if nobody knows whose the namespace is.
    pub direction: Option<Direction>,
    /// Where the mover belongs.
    pub from: Party,
    /// Whose the namespace is.
    pub to: Party,
}

impl Move {
    /// How bad it is: of several kinds the worst is told.
    pub fn rank(&self) -> u8 {
        match self.direction {
            Some(Direction::Own) => 0,
            Some(Direction::New) => 1,
            // For the host it is of little interest; a container's may be anything.
            None if self.from.is_host() => 2,
            Some(Direction::HostToContainer) => 3,
            None => 4,
            Some(Direction::ContainerToContainer) => 5,
            Some(Direction::ContainerToHost) => 6,
        }
    }
}
