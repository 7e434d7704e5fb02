//! Conditions evaluated the plain way: a walk over the syntax tree, written for the tests alone. It shares nothing
//! with the compiled conditions but the tree and the values.

use std::collections::HashMap;

use monitor::fields::{self, FieldSource, FieldType, Value};
use monitor::rules::ast::{
    Expr, ExprKind, FieldName, List, Literal, Modifier, Operand, OperandKind, Operator, Right, TransformKind,
};

/// Macros and lists by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) macros: HashMap<String, Expr>,
    pub(crate) lists: HashMap<String, Vec<String>>,
}

/// A value without borrowing: `None` is absent.
#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Text(String),
    List(Vec<String>),
    Number(i64),
    Bool(bool),
}

/// Whether a condition holds for an event.
pub(crate) fn holds(expr: &Expr, names: &Names, event: &dyn FieldSource) -> bool {
    match &expr.value {
        ExprKind::Or(members) => members.iter().any(|member| holds(member, names, event)),
        ExprKind::And(members) => members.iter().all(|member| holds(member, names, event)),
        ExprKind::Not(member) => !holds(member, names, event),
        ExprKind::Macro(name) => holds(&names.macros[name], names, event),
        ExprKind::Exists(left) => lefts(left, event).iter().any(Option::is_some),
        ExprKind::Compare(left, op, right) => lefts(left, event)
            .into_iter()
            .flatten()
            .any(|value| compare(&value, op.value, right, names, event)),
    }
}

/// The values of the left side: one, but for a field of ancestors that stands without a number.
fn lefts(operand: &Operand, event: &dyn FieldSource) -> Vec<Option<Plain>> {
    match &operand.value {
        OperandKind::Field(FieldName { name, arg: None })
            if matches!(name.as_str(), "proc.aname" | "proc.apid" | "proc.aexepath" | "proc.acmdline") =>
        {
            (1..=8).map(|index| field(name, Some(&index.to_string()), event)).collect()
        }
        _ => vec![value(operand, event)],
    }
}

fn field(name: &str, arg: Option<&str>, event: &dyn FieldSource) -> Option<Plain> {
    let field = fields::resolve(name, arg).unwrap_or_else(|error| panic!("{error}"));
    match event.value(field) {
        Value::Absent => None,
        Value::Text(text) => Some(Plain::Text(text.into_owned())),
        Value::List(members) if members.is_empty() => None,
        Value::List(members) => Some(Plain::List(members.iter().map(|m| m.to_string()).collect())),
        Value::Number(number) => Some(Plain::Number(number)),
        Value::Bool(truth) => Some(Plain::Bool(truth)),
    }
}

fn value(operand: &Operand, event: &dyn FieldSource) -> Option<Plain> {
    match &operand.value {
        OperandKind::Field(FieldName { name, arg }) => field(name, arg.as_deref(), event),
        OperandKind::Literal(literal) => Some(Plain::Text(literal.value.text.clone())),
        OperandKind::Tuple(_) => panic!("a list is no value"),
        OperandKind::Transform(transform) => {
            let args = &transform.args;
            let each = |function: fn(&str) -> String| {
                Some(match value(&args[0], event)? {
                    Plain::Text(text) => Plain::Text(function(&text)),
                    Plain::List(members) => Plain::List(members.iter().map(|m| function(m)).collect()),
                    other => panic!("{other:?}"),
                })
            };
            match transform.kind {
                TransformKind::Tolower => each(|text| text.to_ascii_lowercase()),
                TransformKind::Toupper => each(|text| text.to_ascii_uppercase()),
                TransformKind::Basename => each(|text| text.split('/').next_back().unwrap_or("").to_owned()),
                TransformKind::Len => Some(Plain::Number(match value(&args[0], event)? {
                    Plain::Text(text) => text.len() as i64,
                    Plain::List(members) => members.len() as i64,
                    other => panic!("{other:?}"),
                })),
                TransformKind::Concat => {
                    let parts: Option<Vec<String>> = args.iter().map(|arg| printed(arg, event)).collect();
                    Some(Plain::Text(parts?.concat()))
                }
                TransformKind::Join => {
                    let OperandKind::Tuple(members) = &args[1].value else { panic!("no list") };
                    let separator = printed(&args[0], event)?;
                    let parts: Option<Vec<String>> = members.iter().map(|arg| printed(arg, event)).collect();
                    Some(Plain::Text(parts?.join(&separator)))
                }
                TransformKind::B64 | TransformKind::Getopt => panic!("not generated"),
            }
        }
    }
}

fn printed(operand: &Operand, event: &dyn FieldSource) -> Option<String> {
    Some(match value(operand, event)? {
        Plain::Text(text) => text,
        Plain::Number(number) => number.to_string(),
        Plain::Bool(truth) => truth.to_string(),
        Plain::List(_) => panic!("not generated"),
    })
}

fn compare(left: &Plain, op: Operator, right: &Right, names: &Names, event: &dyn FieldSource) -> bool {
    match right {
        Right::Value(literal) => with_literal(left, op, &literal.value.text),
        Right::Many(modifier, list) => {
            let members = members(list, names);
            let fitting = members.iter().filter(|member| with_literal(left, op, member)).count();
            match modifier {
                Modifier::OneOf => fitting == 1,
                Modifier::AnyOf => fitting > 0,
                Modifier::AllOf => !members.is_empty() && fitting == members.len(),
            }
        }
        Right::List(list) => {
            let members = members(list, names);
            match (left, op) {
                (Plain::List(own), Operator::In) => own.iter().all(|text| members.contains(text)),
                (_, Operator::Pmatch) => {
                    texts(left).iter().any(|text| members.iter().any(|prefix| below(text, prefix)))
                }
                _ => members.iter().any(|member| with_literal(left, Operator::Eq, member)),
            }
        }
        Right::Val(name) => {
            let right = field(&name.value.name, name.value.arg.as_deref(), event);
            right.is_some_and(|right| with_value(left, op, &right))
        }
        Right::Transform(operand) => value(operand, event).is_some_and(|right| with_value(left, op, &right)),
    }
}

fn members(list: &List, names: &Names) -> Vec<String> {
    match list {
        List::Name(name) => names.lists[&name.value].clone(),
        List::Members(members, _) => members.iter().flat_map(|member| spliced(member, names)).collect(),
    }
}

fn spliced(member: &Literal, names: &Names) -> Vec<String> {
    match names.lists.get(&member.value.text) {
        Some(members) if !member.value.quoted => members.clone(),
        _ => vec![member.value.text.clone()],
    }
}

fn texts(value: &Plain) -> Vec<String> {
    match value {
        Plain::Text(text) => vec![text.clone()],
        Plain::List(members) => members.clone(),
        other => panic!("no text: {other:?}"),
    }
}

fn with_literal(left: &Plain, op: Operator, right: &str) -> bool {
    match left {
        Plain::Number(number) => {
            // Only small numbers are generated, which are exact.
            let right: f64 = right.parse().unwrap_or_else(|_| panic!("{right}"));
            numbers(*number as f64, op, right)
        }
        Plain::Bool(truth) => (truth.to_string() == right) != (op == Operator::Ne),
        Plain::Text(_) | Plain::List(_) if op == Operator::Ne => texts(left).iter().all(|text| text != right),
        Plain::Text(_) | Plain::List(_) => texts(left).iter().any(|text| one_text(text, op, right)),
    }
}

fn with_value(left: &Plain, op: Operator, right: &Plain) -> bool {
    match (left, right) {
        (Plain::Number(left), Plain::Number(right)) => numbers(*left as f64, op, *right as f64),
        (Plain::Bool(left), Plain::Bool(right)) => (left == right) != (op == Operator::Ne),
        _ => {
            let (left, right) = (texts(left), texts(right));
            let pair = |op| left.iter().any(|l| right.iter().any(|r| one_text(l, op, r)));
            match op {
                Operator::Ne => !pair(Operator::Eq),
                Operator::In => left.iter().all(|l| right.contains(l)),
                Operator::Intersects => pair(Operator::Eq),
                op => pair(op),
            }
        }
    }
}

fn numbers(left: f64, op: Operator, right: f64) -> bool {
    match op {
        Operator::Eq | Operator::In | Operator::Intersects => left == right,
        Operator::Ne => left != right,
        Operator::Lt => left < right,
        Operator::Le => left <= right,
        Operator::Gt => left > right,
        Operator::Ge => left >= right,
        other => panic!("{other:?}"),
    }
}

fn one_text(left: &str, op: Operator, right: &str) -> bool {
    match op {
        Operator::Eq | Operator::In | Operator::Intersects => left == right,
        Operator::Contains => left.contains(right),
        Operator::Icontains => left.to_ascii_lowercase().contains(&right.to_ascii_lowercase()),
        Operator::Startswith => left.starts_with(right),
        Operator::Endswith => left.ends_with(right),
        Operator::Glob => glob(&chars(right), &chars(left)),
        Operator::Iglob => glob(&chars(&right.to_ascii_lowercase()), &chars(&left.to_ascii_lowercase())),
        other => panic!("{other:?}"),
    }
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// A glob of `*` and `?`, by trying everything.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(('*', rest)), _) => (0..=text.len()).any(|taken| glob(rest, &text[taken..])),
        (Some(_), None) => false,
        (Some(('?', rest)), Some((_, text))) => glob(rest, text),
        (Some((c, rest)), Some((first, text))) => c == first && glob(rest, text),
    }
}

/// Whether a path is a prefix or lies below it, component by component.
fn below(path: &str, prefix: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let wanted: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
    wanted.len() <= parts.len()
        && wanted.iter().zip(&parts).all(|(wanted, part)| glob(&chars(wanted), &chars(part)))
}

/// The type of a field's values.
pub(crate) fn type_of(name: &str) -> FieldType {
    fields::CATALOGUE.iter().find(|spec| spec.name == name).map_or(FieldType::Text, |spec| spec.ty)
}
