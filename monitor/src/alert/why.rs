//! Why a rule matched, as an alert tells it: the conditions that decided, with the values that they rest on.

use crate::alert::escape::{push_json, push_visible};
use crate::alert::json::{push_string, push_value};
use crate::fields::{FieldType, Value};
use crate::rules::Reason;

/// An alert tells at most this many conditions; of more it tells how many it leaves out.
pub const MAX_REASONS: usize = 16;

/// Appends `,"why":[…]`, and `,"why_left_out":N` if not all are told.
pub(super) fn push_json_why(reasons: &[Reason<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"why\":[");
    for (i, reason) in reasons.iter().take(MAX_REASONS).enumerate() {
        out.extend_from_slice(if i > 0 { b",{\"condition\":" } else { b"{\"condition\":" });
        push_string(&reason.condition, out);
        out.extend_from_slice(if reason.holds { b",\"holds\":true" } else { b",\"holds\":false" });
        out.extend_from_slice(b",\"values\":{");
        for (j, (name, value)) in reason.values.iter().enumerate() {
            out.extend_from_slice(if j > 0 { b",\"" } else { b"\"" });
            push_json(name, out);
            out.extend_from_slice(b"\":");
            push_value(type_of(value), value, out);
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
    if let Some(left_out) = left_out(reasons) {
        out.extend_from_slice(b",\"why_left_out\":");
        out.extend_from_slice(itoa::Buffer::new().format(left_out).as_bytes());
    }
}

/// Appends ` why: a = b [a=b]; not c exists [c=<NA>]`.
pub(super) fn push_text_why(reasons: &[Reason<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(b" why: ");
    for (i, reason) in reasons.iter().take(MAX_REASONS).enumerate() {
        if i > 0 {
            out.extend_from_slice(b"; ");
        }
        if !reason.holds {
            out.extend_from_slice(b"not ");
        }
        push_visible(&reason.condition, out);
        for (j, (name, value)) in reason.values.iter().enumerate() {
            out.extend_from_slice(if j > 0 { b", " } else { b" [" });
            push_visible(name, out);
            out.push(b'=');
            push_visible(&value.to_string(), out);
        }
        if !reason.values.is_empty() {
            out.push(b']');
        }
    }
    if let Some(left_out) = left_out(reasons) {
        out.extend_from_slice(b"; and ");
        out.extend_from_slice(itoa::Buffer::new().format(left_out).as_bytes());
        out.extend_from_slice(b" more");
    }
}

fn left_out(reasons: &[Reason<'_>]) -> Option<usize> {
    reasons.len().checked_sub(MAX_REASONS).filter(|more| *more > 0)
}

/// The type of a value; of an absent one any.
fn type_of(value: &Value<'_>) -> FieldType {
    match value {
        Value::Text(_) | Value::Absent => FieldType::Text,
        Value::List(_) => FieldType::TextList,
        Value::Number(_) => FieldType::Number,
        Value::Bool(_) => FieldType::Bool,
    }
}
