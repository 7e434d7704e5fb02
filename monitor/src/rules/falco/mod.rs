//! Falco's own rule files: which of its fields and events Ringfence has, and what stands for the others.
//!
//! A file that says `required_engine_version`, as Falco's do, is read as one of Falco's ([`Dialect::Falco`]): the
//! fields of its documentation may be named, and what is nearly the same here stands for them. A rule that needs a
//! field, an event or a source that is not here is left out with a warning. In all other files such a field is the
//! error that every unknown field is.

mod derived;
mod events;
mod fields;
mod missing;
mod reference;
mod standing;

use std::sync::Arc;

pub(crate) use self::derived::Derived;
pub use self::events::{Watched, watched};
use self::fields::{Ours, Stand};
pub use self::reference::markdown;
pub use self::standing::{Checked, Note, NoteKind, Standing, Status, check};
pub(crate) use self::standing::{in_words, judge, missing_source};
use super::ast::{FieldName, Span};
use super::operand::{self, Problem, Source, Typed};
use crate::fields::{ARG_NAMES, FieldRef, FieldSource, FieldType, Value};

/// Whose language a rule file speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Ringfence's: fields are those of its catalogue.
    #[default]
    Ours,
    /// Falco's: the fields of its documentation, too.
    Falco,
}

impl Dialect {
    /// Whose language a file speaks.
    pub(crate) fn of(text: &str) -> Self {
        let marked = text.lines().any(|line| {
            let item = line.strip_prefix('-').map(str::trim_start);
            item.and_then(|item| item.strip_prefix("required_engine_version"))
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        });
        if marked { Dialect::Falco } else { Dialect::Ours }
    }
}

/// The furthest ancestor that fields of ours can name.
const MAX_ANCESTOR: u64 = 8;

/// A field of Falco's for which something else stands.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    /// Its name, as it was written.
    pub(crate) name: String,
    /// How what stands for it differs, or why nothing does; nothing if it does not differ.
    pub(crate) how: Option<&'static str>,
    means: Means,
}

#[derive(Clone, Debug)]
enum Means {
    /// Another field, or a value that never changes.
    Source(Box<Source>),
    /// A value that never changes, of every watched open.
    OfOpens(&'static str),
    /// Something worked out.
    Derived(Derived),
    /// Nothing.
    Missing,
}

impl Foreign {
    /// Whether nothing stands for it.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.means, Means::Missing)
    }

    /// The value for an event.
    pub(crate) fn value<'e, E: FieldSource + ?Sized>(&'e self, event: &'e E) -> Value<'e> {
        match &self.means {
            Means::Source(source) => source.value(event),
            Means::OfOpens(text) => {
                let opened = Derived::FileName.fields().into_iter();
                let mut opened = opened.map(|field| event.value(field));
                if opened.any(|value| value != Value::Absent) { Value::text(text) } else { Value::Absent }
            }
            Means::Derived(derived) => derived.value(event),
            Means::Missing => Value::Absent,
        }
    }

    /// Calls back for every field of ours that it rests on.
    pub(crate) fn each_field(&self, visit: &mut impl FnMut(FieldRef)) {
        match &self.means {
            Means::Source(source) => source.each_field(visit),
            Means::OfOpens(_) => Derived::FileName.fields().into_iter().for_each(visit),
            Means::Derived(derived) => derived.fields().into_iter().for_each(visit),
            Means::Missing => {}
        }
    }
}

/// What stands for a field of Falco's; `None` if Falco has no such field, or ours is the same.
pub(crate) fn resolve(name: &FieldName, span: Span) -> Option<Result<Typed, Problem>> {
    let arg = name.arg.as_deref();
    let written = match arg {
        Some(arg) => format!("{}[{arg}]", name.name),
        None => name.name.clone(),
    };
    let foreign = |means, how, ty| {
        let source = Source::Foreign(Arc::new(Foreign { name: written.clone(), how, means }));
        Some(Ok(Typed { source, ty }))
    };
    let ours = |field: &str, arg: Option<&str>, how: Option<&'static str>| {
        let field = FieldName { name: field.to_owned(), arg: arg.map(str::to_owned) };
        Some(operand::resolve_ours(&field, span).map(|typed| {
            let means = Means::Source(Box::new(typed.source));
            let source = Source::Foreign(Arc::new(Foreign { name: written.clone(), how, means }));
            Typed { source, ty: typed.ty }
        }))
    };
    if let Some(argument) = argument(&name.name, arg) {
        return match argument {
            Argument::Ours(ours) if name.name == "evt.arg" && arg == Some(ours) => None,
            Argument::Ours(known) => ours("evt.arg", Some(known), None),
            Argument::Missing => {
                foreign(Means::Missing, Some("Ringfence does not decode this argument"), FieldType::Text)
            }
        };
    }
    if let Some(key) = name.name.strip_prefix("container.label.").filter(|_| arg.is_none()) {
        return ours("container.label", Some(key), None);
    }
    if let Some(row) = fields::ROWS.iter().find(|row| row.name == name.name) {
        if let Some(index) = arg.and_then(|arg| arg.parse::<u64>().ok()) {
            match row.ours {
                Ours::Like(_) | Ours::As(Stand::Ancestor(_), _) if index > MAX_ANCESTOR => {
                    let how = Some("Ringfence knows the nearest 8 ancestors");
                    return foreign(Means::Missing, how, row.ty);
                }
                // With a number the field is the same.
                Ours::Like(_) => return None,
                _ => {}
            }
        }
        return match row.ours {
            Ours::Same => None,
            Ours::Like(how) => ours(row.name, arg, Some(how)),
            Ours::As(stand, how) => match stand {
                Stand::Field(field, stand_arg) => ours(field, stand_arg, how),
                Stand::Ancestor(field) => ours(field, arg, how),
                Stand::Text(text) => {
                    foreign(Means::Source(Box::new(Source::Literal(text.into()))), how, row.ty)
                }
                Stand::Number(number) => {
                    foreign(Means::Source(Box::new(Source::Constant(Value::Number(number)))), how, row.ty)
                }
                Stand::Bool(truth) => {
                    foreign(Means::Source(Box::new(Source::Constant(Value::Bool(truth)))), how, row.ty)
                }
                Stand::OfOpens(text) => foreign(Means::OfOpens(text), how, row.ty),
                Stand::Derived(derived) => foreign(Means::Derived(derived), how, row.ty),
            },
        };
    }
    let (why, ty) = missing(&name.name)?;
    foreign(Means::Missing, Some(why), ty)
}

/// The name of the field whose every ancestor is meant if it stands without an index, if `name` is such a field.
pub(crate) fn ancestors(name: &str) -> Option<&'static str> {
    fields::ROWS.iter().find(|row| row.name == name).and_then(|row| match row.ours {
        Ours::As(Stand::Ancestor(field), _) => Some(field),
        _ => None,
    })
}

/// An argument of a call, as Falco names it.
enum Argument {
    /// Ours has this name.
    Ours(&'static str),
    /// Ringfence does not decode it.
    Missing,
}

/// `evt.arg.flags`, `evt.arg[flags]` and the same with `evt.rawarg`.
fn argument(name: &str, arg: Option<&str>) -> Option<Argument> {
    let dotted = || name.strip_prefix("evt.arg.").or_else(|| name.strip_prefix("evt.rawarg."));
    let argument = match arg {
        Some(arg) if matches!(name, "evt.arg" | "evt.rawarg") => arg,
        None => dotted()?,
        Some(_) => return None,
    };
    let argument = match argument {
        // The path of an open.
        "name" | "pathname" => "path",
        other => other,
    };
    let known = ARG_NAMES.iter().copied().find(|known| *known == argument);
    Some(known.map_or(Argument::Missing, Argument::Ours))
}

/// Why there is nothing for a field of Falco's, and the type of its values; `None` if Falco has no such field.
fn missing(name: &str) -> Option<(&'static str, FieldType)> {
    let is = |listed: &str| name == listed;
    // Some take a key behind a dot, as `thread.cgroup.cpu`.
    let keyed = |listed: &str| {
        let takes_key = listed.ends_with(".label") || matches!(listed, "thread.cgroup" | "proc.aenv");
        takes_key && name.strip_prefix(listed).is_some_and(|rest| rest.starts_with('.'))
    };
    if name.starts_with("evt.type.is.") {
        return Some(("ask for `evt.type` instead", FieldType::Number));
    }
    missing::GROUPS
        .iter()
        .find(|group| group.names.split_ascii_whitespace().any(|listed| is(listed) || keyed(listed)))
        .map(|group| (group.why, group.ty))
}

/// For a field of Falco's that a file of ours names: what could be meant.
pub(crate) fn hint(name: &str) -> Option<String> {
    let stands = fields::ROWS.iter().find(|row| row.name == name).map(|row| match row.ours {
        Ours::As(Stand::Field(field, None), _) => format!("it is Falco's; here it is `{field}`"),
        Ours::As(Stand::Field(field, Some(arg)), _) => format!("it is Falco's; here it is `{field}[{arg}]`"),
        _ => "it is Falco's; only files with `required_engine_version` may name it".to_owned(),
    });
    stands
        .or_else(|| match argument(name, None)? {
            Argument::Ours(argument) => Some(format!("write `evt.arg[{argument}]`")),
            Argument::Missing => None,
        })
        .or_else(|| {
            missing(name).map(|(why, _)| format!("it is Falco's, and there is nothing for it: {why}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_resolves_and_none_stands_twice() {
        let mut names: Vec<&str> = fields::ROWS.iter().map(|row| row.name).collect();
        for group in missing::GROUPS {
            names.extend(group.names.split_ascii_whitespace());
        }
        for row in fields::ROWS {
            let takes_arg = row.name == "container.label";
            let arg = takes_arg.then(|| "app".to_owned());
            let field = FieldName { name: row.name.to_owned(), arg };
            match resolve(&field, Span::default()) {
                Some(resolved) => {
                    let typed = resolved.unwrap_or_else(|problem| panic!("{}: {problem:?}", row.name));
                    assert!(!matches!(row.ours, Ours::Same), "{}", row.name);
                    // Lists stand for texts that have several words.
                    let list = typed.ty == FieldType::TextList && row.ty == FieldType::Text;
                    assert!(typed.ty == row.ty || list, "{}", row.name);
                }
                None => {
                    let typed = operand::resolve_ours(&field, Span::default());
                    assert_eq!(typed.map(|typed| typed.ty).ok(), Some(row.ty), "{}", row.name);
                }
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands twice");
        assert!(count > 250, "{count}");
    }

    #[test]
    fn files_of_falco_are_known_by_the_version_they_require() {
        assert_eq!(Dialect::of("# x\n- required_engine_version: 0.57.0\n"), Dialect::Falco);
        assert_eq!(Dialect::of("-   required_engine_version : 8\n"), Dialect::Falco);
        assert_eq!(Dialect::of("# - required_engine_version: 8\n- rule: x\n"), Dialect::Ours);
    }
}
