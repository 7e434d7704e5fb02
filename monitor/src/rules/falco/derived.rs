//! Values of Falco's fields that are worked out from ours.

use std::borrow::Cow;

use crate::fields::{ArgSpec, Field, FieldArg, FieldRef, FieldSource, Value};

/// What is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    /// Whether a watched open asked for reading.
    OpenRead,
    /// Whether it asked for writing.
    OpenWrite,
    /// Whether it asked for the file to be made.
    OpenCreate,
    /// The descriptor that it gave, or -1.
    FdNumber,
    /// The directory of the path that it named.
    Directory,
    /// The last part of that path.
    FileName,
    /// argv[0] and the other arguments.
    Exeline,
    /// Bytes of the arguments.
    ArgsLength,
    /// Nanoseconds from the process's start to the event.
    Age,
    /// Whether the process leads its session.
    LeadsSession,
    /// Whether the thread is its process's first.
    IsMain,
}

fn plain(field: Field) -> FieldRef {
    FieldRef { field, arg: FieldArg::None }
}

/// The argument `flags` of a call.
fn flags_argument() -> FieldRef {
    let key = match Field::EvtArg.spec().arg {
        ArgSpec::Key(keys) => keys.iter().position(|key| *key == "flags").unwrap_or_default(),
        _ => 0,
    };
    FieldRef { field: Field::EvtArg, arg: FieldArg::Key(key as u16) }
}

impl Derived {
    /// The fields that it rests on.
    pub(crate) fn fields(self) -> Vec<FieldRef> {
        match self {
            Derived::OpenRead | Derived::OpenWrite | Derived::OpenCreate => {
                vec![plain(Field::FdName), flags_argument()]
            }
            Derived::FdNumber => vec![plain(Field::FdName), plain(Field::EvtRawRes)],
            Derived::Directory | Derived::FileName => vec![plain(Field::FdName)],
            Derived::Exeline => vec![plain(Field::ProcExe), plain(Field::ProcArgs)],
            Derived::ArgsLength => vec![plain(Field::ProcArgs)],
            Derived::Age => vec![plain(Field::EvtBootNs), plain(Field::ProcStart)],
            Derived::LeadsSession => vec![plain(Field::ProcSid), plain(Field::ProcPid)],
            Derived::IsMain => vec![plain(Field::ThreadTid), plain(Field::ProcPid)],
        }
    }

    /// The value for an event.
    pub(crate) fn value<'e, E: FieldSource + ?Sized>(self, event: &'e E) -> Value<'e> {
        let number = |field| match event.value(plain(field)) {
            Value::Number(number) => Some(number),
            _ => None,
        };
        let text = |field| match event.value(plain(field)) {
            Value::Text(text) => Some(text),
            _ => None,
        };
        let same = |one, other| Some(Value::Bool(number(one)? == number(other)?));
        let value = match self {
            Derived::OpenRead | Derived::OpenWrite | Derived::OpenCreate => self.of_open(event),
            Derived::FdNumber => text(Field::FdName)
                .and_then(|_| number(Field::EvtRawRes))
                .map(|result| Value::Number(result.max(-1))),
            Derived::Directory => text(Field::FdName).and_then(|path| {
                let (directory, _) = path.rsplit_once('/')?;
                Some(owned(if directory.is_empty() { "/" } else { directory }))
            }),
            Derived::FileName => {
                text(Field::FdName).map(|path| owned(path.rsplit_once('/').map_or(&*path, |(_, name)| name)))
            }
            Derived::Exeline => text(Field::ProcExe).map(|exe| match text(Field::ProcArgs) {
                Some(args) if !args.is_empty() => Value::Text(Cow::Owned(format!("{exe} {args}"))),
                _ => owned(&exe),
            }),
            Derived::ArgsLength => text(Field::ProcArgs).map(|args| Value::Number(args.len() as i64)),
            Derived::Age => number(Field::EvtBootNs)
                .and_then(|now| Some(Value::Number(now.checked_sub(number(Field::ProcStart)?)?.max(0)))),
            Derived::LeadsSession => same(Field::ProcSid, Field::ProcPid),
            Derived::IsMain => same(Field::ThreadTid, Field::ProcPid),
        };
        value.unwrap_or(Value::Absent)
    }

    /// What an open asked for; `None` if the event is no open, or its flags could not be read.
    fn of_open<'e, E: FieldSource + ?Sized>(self, event: &'e E) -> Option<Value<'e>> {
        if event.value(plain(Field::FdName)) == Value::Absent {
            return None;
        }
        let Value::Text(flags) = event.value(flags_argument()) else { return None };
        let has = |wanted: &str| flags.split('|').any(|flag| flag == wanted);
        Some(Value::Bool(match self {
            Derived::OpenRead => has("O_RDONLY") || has("O_RDWR"),
            Derived::OpenWrite => has("O_WRONLY") || has("O_RDWR"),
            _ => has("O_CREAT"),
        }))
    }
}

fn owned(text: &str) -> Value<'static> {
    Value::Text(Cow::Owned(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{self, FieldValues};

    fn event(values: &[(&str, Option<&str>, Value<'static>)]) -> FieldValues {
        let mut event = FieldValues::default();
        for (name, arg, value) in values {
            event.set(fields::resolve(name, *arg).unwrap(), value.clone()).unwrap();
        }
        event
    }

    #[test]
    fn values_are_worked_out_and_absent_where_a_part_is() {
        let open = event(&[
            ("fd.name", None, Value::text("/dev/kmsg")),
            ("evt.arg", Some("flags"), Value::text("O_RDWR|O_CREAT")),
            ("evt.rawres", None, Value::Number(-13)),
            ("evt.boot_ns", None, Value::Number(5_000)),
            ("proc.start", None, Value::Number(2_000)),
            ("proc.exe", None, Value::text("./x")),
            ("proc.args", None, Value::text("-a b")),
            ("proc.pid", None, Value::Number(7)),
            ("proc.sid", None, Value::Number(7)),
            ("thread.tid", None, Value::Number(8)),
        ]);
        let nothing = FieldValues::default();
        for (derived, expected) in [
            (Derived::OpenRead, Value::Bool(true)),
            (Derived::OpenWrite, Value::Bool(true)),
            (Derived::OpenCreate, Value::Bool(true)),
            (Derived::FdNumber, Value::Number(-1)),
            (Derived::Directory, Value::text("/dev")),
            (Derived::FileName, Value::text("kmsg")),
            (Derived::Exeline, Value::text("./x -a b")),
            (Derived::ArgsLength, Value::Number(4)),
            (Derived::Age, Value::Number(3_000)),
            (Derived::LeadsSession, Value::Bool(true)),
            (Derived::IsMain, Value::Bool(false)),
        ] {
            assert_eq!(derived.value(&open), expected, "{derived:?}");
            assert_eq!(derived.value(&nothing), Value::Absent, "{derived:?}");
            assert!(!derived.fields().is_empty());
        }
    }
}
