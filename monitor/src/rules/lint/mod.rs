//! `rules lint`: what is right in rule files and still most likely not what was meant.
//!
//! Nothing is reported that is not so: that a rule is shadowed or unreachable is proven by simple steps (`logic`) on its
//! condition, in which macros are expanded (`form`). What those steps cannot show is not found.

mod allow;
mod compare;
mod exceptions;
mod form;
mod logic;
mod names;
mod regexes;
mod rules;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::form::Builder;
use super::ast::words;
use super::diagnostic::{Diagnostic, LoadError, Source};
use super::file::{ListItem, MacroItem, RuleItem, Text};
use super::load::{self, Parts};
use super::options::LoadOptions;
use super::rule::Rule;
use crate::recording::{Item, Recording};

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
        /// The last day of an exception has passed.
        ExceptionExpired = "exception-expired",
        /// Nothing shows that an exception excepts anything.
        ExceptionUnhit = "exception-unhit",
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
            Kind::ExceptionExpired => {
                "the last day of an exception has passed, so it does not except any more"
            }
            Kind::ExceptionUnhit => {
                "a note: no test of the rule, or with `--events` no recorded event, is one that the exception excepts and the rule would have matched"
            }
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

/// Why nothing was looked at.
#[derive(Debug)]
pub enum Unlinted {
    /// The rules cannot be loaded.
    Load(LoadError),
    /// The recorded events cannot be read.
    Events(io::Error),
}

/// Looks at rule files and directories, and at what recorded events say about exceptions; without, the rules' own tests
/// say it.
///
/// # Errors
/// The rules cannot be loaded, or the events not be read.
pub fn lint(paths: &[PathBuf], options: &LoadOptions, events: Option<&Path>) -> Result<Vec<Found>, Unlinted> {
    let events = events.map(Recording::open).transpose().map_err(Unlinted::Events)?;
    look(load::parts(paths, options).map_err(Unlinted::Load)?, events).map_err(Unlinted::Events)
}

/// Looks at texts, given with names for messages.
///
/// # Errors
/// The rules cannot be loaded.
pub fn lint_sources(sources: &[(&str, &str)]) -> Result<Vec<Found>, LoadError> {
    let no_events: Option<Recording<File>> = None;
    // Nothing is read, so nothing fails to be.
    Ok(look(load::parts_of_texts(sources, &LoadOptions::default())?, no_events).unwrap_or_default())
}

fn look<R: Read>(parts: Parts, events: Option<Recording<R>>) -> io::Result<Vec<Found>> {
    let Parts { set, items, mut library, sources } = parts;
    let (macros, lists) = (library.macros(), library.lists());
    let material = Material { rules: set.rules(), items: &items, macros: &macros, lists: &lists };
    let mut found = Vec::new();
    let mut judged = rules::judged(&material, &mut Builder::new(&mut library));
    rules::unreachable(&mut judged, &mut found);
    rules::shadowed(&judged, &mut found);
    rules::outputs(&judged, &mut found);
    rules::untested(&judged, &mut found);
    exceptions::expired(&judged, &mut found);
    let mut watch = exceptions::Watch::new(&judged, &mut library);
    if !watch.is_empty() {
        let recorded = events.is_some();
        match events {
            Some(mut events) => {
                while let Some(item) = events.next_item()? {
                    if let Item::Event(event) = item {
                        watch.event(&event.values);
                    }
                }
                if events.is_foreign() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it is no recording of ringfence",
                    ));
                }
            }
            None => watch.own_tests(),
        }
        watch.report(recorded, &mut found);
    }
    names::unused(&material, &mut found);
    names::duplicates(&material, &mut found);
    regexes::check(&material, &mut found);
    allow::silence(&sources, &mut found);
    let place = |found: &Found| {
        let file = sources.iter().position(|source: &Source| source.name() == found.diagnostic.file_name());
        (file, found.diagnostic.line_column(), found.kind.word())
    };
    found.sort_by_cached_key(place);
    Ok(found)
}

#[cfg(test)]
mod tests;
