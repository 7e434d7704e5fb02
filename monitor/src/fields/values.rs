//! The values of an event's fields on their own: what a rule's test states, `--event` reads and a recording holds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{
    ArgSpec, CATALOGUE, Enumerate, Field, FieldArg, FieldKey, FieldRef, FieldSource, FieldType, KeyArg,
    MAX_LIST, Value,
};

/// Where a value stands: the field's number, then its argument in a form that has an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Plain(u16),
    /// Index, or position among the words of [`ArgSpec::Key`].
    Numbered(u16, u16),
    /// [`ArgSpec::Name`]. Not a [`super::Name`]: those are kept for ever, and a recording may hold any number.
    Named(u16, Cow<'static, str>),
}

impl Key {
    fn of(FieldRef { field, arg }: FieldRef) -> Self {
        let number = field as u16;
        match (arg, field.spec().arg) {
            // Without an argument such a field has the meaning of index 1.
            (FieldArg::None, ArgSpec::Index { .. }) => Key::Numbered(number, 1),
            (FieldArg::None, _) => Key::Plain(number),
            (FieldArg::Index(index) | FieldArg::Key(index), _) => Key::Numbered(number, index),
            (FieldArg::Name(name), _) => Key::Named(number, Cow::Borrowed(name.as_str())),
        }
    }

    fn owned(FieldKey { field, arg }: FieldKey<'_>) -> Self {
        let number = field as u16;
        match arg {
            KeyArg::None => Key::Plain(number),
            KeyArg::Index(position) | KeyArg::Key(position) => Key::Numbered(number, position),
            KeyArg::Name(name) => Key::Named(number, Cow::Owned(name.to_owned())),
        }
    }

    /// `None` cannot be: every number was a field's.
    fn key(&self) -> Option<FieldKey<'_>> {
        let (Key::Plain(number) | Key::Numbered(number, _) | Key::Named(number, _)) = self;
        let spec = CATALOGUE.get(usize::from(*number))?;
        let arg = match (self, spec.arg) {
            (Key::Plain(_), _) => KeyArg::None,
            (Key::Numbered(_, index), ArgSpec::Index { .. }) => KeyArg::Index(*index),
            (Key::Numbered(_, position), _) => KeyArg::Key(*position),
            (Key::Named(_, name), _) => KeyArg::Name(name),
        };
        Some(FieldKey { field: spec.field, arg })
    }
}

/// A value that is not of its field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is a {}", field.spec().name, field.spec().ty.name())]
pub struct WrongType {
    /// The field.
    pub field: Field,
}

/// Values by field. A field that was not set is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldValues {
    values: BTreeMap<Key, Value<'static>>,
}

impl FieldValues {
    /// Sets a field's value; [`Value::Absent`] takes it away. Of a list, at most [`MAX_LIST`] members are kept.
    ///
    /// # Errors
    /// The value is of another type than the field.
    pub fn set(&mut self, field: FieldRef, value: Value<'static>) -> Result<(), WrongType> {
        self.put(Key::of(field), field.field, value)
    }

    /// Sets the value of a field that takes any text in brackets, such as `container.label[app]`, without keeping the
    /// text for ever as [`super::Name`] does.
    ///
    /// # Errors
    /// The value is of another type than the field, or the field takes no such text.
    pub fn set_named(&mut self, field: Field, name: &str, value: Value<'static>) -> Result<(), WrongType> {
        if field.spec().arg != ArgSpec::Name {
            return Err(WrongType { field });
        }
        self.put(Key::Named(field as u16, Cow::Owned(name.to_owned())), field, value)
    }

    /// Sets the value at a key.
    ///
    /// # Errors
    /// The value is of another type than the field.
    pub fn set_key(&mut self, key: FieldKey<'_>, value: Value<'static>) -> Result<(), WrongType> {
        self.put(Key::owned(key), key.field, value)
    }

    /// A copy of everything that an event has.
    pub fn capture(event: &impl Enumerate) -> Self {
        let mut values = FieldValues::default();
        event.each(&mut |key, value| {
            // An event's values have their fields' types; the tests of events hold them to it.
            let _ = values.set_key(key, into_owned(value));
        });
        values
    }

    /// A copy of what an event has of these fields.
    pub fn of(event: &impl FieldSource, fields: impl IntoIterator<Item = FieldRef>) -> Self {
        let mut values = FieldValues::default();
        for field in fields {
            // As in `capture`.
            let _ = values.set(field, into_owned(event.value(field)));
        }
        values
    }

    /// Every value with its key, in an order that does not change.
    pub fn iter(&self) -> impl Iterator<Item = (FieldKey<'_>, &Value<'static>)> {
        self.values.iter().filter_map(|(key, value)| Some((key.key()?, value)))
    }

    fn put(&mut self, key: Key, field: Field, value: Value<'static>) -> Result<(), WrongType> {
        match (field.spec().ty, &value) {
            (_, Value::Absent) => {
                self.values.remove(&key);
                return Ok(());
            }
            (FieldType::Text, Value::Text(_))
            | (FieldType::TextList, Value::List(_))
            | (FieldType::Number, Value::Number(_))
            | (FieldType::Bool, Value::Bool(_)) => {}
            _ => return Err(WrongType { field }),
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl FieldSource for FieldValues {
    fn value(&self, field: FieldRef) -> Value<'_> {
        match self.values.get(&Key::of(field)) {
            None => Value::Absent,
            Some(Value::Text(text)) => Value::text(text),
            Some(other) => other.clone(),
        }
    }
}

impl Enumerate for FieldValues {
    fn each(&self, put: &mut dyn FnMut(FieldKey<'_>, Value<'_>)) {
        self.iter().for_each(|(key, value)| put(key, value.clone()));
    }
}

/// The same value, borrowing nothing.
fn into_owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Absent => Value::Absent,
        Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        Value::List(members) => owned_list(members.into_iter().map(Cow::into_owned)),
        Value::Number(number) => Value::Number(number),
        Value::Bool(flag) => Value::Bool(flag),
    }
}

/// A list of texts that borrows nothing; members beyond [`MAX_LIST`] are left out.
pub fn owned_list(members: impl IntoIterator<Item = String>) -> Value<'static> {
    Value::List(Box::new(members.into_iter().take(MAX_LIST).map(Cow::Owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::resolve;

    #[test]
    fn values_are_found_under_what_rules_write() {
        let mut event = FieldValues::default();
        let field = |name: &str, arg: Option<&str>| resolve(name, arg).unwrap();
        event.set(field("proc.aname", Some("1")), Value::text("sh")).unwrap();
        event.set(field("evt.flags", None), owned_list(["CLONE_NEWNS".to_owned()])).unwrap();
        event.set_named(Field::ContainerLabel, "app", Value::text("web")).unwrap();
        assert_eq!(event.value(field("proc.aname", None)), Value::text("sh"));
        assert_eq!(event.value(field("proc.aname", Some("2"))), Value::Absent);
        assert_eq!(event.value(field("container.label", Some("app"))), Value::text("web"));
        assert_eq!(event.value(field("evt.flags", None)), Value::list(["CLONE_NEWNS"]));
        event.set(field("proc.aname", None), Value::Absent).unwrap();
        assert_eq!(event.value(field("proc.aname", Some("1"))), Value::Absent);
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let mut event = FieldValues::default();
        let pid = resolve("proc.pid", None).unwrap();
        let error = event.set(pid, Value::text("1")).unwrap_err();
        assert_eq!(error.to_string(), "`proc.pid` is a number");
        assert!(event.set_named(Field::ProcPid, "x", Value::Number(1)).is_err());
        assert!(event.is_empty());
    }
}
