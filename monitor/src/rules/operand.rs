//! Fields and transformed fields: looked up at load, read from events later.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::ast::{FieldName, Operand, OperandKind, Span, Transform, TransformKind};
use super::diagnostic::did_you_mean;
use crate::fields::{self, CATALOGUE, FieldArg, FieldError, FieldRef, FieldSource, FieldType, Value};

/// What is wrong with a condition or a template, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where, in bytes of the text.
    pub(crate) span: Span,
    /// What.
    pub(crate) message: String,
    /// How to put it right.
    pub(crate) help: Option<String>,
    /// Whether it is a field that the catalogue does not have (`skip-if-unknown-filter`).
    pub(crate) unknown_field: bool,
}

impl Problem {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Problem { span, message: message.into(), help: None, unknown_field: false }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A field.
    Field(FieldRef),
    /// A function of other values.
    Applied(TransformKind, Box<[Source]>),
    /// A text in the rule.
    Literal(Box<str>),
}

/// A source with the type of its values.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) source: Source,
    pub(crate) ty: FieldType,
}

/// Looks an operand up.
pub(crate) fn resolve(operand: &Operand) -> Result<Typed, Problem> {
    match &operand.value {
        OperandKind::Field(name) => resolve_field(name, operand.span),
        OperandKind::Transform(transform) => resolve_transform(transform, operand.span),
        OperandKind::Literal(literal) => {
            let source = Source::Literal(literal.value.text.as_str().into());
            Ok(Typed { source, ty: FieldType::Text })
        }
        OperandKind::Tuple(_) => Err(Problem::new(operand.span, "a group of values is not a value")),
    }
}

/// Looks a field up in the catalogue.
pub(crate) fn resolve_field(name: &FieldName, span: Span) -> Result<Typed, Problem> {
    match fields::resolve(&name.name, name.arg.as_deref()) {
        Ok(field) => Ok(Typed { source: Source::Field(field), ty: field.field.spec().ty }),
        Err(error) => {
            let unknown_field = matches!(error, FieldError::Unknown { .. });
            let help = if unknown_field {
                let names = CATALOGUE.iter().map(|spec| spec.name);
                did_you_mean(&name.name, names)
                    .or_else(|| Some("`ringfence fields` lists all fields".to_owned()))
            } else {
                None
            };
            Err(Problem { span, message: error.to_string(), help, unknown_field })
        }
    }
}

fn resolve_transform(transform: &Transform, span: Span) -> Result<Typed, Problem> {
    let kind = transform.kind;
    if kind == TransformKind::Getopt {
        let message = "`getopt` has nothing to work on: there is no field of program arguments";
        return Err(Problem::new(span, message));
    }
    let mut args = Vec::new();
    for arg in &transform.args {
        flatten(arg, kind, &mut args)?;
    }
    let texts = if kind == TransformKind::Join { args.get(1..).unwrap_or_default() } else { &args };
    if texts.is_empty() {
        return Err(Problem::new(span, "`join` needs a separator and at least one value"));
    }
    let list = texts.len() == 1 && texts[0].ty == FieldType::TextList;
    let ty = match kind {
        TransformKind::Len => FieldType::Number,
        TransformKind::Join | TransformKind::Concat => FieldType::Text,
        _ if list => FieldType::TextList,
        _ => FieldType::Text,
    };
    let source = Source::Applied(kind, args.into_iter().map(|arg| arg.source).collect());
    Ok(Typed { source, ty })
}

/// Looks an argument up; the members of a tuple become arguments of their own.
fn flatten(arg: &Operand, kind: TransformKind, args: &mut Vec<Typed>) -> Result<(), Problem> {
    if let OperandKind::Tuple(members) = &arg.value {
        return members.iter().try_for_each(|member| flatten(member, kind, args));
    }
    let typed = resolve(arg)?;
    // `join` and `concat` print numbers; the others are about letters.
    let fits = match typed.ty {
        FieldType::Text | FieldType::TextList => true,
        FieldType::Number | FieldType::Bool => kind.takes_many(),
    };
    if !fits {
        let message = format!("`{}` needs a text, this is a {}", kind.word(), typed.ty.name());
        return Err(Problem::new(arg.span, message));
    }
    args.push(typed);
    Ok(())
}

impl Source {
    /// The value for an event.
    pub(crate) fn value<'e, E: FieldSource + ?Sized>(&'e self, event: &'e E) -> Value<'e> {
        match self {
            Source::Field(field) => event.value(*field),
            Source::Literal(text) => Value::text(text),
            Source::Applied(kind, args) => apply(*kind, args, event),
        }
    }

    /// Calls back for every field that the value rests on.
    pub(crate) fn each_field(&self, visit: &mut impl FnMut(FieldRef)) {
        match self {
            Source::Field(field) => visit(*field),
            Source::Literal(_) => {}
            Source::Applied(_, args) => args.iter().for_each(|arg| arg.each_field(visit)),
        }
    }
}

fn apply<'e, E: FieldSource + ?Sized>(kind: TransformKind, args: &'e [Source], event: &'e E) -> Value<'e> {
    let first = || args.first().map_or(Value::Absent, |arg| arg.value(event));
    match kind {
        TransformKind::Tolower => map(first(), |text| Some(text.to_ascii_lowercase())),
        TransformKind::Toupper => map(first(), |text| Some(text.to_ascii_uppercase())),
        TransformKind::B64 => map(first(), decode_base64),
        TransformKind::Basename => {
            map(first(), |text| Some(text.rsplit_once('/').map_or(text, |(_, name)| name).to_owned()))
        }
        TransformKind::Len => match first() {
            Value::Text(text) => Value::Number(text.len() as i64),
            Value::List(members) => Value::Number(members.len() as i64),
            _ => Value::Absent,
        },
        TransformKind::Concat => join("", args, event),
        TransformKind::Join => match first() {
            Value::Text(separator) => join(&separator, args.get(1..).unwrap_or_default(), event),
            _ => Value::Absent,
        },
        TransformKind::Getopt => Value::Absent,
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

/// A field as rules write it: `proc.aname[2]`.
pub fn field_text(field: FieldRef) -> String {
    let spec = field.field.spec();
    match (field.arg, spec.arg) {
        (FieldArg::Index(index), _) => format!("{}[{index}]", spec.name),
        (FieldArg::Key(key), fields::ArgSpec::Key(keys)) => {
            format!("{}[{}]", spec.name, keys.get(usize::from(key)).copied().unwrap_or("?"))
        }
        (FieldArg::Name(name), _) => format!("{}[{}]", spec.name, bracketed_text(name.as_str())),
        _ => spec.name.to_owned(),
    }
}

/// A text as it can stand in brackets: in quotes if it needs them.
fn bracketed_text(text: &str) -> Cow<'_, str> {
    let needs_quotes = |c: char| c.is_whitespace() || matches!(c, '[' | ']' | '"' | '\'' | '\\');
    if text.contains(needs_quotes) {
        Cow::Owned(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    } else {
        Cow::Borrowed(text)
    }
}
