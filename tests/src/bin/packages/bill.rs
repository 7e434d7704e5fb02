//! The bill of materials: that it is a CycloneDX document by its published schema, and of this very program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jsonschema::{Registry, Resource, Validator};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::{Settings, output};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let (valid_of, true_of) = (settings.clone(), settings.clone());
    vec![
        Trial::test("bill::follows_the_schema", move || valid(&valid_of).map_err(Failed::from)),
        Trial::test("bill::lists_what_is_linked", move || is_true(&true_of).map_err(Failed::from)),
    ]
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The schema, with the two that it refers to.
fn schema(settings: &Settings, version: &str) -> Result<Validator, String> {
    let file = |name: &str| read(&settings.schemas.join(format!("{name}.SNAPSHOT.schema.json")));
    let mut registry = Registry::new();
    for name in ["spdx", "jsf-0.82"] {
        // As the schema calls it, beside itself.
        let uri = format!("http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json");
        registry = registry
            .add(uri, Resource::from_contents(file(name)?))
            .map_err(|error| format!("{name}: {error}"))?;
    }
    let registry = registry.prepare().map_err(|error| error.to_string())?;
    jsonschema::options()
        .with_registry(&registry)
        .build(&file(&format!("bom-{version}"))?)
        .map_err(|error| error.to_string())
}

fn valid(settings: &Settings) -> Result<(), String> {
    let bill = read(&settings.file(".cdx.json")?)?;
    let version = bill["specVersion"].as_str().ok_or("there is no specVersion")?;
    let schema = schema(settings, version)?;
    let errors: Vec<_> = schema
        .iter_errors(&bill)
        .take(5)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    // A schema that takes everything would be no proof.
    let damages: [fn(&mut Value); 3] = [
        |bill| bill["components"][0]["type"] = "crate".into(),
        |bill| bill["components"][0]["hashes"] = serde_json::json!([{"alg": "SHA-256", "content": "x"}]),
        |bill| bill["serialNumber"] = "1".into(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut damaged = bill.clone();
        damage(&mut damaged);
        if schema.is_valid(&damaged) {
            return Err(format!("damage {number} was not noticed"));
        }
    }
    Ok(())
}

fn is_true(settings: &Settings) -> Result<(), String> {
    let bill = read(&settings.file(".cdx.json")?)?;
    let empty = Vec::new();
    let components = bill["components"].as_array().unwrap_or(&empty);
    let names: BTreeSet<_> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    for linked in ["aya", "tokio", "clap", "monitor-common", "monitor-ebpf", "aya-ebpf", "rust-std", "glibc"]
    {
        if !names.contains(linked) {
            return Err(format!("{linked} is linked in, and missing"));
        }
    }
    for other in ["serde_derive", "syn", "proptest", "jsonschema", "xtask", "tests", "tempfile"] {
        if names.contains(other) {
            return Err(format!("{other} is not linked in, and listed"));
        }
    }
    // Each has a licence, each of the registry its checksum, each is named once and says what it needs.
    let mut references = BTreeSet::new();
    for component in components {
        let reference = component["bom-ref"].as_str().unwrap_or_default();
        let of_registry = component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"));
        if !component["licenses"][0]["expression"].is_string()
            || (of_registry && component["hashes"][0]["content"].as_str().is_none_or(|sum| sum.len() != 64))
            || !references.insert(reference)
        {
            return Err(format!("component {component}"));
        }
    }
    references.insert(bill["metadata"]["component"]["bom-ref"].as_str().unwrap_or_default());
    let dependencies = bill["dependencies"].as_array().unwrap_or(&empty);
    let known: BTreeSet<_> = dependencies.iter().filter_map(|entry| entry["ref"].as_str()).collect();
    let needed = dependencies.iter().flat_map(|entry| entry["dependsOn"].as_array().unwrap_or(&empty));
    if known != references || !needed.filter_map(Value::as_str).all(|on| references.contains(on)) {
        return Err("components and dependencies name different things".to_owned());
    }
    // It is of the program in the package.
    let deb = settings.file(".deb")?;
    let script =
        "dpkg-deb --fsys-tarfile \"$0\" | tar --extract --to-stdout --file - ./usr/bin/ringfence | sha256sum";
    let sum = output(Command::new("sh").args(["-ec", script]).arg(deb))?;
    let stated = bill["metadata"]["component"]["hashes"][0]["content"].as_str().unwrap_or_default();
    match sum.split(' ').next() {
        Some(sum) if sum == stated => Ok(()),
        other => Err(format!("it is of {stated}, and the package has {other:?}")),
    }
}
