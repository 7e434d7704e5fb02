//! The Elastic Common Schema, version 9.4.
//!
//! An alert of an intrusion detection; one of Ringfence about itself is about its host. What ECS has a field for stands
//! there; all fields stand as they are below `ringfence.fields`, which is ours, since ECS leaves names of products to them.

use serde_json::{Value as Json, json};

use super::read::{Alert, Attack, Object};

/// The version of the schema.
pub(super) const VERSION: &str = "9.4.0";

/// Makes it.
pub(super) fn make(alert: &Alert) -> Json {
    let internal = alert.text("source") == "internal";
    let verdict = alert.field("evt.verdict");
    let (category, ty) = match verdict {
        _ if internal => ("host", "info"),
        Some("allowed") => ("intrusion_detection", "allowed"),
        Some("refused") => ("intrusion_detection", "denied"),
        _ => ("intrusion_detection", "info"),
    };
    let outcome = match verdict {
        Some("allowed") => "success",
        Some("refused" | "failed") => "failure",
        _ => "unknown",
    };
    let priority = alert.text("priority");
    let event = Object::default()
        .with("kind", "alert")
        .with("category", json!([category]))
        .with("type", json!([ty]))
        .with("action", alert.field("evt.type"))
        .with("outcome", outcome)
        .with("severity", severity(priority))
        .with("module", "ringfence")
        .with("dataset", "ringfence.alert")
        .with("provider", alert.text("source"))
        .with("reason", alert.field("evt.refused_by").or(alert.field("ringfence.cause")))
        .with("start", alert.field("group.first").or(alert.field("threshold.since")))
        .with("end", alert.field("group.last"));
    let host =
        Object::default().with("hostname", alert.text("hostname")).with("name", alert.text("hostname"));
    let rule = Object::default().with("id", alert.text("rule_id")).with("name", alert.text("rule"));
    let made = Object::default()
        .with("@timestamp", alert.text("time"))
        .with("ecs", json!({ "version": VERSION }))
        .with("message", alert.text("output"))
        .with("tags", alert.texts("tags"))
        .with("log", json!({ "level": priority.to_lowercase() }))
        .with("event", event)
        .with("rule", rule)
        .with("host", host)
        .with("container", container(alert))
        .with("process", process(alert))
        .with("user", user(alert))
        .with("orchestrator", orchestrator(alert))
        .with("threat", threat(&Attack::of(&alert.texts("attack"))))
        .with("related", related(alert));
    let ours = Object::default()
        .with("fields", Json::Object(alert.fields.clone()))
        .with("schema_version", alert.key("schema_version").cloned())
        .with("rules_generation", alert.key("rules_generation").cloned())
        .with("why", alert.key("why").cloned())
        .with("why_left_out", alert.key("why_left_out").cloned());
    made.with("ringfence", ours).into()
}

/// Greater is worse; ECS leaves the scale to the source. Those of syslog, turned over.
fn severity(priority: &str) -> Option<i64> {
    priority.parse::<crate::rules::Priority>().ok().map(|priority| priority as i64)
}

fn container(alert: &Alert) -> Object {
    let Some(id) = alert.container() else { return Object::default() };
    let (name, tag) = match (alert.field("container.image.repository"), alert.field("container.image")) {
        (Some(repository), _) => (Some(repository), alert.field("container.image.tag")),
        (None, Some(image)) => split_image(image),
        (None, None) => (None, None),
    };
    let image = Object::default().with("name", name).with("tag", tag.map(|tag| json!([tag])));
    Object::default()
        .with("id", alert.field("container.full_id").unwrap_or(id))
        .with("name", alert.field("container.name"))
        .with("runtime", alert.field("container.runtime"))
        .with("image", image)
}

/// An image's name, and its tag if it has one and no digest.
fn split_image(image: &str) -> (Option<&str>, Option<&str>) {
    let name_at = image.rfind('/').map_or(0, |slash| slash + 1);
    let colon = image.get(name_at..).and_then(|name| name.find(':')).map(|at| at + name_at);
    match colon {
        Some(at) if !image.contains('@') => (image.get(..at), image.get(at + 1..)),
        _ => (Some(image), None),
    }
}

fn process(alert: &Alert) -> Object {
    let parent = Object::default()
        .with("pid", alert.number("proc.ppid"))
        .with("name", alert.field("proc.pname"))
        .with("executable", alert.field("proc.pexepath"))
        .with("command_line", alert.field("proc.pcmdline"));
    Object::default()
        .with("pid", alert.number("proc.pid"))
        .with("name", alert.field("proc.name"))
        .with("executable", alert.field("proc.exepath"))
        .with("command_line", alert.field("proc.cmdline"))
        .with("working_directory", alert.field("proc.cwd"))
        .with("parent", parent)
}

fn user(alert: &Alert) -> Object {
    let id = alert.number("user.uid").map(|uid| uid.to_string());
    Object::default().with("id", id).with("name", alert.field("user.name"))
}

fn orchestrator(alert: &Alert) -> Object {
    let (pod, namespace) = (alert.field("k8s.pod.name"), alert.field("k8s.ns.name"));
    if pod.or(namespace).is_none() {
        return Object::default();
    }
    let kind = pod.map(|_| "pod");
    let resource = Object::default().with("name", pod).with("type", kind);
    Object::default().with("type", "kubernetes").with("namespace", namespace).with("resource", resource)
}

fn threat(attack: &Attack<'_>) -> Object {
    if *attack == Attack::default() {
        return Object::default();
    }
    let sub = Object::default().with("id", attack.sub_techniques.clone());
    let technique = Object::default().with("id", attack.techniques.clone()).with("subtechnique", sub);
    Object::default()
        .with("framework", "MITRE ATT&CK")
        .with("tactic", Object::default().with("id", attack.tactics.clone()))
        .with("technique", technique)
}

fn related(alert: &Alert) -> Object {
    let user = alert.field("user.name").map(|name| json!([name]));
    Object::default().with("hosts", json!([alert.text("hostname")])).with("user", user)
}
