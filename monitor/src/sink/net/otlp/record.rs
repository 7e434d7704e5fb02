//! Alerts as log records: names after OpenTelemetry's semantic conventions, ours below `ringfence.`.
//!
//! What describes the container belongs to the resource, so records are grouped by container.

use std::borrow::Cow;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::OtlpConfig;
use super::proto::{
    Any, AnyValue, ArrayValue, ExportLogsServiceRequest, InstrumentationScope, KeyValue, LogRecord, Resource,
    ResourceLogs, ScopeLogs,
};
use crate::alert::Shaper;
use crate::rules::Priority;
use crate::sink::Record;
use crate::sink::net::alert::{Alert, unix_nanos};

/// Fields that describe the container, and what they are called there.
const RESOURCE: &[(&str, &str)] = &[
    ("container.full_id", "container.id"),
    ("container.name", "container.name"),
    ("container.runtime", "container.runtime.name"),
    ("container.image.repository", "container.image.name"),
    ("container.image.id", "container.image.id"),
    ("k8s.pod.name", "k8s.pod.name"),
    ("k8s.pod.uid", "k8s.pod.uid"),
    ("k8s.ns.name", "k8s.namespace.name"),
    ("k8s.container.name", "k8s.container.name"),
];

/// Fields of the event that the conventions know.
const CONVENTIONS: &[(&str, &str)] = &[
    ("proc.pid", "process.pid"),
    ("proc.ppid", "process.parent_pid"),
    ("proc.vpid", "process.vpid"),
    ("proc.exepath", "process.executable.path"),
    ("proc.name", "process.executable.name"),
    ("proc.cmdline", "process.command_line"),
    ("proc.cwd", "process.working_directory"),
    ("proc.sid", "process.session_leader.pid"),
    ("user.name", "user.name"),
    ("thread.tid", "thread.id"),
    ("fd.name", "file.path"),
];

/// The name of these events.
const EVENT_NAME: &str = "ringfence.alert";

/// An alert on its way, and what tells its resource from others.
pub(super) struct Item {
    host: String,
    resource: Vec<(&'static str, Value)>,
    /// Of the image, whose tags are a list.
    tag: Option<Value>,
    record: LogRecord,
}

impl Item {
    /// Reads a line. With a shape the body is JSON in it, else the output.
    pub(super) fn read(record: &Record<'_>, json: Option<Shaper>) -> Result<Self, String> {
        let alert = Alert::read(record.line)?;
        let observed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let body = match json {
            None => alert.sentence(),
            Some(shaper) => {
                let mut shaped = Vec::new();
                shaper.push(record.line, &mut shaped);
                Cow::Owned(String::from_utf8_lossy(&shaped).into_owned())
            }
        };
        let log_record = LogRecord {
            time_unix_nano: unix_nanos(&alert.time).unwrap_or_default(),
            severity_number: severity_number(record.priority),
            severity_text: record.priority.as_str().to_owned(),
            body: Some(text(&body)),
            attributes: attributes(&alert),
            observed_time_unix_nano: observed.as_nanos() as u64,
            event_name: EVENT_NAME.to_owned(),
        };
        let in_container = alert.container_id().is_some();
        let field =
            |name: &str| alert.output_fields.get(name).filter(|value| in_container && !value.is_null());
        let mut resource: Vec<_> =
            RESOURCE.iter().filter_map(|(name, key)| Some((*key, field(name)?.clone()))).collect();
        if !resource.iter().any(|(key, _)| *key == "container.id") {
            // The short one is better than none.
            resource.extend(field("container.id").map(|id| ("container.id", id.clone())));
        }
        Ok(Self {
            host: alert.hostname.to_string(),
            resource,
            tag: field("container.image.tag").cloned(),
            record: log_record,
        })
    }

    fn is_of(&self, other: &Item) -> bool {
        self.host == other.host && self.resource == other.resource && self.tag == other.tag
    }
}

/// A request with these records, in order within each resource.
pub(super) fn request(config: &OtlpConfig, items: &[Item]) -> ExportLogsServiceRequest {
    let mut groups: Vec<(&Item, Vec<LogRecord>)> = Vec::new();
    for item in items {
        let record = item.record.clone();
        match groups.iter_mut().find(|(first, _)| first.is_of(item)) {
            Some((_, records)) => records.push(record),
            None => groups.push((item, vec![record])),
        }
    }
    let resource_logs = groups.into_iter().map(|(first, log_records)| ResourceLogs {
        resource: Some(resource(config, first)),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope {
                name: "ringfence".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            log_records,
        }],
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn resource(config: &OtlpConfig, item: &Item) -> Resource {
    let mut attributes = vec![
        pair("service.name", text("ringfence")),
        pair("service.version", text(env!("CARGO_PKG_VERSION"))),
        pair("host.name", text(&item.host)),
    ];
    attributes.extend(item.resource.iter().filter_map(|(key, value)| Some(pair(key, any(value)?))));
    if let Some(tag) = &item.tag {
        let values = any(tag).into_iter().collect();
        let tags = AnyValue { value: Some(Any::Array(ArrayValue { values })) };
        attributes.push(pair("container.image.tags", tags));
    }
    for (key, value) in &config.resource {
        attributes.retain(|known| known.key != *key);
        attributes.push(pair(key, text(value)));
    }
    Resource { attributes }
}

fn attributes(alert: &Alert<'_>) -> Vec<KeyValue> {
    let list = |members: &[String]| {
        let values = members.iter().map(|member| text(member)).collect();
        AnyValue { value: Some(Any::Array(ArrayValue { values })) }
    };
    let mut attributes = vec![
        pair("security_rule.name", text(&alert.rule)),
        pair("security_rule.uuid", text(&alert.rule_id)),
        pair("ringfence.source", text(&alert.source)),
        pair("ringfence.tags", list(&alert.tags)),
        pair("ringfence.attack", list(&alert.attack)),
    ];
    let fields: &Map<String, Value> = &alert.output_fields;
    for (field, value) in fields {
        // What the resource has is not repeated; where there is no container, `host` is worth a word.
        let of_resource = RESOURCE.iter().any(|(name, _)| name == field) || field == "container.image.tag";
        if of_resource && alert.container_id().is_some() {
            continue;
        }
        let Some(value) = any(value) else { continue };
        let known = CONVENTIONS.iter().find(|(name, _)| name == field);
        let key = known.map_or_else(|| format!("ringfence.{field}"), |(_, key)| (*key).to_owned());
        attributes.push(pair(&key, value));
    }
    if let Some(uid) = alert.text("user.uid") {
        // The conventions have it as a text.
        attributes.push(pair("user.id", text(&uid)));
    }
    attributes
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Any::Text(text.to_owned())) }
}

/// A value of JSON; none for null.
fn any(value: &Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(flag) => Any::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Any::Int(number),
            None if number.is_u64() => Any::Text(number.to_string()),
            None => Any::Double(number.as_f64()?),
        },
        Value::String(text) => Any::Text(text.clone()),
        Value::Array(members) => Any::Array(ArrayValue { values: members.iter().filter_map(any).collect() }),
        Value::Object(_) => Any::Text(value.to_string()),
    };
    Some(AnyValue { value: Some(value) })
}

/// As the data model of logs maps syslog's severities (its appendix B).
const fn severity_number(priority: Priority) -> i32 {
    match priority {
        Priority::Emergency => 21,
        Priority::Alert => 19,
        Priority::Critical => 18,
        Priority::Error => 17,
        Priority::Warning => 13,
        Priority::Notice => 10,
        Priority::Informational => 9,
        Priority::Debug => 5,
    }
}
