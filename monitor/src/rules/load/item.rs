//! One rule: every part of its item checked and compiled.

use std::sync::Arc;

use super::Loader;
use super::MATURITIES;
use crate::rules::collect::SYSCALL;
use crate::rules::compile::Compiled;
use crate::rules::diagnostic::{Diagnostic, did_you_mean};
use crate::rules::eval::Node;
use crate::rules::exception::{self, Exception};
use crate::rules::falco::Dialect;
use crate::rules::file::{RuleItem, Text};
use crate::rules::library::{Failure, diagnostic};
use crate::rules::operand::{self, Typed};
use crate::rules::rule::{Rule, id_from_title, is_attack_id, is_id};
use crate::rules::said::Said;
use crate::rules::template::Template;

impl Loader<'_> {
    /// Checks all parts of a rule, even after one was wrong.
    pub(super) fn rule(&mut self, item: &RuleItem) -> Option<Rule> {
        let compiled = item.condition.as_ref().and_then(|condition| self.condition(item, condition));
        let exceptions = self.exceptions(item);
        let output = item.output.as_ref().and_then(|output| self.output(item, output));
        let id = self.id(item);
        let maturity = self.word(item.maturity.as_ref(), "maturity", MATURITIES);
        for attack in item.attack.iter().filter(|attack| !is_attack_id(attack.as_str())) {
            let message = format!("`{}` is not an ATT&CK id", attack.as_str());
            let help = "techniques look like T1611 or T1548.001, tactics like TA0004";
            self.diagnostics.push(attack.wrong(message).help(help));
        }
        let (compiled, exceptions) = (compiled?, exceptions?);
        let (node, said) = except(compiled, &exceptions);
        let types = node.types();
        // Of Falco's rules it is said at their names.
        let falco = self.library.dialect(&item.name).is_falco();
        if types.is_empty() && item.warn_evttypes && !falco {
            let message = "no event can ever match this rule";
            let help = "check the values of `evt.type`; `warn_evttypes: false` silences this";
            self.diagnostics.push(item.condition.as_ref()?.wrong(message).help(help).warning());
        }
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().trim().to_owned());
        let texts = |texts: &[Text]| texts.iter().map(|text| text.as_str().to_owned()).collect();
        Some(Rule {
            position: 0, // Set when the set is complete.
            id: id?,
            name: item.name.as_str().to_owned(),
            desc: text(&item.desc)?,
            priority: item.priority?,
            source: SYSCALL.to_owned(),
            tags: texts(&item.tags),
            attack: texts(&item.attack),
            maturity,
            references: texts(&item.references),
            tests: item.tests.as_slice().into(),
            enabled: item.enabled,
            threshold: item.threshold.clone(),
            grouping: self.options.group.of(item.grouping.by.as_ref(), item.grouping.seconds),
            condition: whole_condition(&text(&item.condition)?, &exceptions),
            exceptions,
            output_text: text(&item.output)?,
            output: output?,
            node,
            said,
            types,
        })
    }

    fn condition(&mut self, item: &RuleItem, condition: &Text) -> Option<Compiled> {
        match self.library.compile(condition, 0) {
            Ok(compiled) => Some(compiled),
            Err(Failure { diagnostics, only_unknown_fields }) => {
                self.report(item, diagnostics, only_unknown_fields);
                None
            }
        }
    }

    /// Reports what is wrong with a part of a rule; only warns if it is unknown fields and the rule says that it may
    /// be left out then.
    fn report(&mut self, item: &RuleItem, diagnostics: Vec<Diagnostic>, only_unknown_fields: bool) {
        let skipped = item.skip_if_unknown_filter && only_unknown_fields;
        let soften = |found: Diagnostic| if skipped { found.warning() } else { found };
        self.diagnostics.extend(diagnostics.into_iter().map(soften));
    }

    /// What a rule excepts; `None` if something is wrong with it.
    fn exceptions(&mut self, item: &RuleItem) -> Option<Vec<Exception>> {
        let mut exceptions = Vec::new();
        let mut good = true;
        for written in &item.exceptions {
            let before = self.diagnostics.len();
            let comps = written.comparisons(&mut self.diagnostics);
            for field in written.fields.iter().flat_map(|fields| fields.texts()) {
                if let Err(problem) = exception::field(field, self.library.dialect(field)) {
                    let only_unknown_fields = problem.unknown_field;
                    self.report(item, vec![diagnostic(field, problem)], only_unknown_fields);
                }
            }
            let (Some(fields), Some(comps), true) =
                (&written.fields, comps, before == self.diagnostics.len())
            else {
                good = false;
                continue;
            };
            for group in &written.groups {
                let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().trim().to_owned());
                let errors = self.diagnostics.iter().filter(|found| found.is_error()).count();
                let clause = exception::clause(fields, &comps, group, &mut self.diagnostics);
                good &= errors == self.diagnostics.iter().filter(|found| found.is_error()).count();
                let expired = group.expires.as_ref().filter(|(day, _)| *day < self.options.today);
                if let Some((day, place)) = expired {
                    let name = written.name.as_str();
                    let message =
                        format!("the exception `{name}` ended on {day} and does not except any more");
                    let help = "remove it, or give it a later day";
                    self.diagnostics.push(place.wrong(message).help(help).warning());
                }
                let compiled = clause.as_ref().filter(|_| good).map(|clause| self.condition(item, clause));
                good &= compiled.as_ref().is_none_or(Option::is_some);
                exceptions.push(Exception {
                    name: written.name.as_str().to_owned(),
                    reason: text(&group.reason),
                    owner: text(&group.owner),
                    expires: group.expires.as_ref().map(|(day, _)| *day),
                    expired: expired.is_some(),
                    condition: clause.map(|clause| clause.as_str().to_owned()),
                    compiled: compiled.flatten().filter(|_| expired.is_none()),
                });
            }
        }
        good.then_some(exceptions)
    }

    fn output(&mut self, item: &RuleItem, output: &Text) -> Option<Template> {
        match Template::parse(output.as_str().trim_end(), self.library.dialect(output)) {
            Ok(template) => self.extra_fields(item, template),
            Err(problems) => {
                let only_unknown_fields = problems.iter().all(|problem| problem.unknown_field);
                let found = problems.into_iter().map(|problem| diagnostic(output, problem)).collect();
                self.report(item, found, only_unknown_fields);
                None
            }
        }
    }

    /// Adds the fields that the options want in alerts of this rule.
    fn extra_fields(&mut self, item: &RuleItem, mut template: Template) -> Option<Template> {
        let mut good = true;
        for name in self.options.extra_fields(item) {
            match exception::field(&name, Dialect::Ours) {
                Ok(Typed { source: operand::Source::Field(field), .. }) => template.add_field(field),
                Ok(_) => {
                    good = false;
                    let wrong = name.wrong("expected a field, without a transformer");
                    self.diagnostics.push(wrong);
                }
                Err(problem) => {
                    good = false;
                    self.diagnostics.push(diagnostic(&name, problem));
                }
            }
        }
        good.then_some(template)
    }

    fn id(&mut self, item: &RuleItem) -> Option<String> {
        let id = match &item.id {
            Some(id) => id.as_str().to_owned(),
            None => id_from_title(item.name.as_str()),
        };
        if is_id(&id) {
            return Some(id);
        }
        let wrong = match &item.id {
            Some(text) => {
                let suggestion = id_from_title(&id);
                let help = (!suggestion.is_empty()).then(|| format!("did you mean `{suggestion}`?"));
                text.wrong(format!("`{id}` is not kebab-case")).maybe_help(help)
            }
            None => item.name.wrong("no id can be made from this name; give the rule an `id`"),
        };
        self.diagnostics.push(wrong);
        None
    }

    /// A word of a closed set.
    fn word(&mut self, text: Option<&Text>, key: &str, words: &[&str]) -> Option<String> {
        let text = text?;
        if !words.contains(&text.as_str()) {
            let help = did_you_mean(text.as_str(), words.iter().copied())
                .unwrap_or_else(|| format!("known are: {}", words.join(", ")));
            let message = format!("unknown {key} `{}`", text.as_str());
            self.diagnostics.push(text.wrong(message).help(help));
        }
        Some(text.as_str().to_owned())
    }
}

/// A condition without what is excepted.
fn except(compiled: Compiled, exceptions: &[Exception]) -> (Arc<Node>, Arc<Said>) {
    let excepted: Vec<&Compiled> =
        exceptions.iter().filter_map(|exception| exception.compiled.as_ref()).collect();
    let Compiled { node, said, .. } = compiled;
    if excepted.is_empty() {
        return (node, said);
    }
    let nodes = excepted.iter().map(|exception| Node::Not(Box::new(Node::clone(&exception.node))));
    let words = excepted.iter().map(|exception| Said::Not(Box::new(Said::clone(&exception.said))));
    let node = Node::And(std::iter::once(Node::clone(&node)).chain(nodes).collect());
    let said = Said::And(std::iter::once(Said::clone(&said)).chain(words).collect());
    (Arc::new(node), Arc::new(said))
}

/// The condition and what is excepted from it, as one text.
fn whole_condition(condition: &str, exceptions: &[Exception]) -> String {
    let in_force = exceptions.iter().filter(|exception| !exception.expired);
    let excepted: Vec<&str> = in_force.filter_map(|exception| exception.condition.as_deref()).collect();
    if excepted.is_empty() {
        return condition.to_owned();
    }
    let excepted: String = excepted.iter().map(|clause| format!(" and not ({clause})")).collect();
    format!("({condition}){excepted}")
}
