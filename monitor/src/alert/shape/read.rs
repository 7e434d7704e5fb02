//! Reading the canonical line for other shapes: what is there, by name.

use serde_json::{Map, Value as Json};

/// Nanoseconds since 1970 of a time as our lines have it: RFC 3339, UTC, nine digits. `None` if it is none.
pub(super) fn unix_ns(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| text.get(from..to)?.parse().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')];
    if bytes.len() != 30 || marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
        return None;
    }
    let month = time::Month::try_from(u8::try_from(number(5, 7)?).ok()?).ok()?;
    let date = time::Date::from_calendar_date(number(0, 4)? as i32, month, number(8, 10)? as u8).ok()?;
    let clock = time::Time::from_hms_nano(
        number(11, 13)? as u8,
        number(14, 16)? as u8,
        number(17, 19)? as u8,
        number(20, 29)? as u32,
    );
    Some(date.with_time(clock.ok()?).assume_utc().unix_timestamp_nanos())
}

/// An alert's keys, and its fields that are not null.
pub(super) struct Alert {
    keys: Map<String, Json>,
    pub(super) fields: Map<String, Json>,
}

impl Alert {
    pub(super) fn new(mut keys: Map<String, Json>) -> Self {
        let fields = match keys.remove("output_fields") {
            Some(Json::Object(fields)) => fields,
            _ => Map::new(),
        };
        Alert { keys, fields: fields.into_iter().filter(|(_, value)| !value.is_null()).collect() }
    }

    /// A key's text; empty if it has none.
    pub(super) fn text(&self, key: &str) -> &str {
        self.keys.get(key).and_then(Json::as_str).unwrap_or_default()
    }

    /// A key's texts.
    pub(super) fn texts(&self, key: &str) -> Vec<&str> {
        self.keys.get(key).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
    }

    /// A key's value.
    pub(super) fn key(&self, key: &str) -> Option<&Json> {
        self.keys.get(key)
    }

    /// A field's text.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Json::as_str)
    }

    /// A field's number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.fields.get(name).and_then(Json::as_i64)
    }

    /// The container's id, if it happened in one.
    pub(super) fn container(&self) -> Option<&str> {
        self.field("container.id").filter(|id| *id != "host")
    }
}

/// An object that is built of what is there.
#[derive(Default)]
pub(super) struct Object(Map<String, Json>);

impl Object {
    /// With this member, if there is a value, and if that is not an empty object or list.
    pub(super) fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        let value = value.into();
        let empty = match &value {
            Json::Null => true,
            Json::Object(members) => members.is_empty(),
            Json::Array(members) => members.is_empty(),
            _ => false,
        };
        if !empty {
            self.0.insert(key.to_owned(), value);
        }
        self
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Json {
        Json::Object(object.0)
    }
}

/// The ATT&CK ids of a rule, sorted: tactics, techniques, sub-techniques.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attack<'a> {
    pub(super) tactics: Vec<&'a str>,
    pub(super) techniques: Vec<&'a str>,
    pub(super) sub_techniques: Vec<&'a str>,
}

impl<'a> Attack<'a> {
    pub(super) fn of(ids: &[&'a str]) -> Self {
        let mut attack = Attack::default();
        for id in ids {
            match id.split_once('.') {
                Some((technique, _)) => {
                    attack.sub_techniques.push(id);
                    if !attack.techniques.contains(&technique) {
                        attack.techniques.push(technique);
                    }
                }
                None if id.starts_with("TA") => attack.tactics.push(id),
                None if !attack.techniques.contains(id) => attack.techniques.push(id),
                None => {}
            }
        }
        attack
    }
}
