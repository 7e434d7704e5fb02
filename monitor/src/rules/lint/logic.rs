//! What can be proven about conditions: that one follows from another, and that one can never hold.
//!
//! Only simple steps are taken, and only so many: what would need more is not proven, and so not reported.

use std::sync::Arc;

use super::compare;
use super::form::{Form, Test, Written, common};
use crate::event_type::{EventType, TypeSet};

/// Steps that are taken to decide one question.
const STEPS: u32 = 50_000;

/// Whether the second condition holds whenever the first does, as far as that can be proven.
pub(super) fn implies(first: &Form, second: &Form) -> bool {
    Prover { steps: STEPS }.implies(first, second)
}

struct Prover {
    steps: u32,
}

impl Prover {
    fn implies(&mut self, first: &Form, second: &Form) -> bool {
        let Some(left) = self.steps.checked_sub(1) else { return false };
        self.steps = left;
        match (first, second) {
            (_, Form::And(members)) => members.iter().all(|member| self.implies(first, member)),
            (Form::Or(members), _) => members.iter().all(|member| self.implies(member, second)),
            (Form::And(members), Form::Or(others)) => {
                others.iter().any(|other| self.implies(first, other))
                    || members.iter().any(|member| self.implies(member, second))
            }
            (Form::And(members), _) => {
                let by_type = matches!(second, Form::Types(types, _) if is_within(types_of(members), *types));
                by_type || members.iter().any(|member| self.implies(member, second))
            }
            (_, Form::Or(others)) => others.iter().any(|other| self.implies(first, other)),
            (Form::Types(one, _), Form::Types(other, _)) => is_within(*one, *other),
            (Form::Test { negated: false, test, .. }, Form::Types(types, _)) => is_within(test.types, *types),
            // Of an event that cannot have the field the test is false.
            (Form::Types(types, _), Form::Test { negated: true, test, .. }) => !types.meets(test.types),
            (
                Form::Test { negated: one, test: first, .. },
                Form::Test { negated: other, test: second, .. },
            ) => match (one, other) {
                (false, false) => compare::implies(first, second),
                (true, true) => compare::implies(second, first),
                (false, true) => compare::excludes(first, second) || !first.types.meets(second.types),
                (true, false) => false,
            },
            _ => false,
        }
    }
}

/// The types of event that the members leave, taken together.
fn types_of(members: &[Form]) -> TypeSet {
    members.iter().fold(TypeSet::of(EventType::all()), |types, member| match member {
        Form::Types(others, _) => common(types, *others),
        Form::Test { negated: false, test, .. } => common(types, test.types),
        _ => types,
    })
}

fn is_within(one: TypeSet, other: TypeSet) -> bool {
    one.iter().all(|ty| other.has(ty))
}

/// Why a condition can never hold.
#[derive(Debug)]
pub(super) struct Never {
    /// The part that shows it.
    pub(super) at: Written,
    /// In words.
    pub(super) why: String,
}

/// Says why a condition can never hold, if that can be proven.
pub(super) fn never(form: &Form) -> Option<Never> {
    let all = Known { tests: Vec::new(), types: TypeSet::of(EventType::all()) };
    Refuter { steps: STEPS }.never(form, &all)
}

/// What has to hold besides.
#[derive(Clone)]
struct Known<'f> {
    tests: Vec<(bool, &'f Arc<Test>, &'f Written)>,
    types: TypeSet,
}

struct Refuter {
    steps: u32,
}

impl Refuter {
    fn never<'f>(&mut self, form: &'f Form, known: &Known<'f>) -> Option<Never> {
        match form {
            Form::And(members) => {
                let mut known = known.clone();
                let (plain, joined): (Vec<&Form>, Vec<&Form>) =
                    members.iter().partition(|member| matches!(member, Form::Types(..) | Form::Test { .. }));
                for member in plain {
                    if let Some(never) = self.add(member, &mut known) {
                        return Some(never);
                    }
                }
                joined.into_iter().find_map(|member| self.never(member, &known))
            }
            Form::Or(members) => {
                let mut first = None;
                for member in members {
                    let never = self.never(member, known)?;
                    first.get_or_insert(never);
                }
                let several = members.len() > 1;
                first.map(|never| {
                    let why = if several {
                        format!("{}, and the other alternatives cannot hold either", never.why)
                    } else {
                        never.why
                    };
                    Never { why, ..never }
                })
            }
            plain => self.add(plain, &mut known.clone()),
        }
    }

    /// Adds a test to what has to hold; says why that cannot be.
    fn add<'f>(&mut self, form: &'f Form, known: &mut Known<'f>) -> Option<Never> {
        match form {
            Form::Types(types, written) => {
                let left = common(known.types, *types);
                if left.is_empty() {
                    let why = if types.is_empty() {
                        format!("{} is true of no event", said(written))
                    } else {
                        format!("{} leaves no type of event", said(written))
                    };
                    return Some(Never { at: written.clone(), why });
                }
                known.types = left;
                None
            }
            Form::Test { negated, test, written } => {
                self.steps = self.steps.checked_sub(1 + known.tests.len() as u32)?;
                if !negated && compare::never(&test.check) {
                    let why = format!("{} is true of no value: its list is empty", said(written));
                    return Some(Never { at: written.clone(), why });
                }
                for (other_negated, other, other_written) in &known.tests {
                    let clash = match (*other_negated, *negated) {
                        (false, false) => compare::excludes(other, test),
                        (false, true) => compare::implies(other, test),
                        (true, false) => compare::implies(test, other),
                        (true, true) => false,
                    };
                    if clash {
                        let why = format!("{} and {} cannot both hold", said(other_written), said(written));
                        return Some(Never { at: written.clone(), why });
                    }
                }
                if !negated {
                    let left = common(known.types, test.types);
                    if left.is_empty() {
                        let why = format!(
                            "no event that the condition is about has what {} asks for",
                            said(written)
                        );
                        return Some(Never { at: written.clone(), why });
                    }
                    known.types = left;
                }
                known.tests.push((*negated, test, written));
                None
            }
            joined => self.never(joined, known),
        }
    }
}

/// A part in words.
fn said(written: &Written) -> String {
    match &written.within {
        Some(within) => format!("`{}` (in {within})", written.text),
        None => format!("`{}`", written.text),
    }
}
