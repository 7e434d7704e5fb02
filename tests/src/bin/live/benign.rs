//! The record of what a quiet host raises under the shipped rules, from which docs/benign.md is made.
//!
//! Lines of JSON. The first tells of the run: `kernel` (`uname -r`), `mode`, and `rules`, each with `id` and
//! `priority`. Each further one tells of a part: `what` was done, `date`, `engine` (its version, unless nothing was done
//! by one), `containers` that were made, `events` that came from the kernel (canaries left out), and how many `alerts`
//! each rule raised, by its id.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};
use tests::docker::Engine;
use tests::harness::Settings;
use tests::harness::alerts::Alert;
use tests::harness::http::Metrics;
use tests::matrix::record::Machine;

/// A part of what a quiet host does.
pub(crate) struct Part<'a> {
    /// For people.
    pub(crate) what: &'static str,
    /// How many were made.
    pub(crate) containers: u64,
    /// By which, if by any.
    pub(crate) engine: Option<&'a Engine>,
}

/// Begins the record, if one is wanted.
///
/// # Errors
/// A text for people: the rules cannot be listed, or the file cannot be written.
pub(crate) fn begin(settings: &Settings, only_lists: bool) -> Result<(), String> {
    let Some(path) = settings.benign.as_ref().filter(|_| !only_lists) else { return Ok(()) };
    let output = Command::new(&settings.ringfence)
        .args(["rules", "list", "-o", "json", "--rules"])
        .arg(&settings.rules)
        .output()
        .map_err(|error| format!("{}: {error}", settings.ringfence.display()))?;
    let listed: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`rules list`: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let rules: Vec<Value> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["enabled"] == true)
        .map(|rule| json!({"id": rule["id"], "priority": rule["priority"]}))
        .collect();
    if rules.is_empty() {
        return Err("`rules list` names no rule".to_owned());
    }
    let machine = Machine::here(&settings.attach, settings.guest);
    let line = json!({"kernel": machine.kernel, "mode": machine.mode, "rules": rules});
    fs::write(path, format!("{line}\n")).map_err(|error| format!("{}: {error}", path.display()))
}

/// Adds what came of a part, if a record is wanted.
///
/// # Errors
/// A text for people.
pub(crate) fn record(
    settings: &Settings,
    part: &Part,
    metrics: &Metrics,
    came: &[&Alert],
) -> Result<(), String> {
    let Some(path) = &settings.benign else { return Ok(()) };
    let mut alerts = BTreeMap::new();
    // What Ringfence tells of itself is no rule's.
    for alert in came.iter().filter(|alert| alert.get("source").as_deref() == Some("syscall")) {
        *alerts.entry(alert.get("rule_id").ok_or("an alert without rule_id")?).or_insert(0_u64) += 1;
    }
    let received = |labels: &[(&str, &str)]| metrics.sum("ringfence_events_received_total", labels);
    let all = received(&[]).ok_or("ringfence_events_received_total is missing")?;
    let events = all - received(&[("kind", "canary")]).unwrap_or_default();
    let version = |engine: &Engine| engine.client(&["version", "--format", "{{.Server.Version}}"]);
    let engine = part.engine.map(version).transpose().map_err(|error| error.to_string())?;
    let line = json!({
        "what": part.what, "date": today(), "engine": engine, "containers": part.containers,
        "events": events as u64, "alerts": alerts,
    });
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| format!("{}: {error}", path.display()))
}

/// The date in UTC, as `2026-01-31`.
fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() as libc::time_t;
    // SAFETY: a tm is numbers and a pointer that may be null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live until the call returns.
    unsafe { libc::gmtime_r(&raw const seconds, &raw mut parts) };
    format!("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
}
