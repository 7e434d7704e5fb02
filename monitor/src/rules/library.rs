//! The macros and lists of all files: looked up by name, worked out once, circles found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ast::{ExprKind, Right};
use super::compile::{Compiled, Compiler, Known, MAX_DEPTH, MAX_MEMBERS, NameProblem, Names, State, States};
use super::condition;
use super::diagnostic::{Diagnostic, did_you_mean};
use super::eval::Slot;
use super::falco::Dialect;
use super::file::{Effect, ListItem, MacroItem, Text};
use super::operand::Problem;
use super::pattern::Patterns;

/// All conditions and lists together may take this many members from lists: each use is a copy.
const MAX_HANDED_OUT: usize = 100_000;

/// Macros and lists by name, the last definition of each.
#[derive(Default)]
pub(crate) struct Library {
    macros: HashMap<String, Defined<MacroItem>>,
    lists: HashMap<String, Arc<ListItem>>,
    /// Counts macros in the order of the files.
    turn: usize,
    /// Of the macros that are being compiled: where they were last changed. They see only what stood before.
    compiling: Vec<usize>,
    macro_states: States<Compiled>,
    list_states: States<Arc<[String]>>,
    next_slot: Slot,
    /// The names of the files that are Falco's.
    pub(crate) falco: HashSet<String>,
    /// Members of lists that were handed to conditions so far.
    handed_out: usize,
    patterns: Patterns,
    /// Of macros of which nothing is wrong but fields that the catalogue does not have: what that is.
    unknown: HashMap<String, Vec<Diagnostic>>,
    /// Those of them that something uses, which reports it.
    used_unknown: HashSet<String>,
    /// What was found wrong in macros and lists.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// A macro, and when it was defined.
#[derive(Clone)]
struct Defined<T> {
    item: Arc<T>,
    /// When its name was first defined.
    first: usize,
    /// When it was last defined or appended to.
    last: usize,
}

impl Library {
    /// Defines a macro or appends to it.
    pub(crate) fn add_macro(&mut self, item: MacroItem, effect: Effect) {
        self.turn += 1;
        let turn = self.turn;
        let name = item.name.as_str();
        match (self.macros.get_mut(name), effect) {
            (Some(known), Effect::Append) => {
                known.last = turn;
                let known = Arc::make_mut(&mut known.item);
                // What is missing was reported.
                if let (Some(condition), Some(more)) = (&mut known.condition, item.condition) {
                    condition.append(more);
                }
            }
            (Some(known), Effect::Define) => {
                known.last = turn;
                known.item = Arc::new(item);
            }
            (None, Effect::Append) => {
                let names = self.macros.keys().map(String::as_str);
                self.diagnostics.push(nothing_to_append_to("macro", &item.name, names));
            }
            (None, Effect::Define) => {
                let defined = Defined { first: turn, last: turn, item: Arc::new(item) };
                self.macros.insert(defined.item.name.as_str().to_owned(), defined);
            }
        }
    }

    /// Defines a list or appends to it.
    pub(crate) fn add_list(&mut self, item: ListItem, effect: Effect) {
        let name = item.name.as_str();
        match (self.lists.get_mut(name), effect) {
            (Some(known), Effect::Append) => {
                let known = Arc::make_mut(known);
                if let (Some(items), Some(more)) = (&mut known.items, item.items) {
                    items.extend(more);
                }
            }
            (None, Effect::Append) => {
                let names = self.lists.keys().map(String::as_str);
                self.diagnostics.push(nothing_to_append_to("list", &item.name, names));
            }
            (_, Effect::Define) => {
                self.lists.insert(name.to_owned(), Arc::new(item));
            }
        }
    }

    /// The macros, by name.
    pub(crate) fn macros(&self) -> Vec<Arc<MacroItem>> {
        let mut macros: Vec<Arc<MacroItem>> =
            self.macros.values().map(|known| Arc::clone(&known.item)).collect();
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
        self.macros.get(name).and_then(|known| known.item.condition.clone())
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
            let inner = match unquoted(item.as_str()) {
                Some(text) => {
                    members.push(text);
                    continue;
                }
                None => self.lists.get(item.as_str()).cloned(),
            };
            let Some(inner) = inner else {
                members.push(item.as_str().to_owned());
                continue;
            };
            match self.list_at(&inner, depth + 1) {
                Ok(Known::Good(more)) => {
                    self.handed_out = self.handed_out.saturating_add(more.len());
                    if self.handed_out > MAX_HANDED_OUT {
                        self.diagnostics.push(item.wrong(too_many()));
                        good = false;
                        break;
                    }
                    members.extend(more.iter().cloned());
                }
                Ok(Known::Bad | Known::Unknown) => good = false,
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

    /// Fields that the catalogue does not have, in macros that nothing uses: no rule misses them.
    pub(crate) fn unknown_in_unused(&mut self) -> Vec<Diagnostic> {
        let used = &self.used_unknown;
        let unused = self.unknown.drain().filter(|(name, _)| !used.contains(name));
        unused.flat_map(|(_, found)| found).map(Diagnostic::warning).collect()
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
        let Compiler { problems, warnings, spoilt, unknown_macros, .. } = compiler;
        self.diagnostics.extend(warnings.into_iter().map(|odd| diagnostic(text, odd).warning()));
        if let Some(compiled) = compiled {
            return Ok(compiled);
        }
        let only_unknown_fields = !spoilt && problems.iter().all(|problem| problem.unknown_field);
        let mut diagnostics: Vec<_> = problems.into_iter().map(|problem| diagnostic(text, problem)).collect();
        for name in unknown_macros {
            diagnostics.extend(self.unknown.get(&name).into_iter().flatten().cloned());
            self.used_unknown.insert(name);
        }
        Err(Failure { diagnostics, only_unknown_fields })
    }
}

fn too_many() -> String {
    format!("conditions and lists take more than {MAX_HANDED_OUT} members from lists")
}

/// The text that a member of a list stands for if it is in the quotes of the condition language; YAML's own quotes
/// are gone by now. Such a member is never a list's name.
pub(crate) fn unquoted(member: &str) -> Option<String> {
    if !member.starts_with(['"', '\'']) {
        return None;
    }
    let expr = condition::parse(&format!("a.b = {member}")).ok()?;
    match expr.value {
        ExprKind::Compare(_, _, Right::Value(literal)) if literal.value.quoted => Some(literal.value.text),
        _ => None,
    }
}

fn nothing_to_append_to<'n>(kind: &str, name: &Text, names: impl Iterator<Item = &'n str>) -> Diagnostic {
    let message = format!("there is no {kind} `{}` to append to", name.as_str());
    let help = did_you_mean(name.as_str(), names)
        .unwrap_or_else(|| format!("the {kind} must stand before what is appended to it"));
    name.wrong(message).help(help)
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
        if matches!(self.macro_states.get(name), Some(State::Open)) {
            return Err(circle("macro", name));
        }
        if let (Some(known), Some(user)) = (self.macros.get(name), self.compiling.last())
            && known.first >= *user
        {
            return Err(NameProblem {
                message: format!("the macro `{name}` is defined only later"),
                help: Some("a macro can use the macros that stand before it; a rule can use all".to_owned()),
            });
        }
        if let Some(State::Done(known)) = self.macro_states.get(name) {
            return Ok(known.clone());
        }
        let Some(Defined { item, last, .. }) = self.macros.get(name).cloned() else {
            let mut problem = NameProblem::unknown("macro", name, self.macros.keys().map(String::as_str));
            if self.has_list(name) {
                problem.help = Some(format!("`{name}` is a list; compare a field with it by `in`"));
            }
            return Err(problem);
        };
        self.macro_states.insert(name.to_owned(), State::Open);
        self.compiling.push(last);
        let compiled = item.condition.as_ref().map(|condition| self.compile(condition, depth));
        self.compiling.pop();
        let known = match compiled {
            Some(Ok(compiled)) => {
                let slot = self.next_slot;
                self.next_slot = slot.saturating_add(1);
                Known::Good(compiled.numbered(slot))
            }
            Some(Err(failure)) if failure.only_unknown_fields => {
                self.unknown.insert(name.to_owned(), failure.diagnostics);
                Known::Unknown
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
            Some(list) => {
                let known = self.list_at(&list, 1)?;
                if let Known::Good(members) = &known {
                    self.handed_out = self.handed_out.saturating_add(members.len());
                }
                if self.handed_out > MAX_HANDED_OUT {
                    let message = too_many();
                    let help = "ask for the list in a macro, and use that in the conditions";
                    return Err(NameProblem { message, help: Some(help.to_owned()) });
                }
                Ok(known)
            }
            None => Err(NameProblem::unknown("list", name, self.lists.keys().map(String::as_str))),
        }
    }

    fn has_list(&self, name: &str) -> bool {
        self.lists.contains_key(name)
    }

    fn patterns(&mut self) -> &mut Patterns {
        &mut self.patterns
    }
}
