//! Templates of one's own: a JSON text in whose strings `%name` stands for a value of the alert.
//!
//! The template is read as JSON first and filled in afterwards, string by string. So no value, whatever is in it, can
//! end a string or become a key, and what is sent is JSON in any case. A string that is nothing but one `%name` becomes
//! the value itself, a number, a list or null.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::super::alert::{GROUP, text};
use super::super::unusable;
use crate::fields;
use crate::sink::OutputError;

/// A template has at most so many bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What stands at the top of an alert; every other name is one of `output_fields`.
const TOP: &[&str] =
    &["time", "rule", "rule_id", "priority", "output", "hostname", "source", "tags", "attack"];

/// The whole alert.
const WHOLE: &str = "alert";

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    root: Node,
    escape_slack: bool,
}

#[derive(Debug)]
enum Node {
    /// What has no placeholder inside.
    Fixed(Value),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
    /// The value as it is.
    One(String),
    Text(Vec<Piece>),
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    pub(super) fn read(path: &Path, escape_slack: bool) -> Result<Self, OutputError> {
        let wrong = |reason: String| unusable("template_file", path, reason);
        let fail = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(wrong("is not a regular file".to_owned()));
        }
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("has more than {MAX_BYTES} bytes")));
        }
        Self::parse(&text, escape_slack).map_err(wrong)
    }

    fn parse(text: &str, escape_slack: bool) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        Ok(Self { root: node(value)?, escape_slack })
    }

    /// Fills it in with an alert.
    pub(super) fn fill(&self, alert: &Value) -> Value {
        self.filled(&self.root, alert)
    }

    fn filled(&self, node: &Node, alert: &Value) -> Value {
        match node {
            Node::Fixed(value) => value.clone(),
            Node::List(members) => members.iter().map(|member| self.filled(member, alert)).collect(),
            Node::Object(members) => {
                let members = members.iter().map(|(key, member)| (key.clone(), self.filled(member, alert)));
                Value::Object(members.collect::<Map<String, Value>>())
            }
            Node::One(name) => match value(alert, name) {
                Some(Value::String(text)) => Value::String(self.written(text)),
                Some(other) => other.clone(),
                None => Value::Null,
            },
            Node::Text(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Name(name) => match value(alert, name).and_then(text) {
                        Some(text) => self.written(&text),
                        None => "<NA>".to_owned(),
                    },
                })
                .collect::<String>()
                .into(),
        }
    }

    fn written(&self, text: &str) -> String {
        if self.escape_slack { super::slack::escaped(text, usize::MAX) } else { text.to_owned() }
    }
}

fn value<'a>(alert: &'a Value, name: &str) -> Option<&'a Value> {
    if name == WHOLE {
        return Some(alert);
    }
    if TOP.contains(&name) { alert.get(name) } else { alert.get("output_fields")?.get(name) }
}

fn node(value: Value) -> Result<Node, String> {
    Ok(match value {
        Value::String(text) => match pieces(&text)?.as_slice() {
            [] => Node::Fixed(Value::String(String::new())),
            [Piece::Text(text)] => Node::Fixed(Value::String(text.clone())),
            [Piece::Name(name)] => Node::One(name.clone()),
            _ => Node::Text(pieces(&text)?),
        },
        Value::Array(members) => Node::List(members.into_iter().map(node).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, member)| Ok((key, node(member)?)));
            Node::Object(members.collect::<Result<_, String>>()?)
        }
        other => Node::Fixed(other),
    })
}

/// Takes a text apart at its `%`; `%%` is a percent sign.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut parts = text.split('%');
    plain.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // Two percent signs have nothing between them.
            plain.push('%');
            plain.push_str(parts.next().ok_or("has a `%` at the end of a string; a percent sign is `%%`")?);
            continue;
        }
        let len = name_len(part);
        let (name, rest) = part.split_at(len);
        check(name).map_err(|reason| format!("has `%{name}`: {reason}; a percent sign is `%%`"))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Name(name.to_owned()));
        plain.push_str(rest);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// The length of `proc.aname[2]` at the beginning of a text. A full stop at the end of a sentence is none of it.
fn name_len(text: &str) -> usize {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let len = text.find(|c| !word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(len);
    let name = name.trim_end_matches('.').len();
    match rest.find(']') {
        Some(end) if name == len && rest.starts_with('[') => len + end + 1,
        _ => name,
    }
}

/// Whether there is a value by this name.
fn check(name: &str) -> Result<(), String> {
    if name == WHOLE || TOP.contains(&name) || GROUP.contains(&name) {
        return Ok(());
    }
    let (field, argument) = match name.split_once('[') {
        Some((field, rest)) => (field, Some(rest.trim_end_matches(']'))),
        None => (name, None),
    };
    fields::resolve(field, argument).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fill(template: &str, alert: &Value) -> Value {
        Template::parse(template, false).unwrap().fill(alert)
    }

    #[test]
    fn values_stand_where_they_are_named() {
        let line = crate::sink::net::testing::line();
        let alert: Value = serde_json::from_str(&line).unwrap();
        let filled = fill(
            r#"{"t": "%rule: %output.", "n": "%proc.pid", "l": "%evt.flags", "s": "100%% of %evt.flags",
                "none": "%evt.refused_by", "na": "(%evt.refused_by)", "a": ["%priority", 7, true, null, "%"]}"#
                .replace("\"%\"", "\"%%\"")
                .as_str(),
            &alert,
        );
        let expected = json!({
            "t": "User namespace made in a container: Namespace made by \"ev]il\\\\ <!channel> & co\" é (pid 4711).",
            "n": 4711, "l": ["CLONE_NEWUSER", "CLONE_NEWNS"], "s": "100% of CLONE_NEWUSER CLONE_NEWNS",
            "none": null, "na": "(<NA>)", "a": ["Warning", 7, true, null, "%"],
        });
        assert_eq!(filled, expected);
        assert_eq!(fill("\"%alert\"", &alert), alert);
        let summary = serde_json::from_str(&crate::sink::net::testing::summary()).unwrap();
        let group = r#"["%group.count", "%output (%group.count)", "%group.first", "%group.last"]"#;
        assert_eq!(fill(group, &summary)[0], 12);
        assert_eq!(fill(group, &summary)[3], "2026-11-23T19:46:40.000000000Z");
        assert_eq!(fill(group, &alert)[0], Value::Null);
        let slack = Template::parse("[\"%output\", \"x %output\"]", true).unwrap().fill(&alert).to_string();
        assert!(slack.contains("&lt;!channel&gt; &amp; co") && !slack.contains('<'), "{slack}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, said) in [
            ("{", "no JSON"),
            ("\"%\"", "at the end"),
            ("\"50 % of\"", "percent sign"),
            ("\"%proc.pif\"", "proc.pif"),
            ("\"%evt.arg\"", "evt.arg"),
            ("[{\"a\": \"%proc.aname[x]\"}]", "proc.aname"),
        ] {
            let reason = Template::parse(template, false).unwrap_err();
            assert!(reason.contains(said), "{template}: {reason}");
        }
        for name in ["%proc.aname[2]", "%evt.arg[flags]", "%container.label[app]"] {
            let pieces = pieces(name).unwrap();
            assert_eq!(pieces, [Piece::Name(name[1..].to_owned())]);
        }
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_string(value in any::<String>()) {
            let alert = json!({"output": value, "output_fields": {}});
            let sent = fill(r#"{"a": "x%output", "b": ["%output"]}"#, &alert).to_string();
            let read: Value = serde_json::from_str(&sent).unwrap();
            prop_assert_eq!(read, json!({"a": format!("x{value}"), "b": [value]}));
        }
    }
}
