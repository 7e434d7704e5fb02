//! The key `tests` of a rule: events that it must match, and such that it must not.

use std::sync::Arc;

use super::{ItemReader, Kind, Node};
use crate::rules::diagnostic::{Diagnostic, did_you_mean};
use crate::rules::sample;
use crate::rules::testing::{MAX_TESTS, RuleTest};

const TEST_KEYS: &[&str] = &["name", "event", "match"];

impl ItemReader<'_> {
    /// The tests of a rule; what is wrong in one is reported, and the test left out.
    pub(super) fn tests(&mut self) -> Vec<RuleTest> {
        let Some(node) = self.take("tests") else { return Vec::new() };
        if node.is_null() {
            return Vec::new();
        }
        let Kind::Sequence(members) = &node.kind else {
            self.wrong(&node, format!("`tests` must be a sequence, found {}", node.kind_name()));
            return Vec::new();
        };
        if members.len() > MAX_TESTS {
            self.wrong(&node, format!("a rule has at most {MAX_TESTS} tests"));
            return Vec::new();
        }
        let mut tests: Vec<RuleTest> = Vec::new();
        for member in members {
            let mut reader =
                ItemReader { source: self.source, diagnostics: &mut *self.diagnostics, entries: Vec::new() };
            let Some(test) = reader.test(member) else { continue };
            if tests.iter().any(|other| other.name == test.name) {
                self.wrong(member, format!("this rule has two tests with the name `{}`", test.name));
                continue;
            }
            tests.push(test);
        }
        tests
    }

    fn test(&mut self, node: &Node) -> Option<RuleTest> {
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong(
                node,
                format!("a test is a mapping of `name`, `event` and `match`, found {}", node.kind_name()),
            );
            return None;
        };
        for (key, value) in entries {
            match key.text() {
                Some(name) if self.entries.iter().any(|(known, ..)| known == name) => {
                    self.wrong(key, format!("the key `{name}` stands twice in this test"));
                }
                Some(name) if TEST_KEYS.contains(&name) => {
                    self.entries.push((name.to_owned(), key.clone(), value.clone()));
                }
                name => {
                    let message = format!("unknown key `{}` in a test", name.unwrap_or("?"));
                    let help = did_you_mean(name.unwrap_or_default(), TEST_KEYS.iter().copied())
                        .unwrap_or_else(|| "a test has `name`, `event` and `match`".to_owned());
                    self.diagnostics.push(Diagnostic::at(self.source, key.span, message).help(help));
                }
            }
        }
        let name = self.required("name", node);
        let matches = self.required("match", node).and_then(|text| match text.as_str() {
            "true" if !text.is_quoted() => Some(true),
            "false" if !text.is_quoted() => Some(false),
            _ => {
                self.diagnostics.push(text.wrong("`match` must be `true` or `false`"));
                None
            }
        });
        let event = match self.take("event") {
            Some(event) => sample::from_node(self.source, &event, self.diagnostics),
            None => {
                let mut start = node.clone();
                start.span.end = start.span.start + 1;
                self.wrong(&start, "this test has no `event`");
                None
            }
        };
        let place = Diagnostic::at(self.source, node.span, "");
        let (line, column) = place.line_column().unwrap_or((1, 1));
        Some(RuleTest {
            name: name?.as_str().trim().to_owned(),
            event: event?,
            matches: matches?,
            file: Arc::from(place.file_name()),
            line,
            column,
        })
    }
}
