//! The types of events: watched calls, and what no single call tells.

use monitor_common::call::{CALL_SLOTS, Call};

/// What an event is about; its name is `evt.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A watched call returned.
    Call(Call),
    /// A process from outside began its first program in a container that already ran.
    Entered,
    /// A process was found in other namespaces than those of the container that it belongs to.
    Escaped,
    /// The kernel checked a capability for the first time in this way (see [`monitor_common::capability::CapKey`]).
    Capability,
    /// A task's credentials grew by a known door.
    Gained,
    /// A task's credentials were found to have grown, and no door was seen.
    GainedUnseen,
}

/// Number of event types, and of the numbers between them that stand for no call.
pub const TYPE_SLOTS: usize = CALL_SLOTS + 5;

impl EventType {
    /// The types that are no calls.
    pub const NO_CALLS: [EventType; 5] = [
        EventType::Entered,
        EventType::Escaped,
        EventType::Capability,
        EventType::Gained,
        EventType::GainedUnseen,
    ];
    /// Of these, the ones that tell where a process is.
    pub const MOVES: [EventType; 2] = [EventType::Entered, EventType::Escaped];
    /// Of these, the ones that tell of credentials that grew.
    pub const GAINS: [EventType; 2] = [EventType::Gained, EventType::GainedUnseen];

    /// Every type.
    pub fn all() -> impl Iterator<Item = EventType> {
        Call::ALL.iter().copied().map(EventType::Call).chain(Self::NO_CALLS)
    }

    /// The name in rules and alerts (`evt.type`).
    pub const fn name(self) -> &'static str {
        match self {
            EventType::Call(call) => call.name(),
            EventType::Entered => "entered",
            EventType::Escaped => "escaped",
            EventType::Capability => "capability",
            EventType::Gained => "gained",
            EventType::GainedUnseen => "gained_unseen",
        }
    }

    /// Its place in tables by type, below [`TYPE_SLOTS`]. It may change from version to version.
    pub const fn slot(self) -> usize {
        match self {
            EventType::Call(call) => call as usize,
            EventType::Entered => CALL_SLOTS,
            EventType::Escaped => CALL_SLOTS + 1,
            EventType::Capability => CALL_SLOTS + 2,
            EventType::Gained => CALL_SLOTS + 3,
            EventType::GainedUnseen => CALL_SLOTS + 4,
        }
    }

    /// The call, if it is one.
    pub const fn call(self) -> Option<Call> {
        match self {
            EventType::Call(call) => Some(call),
            _ => None,
        }
    }
}

impl From<Call> for EventType {
    fn from(call: Call) -> Self {
        EventType::Call(call)
    }
}

/// A set of event types, one bit per slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeSet(u32);

const _: () = assert!(TYPE_SLOTS <= u32::BITS as usize);

impl TypeSet {
    /// These types.
    pub fn of(types: impl IntoIterator<Item = impl Into<EventType>>) -> Self {
        TypeSet(types.into_iter().fold(0, |bits, ty| bits | 1 << ty.into().slot()))
    }

    /// Whether the type is a member.
    pub fn has(self, ty: impl Into<EventType>) -> bool {
        self.0 & 1 << ty.into().slot() != 0
    }

    /// Whether nothing is a member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members.
    pub fn iter(self) -> impl Iterator<Item = EventType> {
        EventType::all().filter(move |ty| self.has(*ty))
    }

    /// Whether the sets have a member in common.
    pub const fn meets(self, other: TypeSet) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_names_are_unique_and_in_range() {
        let all: Vec<EventType> = EventType::all().collect();
        for (i, ty) in all.iter().enumerate() {
            assert!(ty.slot() < TYPE_SLOTS, "{ty:?}");
            let same = |other: &&EventType| other.slot() == ty.slot() || other.name() == ty.name();
            assert_eq!(all.iter().filter(same).count(), 1, "{i}: {ty:?}");
        }
        assert_eq!(TypeSet::of(all.iter().copied()).iter().collect::<Vec<_>>(), all);
        assert!(!TypeSet::of(Call::ALL.iter().copied()).has(EventType::Entered));
    }
}
