//! Why a rule matches an event or does not: its condition with every sub-condition's outcome and values.

use std::borrow::Cow;

use super::decide::{Form, Judged, Judgement, judge};
use super::rule::Rule;
use crate::fields::{FieldSource, Value};

/// A sub-condition that decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason<'a> {
    /// The comparison as it was written, shortened if it is long.
    pub condition: Cow<'a, str>,
    /// What it came to.
    pub holds: bool,
    /// What it rests on: fields, as rules write them, and what a transformer made of them; each with its value.
    pub values: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl Reason<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Reason<'static> {
        let text = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Reason {
            condition: text(self.condition),
            holds: self.holds,
            values: self.values.into_iter().map(|(name, value)| (text(name), value.into_owned())).collect(),
        }
    }
}

/// A condition or a part of it, worked out for an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained<'a> {
    /// What it is.
    pub part: Part<'a>,
    /// What it comes to.
    pub holds: bool,
    /// Whether a test that decided stands in it, or is it; see [`Rule::why`].
    pub decided: bool,
    /// What it is made of; of a test nothing.
    pub members: Vec<Explained<'a>>,
}

/// What a part of a condition is.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// Members joined by `or`.
    Any,
    /// Members joined by `and`.
    All,
    /// One member behind `not`.
    Not,
    /// A macro of this name with its condition as the one member.
    Macro(&'a str),
    /// A comparison.
    Test {
        /// As it was written, shortened if it is long.
        text: &'a str,
        /// See [`Reason::values`].
        values: Vec<(&'a str, Value<'a>)>,
    },
}

impl Rule {
    pub(super) fn judge<E: FieldSource + ?Sized>(&self, event: &E) -> Judgement<'_> {
        judge(&self.said, &self.node, event)
    }

    /// The sub-conditions that decided whether it matches an event, each once, in the order of the condition. If it
    /// matches, a smallest set that makes it so. If not, the nearest miss: a smallest set of which each had to come out
    /// otherwise.
    pub fn why<'a, E: FieldSource + ?Sized>(&'a self, event: &'a E) -> Vec<Reason<'a>> {
        let judgement = self.judge(event);
        let decided = judgement.decided().into_iter().filter_map(|number| judgement.tests.get(number));
        decided
            .map(|(test, holds)| Reason {
                condition: Cow::Borrowed(&test.said.text),
                holds: *holds,
                values: test
                    .values(event)
                    .into_iter()
                    .map(|(name, value)| (Cow::Borrowed(name), value))
                    .collect(),
            })
            .collect()
    }

    /// Its condition, macros opened, worked out for an event.
    pub fn explain<'a, E: FieldSource + ?Sized>(&'a self, event: &'a E) -> Explained<'a> {
        let judgement = self.judge(event);
        explained(&judgement.root, &judgement, &judgement.decided(), event)
    }
}

fn explained<'a, E: FieldSource + ?Sized>(
    judged: &Judged<'a>,
    judgement: &Judgement<'a>,
    decided: &[usize],
    event: &'a E,
) -> Explained<'a> {
    let each = |judged: &Judged<'a>| explained(judged, judgement, decided, event);
    let members: Vec<Explained<'a>> = judged.members.iter().map(each).collect();
    let mut decides = members.iter().any(|member| member.decided);
    let part = match judged.form {
        Form::Any => Part::Any,
        Form::All => Part::All,
        Form::Not => Part::Not,
        Form::Macro(name) => Part::Macro(name),
        Form::Test(number) => {
            decides = decided.binary_search(&number).is_ok();
            match judgement.tests.get(number) {
                Some((test, _)) => Part::Test { text: &test.said.text, values: test.values(event) },
                None => Part::All,
            }
        }
    };
    Explained { part, holds: judged.holds, decided: decides, members }
}
