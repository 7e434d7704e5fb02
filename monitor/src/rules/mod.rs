//! Rules: files in, matches out.
//!
//! `file` reads YAML into items, `condition` parses conditions into syntax trees (`ast`), `compile` looks up
//! macros, lists, fields and types, and `eval` answers whether an event fits. A [`RuleSet`] is immutable, and
//! matching is pure: it neither allocates for plain values nor does any I/O.

pub mod ast;
mod check;
mod collect;
mod compile;
pub mod condition;
mod decide;
pub mod diagnostic;
mod eval;
mod exception;
mod explain;
pub mod falco;
mod file;
mod files;
pub mod fuzz;
mod getopt;
mod lexer;
mod library;
pub mod lint;
mod load;
mod number;
mod operand;
mod options;
mod partial;
mod pattern;
mod priority;
mod re2;
pub mod reference;
mod rule;
mod said;
mod sample;
pub mod schema;
mod sources;
pub mod syntax;
mod template;
mod testing;
mod grouping;
mod threshold;
mod transform;
mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::diagnostic::{Diagnostic, LoadError, Severity};
use self::eval::{Memo, Node, Special};
pub use self::exception::Exception;
pub use self::explain::{Explained, Part, Reason};
pub use self::file::ENGINE_VERSION;
pub use self::grouping::{GROUP_BY, GroupDefault, Grouping, MAX_GROUP_SECONDS, check_group_seconds};
pub(crate) use self::operand::bracketed_text;
pub use self::operand::field_text;
pub use self::options::{AppendOutput, LoadOptions, OutputOf, Selection, Which};
pub use self::partial::Maybe;
pub use self::priority::{Priority, UnknownPriority};
pub use self::rule::Rule;
pub use self::sample::{MAX_EVENT_BYTES, Sample};
pub use self::sources::Sources;
pub use self::template::Template;
pub use self::testing::{Gaps, RuleReport, RuleTest, TestOutcome, TestReport};
pub use self::threshold::{COUNTS, MAX_BY, NamedField, Threshold, WITHIN};
use crate::event_type::{EventType, TYPE_SLOTS};
use crate::fields::{FieldRef, FieldSource, Value};

/// Compiled rules, indexed by the type of event.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// What to match, by the slot of the type.
    by_type: [Vec<Candidate>; TYPE_SLOTS],
    warnings: Vec<Diagnostic>,
    sources: Sources,
}

/// A rule that events of one type can match.
#[derive(Clone, Debug)]
struct Candidate {
    /// Its position in the rule set.
    position: usize,
    /// Its condition for events of this type.
    node: Arc<Node>,
}

impl RuleSet {
    /// Loads rule files, and the `.yaml` and `.yml` files of directories in the order of their names. Later
    /// definitions replace earlier ones of the same name.
    ///
    /// # Errors
    /// Everything that is wrong in all files: those that cannot be read or are too large, directories
    /// without a rule file, and every mistake in the rules with its line and column.
    pub fn load(paths: &[PathBuf]) -> Result<RuleSet, LoadError> {
        RuleSet::load_with(paths, &LoadOptions::default())
    }

    /// As [`RuleSet::load`], with a say in which files are trusted, which rules are enabled and what day it is.
    ///
    /// # Errors
    /// As [`RuleSet::load`].
    pub fn load_with(paths: &[PathBuf], options: &LoadOptions) -> Result<RuleSet, LoadError> {
        load::from_paths(paths, options)
    }

    /// Loads rules from texts, given with names for messages.
    ///
    /// # Errors
    /// As [`RuleSet::load`], but for files.
    pub fn from_sources(sources: &[(&str, &str)]) -> Result<RuleSet, LoadError> {
        RuleSet::from_sources_with(sources, &LoadOptions::default())
    }

    /// The same rules, of whose alerts none are held together.
    pub fn ungrouped(mut self) -> Self {
        self.rules.iter_mut().for_each(|rule| rule.grouping = None);
        self
    }

    /// As [`RuleSet::from_sources`], with a say in which rules are enabled and what day it is.
    ///
    /// # Errors
    /// As [`RuleSet::from_sources`].
    pub fn from_sources_with(sources: &[(&str, &str)], options: &LoadOptions) -> Result<RuleSet, LoadError> {
        load::from_texts(sources, options)
    }

    fn new(mut rules: Vec<Rule>, warnings: Vec<Diagnostic>, sources: Sources) -> Self {
        for (position, rule) in rules.iter_mut().enumerate() {
            rule.position = position;
        }
        let mut by_type: [Vec<Candidate>; TYPE_SLOTS] = std::array::from_fn(|_| Vec::new());
        for ty in EventType::all() {
            let Some(candidates) = by_type.get_mut(ty.slot()) else { continue };
            for (position, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
                let node = match rule.node.specialise(ty) {
                    Special::Decided(false) => continue,
                    // Nothing is left to ask: no member of an `and` can be false.
                    Special::Decided(true) => Arc::new(Node::And(Box::default())),
                    Special::Same => Arc::clone(&rule.node),
                    Special::Rest(node) => Arc::new(node),
                };
                candidates.push(Candidate { position, node });
            }
        }
        RuleSet { rules, by_type, warnings, sources }
    }

    /// All rules in the order of the files, the disabled ones included.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The files that it was made of.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The next last day, in UTC, of an exception that still excepts: rules are to be loaded anew when it has passed.
    pub fn next_expiry(&self) -> Option<time::Date> {
        let exceptions = self.rules.iter().flat_map(|rule| &rule.exceptions);
        exceptions.filter(|exception| !exception.expired).filter_map(|exception| exception.expires).min()
    }

    /// What was found odd, though not wrong, while loading.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Whether an event of which some fields are not known yet may match an enabled rule of at least this priority,
    /// whatever those turn out to be.
    pub fn may_match<'k>(
        &self,
        ty: impl Into<EventType>,
        least: Priority,
        known: impl Fn(FieldRef) -> Option<Value<'k>> + 'k,
    ) -> bool {
        let candidates = self.by_type.get(ty.into().slot()).map_or(&[][..], Vec::as_slice);
        candidates.iter().any(|candidate| {
            let may_alert = self.rules.get(candidate.position).is_some_and(|rule| rule.priority >= least);
            may_alert && candidate.node.partly(&known) != Maybe::Fails
        })
    }

    /// Calls back with every enabled rule that an event matches, in order. The event's `evt.type` must be the
    /// type's name: what a condition asks of it has been decided at load.
    pub fn matches<'r, E: FieldSource + ?Sized>(
        &'r self,
        ty: impl Into<EventType>,
        event: &E,
        mut on_match: impl FnMut(&'r Rule),
    ) {
        let memo = Memo::default();
        let candidates = self.by_type.get(ty.into().slot()).map_or(&[][..], Vec::as_slice);
        for candidate in candidates.iter().filter(|candidate| candidate.node.holds(event, &memo)) {
            if let Some(rule) = self.rules.get(candidate.position) {
                on_match(rule);
            }
        }
    }
}
