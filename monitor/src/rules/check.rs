//! The tests that a compiled condition makes on a value. All of them are pure and none allocates.

use std::collections::HashSet;

use regex::Regex;

use super::ast::Operator;
use super::operand::Source;
use crate::fields::{FieldSource, Value};

/// A test on a value. No test but the negated ones is true for a value that is absent, and those ask for
/// its presence themselves.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// The value is there.
    Exists,
    /// Some member fits (a plain text is its only member).
    Text(TextCheck),
    /// The value is there and no member fits: `!=`.
    NotText(TextCheck),
    /// Every member fits, and there is one: `in` on a list.
    EveryText(TextCheck),
    /// The number fits.
    Number(NumberCheck),
    /// The truth value is this one.
    Bool(bool),
    /// As another value of the same event.
    Against(Operator, Box<Source>),
    /// All tests hold: `allof`.
    All(Box<[Check]>),
    /// Some test holds: `anyof`.
    Any(Box<[Check]>),
    /// Exactly one test holds: `oneof`.
    One(Box<[Check]>),
    /// The test holds for one of these values, whatever the one at hand is: a field that means all ancestors.
    OfAny(Box<[Source]>, Box<Check>),
}

/// A test on a text.
#[derive(Clone, Debug)]
pub(crate) enum TextCheck {
    Equals(Box<str>),
    OneOf(TextSet),
    Contains(Box<str>),
    /// Letter case ignored for ASCII, as in Falco.
    ContainsIgnoringCase(Box<str>),
    ContainsBytes(Box<[u8]>),
    StartsWith(Box<str>),
    StartsWithBytes(Box<[u8]>),
    EndsWith(Box<str>),
    /// What stands between the `*` of a glob that has no other wildcard.
    Parts(Box<[Box<str>]>),
    /// Anchored at both ends.
    Pattern(Regex),
    /// The path is one of these or lies below one; none ends in a slash but the root, which is empty here.
    BelowOneOf(Box<[Box<str>]>),
}

/// A set of texts: a short one is searched from end to end, which is faster than hashing.
#[derive(Clone, Debug)]
pub(crate) enum TextSet {
    Few(Box<[Box<str>]>),
    Many(HashSet<Box<str>>),
}

impl TextSet {
    pub(crate) fn new(members: impl IntoIterator<Item = String>) -> Self {
        let members: Vec<Box<str>> = members.into_iter().map(String::into_boxed_str).collect();
        if members.len() <= 8 {
            TextSet::Few(members.into())
        } else {
            TextSet::Many(members.into_iter().collect())
        }
    }

    /// Its members.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        let (few, many) = match self {
            TextSet::Few(members) => (Some(members.iter()), None),
            TextSet::Many(members) => (None, Some(members.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten()).map(|member| &**member)
    }

    fn has(&self, text: &str) -> bool {
        match self {
            TextSet::Few(members) => members.iter().any(|member| **member == *text),
            TextSet::Many(members) => members.contains(text),
        }
    }
}

/// A test on a number.
#[derive(Clone, Debug)]
pub(crate) enum NumberCheck {
    /// From the first to the last, both included; none if the first is greater.
    Between(i64, i64),
    /// Any but this one.
    Not(i64),
    /// One of these, which are sorted.
    OneOf(Box<[i64]>),
}

impl NumberCheck {
    fn fits(&self, number: i64) -> bool {
        match self {
            NumberCheck::Between(first, last) => (*first..=*last).contains(&number),
            NumberCheck::Not(other) => number != *other,
            NumberCheck::OneOf(members) => members.binary_search(&number).is_ok(),
        }
    }
}

impl TextCheck {
    pub(crate) fn fits(&self, text: &str) -> bool {
        match self {
            TextCheck::Equals(other) => text == &**other,
            TextCheck::OneOf(set) => set.has(text),
            TextCheck::Contains(part) => text.contains(&**part),
            TextCheck::ContainsIgnoringCase(part) => contains_ignoring_case(text, part),
            TextCheck::ContainsBytes(part) => contains_bytes(text.as_bytes(), part),
            TextCheck::StartsWith(part) => text.starts_with(&**part),
            TextCheck::StartsWithBytes(part) => text.as_bytes().starts_with(part),
            TextCheck::EndsWith(part) => text.ends_with(&**part),
            TextCheck::Parts(parts) => fits_parts(parts, text),
            TextCheck::Pattern(regex) => regex.is_match(text),
            TextCheck::BelowOneOf(prefixes) => prefixes.iter().any(|prefix| is_below(text, prefix)),
        }
    }
}

/// Whether a text begins with the first part, ends with the last, and has the others in their order between them.
fn fits_parts(parts: &[Box<str>], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.iter().all(|part| **part == *text) };
    let Some(mut rest) = text.strip_prefix(&**first) else { return false };
    for part in middle {
        // The first place is the best one: it leaves the most.
        match rest.split_once(&**part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(&**last)
}

fn contains_ignoring_case(text: &str, part: &str) -> bool {
    part.is_empty() || text.as_bytes().windows(part.len()).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
}

fn contains_bytes(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Whether a path is the prefix or continues it at a slash.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the value is there; an empty list is not.
pub(crate) fn is_present(value: &Value<'_>) -> bool {
    match value {
        Value::Absent => false,
        Value::List(members) => !members.is_empty(),
        Value::Text(_) | Value::Number(_) | Value::Bool(_) => true,
    }
}

/// Whether some member of a value fits; a plain text is its only member.
fn some(value: &Value<'_>, fits: impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Text(text) => fits(text),
        Value::List(members) => members.iter().any(|member| fits(member)),
        Value::Absent | Value::Number(_) | Value::Bool(_) => false,
    }
}

/// Whether every member of a value fits.
fn every(value: &Value<'_>, fits: impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Text(text) => fits(text),
        Value::List(members) => !members.is_empty() && members.iter().all(|member| fits(member)),
        Value::Absent | Value::Number(_) | Value::Bool(_) => false,
    }
}

impl Check {
    /// Tests a value.
    pub(crate) fn holds<E: FieldSource + ?Sized>(&self, value: &Value<'_>, event: &E) -> bool {
        match self {
            Check::Exists => is_present(value),
            Check::Text(check) => some(value, |text| check.fits(text)),
            Check::NotText(check) => is_present(value) && !some(value, |text| check.fits(text)),
            Check::EveryText(check) => every(value, |text| check.fits(text)),
            Check::Number(check) => matches!(value, Value::Number(number) if check.fits(*number)),
            Check::Bool(wanted) => matches!(value, Value::Bool(flag) if flag == wanted),
            Check::Against(op, source) => against(*op, value, &source.value(event)),
            Check::All(checks) => checks.iter().all(|check| check.holds(value, event)),
            Check::Any(checks) => checks.iter().any(|check| check.holds(value, event)),
            Check::One(checks) => {
                checks.iter().filter(|check| check.holds(value, event)).take(2).count() == 1
            }
            Check::OfAny(sources, check) => {
                sources.iter().any(|source| check.holds(&source.value(event), event))
            }
        }
    }
}

impl Check {
    /// Calls back for every value that the test takes from the event besides the one at hand.
    pub(crate) fn each_source(&self, visit: &mut impl FnMut(&Source)) {
        match self {
            Check::Against(_, other) => visit(other),
            Check::All(checks) | Check::Any(checks) | Check::One(checks) => {
                checks.iter().for_each(|check| check.each_source(visit));
            }
            Check::OfAny(sources, check) => {
                sources.iter().for_each(&mut *visit);
                check.each_source(visit);
            }
            Check::Exists
            | Check::Text(_)
            | Check::NotText(_)
            | Check::EveryText(_)
            | Check::Number(_)
            | Check::Bool(_) => {}
        }
    }
}

/// Compares two values of one event; false if either is absent.
fn against(op: Operator, left: &Value<'_>, right: &Value<'_>) -> bool {
    if !is_present(left) || !is_present(right) {
        return false;
    }
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match op {
            Operator::Eq | Operator::In | Operator::Intersects => left == right,
            Operator::Ne => left != right,
            Operator::Lt => left < right,
            Operator::Le => left <= right,
            Operator::Gt => left > right,
            Operator::Ge => left >= right,
            _ => false,
        },
        (Value::Bool(left), Value::Bool(right)) => match op {
            Operator::Eq | Operator::In | Operator::Intersects => left == right,
            Operator::Ne => left != right,
            _ => false,
        },
        _ => {
            let pair = |fits: fn(&str, &str) -> bool| some(left, |l| some(right, |r| fits(l, r)));
            match op {
                Operator::Eq | Operator::Intersects => pair(|l, r| l == r),
                Operator::Ne => !pair(|l, r| l == r),
                Operator::In => every(left, |l| some(right, |r| l == r)),
                Operator::Contains => pair(|l, r| l.contains(r)),
                Operator::Icontains => pair(contains_ignoring_case),
                Operator::Startswith => pair(|l, r| l.starts_with(r)),
                Operator::Endswith => pair(|l, r| l.ends_with(r)),
                _ => false,
            }
        }
    }
}
