//! Loading: items put together and compiled, every mistake of every file in one report.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::RuleSet;
use super::collect::{RuleBook, SYSCALL, source_of};
use super::diagnostic::{Diagnostic, LoadError, Source, SourceFile, did_you_mean};
use super::eval::Node;
use super::exception::{self, Exception};
use super::file::{self, Item, RuleItem, Text};
use super::files;
use super::library::{Failure, Library, diagnostic};
use super::operand::{self, Typed};
use super::options::LoadOptions;
use super::rule::{Rule, id_from_title, is_attack_id, is_id};
use super::template::Template;

/// What `maturity` may say.
const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated"];

/// Once this much was said, the rest of the rules is not compiled.
const MAX_SAID: usize = 1000;

pub(super) fn from_paths(paths: &[PathBuf], options: &LoadOptions) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::new(options);
    for path in paths {
        loader.files.push(path.display().to_string());
        for file in files::find(path, options.trust, &mut loader.diagnostics) {
            loader.files.push(file.display().to_string());
            if let Some(text) = files::read(&file, options.trust, &mut loader.diagnostics) {
                loader.add(file.display().to_string(), text);
            }
        }
    }
    loader.finish()
}

pub(super) fn from_texts(sources: &[(&str, &str)], options: &LoadOptions) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::new(options);
    for (name, text) in sources {
        loader.add((*name).to_owned(), (*text).to_owned());
    }
    loader.finish()
}

/// Collects items and diagnostics.
struct Loader<'o> {
    options: &'o LoadOptions,
    /// Names of files and directories, in order.
    files: Vec<String>,
    diagnostics: Vec<Diagnostic>,
    library: Library,
    book: RuleBook,
}

impl<'o> Loader<'o> {
    fn new(options: &'o LoadOptions) -> Self {
        Loader {
            options,
            files: Vec::new(),
            diagnostics: Vec::new(),
            library: Library::default(),
            book: RuleBook::default(),
        }
    }

    fn add(&mut self, name: String, text: String) {
        self.files.push(name.clone());
        let source: Source = Arc::new(SourceFile::new(name, text));
        for item in file::read(&source, &mut self.diagnostics) {
            match item {
                Item::List(list, effect) => self.library.add_list(list, effect),
                Item::Macro(item, effect) => self.library.add_macro(item, effect),
                Item::Rule(rule) => self.book.define(*rule, &mut self.diagnostics),
                Item::Change(change) => self.book.change(*change, &mut self.diagnostics),
                Item::Enable { name, enabled } => self.book.enable(&name, enabled, &mut self.diagnostics),
            }
        }
    }

    fn finish(mut self) -> Result<RuleSet, LoadError> {
        self.library.check_all();
        let mut rules = Vec::new();
        let mut ids: HashMap<String, String> = HashMap::new();
        for mut item in std::mem::take(&mut self.book).into_rules() {
            if self.is_left_out(&item) {
                continue;
            }
            if self.diagnostics.len() > MAX_SAID {
                let message =
                    format!("more than {MAX_SAID} things are wrong; the other rules were not compiled");
                self.diagnostics.push(item.name.wrong(message));
                break;
            }
            self.options.extend_output(&mut item);
            if let Some(rule) = self.rule(&item) {
                self.unique(&item, &rule, &mut ids);
                rules.push(rule);
            }
        }
        self.options.select(&mut rules, &mut self.diagnostics);
        self.diagnostics.append(&mut self.library.diagnostics);
        if self.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(LoadError::new(in_reading_order(self.diagnostics, &self.files)));
        }
        Ok(RuleSet::new(rules, in_reading_order(self.diagnostics, &self.files)))
    }

    /// Whether a rule is for events of another source, which then is said. Nothing else of it is looked at: its
    /// fields are those of a plugin.
    fn is_left_out(&mut self, item: &RuleItem) -> bool {
        let source = source_of(item);
        if source == SYSCALL {
            return false;
        }
        let message = format!("unknown source `{source}`: the rule `{}` is left out", item.name.as_str());
        let help = did_you_mean(source, [SYSCALL]).unwrap_or_else(|| {
            "the only source is `syscall`; Falco has the others from plugins, which ringfence does not load".to_owned()
        });
        let place = item.source.as_ref().unwrap_or(&item.name);
        self.diagnostics.push(place.wrong(message).help(help).warning());
        true
    }

    fn unique(&mut self, item: &RuleItem, rule: &Rule, ids: &mut HashMap<String, String>) {
        if let Some(other) = ids.insert(rule.id.clone(), rule.name.clone()) {
            let at = item.id.as_ref().unwrap_or(&item.name);
            let message = format!("the id `{}` is taken by the rule `{other}`", rule.id);
            self.diagnostics.push(at.wrong(message).help("give one of them an `id` of its own"));
        }
    }

    /// Checks all parts of a rule, even after one was wrong.
    fn rule(&mut self, item: &RuleItem) -> Option<Rule> {
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
        let (node, exceptions) = (compiled?, exceptions?);
        let node = except(node, &exceptions);
        let types = node.types();
        if types.is_empty() && item.warn_evttypes {
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
            enabled: item.enabled,
            condition: whole_condition(&text(&item.condition)?, &exceptions),
            exceptions,
            output_text: text(&item.output)?,
            output: output?,
            node,
            types,
        })
    }

    fn condition(&mut self, item: &RuleItem, condition: &Text) -> Option<Arc<Node>> {
        match self.library.compile(condition, 0) {
            Ok(compiled) => Some(compiled.node),
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
                if let Err(problem) = exception::field(field) {
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
                let node = clause.as_ref().filter(|_| good).map(|clause| self.condition(item, clause));
                good &= node.as_ref().is_none_or(Option::is_some);
                exceptions.push(Exception {
                    name: written.name.as_str().to_owned(),
                    reason: text(&group.reason),
                    owner: text(&group.owner),
                    expires: group.expires.as_ref().map(|(day, _)| *day),
                    expired: expired.is_some(),
                    condition: clause.map(|clause| clause.as_str().to_owned()),
                    node: node.flatten().filter(|_| expired.is_none()),
                });
            }
        }
        good.then_some(exceptions)
    }

    fn output(&mut self, item: &RuleItem, output: &Text) -> Option<Template> {
        match Template::parse(output.as_str().trim_end()) {
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
            match exception::field(&name) {
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
fn except(node: Arc<Node>, exceptions: &[Exception]) -> Arc<Node> {
    let excepted = exceptions.iter().filter_map(|exception| exception.node.as_ref());
    let members: Vec<Node> = excepted.map(|node| Node::Not(Box::new(Node::clone(node)))).collect();
    if members.is_empty() {
        return node;
    }
    Arc::new(Node::And(std::iter::once(Node::clone(&node)).chain(members).collect()))
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

/// Sorts by file, in the order in which they were named, and by place in each.
fn in_reading_order(mut diagnostics: Vec<Diagnostic>, files: &[String]) -> Vec<Diagnostic> {
    diagnostics
        .sort_by_key(|found| (files.iter().position(|file| file == found.file_name()), found.line_column()));
    // What was added to the outputs of many rules is wrong once.
    let mut seen = HashSet::new();
    diagnostics.retain(|found| seen.insert(found.to_string()));
    diagnostics
}
