//! Falco's shape: its eight keys and no others, and `output_fields` of texts, numbers and booleans.
//!
//! Readers of Falco's JSON know neither null nor lists among the fields, so what an event does not have is left out, and the
//! members of a list stand in one text, as Falco writes them. What Ringfence has beyond Falco stands among the fields.

use serde_json::{Map, Value as Json};

const KEYS: [&str; 7] = ["hostname", "output", "priority", "rule", "source", "tags", "time"];

/// Keys of ours that become fields.
const MORE: [(&str, &str); 2] = [("rule_id", "ringfence.rule_id"), ("attack", "ringfence.attack")];

/// Makes it.
pub(super) fn make(mut alert: Map<String, Json>) -> Json {
    let mut made = Map::new();
    for key in KEYS {
        if let Some(value) = alert.remove(key) {
            made.insert(key.to_owned(), value);
        }
    }
    let fields = match alert.remove("output_fields") {
        Some(Json::Object(fields)) => fields,
        _ => Map::new(),
    };
    let more = MORE.map(|(key, field)| (field.to_owned(), alert.remove(key).unwrap_or_default()));
    let plain = fields.into_iter().chain(more).filter_map(|(name, value)| Some((name, plain(value)?)));
    made.insert("output_fields".to_owned(), Json::Object(plain.collect()));
    Json::Object(made)
}

/// A value as Falco would write it.
fn plain(value: Json) -> Option<Json> {
    match value {
        Json::Null | Json::Object(_) => None,
        Json::Array(members) if members.is_empty() => None,
        Json::Array(members) => {
            let texts: Vec<String> = members
                .into_iter()
                .map(|member| match member {
                    Json::String(text) => text,
                    other => other.to_string(),
                })
                .collect();
            Some(Json::String(format!("({})", texts.join(","))))
        }
        other => Some(other),
    }
}
