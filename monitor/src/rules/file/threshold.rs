//! The key `threshold` of a rule: how many events, in what time, counted by what.

use std::time::Duration;

use super::{ItemReader, Text};
use crate::rules::ast::OperandKind;
use crate::rules::condition;
use crate::rules::diagnostic::{Diagnostic, did_you_mean};
use crate::rules::operand::{Problem, Source, resolve_ours};
use crate::rules::threshold::{COUNTS, MAX_BY, NamedField, Threshold, WITHIN, written};
use crate::rules::yaml::{Kind, Node};

const KEYS: &[&str] = &["count", "within", "by", "distinct"];

/// Reads the value of `threshold`. What is wrong has been reported.
pub(super) fn read(reader: &mut ItemReader<'_>, node: &Node) -> Option<Threshold> {
    let Kind::Mapping(entries) = &node.kind else {
        let found = node.kind_name();
        let help = "write `threshold: {count: 5, within: 1m, by: [container.id]}`";
        let message = format!("`threshold` must be a mapping, found {found}");
        reader.diagnostics.push(Diagnostic::at(reader.source, node.span, message).help(help));
        return None;
    };
    let before = reader.diagnostics.len();
    let mut seen: Vec<&str> = Vec::new();
    let (mut count, mut within, mut by, mut distinct) = (None, None, Vec::new(), None);
    for (key, value) in entries {
        let Some(name) = key.text() else {
            reader.wrong(key, "a key must be a text");
            continue;
        };
        if seen.contains(&name) {
            reader.wrong(key, format!("the key `{name}` stands twice in this threshold"));
            continue;
        }
        seen.push(name);
        match name {
            "count" => count = read_count(reader, value),
            "within" => within = read_within(reader, value),
            "by" => by = read_fields(reader, "by", value),
            "distinct" => distinct = read_field(reader, "distinct", value),
            _ => {
                let wrong = Diagnostic::at(reader.source, key.span, format!("unknown key `{name}`"));
                let help = did_you_mean(name, KEYS.iter().copied())
                    .unwrap_or_else(|| format!("a threshold has {}", KEYS.join(", ")));
                reader.diagnostics.push(wrong.help(help));
            }
        }
    }
    for key in ["count", "within"] {
        if !seen.contains(&key) {
            reader.wrong(node, format!("this threshold has no `{key}`"));
        }
    }
    if reader.diagnostics.len() > before {
        return None;
    }
    Some(Threshold { count: count?, within: within?, by, distinct })
}

fn wrong(reader: &mut ItemReader<'_>, node: &Node, message: String, help: String) {
    reader.diagnostics.push(Diagnostic::at(reader.source, node.span, message).help(help));
}

fn read_count(reader: &mut ItemReader<'_>, node: &Node) -> Option<u32> {
    let (least, most) = (COUNTS.start(), COUNTS.end());
    let help = format!("a whole number from {least} to {most}");
    let Some(text) = node.text() else {
        wrong(reader, node, format!("`count` must be a number, found {}", node.kind_name()), help);
        return None;
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(count) if COUNTS.contains(&count) => return Some(count),
        Ok(0) => wrong(reader, node, "a `count` of 0 can never be reached".to_owned(), help),
        Ok(1) => {
            let help = "leave the threshold out: without one, every event fires".to_owned();
            wrong(reader, node, "a `count` of 1 is no threshold".to_owned(), help);
        }
        // Too many digits for the type, too.
        _ if digits => wrong(reader, node, format!("`count` is greater than {most}"), help),
        _ => wrong(reader, node, format!("`{text}` is not a whole number"), help),
    }
    None
}

fn read_within(reader: &mut ItemReader<'_>, node: &Node) -> Option<Duration> {
    let help = "a number with its unit, such as 500ms, 60s, 5m or 1h".to_owned();
    let Some(text) = node.text() else {
        wrong(reader, node, format!("`within` must be a duration, found {}", node.kind_name()), help);
        return None;
    };
    let Ok(within) = humantime::parse_duration(text) else {
        wrong(reader, node, format!("`{text}` is not a duration"), help);
        return None;
    };
    if WITHIN.contains(&within) {
        return Some(within);
    }
    let (least, most) = (written(*WITHIN.start()), written(*WITHIN.end()));
    let message = match within {
        Duration::ZERO => "in no time nothing can be counted".to_owned(),
        short if short < *WITHIN.start() => format!("`within` is shorter than {least}"),
        _ => format!("`within` is longer than {most}"),
    };
    wrong(reader, node, message, format!("from {least} to {most}"));
    None
}

/// One field, or a sequence of fields.
pub(super) fn read_fields(reader: &mut ItemReader<'_>, key: &str, node: &Node) -> Vec<NamedField> {
    if node.is_null() {
        return Vec::new();
    }
    let nodes = match &node.kind {
        Kind::Sequence(members) => members.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.len() > MAX_BY {
        reader.wrong(node, format!("`{key}` has more than {MAX_BY} fields"));
        return Vec::new();
    }
    let mut fields: Vec<NamedField> = Vec::new();
    for node in nodes {
        if let Some(field) = read_field(reader, key, node) {
            if fields.iter().any(|other| other.field == field.field) {
                reader.wrong(node, format!("the field `{}` stands twice in `{key}`", field.name));
            } else {
                fields.push(field);
            }
        }
    }
    fields
}

/// A field as conditions write it.
fn read_field(reader: &mut ItemReader<'_>, key: &str, node: &Node) -> Option<NamedField> {
    let help = "a field, such as container.id or proc.aname[2]";
    let Some(text) = node.text() else {
        let message = format!("`{key}` must name a field, found {}", node.kind_name());
        wrong(reader, node, message, help.to_owned());
        return None;
    };
    let place = Text::new(node.clone(), reader.source.clone());
    let parsed = condition::parse_operand_prefix(text).ok().filter(|(_, taken)| *taken == text.len());
    let Some((OperandKind::Field(name), span)) = parsed.map(|(operand, _)| (operand.value, operand.span))
    else {
        reader.diagnostics.push(place.wrong(format!("`{text}` is not a field")).help(help));
        return None;
    };
    match resolve_ours(&name, span) {
        Ok(typed) => match typed.source {
            Source::Field(field) => Some(NamedField { name: text.to_owned(), field }),
            _ => None,
        },
        Err(Problem { span, message, help, .. }) => {
            reader.diagnostics.push(place.wrong_at(span, message).maybe_help(help));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::{RuleSet, Threshold};

    fn load(threshold: &str) -> Result<Threshold, Vec<String>> {
        let text = format!(
            "- rule: r\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: DEBUG\n  threshold: {threshold}\n"
        );
        match RuleSet::from_sources(&[("t.yaml", &text)]) {
            Ok(set) => Ok(set.rules()[0].threshold.clone().unwrap()),
            Err(error) => Err(error
                .diagnostics()
                .iter()
                .map(|found| {
                    let help = found.hint().map(|help| format!(" [{help}]")).unwrap_or_default();
                    format!("{}: {}{help}", found.line_column().unwrap().1, found.message())
                })
                .collect()),
        }
    }

    #[test]
    fn thresholds_are_read() {
        let full =
            load("{count: 5, within: 90s, by: [container.id, 'proc.aname[2]'], distinct: evt.type}").unwrap();
        let words = "5 different values of evt.type within 1m 30s by container.id, proc.aname[2]";
        assert_eq!(full.to_string(), words);
        let plain = load("{count: 1000, within: 500ms}").unwrap();
        assert_eq!((plain.by.len(), plain.distinct.clone(), plain.within_ns()), (0, None, 500_000_000));
        assert_eq!(
            load("{count: 2, within: 24h, by: proc.name}").unwrap().to_string(),
            "2 events within 24h by proc.name"
        );
        assert_eq!(load("{count: 2, within: 1h 30m, by: []}").unwrap().to_string(), "2 events within 1h 30m");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases: &[(&str, &[&str])] = &[
            (
                "5",
                &[
                    "14: `threshold` must be a mapping, found a value [write `threshold: {count: 5, within: 1m, by: [container.id]}`]",
                ],
            ),
            ("{}", &["14: this threshold has no `count`", "14: this threshold has no `within`"]),
            (
                "{count: 5, withn: 1m}",
                &["14: this threshold has no `within`", "25: unknown key `withn` [did you mean `within`?]"],
            ),
            (
                "{count: 5, within: 1m, colour: red}",
                &["37: unknown key `colour` [a threshold has count, within, by, distinct]"],
            ),
            ("{count: 5, count: 6, within: 1m}", &["25: the key `count` stands twice in this threshold"]),
            (
                "{count: 0, within: 1m}",
                &["22: a `count` of 0 can never be reached [a whole number from 2 to 1000]"],
            ),
            (
                "{count: 1, within: 1m}",
                &[
                    "22: a `count` of 1 is no threshold [leave the threshold out: without one, every event fires]",
                ],
            ),
            (
                "{count: 1001, within: 1m}",
                &["22: `count` is greater than 1000 [a whole number from 2 to 1000]"],
            ),
            (
                "{count: 99999999999999999999, within: 1m}",
                &["22: `count` is greater than 1000 [a whole number from 2 to 1000]"],
            ),
            ("{count: -5, within: 1m}", &["22: `-5` is not a whole number [a whole number from 2 to 1000]"]),
            (
                "{count: 2.5, within: 1m}",
                &["22: `2.5` is not a whole number [a whole number from 2 to 1000]"],
            ),
            (
                "{count: [5], within: 1m}",
                &["22: `count` must be a number, found a sequence [a whole number from 2 to 1000]"],
            ),
            (
                "{count: 5, within: 60}",
                &["33: `60` is not a duration [a number with its unit, such as 500ms, 60s, 5m or 1h]"],
            ),
            (
                "{count: 5, within: [1m]}",
                &[
                    "33: `within` must be a duration, found a sequence [a number with its unit, such as 500ms, 60s, 5m or 1h]",
                ],
            ),
            ("{count: 5, within: 0s}", &["33: in no time nothing can be counted [from 1ms to 24h]"]),
            ("{count: 5, within: 1us}", &["33: `within` is shorter than 1ms [from 1ms to 24h]"]),
            ("{count: 5, within: 25h}", &["33: `within` is longer than 24h [from 1ms to 24h]"]),
            (
                "{count: 5, within: 99999999999999999999h}",
                &[
                    "33: `99999999999999999999h` is not a duration [a number with its unit, such as 500ms, 60s, 5m or 1h]",
                ],
            ),
            (
                "{count: 5, within: 1m, by: [container.idd]}",
                &["42: unknown field `container.idd` [did you mean `container.id`?]"],
            ),
            (
                "{count: 5, within: 1m, by: [evt.arg]}",
                &[
                    "42: field `evt.arg` needs an argument in brackets: one of flags, fd, nstype, type, len, level, from, num, turn_on, clockid, modes, sec, nsec, effective, permitted, inheritable, target_pid, path, dirfd",
                ],
            ),
            (
                "{count: 5, within: 1m, by: [proc.name, proc.name]}",
                &["53: the field `proc.name` stands twice in `by`"],
            ),
            (
                "{count: 5, within: 1m, by: {a: b}}",
                &[
                    "41: `by` must name a field, found a mapping [a field, such as container.id or proc.aname[2]]",
                ],
            ),
            (
                "{count: 5, within: 1m, distinct: tolower(proc.name)}",
                &["47: `tolower(proc.name)` is not a field [a field, such as container.id or proc.aname[2]]"],
            ),
            (
                "{count: 5, within: 1m, distinct: [proc.name]}",
                &[
                    "47: `distinct` must name a field, found a sequence [a field, such as container.id or proc.aname[2]]",
                ],
            ),
            (
                "{count: 5, within: 1m, distinct: proc.name x}",
                &["47: `proc.name x` is not a field [a field, such as container.id or proc.aname[2]]"],
            ),
            (
                "{count: 5, within: 1m, by: [a.a, a.b, a.c, a.d, a.e, a.f, a.g, a.h, a.i]}",
                &["41: `by` has more than 8 fields"],
            ),
        ];
        for (threshold, expected) in cases {
            let found = load(threshold).expect_err(threshold);
            assert_eq!(found, *expected, "{threshold}");
        }
    }
}
