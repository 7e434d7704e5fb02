//! The values of an event's fields on their own: what a rule's test states, `--event` reads and a recording holds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{ArgSpec, Field, FieldArg, FieldRef, FieldSource, FieldType, MAX_LIST, Value};

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
