//! The schema of exceptions.

use serde_json::{Value as Json, json};

use super::{described, object, reference};
use crate::rules::ast::{Modifier, Operator, TransformKind};
use crate::rules::file::Comp;

/// An exception whose fields are of this definition.
pub(super) fn exception(field: &str) -> Json {
    let text = |text: &str| described("#/$defs/text", text);
    let mut exception = object(
        "Values of fields for which the rule does not fire.",
        &["name"],
        vec![
            ("name", text("The exception's name; values can be added to it by `override` or `append`.")),
            (
                "fields",
                json!({
                    "description": "The field that is compared, or several for tuples.",
                    "anyOf": [reference(field), sequence(field)],
                }),
            ),
            (
                "comps",
                json!({
                    "description": "How: an operator for each field; without it, `in` for one field and `=` for several.",
                    "anyOf": [{ "$ref": "#/$defs/comparison" }, sequence("comparison")],
                }),
            ),
            (
                "values",
                json!({
                    "description": "For one field a list of values, for several a list of tuples.",
                    "type": ["array", "null"],
                    "items": {
                        "anyOf": [
                            { "$ref": "#/$defs/scalar" },
                            {
                                "type": "array",
                                "items": {
                                    "anyOf": [
                                        { "$ref": "#/$defs/scalar" },
                                        { "type": "array", "items": { "$ref": "#/$defs/scalar" } },
                                    ],
                                },
                            },
                        ],
                    },
                }),
            ),
            ("reason", text("Why it is allowed.")),
            ("owner", text("Who answers for it.")),
            (
                "expires",
                json!({
                    "description": "The last day, in UTC, on which it counts.",
                    "type": "string",
                    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
                }),
            ),
        ],
        &[],
    );
    // A single field is compared with a list, several each by an operator of its own.
    let shape =
        |of: &str| json!({ "required": ["fields", "comps"], "properties": { "fields": { "type": of } } });
    exception["allOf"] = json!([
        {
            "if": shape("string"),
            "then": { "properties": { "comps": { "$ref": "#/$defs/list_comparison" } } },
        },
        { "if": shape("array"), "then": { "properties": { "comps": { "type": "array" } } } },
    ]);
    exception
}

/// Several of a definition, at least one.
fn sequence(definition: &str) -> Json {
    json!({ "type": "array", "minItems": 1, "items": reference(definition) })
}

/// A field, or a transformed one, of which only the transformer is looked at.
pub(super) fn compared() -> Json {
    let transformers: Vec<&str> = TransformKind::ALL.iter().map(|kind| kind.word()).collect();
    let transformed = format!("^({})(\\[[^\\]]*\\])?\\s*\\([\\s\\S]*\\)\\s*$", transformers.join("|"));
    json!({
        "description": "A field or a transformed field, such as tolower(proc.name).",
        "anyOf": [{ "$ref": "#/$defs/field" }, { "type": "string", "pattern": transformed }],
    })
}

/// How a field of several is compared.
pub(super) fn comparison() -> Json {
    let words: Vec<&str> = operators().collect();
    comparisons("An operator, or one with oneof, anyof or allof.", &words)
}

/// How a single field is compared.
pub(super) fn list_comparison() -> Json {
    let takes_list = |word: &&str| Comp::parse(word).is_some_and(Comp::takes_list);
    let words: Vec<&str> = operators().filter(takes_list).collect();
    comparisons(
        "An operator that compares with a list: in, pmatch, intersects, or one with oneof, anyof or allof.",
        &words,
    )
}

/// Every operator, in each of its spellings.
fn operators() -> impl Iterator<Item = &'static str> {
    Operator::ALL.iter().map(|operator| operator.word()).chain(["=="])
}

/// These operators, and those with a word behind them. Editors offer what is in an `enum`; blanks are allowed besides.
fn comparisons(description: &str, alone: &[&str]) -> Json {
    let modifiers: Vec<&str> = Modifier::ALL.iter().map(|modifier| modifier.word()).collect();
    let modified = |word: &&str| Comp::parse(&format!("{word} {}", Modifier::OneOf.word())).is_some();
    let modified: Vec<&str> = operators().filter(modified).collect();
    let pairs =
        modified.iter().flat_map(|word| modifiers.iter().map(move |modifier| format!("{word} {modifier}")));
    let words: Vec<String> = alone.iter().map(|word| (*word).to_owned()).chain(pairs).collect();
    let blanks =
        format!("^\\s*(({})|({})\\s+({}))\\s*$", alone.join("|"), modified.join("|"), modifiers.join("|"));
    json!({ "description": description, "anyOf": [{ "enum": words }, { "type": "string", "pattern": blanks }] })
}
