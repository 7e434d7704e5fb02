//! An event as one line of JSON, for those who watch live: when it happened, and every field that it has.
//!
//! It has the form of an alert without a rule, so that `ringfence rules explain` and `rules eval` read it as they read
//! alerts.

use crate::alert::WallClock;
use crate::alert::json::{push_string, push_value};
use crate::fields::Enumerate;
use crate::rules::bracketed_text;

/// Appends the event, `{"time":"…","output_fields":{…}}`, and a line feed.
pub fn write_event<E: Enumerate>(event: &E, unix_ns: i64, clock: &mut WallClock, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.push_rfc3339(unix_ns, out);
    out.extend_from_slice(b"\",\"output_fields\":{");
    let mut first = true;
    event.each(&mut |key, value| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        let spec = key.field.spec();
        match key.arg_text() {
            None => push_string(spec.name, out),
            Some(arg) => push_string(&format!("{}[{}]", spec.name, bracketed_text(&arg)), out),
        }
        out.push(b':');
        push_value(spec.ty, &value, out);
    });
    out.extend_from_slice(b"}}\n");
}
