//! How rules are loaded: whose files are trusted, what day it is, which rules are enabled, what is added to outputs.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};
use time::{Date, OffsetDateTime};

use super::collect::source_of;
use super::diagnostic::Diagnostic;
use super::file::{RuleItem, Text};
use super::grouping::GroupDefault;
use super::rule::Rule;
use crate::trust::Trust;

/// How rules are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The day, in UTC, by which exceptions expire.
    pub today: Date,
    /// Whose files are trusted.
    pub trust: Trust,
    /// What is enabled and disabled, in order, whatever the files say.
    pub selection: Vec<Selection>,
    /// What is added to outputs.
    pub append_output: Vec<AppendOutput>,
    /// How alerts are held together of rules that do not say so themselves.
    pub group: GroupDefault,
}

impl Default for LoadOptions {
    /// Today, [`Trust::OwnFiles`], and the rules as the files have them.
    fn default() -> Self {
        // A clock outside of the years that the calendar has is treated as its beginning: nothing expires.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
        let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        LoadOptions {
            today: now.date(),
            trust: Trust::default(),
            selection: Vec::new(),
            append_output: Vec::new(),
            group: GroupDefault::default(),
        }
    }
}

/// A step of the selection, as in Falco's configuration: `enable: {rule: "k8s_*"}`, `disable: {tag: network}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// These rules are matched.
    Enable(Which),
    /// These are not.
    Disable(Which),
}

/// Which rules a step is about. If both are given, those that either names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// A rule's name or id; `*` stands for any number of characters.
    pub rule: Option<String>,
    /// A tag.
    pub tag: Option<String>,
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            rule: Option<String>,
            tag: Option<String>,
        }
        let Keys { rule, tag } = Keys::deserialize(deserializer)?;
        if rule.is_none() && tag.is_none() {
            return Err(serde::de::Error::custom("expected `rule: PATTERN` or `tag: TAG`"));
        }
        Ok(Which { rule, tag })
    }
}

impl Which {
    fn names(&self, rule: &Rule) -> bool {
        let by_rule =
            |pattern: &String| matches_pattern(pattern, &rule.name) || matches_pattern(pattern, &rule.id);
        self.rule.as_ref().is_some_and(by_rule)
            || self.tag.as_ref().is_some_and(|tag| rule.tags.contains(tag))
    }
}

/// What is added to the outputs of some rules, as in Falco's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppendOutput {
    /// Which rules; all if left out.
    #[serde(rename = "match")]
    pub which: OutputOf,
    /// A template that is put behind the rule's own, after a blank.
    pub extra_output: Option<String>,
    /// Fields, with arguments, that alerts carry beside those of the output.
    pub extra_fields: Vec<String>,
}

/// Rules whose output is added to: those that fit everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputOf {
    /// The source of their events.
    pub source: Option<String>,
    /// Their name or id, whole.
    pub rule: Option<String>,
    /// Tags, all of which they have.
    pub tags: Vec<String>,
}

impl OutputOf {
    fn fits(&self, rule: &RuleItem) -> bool {
        let named = |name: &String| {
            name == rule.name.as_str() || rule.id.as_ref().is_some_and(|id| id.as_str() == name)
        };
        self.source.as_ref().is_none_or(|source| source == source_of(rule))
            && self.rule.as_ref().is_none_or(named)
            && self.tags.iter().all(|tag| rule.tags.iter().any(|has| has.as_str() == tag))
    }
}

impl LoadOptions {
    /// Puts what is to be added behind the rule's output.
    pub(super) fn extend_output(&self, rule: &mut RuleItem) {
        for (index, extra) in self.append_output.iter().enumerate() {
            if !extra.which.fits(rule) {
                continue;
            }
            if let (Some(text), Some(output)) = (&extra.extra_output, &mut rule.output) {
                let name = format!("append_output[{index}].extra_output");
                output.append(Text::loose(&name, text));
            }
        }
    }

    /// The fields that alerts of a rule carry beside those of its output, each with a place for messages.
    pub(super) fn extra_fields(&self, rule: &RuleItem) -> Vec<Text> {
        let mut fields = Vec::new();
        for (index, extra) in
            self.append_output.iter().enumerate().filter(|(_, extra)| extra.which.fits(rule))
        {
            let name = format!("append_output[{index}].extra_fields");
            fields.extend(extra.extra_fields.iter().map(|field| Text::loose(&name, field)));
        }
        fields
    }

    /// Enables and disables rules, step by step, and says which steps are about no rule.
    pub(super) fn select(&self, rules: &mut [Rule], diagnostics: &mut Vec<Diagnostic>) {
        for (index, step) in self.selection.iter().enumerate() {
            let (which, enabled) = match step {
                Selection::Enable(which) => (which, true),
                Selection::Disable(which) => (which, false),
            };
            let mut found = false;
            for rule in rules.iter_mut().filter(|rule| which.names(rule)) {
                rule.enabled = enabled;
                found = true;
            }
            if !found {
                let verb = if enabled { "enable" } else { "disable" };
                let meant = match (&which.rule, &which.tag) {
                    (Some(rule), None) => format!("a rule `{rule}`"),
                    (None, Some(tag)) => format!("rules with the tag `{tag}`"),
                    (Some(rule), Some(tag)) => format!("a rule `{rule}` or rules with the tag `{tag}`"),
                    (None, None) => "nothing".to_owned(),
                };
                let message = format!("asks to {verb} {meant}, and there is none");
                let name = format!("rule_selection[{index}]");
                diagnostics.push(Diagnostic::file(name, message).warning());
            }
        }
    }
}

/// Whether a text fits a pattern in which `*` stands for any number of characters.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // Each part is taken at its first place: that leaves most for the others.
    for part in parts {
        match text.split_once(part) {
            Some((_, behind)) => text = behind,
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "first actual rule", true),
            ("first actual rule", "first actual rule", true),
            ("first", "first actual rule", false),
            ("*rule", "first actual rule", true),
            ("*second*r*", "the second rule", true),
            ("*second*r*", "the rule that is second", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*a", "abba", true),
            ("a*ab*c", "aabab-c", true),
            ("a**c", "abc", true),
            ("", "", true),
            ("", "x", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }
}
