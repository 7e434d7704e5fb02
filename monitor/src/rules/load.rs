//! Loading: items put together and compiled, every mistake of every file in one report.

mod item;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::RuleSet;
use super::collect::{RuleBook, SYSCALL, source_of};
use super::diagnostic::{Diagnostic, LoadError, Source, SourceFile, did_you_mean};
use super::falco::{self, Dialect, Standing, Status};
use super::file::{self, Item, RuleItem, Text};
use super::files;
use super::library::Library;
use super::options::LoadOptions;
use super::rule::Rule;
use super::sources::Sources;

/// What `maturity` may say.
pub(super) const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated"];

/// Once this much was said, the rest of the rules is not compiled.
const MAX_SAID: usize = 1000;

pub(super) fn from_paths(paths: &[PathBuf], options: &LoadOptions) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::new(options);
    loader.add_paths(paths);
    loader.finish()
}

pub(super) fn from_texts(sources: &[(&str, &str)], options: &LoadOptions) -> Result<RuleSet, LoadError> {
    let mut loader = Loader::new(options);
    loader.add_texts(sources);
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
pub(super) fn parts(paths: &[PathBuf], options: &LoadOptions) -> Result<Parts, LoadError> {
    let mut loader = Loader::new(options);
    loader.add_paths(paths);
    loader.finish_parts()
}

/// As [`from_texts`], with the parts.
pub(super) fn parts_of_texts(sources: &[(&str, &str)], options: &LoadOptions) -> Result<Parts, LoadError> {
    let mut loader = Loader::new(options);
    loader.add_texts(sources);
    loader.finish_parts()
}

/// A rule that is nothing but a condition, which may use the macros and lists of these files.
pub(super) fn expression(paths: &[PathBuf], text: &str) -> Result<Rule, LoadError> {
    let options = LoadOptions::default();
    let mut loader = Loader::new(&options);
    loader.add_paths(paths);
    let condition = Text::loose("EXPRESSION", text);
    loader.files.push(condition.source_name().to_owned());
    let compiled = loader.library.compile(&condition, 0);
    loader.diagnostics.append(&mut loader.library.diagnostics);
    let compiled = compiled.map_err(|failure| loader.diagnostics.extend(failure.diagnostics)).ok();
    loader.diagnostics.retain(Diagnostic::is_error);
    match compiled {
        Some(compiled) if loader.diagnostics.is_empty() => Ok(Rule::of_condition(text, compiled)),
        _ => Err(LoadError::new(in_reading_order(loader.diagnostics, &loader.files))),
    }
}

/// What becomes of the rules of files, all of which are taken for Falco's.
pub(super) fn falco(paths: &[PathBuf]) -> falco::Checked {
    let options = LoadOptions::default();
    let mut loader = Loader { all_falco: true, ..Loader::new(&options) };
    loader.add_paths(paths);
    loader.build();
    falco::Checked {
        standings: loader.standings,
        diagnostics: in_reading_order(loader.diagnostics, &loader.files),
    }
}

/// Collects items and diagnostics.
struct Loader<'o> {
    options: &'o LoadOptions,
    /// Whether every file is taken for Falco's.
    all_falco: bool,
    /// What becomes of the rules of Falco's files.
    standings: Vec<Standing>,
    /// Names of files and directories, in order.
    files: Vec<String>,
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
    library: Library,
    book: RuleBook,
}

impl<'o> Loader<'o> {
    fn new(options: &'o LoadOptions) -> Self {
        Loader {
            options,
            all_falco: false,
            standings: Vec::new(),
            files: Vec::new(),
            sources: Vec::new(),
            diagnostics: Vec::new(),
            library: Library::default(),
            book: RuleBook::default(),
        }
    }

    fn add_paths(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.files.push(path.display().to_string());
            for file in files::find(path, self.options.trust, &mut self.diagnostics) {
                self.files.push(file.display().to_string());
                if let Some(text) = files::read(&file, self.options.trust, &mut self.diagnostics) {
                    self.add(file.display().to_string(), text);
                }
            }
        }
    }

    fn add_texts(&mut self, sources: &[(&str, &str)]) {
        for (name, text) in sources {
            self.add((*name).to_owned(), (*text).to_owned());
        }
    }

    fn add(&mut self, name: String, text: String) {
        self.files.push(name.clone());
        if self.all_falco || Dialect::of(&text).is_falco() {
            self.library.falco.insert(name.clone());
        }
        let source: Source = Arc::new(SourceFile::new(name, text));
        self.sources.push(Arc::clone(&source));
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

    fn finish(self) -> Result<RuleSet, LoadError> {
        self.finish_parts().map(|parts| parts.set)
    }

    fn finish_parts(mut self) -> Result<Parts, LoadError> {
        let (rules, items) = self.build();
        if self.diagnostics.iter().any(Diagnostic::is_error) {
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
        let mut items = std::mem::take(&mut self.book).into_rules();
        for item in &mut items {
            if self.diagnostics.len() > MAX_SAID {
                let message =
                    format!("more than {MAX_SAID} things are wrong; the other rules were not compiled");
                self.diagnostics.push(item.name.wrong(message));
                break;
            }
            let rule = if self.library.dialect(&item.name).is_falco() {
                self.falco_rule(item)
            } else if self.is_left_out(item) {
                None
            } else {
                self.options.extend_output(item);
                self.rule(item)
            };
            if let Some(rule) = rule {
                self.unique(item, &rule, &mut ids);
                rules.push(rule);
            }
        }
        self.options.select(&mut rules, &mut self.diagnostics);
        let unused = self.library.unknown_in_unused();
        self.diagnostics.extend(unused);
        self.diagnostics.append(&mut self.library.diagnostics);
        (rules, items)
    }

    /// A rule of Falco's: left out if something it needs is not here.
    fn falco_rule(&mut self, item: &mut RuleItem) -> Option<Rule> {
        let (status, notes, rule) = match item.source.as_ref().filter(|source| source.as_str() != SYSCALL) {
            Some(source) => (Status::NotLoaded, vec![falco::missing_source(source.as_str())], None),
            None => {
                self.options.extend_output(item);
                match self.rule(item) {
                    Some(rule) => {
                        let (status, notes) = falco::judge(&rule.node, rule.types, &rule.output);
                        (status, notes, Some(rule))
                    }
                    None => (Status::Wrong, Vec::new(), None),
                }
            }
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
