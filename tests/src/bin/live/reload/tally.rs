//! Alerts of a flood, counted as they come: half a million lines are too many to be kept.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, PipeReader};

/// What came.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Alerts by rule id and generation, those of Ringfence about itself left out.
    pub(super) by_rule: HashMap<(String, u64), u64>,
    /// Alerts by process.
    pub(super) by_pid: HashMap<u32, u64>,
    /// Alerts whose generation is older than that of the one before.
    pub(super) went_back: u64,
    /// Alerts of the event that the one before was of: same time, same process.
    pub(super) repeated: u64,
    /// Lines that were not understood; the first of them.
    pub(super) garbled: Option<String>,
    last: Option<Seen>,
}

/// What of an alert is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    time: Vec<u8>,
    pid: u32,
    rule: String,
    generation: u64,
}

impl Tally {
    /// Counts all alerts until the daemon's output ends; `share` gets the tally now and then.
    pub(super) fn read(output: PipeReader, mut share: impl FnMut(u64)) -> Tally {
        let mut lines = BufReader::with_capacity(1 << 20, output);
        let (mut tally, mut line, mut total) = (Tally::default(), Vec::new(), 0);
        while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            if tally.count(&line) {
                total += 1;
                share(total);
            }
            line.clear();
        }
        tally
    }

    /// Counts one line; whether it is an alert of a rule.
    fn count(&mut self, line: &[u8]) -> bool {
        let Some(seen) = understand(line) else {
            self.garbled.get_or_insert_with(|| String::from_utf8_lossy(line).into_owned());
            return false;
        };
        if seen.rule.starts_with("ringfence-") {
            return false;
        }
        *self.by_rule.entry((seen.rule.clone(), seen.generation)).or_default() += 1;
        *self.by_pid.entry(seen.pid).or_default() += 1;
        if let Some(last) = &self.last {
            self.went_back += u64::from(last.generation > seen.generation);
            self.repeated += u64::from((&last.time, last.pid) == (&seen.time, seen.pid));
        }
        self.last = Some(seen);
        true
    }
}

/// Finds the four values by their keys: parsing each line whole would take the time that the daemon needs.
fn understand(line: &[u8]) -> Option<Seen> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix("}\n")?;
    let (text, generation) = text.rsplit_once(",\"rules_generation\":")?;
    let (text, rule) = text.rsplit_once(",\"rule_id\":\"")?;
    let (rule, _) = rule.split_once('"')?;
    let time = text.strip_prefix("{\"time\":\"")?.split_once('"')?.0;
    let (_, pid) = text.split_once("\"proc.vpid\":").or_else(|| text.split_once("\"proc.pid\":"))?;
    let pid = pid.split([',', '}']).next()?;
    Some(Seen {
        time: time.as_bytes().to_vec(),
        // Alerts of Ringfence about itself have null.
        pid: pid.parse().unwrap_or_default(),
        rule: rule.to_owned(),
        generation: generation.parse().ok()?,
    })
}
