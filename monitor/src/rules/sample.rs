//! Events that are written down: in a rule's test, in a file, or as an alert that Ringfence raised.
//!
//! All three are YAML, of which JSON is a part, so that what is wrong is shown at its place. Writers are not trusted:
//! a text is bounded before it is read, and no name that it gives is kept for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ast::{ExprKind, OperandKind, Span};
use super::condition;
use super::diagnostic::{Diagnostic, LoadError, Source, SourceFile, closest, did_you_mean};
use super::number::Exact;
use super::yaml::{self, Kind, Node};
use crate::event_type::EventType;
use crate::fields::{
    self, ArgSpec, CATALOGUE, Field, FieldArg, FieldError, FieldRef, FieldSource as _, FieldSpec, FieldType,
    FieldValues, MAX_LIST, MAX_NAME_BYTES, Value, owned_list,
};

/// A text of an event may have this many bytes.
pub const MAX_EVENT_BYTES: u64 = 1 << 20;

/// An event names at most this many fields.
const MAX_FIELDS: usize = 512;

/// An event that was written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is about; `evt.type` says the same.
    pub ty: EventType,
    /// Its fields. One that is not named is absent.
    pub values: FieldValues,
    /// It was read from an alert, which has some of its event's fields only.
    pub from_alert: bool,
    /// The fields that were named, absent ones too, as rules write them without quotes.
    named: BTreeSet<String>,
}

impl Sample {
    /// Reads an event from a text of YAML or JSON: a mapping from fields to values, or an alert as Ringfence writes it.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn parse(name: &str, text: String) -> Result<Sample, LoadError> {
        let source: Source = Arc::new(SourceFile::new(name, text));
        let mut diagnostics = Vec::new();
        let sample = match document(&source) {
            Ok(node) => match part_of_alert(&node, "output_fields") {
                Some(fields) => from_alert(&source, &node, fields, &mut diagnostics),
                None => from_node(&source, &node, &mut diagnostics),
            },
            Err(wrong) => {
                diagnostics.push(wrong);
                None
            }
        };
        sample.filter(|_| diagnostics.is_empty()).ok_or_else(|| LoadError::new(diagnostics))
    }

    /// Whether a field was named, were it only as absent. Of what was read from an alert, other fields are not known.
    pub fn names(&self, field: FieldRef) -> bool {
        let place = match field.arg {
            FieldArg::Name(name) => Place::Named(field.field, name.as_str().to_owned()),
            _ => Place::Plain(field),
        };
        self.named.contains(&place.text())
    }
}

/// The one document of a file.
fn document(source: &Source) -> Result<Node, Diagnostic> {
    let text = source.inner();
    if text.len() as u64 > MAX_EVENT_BYTES {
        let message = format!("larger than {} KiB, which no event is", MAX_EVENT_BYTES >> 10);
        return Err(Diagnostic::file(source.name(), message));
    }
    let several = "give one event; of a file of alerts, one line";
    let documents = yaml::parse(text).map_err(|error| {
        let span = Span { start: error.offset, end: error.offset };
        let lines = text.lines().filter(|line| line.starts_with('{')).count();
        Diagnostic::at(source, span, error.message).maybe_help((lines > 1).then(|| several.to_owned()))
    })?;
    let mut documents = documents.into_iter();
    let Some(first) = documents.next() else {
        let help = "an event is a mapping from fields to values, such as `evt.type: setns`";
        return Err(Diagnostic::file(source.name(), "no event: the text is empty").help(help));
    };
    match documents.next() {
        Some(second) => Err(Diagnostic::at(source, second.span, "a second event").help(several)),
        None => Ok(first),
    }
}

/// A member of an alert: no field has such a name, since it has no dot.
fn part_of_alert<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
}

/// Reads a mapping from fields to values; what is wrong is pushed to `diagnostics`.
pub(crate) fn from_node(source: &Source, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Sample> {
    let mut reader = Reader::new(source, diagnostics, false);
    reader.fields(node)?;
    reader.finish(node)
}

/// Reads the fields of an alert; those that its `why` names are fields of the event, too.
fn from_alert(
    source: &Source,
    alert: &Node,
    fields: &Node,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Sample> {
    let mut reader = Reader::new(source, diagnostics, true);
    reader.fields(fields)?;
    if let Some(Node { kind: Kind::Sequence(reasons), .. }) = part_of_alert(alert, "why") {
        for values in reasons.iter().filter_map(|reason| part_of_alert(reason, "values")) {
            reader.fields(values)?;
        }
    }
    let sample = reader.finish(fields)?;
    Some(Sample { from_alert: true, ..sample })
}

struct Reader<'r> {
    source: &'r Source,
    diagnostics: &'r mut Vec<Diagnostic>,
    values: FieldValues,
    named: BTreeSet<String>,
    /// The event's type was given, but it is none.
    wrong_type: bool,
    /// Of an alert, which another version may have written: what is not known is left out, not wrong.
    lax: bool,
}

impl<'r> Reader<'r> {
    fn new(source: &'r Source, diagnostics: &'r mut Vec<Diagnostic>, lax: bool) -> Self {
        let (values, named) = (FieldValues::default(), BTreeSet::new());
        Reader { source, diagnostics, values, named, wrong_type: false, lax }
    }
}

impl Reader<'_> {
    fn wrong(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.diagnostics.push(Diagnostic::at(self.source, span, message).maybe_help(help));
    }

    fn fields(&mut self, node: &Node) -> Option<()> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("an event is a mapping from fields to values, found {}", node.kind_name());
            self.wrong(node.span, message, Some("write `evt.type: setns` and the like".to_owned()));
            return None;
        };
        for (key, value) in entries {
            if self.named.len() >= MAX_FIELDS {
                self.wrong(key.span, format!("an event names at most {MAX_FIELDS} fields"), None);
                return None;
            }
            self.entry(key, value);
        }
        Some(())
    }

    fn entry(&mut self, key: &Node, value: &Node) {
        let Some(text) = key.text() else {
            return self.wrong(key.span, format!("expected a field, found {}", key.kind_name()), None);
        };
        let place = match place(text) {
            Ok(place) => place,
            Err(_) if self.lax => return,
            Err((message, help)) => return self.wrong(key.span, message, help),
        };
        let field = place.field();
        if !self.named.insert(place.text()) {
            if !self.lax {
                self.wrong(key.span, format!("`{}` stands twice in this event", place.text()), None);
            }
            return;
        }
        match self.value(field.spec(), value) {
            Ok(value) => {
                let set = match &place {
                    Place::Plain(field) => self.values.set(*field, value),
                    Place::Named(field, name) => self.values.set_named(*field, name, value),
                };
                if let Err(error) = set {
                    self.wrong(key.span, error.to_string(), None);
                }
            }
            Err((span, message, help)) => {
                self.wrong_type |= field == Field::EvtType;
                self.wrong(span, message, help);
            }
        }
    }

    /// The value of a field's type.
    fn value(&self, spec: &FieldSpec, node: &Node) -> Result<Value<'static>, (Span, String, Option<String>)> {
        if node.is_null() {
            return Ok(Value::Absent);
        }
        let wrong = |help: &str| {
            let message = format!("`{}` is a {}", spec.name, spec.ty.name());
            let found = match node.text() {
                Some(text) if node.is_quoted() => {
                    format!("{message}, found the text \"{}\"", shortened(text))
                }
                Some(text) => format!("{message}, found `{}`", shortened(text)),
                None => format!("{message}, found {}", node.kind_name()),
            };
            (node.span, found, (!help.is_empty()).then(|| help.to_owned()))
        };
        let plain = node.text().filter(|_| !node.is_quoted());
        match spec.ty {
            FieldType::Number => {
                let number = plain.and_then(Exact::parse).and_then(Exact::whole);
                number.map(Value::Number).ok_or_else(|| wrong("write a whole number, without quotes"))
            }
            FieldType::Bool => match plain {
                Some("true") => Ok(Value::Bool(true)),
                Some("false") => Ok(Value::Bool(false)),
                _ => Err(wrong("write true or false, without quotes")),
            },
            FieldType::Text => {
                let text = node.text().ok_or_else(|| wrong(""))?;
                self.known_word(spec, text, node.span)?;
                Ok(Value::Text(text.to_owned().into()))
            }
            FieldType::TextList => {
                let Kind::Sequence(members) = &node.kind else {
                    let help = match node.text() {
                        Some(text) => format!("write a sequence: `[{}]`", shortened(text)),
                        None => "write a sequence of texts".to_owned(),
                    };
                    return Err(wrong(&help));
                };
                if members.len() > MAX_LIST {
                    return Err((node.span, format!("a list has at most {MAX_LIST} members"), None));
                }
                let mut texts = Vec::with_capacity(members.len());
                for member in members {
                    let Some(text) = member.text().filter(|_| !member.is_null()) else {
                        let message = format!("a member of `{}` is a text", spec.name);
                        return Err((member.span, message, None));
                    };
                    self.known_word(spec, text, member.span)?;
                    texts.push(text.to_owned());
                }
                Ok(owned_list(texts))
            }
        }
    }

    /// Refuses a value that no event can have.
    fn known_word(
        &self,
        spec: &FieldSpec,
        text: &str,
        span: Span,
    ) -> Result<(), (Span, String, Option<String>)> {
        let Some(words) = spec.field.words().filter(|_| !self.lax) else { return Ok(()) };
        if words.contains(&text) {
            return Ok(());
        }
        let help = match closest(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if words.len() <= 20 => format!("known are: {}", words.join(", ")),
            None => "`ringfence fields` tells more".to_owned(),
        };
        let message = match spec.field {
            Field::EvtType => format!("unknown event type `{}`", shortened(text)),
            _ => format!("`{}` is never `{}`", spec.name, shortened(text)),
        };
        Err((span, message, Some(help)))
    }

    fn finish(self, node: &Node) -> Option<Sample> {
        let Reader { source, diagnostics, values, named, wrong_type, lax } = self;
        let ty = match values.value(FieldRef { field: Field::EvtType, arg: FieldArg::None }) {
            Value::Text(name) => EventType::all().find(|ty| ty.name() == &*name),
            _ => None,
        };
        if ty.is_none() && !wrong_type {
            let (message, help) = if lax {
                ("this alert has no event", "Ringfence's alerts about itself match no rule")
            } else {
                ("this event has no `evt.type`", "add what it is about, such as `evt.type: setns`")
            };
            // The first character is enough to point at.
            let span = Span { start: node.span.start, end: node.span.start + 1 };
            diagnostics.push(Diagnostic::at(source, span, message).help(help));
        }
        Some(Sample { ty: ty?, values, from_alert: false, named })
    }
}

/// A field that is to get a value.
enum Place {
    Plain(FieldRef),
    /// One that takes any text in brackets; see [`FieldValues::set_named`].
    Named(Field, String),
}

impl Place {
    fn field(&self) -> Field {
        match self {
            Place::Plain(field) => field.field,
            Place::Named(field, _) => *field,
        }
    }

    /// The field's name; the same for all ways to write it.
    fn text(&self) -> String {
        match self {
            Place::Plain(FieldRef { field, arg: FieldArg::None }) => match field.spec().arg {
                ArgSpec::Index { .. } => format!("{}[1]", field.spec().name),
                _ => field.spec().name.to_owned(),
            },
            Place::Plain(field) => super::operand::field_text(*field),
            Place::Named(field, name) => format!("{}[{name}]", field.spec().name),
        }
    }
}

/// Looks a field up by what stands before the colon: what a condition could have there.
fn place(text: &str) -> Result<Place, (String, Option<String>)> {
    let help = |name: &str| {
        let names = CATALOGUE.iter().map(|spec| spec.name);
        did_you_mean(name, names).unwrap_or_else(|| "`ringfence fields` lists all fields".to_owned())
    };
    let no_field = || (format!("`{}` is not a field", shortened(text)), Some(help(text)));
    let parsed = condition::parse(&format!("{text} exists")).map_err(|_| no_field())?;
    let ExprKind::Exists(operand) = parsed.value else { return Err(no_field()) };
    let OperandKind::Field(name) = operand.value else { return Err(no_field()) };
    let takes_any = CATALOGUE.iter().find(|spec| spec.name == name.name && spec.arg == ArgSpec::Name);
    match (takes_any, name.arg) {
        (Some(spec), Some(arg)) if !arg.is_empty() && arg.len() <= MAX_NAME_BYTES => {
            Ok(Place::Named(spec.field, arg))
        }
        (_, arg) => fields::resolve(&name.name, arg.as_deref()).map(Place::Plain).map_err(|error| {
            let unknown = matches!(error, FieldError::Unknown { .. });
            (error.to_string(), if unknown { Some(help(&name.name)) } else { None })
        }),
    }
}

/// A text as a message shows it.
fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
