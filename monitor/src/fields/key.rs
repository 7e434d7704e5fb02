//! A field with its argument as a value that can be listed, written by name and read back, for recordings. Unlike a
//! [`FieldRef`] it keeps no name for ever: an event has any number of labels.

use std::sync::LazyLock;

use super::{ArgSpec, CATALOGUE, Field, FieldArg, FieldRef, FieldSource, Value};

/// The argument of a [`FieldKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyArg<'a> {
    /// The field takes none.
    None,
    /// See [`FieldArg::Index`]. A field that may do without an argument has index 1 then.
    Index(u16),
    /// See [`FieldArg::Key`].
    Key(u16),
    /// See [`FieldArg::Name`].
    Name(&'a str),
}

/// Where one value of an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldKey<'a> {
    /// The field.
    pub field: Field,
    /// Its argument; always of the kind that the field takes.
    pub arg: KeyArg<'a>,
}

/// Something whose values can be listed.
pub trait Enumerate: FieldSource {
    /// Calls `put` once for every field that is not absent.
    fn each(&self, put: &mut dyn FnMut(FieldKey<'_>, Value<'_>));
}

/// Every key but those with a [`KeyArg::Name`], in the order of the catalogue.
pub fn closed_keys() -> &'static [FieldKey<'static>] {
    &CLOSED.keys
}

struct Closed {
    keys: Vec<FieldKey<'static>>,
    /// Where each field's keys begin.
    begins: Vec<usize>,
}

static CLOSED: LazyLock<Closed> = LazyLock::new(|| {
    let mut closed = Closed { keys: Vec::new(), begins: Vec::new() };
    for spec in CATALOGUE {
        closed.begins.push(closed.keys.len());
        let key = |arg| FieldKey { field: spec.field, arg };
        match spec.arg {
            ArgSpec::None => closed.keys.push(key(KeyArg::None)),
            ArgSpec::Index { max } => closed.keys.extend((0..=max).map(|i| key(KeyArg::Index(i)))),
            ArgSpec::Key(words) => closed.keys.extend((0..words.len()).map(|i| key(KeyArg::Key(i as u16)))),
            ArgSpec::Name => {}
        }
    }
    closed
});

impl<'a> FieldKey<'a> {
    /// The key that a field's name and its argument, as [`FieldKey::arg_text`] has it, stand for. `None` if the
    /// catalogue has no such field, or it takes no such argument.
    pub fn find(name: &str, arg: Option<&'a str>) -> Option<Self> {
        let spec = CATALOGUE.iter().find(|spec| spec.name == name)?;
        let arg = match (spec.arg, arg) {
            (ArgSpec::None, None) => KeyArg::None,
            (ArgSpec::Index { max }, Some(text)) => {
                KeyArg::Index(text.parse().ok().filter(|index| *index <= max)?)
            }
            (ArgSpec::Key(words), Some(text)) => {
                KeyArg::Key(words.iter().position(|word| *word == text)? as u16)
            }
            (ArgSpec::Name, Some(text)) => KeyArg::Name(text),
            _ => return None,
        };
        Some(FieldKey { field: spec.field, arg })
    }

    /// The argument as rules write it, without brackets.
    pub fn arg_text(&self) -> Option<std::borrow::Cow<'a, str>> {
        match (self.arg, self.field.spec().arg) {
            (KeyArg::Index(index), _) => Some(index.to_string().into()),
            (KeyArg::Key(position), ArgSpec::Key(words)) => {
                words.get(usize::from(position)).map(|word| (*word).into())
            }
            (KeyArg::Name(name), _) => Some(name.into()),
            (KeyArg::None | KeyArg::Key(_), _) => None,
        }
    }

    /// Its place in [`closed_keys`]; `None` for a [`KeyArg::Name`].
    pub fn position(&self) -> Option<usize> {
        let offset = match self.arg {
            KeyArg::None => 0,
            KeyArg::Index(offset) | KeyArg::Key(offset) => usize::from(offset),
            KeyArg::Name(_) => return None,
        };
        CLOSED.begins.get(self.field as usize).map(|begin| begin + offset)
    }

    /// As conditions refer to it; `None` for a [`KeyArg::Name`], which would have to be kept for ever.
    pub fn reference(&self) -> Option<FieldRef> {
        let arg = match self.arg {
            KeyArg::None => FieldArg::None,
            KeyArg::Index(index) => FieldArg::Index(index),
            KeyArg::Key(position) => FieldArg::Key(position),
            KeyArg::Name(_) => return None,
        };
        Some(FieldRef { field: self.field, arg })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_its_name_and_at_its_place() {
        for (i, key) in closed_keys().iter().enumerate() {
            assert_eq!(key.position(), Some(i), "{key:?}");
            assert_eq!(FieldKey::find(key.field.spec().name, key.arg_text().as_deref()), Some(*key));
        }
        let label = FieldKey { field: Field::ContainerLabel, arg: KeyArg::Name("a b") };
        assert_eq!(FieldKey::find("container.label", label.arg_text().as_deref()), Some(label));
        assert_eq!((label.position(), label.reference()), (None, None));
        for (name, arg) in [
            ("evt.typ", None),
            ("evt.type", Some("0")),
            ("proc.aname", None),
            ("proc.aname", Some("9")),
            ("evt.arg", Some("nope")),
        ] {
            assert_eq!(FieldKey::find(name, arg), None, "{name} {arg:?}");
        }
    }
}
