//! Exceptions of a rule: what they say, and the condition that each comes to.

use time::Date;

use super::ast::{ExprKind, LiteralKind, OperandKind, Right, Span};
use super::compile::Compiled;
use super::condition;
use super::diagnostic::Diagnostic;
use super::falco::Dialect;
use super::file::{Comp, Composer, Group, Member, Row, Shape, Text};
use super::operand::{self, Problem, Typed};

/// Values that a rule excepts, with what is said about them. An exception to which values were appended stands
/// once for each place that gave some.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Its name, unique in the rule.
    pub name: String,
    /// Why it is there.
    pub reason: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The last day on which it excepts, in UTC.
    pub expires: Option<Date>,
    /// That day has passed: it does not except any more.
    pub expired: bool,
    /// What it excepts, as a condition; `None` if it has no values yet.
    pub condition: Option<String>,
    /// The condition compiled; `None` if there is none or it has expired.
    pub(crate) compiled: Option<Compiled>,
}

/// A text that is a field or a transformed field, and nothing else.
pub(crate) fn field(text: &Text, dialect: Dialect) -> Result<Typed, Problem> {
    let text = text.as_str().trim_end();
    let whole = Span { start: 0, end: text.len() };
    let (operand, length) =
        condition::parse_operand_prefix(text).map_err(|error| Problem::new(whole, error.message))?;
    if length < text.len() || !matches!(operand.value, OperandKind::Field(_) | OperandKind::Transform(_)) {
        return Err(Problem::new(whole, format!("expected a field, found `{text}`")));
    }
    operand::resolve(&operand, dialect)
}

/// The condition of what a group of values excepts; `None` if there are none. Wrong values are reported and left out.
pub(crate) fn clause(
    fields: &Shape,
    comps: &[Comp],
    group: &Group,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Text> {
    let mut clause = Composer::default();
    match fields {
        Shape::One(field) => {
            let comp = comps.first()?;
            for row in &group.rows {
                match row {
                    Row::Tuple(place, _) => {
                        let message =
                            format!("expected a value of `{}`, found a sequence", field.as_str().trim());
                        let help = "put the field into brackets to except tuples";
                        diagnostics.push(place.wrong(message).help(help));
                    }
                    Row::One(value) => {
                        if clause.is_empty() {
                            clause.piece(field, field.as_str().trim());
                            clause.glue(&format!(" {comp} ("));
                        } else {
                            clause.glue(", ");
                        }
                        add_value(&mut clause, value, true, diagnostics);
                    }
                }
            }
            if !clause.is_empty() {
                clause.glue(")");
            }
        }
        Shape::Several(fields) => {
            for row in &group.rows {
                tuple(&mut clause, fields, comps, row, diagnostics);
            }
        }
    }
    clause.finish()
}

/// Adds what one tuple excepts.
fn tuple(
    clause: &mut Composer,
    fields: &[Text],
    comps: &[Comp],
    row: &Row,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let wanted = fields.len();
    let members = match row {
        Row::Tuple(_, members) if members.len() == wanted => members,
        Row::Tuple(place, members) => {
            let message = format!("expected {wanted} values, one for each field, found {}", members.len());
            return diagnostics.push(place.wrong(message));
        }
        Row::One(value) => {
            let message = format!("expected a sequence of {wanted} values, one for each field");
            let help = format!("put it into brackets: `[{}]`", value.as_str());
            return diagnostics.push(value.wrong(message).help(help));
        }
    };
    clause.glue(if clause.is_empty() { "(" } else { " or (" });
    for (index, ((field, comp), member)) in fields.iter().zip(comps).zip(members).enumerate() {
        if index > 0 {
            clause.glue(" and ");
        }
        clause.piece(field, field.as_str().trim());
        clause.glue(&format!(" {comp} "));
        match member {
            Member::List(values) if comp.takes_list() => {
                clause.glue("(");
                for (index, value) in values.iter().enumerate() {
                    clause.glue(if index > 0 { ", " } else { "" });
                    add_value(clause, value, true, diagnostics);
                }
                clause.glue(")");
            }
            Member::List(values) => {
                let place = values.first().unwrap_or(field);
                let message = format!("`{comp}` compares with one value, not with a list");
                diagnostics.push(place.wrong(message).help("compare by `in`"));
                // Something has to stand there, so that the rest is still checked.
                clause.glue("''");
            }
            Member::One(value) if comp.takes_list() => match parenthesised(value) {
                Some(list) => clause.piece(value, list),
                None => {
                    clause.glue("(");
                    add_value(clause, value, true, diagnostics);
                    clause.glue(")");
                }
            },
            Member::One(value) => add_value(clause, value, false, diagnostics),
        }
    }
    clause.glue(")");
}

/// A list that was written into one text, as `(a, b)`.
fn parenthesised(value: &Text) -> Option<&str> {
    let text = value.as_str().trim();
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    (!inner.contains(['(', ')'])).then_some(text)
}

/// Adds a value as a condition has to say it: as it is if it has no blanks and the grammar takes it for a value, in
/// quotes otherwise. So a list's name stands for its members, a transformer or `val(…)` for what it gives, and
/// whatever else there is for itself.
fn add_value(clause: &mut Composer, value: &Text, in_list: bool, diagnostics: &mut Vec<Diagnostic>) {
    let text = value.as_str();
    let kind = as_right_hand_side(text);
    let as_is = match kind {
        Some(RightKind::Quoted) => true,
        Some(RightKind::Bare) => !text.contains(char::is_whitespace),
        Some(RightKind::Computed) => !in_list && !text.contains(char::is_whitespace),
        None => false,
    };
    if !(as_is && kind == Some(RightKind::Computed)) && operand::names_field(text) {
        let message = format!("`{}` is taken for a text, though it looks like a field", text.trim());
        let help = if text.contains('(') {
            "leave out its blanks to compare with what it gives".to_owned()
        } else {
            format!("write `val({})` to compare with the field's value", text.trim())
        };
        diagnostics.push(value.wrong(message).help(help).warning());
    }
    if as_is {
        clause.piece(value, text.trim());
        return;
    }
    if text.ends_with('\\') {
        let message = "a value with blanks or quotes cannot end in a backslash";
        diagnostics.push(value.wrong(message));
    }
    clause.piece(value, &LiteralKind { text: text.to_owned(), quoted: true }.to_string());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RightKind {
    Bare,
    Quoted,
    Computed,
}

/// What the grammar takes a text for on the right of a comparison; `None` if it does not fit there.
fn as_right_hand_side(text: &str) -> Option<RightKind> {
    let expr = condition::parse(&format!("a.b = {text}")).ok()?;
    let ExprKind::Compare(_, _, right) = expr.value else { return None };
    match right {
        Right::Value(literal) if literal.value.quoted => Some(RightKind::Quoted),
        Right::Value(_) => Some(RightKind::Bare),
        Right::Val(_) | Right::Transform(_) => Some(RightKind::Computed),
        Right::List(_) | Right::Many(..) => None,
    }
}
