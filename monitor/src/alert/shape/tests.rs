//! Shapes under test: held to what the published schemas say of each field (`tests/fixtures/schemas`).

use std::sync::LazyLock;

use serde_json::json;

use super::read::unix_ns;
use super::*;
use crate::alert::{Alert, AlertForm, AlertRule, Fact, Grouped, InternalAlert, JsonLines};
use crate::fields::{FieldRef, FieldType, FieldValues, Value, resolve};

static ECS: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../tests/fixtures/schemas/ecs-9.4.0.json")).unwrap()
});
static OCSF: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../tests/fixtures/schemas/ocsf-1.8.0.json")).unwrap()
});

/// Fields that shapes have places for, and some that they have none for.
const FIELDS: &[&str] = &[
    "proc.cmdline",
    "proc.cwd",
    "proc.pname",
    "proc.pexepath",
    "proc.pcmdline",
    "proc.vpid",
    "user.name",
    "user.uid",
    "container.full_id",
    "container.runtime",
    "container.image.repository",
    "container.image.tag",
    "container.image.id",
    "container.privileged",
    "k8s.pod.uid",
    "cap.after",
    "evt.failed",
    "proc.start",
];

const NOON: i64 = 1_795_435_200_123_456_789;

fn field(name: &str) -> FieldRef {
    resolve(name, None).unwrap()
}

/// An event that has every one of these fields, and those that every alert has.
fn whole() -> FieldValues {
    let mut values = FieldValues::default();
    let always =
        ["evt.type", "evt.verdict", "evt.refused_by", "evt.res", "evt.abi", "container.id", "container.name"];
    let more = [
        "container.image",
        "proc.name",
        "proc.exepath",
        "proc.pid",
        "proc.ppid",
        "k8s.pod.name",
        "k8s.ns.name",
    ];
    for name in always.iter().chain(&more).chain(FIELDS) {
        let field = field(name);
        let value = match field.field.spec().ty {
            FieldType::Text => Value::Text(format!("a \"{name}\"\n").into()),
            FieldType::Number => Value::Number(4711),
            FieldType::Bool => Value::Bool(true),
            FieldType::TextList => crate::fields::owned_list(["A".to_owned(), "B".to_owned()]),
        };
        values.set(field, value).unwrap();
    }
    values.set(field("evt.verdict"), Value::Text("refused".into())).unwrap();
    values
}

fn with(mut values: FieldValues, name: &str, text: &'static str) -> FieldValues {
    values.set(field(name), Value::Text(text.into())).unwrap();
    values
}

/// The canonical line of an alert of this event, without its line feed.
fn canonical(event: &FieldValues, attack: &[&str], priority: &str, grouped: Option<Grouped>) -> Vec<u8> {
    let fields: Vec<(String, FieldRef)> =
        FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    let attack: Vec<String> = attack.iter().map(|id| (*id).to_owned()).collect();
    let rule = AlertRule {
        id: "namespace-enter-refused",
        name: "Attempt to enter a namespace was refused",
        priority,
        source: "syscall",
        tags: &["container".to_owned()],
        attack: &attack,
        fields: &fields,
    };
    let form = AlertForm::new(&rule, "host-1");
    let alert = Alert {
        form: &form,
        event,
        output: "said \"so\"",
        unix_ns: NOON,
        generation: 7,
        crossed: None,
        grouped,
        why: None,
    };
    let mut line = Vec::new();
    JsonLines::default().write(&alert, &mut line);
    line.pop();
    line
}

fn internal() -> Vec<u8> {
    let form = InternalAlert::form("ringfence-blind", "Ringfence is blind", "Critical", "host-1");
    let facts =
        [("ringfence.cause", Fact::Text("detached".to_owned())), ("ringfence.seconds", Fact::Number(3))];
    let alert = InternalAlert { form: &form, output: "blind", unix_ns: NOON, generation: 1, facts: &facts };
    let mut line = Vec::new();
    JsonLines::default().write_internal(&alert, &mut line);
    line.pop();
    line
}

fn shaped(shape: Shape, line: &[u8]) -> Json {
    let mut out = Vec::new();
    Shaper::new(shape).push(line, &mut out);
    assert!(!out.contains(&b'\n'));
    serde_json::from_slice(&out).unwrap()
}

/// Alerts of all kinds.
fn lines() -> Vec<Vec<u8>> {
    let grouped = Grouped { count: 3, first_unix_ns: NOON, last_unix_ns: NOON + 5_000_000_000 };
    let attack = ["T1611", "T1548.001", "T1548.002", "TA0004"];
    let mut lines = vec![
        canonical(&whole(), &attack, "Warning", None),
        canonical(&whole(), &[], "Warning", Some(grouped)),
        canonical(&with(whole(), "container.id", "host"), &["TA0004"], "Debug", None),
        canonical(&FieldValues::default(), &["T1548.001"], "Emergency", None),
        internal(),
    ];
    for verdict in ["allowed", "failed", "refused"] {
        lines.push(canonical(&with(whole(), "evt.verdict", verdict), &attack, "Notice", None));
    }
    for priority in crate::rules::Priority::ALL {
        lines.push(canonical(&whole(), &attack, priority.as_str(), None));
    }
    lines
}

/// What is wrong with a document of ECS.
fn ecs_faults(document: &Json) -> Vec<String> {
    fn walk(path: &str, value: &Json, faults: &mut Vec<String>) {
        if path == "ringfence" {
            return;
        }
        let Some(spec) = ECS.get(path) else {
            match value {
                Json::Object(members) if !members.is_empty() => {
                    for (name, value) in members {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        walk(&path, value, faults);
                    }
                }
                _ => faults.push(format!("{path} is no field")),
            }
            return;
        };
        let values = match (spec.get("array"), value) {
            (Some(_), Json::Array(values)) => values.as_slice(),
            (None, value) if !value.is_array() => std::slice::from_ref(value),
            _ => return faults.push(format!("{path} is an array, or should be")),
        };
        for value in values {
            let fits = match spec["type"].as_str().unwrap() {
                "keyword" | "wildcard" | "match_only_text" => value.is_string(),
                "date" => value.as_str().and_then(unix_ns).is_some(),
                "long" => value.is_i64(),
                "boolean" => value.is_boolean(),
                _ => false,
            };
            let allowed = spec.get("allowed").and_then(Json::as_array);
            if !fits || allowed.is_some_and(|allowed| !allowed.contains(value)) {
                faults.push(format!("{path} cannot be {value}"));
            }
        }
    }
    let mut faults = Vec::new();
    walk("", document, &mut faults);
    for required in ["@timestamp", "message"] {
        if document.get(required).is_none() {
            faults.push(format!("{required} is missing"));
        }
    }
    if document["ecs"]["version"] != ecs::VERSION {
        faults.push("ecs.version".to_owned());
    }
    let event = &document["event"];
    for category in event["category"].as_array().unwrap() {
        let types = ECS["event.category"]["types"][category.as_str().unwrap()].as_array().unwrap();
        if event["type"].as_array().unwrap().iter().any(|ty| !types.contains(ty)) {
            faults.push(format!("{} does not go with {category}", event["type"]));
        }
    }
    faults
}

/// What is wrong with an object of OCSF.
fn ocsf_faults(object: &str, value: &Json) -> Vec<String> {
    let Some(members) = value.as_object() else { return vec![format!("{object} is no object")] };
    let spec = &OCSF[object];
    let attributes =
        spec["attributes"].as_object().unwrap_or_else(|| panic!("{object} is not in the fixture"));
    let mut faults = Vec::new();
    for (name, attribute) in attributes {
        if attribute.get("required").is_some() && !members.contains_key(name) {
            faults.push(format!("{object}.{name} is missing"));
        }
    }
    if let Some(one_of) = spec["constraints"]["at_least_one"].as_array()
        && !one_of.iter().any(|name| members.contains_key(name.as_str().unwrap()))
    {
        faults.push(format!("{object} has none of {one_of:?}"));
    }
    for (name, value) in members {
        let Some(attribute) = attributes.get(name) else {
            faults.push(format!("{object}.{name} is no attribute"));
            continue;
        };
        let values = match (attribute.get("array"), value) {
            (Some(_), Json::Array(values)) => values.as_slice(),
            (None, value) if !value.is_array() => std::slice::from_ref(value),
            _ => {
                faults.push(format!("{object}.{name} is an array, or should be"));
                continue;
            }
        };
        for value in values {
            if let Some(inner) = attribute.get("object").and_then(Json::as_str)
                && inner != "object"
            {
                faults.extend(ocsf_faults(inner, value));
                continue;
            }
            let fits = match attribute["type"].as_str().unwrap() {
                "string_t" => value.is_string(),
                "integer_t" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
                "long_t" => value.is_i64(),
                "boolean_t" => value.is_boolean(),
                "object" => value.is_object(),
                _ => false,
            };
            let known = attribute.get("enum").and_then(Json::as_array);
            if !fits || known.is_some_and(|known| !known.contains(&value.to_string().into())) {
                faults.push(format!("{object}.{name} cannot be {value}"));
            }
        }
    }
    faults
}

#[test]
fn ecs_documents_are_as_the_schema_says() {
    for line in lines() {
        let document = shaped(Shape::Ecs, &line);
        assert_eq!(ecs_faults(&document), Vec::<String>::new(), "{document:#}");
    }
    let document = shaped(Shape::Ecs, &lines()[0]);
    assert_eq!(document["event"]["type"], json!(["denied"]));
    assert_eq!(document["threat"]["technique"]["id"], json!(["T1611", "T1548"]));
    assert_eq!(document["threat"]["technique"]["subtechnique"]["id"], json!(["T1548.001", "T1548.002"]));
    assert_eq!(document["process"]["parent"]["pid"], 4711);
    assert_eq!(document["ringfence"]["fields"]["cap.after"], json!(["A", "B"]));
    assert!(shaped(Shape::Ecs, &lines()[2]).get("container").is_none(), "the host is no container");
}

#[test]
fn ocsf_documents_are_as_the_schema_says() {
    for line in lines() {
        let document = shaped(Shape::Ocsf, &line);
        assert_eq!(ocsf_faults("detection_finding", &document), Vec::<String>::new(), "{document:#}");
        assert_eq!(document["metadata"]["version"], ocsf::VERSION);
    }
    let document = shaped(Shape::Ocsf, &lines()[0]);
    let attacks = json!([
        { "technique": { "uid": "T1611" } },
        { "technique": { "uid": "T1548" }, "sub_technique": { "uid": "T1548.001" } },
        { "technique": { "uid": "T1548" }, "sub_technique": { "uid": "T1548.002" } },
        { "tactic": { "uid": "TA0004" } },
    ]);
    assert_eq!(document["finding_info"]["attacks"], attacks);
    assert_eq!(document["time"], NOON / 1_000_000);
    let group = shaped(Shape::Ocsf, &lines()[1]);
    assert_eq!((&group["count"], &group["end_time"]), (&json!(3), &json!(NOON / 1_000_000 + 5000)));
}

/// The checks themselves can fail.
#[test]
fn a_misspelt_or_misplaced_field_is_found() {
    let mut ecs = shaped(Shape::Ecs, &lines()[0]);
    ecs["event"]["knid"] = "alert".into();
    ecs["event"]["kind"] = "alarm".into();
    ecs["process"]["pid"] = "4711".into();
    ecs["tags"] = "container".into();
    ecs["event"]["type"] = json!(["start"]);
    assert_eq!(ecs_faults(&ecs).len(), 5, "{:?}", ecs_faults(&ecs));
    let mut ocsf = shaped(Shape::Ocsf, &lines()[0]);
    ocsf["severity_id"] = 7.into();
    ocsf["device"].as_object_mut().unwrap().remove("type_id");
    ocsf["finding_info"]["titel"] = "x".into();
    ocsf["finding_info"]["attacks"] = json!([{}]);
    ocsf["time"] = "now".into();
    let faults = ocsf_faults("detection_finding", &ocsf);
    assert_eq!(faults.len(), 5, "{faults:?}");
}

#[test]
fn falcos_shape_has_falcos_keys_and_plain_values() {
    for line in lines() {
        let document = shaped(Shape::Falco, &line);
        let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["hostname", "output", "priority", "rule", "source", "tags", "time", "output_fields"]
        );
        let fields = document["output_fields"].as_object().unwrap();
        assert!(
            fields.values().all(|value| value.is_string() || value.is_i64() || value.is_boolean()),
            "{document}"
        );
    }
    let document = shaped(Shape::Falco, &lines()[0]);
    assert_eq!(document["output_fields"]["cap.after"], "(A,B)");
    assert_eq!(document["output_fields"]["ringfence.rule_id"], "namespace-enter-refused");
}

#[test]
fn lines_stay_lines_and_what_is_not_ours_is_passed_on() {
    let mut lines = canonical(&whole(), &[], "Notice", None);
    lines.extend_from_slice(b"\nno JSON\n[1]\n");
    for shape in [Shape::Ringfence, Shape::Falco, Shape::Ecs, Shape::Ocsf] {
        let mut out = Vec::new();
        Shaper::new(shape).push_lines(&lines, &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert!(out.ends_with(b"}\nno JSON\n[1]\n"));
        assert_eq!(serde_json::from_value::<Shape>(shape.word().into()).unwrap(), shape);
    }
}

#[test]
fn times_are_read_exactly() {
    assert_eq!(unix_ns("1970-01-01T00:00:00.000000001Z"), Some(1));
    assert_eq!(unix_ns("1969-12-31T23:59:59.999999999Z"), Some(-1));
    for wrong in
        ["", "1970-01-01T00:00:00Z", "1970-13-01T00:00:00.000000000Z", "1970-01-01T00:00:0é.00000000Z"]
    {
        assert_eq!(unix_ns(wrong), None, "{wrong}");
    }
}
