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
const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated"];

pub(super) fn from_paths(paths: &[PathBuf]) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::default();
    for path in paths {
        for file in loader.rule_files(path) {
            if let Some(text) = loader.read(&file) {
                loader.add(file.display().to_string(), text);
            }
        }
    }
    loader.finish()
}

pub(super) fn from_texts(sources: &[(&str, &str)]) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::default();
    for (name, text) in sources {
        loader.add((*name).to_owned(), (*text).to_owned());
    }
    loader.finish()
}

/// A rule that is nothing but a condition, which may use the macros and lists of these files.
pub(super) fn expression(paths: &[PathBuf], text: &str) -> Result<Rule, LoadError> {
    let mut loader = Loader::default();
    for path in paths {
        for file in loader.rule_files(path) {
            if let Some(text) = loader.read(&file) {
                loader.add(file.display().to_string(), text);
            }
        }
    }
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

/// Collects items and diagnostics.
#[derive(Default)]
struct Loader {
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

    fn finish(mut self) -> Result<RuleSet, LoadError> {
        self.library.check_all();
        let mut rules = Vec::new();
        let mut ids: HashMap<String, String> = HashMap::new();
        for item in std::mem::take(&mut self.rules) {
            if let Some(rule) = self.rule(&item) {
                self.unique(&item, &rule, &mut ids);
                rules.push(rule);
            }
        }
        self.diagnostics.append(&mut self.library.diagnostics);
        if self.diagnostics.iter().any(|found| found.severity() == Severity::Error) {
            return Err(LoadError::new(in_reading_order(self.diagnostics, &self.files)));
        }
        Ok(RuleSet::new(rules, in_reading_order(self.diagnostics, &self.files), Sources::new(self.sources)))
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
        if types.is_empty() && item.warn_evttypes {
            let message = "no event can ever match this rule";
            let help = "check the values of `evt.type`; `warn_evttypes: false` silences this";
            self.diagnostics.push(condition.wrong(message).help(help).warning());
        }
        Some((compiled, types))
    }

    fn output(&mut self, output: &Text) -> Option<Template> {
        match Template::parse(output.as_str()) {
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
