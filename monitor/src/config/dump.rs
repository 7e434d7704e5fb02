//! The effective settings for people and programs, each with what set it. Secrets are never in it.
//!
//! What Ringfence knows the form of is shown as it is in force. Of what only an output knows (`outputs`), a value is shown
//! if its name says that it is no secret, and hidden otherwise: a new kind of output must not give anything away.

use std::io::Read as _;

use serde_json::{Map, Value as Json, json};

use super::file::keys;
use super::layers::each_text;
use super::{CanaryInterval, Loaded, Origin, Settings};
use crate::confine::Confine;

/// Stands for a value that is not shown.
const HIDDEN: &str = "(not shown)";

/// Shorter texts are not taken for secrets that would have to be found elsewhere.
const SHORTEST_SECRET: usize = 4;

/// Bytes of a file that holds a secret, at most.
const LARGEST_SECRET: u64 = 64 << 10;

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

/// How each setting's value is had; what is missing here is shown as it was written, where nothing is a secret by name.
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

/// Names of members whose values are no secrets, whatever the output.
const PLAIN: &[&str] = &[
    "type",
    "file",
    "env",
    "name",
    "min_priority",
    "priority",
    "shape",
    "format",
    "queue_bytes",
    "dir",
    "bytes",
    "path",
    "ca",
    "cert",
    "key",
    "server_name",
    "protocol",
    "transport",
    "facility",
    "app_name",
    "tag",
    "tags",
    "mode",
    "rotate",
    "keep",
    "compression",
    "method",
    "template",
    "address",
    "url",
    "enable",
    "disable",
    "rule",
    "match",
    "extra_output",
    "extra_fields",
    "group_by",
    "hostname",
    "source",
    "insecure",
    "identifier",
    "framing",
    "encoding",
    "files",
];
/// Ends of such names.
const PLAIN_ENDS: &[&str] =
    &["_file", "_env", "_ms", "_seconds", "_bytes", "_dir", "_path", "_hours", "_days"];

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
        let value = match &written {
            // A plain value of a setting that is not known here: it is shown if it is no text.
            Json::Array(_) | Json::Object(_) | Json::String(_) => redacted(key, &written, &mut hides),
            _ => written,
        };
        Shown { key, value, from, hides }
    }

    /// Texts of the settings that are not shown, and values of variables of the environment that settings name: what
    /// must not stand in anything that leaves the machine.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for (key, value) in self.written().filter(|(key, _)| !VALUES.iter().any(|(known, _)| known == key)) {
            each_hidden(key, value, &mut |text| secrets.push(text.to_owned()));
            each_named(value, &mut |name, text| {
                if name == "env" || name.ends_with("_env") {
                    secrets.extend(std::env::var(text));
                } else if (name == "file" || name.ends_with("_file"))
                    && !["template", "ca", "cert"].iter().any(|kind| name.starts_with(kind))
                {
                    secrets.extend(lines_of(text));
                }
            });
        }
        for name in self.named_variables() {
            secrets.extend(std::env::var(name));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        secrets
    }
}

/// What stands in a file that holds a secret; nothing of one that cannot be read, or is too large to hold one.
fn lines_of(path: &str) -> Vec<String> {
    let mut text = String::new();
    let read =
        std::fs::metadata(path).and_then(|meta| match meta.is_file() && meta.len() <= LARGEST_SECRET {
            true => std::fs::File::open(path)?.take(LARGEST_SECRET).read_to_string(&mut text),
            false => Ok(0),
        });
    let lines = text.lines().map(|line| line.trim().to_owned());
    if read.is_ok() { lines.collect() } else { Vec::new() }
}

/// Whether the value of a member of this name may be shown.
fn is_plain(name: &str, text: &str) -> bool {
    let by_name = PLAIN.contains(&name) || PLAIN_ENDS.iter().any(|end| name.ends_with(end));
    // A key or certificate may be the thing itself instead of its place.
    by_name
        && !text.contains('\n')
        && !text.contains("-----BEGIN")
        && (!matches!(name, "key" | "cert" | "ca") || text.starts_with('/'))
}

/// Whether the value of a member of this name is a place, of which the host may be shown.
fn is_place(name: &str) -> bool {
    matches!(name, "url" | "urls" | "generator_url" | "address")
}

/// A URL or address without what may let somebody in: user, path and query.
fn place(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    if matches!(scheme, "" | "unix") && rest.starts_with('/') {
        return text.to_owned();
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let cut = if host.len() < rest.len() { format!("/{HIDDEN}") } else { String::new() };
    format!("{scheme}{host}{cut}")
}

fn redacted(name: &str, value: &Json, hides: &mut bool) -> Json {
    match value {
        Json::Object(members) => {
            let shown = members.iter().map(|(name, value)| (name.clone(), redacted(name, value, hides)));
            Json::Object(shown.collect::<Map<_, _>>())
        }
        Json::Array(members) => members.iter().map(|member| redacted(name, member, hides)).collect(),
        Json::String(text) if is_place(name) => {
            let shown = place(text);
            *hides |= shown != *text;
            shown.into()
        }
        Json::String(text) if is_plain(name, text) => text.as_str().into(),
        Json::Null | Json::Bool(_) => value.clone(),
        // A number may be one, as a pin is.
        Json::Number(_) if is_plain(name, "") => value.clone(),
        _ => {
            *hides = true;
            HIDDEN.into()
        }
    }
}

/// Calls `visit` with each text that [`redacted`] does not show, or shows a part of.
fn each_hidden(name: &str, value: &Json, visit: &mut impl FnMut(&str)) {
    match value {
        Json::Object(members) => members.iter().for_each(|(name, value)| each_hidden(name, value, visit)),
        Json::Array(members) => members.iter().for_each(|member| each_hidden(name, member, visit)),
        Json::String(text) if is_place(name) && place(text) == *text => {}
        Json::String(text) if is_place(name) => {
            visit(text);
            // Parts of it may stand elsewhere: the path, the query, user and password.
            let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            visit(path);
            let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
            user.split(':').chain(path.split(['/', '?', '&', '='])).for_each(visit);
        }
        Json::String(text) if !is_plain(name, text) => {
            visit(text);
            // "Bearer x": what stands behind the word is enough for whoever finds it.
            text.split_whitespace().filter(|part| part.len() >= 8).for_each(&mut *visit);
            text.lines().for_each(visit);
        }
        Json::Number(number) if !is_plain(name, "") => visit(&number.to_string()),
        _ => {}
    }
}

fn each_named(value: &Json, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Json::Object(members) => {
            for (name, value) in members {
                each_text_here(value, &mut |text| visit(name, text));
                each_named(value, visit);
            }
        }
        Json::Array(members) => members.iter().for_each(|member| each_named(member, visit)),
        _ => {}
    }
}

fn each_text_here(value: &Json, visit: &mut impl FnMut(&str)) {
    if value.is_string() {
        each_text(value, visit);
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
mod tests;
