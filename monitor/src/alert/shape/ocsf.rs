//! The Open Cybersecurity Schema Framework, version 1.8: a Detection Finding (class 2004) with the profiles `host` and
//! `container`.
//!
//! What the class has no attribute for stands in `unmapped`, which is there for that, with all fields as they are.

use serde_json::{Value as Json, json};

use super::read::{Alert, Attack, Object, unix_ns};

/// The version of the schema.
pub(super) const VERSION: &str = "1.8.0";

/// Category Findings.
const CATEGORY: i64 = 2;
/// Class Detection Finding.
const CLASS: i64 = 2004;
/// Activity Create: an alert is told once.
const CREATE: i64 = 1;

/// Makes it.
pub(super) fn make(alert: &Alert) -> Json {
    let (severity_id, severity) = severity(alert.text("priority"));
    let time = |name: &str| alert.field(name).and_then(milliseconds);
    let happened = milliseconds(alert.text("time")).unwrap_or_default();
    let product =
        json!({ "name": "Ringfence", "vendor_name": "Ringfence", "version": env!("CARGO_PKG_VERSION") });
    let metadata = Object::default()
        .with("version", VERSION)
        .with("product", product)
        .with("profiles", json!(["host", "container"]))
        .with("log_name", "alerts")
        .with("log_provider", alert.text("source"))
        .with("event_code", alert.text("rule_id"))
        .with("original_time", alert.text("time"))
        .with("labels", alert.texts("tags"));
    let unmapped = Object::default()
        .with("fields", Json::Object(alert.fields.clone()))
        .with("schema_version", alert.key("schema_version").cloned())
        .with("rules_generation", alert.key("rules_generation").cloned())
        .with("why", alert.key("why").cloned());
    let count = alert.number("group.count").or(alert.number("threshold.count"));
    Object::default()
        .with("activity_id", CREATE)
        .with("activity_name", "Create")
        .with("category_uid", CATEGORY)
        .with("category_name", "Findings")
        .with("class_uid", CLASS)
        .with("class_name", "Detection Finding")
        .with("type_uid", CLASS * 100 + CREATE)
        .with("type_name", "Detection Finding: Create")
        .with("severity_id", severity_id)
        .with("severity", severity)
        .with("status_id", 1)
        .with("status", "New")
        .with("time", happened)
        .with("start_time", time("group.first").or(time("threshold.since")))
        .with("end_time", time("group.last"))
        .with("count", count)
        .with("message", alert.text("output"))
        .with("metadata", metadata)
        .with("device", device(alert))
        .with("finding_info", finding(alert, happened))
        .with("evidences", evidences(alert))
        .with("unmapped", unmapped)
        .into()
}

fn milliseconds(text: &str) -> Option<i64> {
    unix_ns(text).and_then(|ns| i64::try_from(ns.div_euclid(1_000_000)).ok())
}

fn severity(priority: &str) -> (i64, &'static str) {
    match priority {
        "Debug" | "Informational" => (1, "Informational"),
        "Notice" => (2, "Low"),
        "Warning" => (3, "Medium"),
        "Error" => (4, "High"),
        "Critical" | "Alert" => (5, "Critical"),
        "Emergency" => (6, "Fatal"),
        _ => (0, "Unknown"),
    }
}

fn device(alert: &Alert) -> Object {
    Object::default()
        .with("type_id", 0)
        .with("hostname", alert.text("hostname"))
        .with("os", json!({ "name": "Linux", "type_id": 200, "type": "Linux" }))
}

fn finding(alert: &Alert, happened: i64) -> Object {
    let (rule_id, host, time) = (alert.text("rule_id"), alert.text("hostname"), alert.text("time"));
    let pid = alert.number("proc.pid").map(|pid| format!("/{pid}")).unwrap_or_default();
    let analytic = Object::default()
        .with("type_id", 1)
        .with("type", "Rule")
        .with("uid", rule_id)
        .with("name", alert.text("rule"));
    Object::default()
        // The same alert has the same one, however often it is delivered.
        .with("uid", format!("{host}/{rule_id}/{time}{pid}"))
        .with("title", alert.text("rule"))
        .with("desc", alert.text("output"))
        .with("created_time", happened)
        .with("types", alert.texts("tags"))
        .with("analytic", analytic)
        .with("attacks", attacks(&Attack::of(&alert.texts("attack"))))
}

/// One for each technique, with its sub-technique; then one for each tactic.
fn attacks(attack: &Attack<'_>) -> Vec<Json> {
    let techniques = attack.techniques.iter().flat_map(|technique| {
        let of = |sub: &&&str| sub.strip_prefix(*technique).is_some_and(|rest| rest.starts_with('.'));
        let subs: Vec<&&str> = attack.sub_techniques.iter().filter(of).collect();
        let one = |sub: Option<&&str>| {
            let sub = sub.map(|sub| json!({ "uid": sub }));
            Object::default().with("technique", json!({ "uid": technique })).with("sub_technique", sub).into()
        };
        if subs.is_empty() { vec![one(None)] } else { subs.into_iter().map(|sub| one(Some(sub))).collect() }
    });
    techniques.chain(attack.tactics.iter().map(|tactic| json!({ "tactic": { "uid": tactic } }))).collect()
}

/// The process that did it. An alert of Ringfence about itself has none.
fn evidences(alert: &Alert) -> Vec<Json> {
    let Some(pid) = alert.number("proc.pid") else { return Vec::new() };
    let parent = alert.number("proc.ppid").map(|pid| {
        Object::default()
            .with("pid", pid)
            .with("name", alert.field("proc.pname"))
            .with("path", alert.field("proc.pexepath"))
            .with("cmd_line", alert.field("proc.pcmdline"))
    });
    let user = Object::default()
        .with("uid", alert.number("user.uid").map(|uid| uid.to_string()))
        .with("name", alert.field("user.name"));
    let process = Object::default()
        .with("pid", pid)
        .with("name", alert.field("proc.name"))
        .with("path", alert.field("proc.exepath"))
        .with("cmd_line", alert.field("proc.cmdline"))
        .with("working_directory", alert.field("proc.cwd"))
        .with("namespace_pid", alert.number("proc.vpid"))
        .with("user", user)
        .with("container", container(alert))
        .with("parent_process", parent);
    let api = alert.field("evt.type").map(|call| json!({ "operation": call }));
    vec![Object::default().with("process", process).with("api", api).into()]
}

fn container(alert: &Alert) -> Object {
    let Some(id) = alert.container() else { return Object::default() };
    // An image is known by its id there; its name alone makes none.
    let image = alert.field("container.image.id").map(|id| {
        Object::default()
            .with("uid", id)
            .with("name", alert.field("container.image"))
            .with("tag", alert.field("container.image.tag"))
    });
    Object::default()
        .with("uid", alert.field("container.full_id").unwrap_or(id))
        .with("name", alert.field("container.name"))
        .with("runtime", alert.field("container.runtime"))
        .with("pod_uuid", alert.field("k8s.pod.uid"))
        .with("image", image)
}
