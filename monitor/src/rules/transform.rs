//! Transformers: what arguments each takes, and what it gives.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::ast::{Operand, OperandKind, Span, Transform, TransformKind};
use super::falco::Dialect;
use super::getopt::{self, Options};
use super::operand::{self, Problem, Source, Typed};
use crate::fields::{FieldSource, FieldType, TextList, Value};

/// A transformer that knows everything but its arguments' values.
#[derive(Clone, Debug)]
pub(crate) enum Function {
    Tolower,
    Toupper,
    B64,
    Basename,
    Len,
    /// The first argument stands between the others.
    Join,
    Concat,
    /// All arguments but the last are program arguments, the last says which options there are; with the value of
    /// one option, or with all that was found.
    Getopt(Option<char>),
    /// The same, options known at load: all arguments are program arguments.
    GetoptOf(Box<Options>, Option<char>),
}

/// Looks a transformer's arguments up, and whether they are right for it.
pub(crate) fn resolve(transform: &Transform, span: Span, dialect: Dialect) -> Result<Typed, Problem> {
    let args = transform.args.as_slice();
    let applied = |function, args: Vec<Typed>, ty| {
        let source = Source::Applied(function, args.into_iter().map(|arg| arg.source).collect());
        Ok(Typed { source, ty })
    };
    let function = match transform.kind {
        TransformKind::Tolower => Function::Tolower,
        TransformKind::Toupper => Function::Toupper,
        TransformKind::B64 => Function::B64,
        TransformKind::Basename => Function::Basename,
        TransformKind::Len => Function::Len,
        TransformKind::Join => {
            let [separator, list] = args else {
                let message = "`join` needs two arguments: a separator, and a list of values";
                return Err(Problem::new(span, message).help("write `join('-', (proc.pname, proc.name))`"));
            };
            let mut values = vec![single(separator, transform.kind, dialect)?];
            values.extend(list_of(list, transform.kind, dialect)?);
            return applied(Function::Join, values, FieldType::Text);
        }
        TransformKind::Concat => {
            if args.len() < 2 {
                return Err(Problem::new(span, "`concat` needs at least two values"));
            }
            let values: Result<Vec<Typed>, Problem> =
                args.iter().map(|arg| single(arg, transform.kind, dialect)).collect();
            return applied(Function::Concat, values?, FieldType::Text);
        }
        TransformKind::Getopt => return resolve_getopt(transform, span, dialect),
    };
    let [arg] = args else {
        return Err(Problem::new(span, format!("`{}` takes one value", transform.kind.word())));
    };
    let arg_span = arg.span;
    let arg = operand::resolve(arg, dialect)?;
    let ty = match (arg.ty, &function) {
        (FieldType::Text | FieldType::TextList, Function::Len) => FieldType::Number,
        (ty @ (FieldType::Text | FieldType::TextList), _) => ty,
        (ty @ (FieldType::Number | FieldType::Bool), _) => {
            let message = format!("`{}` needs a text, this is a {}", transform.kind.word(), ty.name());
            return Err(Problem::new(arg_span, message));
        }
    };
    applied(function, vec![arg], ty)
}

/// `getopt(arguments, options)`, perhaps with the letter of an option in brackets.
fn resolve_getopt(transform: &Transform, span: Span, dialect: Dialect) -> Result<Typed, Problem> {
    let [list, options] = transform.args.as_slice() else {
        let message = "`getopt` needs two arguments: program arguments, and the options among them";
        return Err(Problem::new(span, message).help("write `getopt(proc.args, 'vo:')`"));
    };
    let wanted = match transform.key.as_deref() {
        None => None,
        Some(key) => {
            let mut letters = key.chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => Some(letter),
                _ => {
                    return Err(Problem::new(
                        span,
                        "in brackets behind `getopt` stands the letter of one option",
                    ));
                }
            }
        }
    };
    // A text is split at its blanks: `proc.args` is one.
    let mut values = match &list.value {
        OperandKind::Tuple(_) => list_of(list, transform.kind, dialect)?,
        _ => vec![text(list, transform.kind, dialect)?],
    };
    let ty = if wanted.is_some() { FieldType::Text } else { FieldType::TextList };
    let function = match &options.value {
        OperandKind::Literal(literal) => {
            Function::GetoptOf(Box::new(Options::parse(&literal.value.text)), wanted)
        }
        _ => {
            values.push(single(options, transform.kind, dialect)?);
            Function::Getopt(wanted)
        }
    };
    let source = Source::Applied(function, values.into_iter().map(|arg| arg.source).collect());
    Ok(Typed { source, ty })
}

/// One value that is no list.
fn single(arg: &Operand, kind: TransformKind, dialect: Dialect) -> Result<Typed, Problem> {
    let typed = operand::resolve(arg, dialect)?;
    if typed.ty == FieldType::TextList {
        let message = format!("`{}` needs a single value here, this is a {}", kind.word(), typed.ty.name());
        return Err(Problem::new(arg.span, message));
    }
    Ok(typed)
}

/// One or more texts.
fn text(arg: &Operand, kind: TransformKind, dialect: Dialect) -> Result<Typed, Problem> {
    let typed = operand::resolve(arg, dialect)?;
    if matches!(typed.ty, FieldType::Text | FieldType::TextList)
        && !matches!(typed.source, Source::Literal(_))
    {
        return Ok(typed);
    }
    Err(Problem::new(arg.span, format!("`{}` needs a list of texts here", kind.word())))
}

/// The members of a list in parentheses, or a field that is a list.
fn list_of(arg: &Operand, kind: TransformKind, dialect: Dialect) -> Result<Vec<Typed>, Problem> {
    if let OperandKind::Tuple(members) = &arg.value {
        return members.iter().map(|member| operand::resolve(member, dialect)).collect();
    }
    let typed = operand::resolve(arg, dialect)?;
    if typed.ty == FieldType::TextList {
        return Ok(vec![typed]);
    }
    let message = format!("`{}` needs a list here, this is a {}", kind.word(), typed.ty.name());
    Err(Problem::new(arg.span, message).help("a list stands in parentheses: `(proc.pname, proc.name)`"))
}

impl Function {
    /// The value for an event.
    pub(crate) fn apply<'e, E: FieldSource + ?Sized>(&self, args: &'e [Source], event: &'e E) -> Value<'e> {
        let first = || args.first().map_or(Value::Absent, |arg| arg.value(event));
        match self {
            Function::Tolower => map(first(), |text| Some(text.to_ascii_lowercase())),
            Function::Toupper => map(first(), |text| Some(text.to_ascii_uppercase())),
            Function::B64 => map(first(), decode_base64),
            Function::Basename => {
                map(first(), |text| Some(text.rsplit_once('/').map_or(text, |(_, name)| name).to_owned()))
            }
            Function::Len => match first() {
                Value::Text(text) => Value::Number(text.len() as i64),
                Value::List(members) => Value::Number(members.len() as i64),
                _ => Value::Absent,
            },
            Function::Concat => join("", args, event),
            Function::Join => match (first(), args.get(1..)) {
                (Value::Absent, _) | (_, None) => Value::Absent,
                (separator, Some(values)) => join(&separator.to_string(), values, event),
            },
            Function::Getopt(wanted) => match args.split_last() {
                Some((options, args)) => match options.value(event) {
                    Value::Absent => Value::Absent,
                    options => getopt(&Options::parse(&options.to_string()), *wanted, args, event),
                },
                None => Value::Absent,
            },
            Function::GetoptOf(options, wanted) => getopt(options, *wanted, args, event),
        }
    }
}

/// Applies a function to a text or to each member of a list; what has no result is left out.
fn map<'e>(value: Value<'e>, function: impl Fn(&str) -> Option<String>) -> Value<'e> {
    match value {
        Value::Text(text) => function(&text).map_or(Value::Absent, |text| Value::Text(Cow::Owned(text))),
        Value::List(members) => {
            Value::List(Box::new(members.iter().filter_map(|m| function(m)).map(Cow::Owned).collect()))
        }
        _ => Value::Absent,
    }
}

/// Joins values; absent if one of them is.
fn join<'e, E: FieldSource + ?Sized>(separator: &str, args: &'e [Source], event: &'e E) -> Value<'e> {
    let mut out = String::new();
    let mut first = true;
    let mut push = |text: &str| {
        if !std::mem::take(&mut first) {
            out.push_str(separator);
        }
        out.push_str(text);
    };
    for arg in args {
        match arg.value(event) {
            Value::Absent => return Value::Absent,
            Value::Text(text) => push(&text),
            Value::List(members) => members.iter().for_each(|member| push(member)),
            other => push(&other.to_string()),
        }
    }
    Value::Text(Cow::Owned(out))
}

fn getopt<'e, E: FieldSource + ?Sized>(
    options: &Options,
    wanted: Option<char>,
    args: &'e [Source],
    event: &'e E,
) -> Value<'e> {
    let values: Vec<Value<'e>> = args.iter().map(|arg| arg.value(event)).collect();
    let mut words: Vec<Cow<'_, str>> = Vec::new();
    for value in &values {
        match value {
            Value::Absent => return Value::Absent,
            // The only value, so it is a command line.
            Value::Text(text) if values.len() == 1 && !matches!(args.first(), Some(Source::Literal(_))) => {
                words.extend(text.split(' ').map(Cow::Borrowed));
            }
            Value::Text(text) => words.push(Cow::Borrowed(text)),
            Value::List(members) => words.extend(members.iter().map(|m| Cow::Borrowed(&**m))),
            other => words.push(Cow::Owned(other.to_string())),
        }
    }
    let words = words.iter().map(|word| &**word);
    match wanted {
        Some(letter) => match getopt::value_of(options, letter, words) {
            Some(value) => Value::Text(Cow::Owned(value)),
            None => Value::Absent,
        },
        None => {
            let found = getopt::all(options, words);
            let found: TextList<'_> =
                found.into_iter().take(crate::fields::MAX_LIST).map(Cow::Owned).collect();
            if found.is_empty() { Value::Absent } else { Value::List(Box::new(found)) }
        }
    }
}

/// Decodes Base64, padded or not; bytes that are not UTF-8 become `\xHH`, as in every text of the catalogue.
fn decode_base64(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                _ => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    Some(out)
}
