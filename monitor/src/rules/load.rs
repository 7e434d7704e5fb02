//! Loading: files found and read, items put together, every mistake of every file in one report.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::NamedSource;

use super::RuleSet;
use super::compile::Compiled;
use super::diagnostic::{Diagnostic, LoadError, Severity, Source, did_you_mean};
use super::falco::{self, Dialect, Standing, Status};
use super::file::{self, Item, RuleItem, Text};
use super::library::{Failure, Library, diagnostic};
use super::rule::{Rule, id_from_title, is_attack_id, is_id};
use super::sources::Sources;
use super::template::Template;
use crate::event_type::TypeSet;

/// A rule file may have this many bytes.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// The only source of events so far, in Falco's words.
const SYSCALL: &str = "syscall";

/// What `maturity` may say.
pub(super) const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated"];

pub(super) fn from_paths(paths: &[PathBuf]) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::default();
    loader.add_paths(paths);
    loader.finish()
}

pub(super) fn from_texts(sources: &[(&str, &str)]) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::default();
    for (name, text) in sources {
        loader.add((*name).to_owned(), (*text).to_owned());
    }
    loader.finish()
}

/// A rule set together with what it was made of: for whoever looks at rules as they are written.
pub(super) struct Parts {
    pub(super) set: RuleSet,
    /// The rules after all changes, the disabled ones included.
    pub(super) items: Vec<RuleItem>,
    pub(super) library: Library,
    pub(super) sources: Vec<Source>,
}

/// As [`from_paths`], with the parts.
pub(super) fn parts(paths: &[PathBuf]) -> Result<Parts, LoadError> {
    let mut loader = Loader::default();
    loader.add_paths(paths);
    loader.finish_parts()
}

/// As [`from_texts`], with the parts.
pub(super) fn parts_of_texts(sources: &[(&str, &str)]) -> Result<Parts, LoadError> {
    let mut loader = Loader::default();
    for (name, text) in sources {
        loader.add((*name).to_owned(), (*text).to_owned());
    }
    loader.finish_parts()
}

/// A rule that is nothing but a condition, which may use the macros and lists of these files.
pub(super) fn expression(paths: &[PathBuf], text: &str) -> Result<Rule, LoadError> {
    let mut loader = Loader::default();
    loader.add_paths(paths);
    let source: Source = Arc::new(NamedSource::new("EXPRESSION", text.to_owned()));
    loader.files.push(source.name().to_owned());
    let compiled = loader.library.compile(&Text::whole(&source), 0);
    loader.diagnostics.append(&mut loader.library.diagnostics);
    let compiled = compiled.map_err(|failure| loader.diagnostics.extend(failure.diagnostics)).ok();
    loader.diagnostics.retain(|found| found.severity() == Severity::Error);
    match compiled {
        Some(compiled) if loader.diagnostics.is_empty() => Ok(Rule::of_condition(text, compiled)),
        _ => Err(LoadError::new(in_reading_order(loader.diagnostics, &loader.files))),
    }
}

/// What becomes of the rules of files, all of which are taken for Falco's.
pub(super) fn falco(paths: &[PathBuf]) -> falco::Checked {
    let mut loader = Loader { all_falco: true, ..Loader::default() };
    loader.add_paths(paths);
    loader.build();
    falco::Checked {
        standings: loader.standings,
        diagnostics: in_reading_order(loader.diagnostics, &loader.files),
    }
}

/// Collects items and diagnostics.
#[derive(Default)]
struct Loader {
    /// Whether every file is taken for Falco's.
    all_falco: bool,
    /// What becomes of the rules of Falco's files.
    standings: Vec<Standing>,
    /// Names of files and directories, in order.
    files: Vec<String>,
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
    library: Library,
    /// Rules in order of first definition; a later one of the same name takes the earlier one's place.
    rules: Vec<RuleItem>,
    rules_by_name: HashMap<String, usize>,
}

impl Loader {
    fn add_paths(&mut self, paths: &[PathBuf]) {
        for path in paths {
            for file in self.rule_files(path) {
                if let Some(text) = self.read(&file) {
                    self.add(file.display().to_string(), text);
                }
            }
        }
    }

    /// A file itself, or the rule files of a directory in the order of their names.
    fn rule_files(&mut self, path: &Path) -> Vec<PathBuf> {
        self.files.push(path.display().to_string());
        if !path.is_dir() {
            return vec![path.to_owned()];
        }
        let listed = std::fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
        });
        let mut files = match listed {
            Ok(files) => files,
            Err(error) => {
                self.cannot_read(path, &error);
                return Vec::new();
            }
        };
        files.retain(|file| {
            let rule_file = file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
            let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            rule_file && !hidden && !file.is_dir()
        });
        files.sort();
        if files.is_empty() {
            let help = "name a directory with `.yaml` files, or a rule file";
            let empty = Diagnostic::file(path.display().to_string(), "no rule file in this directory");
            self.diagnostics.push(empty.help(help));
        }
        files
    }

    fn cannot_read(&mut self, path: &Path, error: &std::io::Error) {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => Some("check the path"),
            std::io::ErrorKind::PermissionDenied => Some("the daemon's user needs the right to read it"),
            _ => None,
        };
        let message = format!("cannot read the rules: {error}");
        let wrong = Diagnostic::file(path.display().to_string(), message);
        self.diagnostics.push(wrong.maybe_help(help.map(str::to_owned)));
    }

    fn read(&mut self, path: &Path) -> Option<String> {
        self.files.push(path.display().to_string());
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that is too large, whatever its metadata says.
        // Not blocking: a FIFO without a writer would hold the start for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let open = File::options().read(true).custom_flags(flags).open(path);
        let read = open.and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("it is not a regular file"));
            }
            file.take(MAX_FILE + 1).read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            self.cannot_read(path, &error);
            return None;
        }
        let name = path.display().to_string();
        if bytes.len() as u64 > MAX_FILE {
            let message = format!("larger than {} MiB, which no rule file needs", MAX_FILE >> 20);
            self.diagnostics.push(Diagnostic::file(name, message));
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let valid = error.as_bytes().get(..at).unwrap_or_default();
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
                let message = format!("not UTF-8 in line {line}, byte {column}");
                self.diagnostics.push(Diagnostic::file(name, message).help("save the file as UTF-8"));
                None
            }
        }
    }

    fn add(&mut self, name: String, text: String) {
        self.files.push(name.clone());
        if self.all_falco || Dialect::of(&text).is_falco() {
            self.library.falco.insert(name.clone());
        }
        let source: Source = Arc::new(NamedSource::new(name, text));
        self.sources.push(Arc::clone(&source));
        for item in file::read(&source, &mut self.diagnostics) {
            match item {
                Item::List(list) => self.library.add_list(list),
                Item::Macro(item) => self.library.add_macro(item),
                Item::Rule(rule) => match self.rules_by_name.get(rule.name.as_str()) {
                    Some(position) => self.rules[*position] = *rule,
                    None => {
                        self.rules_by_name.insert(rule.name.as_str().to_owned(), self.rules.len());
                        self.rules.push(*rule);
                    }
                },
            }
        }
    }

    fn finish(self) -> Result<RuleSet, LoadError> {
        self.finish_parts().map(|parts| parts.set)
    }

    fn finish_parts(mut self) -> Result<Parts, LoadError> {
        let (rules, items) = self.build();
        if self.diagnostics.iter().any(|found| found.severity() == Severity::Error) {
            return Err(LoadError::new(in_reading_order(self.diagnostics, &self.files)));
        }
        let sources = Sources::new(self.sources.clone());
        let set = RuleSet::new(rules, in_reading_order(self.diagnostics, &self.files), sources);
        Ok(Parts { set, items, library: self.library, sources: self.sources })
    }

    /// Puts everything together; what is wrong is in `diagnostics`.
    fn build(&mut self) -> (Vec<Rule>, Vec<RuleItem>) {
        self.library.check_all();
        let mut rules = Vec::new();
        let mut ids: HashMap<String, String> = HashMap::new();
        let items = std::mem::take(&mut self.rules);
        for item in &items {
            let falco = self.library.dialect(&item.name).is_falco();
            let rule = if falco { self.falco_rule(item) } else { self.rule(item) };
            if let Some(rule) = rule {
                self.unique(item, &rule, &mut ids);
                rules.push(rule);
            }
        }
        self.diagnostics.append(&mut self.library.diagnostics);
        (rules, items)
    }

    /// A rule of Falco's: left out if something it needs is not here.
    fn falco_rule(&mut self, item: &RuleItem) -> Option<Rule> {
        let (status, notes, rule) = match item.source.as_ref().filter(|source| source.as_str() != SYSCALL) {
            Some(source) => (Status::NotLoaded, vec![falco::missing_source(source.as_str())], None),
            None => match self.rule(item) {
                Some(rule) => {
                    let (status, notes) = falco::judge(&rule.node, rule.types, &rule.output);
                    (status, notes, Some(rule))
                }
                None => (Status::Wrong, Vec::new(), None),
            },
        };
        let name = item.name.as_str().to_owned();
        let words = falco::in_words(&notes);
        match status {
            Status::Loads | Status::Wrong => {}
            Status::Degraded => {
                let found = item.name.wrong(format!("the rule `{name}` is approximated: {words}"));
                self.diagnostics.push(found.warning());
            }
            Status::NotLoaded => {
                let found = item.name.wrong(format!("the rule `{name}` is not loaded: {words}"));
                self.diagnostics.push(found.warning());
            }
        }
        let (file, line) = (item.name.source_name().to_owned(), item.name.wrong("").line_column());
        let line = line.map_or(1, |(line, _)| line);
        self.standings.push(Standing { rule: name, file, line, enabled: item.enabled, status, notes });
        rule.filter(|_| status != Status::NotLoaded)
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
        let output = item.output.as_ref().and_then(|output| self.output(output));
        let id = self.id(item);
        let source = self.word(item.source.as_ref(), "source", &[SYSCALL]);
        let maturity = self.word(item.maturity.as_ref(), "maturity", MATURITIES);
        for attack in item.attack.iter().filter(|attack| !is_attack_id(attack.as_str())) {
            let message = format!("`{}` is not an ATT&CK id", attack.as_str());
            let help = "techniques look like T1611 or T1548.001, tactics like TA0004";
            self.diagnostics.push(attack.wrong(message).help(help));
        }
        let (compiled, types) = compiled?;
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().trim().to_owned());
        let texts = |texts: &[Text]| texts.iter().map(|text| text.as_str().to_owned()).collect();
        Some(Rule {
            position: 0, // Set when the set is complete.
            id: id?,
            name: item.name.as_str().to_owned(),
            desc: text(&item.desc)?,
            priority: item.priority?,
            source: source.unwrap_or_else(|| SYSCALL.to_owned()),
            tags: texts(&item.tags),
            attack: texts(&item.attack),
            maturity,
            references: texts(&item.references),
            tests: item.tests.as_slice().into(),
            enabled: item.enabled,
            threshold: item.threshold.clone(),
            condition: text(&item.condition)?,
            output_text: text(&item.output)?,
            output: output?,
            node: compiled.node,
            said: compiled.said,
            types,
        })
    }

    fn condition(&mut self, item: &RuleItem, condition: &Text) -> Option<(Compiled, TypeSet)> {
        let compiled = match self.library.compile(condition, 0) {
            Ok(compiled) => compiled,
            Err(Failure { diagnostics, only_unknown_fields }) => {
                let skipped = item.skip_if_unknown_filter && only_unknown_fields;
                let soften = |found: Diagnostic| if skipped { found.warning() } else { found };
                self.diagnostics.extend(diagnostics.into_iter().map(soften));
                return None;
            }
        };
        let types = compiled.node.types();
        // Of Falco's rules it is said at their names.
        let falco = self.library.dialect(condition).is_falco();
        if types.is_empty() && item.warn_evttypes && !falco {
            let message = "no event can ever match this rule";
            let help = "check the values of `evt.type`; `warn_evttypes: false` silences this";
            self.diagnostics.push(condition.wrong(message).help(help).warning());
        }
        Some((compiled, types))
    }

    fn output(&mut self, output: &Text) -> Option<Template> {
        match Template::parse(output.as_str(), self.library.dialect(output)) {
            Ok(template) => Some(template),
            Err(problems) => {
                self.diagnostics.extend(problems.into_iter().map(|problem| diagnostic(output, problem)));
                None
            }
        }
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

/// Sorts by file, in the order in which they were named, and by place in each.
fn in_reading_order(mut diagnostics: Vec<Diagnostic>, files: &[String]) -> Vec<Diagnostic> {
    diagnostics
        .sort_by_key(|found| (files.iter().position(|file| file == found.file_name()), found.line_column()));
    diagnostics
}
