//! What becomes of a rule of Falco's: it loads, it loads with approximations, or it cannot work here.

use std::path::PathBuf;
use std::sync::Arc;

use monitor_common::call::Call;

use super::events::{Watched, watched};
use super::{Dialect, Foreign};
use crate::event_type::{EventType, TypeSet};
use crate::fields::{Field, FieldRef, Value};
use crate::rules::check::{Check, TextCheck};
use crate::rules::eval::{Node, Special};
use crate::rules::load;
use crate::rules::operand::{self, Source};
use crate::rules::template::Template;
use crate::rules::{Diagnostic, Maybe};

/// How much of a rule works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it.
    Loads,
    /// It is loaded, and something it asks for is only nearly what Falco has.
    Degraded,
    /// It is left out: something it needs is not here.
    NotLoaded,
    /// It is wrong, for Falco too.
    Wrong,
}

impl Status {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Loads => "loads",
            Status::Degraded => "degraded",
            Status::NotLoaded => "not loaded",
            Status::Wrong => "wrong",
        }
    }
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// A type of event.
    EventType,
    /// A field of the condition.
    Field,
    /// A field of the output.
    Output,
    /// The source of events.
    Source,
}

impl NoteKind {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            NoteKind::EventType => "event type",
            NoteKind::Field => "field",
            NoteKind::Output => "output",
            NoteKind::Source => "source",
        }
    }
}

/// Something that is missing or approximated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// Its name.
    pub name: String,
    /// Whether the rule cannot work without it.
    pub missing: bool,
    /// How what is here differs, or why nothing is.
    pub text: String,
}

/// What becomes of one rule.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The rule's name.
    pub rule: String,
    /// The file that defines it.
    pub file: String,
    /// The line of its name, from 1.
    pub line: usize,
    /// Whether it is enabled.
    pub enabled: bool,
    /// What becomes of it.
    pub status: Status,
    /// Why.
    pub notes: Vec<Note>,
}

/// What becomes of the rules of some files.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The rules, in the order of the files.
    pub standings: Vec<Standing>,
    /// What else was found in the files.
    pub diagnostics: Vec<Diagnostic>,
}

/// Says for each rule of Falco's files what becomes of it here. All files are taken for Falco's.
pub fn check(paths: &[PathBuf]) -> Checked {
    load::falco(paths)
}

/// Judges a rule by its condition and its output.
pub(crate) fn judge(node: &Arc<Node>, types: TypeSet, output: &Template) -> (Status, Vec<Note>) {
    let mut notes: Vec<Note> = Vec::new();
    let mut add = |kind, name: &str, missing, text: &str| {
        if !notes.iter().any(|note| note.kind == kind && note.name == name) {
            notes.push(Note { kind, name: name.to_owned(), missing, text: text.to_owned() });
        }
    };
    let asked = asked_types(node);
    let other_files = !types.is_empty() && types.iter().all(|ty| asks_for_other_files(node, ty));
    for name in &asked {
        match watched(name) {
            Watched::Whole => {}
            Watched::Partly(which) if other_files => {
                add(NoteKind::EventType, name, true, &format!("{which}; the rule asks for other files"));
            }
            Watched::Partly(which) => add(NoteKind::EventType, name, false, which),
            Watched::Not => add(NoteKind::EventType, name, types.is_empty(), "it is not watched"),
            Watched::Unknown => {
                add(NoteKind::EventType, name, types.is_empty(), "Falco has no such event either");
            }
        }
    }
    if other_files && asked.is_empty() {
        add(
            NoteKind::EventType,
            "open",
            true,
            "only opens of some devices are seen; the rule asks for other files",
        );
    }
    if types.is_empty() && !asked.iter().any(|name| matches!(watched(name), Watched::Not | Watched::Unknown))
    {
        add(NoteKind::EventType, "none", true, "its conditions contradict each other");
    }
    if !types.is_empty() {
        if asked.is_empty() {
            let text = "it does not say which events it is about, and Ringfence watches only some";
            add(NoteKind::EventType, "any", false, text);
        }
        let mut field = |foreign: &Foreign| {
            if let Some(how) = foreign.how {
                add(NoteKind::Field, &foreign.name, foreign.is_missing(), how);
            }
        };
        // What decides about other types of event does not count.
        for ty in types.iter() {
            match node.specialise(ty) {
                Special::Decided(_) => {}
                Special::Same => each_foreign(node, &mut field),
                Special::Rest(rest) => each_foreign(&rest, &mut field),
            }
        }
    }
    output.each_foreign(&mut |foreign| {
        if let Some(how) = foreign.how.filter(|_| foreign.is_missing()) {
            add(NoteKind::Output, &foreign.name, false, &format!("prints as <NA>: {how}"));
        }
    });
    let status = if notes.iter().any(|note| note.missing) {
        Status::NotLoaded
    } else if notes.is_empty() {
        Status::Loads
    } else {
        Status::Degraded
    };
    if status == Status::NotLoaded {
        notes.retain(|note| note.missing);
    }
    (status, notes)
}

/// Where the files lie whose opens are watched. They are known by their numbers, so another path is possible, but only
/// for who makes a node of the device.
const WATCHED_FILES: &[&str] =
    &["/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/cpu/0/msr", "/proc/kmsg", "/proc/kcore"];

/// Whether the type is an open, and the condition fails for each watched file, whatever else is true of the event.
fn asks_for_other_files(node: &Node, ty: EventType) -> bool {
    let is_open = matches!(
        ty.call(),
        Some(Call::Open | Call::Openat | Call::Openat2 | Call::Creat | Call::OpenByHandleAt)
    );
    is_open
        && WATCHED_FILES.iter().all(|path| {
            let known = |field: FieldRef| match field.field {
                Field::EvtType => Some(Value::text(ty.name())),
                Field::FdName => Some(Value::text(path)),
                Field::EvtArg if operand::field_text(field) == "evt.arg[path]" => Some(Value::text(path)),
                _ => None,
            };
            node.partly(&known) == Maybe::Fails
        })
}

/// The note on a rule of another source of events.
pub(crate) fn missing_source(source: &str) -> Note {
    let text = "Ringfence has no source of events but system calls".to_owned();
    Note { kind: NoteKind::Source, name: source.to_owned(), missing: true, text }
}

/// The types of event that a condition names as wanted, in order.
fn asked_types(node: &Node) -> Vec<String> {
    let mut asked = Vec::new();
    each_test(node, &mut |source, check| {
        if is_type(source) {
            if let Check::Text(check) | Check::EveryText(check) = check {
                texts(check, &mut asked);
            } else if let Check::Any(checks) | Check::One(checks) | Check::All(checks) = check {
                for check in checks {
                    if let Check::Text(check) = check {
                        texts(check, &mut asked);
                    }
                }
            }
        }
    });
    let mut once: Vec<String> = Vec::new();
    for name in asked {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

fn is_type(source: &Source) -> bool {
    let mut only_type = false;
    source.each_field(&mut |field| only_type = field.field == Field::EvtType);
    only_type && !matches!(source, Source::Applied(..))
}

fn texts(check: &TextCheck, into: &mut Vec<String>) {
    match check {
        TextCheck::Equals(text) => into.push(text.to_string()),
        TextCheck::OneOf(set) => into.extend(set.members().map(str::to_owned)),
        _ => {}
    }
}

/// Calls back for each test of a condition but those behind an odd number of `not`.
fn each_test(node: &Node, visit: &mut impl FnMut(&Source, &Check)) {
    fn walk(node: &Node, wanted: bool, visit: &mut impl FnMut(&Source, &Check)) {
        match node {
            Node::Or(members) | Node::And(members) => {
                members.iter().for_each(|member| walk(member, wanted, visit));
            }
            Node::Not(member) => walk(member, !wanted, visit),
            Node::Macro(_, body) => walk(body, wanted, visit),
            Node::Test(source, check) if wanted => visit(source, check),
            Node::Test(..) => {}
        }
    }
    walk(node, true, visit);
}

/// Calls back for each field of Falco's for which something stands, or nothing.
fn each_foreign(node: &Node, visit: &mut impl FnMut(&Foreign)) {
    match node {
        Node::Or(members) | Node::And(members) => {
            members.iter().for_each(|member| each_foreign(member, visit));
        }
        Node::Not(member) => each_foreign(member, visit),
        Node::Macro(_, body) => each_foreign(body, visit),
        Node::Test(source, check) => {
            source.each_foreign(visit);
            check.each_source(&mut |source| source.each_foreign(visit));
        }
    }
}

/// One line about notes of a rule.
pub(crate) fn in_words(notes: &[Note]) -> String {
    let one = |note: &Note| format!("{} `{}`: {}", note.kind.name(), note.name, note.text);
    notes.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Dialect {
    /// Whether it is Falco's.
    pub(crate) fn is_falco(self) -> bool {
        self == Dialect::Falco
    }
}
