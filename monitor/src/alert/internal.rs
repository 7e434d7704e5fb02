//! Alerts of Ringfence about itself: that it sees something no longer, and that it does again.
//!
//! They are lines like all others, so that whoever reads alerts learns of blindness the same way. Their `source`
//! is `internal`, the fields of events are null, and what there is to tell stands in fields of their own.

use crate::alert::{Alert, AlertForm, AlertRule};
use crate::fields::{FieldRef, FieldSource, FieldType, Value};

/// Fields of internal alerts: name, type, and what they say.
pub const INTERNAL_FACTS: &[(&str, FieldType, &str)] = &[
    (
        "ringfence.cause",
        FieldType::Text,
        "Internal alerts: why nothing is seen: ftrace_disabled, detached, not_seen, ring_full, reader_stalled, canary_stalled, map_changed, map_full or stood_still; or why rules were read: files_changed or signal.",
    ),
    ("ringfence.hooks", FieldType::TextList, "Internal alerts: the hooks, maps or threads concerned."),
    ("ringfence.cost", FieldType::Text, "Internal alerts: what cannot be seen."),
    (
        "ringfence.since",
        FieldType::Text,
        "Internal alerts: when the first test that did not come back was made; RFC 3339, UTC.",
    ),
    ("ringfence.seconds", FieldType::Number, "Internal alerts: for how long, in whole seconds."),
    ("ringfence.lost", FieldType::Number, "Internal alerts: records that were lost in that time."),
    (
        "ringfence.diagnostics",
        FieldType::TextList,
        "Internal alerts: what is wrong in rules that were refused; at most five findings, long ones cut.",
    ),
    ("ringfence.findings", FieldType::Number, "Internal alerts: how many findings there are."),
];

/// The value of a field of an internal alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Several texts.
    List(Vec<String>),
}

impl Fact {
    pub(super) const fn ty(&self) -> FieldType {
        match self {
            Fact::Text(_) => FieldType::Text,
            Fact::Number(_) => FieldType::Number,
            Fact::List(_) => FieldType::TextList,
        }
    }

    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Fact::Text(text) => Value::text(text),
            Fact::Number(number) => Value::Number(i64::try_from(*number).unwrap_or(i64::MAX)),
            Fact::List(texts) => Value::list(texts.iter().map(String::as_str)),
        }
    }
}

/// An alert of Ringfence about itself, ready to be written in any format.
#[derive(Debug)]
pub struct InternalAlert<'a> {
    /// Made by [`InternalAlert::form`].
    pub form: &'a AlertForm,
    /// For people.
    pub output: &'a str,
    /// When it was found out: nanoseconds since 1970 UTC.
    pub unix_ns: i64,
    /// Number of the rules' generation that was in force then.
    pub generation: u64,
    /// Fields by their names, of [`INTERNAL_FACTS`].
    pub facts: &'a [(&'static str, Fact)],
}

/// No event stands behind an internal alert: every field is absent.
#[derive(Debug)]
pub(super) struct NoEvent;

impl FieldSource for NoEvent {
    fn value(&self, _field: FieldRef) -> Value<'_> {
        Value::Absent
    }
}

impl InternalAlert<'_> {
    /// The constant parts of internal alerts with this id, name and priority.
    pub fn form(id: &str, name: &str, priority: &str, hostname: &str) -> AlertForm {
        let tags = ["ringfence".to_owned(), "health".to_owned()];
        let rule =
            AlertRule { id, name, priority, source: "internal", tags: &tags, attack: &[], fields: &[] };
        AlertForm::new(&rule, hostname)
    }

    /// As an alert without an event: what text lines show.
    pub fn as_alert(&self) -> Alert<'_, impl FieldSource + std::fmt::Debug> {
        let InternalAlert { form, output, unix_ns, generation, .. } = *self;
        Alert { form, event: &NoEvent, output, unix_ns, generation, crossed: None, grouped: None, why: None }
    }
}
