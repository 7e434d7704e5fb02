//! What an alert tells of the threshold that its event reached.

use std::io::Write as _;

use serde_json::{Value as Json, json};

use crate::alert::WallClock;
use crate::threshold::Reached;

/// How many events (or different values) it took.
const COUNT: &str = "threshold.count";
/// When the first of them was.
const SINCE: &str = "threshold.since";

/// A threshold that was reached, with wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// How many events, or different values, were counted.
    pub count: u32,
    /// When the first of them happened: nanoseconds since 1970 UTC.
    pub since_unix_ns: i64,
}

impl Crossed {
    /// From the event that reached it, which happened at `boot_ns` since boot and `unix_ns` since 1970.
    pub fn new(reached: Reached, boot_ns: u64, unix_ns: i64) -> Self {
        let before = i128::from(boot_ns) - i128::from(reached.since_boot_ns);
        let since = i128::from(unix_ns) - before;
        Crossed { count: reached.count, since_unix_ns: since.clamp(i64::MIN.into(), i64::MAX.into()) as i64 }
    }

    /// Appends members of `output_fields`, each with a comma before it.
    pub(super) fn push_json(self, clock: &mut WallClock, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, ",\"{COUNT}\":{},\"{SINCE}\":\"", self.count);
        clock.push_rfc3339(self.since_unix_ns, out);
        out.push(b'"');
    }

    /// Appends what a text line shows.
    pub(super) fn push_text(self, clock: &mut WallClock, out: &mut Vec<u8>) {
        let _ = write!(out, " {COUNT}={} {SINCE}=", self.count);
        clock.push_time_of_day(self.since_unix_ns, out);
    }
}

/// The members of `output_fields` in the schema.
pub(super) fn schema() -> [(String, Json); 2] {
    [
        (
            COUNT.to_owned(),
            json!({
                "description": "Rules with a threshold: how many events, or with `distinct` different values, were counted.",
                "type": "integer",
                "minimum": 2,
            }),
        ),
        (
            SINCE.to_owned(),
            json!({
                "description": "Rules with a threshold: when the first of them happened; RFC 3339, UTC.",
                "type": "string",
                "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$",
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_lies_before_the_event_as_far_as_on_the_boot_clock() {
        let reached = Reached { count: 3, since_boot_ns: 400 };
        assert_eq!(Crossed::new(reached, 1_000, 5_000), Crossed { count: 3, since_unix_ns: 4_400 });
        assert_eq!(Crossed::new(Reached { count: 3, since_boot_ns: 0 }, u64::MAX, 0).since_unix_ns, i64::MIN);
    }
}
