//! Rules as the items of all files leave them: defined, replaced, appended to, enabled.

use std::collections::HashMap;

use super::diagnostic::{Diagnostic, did_you_mean};
use super::file::{Changed, ExceptionItem, GroupKeys, How, RuleChange, RuleItem, Text};

/// The only source of events so far, in Falco's words.
pub(crate) const SYSCALL: &str = "syscall";

/// Rules in order of first definition; a later one of the same name takes the earlier one's place.
#[derive(Default)]
pub(crate) struct RuleBook {
    rules: Vec<RuleItem>,
    by_name: HashMap<String, usize>,
}

impl RuleBook {
    /// Adds a rule, or puts it into the place of an earlier one.
    pub(crate) fn define(&mut self, rule: RuleItem, diagnostics: &mut Vec<Diagnostic>) {
        match self.by_name.get(rule.name.as_str()) {
            Some(position) => {
                let earlier = &mut self.rules[*position];
                let place = rule.source.as_ref().unwrap_or(&rule.name);
                if let Some(wrong) = other_source(place, source_of(earlier), source_of(&rule)) {
                    diagnostics.push(wrong);
                    return;
                }
                *earlier = rule;
            }
            None => {
                self.by_name.insert(rule.name.as_str().to_owned(), self.rules.len());
                self.rules.push(rule);
            }
        }
    }

    fn earlier(
        &mut self,
        name: &Text,
        verb: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<&mut RuleItem> {
        match self.by_name.get(name.as_str()) {
            Some(position) => self.rules.get_mut(*position),
            None => {
                let known = self.by_name.keys().map(String::as_str);
                let message = format!("there is no rule `{}` to {verb}", name.as_str());
                let help = did_you_mean(name.as_str(), known)
                    .unwrap_or_else(|| "the rule must stand before what changes it".to_owned());
                diagnostics.push(name.wrong(message).help(help));
                None
            }
        }
    }

    /// Changes an earlier rule.
    pub(crate) fn change(&mut self, change: RuleChange, diagnostics: &mut Vec<Diagnostic>) {
        let Some(rule) = self.earlier(&change.name, "change", diagnostics) else { return };
        if let Some(source) = &change.source
            && let Some(wrong) = other_source(source, source_of(rule), source.as_str())
        {
            diagnostics.push(wrong);
            return;
        }
        apply_text(&mut rule.condition, change.condition);
        apply_text(&mut rule.output, change.output);
        apply_text(&mut rule.desc, change.desc);
        apply_words(&mut rule.tags, change.tags);
        apply_words(&mut rule.attack, change.attack);
        apply_words(&mut rule.references, change.references);
        match change.exceptions {
            Some(Changed { how: How::Replace, value }) => rule.exceptions = value,
            Some(Changed { how: How::Append, value }) => {
                value.into_iter().for_each(|exception| append(&mut rule.exceptions, exception, diagnostics));
            }
            None => {}
        }
        match change.tests {
            Some(Changed { how: How::Replace, value }) => rule.tests = value,
            Some(Changed { how: How::Append, value }) => rule.tests.extend(value),
            None => {}
        }
        rule.threshold = change.threshold.or(rule.threshold.take());
        let GroupKeys { by, seconds } = change.grouping;
        rule.grouping.by = by.or(rule.grouping.by.take());
        rule.grouping.seconds = seconds.or(rule.grouping.seconds);
        rule.priority = change.priority.or(rule.priority);
        rule.maturity = change.maturity.or(rule.maturity.take());
        rule.enabled = change.enabled.unwrap_or(rule.enabled);
        rule.warn_evttypes = change.warn_evttypes.unwrap_or(rule.warn_evttypes);
        rule.skip_if_unknown_filter = change.skip_if_unknown_filter.unwrap_or(rule.skip_if_unknown_filter);
    }

    /// Enables or disables an earlier rule.
    pub(crate) fn enable(&mut self, name: &Text, enabled: bool, diagnostics: &mut Vec<Diagnostic>) {
        let verb = if enabled { "enable" } else { "disable" };
        if let Some(rule) = self.earlier(name, verb, diagnostics) {
            rule.enabled = enabled;
        }
    }

    /// All rules, in order.
    pub(crate) fn into_rules(self) -> Vec<RuleItem> {
        self.rules
    }
}

/// The source of a rule's events.
pub(crate) fn source_of(rule: &RuleItem) -> &str {
    rule.source.as_ref().map_or(SYSCALL, Text::as_str)
}

fn other_source(place: &Text, earlier: &str, later: &str) -> Option<Diagnostic> {
    let message = format!("this rule was defined for the source `{earlier}`, and not for `{later}`");
    (earlier != later).then(|| place.wrong(message).help("give the new rule another name"))
}

fn apply_text(slot: &mut Option<Text>, change: Option<Changed<Text>>) {
    match (change, slot) {
        (None, _) => {}
        (Some(Changed { how: How::Append, value }), Some(text)) => text.append(value),
        // What was wrong in the definition was reported there; nothing is left to append to.
        (Some(Changed { how: How::Append, .. }), None) => {}
        (Some(Changed { how: How::Replace, value }), slot) => *slot = Some(value),
    }
}

/// Appends the words that are not there yet, or replaces all.
fn apply_words(slot: &mut Vec<Text>, change: Option<Changed<Vec<Text>>>) {
    match change {
        None => {}
        Some(Changed { how: How::Replace, value }) => *slot = value,
        Some(Changed { how: How::Append, value }) => {
            for word in value {
                if !slot.iter().any(|known| known.as_str() == word.as_str()) {
                    slot.push(word);
                }
            }
        }
    }
}

/// Adds an exception, or its values to the one of its name.
fn append(exceptions: &mut Vec<ExceptionItem>, exception: ExceptionItem, diagnostics: &mut Vec<Diagnostic>) {
    let name = exception.name.as_str();
    match exceptions.iter_mut().find(|known| known.name.as_str() == name) {
        Some(earlier) => {
            for (key, given) in [("fields", &exception.fields), ("comps", &exception.comps)] {
                if let Some(text) = given.as_ref().and_then(|shape| shape.texts().first()) {
                    let message =
                        format!("the exception `{name}` has its `{key}`, which cannot be appended to");
                    diagnostics.push(text.wrong(message).help("give `values` only"));
                }
            }
            earlier.groups.extend(exception.groups);
        }
        None => {
            let empty = exception.groups.iter().all(|group| group.rows.is_empty());
            for (key, missing) in [("fields", exception.fields.is_none()), ("values", empty)] {
                if missing {
                    let message =
                        format!("the rule has no exception `{name}` yet, and this one has no `{key}`");
                    let known = exceptions.iter().map(|known| known.name.as_str());
                    diagnostics.push(exception.name.wrong(message).maybe_help(did_you_mean(name, known)));
                    return;
                }
            }
            exceptions.push(exception);
        }
    }
}
