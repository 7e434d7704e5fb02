//! Events from files for `rules eval` and `rules explain`, and how values are shown.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value as Json;

use super::visible;
use crate::cli::{Failure, emit};
use crate::fields::Value;
use crate::rules::{MAX_EVENT_BYTES, Rule, Sample};

/// `rules eval`: whether an expression holds for an event.
pub(in crate::cli) fn eval(rules: &[PathBuf], expression: &str, event: &Path) -> Result<ExitCode, Failure> {
    let rule =
        Rule::from_expression(rules, expression).map_err(|error| Failure::from(error).found_wrong())?;
    let sample = read(event)?;
    emit(if rule.holds(&sample.values) { "true\n" } else { "false\n" })?;
    Ok(ExitCode::SUCCESS)
}

/// The event of a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Sample, Failure> {
    let (name, bytes) = if path == "-" {
        ("standard input".to_owned(), take(io::stdin().lock()))
    } else {
        (path.display().to_string(), File::open(path).and_then(take))
    };
    let cannot = |cause: &dyn std::fmt::Display| {
        Failure::environment(format_args!("cannot read the event from {}: {cause}", visible(&name)))
    };
    let bytes = bytes.map_err(|error| cannot(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot(&"it is not UTF-8").found_wrong())?;
    Sample::parse(&name, text).map_err(|error| Failure::from(error).found_wrong())
}

/// One byte more than an event may have tells one that is too large.
fn take(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_EVENT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A value for people: texts in quotes, so that an absent one cannot be mistaken for a text.
pub(super) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => format!("\"{}\"", visible(text)),
        Value::List(members) => {
            let members: Vec<String> = members.iter().map(|member| visible(member)).collect();
            format!("[{}]", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// A value for programs; an absent one is null.
pub(super) fn json(value: &Value<'_>) -> Json {
    match value {
        Value::Absent => Json::Null,
        Value::Text(text) => Json::from(&**text),
        Value::List(members) => members.iter().map(|member| Json::from(&**member)).collect(),
        Value::Number(number) => Json::from(*number),
        Value::Bool(flag) => Json::from(*flag),
    }
}
