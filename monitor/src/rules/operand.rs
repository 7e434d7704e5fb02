//! Fields and transformed fields: looked up at load, read from events later.

use std::borrow::Cow;
use std::sync::Arc;

use super::ast::{FieldName, Operand, OperandKind, Span};
use super::diagnostic::did_you_mean;
use super::falco::{self, Dialect, Foreign};
use super::transform::{self, Function};
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
    Applied(Function, Box<[Source]>),
    /// A text in the rule.
    Literal(Box<str>),
    /// A value that never changes.
    Constant(Value<'static>),
    /// A field of Falco's, and what stands for it.
    Foreign(Arc<Foreign>),
}

/// A source with the type of its values.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) source: Source,
    pub(crate) ty: FieldType,
}

/// Looks an operand up.
pub(crate) fn resolve(operand: &Operand, dialect: Dialect) -> Result<Typed, Problem> {
    match &operand.value {
        OperandKind::Field(name) => resolve_field(name, operand.span, dialect),
        OperandKind::Transform(transform) => transform::resolve(transform, operand.span, dialect),
        OperandKind::Literal(literal) => {
            let source = Source::Literal(literal.value.text.as_str().into());
            Ok(Typed { source, ty: FieldType::Text })
        }
        OperandKind::Tuple(_) => Err(Problem::new(operand.span, "a list of values is not a value")),
    }
}

/// Whether a text is a field that there is, or a transformed one.
pub(crate) fn names_field(text: &str) -> bool {
    let text = text.trim();
    match super::condition::parse_operand_prefix(text) {
        Ok((operand, length)) if length == text.len() => {
            matches!(operand.value, OperandKind::Field(_) | OperandKind::Transform(_))
                && resolve(&operand, Dialect::Ours).is_ok()
        }
        _ => false,
    }
}

/// Looks a field up: in a file of Falco's among Falco's fields, too.
pub(crate) fn resolve_field(name: &FieldName, span: Span, dialect: Dialect) -> Result<Typed, Problem> {
    if dialect.is_falco()
        && let Some(resolved) = falco::resolve(name, span)
    {
        return resolved;
    }
    resolve_ours(name, span)
}

/// Looks a field up in the catalogue.
pub(crate) fn resolve_ours(name: &FieldName, span: Span) -> Result<Typed, Problem> {
    if name.arg.as_deref() == Some("") {
        return Err(Problem::new(span, format!("the argument of `{}` is empty", name.name)));
    }
    match fields::resolve(&name.name, name.arg.as_deref()) {
        Ok(field) => Ok(Typed { source: Source::Field(field), ty: field.field.spec().ty }),
        Err(error) => {
            let unknown_field = matches!(error, FieldError::Unknown { .. });
            let help = if unknown_field {
                let names = CATALOGUE.iter().map(|spec| spec.name);
                falco::hint(&name.name)
                    .or_else(|| did_you_mean(&name.name, names))
                    .or_else(|| Some("`ringfence fields` lists all fields".to_owned()))
            } else {
                None
            };
            Err(Problem { span, message: error.to_string(), help, unknown_field })
        }
    }
}

impl Source {
    /// The value for an event.
    pub(crate) fn value<'e, E: FieldSource + ?Sized>(&'e self, event: &'e E) -> Value<'e> {
        match self {
            Source::Field(field) => event.value(*field),
            Source::Literal(text) => Value::text(text),
            Source::Constant(value) => value.clone(),
            Source::Foreign(foreign) => foreign.value(event),
            Source::Applied(function, args) => function.apply(args, event),
        }
    }

    /// Calls back for every field that the value rests on.
    pub(crate) fn each_field(&self, visit: &mut impl FnMut(FieldRef)) {
        match self {
            Source::Field(field) => visit(*field),
            Source::Literal(_) | Source::Constant(_) => {}
            Source::Applied(_, args) => args.iter().for_each(|arg| arg.each_field(visit)),
            Source::Foreign(foreign) => foreign.each_field(visit),
        }
    }

    /// Calls back for every field of Falco's in it.
    pub(crate) fn each_foreign(&self, visit: &mut impl FnMut(&Foreign)) {
        match self {
            Source::Applied(_, args) => args.iter().for_each(|arg| arg.each_foreign(visit)),
            Source::Foreign(foreign) => visit(foreign),
            Source::Field(_) | Source::Literal(_) | Source::Constant(_) => {}
        }
    }

    /// Whether it rests on a field of Falco's that nothing stands for.
    pub(crate) fn is_missing(&self) -> bool {
        let mut missing = false;
        self.each_foreign(&mut |foreign| missing |= foreign.is_missing());
        missing
    }
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
pub(crate) fn bracketed_text(text: &str) -> Cow<'_, str> {
    let needs_quotes = |c: char| c.is_whitespace() || matches!(c, '[' | ']' | '"' | '\'' | '\\');
    if text.contains(needs_quotes) {
        Cow::Owned(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    } else {
        Cow::Borrowed(text)
    }
}
