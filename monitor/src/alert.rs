//! Alerts: one matched rule and one event become one line.
//!
//! What a rule contributes is laid out once, when the rules are loaded ([`AlertForm`]); per alert only the
//! time, the rendered text and the fields' values are written, into a buffer that the caller keeps. Nothing
//! is allocated per alert once the buffers have grown. Every byte of an event is hostile: no value can end
//! the line, break the JSON or reach a terminal as a control sequence.

mod clock;
mod escape;
mod event;
mod grouped;
mod internal;
mod json;
mod schema;
mod shape;
mod text;
mod threshold;
mod why;

pub use clock::WallClock;
pub use escape::{json_visible, push_visible};
pub use event::write_event;
pub use grouped::Grouped;
pub use internal::{Fact, INTERNAL_FACTS, InternalAlert};
pub use json::JsonLines;
pub use schema::schema_json;
pub use shape::{Shape, Shaper};
pub use text::{Palette, TextLines};
pub use threshold::Crossed;
pub use why::MAX_REASONS;

use std::collections::HashSet;

use crate::fields::{Field, FieldArg, FieldRef, FieldSource, FieldType, FieldValues};
use crate::rules::{Reason, Rule};

/// Version of the JSON line's layout. It grows with every change that a consumer could trip over: when a key goes, or
/// changes its type or its meaning, or when lines get a key that nobody asked for. A key that only a setting adds (`why`)
/// leaves it as it is: whoever turns the setting on reads the schema that has the key.
pub const SCHEMA_VERSION: u32 = 2;

/// The JSON Schema (draft 2020-12) that every JSON line obeys, as published in `docs/alert.schema.json`.
pub const ALERT_SCHEMA: &str = include_str!("../../docs/alert.schema.json");

/// Fields that `output_fields` always has, whatever the rule's template names.
pub const ALWAYS: &[Field] = &[
    Field::EvtType,
    Field::EvtVerdict,
    Field::EvtRefusedBy,
    Field::EvtRes,
    Field::EvtAbi,
    Field::ContainerId,
    Field::ContainerName,
    Field::ContainerImage,
    Field::ContainerMetadata,
    Field::CgroupId,
    Field::ProcName,
    Field::ProcExepath,
    Field::ProcPid,
    Field::ProcPpid,
    Field::UserUid,
];

/// Fields that `output_fields` has whenever the event has them, whatever the rule's template names.
pub const IF_PRESENT: &[Field] = &[Field::K8sPodName, Field::K8sNsName];

/// Fields that a text line shows behind the rule's output if the event has them and the output does not name them.
const NAMES_IN_TEXT: &[Field] =
    &[Field::ContainerName, Field::ContainerImage, Field::K8sNsName, Field::K8sPodName];

/// What an alert takes from its rule.
#[derive(Clone, Copy, Debug)]
pub struct AlertRule<'a> {
    /// Stable id.
    pub id: &'a str,
    /// Name, for people; Falco's `rule`.
    pub name: &'a str,
    /// One of Falco's eight words, such as `Warning`.
    pub priority: &'a str,
    /// Falco's `source`, such as `syscall`.
    pub source: &'a str,
    /// Tags.
    pub tags: &'a [String],
    /// ATT&CK technique ids.
    pub attack: &'a [String],
    /// Fields of the output template, as written.
    pub fields: &'a [(String, FieldRef)],
}

impl<'a> From<&'a Rule> for AlertRule<'a> {
    fn from(rule: &'a Rule) -> Self {
        Self {
            id: &rule.id,
            name: &rule.name,
            priority: rule.priority.as_str(),
            source: &rule.source,
            tags: &rule.tags,
            attack: &rule.attack,
            fields: rule.output.fields(),
        }
    }
}

/// A field as it stands in `output_fields`.
#[derive(Debug)]
struct FormField {
    /// `"name":`, with a comma before it unless it is the first; ready to be copied.
    key: Box<[u8]>,
    field: FieldRef,
    ty: FieldType,
    /// Left out if the event does not have it.
    if_present: bool,
}

/// The constant parts of a rule's alerts, laid out once.
#[derive(Debug)]
pub struct AlertForm {
    json: json::ConstantParts,
    fields: Vec<FormField>,
    /// Those of [`NAMES_IN_TEXT`] that the output does not name.
    unnamed: Vec<Field>,
    /// Rule id as the text line shows it: no control character passes.
    id: Box<str>,
    priority: Box<str>,
}

impl AlertForm {
    /// Lays out the constant parts for one rule on the host of that name.
    pub fn new(rule: &AlertRule<'_>, hostname: &str) -> Self {
        let mut fields = Vec::with_capacity(ALWAYS.len() + rule.fields.len());
        let mut seen = HashSet::new();
        let always =
            ALWAYS.iter().map(|field| (field.spec().name, FieldRef { field: *field, arg: FieldArg::None }));
        let named = rule.fields.iter().map(|(name, field)| (name.as_str(), *field));
        for (name, field) in always.chain(named) {
            if seen.insert(name) {
                let key = json::key(name, fields.is_empty());
                fields.push(FormField { key, field, ty: field.field.spec().ty, if_present: false });
            }
        }
        for field in IF_PRESENT {
            let (name, ty) = (field.spec().name, field.spec().ty);
            if seen.insert(name) {
                let field = FieldRef { field: *field, arg: FieldArg::None };
                fields.push(FormField { key: json::key(name, false), field, ty, if_present: true });
            }
        }
        let names_it = |field: &Field| rule.fields.iter().any(|(_, named)| named.field == *field);
        let mut id = Vec::new();
        push_visible(rule.id, &mut id);
        let id = String::from_utf8_lossy(&id).into_owned();
        Self {
            json: json::constant_parts(rule, hostname),
            fields,
            unnamed: NAMES_IN_TEXT.iter().copied().filter(|field| !names_it(field)).collect(),
            id: id.into_boxed_str(),
            priority: rule.priority.into(),
        }
    }

    /// What alerts of this form tell of the event.
    pub fn values_of<E: FieldSource>(&self, event: &E) -> FieldValues {
        let unnamed = self.unnamed.iter().map(|field| FieldRef { field: *field, arg: FieldArg::None });
        FieldValues::of(event, self.fields.iter().map(|field| field.field).chain(unnamed))
    }
}

/// One alert, ready to be written in any format.
#[derive(Debug)]
pub struct Alert<'a, E: FieldSource + ?Sized> {
    /// The rule's constant parts.
    pub form: &'a AlertForm,
    /// The event.
    pub event: &'a E,
    /// The rendered output template.
    pub output: &'a str,
    /// When it happened: nanoseconds since 1970 UTC. The daemon derives it from the boot time.
    pub unix_ns: i64,
    /// The threshold that it reached, if its rule has one.
    pub crossed: Option<Crossed>,
    /// The alerts for which it stands, if it is a summary.
    pub grouped: Option<Grouped>,
    /// Why the rule matched, if alerts are to say so.
    pub why: Option<&'a [Reason<'a>]>,
    /// Number of the rules' generation that judged it, from 1.
    pub generation: u64,
}

#[cfg(test)]
mod tests;
