//! The JSON Schema of rule files, `docs/rules.schema.json`, for editors: made from the code, never written by hand.
//!
//! It knows shapes, words and fields. What it cannot know, such as whether a condition is right, `ringfence check` says.

mod exception;

use serde_json::{Map, Value as Json, json};

use super::collect::SYSCALL;
use super::file::OVERRIDABLE;
use super::grouping::MAX_GROUP_SECONDS;
use super::priority::Priority;
use super::threshold::{COUNTS, MAX_BY};
use crate::event_type::EventType;
use crate::fields::{ArgSpec, CATALOGUE};

/// Text of `docs/rules.schema.json`.
pub fn schema_json() -> String {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence rules",
        "description": "A rule file of Ringfence: Falco's rule language with additions. In an editor with yaml-language-server, begin the file with `# yaml-language-server: $schema=PATH`.",
        "type": ["array", "null"],
        "items": one_of_these(&[
            ("rule", "rule"),
            ("macro", "macro"),
            ("list", "list"),
            ("required_engine_version", "engine"),
            ("required_plugin_versions", "plugins"),
        ]),
        "$defs": definitions(),
    });
    let mut text = format!("{schema:#}");
    text.push('\n');
    text
}

/// The definition that fits the key which an item has.
fn one_of_these(kinds: &[(&str, &str)]) -> Json {
    let otherwise = json!({
        "description": "An item begins with `rule`, `macro` or `list`.",
        "type": ["object", "null"],
        "maxProperties": 0,
        "minProperties": 1,
    });
    kinds.iter().rev().fold(otherwise, |otherwise, (key, definition)| {
        json!({
            "if": { "type": "object", "required": [key] },
            "then": { "$ref": format!("#/$defs/{definition}") },
            "else": otherwise,
        })
    })
}

fn definitions() -> Json {
    json!({
        "text": { "type": "string", "minLength": 1 },
        "scalar": { "type": ["string", "number", "boolean"] },
        "scalars": { "type": ["array", "null"], "items": { "$ref": "#/$defs/scalar" } },
        "condition": {
            "description": "When it holds: fields are compared with values, joined by `and`, `or`, `not`; a bare name is a macro. See docs/rules.md.",
            "type": "string",
            "minLength": 1,
        },
        "append": {
            "description": "The older form of `override`: true puts condition, items or exceptions behind those of the earlier item of this name.",
            "$ref": "#/$defs/flag",
        },
        "flag": flag(),
        "field": field(),
        "duration": {
            "description": "A number with its unit, such as 500ms, 60s, 5m or 1h.",
            "type": "string",
            "pattern": "^\\s*([0-9]+(\\.[0-9]+)? ?(nsec|ns|usec|us|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d) *)+$",
        },
        "priority": priority(),
        "rule": rule(),
        "macro": object(
            "A condition under a name.",
            &["macro"],
            vec![
                ("macro", described("#/$defs/text", "The macro's name: letters, digits and `_`, a letter first.")),
                ("condition", reference("condition")),
                ("append", reference("append")),
                ("override", overrides(&[("condition", true)])),
            ],
            &["condition"],
        ),
        "list": object(
            "Values under a name.",
            &["list"],
            vec![
                ("list", described("#/$defs/text", "The list's name.")),
                ("items", described("#/$defs/scalars", "Its values; a bare name of another list stands for that list's values.")),
                ("append", reference("append")),
                ("override", overrides(&[("items", true)])),
            ],
            &["items"],
        ),
        "engine": object(
            "The version of Falco's rule engine that the file needs.",
            &["required_engine_version"],
            vec![(
                "required_engine_version",
                json!({
                    "description": "Three numbers such as 0.50.0, or the second of them alone.",
                    "anyOf": [
                        { "type": "integer", "minimum": 0 },
                        { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+\\.[0-9]+([-+].+)?)?$" },
                    ],
                }),
            )],
            &[],
        ),
        "plugin": plugin(true),
        "alternative": plugin(false),
        "plugins": object(
            "Plugins of Falco that the file needs. Ringfence has none, and warns.",
            &["required_plugin_versions"],
            vec![(
                "required_plugin_versions",
                json!({ "type": "array", "items": { "$ref": "#/$defs/plugin" } }),
            )],
            &[],
        ),
        "exception": exception::exception("compared"),
        "foreign_exception": exception::exception("text"),
        "compared": exception::compared(),
        "comparison": exception::comparison(),
        "list_comparison": exception::list_comparison(),
        "threshold": threshold(),
        "test": test(),
    })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn described(target: &str, text: &str) -> Json {
    json!({ "description": text, "$ref": target })
}

/// An object of these keys and no others.
fn object(description: &str, required: &[&str], keys: Vec<(&str, Json)>, also: &[&str]) -> Json {
    let properties: Map<String, Json> =
        keys.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect();
    let required: Vec<&str> = required.iter().chain(also).copied().collect();
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The key `override` for keys that may be replaced and, if so marked, appended to.
fn overrides(keys: &[(&str, bool)]) -> Json {
    let properties: Map<String, Json> = keys
        .iter()
        .map(|(key, appends)| {
            let words: &[&str] = if *appends { &["append", "replace"] } else { &["replace"] };
            ((*key).to_owned(), json!({ "enum": words }))
        })
        .collect();
    json!({
        "description": "How this item changes the earlier one of its name: each key that is named here must stand in the item, and no other.",
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A field's name: those of the catalogue, with their arguments.
fn field() -> Json {
    let mut names: Vec<String> = Vec::new();
    let mut patterns: Vec<Json> = Vec::new();
    for spec in CATALOGUE {
        let escaped = spec.name.replace('.', "\\.");
        match spec.arg {
            ArgSpec::None => names.push(spec.name.to_owned()),
            ArgSpec::Key(keys) => names.extend(keys.iter().map(|key| format!("{}[{key}]", spec.name))),
            ArgSpec::Index { max } => {
                names.push(spec.name.to_owned());
                names.extend((0..=max).map(|index| format!("{}[{index}]", spec.name)));
            }
            ArgSpec::Name => {
                patterns.push(json!({ "type": "string", "pattern": format!("^{escaped}\\[.+\\]$") }));
            }
        }
    }
    let mut any = vec![json!({ "enum": names })];
    any.extend(patterns);
    json!({ "description": "A field; docs/fields.md has all.", "anyOf": any })
}

/// A priority, in any letter case; editors offer it as it is mostly written.
fn priority() -> Json {
    let words: Vec<String> =
        Priority::ALL.iter().rev().map(|priority| priority.as_str().to_ascii_uppercase()).collect();
    let any_case = |word: &str| -> String {
        word.chars().map(|c| format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase())).collect()
    };
    let patterns: Vec<String> = words.iter().map(|word| any_case(word)).chain([any_case("INFO")]).collect();
    json!({
        "description": "How urgent its alerts are.",
        "anyOf": [
            { "enum": words },
            { "type": "string", "pattern": format!("^({})$", patterns.join("|")) },
        ],
    })
}

/// True or false.
fn flag() -> Json {
    let words = [flag_words(true), flag_words(false)].concat();
    json!({ "enum": words })
}

/// How true or false is written: also in the words of YAML 1.1, which are texts to newer readers.
fn flag_words(flag: bool) -> Vec<Json> {
    let words = if flag { ["true", "yes", "on", "y"] } else { ["false", "no", "off", "n"] };
    let cased = words.into_iter().flat_map(|word| {
        let upper = word.to_ascii_uppercase();
        [word.to_owned(), format!("{}{}", &upper[..1], &word[1..]), upper]
    });
    let mut words: Vec<Json> = std::iter::once(Json::Bool(flag)).chain(cased.map(Json::from)).collect();
    words.dedup();
    words
}

fn rule() -> Json {
    let texts = |text: &str| described("#/$defs/scalars", text);
    let flag = |text: &str| described("#/$defs/flag", text);
    let attack = json!({
        "description": "ATT&CK ids: techniques such as T1611 or T1548.001, tactics such as TA0004.",
        "type": ["array", "null"],
        "items": { "type": "string", "pattern": "^(TA[0-9]{4}|T[0-9]{4}(\\.[0-9]{3})?)$" },
    });
    let maturity = json!({
        "description": "How well tried it is.",
        "enum": super::load::MATURITIES,
    });
    let mut rule = object(
        "What is watched for, and what is told of it.",
        &["rule"],
        vec![
            ("rule", described("#/$defs/text", "The rule's name, for people.")),
            (
                "id",
                json!({
                    "description": "Its name for machines, for ever; without it, it is made from the name.",
                    "type": "string",
                    "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$",
                }),
            ),
            ("desc", described("#/$defs/text", "What it means and what to check next.")),
            ("condition", reference("condition")),
            (
                "output",
                described(
                    "#/$defs/text",
                    "The text of its alerts; `%proc.name` stands for the field's value.",
                ),
            ),
            ("priority", reference("priority")),
            ("source", json!({ "description": "Where its events come from.", "type": ["string", "null"] })),
            ("enabled", flag("Whether it is matched at all.")),
            ("tags", texts("Words to sort alerts by.")),
            ("attack", attack),
            ("maturity", maturity),
            ("references", texts("Where to read more.")),
            (
                "exceptions",
                json!({
                    "description": "Who may do what the rule watches for.",
                    "type": ["array", "null"],
                }),
            ),
            ("threshold", reference("threshold")),
            (
                "group_by",
                json!({
                    "description": "Alerts with the same values of these fields are held together; unset: as the configuration says.",
                    "anyOf": [
                        { "$ref": "#/$defs/field" },
                        { "type": ["array", "null"], "items": { "$ref": "#/$defs/field" }, "maxItems": MAX_BY, "uniqueItems": true },
                    ],
                }),
            ),
            (
                "group_seconds",
                json!({
                    "description": "For how long alerts are held together; 0: not at all; unset: as the configuration says.",
                    "type": "integer",
                    "minimum": 0,
                    "maximum": MAX_GROUP_SECONDS,
                }),
            ),
            (
                "tests",
                json!({
                    "description": "Events that the rule must match, and such that it must not; `ringfence rules test` runs them.",
                    "type": ["array", "null"],
                    "items": { "$ref": "#/$defs/test" },
                }),
            ),
            ("append", reference("append")),
            ("override", overrides(OVERRIDABLE)),
            ("warn_evttypes", flag("False silences the warning that no event can match.")),
            (
                "skip-if-unknown-filter",
                flag("True leaves the rule out, with a warning, if it names an unknown field."),
            ),
            ("capture", flag("Falco's; it has no effect here.")),
            (
                "capture_duration",
                json!({
                    "description": "Falco's, in milliseconds; it has no effect here.",
                    "anyOf": [
                        { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                        { "type": "string", "pattern": "^\\+?[0-9]+$" },
                    ],
                }),
            ),
        ],
        &[],
    );
    // A change of an earlier rule has what it changes; `enabled` alone is the older way to switch a rule.
    let own = ["condition", "output", "desc", "priority"];
    let has = |key: &&str| json!({ "required": [key] });
    let exceptions = |definition: &str| {
        let items = reference(definition);
        json!({ "properties": { "exceptions": { "items": items } } })
    };
    // A rule that may be left out can name fields that there are not.
    rule["allOf"] = json!([{
        "if": { "anyOf": [
            { "required": ["skip-if-unknown-filter"], "properties": { "skip-if-unknown-filter": { "enum": flag_words(true) } } },
            { "required": ["source"], "properties": { "source": { "type": "string", "not": { "const": SYSCALL } } } },
        ] },
        "then": exceptions("foreign_exception"),
        "else": exceptions("exception"),
    }]);
    rule["if"] = json!({ "anyOf": [{ "required": ["override"] }, { "required": ["append"] }] });
    rule["else"] = json!({
        // What changes an earlier rule may have an empty one, which says nothing.
        "properties": { "source": { "type": "string", "minLength": 1 } },
        "if": { "anyOf": own.iter().map(has).collect::<Json>() },
        "then": { "required": own },
        "else": { "required": ["enabled"] },
    });
    rule
}

fn threshold() -> Json {
    object(
        "The rule fires only when so many events matched within a time.",
        &["count", "within"],
        vec![
            (
                "count",
                json!({
                    "description": "How many events, or with `distinct` how many different values.",
                    "type": "integer",
                    "minimum": COUNTS.start(),
                    "maximum": COUNTS.end(),
                }),
            ),
            (
                "within",
                described(
                    "#/$defs/duration",
                    "The time between the first and the last, at most; up to a day.",
                ),
            ),
            (
                "by",
                json!({
                    "description": "Events are counted apart by the values of these fields.",
                    "anyOf": [
                        { "$ref": "#/$defs/field" },
                        { "type": ["array", "null"], "items": { "$ref": "#/$defs/field" }, "maxItems": MAX_BY, "uniqueItems": true },
                    ],
                }),
            ),
            (
                "distinct",
                described("#/$defs/field", "Different values of this field are counted instead of events."),
            ),
        ],
        &[],
    )
}

fn test() -> Json {
    let types: Vec<&str> = EventType::all().map(EventType::name).collect();
    object(
        "An event, and whether the rule must match it.",
        &["name", "event", "match"],
        vec![
            ("name", described("#/$defs/text", "What it shows.")),
            (
                "event",
                json!({
                    "description": "Values by field; a field that is not named is absent.",
                    "type": "object",
                    "properties": { "evt.type": { "description": "The type of event.", "enum": types } },
                    "required": ["evt.type"],
                    "propertyNames": { "$ref": "#/$defs/field" },
                    "additionalProperties": {
                        "anyOf": [{ "$ref": "#/$defs/scalar" }, { "$ref": "#/$defs/scalars" }],
                    },
                }),
            ),
            ("match", json!({ "description": "Whether the rule must match the event.", "type": "boolean" })),
        ],
        &[],
    )
}

fn plugin(may_have_alternatives: bool) -> Json {
    let mut keys = vec![
        ("name", described("#/$defs/text", "The plugin's name.")),
        (
            "version",
            json!({ "description": "The least version.", "type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+([-+].+)?$" }),
        ),
    ];
    if may_have_alternatives {
        let alternatives = json!({
            "description": "Other plugins that would do as well.",
            "type": "array",
            "items": { "$ref": "#/$defs/alternative" },
        });
        keys.push(("alternatives", alternatives));
    }
    object("A plugin of Falco.", &["name", "version"], keys, &[])
}

#[cfg(test)]
mod tests;
