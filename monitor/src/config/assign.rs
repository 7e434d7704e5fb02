//! `--set KEY=VALUE`: a setting on the command line, read as if it stood in a last drop-in.

use std::str::FromStr;

use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json};

use super::Settings;
use super::file::{self, ConfigError, Read};
use super::veil::veiled_assignment;

/// A setting on the command line.
///
/// `KEY=VALUE` replaces what the files say, `KEY[]=VALUE` adds a member to a list, and `KEY[].a.b=VALUE` adds one
/// that is a mapping: `rule_selection[].disable.rule=*`. The value is YAML, or a text if it is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// As it was written.
    text: String,
    /// The setting as a configuration file.
    yaml: String,
    /// Whether a member is added to a list.
    adds: bool,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, value) =
            text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`: write KEY=VALUE"))?;
        let value = value.trim();
        if value.is_empty() {
            return Err(format!("`{text}` gives no value"));
        }
        let marks_document = |line: &str| {
            let behind = ["---", "..."].iter().find_map(|mark| line.strip_prefix(mark));
            behind.is_some_and(|rest| !rest.starts_with(|c: char| !c.is_whitespace()))
        };
        if value.lines().any(marks_document) {
            return Err(format!("`{text}`: the value is one YAML value, not a document"));
        }
        // What is not YAML by itself, such as a plain `*`, can only be meant as a text. So can what begins with `%`:
        // as a value it is none, and the parser, which sees a whole document, takes it for a directive.
        let text_as_yaml = || serde_json::Value::from(value).to_string();
        let is_yaml = !value.starts_with('%') && serde_saphyr::from_str::<IgnoredAny>(value).is_ok();
        let value = if is_yaml { value.to_owned() } else { text_as_yaml() };
        let mut names = path.trim().split('.');
        let first = names.next().unwrap_or_default();
        let (key, adds) = first.strip_suffix("[]").map_or((first, false), |key| (key, true));
        let inner: Vec<&str> = names.collect();
        let is_name = |name: &&str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if !is_name(&key) || !inner.iter().all(is_name) || (!adds && !inner.is_empty()) {
            return Err(format!("`{path}` names no setting: write KEY, KEY[] or KEY[].NAME"));
        }
        Ok(Assignment { text: text.to_owned(), yaml: as_file(key, adds, &inner, &value), adds })
    }
}

/// The configuration file that says the same.
fn as_file(key: &str, adds: bool, inner: &[&str], value: &str) -> String {
    let mut yaml = format!("{key}:\n");
    let mut indent = 2;
    let mut dash = if adds { "- " } else { "" };
    for name in inner {
        yaml.push_str(&format!("{:indent$}{dash}{name}:\n", ""));
        indent += dash.len() + 2;
        dash = "";
    }
    for line in value.lines() {
        yaml.push_str(&format!("{:indent$}{dash}{line}\n", ""));
        indent += dash.len();
        dash = "";
    }
    yaml
}

impl Assignment {
    /// Whether it adds members to a list.
    pub(super) fn adds(&self) -> bool {
        self.adds
    }

    /// Applies it, and gives what it sets as it was written.
    pub(super) fn apply(&self, settings: &mut Settings) -> Result<Map<String, Json>, ConfigError> {
        let Read { config, written } =
            file::parse("--set", self.yaml.clone()).map_err(|error| match error {
                ConfigError::Wrong { message, help, .. } => {
                    ConfigError::Set { assignment: veiled_assignment(&self.text), message, help }
                }
                other => other,
            })?;
        if self.adds {
            settings.add(config)
        } else {
            settings.apply(config)
        }
        Ok(written)
    }
}
