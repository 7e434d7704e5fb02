//! What the rule tests share: an event made of named values.

use std::collections::HashMap;

use monitor::event_type::EventType;
use monitor::fields::{self, FieldRef, FieldSource, Value};
use monitor::rules::RuleSet;

/// An event whose fields are what a test says, and absent otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(HashMap<FieldRef, Value<'static>>);

impl FieldSource for Fake {
    fn value(&self, field: FieldRef) -> Value<'_> {
        self.0.get(&field).cloned().unwrap_or(Value::Absent)
    }
}

#[allow(dead_code, reason = "not every test binary that shares this module sets values of every type")]
impl Fake {
    /// Sets a field, named as rules name it.
    pub(crate) fn set(mut self, field: &str, value: Value<'static>) -> Self {
        let (name, arg) = match field.split_once('[') {
            Some((name, arg)) => (name, Some(arg.trim_end_matches(']'))),
            None => (field, None),
        };
        let field = fields::resolve(name, arg).unwrap_or_else(|error| panic!("{error}"));
        self.0.insert(field, value);
        self
    }

    /// Sets a text.
    pub(crate) fn text(self, field: &str, value: &'static str) -> Self {
        self.set(field, Value::text(value))
    }

    /// Sets a list of texts.
    pub(crate) fn list(self, field: &str, members: &[&'static str]) -> Self {
        self.set(field, Value::list(members.iter().copied()))
    }

    /// Sets a number.
    pub(crate) fn number(self, field: &str, value: i64) -> Self {
        self.set(field, Value::Number(value))
    }
}

/// The ids of the rules that match.
#[allow(dead_code, reason = "not every test binary that shares this module asks a whole rule set")]
pub(crate) fn matching<'r>(rules: &'r RuleSet, ty: impl Into<EventType>, event: &Fake) -> Vec<&'r str> {
    let mut ids = Vec::new();
    rules.matches(ty, event, |rule| ids.push(rule.id.as_str()));
    ids
}

/// A rule file with one rule of this condition.
#[allow(dead_code, reason = "not every test binary that shares this module makes rules")]
pub(crate) fn rule_with(condition: &str) -> String {
    let condition = condition.replace('\n', "\n    ");
    format!("- rule: R\n  desc: d\n  condition: |\n    {condition}\n  output: o\n  priority: DEBUG\n")
}
