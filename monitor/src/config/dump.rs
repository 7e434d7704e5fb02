//! The effective settings for people and programs, each with what set it. Secrets are never in it.
//!
//! What Ringfence knows the form of is shown as it is in force; lists of mappings as they were written, `outputs` without
//! what may be a secret (see `secrets`).

use serde_json::{Value as Json, json};

use super::file::keys;
use super::secrets::{HIDDEN, redacted};
use super::{CanaryInterval, Loaded, Origin, Settings};
use crate::confine::Confine;

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its key.
    pub key: &'static str,
    /// Its value; `null` where there is none.
    pub value: Json,
    /// What set it, in order.
    pub from: Vec<Origin>,
    /// A part of the value is hidden, so it cannot be read back.
    pub hides: bool,
}

/// How a setting's value is had.
type Value = fn(&Settings) -> Json;

/// How each setting's value is had. What is missing here is shown as it was written, or not at all.
const VALUES: &[(&str, Value)] = &[
    ("attach", |s| word(&format!("{:?}", s.attach))),
    ("strict", |s| s.strict.into()),
    ("syscall_sets", |s| s.syscall_sets.into()),
    ("rules", |s| paths(&s.rule_paths())),
    ("watch_rules", |s| s.watch_rules.into()),
    ("output", |s| s.output.map_or(Json::Null, |output| word(&format!("{output:?}")))),
    ("alert_file", |s| optional(s.alert_file.as_ref().map(|path| path.display().to_string()))),
    ("record_dir", |s| optional(s.record_dir.as_ref().map(|path| path.display().to_string()))),
    ("record_bytes", |s| s.record_bytes.into()),
    ("listen", |s| s.listen.to_string().into()),
    ("control_socket", |s| s.control_socket.to_string().into()),
    ("ring_bytes", |s| s.ring_bytes.into()),
    ("min_priority", |s| s.min_priority.as_str().into()),
    ("alert_why", |s| s.alert_why.into()),
    ("no_color", |s| s.no_color.into()),
    ("process_table_entries", |s| s.process_table_entries.into()),
    ("cgroup_hierarchy", |s| s.cgroup_hierarchy.to_string().into()),
    ("canary_interval_ms", |s| match s.canary_interval {
        CanaryInterval::Off => "off".into(),
        CanaryInterval::Every(ms) => ms.into(),
    }),
    ("metadata_wait_ms", |s| s.metadata_wait_ms.into()),
    ("host_root", |s| s.roots.host.display().to_string().into()),
    ("docker_roots", |s| paths(&s.roots.docker)),
    ("containerd_roots", |s| paths(&s.roots.containerd)),
    ("crio_roots", |s| paths(&s.roots.crio)),
    ("podman_roots", |s| paths(&s.roots.podman)),
    ("state_dir", |s| s.state_dir.to_string().into()),
    ("probe_cost", |s| s.probe_cost.into()),
    ("hostname", |s| optional(s.hostname.clone())),
    ("pin_dir", |s| s.pin_dir.to_string().into()),
    ("confine", |s| {
        let Confine { capabilities, seccomp, landlock } = s.confine;
        json!({"capabilities": capabilities, "seccomp": seccomp, "landlock": landlock})
    }),
    ("group_by", |s| s.group.by.iter().map(|field| field.name.as_str()).collect()),
    ("group_seconds", |s| s.group.seconds.into()),
    ("capability_unused_series", |s| s.capability_unused_series.into()),
];

fn word(variant: &str) -> Json {
    variant.to_ascii_lowercase().into()
}

fn paths(paths: &[std::path::PathBuf]) -> Json {
    paths.iter().map(|path| path.display().to_string()).collect()
}

fn optional(text: Option<String>) -> Json {
    text.map_or(Json::Null, Json::from)
}

/// Settings that are shown as they were written, and have nothing in them that could be a secret.
const AS_WRITTEN: &[&str] = &["rule_selection", "append_output"];

impl Loaded {
    /// Every setting in the order of the documentation, without secrets.
    pub fn shown(&self) -> Vec<Shown> {
        keys().iter().map(|key| self.show(key)).collect()
    }

    fn show(&self, key: &'static str) -> Shown {
        let given = self.given(key);
        let from = given.map_or(vec![Origin::BuiltIn], |given| given.origins.clone());
        if let Some((_, value)) = VALUES.iter().find(|(known, _)| *known == key) {
            return Shown { key, value: value(&self.settings), from, hides: false };
        }
        let written = given.map_or(Json::Null, |given| given.written.clone());
        let mut hides = false;
        let value = match key {
            _ if AS_WRITTEN.contains(&key) || written.is_null() => written,
            "outputs" => redacted(&written, &mut hides),
            _ => {
                hides = true;
                HIDDEN.into()
            }
        };
        Shown { key, value, from, hides }
    }
}

/// The settings as a configuration file, with what set each behind it. What has no value, or whose value is not whole,
/// stands in a comment; the rest says the same when it is read again.
pub fn yaml(shown: &[Shown]) -> String {
    let mut text = format!(
        "# Effective settings of ringfence {}; behind each, what set it.\n",
        env!("CARGO_PKG_VERSION")
    );
    for Shown { key, value, from, hides } in shown {
        let comment = if *hides || value.is_null() { "# " } else { "" };
        let value = if value.is_null() { "(none)".to_owned() } else { value.to_string() };
        let from: Vec<String> = from.iter().map(Origin::to_string).collect();
        text.push_str(&format!("{comment}{key}: {value}  # {}\n", from.join(", then ")));
    }
    text
}

/// The settings as JSON: `{"attach":{"value":"auto","from":["built in"]},…}`.
pub fn json(shown: &[Shown]) -> Json {
    let one = |shown: &Shown| {
        let from: Vec<String> = shown.from.iter().map(Origin::to_string).collect();
        (shown.key.to_owned(), json!({ "value": shown.value, "from": from, "hides": shown.hides }))
    };
    Json::Object(shown.iter().map(one).collect())
}

#[cfg(test)]
#[path = "dump_tests.rs"]
pub(super) mod tests;
