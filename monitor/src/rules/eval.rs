//! Compiled conditions: evaluated on events, and asked which calls they can match at all.

use std::cell::Cell;
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
    Macro(Slot, Arc<Node>),
    Test(Source, Check),
}

/// The number of a macro, by which its outcome is remembered while one event is matched.
pub(crate) type Slot = u32;

/// What the first 64 macros came to for one event: rules share them, so each is worked out once.
#[derive(Default)]
pub(crate) struct Memo {
    known: Cell<u64>,
    holding: Cell<u64>,
}

impl Memo {
    fn get_or(&self, slot: Slot, work_out: impl FnOnce() -> bool) -> bool {
        let Some(bit) = 1_u64.checked_shl(slot) else { return work_out() };
        if self.known.get() & bit != 0 {
            return self.holding.get() & bit != 0;
        }
        let holds = work_out();
        self.known.set(self.known.get() | bit);
        if holds {
            self.holding.set(self.holding.get() | bit);
        }
        holds
    }
}

/// A condition for one call: what the event's type decides is decided.
pub(crate) enum Special {
    /// It does not ask for the type.
    Same,
    /// It is decided altogether.
    Decided(bool),
    /// What is left of it.
    Rest(Node),
}

impl Node {
    /// Whether the condition holds for an event. The memo must be of the same event.
    pub(crate) fn holds<E: FieldSource + ?Sized>(&self, event: &E, memo: &Memo) -> bool {
        match self {
            Node::Or(members) => members.iter().any(|member| member.holds(event, memo)),
            Node::And(members) => members.iter().all(|member| member.holds(event, memo)),
            Node::Not(member) => !member.holds(event, memo),
            Node::Macro(slot, body) => memo.get_or(*slot, || body.holds(event, memo)),
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
            Node::Macro(_, body) => body.outcomes(),
            Node::Test(source, check) if is_about_type(source, check) => {
                // The event's type is known: the test itself says for which calls it holds.
                let holds = |call: &Call| holds_for(check, *call);
                let can_hold = CallSet::of(Call::ALL.iter().copied().filter(holds));
                Outcomes { can_hold, can_fail: can_hold.complement() }
            }
            Node::Test(..) => Outcomes { can_hold: CallSet::ALL, can_fail: CallSet::ALL },
        }
    }
}

impl Node {
    /// The condition for events of one call.
    pub(crate) fn specialise(&self, call: Call) -> Special {
        match self {
            Node::Or(members) => fold(members, call, true, Node::Or),
            Node::And(members) => fold(members, call, false, Node::And),
            Node::Not(member) => match member.specialise(call) {
                Special::Same => Special::Same,
                Special::Decided(holds) => Special::Decided(!holds),
                Special::Rest(rest) => Special::Rest(Node::Not(Box::new(rest))),
            },
            Node::Macro(slot, body) => match body.specialise(call) {
                // The slot still names the outcome: for events of this call it is the same.
                Special::Rest(rest) => Special::Rest(Node::Macro(*slot, Arc::new(rest))),
                other => other,
            },
            Node::Test(source, check) if is_about_type(source, check) => {
                Special::Decided(holds_for(check, call))
            }
            Node::Test(..) => Special::Same,
        }
    }
}

/// Leaves out what is decided; a member that comes out as `decisive` decides the whole.
fn fold(members: &[Node], call: Call, decisive: bool, join: fn(Box<[Node]>) -> Node) -> Special {
    let mut rest = Vec::with_capacity(members.len());
    let mut changed = false;
    for member in members {
        match member.specialise(call) {
            Special::Same => rest.push(member.clone()),
            Special::Decided(holds) if holds == decisive => return Special::Decided(decisive),
            Special::Decided(_) => changed = true,
            Special::Rest(member) => {
                changed = true;
                rest.push(member);
            }
        }
    }
    match (changed, rest.len()) {
        (false, _) => Special::Same,
        (true, 0) => Special::Decided(!decisive),
        (true, 1) => rest.pop().map_or(Special::Decided(!decisive), Special::Rest),
        (true, _) => Special::Rest(join(rest.into())),
    }
}

/// Whether a test rests on the event's type and nothing else.
fn is_about_type(source: &Source, check: &Check) -> bool {
    matches!(source, Source::Field(FieldRef { field: Field::EvtType, arg: FieldArg::None }))
        && !matches!(check, Check::Against(..))
}

/// What a test of the event's type says of a call.
fn holds_for(check: &Check, call: Call) -> bool {
    check.holds(&Value::text(call.name()), &OnlyType(call))
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
