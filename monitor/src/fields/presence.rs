//! Which types of event can have a field at all.

use monitor_common::call::Call;

use super::{ARG_NAMES, Field, FieldArg, FieldRef};
use crate::event_type::{EventType, TypeSet};

const NAMESPACE_CALLS: &[Call] = &[Call::Setns, Call::Unshare, Call::Clone, Call::Clone3];
const OPENS: &[Call] = &[Call::Open, Call::Creat, Call::Openat, Call::Openat2, Call::OpenByHandleAt];
const CLOCK_CALLS: &[Call] =
    &[Call::Settimeofday, Call::ClockSettime, Call::Stime, Call::Adjtimex, Call::ClockAdjtime];
/// The events about capabilities that are no calls.
const CAPABILITIES: [EventType; 3] = [EventType::Capability, EventType::Gained, EventType::GainedUnseen];

impl FieldRef {
    /// The types of event that can have the field. Of all others it is always absent; these may lack it, too.
    pub fn types(self) -> TypeSet {
        match self.field {
            Field::EvtRefusedBy | Field::CapDenied | Field::CapUsed => calls_and(&[EventType::Capability]),
            Field::CapName | Field::CapAudited | Field::CapCall => TypeSet::of([EventType::Capability]),
            Field::CapUserNs => TypeSet::of(CAPABILITIES),
            Field::CapAfter | Field::ThreadCapEffective => calls_and(&CAPABILITIES),
            Field::CapBefore | Field::CapGained | Field::CapDropped => calls_and(&EventType::GAINS),
            Field::CapDoor
            | Field::CapGainedPermitted
            | Field::CapPermitted
            | Field::CapPermittedBefore
            | Field::CapInheritable
            | Field::CapInheritableBefore
            | Field::CapBounding
            | Field::CapBoundingBefore
            | Field::CapAmbient
            | Field::CapAmbientBefore => TypeSet::of(EventType::GAINS),
            Field::EvtRes
            | Field::EvtRawRes
            | Field::EvtAbi
            | Field::EvtNr
            | Field::EvtArgs
            | Field::EvtArgsClaimed
            | Field::NsBefore => calls(Call::ALL),
            Field::EvtFlags => calls(NAMESPACE_CALLS),
            Field::EvtArg => match self.arg {
                FieldArg::Key(key) => argument(ARG_NAMES.get(usize::from(key)).copied().unwrap_or_default()),
                _ => calls(Call::ALL),
            },
            Field::SyslogAction => calls(&[Call::Syslog]),
            Field::ClockId => calls(CLOCK_CALLS),
            Field::DeviceName | Field::DeviceMajor | Field::DeviceMinor | Field::DeviceBy | Field::FdName => {
                calls(OPENS)
            }
            Field::NsDirection | Field::NsFrom | Field::NsTo => {
                let calls = NAMESPACE_CALLS.iter().copied().map(EventType::Call);
                TypeSet::of(calls.chain(EventType::MOVES))
            }
            _ => TypeSet::of(EventType::all()),
        }
    }
}

/// Every call, and these.
fn calls_and(others: &[EventType]) -> TypeSet {
    TypeSet::of(Call::ALL.iter().copied().map(EventType::Call).chain(others.iter().copied()))
}

fn calls(calls: &[Call]) -> TypeSet {
    TypeSet::of(calls.iter().copied())
}

/// The calls that have an argument of this name.
fn argument(name: &str) -> TypeSet {
    calls(match name {
        "flags" => {
            return TypeSet::of(OPENS.iter().chain(&NAMESPACE_CALLS[1..]).copied());
        }
        "fd" | "nstype" => &[Call::Setns],
        "type" | "len" => &[Call::Syslog],
        "level" => &[Call::Iopl],
        "from" | "num" | "turn_on" => &[Call::Ioperm],
        "clockid" => &[Call::ClockSettime, Call::ClockAdjtime],
        "modes" => &[Call::Adjtimex, Call::ClockAdjtime],
        "sec" => &[Call::Settimeofday, Call::ClockSettime, Call::Stime],
        "nsec" => &[Call::Settimeofday, Call::ClockSettime],
        "effective" | "permitted" | "inheritable" | "target_pid" => &[Call::Capset],
        "path" => &[Call::Open, Call::Openat, Call::Openat2, Call::Creat],
        "dirfd" => &[Call::Openat, Call::Openat2, Call::OpenByHandleAt],
        _ => Call::ALL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::decode::RawCall;
    use crate::fields::Value;
    use monitor_common::wire::call_flag;

    #[test]
    fn no_call_has_an_argument_that_is_said_to_be_absent() {
        for call in Call::ALL {
            let raw = RawCall { flags: call_flag::CLAIMED, path: b"/p", ..RawCall::made_up(*call) };
            for (key, name) in ARG_NAMES.iter().enumerate() {
                let field = FieldRef { field: Field::EvtArg, arg: FieldArg::Key(key as u16) };
                let has = args::argument(&raw, name) != Value::Absent;
                assert_eq!(field.types().has(*call), has, "{call:?} {name}");
            }
        }
    }
}
