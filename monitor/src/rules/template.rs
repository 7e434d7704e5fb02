//! Output templates: `Clock set by %proc.name (%proc.pid)`.

use std::fmt::Write;

use super::ast::Span;
use super::condition;
use super::falco::{Dialect, Foreign};
use super::operand::{self, Problem, Source};
use crate::fields::{FieldRef, FieldSource, Value};

/// A compiled output template.
#[derive(Clone, Debug, Default)]
pub struct Template {
    pieces: Vec<Piece>,
    fields: Vec<(String, FieldRef)>,
}

/// A part of a template.
#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    Value(Source),
}

impl Template {
    /// Parses a template: `%field`, `%field[arg]`, `%transformer(field)`, and `%%` for a percent sign. A
    /// leading `*`, which tells Falco to tolerate missing values, is accepted: they are always tolerated here.
    pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Self, Vec<Problem>> {
        let mut template = Template::default();
        let mut problems = Vec::new();
        let mut plain = String::new();
        let mut at = usize::from(text.starts_with('*'));
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let until = rest.find('%').unwrap_or(rest.len());
            plain.push_str(&rest[..until]);
            at += until;
            let Some(behind) = rest.get(until + 1..) else { continue };
            if behind.starts_with('%') {
                plain.push('%');
                at += 2;
                continue;
            }
            at += 1;
            match template.value(behind, at, dialect) {
                Ok((source, length)) => {
                    template.push_text(&mut plain);
                    template.pieces.push(Piece::Value(source));
                    at += length;
                }
                Err(problem) => problems.push(problem),
            }
        }
        template.push_text(&mut plain);
        if problems.is_empty() { Ok(template) } else { Err(problems) }
    }

    /// Adds a field to those whose values alerts carry, though it does not stand in the text.
    pub(crate) fn add_field(&mut self, field: FieldRef) {
        let key = operand::field_text(field);
        if !self.fields.iter().any(|(known, _)| *known == key) {
            self.fields.push((key, field));
        }
    }

    /// Reads what stands behind a `%` at `at`.
    fn value(&mut self, behind: &str, at: usize, dialect: Dialect) -> Result<(Source, usize), Problem> {
        let (operand, length) = condition::parse_operand_prefix(behind).map_err(|error| {
            if error.offset == 0 {
                let percent = Span { start: at - 1, end: at };
                return Problem::new(percent, error.message).help("a percent sign is written `%%`");
            }
            let start = at + error.offset;
            Problem::new(Span { start, end: start + 1 }, error.message)
        })?;
        let typed = operand::resolve(&operand, dialect).map_err(|mut problem| {
            problem.span.start += at;
            problem.span.end += at;
            problem
        })?;
        let fields = &mut self.fields;
        typed.source.each_field(&mut |field| {
            let key = operand::field_text(field);
            if !fields.iter().any(|(known, _)| *known == key) {
                fields.push((key, field));
            }
        });
        Ok((typed.source, length))
    }

    fn push_text(&mut self, plain: &mut String) {
        if !plain.is_empty() {
            self.pieces.push(Piece::Text(std::mem::take(plain).into()));
        }
    }

    /// Appends the text for an event. A missing value prints as `<NA>`.
    ///
    /// Control characters and those that change the direction of writing come from whoever is watched; they
    /// are printed as `\xHH` and `\u{HHHH}`, so that no value can forge a line or drive a terminal.
    pub fn render<E: FieldSource + ?Sized>(&self, event: &E, out: &mut String) {
        let mut out = Harmless(out);
        for piece in &self.pieces {
            let written = match piece {
                Piece::Text(text) => {
                    out.0.push_str(text);
                    Ok(())
                }
                Piece::Value(source) => match source.value(event) {
                    Value::List(members) if members.is_empty() => out.write_str("<NA>"),
                    value => write!(out, "{value}"),
                },
            };
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        }
    }

    /// Calls back for every field of Falco's that it names.
    pub(crate) fn each_foreign(&self, visit: &mut impl FnMut(&Foreign)) {
        for piece in &self.pieces {
            if let Piece::Value(source) = piece {
                source.each_foreign(visit);
            }
        }
    }

    /// The fields that the template names, once each, with the keys under which alerts carry their values.
    pub fn fields(&self) -> &[(String, FieldRef)] {
        &self.fields
    }
}

/// Writes values without the characters that act on a terminal or a line.
struct Harmless<'s>(&'s mut String);

impl Write for Harmless<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => {
                    write!(self.0, "\\u{{{:x}}}", u32::from(c))?;
                }
                _ if c.is_control() => write!(self.0, "\\x{:02x}", u32::from(c))?,
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{self, Field};

    /// An event with a name that would like to drive a terminal.
    struct Event;

    impl FieldSource for Event {
        fn value(&self, field: FieldRef) -> Value<'_> {
            match field.field {
                Field::ProcName => Value::text("x\n\u{1b}[31m\u{202e}é\\"),
                Field::ProcPid => Value::Number(-7),
                Field::EvtFailed => Value::Bool(true),
                Field::EvtFlags => Value::list(["A", "B"]),
                Field::CapGained => Value::list([]),
                _ => Value::Absent,
            }
        }
    }

    fn render(template: &str) -> String {
        let mut out = String::from(">");
        Template::parse(template, Dialect::Ours).unwrap().render(&Event, &mut out);
        out
    }

    #[test]
    fn values_are_printed_and_made_harmless() {
        for (template, expected) in [
            ("", ">"),
            ("*", ">"),
            ("100%% %proc.pid.", ">100% -7."),
            ("*%proc.pid%proc.pid", ">-7-7"),
            ("%evt.failed/%evt.flags", ">true/A B"),
            ("%evt.type %cap.gained %evt.arg[flags]", "><NA> <NA> <NA>"),
            ("%proc.name", ">x\\x0a\\x1b[31m\\u{202e}é\\"),
            ("%tolower(evt.flags)[x]", ">a b[x]"),
            ("%len(evt.flags)%%", ">2%"),
            ("%proc.aname[2]]", "><NA>]"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn fields_are_listed_once_and_as_written() {
        let template =
            Template::parse("%proc.pid %proc.aname[2] %tolower(proc.pname) %proc.pid", Dialect::Ours)
                .unwrap();
        let keys: Vec<&str> = template.fields().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["proc.pid", "proc.aname[2]", "proc.pname"]);
        assert_eq!(template.fields()[1].1, fields::resolve("proc.aname", Some("2")).unwrap());
    }
}
