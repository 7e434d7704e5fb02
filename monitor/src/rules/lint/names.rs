//! Macros and lists that nothing uses, and list members that stand twice.

use std::collections::{BTreeSet, HashSet};

use super::{Found, Kind, Material};
use crate::rules::ast::{Expr, ExprKind, List, Right};
use crate::rules::condition;
use crate::rules::library::unquoted;

/// Macros and lists by name.
#[derive(Default)]
struct Names {
    macros: BTreeSet<String>,
    lists: BTreeSet<String>,
}

/// Calls back for every comparison of a condition.
pub(super) fn each_comparison<'e>(expr: &'e Expr, visit: &mut impl FnMut(&'e Expr)) {
    match &expr.value {
        ExprKind::Or(members) | ExprKind::And(members) => {
            members.iter().for_each(|member| each_comparison(member, visit));
        }
        ExprKind::Not(member) => each_comparison(member, visit),
        _ => visit(expr),
    }
}

/// What a condition names.
fn names_in(text: &str, lists: &HashSet<&str>) -> Names {
    let mut names = Names::default();
    let Ok(expr) = condition::parse(text) else { return names };
    each_comparison(&expr, &mut |part| match &part.value {
        ExprKind::Macro(name) => {
            names.macros.insert(name.clone());
        }
        ExprKind::Compare(_, _, Right::List(list) | Right::Many(_, list)) => match list {
            List::Name(name) => {
                names.lists.insert(name.value.clone());
            }
            List::Members(members, _) => {
                let named = members.iter().filter(|member| !member.value.quoted);
                let named =
                    named.map(|member| &member.value.text).filter(|text| lists.contains(text.as_str()));
                names.lists.extend(named.cloned());
            }
        },
        _ => {}
    });
    names
}

/// Macros and lists that no rule uses, not even by way of others.
pub(super) fn unused(material: &Material<'_>, found: &mut Vec<Found>) {
    let lists: HashSet<&str> = material.lists.iter().map(|list| list.name.as_str()).collect();
    let mut used = Names::default();
    let mut open: Vec<Names> = Vec::new();
    for rule in material.items {
        open.extend(rule.condition.as_ref().map(|condition| names_in(condition.as_str(), &lists)));
    }
    for exception in material.rules.iter().flat_map(|rule| &rule.exceptions) {
        open.extend(exception.condition.as_ref().map(|condition| names_in(condition, &lists)));
    }
    while let Some(names) = open.pop() {
        for name in names.macros {
            if used.macros.insert(name.clone())
                && let Some(item) = material.macros.iter().find(|item| item.name.as_str() == name)
            {
                open.extend(item.condition.as_ref().map(|condition| names_in(condition.as_str(), &lists)));
            }
        }
        for name in names.lists {
            if used.lists.insert(name.clone())
                && let Some(item) = material.lists.iter().find(|item| item.name.as_str() == name)
            {
                let inner = item.items.iter().flatten().filter(|member| unquoted(member.as_str()).is_none());
                let inner = inner.map(|member| member.as_str().to_owned());
                let inner = inner.filter(|name| lists.contains(name.as_str())).collect();
                open.push(Names { lists: inner, ..Names::default() });
            }
        }
    }
    let unused_macros = material.macros.iter().filter(|item| !used.macros.contains(item.name.as_str()));
    for item in unused_macros {
        let message = format!("no rule uses the macro `{}`", item.name.as_str());
        found.push(Found::new(Kind::UnusedMacro, item.name.wrong(message).help("take it out")));
    }
    for item in material.lists.iter().filter(|item| !used.lists.contains(item.name.as_str())) {
        let message = format!("no rule uses the list `{}`", item.name.as_str());
        found.push(Found::new(Kind::UnusedList, item.name.wrong(message).help("take it out")));
    }
}

/// Members that a list has twice as it is written; what other lists bring in may well be there already.
pub(super) fn duplicates(material: &Material<'_>, found: &mut Vec<Found>) {
    for list in material.lists {
        let mut seen = HashSet::new();
        for member in list.items.iter().flatten() {
            if !seen.insert(member.as_str()) {
                let message =
                    format!("`{}` stands twice in the list `{}`", member.as_str(), list.name.as_str());
                found.push(Found::new(Kind::DuplicateMember, member.wrong(message).help("take one out")));
            }
        }
    }
    for text in material.conditions() {
        let Ok(expr) = condition::parse(text.as_str()) else { continue };
        each_comparison(&expr, &mut |part| {
            let ExprKind::Compare(
                _,
                _,
                Right::List(List::Members(members, _)) | Right::Many(_, List::Members(members, _)),
            ) = &part.value
            else {
                return;
            };
            let mut seen = HashSet::new();
            for member in members {
                if !seen.insert(member.value.text.as_str()) {
                    let message = format!("`{}` stands twice in this list", member.value.text);
                    let wrong = text.wrong_at(member.span, message).help("take one out");
                    found.push(Found::new(Kind::DuplicateMember, wrong));
                }
            }
        });
    }
}
