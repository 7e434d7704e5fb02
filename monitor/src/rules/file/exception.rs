//! `exceptions` of a rule as they are written: names, fields, comparisons, tuples of values.

use time::{Date, Month};

use super::reader::ItemReader;
use super::text::{Place, Text};
use crate::rules::ast::{Modifier, Operator, Wants};
use crate::rules::diagnostic::{Diagnostic, did_you_mean};
use crate::rules::yaml::{Kind, Node};

const KEYS: &[&str] = &["name", "fields", "comps", "values", "reason", "owner", "expires"];

/// An item may have this many exceptions.
const MAX_EXCEPTIONS: usize = 1000;

/// One text, or one for each place of a tuple.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    One(Text),
    Several(Vec<Text>),
}

impl Shape {
    pub(crate) fn texts(&self) -> &[Text] {
        match self {
            Shape::One(text) => std::slice::from_ref(text),
            Shape::Several(texts) => texts,
        }
    }
}

/// A value at one place of a tuple.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    One(Text),
    List(Vec<Text>),
}

/// A member of `values`: a text, or a tuple.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    One(Text),
    Tuple(Place, Vec<Member>),
}

/// Values that were given together, with what is said about them.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) rows: Vec<Row>,
    pub(crate) reason: Option<Text>,
    pub(crate) owner: Option<Text>,
    /// The last day, in UTC, on which they except, and where that stands.
    pub(crate) expires: Option<(Date, Text)>,
}

/// An exception: who may do what the rule watches for.
#[derive(Clone, Debug)]
pub(crate) struct ExceptionItem {
    pub(crate) name: Text,
    /// Missing where values are added to an exception that exists.
    pub(crate) fields: Option<Shape>,
    /// Of the same shape as `fields`, once [`check`] has passed.
    pub(crate) comps: Option<Shape>,
    /// More than one after appends.
    pub(crate) groups: Vec<Group>,
}

/// How exceptions stand in an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Each one is complete.
    Define,
    /// Some may only bring values for one that exists.
    Append,
}

/// Reads `exceptions`; what is not an exception has been reported and is left out.
pub(super) fn read(reader: &mut ItemReader<'_>, node: Node, purpose: Purpose) -> Vec<ExceptionItem> {
    if node.is_null() {
        return Vec::new();
    }
    let (span, kind) = (node.span, node.kind_name());
    let Kind::Sequence(members) = node.kind else {
        let message = format!("`exceptions` must be a sequence, found {kind}");
        reader.diagnostics.push(Diagnostic::at(reader.source, span, message));
        return Vec::new();
    };
    if members.len() > MAX_EXCEPTIONS {
        let message =
            format!("more than {MAX_EXCEPTIONS} exceptions; an exception can have any number of values");
        reader.diagnostics.push(Diagnostic::at(reader.source, span, message));
        return Vec::new();
    }
    let mut exceptions: Vec<ExceptionItem> = Vec::with_capacity(members.len());
    for member in members {
        let Some(exception) = one(reader, member, purpose) else { continue };
        let name = exception.name.as_str();
        if exceptions.iter().any(|known| known.name.as_str() == name) {
            let message = format!("the exception `{name}` stands twice in this rule");
            let help = "both except; give one of them another name";
            reader.diagnostics.push(exception.name.wrong(message).help(help).warning());
        }
        exceptions.push(exception);
    }
    exceptions
}

fn one(reader: &mut ItemReader<'_>, node: Node, purpose: Purpose) -> Option<ExceptionItem> {
    let mut exception = ItemReader::open(reader.source, reader.diagnostics, node, "an exception")?;
    exception.keys(KEYS);
    let before = exception.diagnostics.len();
    let name = exception.required("name");
    let fields = exception.shape("fields");
    if fields.is_none() && purpose == Purpose::Define && exception.diagnostics.len() == before {
        let missing = exception.start.wrong("this exception has no `fields`");
        exception.diagnostics.push(missing.help("only `override: {exceptions: append}` may leave them out"));
    }
    let comps = exception.shape("comps");
    let values = exception.take("values");
    if values.is_none() && purpose == Purpose::Append {
        let message = "this exception is to be appended to, and has no `values`";
        let warning = exception.start.wrong(message).help("nothing changes").warning();
        exception.diagnostics.push(warning);
    }
    let rows = values.map(|node| exception.rows(node)).unwrap_or_default();
    let (reason, owner) = (exception.text("reason"), exception.text("owner"));
    let expires = exception.text("expires").and_then(|text| exception.date(text));
    let groups = vec![Group { rows, reason, owner, expires }];
    let complete = purpose == Purpose::Append || fields.is_some();
    let exception_item = ExceptionItem { name: name?, fields, comps, groups };
    complete.then_some(exception_item)
}

impl ItemReader<'_> {
    /// A text or a sequence of texts, none of them empty.
    fn shape(&mut self, key: &str) -> Option<Shape> {
        let node = self.take(key)?;
        if node.text().is_some() {
            return self.as_text(key, node).map(Shape::One);
        }
        let (span, kind) = (node.span, node.kind_name());
        let Kind::Sequence(members) = node.kind else {
            let message = format!("`{key}` must be a text or a sequence of texts, found {kind}");
            self.diagnostics.push(Diagnostic::at(self.source, span, message));
            return None;
        };
        if members.is_empty() {
            self.diagnostics.push(Diagnostic::at(self.source, span, format!("`{key}` is empty")));
            return None;
        }
        let texts: Vec<Option<Text>> =
            members.into_iter().map(|member| self.as_text(&format!("a member of {key}"), member)).collect();
        texts.into_iter().collect::<Option<_>>().map(Shape::Several)
    }

    fn rows(&mut self, node: Node) -> Vec<Row> {
        let (span, kind) = (node.span, node.kind_name());
        let Kind::Sequence(members) = node.kind else {
            let message = format!("`values` must be a sequence, found {kind}");
            self.diagnostics.push(Diagnostic::at(self.source, span, message));
            return Vec::new();
        };
        members.into_iter().filter_map(|member| self.row(member)).collect()
    }

    fn row(&mut self, node: Node) -> Option<Row> {
        let place = Place::new(self.source, node.span);
        match node.kind {
            Kind::Sequence(members) => {
                let members: Vec<Option<Member>> =
                    members.into_iter().map(|member| self.member(member)).collect();
                Some(Row::Tuple(place, members.into_iter().collect::<Option<_>>()?))
            }
            _ => self.value(node).map(Row::One),
        }
    }

    fn member(&mut self, node: Node) -> Option<Member> {
        match node.kind {
            Kind::Sequence(members) => {
                let texts: Vec<Option<Text>> = members.into_iter().map(|member| self.value(member)).collect();
                texts.into_iter().collect::<Option<_>>().map(Member::List)
            }
            _ => self.value(node).map(Member::One),
        }
    }

    /// A value: no blank is cut off, but it may not be empty.
    fn value(&mut self, node: Node) -> Option<Text> {
        match node.text() {
            Some(text) if text.is_empty() || node.is_null() => self.wrong(&node, "a value is empty"),
            Some(_) => return Some(Text::new(node, self.source.clone())),
            None => self.wrong(&node, format!("a value must be a text, found {}", node.kind_name())),
        }
        None
    }

    fn date(&mut self, text: Text) -> Option<(Date, Text)> {
        let Some(date) = parse_date(text.as_str()) else {
            let message = format!("`{}` is not a date", text.as_str());
            self.diagnostics.push(text.wrong(message).help("write the last day as 2026-12-31"));
            return None;
        };
        Some((date, text))
    }
}

/// `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<Date> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten()
    };
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
}

/// A comparison in `comps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comp {
    pub(crate) operator: Operator,
    pub(crate) modifier: Option<Modifier>,
}

impl Comp {
    /// Reads an operator, perhaps with `oneof`, `anyof` or `allof` behind it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let word = words.next()?;
        let operator = if word == "==" { Operator::Eq } else { Operator::from_word(word)? };
        let modifier = words.next().map(Modifier::from_word);
        let fits = match modifier {
            None => true,
            Some(modifier) => modifier.is_some() && operator.wants() == Wants::Value,
        };
        (fits && words.next().is_none()).then_some(Comp { operator, modifier: modifier.flatten() })
    }

    /// Whether a list stands on its right.
    pub(crate) fn takes_list(self) -> bool {
        self.modifier.is_some() || self.operator.wants() == Wants::List
    }
}

impl std::fmt::Display for Comp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.operator.word())?;
        self.modifier.map_or(Ok(()), |modifier| write!(f, " {}", modifier.word()))
    }
}

impl ExceptionItem {
    /// The comparisons, one for each field: those that were written, `in` for a single field, `=` for several.
    /// `None` if something is wrong with them, which is then reported.
    pub(crate) fn comparisons(&self, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<Comp>> {
        let fields = self.fields.as_ref()?;
        let several = matches!(fields, Shape::Several(_));
        let Some(comps) = &self.comps else {
            let operator = if several { Operator::Eq } else { Operator::In };
            return Some(vec![Comp { operator, modifier: None }; fields.texts().len()]);
        };
        if several != matches!(comps, Shape::Several(_)) {
            let place = comps.texts().first().unwrap_or(&self.name);
            let message = "`fields` and `comps` must both be one, or both be sequences";
            diagnostics.push(place.wrong(message));
            return None;
        }
        if fields.texts().len() != comps.texts().len() {
            let (fields, comps) = (fields.texts().len(), comps.texts());
            let place = comps.first().unwrap_or(&self.name);
            let some =
                |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
            let (fields, comps) = (some(fields, "field"), some(comps.len(), "comparison"));
            diagnostics.push(place.wrong(format!("{fields}, but {comps}")));
            return None;
        }
        let parsed: Vec<Option<Comp>> =
            comps.texts().iter().map(|text| comp(text, several, diagnostics)).collect();
        parsed.into_iter().collect()
    }
}

fn comp(text: &Text, several: bool, diagnostics: &mut Vec<Diagnostic>) -> Option<Comp> {
    let word = text.as_str().trim();
    let Some(comp) = Comp::parse(word) else {
        let words = Operator::ALL.iter().map(|op| op.word());
        let help = did_you_mean(word, words)
            .unwrap_or_else(|| "an operator, such as `=` or `startswith`, or `startswith oneof`".to_owned());
        diagnostics.push(text.wrong(format!("`{word}` is not a comparison")).help(help));
        return None;
    };
    if !several && !comp.takes_list() {
        let message = format!("a single field cannot be compared by `{comp}`");
        let help =
            "use `in`, `pmatch`, `intersects` or an operator with `oneof`, or put the field into brackets";
        diagnostics.push(text.wrong(message).help(help));
        return None;
    }
    Some(comp)
}

/// The reader's source, for tests of this module's neighbours.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_days() {
        for good in ["2026-12-31", "2024-02-29", "0001-01-01"] {
            assert_eq!(parse_date(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "2026-2-1",
            "2026-13-01",
            "2026-02-30",
            "2026-12-31T",
            "31.12.2026",
            "2026-12-3ä",
            "+026-12-31",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn comparisons_are_operators_with_at_most_a_modifier() {
        for good in ["=", "==", "!=", "in", "startswith oneof", "= anyof", "  glob   allof ", "<="] {
            assert!(Comp::parse(good).is_some(), "{good}");
        }
        for bad in ["", "exists", "oneof", "in oneof", ">= oneof", "frobulate oneof", "= oneof x", "= in"] {
            assert_eq!(Comp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_in_words() {
        for (fields, comps, said) in [
            ("[proc.name, proc.pname]", "[=]", "2 fields, but 1 comparison"),
            ("[proc.name]", "[=, =]", "1 field, but 2 comparisons"),
        ] {
            let text = format!(
                "- rule: r\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n  \
                 exceptions: [{{name: e, fields: {fields}, comps: {comps}}}]\n"
            );
            let error = crate::rules::RuleSet::from_sources(&[("t.yaml", &text)]).unwrap_err();
            let messages: Vec<&str> = error.diagnostics().iter().map(Diagnostic::message).collect();
            assert_eq!(messages, [said]);
        }
    }
}
