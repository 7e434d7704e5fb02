//! What a summary tells of the alerts that were held together.

use std::io::Write as _;

use serde_json::{Value as Json, json};

use crate::alert::WallClock;

/// How many there were.
const COUNT: &str = "group.count";
/// When the first of them was.
const FIRST: &str = "group.first";
/// When the last of them was.
const LAST: &str = "group.last";

/// Alerts that were held back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// How many.
    pub count: u64,
    /// When the first of their events happened: nanoseconds since 1970 UTC.
    pub first_unix_ns: i64,
    /// When the last of them happened.
    pub last_unix_ns: i64,
}

impl Grouped {
    /// A single one.
    pub fn one(unix_ns: i64) -> Self {
        Grouped { count: 1, first_unix_ns: unix_ns, last_unix_ns: unix_ns }
    }

    /// Adds one.
    pub fn add(&mut self, unix_ns: i64) {
        self.count = self.count.saturating_add(1);
        self.first_unix_ns = self.first_unix_ns.min(unix_ns);
        self.last_unix_ns = self.last_unix_ns.max(unix_ns);
    }

    /// Appends members of `output_fields`, each with a comma before it.
    pub(super) fn push_json(self, clock: &mut WallClock, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, ",\"{COUNT}\":{},\"{FIRST}\":\"", self.count);
        clock.push_rfc3339(self.first_unix_ns, out);
        let _ = write!(out, "\",\"{LAST}\":\"");
        clock.push_rfc3339(self.last_unix_ns, out);
        out.push(b'"');
    }

    /// Appends what a text line shows.
    pub(super) fn push_text(self, clock: &mut WallClock, out: &mut Vec<u8>) {
        let _ = write!(out, " {COUNT}={} {FIRST}=", self.count);
        clock.push_time_of_day(self.first_unix_ns, out);
        let _ = write!(out, " {LAST}=");
        clock.push_time_of_day(self.last_unix_ns, out);
    }
}

/// The members of `output_fields` in the schema.
pub(super) fn schema() -> [(String, Json); 3] {
    let time = |what: &str| {
        json!({
            "description": format!("Summaries of alerts that were held together: when the {what} of them happened; RFC 3339, UTC."),
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$",
        })
    };
    let count = json!({
        "description": "Summaries of alerts that were held together: how many there were. The line shows the first of them.",
        "type": "integer",
        "minimum": 1,
    });
    [(COUNT.to_owned(), count), (FIRST.to_owned(), time("first")), (LAST.to_owned(), time("last"))]
}
