//! Compiled conditions: evaluated on events, and asked which types of event they can match at all.

use std::cell::Cell;
use std::sync::Arc;

use super::check::Check;
use super::operand::Source;
use super::partial::Maybe;
use crate::event_type::{EventType, TypeSet};
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

/// A condition for one type of event: what the type decides is decided.
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

    /// The types of event for which the condition can be true.
    pub(crate) fn types(&self) -> TypeSet {
        let can_hold = |ty: &EventType| self.partly(&|field| type_only(*ty, field)) != Maybe::Fails;
        TypeSet::of(EventType::all().filter(can_hold))
    }
}

impl Node {
    /// The condition for events of one type.
    pub(crate) fn specialise(&self, ty: EventType) -> Special {
        match self {
            Node::Or(members) => fold(members, ty, true, Node::Or),
            Node::And(members) => fold(members, ty, false, Node::And),
            Node::Not(member) => match member.specialise(ty) {
                Special::Same => Special::Same,
                Special::Decided(holds) => Special::Decided(!holds),
                Special::Rest(rest) => Special::Rest(Node::Not(Box::new(rest))),
            },
            Node::Macro(slot, body) => match body.specialise(ty) {
                // The slot still names the outcome: for events of this type it is the same.
                Special::Rest(rest) => Special::Rest(Node::Macro(*slot, Arc::new(rest))),
                other => other,
            },
            Node::Test(source, check) if is_about_type(source, check) => {
                Special::Decided(holds_for(check, ty))
            }
            Node::Test(..) => Special::Same,
        }
    }
}

/// Leaves out what is decided; a member that comes out as `decisive` decides the whole.
fn fold(members: &[Node], ty: EventType, decisive: bool, join: fn(Box<[Node]>) -> Node) -> Special {
    let mut rest = Vec::with_capacity(members.len());
    let mut changed = false;
    for member in members {
        match member.specialise(ty) {
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
    let mut others = false;
    check.each_source(&mut |_| others = true);
    matches!(source, Source::Field(FieldRef { field: Field::EvtType, arg: FieldArg::None })) && !others
}

/// What a test of the event's type says of one type.
fn holds_for(check: &Check, ty: EventType) -> bool {
    check.holds(&Value::text(ty.name()), &OnlyType(ty))
}

/// What is known of an event of which only the type is known.
fn type_only(ty: EventType, field: FieldRef) -> Option<Value<'static>> {
    (field.field == Field::EvtType).then(|| Value::text(ty.name()))
}

/// An event of which only the type is known.
struct OnlyType(EventType);

impl FieldSource for OnlyType {
    fn value(&self, field: FieldRef) -> Value<'_> {
        match field.field {
            Field::EvtType => Value::text(self.0.name()),
            _ => Value::Absent,
        }
    }
}
