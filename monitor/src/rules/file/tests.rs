//! The key `tests` of a rule: events that it must match, and such that it must not.

use std::sync::Arc;

use crate::rules::diagnostic::{Diagnostic, Source, did_you_mean};
use crate::rules::sample::{self, Sample};
use crate::rules::testing::{MAX_TESTS, RuleTest};
use crate::rules::yaml::{Kind, Node};

/// Reads the tests of a rule; what is wrong in one is reported, and the test left out.
pub(super) fn read(source: &Source, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<RuleTest> {
    let mut wrong =
        |node: &Node, message: String| diagnostics.push(Diagnostic::at(source, node.span, message));
    let members = match &node.kind {
        _ if node.is_null() => return Vec::new(),
        Kind::Sequence(members) if members.len() <= MAX_TESTS => members,
        Kind::Sequence(_) => {
            wrong(node, format!("a rule has at most {MAX_TESTS} tests"));
            return Vec::new();
        }
        _ => {
            wrong(node, format!("`tests` must be a sequence, found {}", node.kind_name()));
            return Vec::new();
        }
    };
    let mut tests: Vec<RuleTest> = Vec::new();
    for member in members {
        let Some(test) = (Reader { source, diagnostics: &mut *diagnostics }).test(member) else { continue };
        if tests.iter().any(|other| other.name == test.name) {
            let message = format!("this rule has two tests with the name `{}`", test.name);
            diagnostics.push(Diagnostic::at(source, member.span, message));
            continue;
        }
        tests.push(test);
    }
    tests
}

struct Reader<'r> {
    source: &'r Source,
    diagnostics: &'r mut Vec<Diagnostic>,
}

/// The parts of a test.
#[derive(Default)]
struct Parts {
    name: Option<Option<String>>,
    event: Option<Option<Sample>>,
    matches: Option<Option<bool>>,
}

impl Reader<'_> {
    fn wrong(&mut self, node: &Node, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::at(self.source, node.span, message));
    }

    fn test(&mut self, node: &Node) -> Option<RuleTest> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = "a test is a mapping of `name`, `event` and `match`";
            self.wrong(node, format!("{message}, found {}", node.kind_name()));
            return None;
        };
        let mut parts = Parts::default();
        for (key, value) in entries {
            let twice = match key.text() {
                Some("name") => parts.name.replace(self.name(value)).is_some(),
                Some("event") => {
                    parts.event.replace(sample::from_node(self.source, value, self.diagnostics)).is_some()
                }
                Some("match") => parts.matches.replace(self.matches(value)).is_some(),
                name => {
                    let name = name.unwrap_or("?");
                    let help = did_you_mean(name, ["name", "event", "match"])
                        .unwrap_or_else(|| "a test has `name`, `event` and `match`".to_owned());
                    let message = format!("unknown key `{name}` in a test");
                    self.diagnostics.push(Diagnostic::at(self.source, key.span, message).help(help));
                    false
                }
            };
            if twice {
                let message =
                    format!("the key `{}` stands twice in this test", key.text().unwrap_or_default());
                self.wrong(key, message);
            }
        }
        // The first character is enough to point at.
        let mut start = node.clone();
        start.span.end = start.span.start + 1;
        let missing = [
            ("name", parts.name.is_none()),
            ("event", parts.event.is_none()),
            ("match", parts.matches.is_none()),
        ];
        for (key, _) in missing.iter().filter(|(_, missing)| *missing) {
            self.wrong(&start, format!("this test has no `{key}`"));
        }
        let place = Diagnostic::at(self.source, node.span, "");
        let (line, column) = place.line_column().unwrap_or((1, 1));
        let (name, event, matches) = (parts.name??, parts.event??, parts.matches??);
        Some(RuleTest { name, event, matches, file: Arc::from(place.file_name()), line, column })
    }

    fn name(&mut self, node: &Node) -> Option<String> {
        match node.text().map(str::trim) {
            Some(name) if !name.is_empty() && !node.is_null() => Some(name.to_owned()),
            _ => {
                self.wrong(node, "`name` must be a text that says what the test shows");
                None
            }
        }
    }

    fn matches(&mut self, node: &Node) -> Option<bool> {
        match node.text().filter(|_| !node.is_quoted()) {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            _ => {
                self.wrong(node, "`match` must be `true` or `false`");
                None
            }
        }
    }
}
