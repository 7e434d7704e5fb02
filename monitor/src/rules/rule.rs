//! A rule: its condition compiled, and what people are told about it.

use std::path::PathBuf;
use std::sync::Arc;

use super::LoadError;
use super::compile::Compiled;
use super::eval::{Memo, Node};
use super::exception::Exception;
use super::grouping::Grouping;
use super::partial::Maybe;
use super::priority::Priority;
use super::said::Said;
use super::template::Template;
use super::testing::RuleTest;
use super::threshold::Threshold;
use crate::event_type::TypeSet;
use crate::fields::{FieldRef, FieldSource, Value};

/// A rule that was loaded.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its stable name for machines, in kebab-case: `id`, or made from the name.
    pub id: String,
    /// Its title: what stands behind `rule`.
    pub name: String,
    /// What it means and what to check next.
    pub desc: String,
    /// How urgent its alerts are.
    pub priority: Priority,
    /// Where its events come from: always `syscall`; rules of other sources are left out.
    pub source: String,
    /// Free words to sort alerts by.
    pub tags: Vec<String>,
    /// ATT&CK ids: tactics such as `TA0004`, techniques such as `T1611` or `T1548.001`.
    pub attack: Vec<String>,
    /// How well tried it is: stable, incubating, sandbox or deprecated.
    pub maturity: Option<String>,
    /// Where to read more.
    pub references: Vec<String>,
    /// Events that it must match, and such that it must not.
    pub tests: Arc<[RuleTest]>,
    /// Whether it is matched at all.
    pub enabled: bool,
    /// How many events it takes until it fires; without, each one fires.
    pub threshold: Option<Threshold>,
    /// Whether and how its alerts are held together.
    pub grouping: Option<Grouping>,
    /// The condition as written, what was appended to it and what is excepted from it included.
    pub condition: String,
    /// What it excepts.
    pub exceptions: Vec<Exception>,
    /// The text of its alerts.
    pub output: Template,
    /// The template as written.
    pub output_text: String,
    /// Its place in the rule set, for what others keep by rule.
    pub(crate) position: usize,
    pub(crate) node: Arc<Node>,
    /// The words of `node`, for whoever asks why.
    pub(crate) said: Arc<Said>,
    pub(crate) types: TypeSet,
}

impl Rule {
    /// A rule that is nothing but a condition, which may use the macros and lists of these rule files.
    ///
    /// # Errors
    /// What is wrong with the files or the condition, each with its place.
    pub fn from_expression(paths: &[PathBuf], condition: &str) -> Result<Rule, LoadError> {
        super::load::expression(paths, condition)
    }

    pub(super) fn of_condition(condition: &str, compiled: Compiled) -> Rule {
        Rule {
            id: "expression".to_owned(),
            name: "expression".to_owned(),
            desc: String::new(),
            priority: Priority::Debug,
            source: String::new(),
            tags: Vec::new(),
            exceptions: Vec::new(),
            attack: Vec::new(),
            maturity: None,
            references: Vec::new(),
            tests: Arc::default(),
            threshold: None,
            grouping: None,
            enabled: true,
            condition: condition.to_owned(),
            output: Template::default(),
            output_text: String::new(),
            position: 0,
            types: compiled.node.types(),
            node: compiled.node,
            said: compiled.said,
        }
    }

    /// The types of event that its condition can match at all.
    pub const fn types(&self) -> TypeSet {
        self.types
    }

    /// What its condition comes to if only some fields are known.
    pub fn partly<'k>(&self, known: impl Fn(FieldRef) -> Option<Value<'k>> + 'k) -> Maybe {
        self.node.partly(&known)
    }

    /// Calls `visit` with each field that its condition reads, once per place.
    pub fn each_field(&self, mut visit: impl FnMut(FieldRef)) {
        self.node.each_field(&mut visit);
    }

    /// Whether its condition holds for an event.
    pub fn holds<E: FieldSource + ?Sized>(&self, event: &E) -> bool {
        self.node.holds(event, &Memo::default())
    }
}

/// Makes an id from a title: small letters and digits, with hyphens for everything between them.
pub(crate) fn id_from_title(title: &str) -> String {
    let mut id = String::new();
    for c in title.chars() {
        if c.is_ascii_alphanumeric() {
            id.push(c.to_ascii_lowercase());
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    id.trim_end_matches('-').to_owned()
}

/// Whether a text is kebab-case.
pub(crate) fn is_id(text: &str) -> bool {
    text.split('-')
        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// Whether a text is an ATT&CK id: `TA` and four digits, or `T`, four digits and perhaps `.` and three.
pub(crate) fn is_attack_id(text: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(tactic) = text.strip_prefix("TA") {
        return digits(tactic, 4);
    }
    text.strip_prefix('T').is_some_and(|technique| match technique.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(technique, 4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_and_checked() {
        assert_eq!(id_from_title("Clock set (host): CAP_SYS_TIME "), "clock-set-host-cap-sys-time");
        assert_eq!(id_from_title("…"), "");
        assert!(is_id("clock-set-2") && is_id("a"));
        for bad in ["", "-", "a-", "-a", "a--b", "A", "a_b", "ä"] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn attack_ids_are_checked() {
        for good in ["T1611", "T1548.001", "TA0004"] {
            assert!(is_attack_id(good), "{good}");
        }
        for bad in ["", "T", "T161", "T16111", "T1548.01", "T1548.", "TA004", "TA0004.001", "t1611", "T१६११"]
        {
            assert!(!is_attack_id(bad), "{bad}");
        }
    }
}
