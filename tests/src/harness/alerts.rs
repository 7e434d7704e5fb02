//! Alerts as they arrive: waited for, compared with an expectation, and shown when nothing fits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One alert line.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The line as parsed.
    pub json: Value,
    /// When it was read.
    pub arrived: Instant,
}

impl Alert {
    /// The text of a key: `rule` and `priority` stand at the top, all others in `output_fields`. Absent and
    /// null values give `None`; the members of a list are joined by blanks, as templates print them.
    pub fn get(&self, key: &str) -> Option<String> {
        let holder = if key.contains('.') { self.json.get("output_fields")? } else { &self.json };
        match holder.get(key)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Array(members) => Some(
                members
                    .iter()
                    .map(|member| member.as_str().map_or_else(|| member.to_string(), str::to_owned))
                    .collect::<Vec<String>>()
                    .join(" "),
            ),
            other => Some(other.to_string()),
        }
    }
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    /// This text, or a number that prints so.
    Be(String),
    /// One of these.
    BeOneOf(Vec<String>),
    /// Missing, null or `<NA>`.
    BeAbsent,
}

impl Must {
    fn holds(&self, found: Option<&str>) -> bool {
        match self {
            Must::Be(text) => found == Some(text.as_str()),
            Must::BeOneOf(texts) => found.is_some_and(|found| texts.iter().any(|text| text == found)),
            Must::BeAbsent => matches!(found, None | Some("" | "<NA>")),
        }
    }
}

impl std::fmt::Display for Must {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Must::Be(text) => f.write_str(text),
            Must::BeOneOf(texts) => f.write_str(&texts.join(" or ")),
            Must::BeAbsent => f.write_str("(absent)"),
        }
    }
}

/// What an alert must look like.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    fields: Vec<(&'static str, Must)>,
}

impl Expectation {
    /// Nothing is asked yet.
    pub fn new() -> Expectation {
        Expectation::default()
    }

    /// The field must have this value.
    #[must_use]
    pub fn is(mut self, key: &'static str, value: impl ToString) -> Expectation {
        self.fields.push((key, Must::Be(value.to_string())));
        self
    }

    /// The field must meet this.
    #[must_use]
    pub fn must(mut self, key: &'static str, must: Must) -> Expectation {
        self.fields.push((key, must));
        self
    }

    /// The fields that do not fit.
    fn misfits<'a>(&'a self, alert: &Alert) -> Vec<(&'static str, &'a Must, Option<String>)> {
        self.fields
            .iter()
            .map(|(key, must)| (*key, must, alert.get(key)))
            .filter(|(_, must, found)| !must.holds(found.as_deref()))
            .collect()
    }

    /// Whether an alert fits in every field.
    pub fn fits(&self, alert: &Alert) -> bool {
        self.misfits(alert).is_empty()
    }

    /// The alerts that came nearest, with the fields that did not fit.
    pub fn explain(&self, alerts: &[Alert]) -> String {
        let wanted: Vec<String> = self.fields.iter().map(|(key, must)| format!("{key}={must}")).collect();
        let mut text = format!("no alert fits {}\n", wanted.join(" "));
        let mut nearest: Vec<_> = alerts.iter().map(|alert| (self.misfits(alert), alert)).collect();
        nearest.sort_by_key(|(misfits, _)| misfits.len());
        if nearest.is_empty() {
            text.push_str("  (there were no alerts at all)\n");
        }
        for (misfits, alert) in nearest.iter().take(3) {
            let output = alert.get("output").unwrap_or_default();
            let short: String = output.chars().take(160).collect();
            text.push_str(&format!("  near miss, {} field(s) differ: {short}\n", misfits.len()));
            for (key, must, found) in misfits {
                let found = found.as_deref().unwrap_or("(absent)");
                text.push_str(&format!("    {key:<18} expected {must}, found {found}\n"));
            }
        }
        text
    }
}

/// The alerts of one daemon so far, and faults of lines that are no proper alerts.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    alerts: Vec<Alert>,
    faults: Vec<String>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it looked at alerts has not harmed them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an alert.
    pub fn push(&self, alert: Alert) {
        self.lock().alerts.push(alert);
        self.changed.notify_all();
    }

    /// Notes a line that is not as it must be.
    pub fn fault(&self, fault: String) {
        let mut state = self.lock();
        if state.faults.len() < 20 {
            state.faults.push(fault);
        }
    }

    /// Says that no more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// What was wrong with lines so far.
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// All alerts so far.
    pub fn all(&self) -> Vec<Alert> {
        self.lock().alerts.clone()
    }

    /// The alerts so far that fit.
    pub fn fitting(&self, expectation: &Expectation) -> Vec<Alert> {
        self.lock().alerts.iter().filter(|alert| expectation.fits(alert)).cloned().collect()
    }

    /// How many alerts so far fit.
    pub fn count(&self, expectation: &Expectation) -> usize {
        self.lock().alerts.iter().filter(|alert| expectation.fits(alert)).count()
    }

    /// Waits until an alert fits.
    ///
    /// # Errors
    /// When `patience` is over or the output has ended: the nearest misses.
    pub fn expect(&self, expectation: &Expectation, patience: Duration) -> Result<Alert, String> {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        let mut seen = 0;
        loop {
            if let Some(alert) = state.alerts[seen..].iter().find(|alert| expectation.fits(alert)) {
                return Ok(alert.clone());
            }
            seen = state.alerts.len();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                return Err(expectation.explain(&state.alerts));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alert(kind: &str, pid: u32) -> Alert {
        let fields = json!({"evt.type": kind, "proc.pid": pid, "evt.refused_by": null});
        Alert { json: json!({"rule": "r", "output": "o", "output_fields": fields}), arrived: Instant::now() }
    }

    #[test]
    fn an_expectation_fits_only_when_every_field_does() {
        let wanted = Expectation::new()
            .is("rule", "r")
            .is("evt.type", "setns")
            .is("proc.pid", 7)
            .must("evt.refused_by", Must::BeAbsent);
        assert!(wanted.fits(&alert("setns", 7)));
        assert!(!wanted.fits(&alert("setns", 8)));
        assert!(!wanted.clone().is("evt.missing", 1).fits(&alert("setns", 7)));
        assert!(wanted.must("evt.type", Must::BeOneOf(vec!["setns".into()])).fits(&alert("setns", 7)));
    }

    #[test]
    fn a_miss_names_the_fields_of_the_nearest_alert() {
        let inbox = Inbox::default();
        inbox.push(alert("clone", 1));
        inbox.push(alert("setns", 8));
        let wanted = Expectation::new().is("evt.type", "setns").is("proc.pid", 7);
        let miss = inbox.expect(&wanted, Duration::ZERO).unwrap_err();
        let first = miss.lines().nth(2).unwrap_or_default();
        assert!(first.contains("proc.pid") && first.contains("expected 7, found 8"), "{miss}");
        inbox.push(alert("setns", 7));
        assert!(inbox.expect(&wanted, Duration::ZERO).is_ok());
    }
}
