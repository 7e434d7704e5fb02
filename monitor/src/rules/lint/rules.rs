//! What is odd about rules: another one says it already, they can never fire, their output names what never is there.

use super::form::{Builder, Form};
use super::logic;
use super::{Found, Kind, Material};
use crate::event_type::EventType;
use crate::rules::Rule;
use crate::rules::ast::Span;
use crate::rules::file::RuleItem;

/// A rule with what is needed to compare it.
pub(super) struct Judged<'m> {
    pub(super) rule: &'m Rule,
    pub(super) item: &'m RuleItem,
    form: Form,
    unreachable: bool,
}

/// The enabled rules of the set with their forms.
pub(super) fn judged<'m>(material: &Material<'m>, builder: &mut Builder<'_>) -> Vec<Judged<'m>> {
    let pairs = material.rules.iter().filter(|rule| rule.enabled).filter_map(|rule| {
        let item = material.items.iter().find(|item| item.name.as_str() == rule.name)?;
        Some((rule, item))
    });
    pairs
        .filter_map(|(rule, item)| {
            let mut members = vec![builder.condition(item.condition.as_ref()?.as_str())?];
            for exception in rule.exceptions.iter().filter(|exception| !exception.expired) {
                if let Some(condition) = &exception.condition {
                    members.push(builder.excepted(condition, &exception.name)?);
                }
            }
            let form = Form::and(members);
            Some(Judged { rule, item, form, unreachable: false })
        })
        .collect()
}

/// Rules whose condition can never hold.
pub(super) fn unreachable(rules: &mut [Judged<'_>], found: &mut Vec<Found>) {
    for judged in rules {
        let Some(condition) = &judged.item.condition else { continue };
        let (name, types) = (&judged.rule.name, judged.rule.types());
        let wrong = match logic::never(&judged.form) {
            Some(never) => {
                let message = format!("the rule `{name}` can never fire: {}", never.why);
                match never.at.span {
                    Span { end: 0, .. } => condition.wrong(message),
                    span => condition.wrong_at(span, message),
                }
            }
            None if types.is_empty() && judged.item.warn_evttypes => {
                condition.wrong(format!("the rule `{name}` can never fire: no type of event is left"))
            }
            None => continue,
        };
        judged.unreachable = true;
        let help = "correct the condition, or take the rule out";
        found.push(Found::new(Kind::Unreachable, wrong.help(help)));
    }
}

/// Rules that never say more than another one does, which is at least as urgent.
pub(super) fn shadowed(rules: &[Judged<'_>], found: &mut Vec<Found>) {
    for (i, one) in rules.iter().enumerate().filter(|(_, one)| !one.unreachable) {
        let shadow = rules.iter().enumerate().find(|(j, other)| {
            *j != i
                && !other.unreachable
                && other.rule.priority >= one.rule.priority
                // A rule with a threshold is silent most of the time, so another one adds to it.
                && other.rule.threshold.is_none()
                && other.rule.source == one.rule.source
                && logic::implies(&one.form, &other.form)
                // Of two that are the same the later one is superfluous.
                && !(*j > i && same(one, other))
        });
        let Some((_, other)) = shadow else { continue };
        let (name, of, priority) = (&one.rule.name, &other.rule.name, other.rule.priority);
        let message = format!(
            "the rule `{name}` is shadowed: whatever it matches, `{of}` matches too, with priority {priority}"
        );
        let help = format!(
            "take it out, give it a higher priority, or add `and not (…)` to `{of}` for what this one is about"
        );
        found.push(Found::new(Kind::Shadowed, one.item.name.wrong(message).help(help)));
    }
}

fn same(one: &Judged<'_>, other: &Judged<'_>) -> bool {
    one.rule.priority == other.rule.priority
        && one.rule.threshold.is_none()
        && logic::implies(&other.form, &one.form)
}

/// Fields of outputs that no event which the rule can match has.
pub(super) fn outputs(rules: &[Judged<'_>], found: &mut Vec<Found>) {
    for judged in rules.iter().filter(|judged| !judged.unreachable) {
        let types = judged.rule.types();
        let Some(output) = &judged.item.output else { continue };
        for (name, field) in judged.rule.output.fields() {
            if types.is_empty() || types.meets(field.types()) {
                continue;
            }
            let message = format!("`%{name}` is always `<NA>` here: no event of this rule has it");
            let has: Vec<&str> = field.types().iter().map(EventType::name).collect();
            let help = format!("only these events have it: {}", has.join(", "));
            let at = output.as_str().find(&format!("%{name}")).unwrap_or(0);
            let span = Span { start: at, end: at + name.len() + 1 };
            found.push(Found::new(Kind::AbsentOutput, output.wrong_at(span, message).help(help)));
        }
    }
}

/// Rules whose tests do not show what they are about.
pub(super) fn untested(rules: &[Judged<'_>], found: &mut Vec<Found>) {
    for judged in rules {
        let (name, gaps) = (&judged.rule.name, judged.rule.gaps());
        let missing = match (gaps.no_match, gaps.no_near_miss) {
            (true, true) => "an event that it matches, nor of a near miss",
            (true, false) => "an event that it matches",
            (false, true) => "a near miss",
            (false, false) => continue,
        };
        let message = format!("the rule `{name}` has no test of {missing}");
        let help = "add to its `tests` an event that it matches, and one that it does not match because of a single \
                    sub-condition";
        found.push(Found::new(Kind::Untested, judged.item.name.wrong(message).help(help)));
    }
}
