//! `ringfence rules coverage`: each rule against what the probes see on this machine.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::cli::rules::visible;
use crate::config::OutputFormat;
use crate::coverage::{Coverage, Sight};
use crate::rules::{Rule, RuleSet};

/// Rules that are matched at all, with what they can do here.
fn judged<'r>(rules: &'r RuleSet, sight: &Sight) -> Vec<(&'r Rule, Coverage)> {
    let enabled = rules.rules().iter().filter(|rule| rule.enabled);
    enabled.map(|rule| (rule, sight.of_rule(rule))).collect()
}

/// Whether a rule can never fire here.
pub(super) fn is_wrong(rules: &RuleSet, sight: &Sight) -> bool {
    judged(rules, sight).iter().any(|(_, coverage)| matches!(coverage, Coverage::Blind(_)))
}

/// One line per rule, the reasons below it, and a summary.
pub(super) fn table(rules: &RuleSet, sight: &Sight, output: OutputFormat) -> String {
    let judged = judged(rules, sight);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let attach = sight.mode().name();
    let count = |name| judged.iter().filter(|(_, coverage)| coverage.name() == name).count();
    let [covered, degraded, blind] = ["covered", "degraded", "blind"].map(count);
    if output == OutputFormat::Json {
        let rules: Json = judged
            .iter()
            .map(|(rule, coverage)| {
                json!({"id": rule.id, "coverage": coverage.name(), "reasons": coverage.reasons()})
            })
            .collect();
        return format!("{:#}\n", json!({"kernel": kernel, "attach": attach, "rules": rules}));
    }
    let mut text = String::new();
    for (rule, coverage) in &judged {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:8}  {}", coverage.name(), visible(&rule.id));
        for reason in coverage.reasons() {
            let _ = writeln!(text, "{:8}    {}", "", visible(reason));
        }
    }
    let _ = writeln!(
        text,
        "kernel {kernel}, {attach} mode: {covered} covered, {degraded} degraded, {blind} blind"
    );
    text
}
