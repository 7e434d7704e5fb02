//! `ringfence fields`: the field catalogue as text, Markdown or JSON.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::FieldsFormat;
use crate::fields::{ArgSpec, CATALOGUE, FieldSpec, MAX_NAME_BYTES};

pub(super) fn text(format: FieldsFormat) -> String {
    match format {
        FieldsFormat::Text => fields_text(),
        FieldsFormat::Md => fields_markdown(),
        FieldsFormat::Json => fields_json(),
    }
}

/// The name with what may stand behind it.
fn name_with_arg(spec: &FieldSpec) -> String {
    match spec.arg {
        ArgSpec::None => spec.name.to_owned(),
        ArgSpec::Index { max } => format!("{}[0..{max}]", spec.name),
        ArgSpec::Key(_) | ArgSpec::Name => format!("{}[KEY]", spec.name),
    }
}

fn keys(spec: &FieldSpec) -> Option<&'static [&'static str]> {
    match spec.arg {
        ArgSpec::Key(keys) => Some(keys),
        ArgSpec::None | ArgSpec::Index { .. } | ArgSpec::Name => None,
    }
}

fn fields_text() -> String {
    let width = CATALOGUE.iter().map(|spec| name_with_arg(spec).len()).max().unwrap_or(0);
    let mut text = String::new();
    for spec in CATALOGUE {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {:13}  {}", name_with_arg(spec), spec.ty.name(), spec.doc);
        if let Some(keys) = keys(spec) {
            let _ = writeln!(text, "{:width$}  {:13}  KEY: {}", "", "", keys.join(", "));
        }
    }
    text
}

/// Text of `docs/fields.md`.
pub fn fields_markdown() -> String {
    let mut text = String::from(
        "<!-- Made by `ringfence fields --format md` from monitor/src/fields.rs; do not edit. -->\n\n\
         # Fields\n\n\
         What conditions and outputs of rules may name. An event that does not have a field has no value for \
         it:\nevery comparison is then false, and an output shows `<NA>` (JSON: `null`).\n\n\
         In texts that processes choose (names, paths), bytes that are not UTF-8 stand as `\\xHH` and a backslash as \
         `\\\\`.\nNothing else is changed, so a reader gets the bytes back: first JSON's own escapes are undone, then \
         these two.\nOn a terminal, control characters are shown as `\\x1b`, `\\n` or `\\u{202e}` besides.\n",
    );
    let mut class = "";
    for spec in CATALOGUE {
        let this = spec.name.split('.').next().unwrap_or_default();
        if this != class {
            class = this;
            let _ = write!(text, "\n## {class}\n\n| Field | Type | Meaning |\n|---|---|---|\n");
        }
        let name = name_with_arg(spec);
        let doc = spec.doc.replace('|', "\\|");
        let _ = write!(text, "| `{name}` | {} | {doc}", spec.ty.name());
        if let Some(keys) = keys(spec) {
            let _ = write!(
                text,
                " `KEY`: {}.",
                keys.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
            );
        }
        text.push_str(" |\n");
    }
    text
}

fn fields_json() -> String {
    let fields: Vec<_> = CATALOGUE
        .iter()
        .map(|spec| {
            let argument = match spec.arg {
                ArgSpec::None => json!(null),
                ArgSpec::Index { max } => json!({ "index": { "max": max } }),
                ArgSpec::Key(keys) => json!({ "key": keys }),
                ArgSpec::Name => json!({ "text": { "max_bytes": MAX_NAME_BYTES } }),
            };
            json!({ "name": spec.name, "type": spec.ty.name(), "argument": argument, "doc": spec.doc })
        })
        .collect();
    format!("{:#}\n", json!(fields))
}
