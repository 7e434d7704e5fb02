//! The macros and lists of all files: looked up by name, worked out once, circles found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compile::{Compiled, Compiler, Known, MAX_DEPTH, MAX_MEMBERS, NameProblem, Names, State, States};
use super::condition;
use super::diagnostic::Diagnostic;
use super::eval::Slot;
use super::falco::Dialect;
use super::file::{ListItem, MacroItem, Text};
use super::operand::Problem;

/// Macros and lists by name, the last definition of each.
#[derive(Default)]
pub(crate) struct Library {
    macros: HashMap<String, Arc<MacroItem>>,
    lists: HashMap<String, Arc<ListItem>>,
    macro_states: States<Compiled>,
    list_states: States<Arc<[String]>>,
    next_slot: Slot,
    /// The names of the files that are Falco's.
    pub(crate) falco: HashSet<String>,
    /// What was found wrong in macros and lists.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Library {
    pub(crate) fn add_macro(&mut self, item: MacroItem) {
        self.macros.insert(item.name.as_str().to_owned(), Arc::new(item));
    }

    pub(crate) fn add_list(&mut self, item: ListItem) {
        self.lists.insert(item.name.as_str().to_owned(), Arc::new(item));
    }

    /// The macros, by name.
    pub(crate) fn macros(&self) -> Vec<Arc<MacroItem>> {
        let mut macros: Vec<Arc<MacroItem>> = self.macros.values().cloned().collect();
        macros.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        macros
    }

    /// The lists, by name.
    pub(crate) fn lists(&self) -> Vec<Arc<ListItem>> {
        let mut lists: Vec<Arc<ListItem>> = self.lists.values().cloned().collect();
        lists.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        lists
    }

    /// The condition of a macro.
    pub(crate) fn macro_text(&self, name: &str) -> Option<Text> {
        self.macros.get(name).and_then(|item| item.condition.clone())
    }

    /// Works everything out, so that errors in what no rule uses are found too.
    pub(crate) fn check_all(&mut self) {
        for list in self.lists() {
            let _reported = self.list_at(&list, 1);
        }
        for item in self.macros() {
            if self.macro_named(item.name.as_str(), 0).is_err() {
                // Only circles and unknown names are errors here, and each is reported where it is used.
                continue;
            }
        }
    }

    /// The members of a list; errors in it are reported at their places.
    fn list_at(&mut self, list: &ListItem, depth: usize) -> Result<Known<Arc<[String]>>, NameProblem> {
        let name = list.name.as_str();
        match self.list_states.get(name) {
            Some(State::Done(known)) => return Ok(known.clone()),
            Some(State::Open) => return Err(circle("list", name)),
            None => {}
        }
        if depth > MAX_DEPTH {
            return Err(NameProblem {
                message: format!("lists nested more than {MAX_DEPTH} deep"),
                help: None,
            });
        }
        self.list_states.insert(name.to_owned(), State::Open);
        let mut members: Vec<String> = Vec::new();
        let mut good = list.items.is_some();
        for item in list.items.iter().flatten() {
            let inner = if item.is_quoted() { None } else { self.lists.get(item.as_str()).cloned() };
            let Some(inner) = inner else {
                members.push(item.as_str().to_owned());
                continue;
            };
            match self.list_at(&inner, depth + 1) {
                Ok(Known::Good(more)) => members.extend(more.iter().cloned()),
                Ok(Known::Bad) => good = false,
                Err(problem) => {
                    good = false;
                    self.diagnostics.push(item.wrong(problem.message).maybe_help(problem.help));
                }
            }
            if members.len() > MAX_MEMBERS {
                let message = format!("more than {MAX_MEMBERS} members, other lists included");
                self.diagnostics.push(item.wrong(message));
                good = false;
                break;
            }
        }
        let known = if good { Known::Good(members.into()) } else { Known::Bad };
        self.list_states.insert(name.to_owned(), State::Done(known.clone()));
        Ok(known)
    }

    /// Whose language a text of a file speaks.
    pub(crate) fn dialect(&self, text: &Text) -> Dialect {
        if self.falco.contains(text.source_name()) { Dialect::Falco } else { Dialect::Ours }
    }

    /// Parses and compiles a condition; errors become diagnostics. The flag tells of unknown fields alone.
    pub(crate) fn compile(&mut self, text: &Text, depth: usize) -> Result<Compiled, Failure> {
        let expr = match condition::parse(text.as_str()) {
            Ok(expr) => expr,
            Err(error) => {
                let part = super::ast::Span { start: error.offset, end: error.offset + 1 };
                let diagnostic = text.wrong_at(part, error.message).maybe_help(error.help);
                return Err(Failure { diagnostics: vec![diagnostic], only_unknown_fields: false });
            }
        };
        let dialect = self.dialect(text);
        let mut compiler = Compiler::new(self, dialect, depth);
        let compiled = compiler.compile(&expr);
        let Compiler { problems, spoilt, .. } = compiler;
        compiled.ok_or_else(|| Failure {
            only_unknown_fields: !spoilt && problems.iter().all(|problem| problem.unknown_field),
            diagnostics: problems.into_iter().map(|problem| diagnostic(text, problem)).collect(),
        })
    }
}

/// Why a condition could not be compiled.
pub(crate) struct Failure {
    /// Empty if what it uses is wrong and has been reported there.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Nothing is wrong but fields that the catalogue does not have.
    pub(crate) only_unknown_fields: bool,
}

/// A problem in a text of a file.
pub(crate) fn diagnostic(text: &Text, problem: Problem) -> Diagnostic {
    text.wrong_at(problem.span, problem.message).maybe_help(problem.help)
}

fn circle(kind: &str, name: &str) -> NameProblem {
    NameProblem { message: format!("the {kind} `{name}` contains itself"), help: None }
}

impl Names for Library {
    fn macro_named(&mut self, name: &str, depth: usize) -> Result<Known<Compiled>, NameProblem> {
        match self.macro_states.get(name) {
            Some(State::Done(known)) => return Ok(known.clone()),
            Some(State::Open) => return Err(circle("macro", name)),
            None => {}
        }
        let Some(item) = self.macros.get(name).cloned() else {
            let mut problem = NameProblem::unknown("macro", name, self.macros.keys().map(String::as_str));
            if self.has_list(name) {
                problem.help = Some(format!("`{name}` is a list; compare a field with it by `in`"));
            }
            return Err(problem);
        };
        self.macro_states.insert(name.to_owned(), State::Open);
        let known = match item.condition.as_ref().map(|condition| self.compile(condition, depth)) {
            Some(Ok(compiled)) => {
                let slot = self.next_slot;
                self.next_slot = slot.saturating_add(1);
                Known::Good(compiled.numbered(slot))
            }
            Some(Err(mut failure)) => {
                self.diagnostics.append(&mut failure.diagnostics);
                Known::Bad
            }
            None => Known::Bad,
        };
        self.macro_states.insert(name.to_owned(), State::Done(known.clone()));
        Ok(known)
    }

    fn list_named(&mut self, name: &str) -> Result<Known<Arc<[String]>>, NameProblem> {
        match self.lists.get(name).cloned() {
            Some(list) => self.list_at(&list, 1),
            None => Err(NameProblem::unknown("list", name, self.lists.keys().map(String::as_str))),
        }
    }

    fn has_list(&self, name: &str) -> bool {
        self.lists.contains_key(name)
    }
}
