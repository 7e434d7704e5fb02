//! Regular expressions that cost more than they need.
//!
//! The engine's time is linear in the text whatever the expression is, so none can blow up while events are matched. What
//! can is the memory of the compiled expression and, with it, the time for each byte.

use regex_syntax::hir::{Hir, HirKind};

use super::names::each_comparison;
use super::{Found, Kind, Material};
use crate::rules::ast::{ExprKind, List, Literal, Operator, Right};
use crate::rules::condition;
use crate::rules::file::Text;
use crate::rules::pattern::MAX_PATTERN;
use crate::rules::re2;

/// A compiled pattern beyond this part of what is allowed is reported.
const NEAR: usize = 4;

/// Repetitions inside of each other multiply; beyond this many copies they are reported.
const MAX_COPIES: u32 = 1_000;

/// An alternation of at least this many plain texts is better a list.
const MANY: usize = 3;

/// Looks at the patterns of all conditions and macros.
pub(super) fn check(material: &Material<'_>, found: &mut Vec<Found>) {
    for text in material.conditions() {
        let Ok(expr) = condition::parse(text.as_str()) else { continue };
        each_comparison(&expr, &mut |part| {
            let ExprKind::Compare(_, operator, right) = &part.value else { return };
            if operator.value != Operator::Regex {
                return;
            }
            let patterns: &[Literal] = match right {
                Right::Value(literal) => std::slice::from_ref(literal),
                Right::Many(_, List::Members(members, _)) => members,
                _ => &[],
            };
            for pattern in patterns {
                found.extend(look(text, pattern));
            }
        });
    }
}

/// The worst that there is to say about a pattern.
fn look(text: &Text, pattern: &Literal) -> Option<Found> {
    let written = pattern.value.text.as_str();
    let translated = re2::translate(written).ok()?;
    let hir = regex_syntax::ParserBuilder::new().multi_line(true).build().parse(&translated.regex).ok()?;
    let report = |kind, message: String, help: String| {
        Some(Found::new(kind, text.wrong_at(pattern.span, message).help(help)))
    };
    let size = || regex::RegexBuilder::new(&translated.regex).size_limit(MAX_PATTERN / NEAR).build();
    if matches!(size(), Err(regex::Error::CompiledTooBig(_))) {
        let message = format!(
            "this regular expression takes more than {} KiB, a {NEAR}th part of what one may",
            (MAX_PATTERN / NEAR) >> 10
        );
        let help = "repeat less often, or write `(?-u)` in front if only ASCII matters";
        return report(Kind::RegexSize, message, help.to_owned());
    }
    let copies = copies(&hir);
    if copies > MAX_COPIES {
        let message = format!("repetitions inside of each other make {copies} copies of a part");
        return report(Kind::RegexRepetition, message, "repeat less often, or use `*` or `+`".to_owned());
    }
    if let Some(instead) = plain(&hir) {
        let message = "this regular expression says what an operator for texts says".to_owned();
        return report(Kind::RegexPlain, message, format!("write `{instead}`, which is quicker"));
    }
    if leading_any(&hir) {
        let message = "a `.*` in front makes each place of the text a place to begin".to_owned();
        let help =
            "begin with what the text begins with, or test the rest with `contains` or `endswith` first";
        return report(Kind::RegexLeading, message, help.to_owned());
    }
    None
}

/// How many copies of its innermost part an expression is compiled to.
fn copies(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            copies(&repetition.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => copies(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(copies).max().unwrap_or(1),
        _ => 1,
    }
}

/// What is inside of groups.
fn ungrouped(hir: &Hir) -> &Hir {
    match hir.kind() {
        HirKind::Capture(capture) => ungrouped(&capture.sub),
        _ => hir,
    }
}

/// Whether this is `.*`.
fn is_any(hir: &Hir) -> bool {
    let HirKind::Repetition(repetition) = ungrouped(hir).kind() else { return false };
    let HirKind::Class(class) = ungrouped(&repetition.sub).kind() else { return false };
    let any = [regex_syntax::hir::Dot::AnyCharExceptLF, regex_syntax::hir::Dot::AnyChar];
    let is_dot =
        any.into_iter().any(|dot| matches!(Hir::dot(dot).kind(), HirKind::Class(other) if other == class));
    is_dot && repetition.min == 0 && repetition.max.is_none()
}

fn literal(hir: &Hir) -> Option<&str> {
    match ungrouped(hir).kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// An operator that says the same. A pattern has to fit the whole text.
fn plain(hir: &Hir) -> Option<String> {
    let hir = ungrouped(hir);
    if let Some(text) = literal(hir) {
        return Some(format!("= {}", shown(text)));
    }
    match hir.kind() {
        HirKind::Concat(parts) => match parts.as_slice() {
            [start, any] if is_any(any) => literal(start).map(|text| format!("startswith {}", shown(text))),
            [any, end] if is_any(any) => literal(end).map(|text| format!("endswith {}", shown(text))),
            [any, middle, other] if is_any(any) && is_any(other) => {
                literal(middle).map(|text| format!("contains {}", shown(text)))
            }
            _ => None,
        },
        HirKind::Alternation(parts) => {
            let texts: Option<Vec<String>> = parts.iter().map(|part| literal(part).map(shown)).collect();
            texts.filter(|texts| texts.len() >= MANY).map(|texts| format!("in ({})", texts.join(", ")))
        }
        _ => None,
    }
}

/// A text as conditions write it.
fn shown(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

fn leading_any(hir: &Hir) -> bool {
    match ungrouped(hir).kind() {
        HirKind::Concat(parts) => parts.first().is_some_and(is_any),
        HirKind::Alternation(parts) => parts.iter().any(leading_any),
        _ => false,
    }
}
