//! The JSON Schema of the alert line, made from the field catalogue so that the two cannot drift apart.

use serde_json::{Map, Value as Json, json};

use crate::alert::{ALWAYS, INTERNAL_FACTS, MAX_REASONS, SCHEMA_VERSION, grouped, threshold};
use crate::fields::{ArgSpec, CATALOGUE, FieldSpec, FieldType};

/// Falco's words for priorities, worst first.
const PRIORITIES: [&str; 8] =
    ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"];

/// Text of `docs/alert.schema.json`.
pub fn schema_json() -> String {
    let mut properties = Map::new();
    let mut patterns = Map::new();
    for spec in CATALOGUE {
        let schema = field_schema(spec);
        let escaped = spec.name.replace('.', "\\.");
        match spec.arg {
            ArgSpec::None => {}
            ArgSpec::Index { .. } => {
                patterns.insert(format!("^{escaped}\\[[0-9]{{1,5}}\\]$"), schema.clone());
            }
            ArgSpec::Key(keys) => {
                patterns.insert(format!("^{escaped}\\[({})\\]$", keys.join("|")), schema);
                continue;
            }
            ArgSpec::Name => {
                patterns.insert(format!("^{escaped}\\[[\\s\\S]+\\]$"), schema);
                continue;
            }
        }
        properties.insert(spec.name.to_owned(), schema);
    }
    for (name, ty, doc) in INTERNAL_FACTS {
        properties.insert((*name).to_owned(), typed(*ty, doc));
    }
    properties.extend(threshold::schema());
    properties.extend(grouped::schema());
    let always: Vec<&str> = ALWAYS.iter().map(|field| field.spec().name).collect();
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence alert",
        "description": "One line of Ringfence's JSON output. A field keeps its JSON type for ever; null means that the event does not have it. The version grows when a key goes, changes its meaning, or comes unasked; keys that only a setting adds leave it as it is.",
        "type": "object",
        "properties": {
            "time": {
                "description": "When the call returned: RFC 3339, UTC, nine digits.",
                "type": "string",
                "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$",
            },
            "rule": { "description": "The rule's name.", "type": "string" },
            "priority": { "description": "The rule's priority.", "enum": PRIORITIES },
            "output": { "description": "The rule's output, filled in.", "type": "string" },
            "hostname": { "description": "The host that saw it.", "type": "string" },
            "source": { "description": "Where events of this kind come from: syscall, or internal for what Ringfence says about itself.", "type": "string" },
            "tags": described(&texts, "The rule's tags."),
            "output_fields": {
                "description": "Fields of the event: a fixed set, and those that the rule's output names.",
                "type": "object",
                "properties": properties,
                "patternProperties": patterns,
                "required": always,
                "additionalProperties": false,
            },
            "schema_version": { "description": "Version of this layout.", "const": SCHEMA_VERSION },
            "rule_id": { "description": "The rule's stable id.", "type": "string", "minLength": 1 },
            "attack": described(&texts, "MITRE ATT&CK technique ids."),
            "why": why(&texts),
            "why_left_out": {
                "description": "How many conditions that decided `why` leaves out; not there if it has all.",
                "type": "integer",
                "minimum": 1,
            },
            "rules_generation": { "description": "Which rules judged it: 1 for those that the daemon started with, one more for each set that took their place. Of an internal alert, the rules that were in force when it was made.", "type": "integer", "minimum": 1 },
        },
        "required": [
            "time", "rule", "priority", "output", "hostname", "source", "tags", "output_fields",
            "schema_version", "rule_id", "attack", "rules_generation",
        ],
        "additionalProperties": false,
    });
    let mut text = format!("{schema:#}");
    text.push('\n');
    text
}

/// Schema of the conditions that decided.
fn why(texts: &Json) -> Json {
    json!({
        "description": "Why the rule matched: a smallest set of comparisons of its condition that decided. Only there with `alert_why: true`.",
        "type": "array",
        "maxItems": MAX_REASONS,
        "items": {
            "type": "object",
            "properties": {
                "condition": { "description": "The comparison as the rule has it, shortened if it is long.", "type": "string", "minLength": 1 },
                "holds": { "description": "What it came to; false for what stands behind `not`.", "type": "boolean" },
                "values": {
                    "description": "What it rests on: the event's values by field, and what a transformer made of them; null means that the event does not have it.",
                    "type": "object",
                    "additionalProperties": { "anyOf": [{ "type": ["string", "integer", "boolean", "null"] }, texts] },
                },
            },
            "required": ["condition", "holds", "values"],
            "additionalProperties": false,
        },
    })
}

fn field_schema(spec: &FieldSpec) -> Json {
    typed(spec.ty, spec.doc)
}

fn typed(ty: FieldType, doc: &str) -> Json {
    match ty {
        FieldType::Text => json!({ "description": doc, "type": ["string", "null"] }),
        FieldType::Number => json!({ "description": doc, "type": ["integer", "null"] }),
        FieldType::Bool => json!({ "description": doc, "type": ["boolean", "null"] }),
        FieldType::TextList => {
            json!({ "description": doc, "type": ["array", "null"], "items": { "type": "string" } })
        }
    }
}

fn described(schema: &Json, text: &str) -> Json {
    let mut schema = schema.clone();
    schema["description"] = text.into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::ALERT_SCHEMA;

    #[test]
    fn the_published_schema_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alert.schema.json");
        if std::env::var_os("RINGFENCE_BLESS").is_some() {
            std::fs::write(path, schema_json()).unwrap();
            return;
        }
        assert!(
            ALERT_SCHEMA == schema_json(),
            "docs/alert.schema.json is stale; `RINGFENCE_BLESS=1 cargo test -p monitor schema` rewrites it"
        );
    }
}
