//! Conditions of which only some facts are known: what they come to, whatever the rest turns out to be.

use super::check::Check;
use super::eval::Node;
use super::operand::Source;
use crate::fields::{FieldRef, FieldSource, Value};

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maybe {
    /// It holds, whatever is not known.
    Holds,
    /// It fails, whatever is not known.
    Fails,
    /// What is not known decides.
    Depends,
}

impl Maybe {
    fn from_truth(holds: bool) -> Self {
        if holds { Maybe::Holds } else { Maybe::Fails }
    }

    fn reversed(self) -> Self {
        match self {
            Maybe::Holds => Maybe::Fails,
            Maybe::Fails => Maybe::Holds,
            Maybe::Depends => Maybe::Depends,
        }
    }
}

/// Gives the value of a field, `None` if it is not known ([`Value::Absent`]: it is known to be absent).
pub(crate) type Known<'k> = dyn Fn(FieldRef) -> Option<Value<'k>> + 'k;

impl Node {
    /// What the condition comes to. Tests are taken to be independent of each other, so that a condition that
    /// contradicts itself about an unknown field depends on it.
    pub(crate) fn partly(&self, known: &Known<'_>) -> Maybe {
        match self {
            Node::Or(members) => join(members, known, Maybe::Holds),
            Node::And(members) => join(members, known, Maybe::Fails),
            Node::Not(member) => member.partly(known).reversed(),
            Node::Macro(_, body) => body.partly(known),
            Node::Test(source, check) => test(source, check, known),
        }
    }

    /// Calls `visit` with each field that the condition reads.
    pub(crate) fn each_field(&self, visit: &mut impl FnMut(FieldRef)) {
        match self {
            Node::Or(members) | Node::And(members) => {
                members.iter().for_each(|member| member.each_field(visit));
            }
            Node::Not(member) => member.each_field(visit),
            Node::Macro(_, body) => body.each_field(visit),
            Node::Test(source, check) => {
                source.each_field(visit);
                check.each_source(&mut |other| other.each_field(visit));
            }
        }
    }
}

/// The first member that is `decisive` decides; if all are the opposite, that.
fn join(members: &[Node], known: &Known<'_>, decisive: Maybe) -> Maybe {
    let mut whole = decisive.reversed();
    for member in members {
        match member.partly(known) {
            outcome if outcome == decisive => return decisive,
            Maybe::Depends => whole = Maybe::Depends,
            _ => {}
        }
    }
    whole
}

fn test(source: &Source, check: &Check, known: &Known<'_>) -> Maybe {
    let mut all_known = true;
    let mut look = |field| all_known &= known(field).is_some();
    source.each_field(&mut look);
    let mut missing = source.is_missing();
    check.each_source(&mut |other| {
        other.each_field(&mut look);
        missing |= other.is_missing();
    });
    // A field that nothing stands for may have been anything.
    if missing || !all_known {
        return Maybe::Depends;
    }
    let event = Facts(known);
    Maybe::from_truth(check.holds(&source.value(&event), &event))
}

/// What is known, as an event; asked only for what is known.
struct Facts<'k, 'v>(&'k Known<'v>);

impl FieldSource for Facts<'_, '_> {
    fn value(&self, field: FieldRef) -> Value<'_> {
        (self.0)(field).unwrap_or(Value::Absent)
    }
}
