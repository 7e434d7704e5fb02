//! The tests that rules carry: run against their own rule, and what came between where one does not come out.

use std::sync::Arc;

use super::explain::Reason;
use super::rule::Rule;
use super::sample::Sample;
use super::{Node, RuleSet, Special};
use crate::fields::FieldSource;

/// A rule has at most this many tests.
pub(crate) const MAX_TESTS: usize = 1000;

/// Of at most this many tests of a rule set that do not come out it is worked out why.
const MAX_EXPLAINED: usize = 1000;

/// A test of a rule.
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// The event.
    pub event: Sample,
    /// Whether the rule must match it.
    pub matches: bool,
    /// The file that it stands in.
    pub file: Arc<str>,
    /// Its line there, from 1.
    pub line: usize,
    /// Its column there in characters, from 1.
    pub column: usize,
}

/// What became of the tests of a rule set.
#[derive(Clone, Debug, Default)]
pub struct TestReport {
    /// By rule, in the order of the files, the disabled ones and those without a test included.
    pub rules: Vec<RuleReport>,
}

/// What became of the tests of a rule.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// The rule's id.
    pub id: String,
    /// The rule's name.
    pub name: String,
    /// In the order of the file.
    pub tests: Vec<TestOutcome>,
}

/// What became of a test.
#[derive(Clone, Debug)]
pub struct TestOutcome {
    /// Its name.
    pub name: String,
    /// The file that it stands in.
    pub file: Arc<str>,
    /// Its line there, from 1.
    pub line: usize,
    /// Its column there in characters, from 1.
    pub column: usize,
    /// Whether the rule had to match.
    pub expected: bool,
    /// Whether it did.
    pub matched: bool,
    /// Of a test that does not come out, what decided: if the rule matched, a smallest set of sub-conditions that made
    /// it; if it did not, the nearest miss, a smallest set of which each had to come out otherwise.
    pub reasons: Vec<Reason<'static>>,
}

impl TestOutcome {
    /// Whether it came out as it had to.
    pub fn passed(&self) -> bool {
        self.expected == self.matched
    }
}

impl TestOutcome {
    /// That it did not come out, in a line with its place.
    pub fn told(&self, rule: &RuleReport) -> String {
        let TestOutcome { file, line, column, name, .. } = self;
        let outcome = match self.expected {
            true => "must match, and does not",
            false => "must not match, and does",
        };
        format!("{file}:{line}:{column}: test `{name}` of rule `{}`: the event {outcome}", rule.id)
    }
}

impl TestReport {
    /// The number of tests.
    pub fn count(&self) -> usize {
        self.rules.iter().map(|rule| rule.tests.len()).sum()
    }

    /// The tests that did not come out, with their rules.
    pub fn failures(&self) -> impl Iterator<Item = (&RuleReport, &TestOutcome)> {
        self.rules
            .iter()
            .flat_map(|rule| rule.tests.iter().map(move |test| (rule, test)))
            .filter(|(_, t)| !t.passed())
    }

    /// Whether all tests came out.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The rules that have no test.
    pub fn untested(&self) -> impl Iterator<Item = &RuleReport> {
        self.rules.iter().filter(|rule| rule.tests.is_empty())
    }
}

/// What a rule's tests leave open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// No test shows an event that it matches.
    pub no_match: bool,
    /// No test shows a near miss: an event that it does not match because of a single sub-condition.
    pub no_near_miss: bool,
}

impl Rule {
    /// Whether it matches an event as the daemon would have it, were it enabled.
    fn matches_as_loaded<E: FieldSource + ?Sized>(&self, sample: &Sample, event: &E) -> bool {
        let holds = |node: &Node| node.holds(event, &super::Memo::default());
        match self.node.specialise(sample.ty) {
            Special::Decided(holds) => holds,
            Special::Same => holds(&self.node),
            Special::Rest(node) => holds(&node),
        }
    }

    /// Whether it does not match, and would if a single sub-condition came out otherwise.
    pub fn nearly_matches(&self, sample: &Sample) -> bool {
        !self.matches_as_loaded(sample, &sample.values) && self.judge(&sample.values).nearest().len() == 1
    }

    /// What its tests leave open, those that do not come out left aside.
    pub fn gaps(&self) -> Gaps {
        let shows_match =
            |test: &RuleTest| test.matches && self.matches_as_loaded(&test.event, &test.event.values);
        let shows_miss = |test: &RuleTest| !test.matches && self.nearly_matches(&test.event);
        Gaps {
            no_match: !self.tests.iter().any(shows_match),
            no_near_miss: !self.tests.iter().any(shows_miss),
        }
    }
}

impl RuleSet {
    /// Runs the tests of all rules, each against its own rule as the daemon would match it, disabled ones included.
    pub fn run_tests(&self) -> TestReport {
        let mut explained = 0;
        let mut outcome = |rule: &Rule, test: &RuleTest| {
            let event = &test.event.values;
            let matched = rule.matches_as_loaded(&test.event, event);
            let mut reasons = Vec::new();
            if matched != test.matches && explained < MAX_EXPLAINED {
                explained += 1;
                reasons = rule.why(event).into_iter().map(Reason::into_owned).collect();
            }
            TestOutcome {
                name: test.name.clone(),
                file: Arc::clone(&test.file),
                line: test.line,
                column: test.column,
                expected: test.matches,
                matched,
                reasons,
            }
        };
        let report = |rule: &Rule| RuleReport {
            id: rule.id.clone(),
            name: rule.name.clone(),
            tests: rule.tests.iter().map(|test| outcome(rule, test)).collect(),
        };
        TestReport { rules: self.rules().iter().map(report).collect() }
    }
}

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
