//! An alert as one line of JSON.

use crate::alert::escape::push_json;
use crate::alert::why::push_json_why;
use crate::alert::{Alert, AlertRule, InternalAlert, SCHEMA_VERSION, WallClock};
use crate::fields::{FieldSource, FieldType, Value};

/// Writes alerts as JSON lines.
#[derive(Clone, Debug, Default)]
pub struct JsonLines {
    clock: WallClock,
}

impl JsonLines {
    /// Appends the alert and a line feed.
    pub fn write<E: FieldSource + ?Sized>(&mut self, alert: &Alert<'_, E>, out: &mut Vec<u8>) {
        self.open(alert, out);
        close(alert, out);
    }

    /// Everything up to the last field.
    fn open<E: FieldSource + ?Sized>(&mut self, alert: &Alert<'_, E>, out: &mut Vec<u8>) {
        let form = alert.form;
        out.extend_from_slice(b"{\"time\":\"");
        self.clock.push_rfc3339(alert.unix_ns, out);
        out.extend_from_slice(&form.json.head);
        push_json(alert.output, out);
        out.extend_from_slice(&form.json.middle);
        for field in &form.fields {
            let value = alert.event.value(field.field);
            if field.if_present && value == Value::Absent {
                continue;
            }
            out.extend_from_slice(&field.key);
            push_value(field.ty, &value, out);
        }
        if let Some(crossed) = alert.crossed {
            crossed.push_json(&mut self.clock, out);
        }
        if let Some(grouped) = alert.grouped {
            grouped.push_json(&mut self.clock, out);
        }
    }

    /// Appends an alert of Ringfence about itself, and a line feed. It has the fields that every alert has, all
    /// null, and its facts behind them.
    pub fn write_internal(&mut self, alert: &InternalAlert<'_>, out: &mut Vec<u8>) {
        let all_null = alert.as_alert();
        self.open(&all_null, out);
        for (name, fact) in alert.facts {
            out.extend_from_slice(&key(name, alert.form.fields.is_empty()));
            push_value(fact.ty(), &fact.value(), out);
        }
        close(&all_null, out);
    }
}

/// Everything behind the fields.
fn close<E: FieldSource + ?Sized>(alert: &Alert<'_, E>, out: &mut Vec<u8>) {
    out.extend_from_slice(&alert.form.json.tail);
    out.extend_from_slice(itoa::Buffer::new().format(alert.generation).as_bytes());
    if let Some(reasons) = alert.why {
        push_json_why(reasons, out);
    }
    out.extend_from_slice(b"}\n");
}

/// Writes a value under its field's type. A value of another type would break consumers that have learnt
/// the type, so it is written as absent.
pub(super) fn push_value(ty: FieldType, value: &Value<'_>, out: &mut Vec<u8>) {
    match (ty, value) {
        (FieldType::Text, Value::Text(text)) => push_string(text, out),
        (FieldType::Number, Value::Number(number)) => {
            out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
        }
        (FieldType::Bool, Value::Bool(flag)) => {
            out.extend_from_slice(if *flag { b"true" } else { b"false" });
        }
        (FieldType::TextList, Value::List(members)) => {
            push_array(members.iter().map(|member| &**member), out);
        }
        _ => out.extend_from_slice(b"null"),
    }
}

pub(super) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_json(text, out);
    out.push(b'"');
}

fn push_array<'m>(members: impl Iterator<Item = &'m str>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, member) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(member, out);
    }
    out.push(b']');
}

/// `"name":`, with a comma before it unless it is the first.
pub(super) fn key(name: &str, first: bool) -> Box<[u8]> {
    let mut out = Vec::new();
    if !first {
        out.push(b',');
    }
    push_string(name, &mut out);
    out.push(b':');
    out.into_boxed_slice()
}

/// The constant JSON of one rule's alerts.
#[derive(Debug)]
pub(super) struct ConstantParts {
    /// Between the time and the output text.
    pub(super) head: Box<[u8]>,
    /// Between the output text and the fields.
    pub(super) middle: Box<[u8]>,
    /// After the fields; the generation's number comes behind it.
    pub(super) tail: Box<[u8]>,
}

/// Lays out the constant parts.
pub(super) fn constant_parts(rule: &AlertRule<'_>, hostname: &str) -> ConstantParts {
    let mut head = b"\",\"rule\":".to_vec();
    push_string(rule.name, &mut head);
    head.extend_from_slice(b",\"priority\":");
    push_string(rule.priority, &mut head);
    head.extend_from_slice(b",\"output\":\"");

    let mut middle = b"\",\"hostname\":".to_vec();
    push_string(hostname, &mut middle);
    middle.extend_from_slice(b",\"source\":");
    push_string(rule.source, &mut middle);
    middle.extend_from_slice(b",\"tags\":");
    push_array(rule.tags.iter().map(String::as_str), &mut middle);
    middle.extend_from_slice(b",\"output_fields\":{");

    let mut tail = b"},\"schema_version\":".to_vec();
    tail.extend_from_slice(SCHEMA_VERSION.to_string().as_bytes());
    tail.extend_from_slice(b",\"rule_id\":");
    push_string(rule.id, &mut tail);
    tail.extend_from_slice(b",\"attack\":");
    push_array(rule.attack.iter().map(String::as_str), &mut tail);
    tail.extend_from_slice(b",\"rules_generation\":");
    ConstantParts { head: head.into(), middle: middle.into(), tail: tail.into() }
}
