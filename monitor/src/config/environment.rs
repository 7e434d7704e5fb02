//! `RINGFENCE_KEY=VALUE` in the environment: each setting under its name in capitals, the value as behind `--set KEY=`.
//!
//! A name that is no setting is an error, as an unknown key in a file is: a misspelt setting must not be a silent one.
//! What others put there without being asked is left alone.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use super::assign::Assignment;
use super::file::{ConfigError, keys, suggest};

/// What names of ours begin with.
pub(super) const PREFIX: &str = "RINGFENCE_";

/// Names that are no settings: the log's filter; and what builds and tests of Ringfence itself are told.
const OTHERS: &[&str] = &[
    "RINGFENCE_LOG",
    "RINGFENCE_BLESS",
    "RINGFENCE_BPF_OBJECT",
    "RINGFENCE_BPF_SOURCE_LINES",
    "RINGFENCE_REVISION",
    "RINGFENCE_SKIP_BPF",
];

/// The settings in an environment, by the variable's name, in the order of the keys. Names that are none are left out:
/// see [`check_names`].
pub(super) fn assignments(
    environment: &[(OsString, OsString)],
) -> Result<Vec<(String, Assignment)>, ConfigError> {
    let mut found = Vec::new();
    for (name, word, value) in ours(environment) {
        let Some(key) = key_of(word) else { continue };
        let wrong = |message: &str, help| ConfigError::Variable {
            name: name.to_owned(),
            message: message.to_owned(),
            help,
        };
        // The value may be a secret: no message shows it.
        let value = value.to_str().ok_or_else(|| wrong("the value is not UTF-8", None))?;
        let assignment: Result<Assignment, String> = format!("{key}={value}").parse();
        let assignment = assignment.map_err(|_| {
            let help = format!("write one value in YAML, as behind `--set {key}=`");
            wrong("the value is empty, or no single value", Some(help))
        })?;
        found.push((name.to_owned(), assignment));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Checks that each name is a setting's, or one that the configuration uses for something else (`named`).
pub(super) fn check_names(
    environment: &[(OsString, OsString)],
    named: &BTreeSet<String>,
) -> Result<(), ConfigError> {
    let is_known = |name: &str, word: &str| {
        key_of(word).is_some() || OTHERS.contains(&name) || named.contains(name) || is_service_link(word)
    };
    match ours(environment).find(|(name, word, _)| !is_known(name, word)) {
        None => Ok(()),
        Some((name, ..)) => {
            let all: Vec<String> =
                keys().iter().map(|key| format!("{PREFIX}{}", key.to_ascii_uppercase())).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            Err(ConfigError::Variable {
                name: name.to_owned(),
                message: "there is no such setting".to_owned(),
                help: Some(suggest(&name.to_ascii_uppercase(), &all)),
            })
        }
    }
}

/// The variables whose names begin as ours do: the name, what stands behind the beginning, the value.
fn ours(environment: &[(OsString, OsString)]) -> impl Iterator<Item = (&str, &str, &OsStr)> {
    environment.iter().filter_map(|(name, value)| {
        let name = name.to_str()?;
        Some((name, name.strip_prefix(PREFIX)?, value.as_os_str()))
    })
}

fn key_of(word: &str) -> Option<&'static str> {
    keys().iter().copied().find(|key| key.to_ascii_uppercase() == word)
}

/// What Kubernetes puts into the environment of pods in a namespace with a service whose name begins with `ringfence`:
/// `RINGFENCE_SERVICE_HOST`, `RINGFENCE_PORT_9477_TCP_ADDR`, `RINGFENCE_METRICS_PORT` and the like. No setting is named
/// so; a test holds them to it.
pub(super) fn is_service_link(word: &str) -> bool {
    let word = format!("_{word}");
    word.ends_with("_SERVICE_HOST")
        || word.ends_with("_SERVICE_PORT")
        || word.contains("_SERVICE_PORT_")
        || word.ends_with("_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            let parts = word.rsplit_once(protocol);
            parts.is_some_and(|(before, after)| {
                let digits = before.rsplit_once("_PORT_").map(|(_, number)| number);
                digits.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
                    && ["", "_PROTO", "_PORT", "_ADDR"].contains(&after)
            })
        })
}
