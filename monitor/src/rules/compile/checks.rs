//! Right-hand sides that are known at load: what a test compares with.

use crate::fields::FieldType;
use crate::rules::ast::{Literal, Operator, Span};
use crate::rules::check::{Check, NumberCheck, TextCheck, TextSet};
use crate::rules::number::Exact;
use crate::rules::operand::Problem;
use crate::rules::pattern::{Kind, PatternError, Patterns};

/// A test against one value.
pub(super) fn single(
    op: Operator,
    ty: FieldType,
    literal: &Literal,
    patterns: &mut Patterns,
) -> Result<Check, Problem> {
    match ty {
        FieldType::Number => number(op, literal).map(Check::Number),
        FieldType::Bool => {
            let wanted = truth(literal)?;
            Ok(Check::Bool(if op == Operator::Ne { !wanted } else { wanted }))
        }
        FieldType::Text | FieldType::TextList => {
            let check = text(op, literal, patterns)?;
            Ok(if op == Operator::Ne { Check::NotText(check) } else { Check::Text(check) })
        }
    }
}

fn number(op: Operator, literal: &Literal) -> Result<NumberCheck, Problem> {
    let exact = exact(literal)?;
    exact.check(op).ok_or_else(|| Problem::new(literal.span, format!("`{}` is not for numbers", op.word())))
}

fn exact(literal: &Literal) -> Result<Exact, Problem> {
    let text = &literal.value.text;
    Exact::parse(text).ok_or_else(|| {
        Problem::new(literal.span, format!("`{text}` is not a number"))
            .help("the field is a number; write decimal, or hexadecimal with 0x")
    })
}

fn truth(literal: &Literal) -> Result<bool, Problem> {
    match literal.value.text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Problem::new(literal.span, format!("`{other}` is neither `true` nor `false`"))),
    }
}

fn text(op: Operator, literal: &Literal, patterns: &mut Patterns) -> Result<TextCheck, Problem> {
    let text = literal.value.text.as_str();
    let boxed = || text.into();
    let mut pattern =
        |kind| patterns.get(kind, text).map_err(|error| misfit(literal, error)).map(TextCheck::Pattern);
    match op {
        Operator::Contains => Ok(TextCheck::Contains(boxed())),
        Operator::Icontains => Ok(TextCheck::ContainsIgnoringCase(boxed())),
        Operator::Bcontains => Ok(TextCheck::ContainsBytes(bytes(literal)?)),
        Operator::Startswith => Ok(TextCheck::StartsWith(boxed())),
        Operator::Bstartswith => Ok(TextCheck::StartsWithBytes(bytes(literal)?)),
        Operator::Endswith => Ok(TextCheck::EndsWith(boxed())),
        Operator::Glob if !text.contains(['?', '[', '\\']) => {
            Ok(TextCheck::Parts(text.split('*').map(Box::from).collect()))
        }
        Operator::Glob => pattern(Kind::Glob),
        Operator::Iglob => pattern(Kind::GlobIgnoringCase),
        Operator::Regex => pattern(Kind::Regex),
        _ => Ok(TextCheck::Equals(boxed())),
    }
}

/// What is wrong with a pattern, at its place in the condition where that can be told.
fn misfit(literal: &Literal, error: PatternError) -> Problem {
    let Span { start, end } = literal.span;
    // Escapes in quotes are resolved: behind one, places differ.
    let quotes = usize::from(literal.value.quoted);
    let verbatim = end.checked_sub(start) == Some(literal.value.text.len() + 2 * quotes);
    let span = match error.offset {
        Some(offset) if verbatim && offset < literal.value.text.len() => {
            let at = start + quotes + offset;
            Span { start: at, end: at + 1 }
        }
        _ => literal.span,
    };
    Problem::new(span, error.message)
}

/// The bytes that hexadecimal digits stand for.
fn bytes(literal: &Literal) -> Result<Box<[u8]>, Problem> {
    let digits = literal.value.text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair =
            std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        if pair.len() == 2 { u8::from_str_radix(pair, 16).ok() } else { None }
    });
    pairs.collect::<Option<_>>().ok_or_else(|| {
        Problem::new(literal.span, "expected bytes as pairs of hexadecimal digits, such as `7f454c46`")
    })
}

/// A test against a list.
pub(super) fn several(
    op: Operator,
    ty: FieldType,
    members: &[Literal],
    patterns: &mut Patterns,
) -> Result<Check, Problem> {
    match (ty, op) {
        (FieldType::Number, _) => {
            let numbers: Result<Vec<Exact>, Problem> = members.iter().map(exact).collect();
            let mut numbers: Vec<i64> = numbers?.into_iter().filter_map(Exact::whole).collect();
            numbers.sort_unstable();
            Ok(Check::Number(NumberCheck::OneOf(numbers.into())))
        }
        (FieldType::Bool, _) => {
            let checks: Result<Vec<Check>, Problem> =
                members.iter().map(|member| truth(member).map(Check::Bool)).collect();
            Ok(Check::Any(checks?.into()))
        }
        (_, Operator::Pmatch) => below(members, patterns),
        _ => {
            let set = TextSet::new(members.iter().map(|member| member.value.text.clone()));
            let check = TextCheck::OneOf(set);
            Ok(if op == Operator::In { Check::EveryText(check) } else { Check::Text(check) })
        }
    }
}

/// `pmatch`: paths as they are, and paths with wildcards, which do not cross a slash.
fn below(members: &[Literal], patterns: &mut Patterns) -> Result<Check, Problem> {
    let mut plain: Vec<Box<str>> = Vec::new();
    let mut checks = Vec::new();
    for member in members {
        let path = member.value.text.as_str();
        if path.is_empty() {
            return Err(Problem::new(member.span, "an empty path"));
        }
        let path = path.trim_end_matches('/');
        if path.contains(['*', '?', '[']) {
            let pattern = patterns.get(Kind::Below, path).map_err(|error| misfit(member, error))?;
            checks.push(Check::Text(TextCheck::Pattern(pattern)));
        } else {
            plain.push(path.into());
        }
    }
    let plain = Check::Text(TextCheck::BelowOneOf(plain.into()));
    if checks.is_empty() {
        return Ok(plain);
    }
    checks.push(plain);
    Ok(Check::Any(checks.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::ast::{LiteralKind, Spanned};

    proptest! {
        /// Stars alone need no regular expression.
        #[test]
        fn a_glob_of_stars_means_what_it_means_as_a_pattern(glob in "[ab*]{0,7}", value in "[ab\n]{0,9}") {
            let mut patterns = Patterns::default();
            let pattern = patterns.get(Kind::Glob, &glob).unwrap();
            let kind = LiteralKind { text: glob, quoted: false };
            let literal = Spanned { value: kind, span: Span::default() };
            let check = text(Operator::Glob, &literal, &mut patterns).unwrap();
            prop_assert!(matches!(check, TextCheck::Parts(_)));
            prop_assert_eq!(check.fits(&value), pattern.is_match(&value));
        }
    }
}
