//! `rules lint`: what is right in rule files and still most likely not what was meant.
//!
//! Nothing is reported that is not so: that a rule is shadowed or unreachable is proven by simple steps (`logic`) on its
//! condition, in which macros are expanded (`form`). What those steps cannot show is not found.

mod allow;
mod compare;
mod form;
mod logic;
mod names;
mod regexes;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;

use self::form::Builder;
use super::ast::words;
use super::diagnostic::{Diagnostic, LoadError, Source};
use super::file::{ListItem, MacroItem, RuleItem, Text};
use super::load::{self, Parts};
use super::rule::Rule;

words! {
    /// What can be found, by the word that comments silence it with.
    Kind {
        /// Another rule matches all that this one does, and is at least as urgent.
        Shadowed = "shadowed",
        /// The condition can never hold.
        Unreachable = "unreachable",
        /// No rule uses the macro.
        UnusedMacro = "unused-macro",
        /// No rule uses the list.
        UnusedList = "unused-list",
        /// A list has a member twice.
        DuplicateMember = "duplicate-member",
        /// A regular expression is near the limit of size.
        RegexSize = "regex-size",
        /// Repetitions inside of each other.
        RegexRepetition = "regex-repetition",
        /// An operator for texts, or a list, would do.
        RegexPlain = "regex-plain",
        /// A regular expression begins with `.*`.
        RegexLeading = "regex-leading",
        /// The output names a field that no event of the rule has.
        AbsentOutput = "absent-output",
        /// The rule's tests show no match, or no near miss.
        Untested = "untested",
        /// A comment for the linter that it does not understand.
        AllowWrong = "allow-wrong",
        /// A comment silences what is not there.
        AllowIdle = "allow-idle",
    }
}

impl Kind {
    /// What it means, for the reference.
    pub const fn meaning(self) -> &'static str {
        match self {
            Kind::Shadowed => {
                "whatever the rule matches, another enabled rule without a threshold matches too, and is at least as urgent; of two that are the same, the later one"
            }
            Kind::Unreachable => {
                "the condition can never hold: tests that exclude each other, an empty list, no type of event left, or a field that these events never have"
            }
            Kind::UnusedMacro => "no rule uses the macro, not even by way of others",
            Kind::UnusedList => "the same of a list",
            Kind::DuplicateMember => "a list has a member twice as it is written",
            Kind::RegexSize => "a regular expression takes more than a quarter of the size that one may have",
            Kind::RegexRepetition => {
                "counted repetitions inside of each other make more than 1,000 copies of a part"
            }
            Kind::RegexPlain => {
                "a regular expression says what `=`, `startswith`, `endswith`, `contains` or `in` says (of values without line breaks)"
            }
            Kind::RegexLeading => "a regular expression begins with `.*`",
            Kind::AbsentOutput => "the output names a field that no event of the rule has",
            Kind::Untested => {
                "no test of the enabled rule shows an event that it matches, or none a near miss: one that it does not match because of a single sub-condition"
            }
            Kind::AllowWrong => "a comment for the linter names no kind of finding, or gives no reason",
            Kind::AllowIdle => "a comment silences what is not there",
        }
    }
}

/// One thing found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of which kind.
    pub kind: Kind,
    /// Whether it is only said, and nothing is wrong with it.
    pub note: bool,
    /// What, where and what to do.
    pub diagnostic: Diagnostic,
}

impl Found {
    fn new(kind: Kind, diagnostic: Diagnostic) -> Self {
        Found { kind, note: false, diagnostic: diagnostic.warning() }
    }

    /// The kind that a comment can silence; those about comments stay.
    fn silenced_as(&self) -> Option<Kind> {
        (!matches!(self.kind, Kind::AllowWrong | Kind::AllowIdle)).then_some(self.kind)
    }
}

/// What is looked at.
struct Material<'m> {
    rules: &'m [Rule],
    items: &'m [RuleItem],
    macros: &'m [Arc<MacroItem>],
    lists: &'m [Arc<ListItem>],
}

impl<'m> Material<'m> {
    /// The conditions of rules and macros, as they are written.
    fn conditions(&self) -> impl Iterator<Item = &'m Text> {
        let rules = self.items.iter().filter_map(|item| item.condition.as_ref());
        rules.chain(self.macros.iter().filter_map(|item| item.condition.as_ref()))
    }
}

/// Looks at rule files and directories.
///
/// # Errors
/// The rules cannot be loaded.
pub fn lint(paths: &[PathBuf]) -> Result<Vec<Found>, LoadError> {
    Ok(look(load::parts(paths)?))
}

/// Looks at texts, given with names for messages.
///
/// # Errors
/// As [`lint`].
pub fn lint_sources(sources: &[(&str, &str)]) -> Result<Vec<Found>, LoadError> {
    Ok(look(load::parts_of_texts(sources)?))
}

fn look(parts: Parts) -> Vec<Found> {
    let Parts { set, items, mut library, sources } = parts;
    let (macros, lists) = (library.macros(), library.lists());
    let material = Material { rules: set.rules(), items: &items, macros: &macros, lists: &lists };
    let mut found = Vec::new();
    let mut judged = rules::judged(&material, &mut Builder::new(&mut library));
    rules::unreachable(&mut judged, &mut found);
    rules::shadowed(&judged, &mut found);
    rules::outputs(&judged, &mut found);
    rules::untested(&judged, &mut found);
    names::unused(&material, &mut found);
    names::duplicates(&material, &mut found);
    regexes::check(&material, &mut found);
    allow::silence(&sources, &mut found);
    let place = |found: &Found| {
        let file = sources.iter().position(|source: &Source| source.name() == found.diagnostic.file_name());
        (file, found.diagnostic.line_column(), found.kind.word())
    };
    found.sort_by_cached_key(place);
    found
}

#[cfg(test)]
mod tests;
