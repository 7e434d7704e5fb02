//! Alerts as they arrive: waited for, compared with an expectation, and shown when nothing fits.

use std::borrow::Cow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attempt::arguments;

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
        self.text(key).map(Cow::into_owned)
    }

    fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        let holder = if key.contains('.') { self.json.get("output_fields")? } else { &self.json };
        match holder.get(key)? {
            Value::Null => None,
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Array(members) => {
                let texts = members
                    .iter()
                    .map(|member| member.as_str().map_or_else(|| member.to_string(), str::to_owned));
                Some(Cow::Owned(texts.collect::<Vec<String>>().join(" ")))
            }
            other => Some(Cow::Owned(other.to_string())),
        }
    }
}

/// The bytes that a text of an event stands for: `\\` is a backslash, `\xHH` a byte that was not UTF-8, all else
/// is itself.
///
/// # Errors
/// A backslash with anything else behind it: no such text comes from an event.
pub fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        // Two backslashes have nothing between them.
        let rest = if part.is_empty() {
            bytes.push(b'\\');
            parts.next().ok_or("a lone backslash at the end")?
        } else {
            let digits = part.strip_prefix('x').and_then(|hex| hex.get(..2));
            let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(byte.ok_or(format!("an unknown escape: \\{part}"))?);
            &part[3..]
        };
        bytes.extend_from_slice(rest.as_bytes());
    }
    Ok(bytes)
}

/// The first character that a terminal obeys, that ends a line, or that changes the direction of writing.
pub fn first_control(text: &str) -> Option<char> {
    text.chars().find(|c| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns
    })
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    /// This text, or a number that prints so.
    Be(String),
    /// One of these.
    BeOneOf(Vec<String>),
    /// A text that fits one of these patterns (`*` is anything); an empty pattern is fitted by a missing field, too.
    BeLike(Vec<String>),
    /// Missing, null or `<NA>`.
    BeAbsent,
}

impl Must {
    fn holds(&self, found: Option<&str>) -> bool {
        match self {
            Must::Be(text) => found == Some(text.as_str()),
            Must::BeOneOf(texts) => found.is_some_and(|found| texts.iter().any(|text| text == found)),
            Must::BeLike(patterns) => {
                patterns.iter().any(|pattern| arguments::fits(pattern, found.unwrap_or_default()))
            }
            Must::BeAbsent => matches!(found, None | Some("" | "<NA>")),
        }
    }
}

impl std::fmt::Display for Must {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Must::Be(text) => f.write_str(text),
            Must::BeOneOf(texts) | Must::BeLike(texts) => f.write_str(&texts.join(" or ")),
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
        self.fields.iter().all(|(key, must)| must.holds(alert.text(key).as_deref()))
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

/// The alerts of one daemon so far, and faults of lines that are no proper alerts. Alerts of rules that count first are
/// kept apart: they come on top, so whoever counts what one attempt raises must not meet those of all attempts.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

/// Far above what any case of the suite makes.
const MOST_ALERTS: usize = 200_000;

#[derive(Debug, Default)]
struct State {
    alerts: Vec<Alert>,
    crossed: Vec<Alert>,
    full: bool,
    faults: Vec<String>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it looked at alerts has not harmed them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an alert. Beyond a bound it is a fault instead: the suite must not eat the machine's memory.
    pub fn push(&self, alert: Alert) {
        let mut state = self.lock();
        if state.alerts.len() + state.crossed.len() < MOST_ALERTS {
            let of_many = alert.text("threshold.count").is_some();
            if of_many { &mut state.crossed } else { &mut state.alerts }.push(alert);
        } else if !state.full {
            state.full = true;
            state.faults.push(format!("more than {MOST_ALERTS} alerts came; the rest was not looked at"));
        }
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

    /// The alerts so far by which rules told that their threshold was reached; they are in none of the others' answers.
    pub fn crossed(&self) -> Vec<Alert> {
        self.lock().crossed.clone()
    }

    /// All alerts so far, but for [`Inbox::crossed`].
    pub fn all(&self) -> Vec<Alert> {
        self.lock().alerts.clone()
    }

    /// Forgets the alerts so far that fit.
    pub fn forget(&self, expectation: &Expectation) {
        self.lock().alerts.retain(|alert| !expectation.fits(alert));
    }

    /// The alerts so far that fit.
    pub fn fitting(&self, expectation: &Expectation) -> Vec<Alert> {
        self.lock().alerts.iter().filter(|alert| expectation.fits(alert)).cloned().collect()
    }

    /// Shows the alerts so far that fit, one by one.
    pub fn each(&self, expectation: &Expectation, show: impl FnMut(&Alert)) {
        self.lock().alerts.iter().filter(|alert| expectation.fits(alert)).for_each(show);
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
            // Fewer than before: some were forgotten.
            seen = seen.min(state.alerts.len());
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
    fn escaped_bytes_are_read_back() {
        for (text, bytes) in [
            ("plain é", "plain é".as_bytes()),
            ("\\\\", b"\\"),
            ("\\\\x41\\x41", b"\\x41A"),
            ("a\\xffb\\\\\\\\c", b"a\xffb\\\\c"),
            ("\n\0", b"\n\0"),
        ] {
            assert_eq!(bytes_of(text).as_deref(), Ok(bytes), "{text:?}");
        }
        for text in ["\\", "\\n", "\\x4", "\\xé", "\\\\\\"] {
            assert!(bytes_of(text).is_err(), "{text:?}");
        }
        assert_eq!(first_control("é “x” ؀"), None);
        for control in ["\n", "\x1b", "\u{9b}", "\u{202e}", "\u{2028}", "\x7f"] {
            assert_eq!(first_control(control), control.chars().next());
        }
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

    #[test]
    fn alerts_of_thresholds_are_kept_apart() {
        let inbox = Inbox::default();
        let mut of_many = alert("setns", 7);
        of_many.json["output_fields"]["threshold.count"] = json!(3);
        inbox.push(of_many);
        inbox.push(alert("setns", 7));
        let any = Expectation::new();
        assert_eq!((inbox.count(&any), inbox.all().len(), inbox.crossed().len()), (1, 1, 1));
        assert_eq!(inbox.crossed()[0].get("threshold.count").as_deref(), Some("3"));
    }
}
