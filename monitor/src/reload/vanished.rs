//! Rules that are in force no longer, whose counters of alerts are still shown.
//!
//! A counter that went while somebody adds up its growth would take the last alerts with it, so those of rules that
//! vanished stay. Rule files that get new ids again and again must not grow the metrics without bound, so only the
//! latest ones do.

use std::collections::{HashSet, VecDeque};

use crate::rules::{Priority, RuleSet};

/// Series of vanished rules that are kept.
const MOST: usize = 1024;

/// A rule's series of `alerts_total`.
pub(super) type Label = (String, Priority);

/// The vanished, the latest last.
#[derive(Debug, Default)]
pub(super) struct Vanished(VecDeque<Label>);

impl Vanished {
    /// The series of a set.
    pub(super) fn labels(rules: &RuleSet) -> HashSet<Label> {
        rules.rules().iter().map(|rule| (rule.id.clone(), rule.priority)).collect()
    }

    /// One set took another's place. Gives the series that are to be forgotten.
    pub(super) fn gone(&mut self, before: Option<&RuleSet>, now: &HashSet<Label>) -> Vec<Label> {
        self.0.retain(|label| !now.contains(label));
        for label in before.map(Self::labels).unwrap_or_default() {
            if !now.contains(&label) {
                self.0.push_back(label);
            }
        }
        let excess = self.0.len().saturating_sub(MOST);
        self.0.drain(..excess).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ids: impl Iterator<Item = usize>) -> RuleSet {
        let rule = |id: usize| {
            format!(
                "- rule: R{id}\n  id: r{id}\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: NOTICE\n"
            )
        };
        RuleSet::from_sources(&[("r.yaml", &ids.map(rule).collect::<String>())]).unwrap()
    }

    #[test]
    fn the_latest_are_kept_and_those_that_come_back_are_no_longer_vanished() {
        let mut vanished = Vanished::default();
        let mut step =
            |before: &RuleSet, now: &RuleSet| vanished.gone(Some(before), &Vanished::labels(now)).len();
        let (one, other) = (rules(0..1000), rules(1000..2000));
        for _ in 0..3 {
            assert_eq!(step(&one, &other), 0);
            assert_eq!(step(&other, &one), 0);
        }
        // A thousand are still remembered of the other set.
        assert_eq!(step(&one, &rules(3000..3001)), 2000 - MOST);
        assert_eq!(step(&rules(3000..3001), &rules(4000..4001)), 1);
    }
}
