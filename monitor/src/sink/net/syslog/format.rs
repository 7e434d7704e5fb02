//! One message by RFC 5424.

use std::borrow::Cow;

use super::super::alert::{Alert, severity};
use super::super::setting;
use super::{Message, SyslogConfig};
use crate::alert::Shaper;
use crate::sink::{OutputError, Record};

/// Writes messages.
pub(super) struct Formatter {
    facility: u8,
    app_name: String,
    sd_id: String,
    message: Message,
    shaper: Shaper,
    bom: bool,
    process: u32,
}

/// What stands in front of the structured data.
pub(super) struct Header<'a> {
    pub(super) facility: u8,
    pub(super) severity: u8,
    pub(super) time: &'a str,
    pub(super) host: &'a str,
    pub(super) app_name: &'a str,
    pub(super) process: &'a str,
    pub(super) message_id: &'a str,
}

impl Header<'_> {
    /// Appends the header with its last blank.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.push(b'<');
        out.extend_from_slice(digits.format(self.facility * 8 + self.severity).as_bytes());
        out.extend_from_slice(b">1 ");
        push_time(self.time, out);
        for (word, most) in
            [(self.host, 255), (self.app_name, 48), (self.process, 128), (self.message_id, 32)]
        {
            out.push(b' ');
            push_word(word, most, out);
        }
        out.push(b' ');
    }
}

/// RFC 3339 with at most six digits: the protocol knows no nanoseconds.
fn push_time(time: &str, out: &mut Vec<u8>) {
    let Some((seconds, rest)) = time.split_once('.') else { return out.extend_from_slice(time.as_bytes()) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at(digits);
    out.extend_from_slice(seconds.as_bytes());
    out.push(b'.');
    out.extend_from_slice(fraction.get(..6).unwrap_or(fraction).as_bytes());
    out.extend_from_slice(zone.as_bytes());
}

/// Printable ASCII without blanks; anything else is left out, and nothing is a dash.
fn push_word(word: &str, most: usize, out: &mut Vec<u8>) {
    let before = out.len();
    out.extend(word.bytes().filter(u8::is_ascii_graphic).take(most));
    if out.len() == before {
        out.push(b'-');
    }
}

/// Appends an element of structured data.
pub(super) fn push_element<'a>(
    id: &str,
    values: impl IntoIterator<Item = (&'a str, Option<Cow<'a, str>>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'[');
    out.extend_from_slice(id.as_bytes());
    for (name, value) in values {
        let Some(value) = value else { continue };
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        for byte in value.bytes() {
            if matches!(byte, b'"' | b'\\' | b']') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.push(b']');
}

impl Formatter {
    pub(super) fn new(config: &SyslogConfig) -> Result<Self, OutputError> {
        let SyslogConfig { app_name, sd_id, .. } = config;
        let printable = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !printable(app_name, 48) {
            return Err(setting("app_name", "it has 1 to 48 printable characters, no blank"));
        }
        let (name, number) = sd_id.split_once('@').unwrap_or_default();
        let dotted = !number.is_empty() && number.split('.').all(|part| part.parse::<u32>().is_ok());
        if !printable(sd_id, 32) || name.is_empty() || name.contains(['=', ']', '"']) || !dotted {
            let reason = "it is a name, `@` and the number of an enterprise, at most 32 characters";
            return Err(setting("sd_id", reason));
        }
        Ok(Self {
            facility: config.facility as u8,
            app_name: app_name.clone(),
            sd_id: sd_id.clone(),
            message: config.message,
            shaper: Shaper::new(config.shape),
            bom: config.bom,
            process: std::process::id(),
        })
    }

    /// Appends the message for an alert.
    ///
    /// # Errors
    /// The line is not ours.
    pub(super) fn push(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let alert = Alert::read(record.line)?;
        let mut digits = itoa::Buffer::new();
        let header = Header {
            facility: self.facility,
            severity: severity(record.priority),
            time: &alert.time,
            host: &alert.hostname,
            app_name: &self.app_name,
            process: digits.format(self.process),
            message_id: &alert.rule_id,
        };
        header.push(out);
        push_element(
            &self.sd_id,
            [
                ("rule", Some(Cow::Borrowed(&*alert.rule))),
                ("rule_id", Some(Cow::Borrowed(&*alert.rule_id))),
                ("priority", Some(Cow::Borrowed(record.priority.as_str()))),
                ("container_id", alert.text("container.id")),
                ("container_name", alert.text("container.name")),
                ("pod", alert.text("k8s.pod.name")),
                ("namespace", alert.text("k8s.ns.name")),
                ("verdict", alert.text("evt.verdict")),
                ("count", alert.text("group.count")),
                ("first", alert.text("group.first")),
                ("last", alert.text("group.last")),
            ],
            out,
        );
        out.push(b' ');
        if self.bom {
            out.extend_from_slice(b"\xef\xbb\xbf");
        }
        match self.message {
            Message::Json => self.shaper.push(record.line, out),
            Message::Text => crate::alert::push_visible(&alert.sentence(), out),
        }
        Ok(())
    }
}
