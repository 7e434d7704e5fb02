//! Holding alerts together that are alike: the first of a group is told at once, the others once per period, with their
//! exact number and the times of the first and the last.
//!
//! A group is what a rule and the values of its `group_by` fields make. It begins with an alert that passes, and lasts for
//! periods of `group_seconds`. At the end of each in which alerts were held back, one summary tells of them; a period
//! without any ends the group, so the next alert passes again. Time is the events' own boot time.
//!
//! Nothing is lost: what was held back is told when rules are exchanged and when the daemon ends. There are at most
//! [`MAX_GROUPS`]; where there is no room for another, its alerts pass, and that is counted. Keys are kept as 64-bit hashes
//! with a secret of the process, as those of thresholds are.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};

use crate::alert::{AlertForm, Crossed, Grouped};
use crate::alerting::Moment;
use crate::fields::{FieldSource, FieldValues};
use crate::rules::Rule;
use crate::threshold::key_of;

/// Groups that are remembered, of all rules, at most. Each holds the values of one event while alerts are held back.
pub const MAX_GROUPS: usize = 4096;

/// How much earlier than its group's begin an event may be and still belong to it: more than events wait. Beyond it,
/// another boot's clock tells the time, as recordings may have it.
const LATE_NS: u64 = 60_000_000_000;

/// What becomes of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is told.
    Pass,
    /// It is held back; a summary will count it.
    Held,
}

/// Alerts that were held back together.
#[derive(Debug)]
pub struct Summary {
    /// The rule's place in its set.
    pub position: usize,
    /// What the first of them tells of its event.
    pub values: FieldValues,
    /// Its text.
    pub output: String,
    /// The threshold that it reached, if its rule has one.
    pub crossed: Option<Crossed>,
    /// How many there were, and when.
    pub grouped: Grouped,
}

#[derive(Debug)]
struct Group {
    begun_ns: u64,
    ends_ns: u64,
    period_ns: u64,
    held: Option<Box<Summary>>,
}

/// The groups of a rule set.
#[derive(Debug)]
pub struct Groups {
    groups: HashMap<(usize, u64), Group>,
    hasher: RandomState,
    /// No group ends before.
    due_ns: u64,
    /// Alerts that passed because there was no room.
    overflows: u64,
    /// Of groups that another boot's clock has ended.
    ended: Vec<Summary>,
}

impl Default for Groups {
    fn default() -> Self {
        Groups {
            groups: HashMap::new(),
            hasher: RandomState::new(),
            due_ns: u64::MAX,
            overflows: 0,
            ended: Vec::new(),
        }
    }
}

impl Groups {
    /// Judges an alert of a rule of the set. `form` says what a summary will tell of the event.
    pub fn judge<E: FieldSource>(
        &mut self,
        rule: &Rule,
        form: &AlertForm,
        (event, output, crossed): (&E, &str, Option<Crossed>),
        at: Moment,
    ) -> Verdict {
        let Some(grouping) = &rule.grouping else { return Verdict::Pass };
        let key = (rule.position, key_of(&grouping.by, event, &self.hasher));
        let period_ns = grouping.period_ns();
        let full = self.groups.len() >= MAX_GROUPS;
        let fresh = || {
            let ends_ns = at.boot_ns.saturating_add(period_ns);
            Group { begun_ns: at.boot_ns, ends_ns, period_ns, held: None }
        };
        let group = match self.groups.entry(key) {
            Entry::Vacant(_) if full => {
                self.overflows += 1;
                return Verdict::Pass;
            }
            Entry::Vacant(place) => {
                place.insert(fresh());
                return self.begun(at.boot_ns.saturating_add(period_ns));
            }
            Entry::Occupied(place) => place.into_mut(),
        };
        if at.boot_ns.saturating_add(LATE_NS) < group.begun_ns {
            let before = std::mem::replace(group, fresh());
            self.ended.extend(before.held.map(|held| *held));
            return self.begun(at.boot_ns.saturating_add(period_ns));
        }
        match &mut group.held {
            Some(held) => held.grouped.add(at.unix_ns),
            none => {
                let values = form.values_of(event);
                let (position, output) = (rule.position, output.to_owned());
                let grouped = Grouped::one(at.unix_ns);
                *none = Some(Box::new(Summary { position, values, output, crossed, grouped }));
            }
        }
        Verdict::Held
    }

    fn begun(&mut self, ends_ns: u64) -> Verdict {
        self.due_ns = self.due_ns.min(ends_ns);
        Verdict::Pass
    }

    /// Whether there is something to be told at that time since boot: one comparison while there is not.
    pub fn is_due(&self, boot_ns: u64) -> bool {
        !self.ended.is_empty() || !self.groups.is_empty() && boot_ns >= self.due_ns
    }

    /// Ends the periods that are over, and gives what was held back in them.
    pub fn due(&mut self, boot_ns: u64) -> Vec<Summary> {
        let mut told: Vec<(u64, Summary)> = self.ended.drain(..).map(|summary| (0, summary)).collect();
        self.groups.retain(|_, group| {
            if group.ends_ns > boot_ns {
                return true;
            }
            let ended_ns = group.ends_ns;
            // The next period begins where this one ended; whole ones without an alert lie between.
            let over = (boot_ns - ended_ns) / group.period_ns.max(1);
            group.begun_ns = ended_ns.saturating_add(over.saturating_mul(group.period_ns));
            group.ends_ns = group.begun_ns.saturating_add(group.period_ns);
            let held = group.held.take();
            let goes_on = held.is_some() && over == 0;
            told.extend(held.map(|held| (ended_ns, *held)));
            goes_on
        });
        self.due_ns = self.groups.values().map(|group| group.ends_ns).min().unwrap_or(u64::MAX);
        in_order(told)
    }

    /// Ends all groups, and gives what was held back.
    pub fn end(&mut self) -> Vec<Summary> {
        let ended = self.ended.drain(..).map(|summary| (0, summary));
        let held = self.groups.drain().filter_map(|(_, group)| Some((group.ends_ns, *group.held?)));
        let told = ended.chain(held).collect();
        self.due_ns = u64::MAX;
        in_order(told)
    }

    /// Groups that are remembered.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Alerts that passed for want of room since this was last asked.
    pub fn take_overflows(&mut self) -> u64 {
        std::mem::take(&mut self.overflows)
    }
}

/// By the end of the period, then by what does not depend on the secret of the process: a replay tells the same.
fn in_order(mut told: Vec<(u64, Summary)>) -> Vec<Summary> {
    let key = |(ends_ns, summary): &(u64, Summary)| {
        (*ends_ns, summary.grouped.first_unix_ns, summary.position, summary.output.clone())
    };
    told.sort_by_cached_key(key);
    told.into_iter().map(|(_, summary)| summary).collect()
}

#[cfg(test)]
#[path = "grouping_tests.rs"]
mod tests;
