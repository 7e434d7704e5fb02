//! Compiled conditions: evaluated on events, and asked which calls they can match at all.

use std::sync::Arc;

use monitor_common::call::Call;

use super::check::Check;
use super::operand::Source;
use crate::fields::{Field, FieldArg, FieldRef, FieldSource, Value};

/// A compiled condition. Immutable; macros are shared between the rules that use them.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Or(Box<[Node]>),
    And(Box<[Node]>),
    Not(Box<Node>),
    Macro(Arc<Node>),
    Test(Source, Check),
}

impl Node {
    /// Whether the condition holds for an event.
    pub(crate) fn holds<E: FieldSource + ?Sized>(&self, event: &E) -> bool {
        match self {
            Node::Or(members) => members.iter().any(|member| member.holds(event)),
            Node::And(members) => members.iter().all(|member| member.holds(event)),
            Node::Not(member) => !member.holds(event),
            Node::Macro(body) => body.holds(event),
            Node::Test(source, check) => check.holds(&source.value(event), event),
        }
    }

    /// The calls for which the condition can be true.
    pub(crate) fn calls(&self) -> CallSet {
        self.outcomes().can_hold
    }

    fn outcomes(&self) -> Outcomes {
        match self {
            Node::Or(members) => members.iter().fold(Outcomes::NEVER, |all, member| {
                let member = member.outcomes();
                Outcomes {
                    can_hold: all.can_hold.or(member.can_hold),
                    can_fail: all.can_fail.and(member.can_fail),
                }
            }),
            Node::And(members) => members.iter().fold(Outcomes::ALWAYS, |all, member| {
                let member = member.outcomes();
                Outcomes {
                    can_hold: all.can_hold.and(member.can_hold),
                    can_fail: all.can_fail.or(member.can_fail),
                }
            }),
            Node::Not(member) => {
                let Outcomes { can_hold, can_fail } = member.outcomes();
                Outcomes { can_hold: can_fail, can_fail: can_hold }
            }
            Node::Macro(body) => body.outcomes(),
            Node::Test(Source::Field(FieldRef { field: Field::EvtType, arg: FieldArg::None }), check)
                if !matches!(check, Check::Against(..)) =>
            {
                // The event's type is known: the test itself says for which calls it holds.
                let holds = |call: &Call| check.holds(&Value::text(call.name()), &OnlyType(*call));
                let can_hold = CallSet::of(Call::ALL.iter().copied().filter(holds));
                Outcomes { can_hold, can_fail: can_hold.complement() }
            }
            Node::Test(..) => Outcomes { can_hold: CallSet::ALL, can_fail: CallSet::ALL },
        }
    }
}

/// For which calls a condition can turn out true, and for which false.
#[derive(Clone, Copy)]
struct Outcomes {
    can_hold: CallSet,
    can_fail: CallSet,
}

impl Outcomes {
    const ALWAYS: Outcomes = Outcomes { can_hold: CallSet::ALL, can_fail: CallSet::NONE };
    const NEVER: Outcomes = Outcomes { can_hold: CallSet::NONE, can_fail: CallSet::ALL };
}

/// An event of which only the type is known.
struct OnlyType(Call);

impl FieldSource for OnlyType {
    fn value(&self, field: FieldRef) -> Value<'_> {
        match field.field {
            Field::EvtType => Value::text(self.0.name()),
            _ => Value::Absent,
        }
    }
}

/// A set of calls, one bit per wire number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSet(u32);

const _: () = assert!(monitor_common::call::CALL_SLOTS <= u32::BITS as usize);

impl CallSet {
    /// No call.
    pub const NONE: CallSet = CallSet(0);
    /// Every call, those of later versions included.
    pub const ALL: CallSet = CallSet(u32::MAX);

    fn of(calls: impl Iterator<Item = Call>) -> Self {
        CallSet(calls.fold(0, |bits, call| bits | 1 << call as u16))
    }

    /// Whether the call is a member.
    pub const fn has(self, call: Call) -> bool {
        self.0 & 1 << call as u16 != 0
    }

    /// Whether no watched call is a member.
    pub fn is_empty(self) -> bool {
        !Call::ALL.iter().any(|call| self.has(*call))
    }

    const fn or(self, other: CallSet) -> Self {
        CallSet(self.0 | other.0)
    }

    const fn and(self, other: CallSet) -> Self {
        CallSet(self.0 & other.0)
    }

    const fn complement(self) -> Self {
        CallSet(!self.0)
    }
}
