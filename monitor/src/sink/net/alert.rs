//! The canonical line, read back.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::rules::Priority;

/// What a summary of a group has besides the fields of its first alert.
pub(super) const GROUP: [&str; 3] = ["group.count", "group.first", "group.last"];

/// An alert as its canonical line has it. What is not needed here is left out.
#[derive(Debug, Deserialize)]
pub(super) struct Alert<'a> {
    /// RFC 3339, UTC, nine digits.
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) rule: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) rule_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) output: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) hostname: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) attack: Vec<String>,
    pub(super) output_fields: Map<String, Value>,
}

impl<'a> Alert<'a> {
    /// Reads a line. One that is not ours cannot be delivered by anybody.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("the alert is no line of ours: {error}"))
    }

    /// The text of a field; none if the event does not have it.
    pub(super) fn text(&self, field: &str) -> Option<Cow<'_, str>> {
        self.output_fields.get(field).and_then(text)
    }

    /// How many alerts a summary stands for, and when the first and the last of them were; none for a single alert.
    pub(super) fn group(&self) -> Option<[Cow<'_, str>; 3]> {
        let [count, first, last] = GROUP.map(|field| self.text(field));
        Some([count?, first?, last?])
    }

    /// The rule's output for people, with what a summary has to add.
    pub(super) fn sentence(&self) -> Cow<'_, str> {
        match self.group() {
            None => Cow::Borrowed(&self.output),
            Some([count, first, last]) => {
                Cow::Owned(format!("{} (for {count} alike, from {first} to {last})", self.output))
            }
        }
    }

    /// The container's id, unless the event is the host's or no process's.
    pub(super) fn container_id(&self) -> Option<&str> {
        let id = self.output_fields.get("container.id")?.as_str()?;
        (id != "host" && id != "unknown").then_some(id)
    }
}

/// A value as templates print it; none for null.
pub(super) fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Array(members) => {
            let members: Vec<_> = members.iter().filter_map(text).collect();
            (!members.is_empty()).then(|| Cow::Owned(members.join(" ")))
        }
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// The number that syslog, and journald after it, have for a priority; they are the same eight.
pub(super) const fn severity(priority: Priority) -> u8 {
    match priority {
        Priority::Emergency => 0,
        Priority::Alert => 1,
        Priority::Critical => 2,
        Priority::Error => 3,
        Priority::Warning => 4,
        Priority::Notice => 5,
        Priority::Informational => 6,
        Priority::Debug => 7,
    }
}

/// Nanoseconds since 1970 of a canonical time.
pub(super) fn unix_nanos(time: &str) -> Option<u64> {
    let since = humantime::parse_rfc3339(time).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers() {
        // `date -u -d '2026-11-23 19:45:46' +%s`
        assert_eq!(unix_nanos("2026-11-23T19:45:46.123456789Z"), Some(1_795_463_146_123_456_789));
        assert_eq!(unix_nanos("yesterday"), None);
    }

    #[test]
    fn severities_are_those_of_rfc_5424() {
        let numbers: Vec<u8> = Priority::ALL.iter().rev().map(|priority| severity(*priority)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_summary_says_for_how_many_it_stands() {
        let line = crate::sink::net::testing::summary();
        let alert = Alert::read(line.as_bytes()).unwrap();
        let [count, first, last] = alert.group().unwrap();
        assert_eq!(
            (&*count, &*first, &*last),
            ("12", "2026-11-23T19:45:46.123456789Z", "2026-11-23T19:46:40.000000000Z")
        );
        let said = " (pid 4711) (for 12 alike, from 2026-11-23T19:45:46.123456789Z to 2026-11-23T19:46:40.000000000Z)";
        assert!(alert.sentence().ends_with(said), "{}", alert.sentence());
        let line = crate::sink::net::testing::line();
        let alert = Alert::read(line.as_bytes()).unwrap();
        assert_eq!((alert.sentence(), alert.group()), (alert.output.clone(), None));
    }

    #[test]
    fn what_is_no_line_of_ours_is_refused() {
        assert!(Alert::read(b"{}").unwrap_err().contains("no line of ours"));
        let line = crate::sink::net::testing::line();
        let alert = Alert::read(line.as_bytes()).unwrap();
        assert_eq!(alert.container_id(), Some("3f1c0a9b7e21"));
        assert_eq!(alert.text("evt.flags").as_deref(), Some("CLONE_NEWUSER CLONE_NEWNS"));
        assert_eq!(alert.text("proc.pid").as_deref(), Some("4711"));
        assert_eq!(alert.text("evt.refused_by"), None);
    }
}
