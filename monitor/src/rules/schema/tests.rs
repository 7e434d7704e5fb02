//! The schema under test: it is fresh, knows every key, takes what the loader takes and refuses what it refuses.

use std::sync::LazyLock;

use super::*;
use crate::rules::RuleSet;
use crate::rules::file::{LIST_KEYS, MACRO_KEYS, RULE_KEYS};

const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.schema.json");

static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&serde_json::from_str(&schema_json()).unwrap()).unwrap());

/// What the schema has against a rule file.
fn faults(yaml: &str) -> Vec<String> {
    let file: Json = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    SCHEMA.iter_errors(&file).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

#[test]
fn the_published_schema_is_fresh() {
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        std::fs::write(PUBLISHED, schema_json()).unwrap();
    }
    assert!(
        std::fs::read_to_string(PUBLISHED).unwrap_or_default() == schema_json(),
        "docs/rules.schema.json is stale; `RINGFENCE_BLESS=1 cargo test -p monitor fresh` rewrites it"
    );
}

#[test]
fn the_schema_is_one() {
    let schema: Json = serde_json::from_str(&schema_json()).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
}

#[test]
fn every_key_is_described_and_none_is_missing() {
    let schema: Json = serde_json::from_str(&schema_json()).unwrap();
    let keys = |definition: &str| -> Vec<String> {
        let mut keys: Vec<String> =
            schema["$defs"][definition]["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    for (definition, known) in [("rule", RULE_KEYS), ("macro", MACRO_KEYS), ("list", LIST_KEYS)] {
        let mut known: Vec<String> = known.iter().map(|key| (*key).to_owned()).collect();
        known.sort_unstable();
        assert_eq!(keys(definition), known, "{definition}");
    }
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, key_schema) in definition["properties"].as_object().into_iter().flatten() {
            let target = key_schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
            let described = [Some(key_schema), target.map(|target| &schema["$defs"][target])];
            let described = described.into_iter().flatten().any(|schema| !schema["description"].is_null());
            assert!(described || key == "required_plugin_versions", "{name}.{key} has no description");
        }
    }
}

#[test]
fn the_shipped_rules_fit() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules");
    let mut files = 0;
    for entry in std::fs::read_dir(rules).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files += 1;
            assert_eq!(faults(&std::fs::read_to_string(&path).unwrap()), [""; 0], "{}", path.display());
        }
    }
    assert!(files > 3);
}

/// The keys that a rule has to have, on one line.
const RULE: &str = "rule: r, desc: d, condition: evt.type = setns, output: o, priority: WARNING";

#[test]
fn what_the_loader_takes_fits() {
    for yaml in [
        "[]",
        "- required_engine_version: 0.50.0",
        "- required_engine_version: 50",
        "- required_plugin_versions: [{name: container, version: 0.4.0, alternatives: [{name: x, version: 1.2.3}]}]",
        "- list: l\n  items: [a, 1, true, -2.5]",
        "- list: l\n  items: []",
        "- macro: m\n  condition: >\n    (never_true)",
        &format!("- {{{RULE}}}"),
        &format!("- {{{}}}", RULE.replace("WARNING", "warning")),
        &format!("- {{{}}}", RULE.replace("WARNING", "Info")),
        &format!(
            "- {{{RULE}, source: syscall, enabled: false, warn_evttypes: false, skip-if-unknown-filter: true}}"
        ),
        &format!(
            "- {{{RULE}, tags: [a, 1.2], attack: [T1611, TA0004], maturity: stable, references: [], id: a-b-2}}"
        ),
        &format!(
            "- {{{RULE}, threshold: {{count: 5, within: 1h 30m, by: [container.id, 'proc.aname[2]', 'container.label[\"a b\"]'], distinct: 'evt.arg[flags]'}}}}"
        ),
        &format!("- {{{RULE}, threshold: {{count: 2, within: 500ms, by: proc.name}}}}"),
        &format!(
            "- {{{RULE}, exceptions: [{{name: a}}, {{name: b, fields: proc.name, comps: startswith oneof, values: [x, 1]}}]}}"
        ),
        &format!(
            "- {{{RULE}, exceptions: [{{name: c, fields: [proc.name, proc.pid], comps: [=, in], values: [[x, [1, 2]]], reason: r, owner: o, expires: '2027-01-31'}}]}}"
        ),
        &format!(
            "- {{{RULE}, tests: [{{name: case, event: {{evt.type: setns, proc.pid: 5, evt.flags: [CLONE_NEWNS], proc.name: null, evt.failed: true}}, match: false}}]}}"
        ),
        "- rule: r\n  override: {condition: append, priority: replace}\n  condition: and proc.name = x\n  priority: ERROR",
        "- rule: r\n  append: true\n  condition: or proc.name = x",
        "- rule: r\n  enabled: false",
        "- macro: m\n  append: true\n  condition: or x",
        "- list: l\n  override: {items: append}\n  items: [a]",
    ] {
        assert_eq!(faults(yaml), [""; 0], "{yaml}");
        let later = ["override", "append", "never_true", "exceptions", "- rule: r\n  enabled: false"];
        if !later.iter().any(|word| yaml.contains(word)) {
            RuleSet::from_sources(&[("t.yaml", yaml)]).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn what_is_wrong_in_shape_does_not_fit() {
    for yaml in [
        "rule: r",
        "- just a text",
        "- {}",
        "- rulez: r",
        "- {rule: r, desc: d}",
        "- {rule: r}",
        "- {rule: r, condition: c, output: o, desc: d}",
        "- list: l",
        "- list: l\n  items: a",
        "- list: l\n  items: [[a]]",
        "- macro: m",
        "- macro: m\n  condition: c\n  desc: d",
        "- required_engine_version: new",
        "- required_engine_version: 0.5",
        &format!("- {{{}}}", RULE.replace("WARNING", "WARN")),
        &format!("- {{{}}}", RULE.replace("WARNING", "3")),
        &format!("- {{{RULE}, prioritee: x}}"),
        &format!("- {{{RULE}, enabled: maybe}}"),
        &format!("- {{{RULE}, capture: 'Yess'}}"),
        &format!("- {{{RULE}, source: null}}"),
        &format!("- {{{RULE}, tags: a}}"),
        &format!("- {{{RULE}, attack: [T16]}}"),
        &format!("- {{{RULE}, attack: T1611}}"),
        &format!("- {{{RULE}, maturity: new}}"),
        &format!("- {{{RULE}, id: Not Kebab}}"),
        &format!("- {{{RULE}, threshold: 5}}"),
        &format!("- {{{RULE}, threshold: {{count: 5}}}}"),
        &format!("- {{{RULE}, threshold: {{within: 5s}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 1, within: 5s}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 1001, within: 5s}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 60}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 5 parsecs}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 5s, by: [proc.nam]}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 5s, by: ['proc.aname[99]']}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 5s, distinct: evt.arg}}}}"),
        &format!("- {{{RULE}, threshold: {{count: 5, within: 5s, every: 1}}}}"),
        &format!("- {{{RULE}, exceptions: [{{fields: proc.name}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: proc.nam}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: proc.name, comps: like}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: proc.name, comps: startswith}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: proc.name, comps: [in]}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: [proc.name], comps: in}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: [proc.name], comps: [in oneof]}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: [proc.name], comps: [oneof]}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: [], comps: []}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: [upper(proc.name)]}}]}}"),
        &format!("- {{{RULE}, exceptions: [{{name: e, fields: proc.name, expires: soon}}]}}"),
        &format!("- {{{RULE}, tests: [{{name: case, event: {{}}, match: true}}]}}"),
        &format!("- {{{RULE}, tests: [{{name: case, event: {{evt.type: fork}}, match: true}}]}}"),
        &format!(
            "- {{{RULE}, tests: [{{name: case, event: {{evt.type: setns, proc.nam: x}}, match: true}}]}}"
        ),
        &format!("- {{{RULE}, tests: [{{name: case, event: {{evt.type: setns}}, match: maybe}}]}}"),
        &format!("- {{{RULE}, tests: [{{name: case, event: {{evt.type: setns}}}}]}}"),
        "- rule: r\n  override: {conditions: append}\n  condition: x",
        "- rule: r\n  override: {condition: prepend}\n  condition: x",
        "- rule: r\n  override: {priority: append}\n  priority: ERROR",
    ] {
        assert_ne!(faults(yaml), [""; 0], "{yaml}");
        // The others name what is not looked at before it is used, or what there is not.
        let shape = ["exceptions:", "source:", "enabled:", "capture:"].iter().any(|word| yaml.contains(word));
        assert!(!shape || RuleSet::from_sources(&[("t.yaml", yaml)]).is_err(), "loads: {yaml}");
    }
}

#[test]
fn the_examples_of_the_reference_fit() {
    let examples = crate::rules::reference::file_examples();
    assert!(examples.len() > 5);
    for example in examples {
        assert_eq!(faults(example), [""; 0], "{example}");
    }
}

#[expect(dead_code, reason = "the loader's own tests read the rest")]
#[path = "../../../tests/rules_loader_cases/mod.rs"]
mod cases;

#[test]
fn the_files_of_the_loaders_cases_fit_if_they_load() {
    use cases::{Outcome, different, exceptions, keys, overriding, versions};
    let all = [different::CASES, exceptions::CASES, keys::CASES, overriding::CASES, versions::CASES];
    let mut checked = 0;
    let mut wrong = Vec::new();
    for case in all.into_iter().flatten().filter(|case| matches!(case.outcome, Outcome::Loads(_))) {
        for file in case.files.split("=====\n") {
            let documents: Vec<Json> =
                serde_saphyr::from_multiple(file).unwrap_or_else(|error| panic!("{error}\n{file}"));
            for document in documents {
                checked += 1;
                wrong.extend(
                    SCHEMA
                        .iter_errors(&document)
                        .map(|fault| format!("{}: {}: {fault}\n{file}", case.name, fault.instance_path())),
                );
            }
        }
    }
    assert!(checked > 50);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
