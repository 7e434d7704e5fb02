//! What one test on a value says about another one on the same value: that it holds too, or that it cannot.
//!
//! Both answers are proofs. Where nothing is known, the answer is no.

use super::form::Test;
use crate::rules::check::{Check, NumberCheck, TextCheck, TextSet};

/// Whether the second test holds whenever the first does.
pub(super) fn implies(first: &Test, second: &Test) -> bool {
    if first.text == second.text {
        return true;
    }
    first.left == second.left && check_implies(&first.check, &second.check, first.single)
}

/// Whether the two never hold together.
pub(super) fn excludes(first: &Test, second: &Test) -> bool {
    first.left == second.left
        && (check_excludes(&first.check, &second.check, first.single)
            || check_excludes(&second.check, &first.check, first.single))
}

/// Whether a test holds for no value at all: `in ()`.
pub(super) fn never(check: &Check) -> bool {
    match check {
        Check::Text(check) | Check::EveryText(check) => finite(check).is_some_and(|values| values.is_empty()),
        Check::Number(NumberCheck::OneOf(members)) => members.is_empty(),
        Check::Number(NumberCheck::Between(first, last)) => first > last,
        Check::Any(checks) | Check::One(checks) => checks.iter().all(never),
        Check::All(checks) => checks.iter().any(never),
        _ => false,
    }
}

fn check_implies(first: &Check, second: &Check, single: bool) -> bool {
    if never(first) {
        return true;
    }
    match (first, second) {
        // No test holds for an absent value.
        (_, Check::Exists) => true,
        (Check::Any(checks), _) => checks.iter().all(|check| check_implies(check, second, single)),
        (_, Check::All(checks)) => checks.iter().all(|check| check_implies(first, check, single)),
        (Check::All(checks), _) => checks.iter().any(|check| check_implies(check, second, single)),
        (_, Check::Any(checks)) => checks.iter().any(|check| check_implies(first, check, single)),
        (Check::Text(one), Check::Text(other))
        | (Check::EveryText(one), Check::EveryText(other) | Check::Text(other)) => text_implies(one, other),
        (Check::Text(one), Check::EveryText(other)) => single && text_implies(one, other),
        (Check::NotText(one), Check::NotText(other)) => text_implies(other, one),
        (Check::EveryText(one), Check::NotText(other)) => text_excludes(one, other),
        (Check::Text(one), Check::NotText(other)) => single && text_excludes(one, other),
        (Check::Number(one), Check::Number(other)) => number_implies(one, other),
        (Check::Bool(one), Check::Bool(other)) => one == other,
        _ => false,
    }
}

fn check_excludes(first: &Check, second: &Check, single: bool) -> bool {
    if never(first) {
        return true;
    }
    match (first, second) {
        (Check::Any(checks), _) => checks.iter().all(|check| check_excludes(check, second, single)),
        (Check::All(checks), _) => checks.iter().any(|check| check_excludes(check, second, single)),
        (Check::Text(one), Check::Text(other)) => single && text_excludes(one, other),
        (Check::EveryText(one), Check::Text(other) | Check::EveryText(other)) => text_excludes(one, other),
        (Check::Text(one) | Check::EveryText(one), Check::NotText(other)) => text_implies(one, other),
        (Check::Number(one), Check::Number(other)) => number_excludes(one, other),
        (Check::Bool(one), Check::Bool(other)) => one != other,
        _ => false,
    }
}

/// The texts that a test fits, if they can be told one by one.
fn finite(check: &TextCheck) -> Option<Vec<&str>> {
    match check {
        TextCheck::Equals(text) => Some(vec![text]),
        TextCheck::OneOf(TextSet::Few(members)) => Some(members.iter().map(|member| &**member).collect()),
        TextCheck::OneOf(TextSet::Many(members)) => Some(members.iter().map(|member| &**member).collect()),
        _ => None,
    }
}

fn text_implies(one: &TextCheck, other: &TextCheck) -> bool {
    if let Some(values) = finite(one) {
        return values.iter().all(|value| other.fits(value));
    }
    match (one, other) {
        (TextCheck::StartsWith(p), TextCheck::StartsWith(q)) => p.starts_with(&**q),
        (TextCheck::EndsWith(p), TextCheck::EndsWith(q)) => p.ends_with(&**q),
        (
            TextCheck::StartsWith(p) | TextCheck::EndsWith(p) | TextCheck::Contains(p),
            TextCheck::Contains(_) | TextCheck::ContainsIgnoringCase(_),
        ) => other.fits(p),
        (TextCheck::ContainsIgnoringCase(_), TextCheck::ContainsIgnoringCase(q)) => {
            matches!(one, TextCheck::ContainsIgnoringCase(p) if p.to_ascii_lowercase().contains(&q.to_ascii_lowercase()))
        }
        (TextCheck::StartsWith(p), TextCheck::BelowOneOf(paths)) => {
            paths.iter().any(|path| p.strip_prefix(&**path).is_some_and(|rest| rest.starts_with('/')))
        }
        (TextCheck::BelowOneOf(paths), TextCheck::StartsWith(_) | TextCheck::Contains(_)) => {
            paths.iter().all(|path| other.fits(path))
        }
        (TextCheck::BelowOneOf(paths), TextCheck::BelowOneOf(_)) => paths.iter().all(|path| other.fits(path)),
        _ => false,
    }
}

fn text_excludes(one: &TextCheck, other: &TextCheck) -> bool {
    if let Some(values) = finite(one) {
        return values.iter().all(|value| !other.fits(value));
    }
    if let Some(values) = finite(other) {
        return values.iter().all(|value| !one.fits(value));
    }
    let apart = |p: &str, q: &str| !p.starts_with(q) && !q.starts_with(p);
    match (one, other) {
        (TextCheck::StartsWith(p), TextCheck::StartsWith(q)) => apart(p, q),
        (TextCheck::EndsWith(p), TextCheck::EndsWith(q)) => !p.ends_with(&**q) && !q.ends_with(&**p),
        (TextCheck::StartsWith(p), TextCheck::BelowOneOf(paths))
        | (TextCheck::BelowOneOf(paths), TextCheck::StartsWith(p)) => paths.iter().all(|path| apart(p, path)),
        (TextCheck::BelowOneOf(paths), TextCheck::BelowOneOf(others)) => {
            paths.iter().all(|path| others.iter().all(|other| apart(path, other)))
        }
        _ => false,
    }
}

fn number_implies(one: &NumberCheck, other: &NumberCheck) -> bool {
    match (one, other) {
        (NumberCheck::OneOf(members), _) => members.iter().all(|number| fits(other, *number)),
        (NumberCheck::Between(first, last), _) if first == last => fits(other, *first),
        (NumberCheck::Between(first, last), NumberCheck::Between(from, to)) => from <= first && last <= to,
        (NumberCheck::Between(first, last), NumberCheck::Not(number)) => number < first || number > last,
        (NumberCheck::Not(one), NumberCheck::Not(other)) => one == other,
        _ => false,
    }
}

fn number_excludes(one: &NumberCheck, other: &NumberCheck) -> bool {
    match (one, other) {
        (NumberCheck::OneOf(members), _) => members.iter().all(|number| !fits(other, *number)),
        (_, NumberCheck::OneOf(members)) => members.iter().all(|number| !fits(one, *number)),
        (NumberCheck::Between(first, last), NumberCheck::Between(from, to)) => last < from || to < first,
        (NumberCheck::Between(first, last), NumberCheck::Not(number))
        | (NumberCheck::Not(number), NumberCheck::Between(first, last)) => first == last && first == number,
        _ => false,
    }
}

fn fits(check: &NumberCheck, number: i64) -> bool {
    match check {
        NumberCheck::Between(first, last) => (*first..=*last).contains(&number),
        NumberCheck::Not(other) => number != *other,
        NumberCheck::OneOf(members) => members.contains(&number),
    }
}
