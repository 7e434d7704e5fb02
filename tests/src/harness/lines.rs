//! Lines of a daemon's standard output: read as fast as they come, held against the schema, handed to the inbox.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc;
use std::time::Instant;

use jsonschema::Validator;
use serde_json::Value;

use super::alerts::{Alert, Inbox, first_control};

pub(super) fn read_schema(path: &std::path::Path) -> Result<Validator, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let json = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    jsonschema::validator_for(&json).map_err(|error| format!("{}: {error}", path.display()))
}

/// Takes lines off the pipe as fast as they come, so that the suite is never the reader that stalls.
pub(super) fn read_lines(out: ChildStdout, lines: &mpsc::Sender<(Instant, Vec<u8>)>) {
    for line in BufReader::with_capacity(1 << 20, out).split(b'\n').map_while(Result::ok) {
        if lines.send((Instant::now(), line)).is_err() {
            return;
        }
    }
}

/// Alerts of one rule that are held against the schema, natively and in a guest, which takes milliseconds for each.
pub(super) const CHECKED: u32 = 500;
pub(super) const CHECKED_IN_GUESTS: u32 = 25;

/// The schema of alerts, and how many of each rule are held against it.
pub(super) struct Form {
    pub(super) schema: Validator,
    pub(super) checked: u32,
}

pub(super) fn judge_lines(lines: &mpsc::Receiver<(Instant, Vec<u8>)>, inbox: &Inbox, form: Option<&Form>) {
    let mut checked = HashMap::new();
    for (arrived, line) in lines {
        if let Some(control) = first_control(&String::from_utf8_lossy(&line)) {
            inbox.fault(format!("{control:?} in an alert line: {}", line.escape_ascii()));
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(json) => {
                // One alert of a rule has the form of the next: some hundred of each show it.
                let seen = checked.entry(json["rule"].to_string()).or_insert(0_u32);
                *seen += 1;
                if let Some(form) = form.filter(|form| *seen <= form.checked) {
                    for error in form.schema.iter_errors(&json) {
                        let at = error.instance_path().to_string();
                        inbox.fault(format!("alert line against the schema, at `{at}`: {error}\n  {json}"));
                    }
                }
                inbox.push(Alert { json, arrived });
            }
            Err(error) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                inbox.fault(format!("standard output has a line that is no JSON ({error}): {line}"));
            }
        }
    }
    inbox.close();
}
