//! The fields of events about capabilities that are no calls.

use monitor_common::capability::{CapSets, cap_flag};
use monitor_common::verdict::{RefusedBy, Verdict};
use monitor_common::wire::gain_flag;

use super::{Event, some};
use crate::capabilities::cap_name;
use crate::decode::{RawCheck, RawGain};
use crate::event_type::EventType;
use crate::fields::{Field, Value, owned_list};
use crate::syscall_names;

/// What an event about capabilities tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapFacts {
    /// Of [`EventType::Capability`].
    Check(RawCheck),
    /// Of [`EventType::Gained`] and [`EventType::GainedUnseen`].
    Gain(RawGain),
}

impl CapFacts {
    /// The type of the event.
    pub const fn event_type(&self) -> EventType {
        match self {
            CapFacts::Check(_) => EventType::Capability,
            CapFacts::Gain(RawGain { unseen: false, .. }) => EventType::Gained,
            CapFacts::Gain(_) => EventType::GainedUnseen,
        }
    }

    /// How it ended: a gain has happened.
    pub const fn verdict(&self) -> Verdict {
        match self {
            CapFacts::Check(check) if check.has(cap_flag::DENIED) => Verdict::Refused(RefusedBy::Capability),
            CapFacts::Check(_) | CapFacts::Gain(_) => Verdict::Allowed,
        }
    }

    /// Whether the task came from another cgroup and has begun no program of its own since.
    pub const fn is_visitor(&self) -> bool {
        match self {
            CapFacts::Check(check) => check.has(cap_flag::VISITOR),
            CapFacts::Gain(gain) => gain.has(gain_flag::VISITOR),
        }
    }

    /// Whether credentials grew by no door.
    pub const fn is_unseen(&self) -> bool {
        matches!(self, CapFacts::Gain(RawGain { unseen: true, .. }))
    }

    /// The value of a field that only such events have, or that means another thing for them; `None` of all others.
    pub(super) fn value(&self, field: Field) -> Option<Value<'static>> {
        match self {
            CapFacts::Check(check) => of_check(check, field),
            CapFacts::Gain(gain) => of_gain(gain, field),
        }
    }
}

fn of_check(check: &RawCheck, field: Field) -> Option<Value<'static>> {
    let denied = check.has(cap_flag::DENIED);
    let listed = |when: bool| {
        if when { owned_list([cap_name(check.cap).into_owned()]) } else { Value::Absent }
    };
    Some(match field {
        Field::CapDenied => listed(denied),
        Field::CapUsed => listed(!denied),
        Field::CapName => Value::Text(cap_name(check.cap)),
        Field::CapAudited => some(check.audited(), Value::Bool),
        Field::CapCall => some(check.call, |(abi, nr)| Value::Text(syscall_names::shown(abi, nr))),
        Field::CapUserNs => Value::text(user_ns(check.has(cap_flag::CHILD_NS))),
        Field::CapAfter | Field::ThreadCapEffective => Event::caps(check.effective),
        _ => return None,
    })
}

fn of_gain(gain: &RawGain, field: Field) -> Option<Value<'static>> {
    let RawGain { before, after, .. } = gain;
    let gained = after.gained(gain.comparable());
    Some(Event::caps(match field {
        Field::CapBefore => before.effective,
        Field::CapAfter | Field::ThreadCapEffective => after.effective,
        Field::CapGained => gained.effective,
        Field::CapDropped => before.effective & !after.effective,
        Field::CapGainedPermitted => gained.permitted,
        Field::CapPermitted => after.permitted,
        Field::CapPermittedBefore => before.permitted,
        Field::CapInheritable => after.inheritable,
        Field::CapInheritableBefore => before.inheritable,
        Field::CapBounding => after.bounding,
        Field::CapBoundingBefore => before.bounding,
        Field::CapAmbient => after.ambient,
        Field::CapAmbientBefore => before.ambient,
        Field::CapUserNs => return Some(Value::text(user_ns(gain.in_child_ns()))),
        Field::CapDoor => return Some(some(gain.door, |door| Value::text(door.name()))),
        _ => return None,
    }))
}

impl Event<'_> {
    /// Whether the runtime is still at work. The process table knows who came from where; of a process that it does not
    /// know there is only the word of the kernel's side, which does not know containers. No such word excuses credentials
    /// that came from nowhere.
    pub(super) fn is_starting(&self) -> bool {
        match self.process {
            Some(process) => process.starting,
            None => self.caps.is_some_and(|caps| caps.is_visitor() && !caps.is_unseen()),
        }
    }
}

const fn user_ns(child: bool) -> &'static str {
    if child { "child" } else { "initial" }
}

impl RawGain {
    /// What the task had in the user namespace in which it is now: nothing, if it came there by this.
    fn comparable(&self) -> CapSets {
        if self.moved { CapSets::default() } else { self.before }
    }
}
