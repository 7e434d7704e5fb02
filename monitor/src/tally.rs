//! What each container tried, by call and by what became of it, and which rules fired for it: what `ringfence top` shows.
//!
//! Counted by the path of events, by cgroup, and put together by container only when somebody asks. The table is
//! bounded; cgroups that find no room in it are counted together. A cgroup's counts go when the cgroup is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use monitor_common::ids::CgroupId;
use monitor_common::verdict::{RefusedBy, Verdict};

use crate::enrich::container::Cgroup;
use crate::event::Event;
use crate::event_type::EventType;
use crate::rules::Rule;

/// Cgroups of containers with counts of their own.
pub const MAX_TALLIES: usize = 4096;
/// Of these, of containers that others than root may make as many of as they like.
const MAX_DELEGATED: usize = MAX_TALLIES / 2;
/// Rules with a count of their own, for one cgroup.
const MAX_RULES: usize = 64;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By kind of event and how it ended. Few pairs, so they are looked for one by one.
    calls: Vec<((EventType, Verdict), u64)>,
    /// Alerts by the rule's id.
    rules: Vec<(Arc<str>, u64)>,
    /// Alerts of rules that found no room.
    other_alerts: u64,
}

impl Tally {
    /// Counts an event.
    pub fn event(&mut self, ty: EventType, verdict: Verdict) {
        let key = (ty, verdict);
        match self.calls.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            // There are as many pairs as types of event times verdicts.
            None => self.calls.push((key, 1)),
        }
    }

    /// Counts an alert.
    pub fn alert(&mut self, rule: &Rule) {
        self.add_alerts(&rule.id, 1);
    }

    fn add_alerts(&mut self, rule: &str, alerts: u64) {
        let has_room = self.rules.len() < MAX_RULES;
        match self.rules.iter_mut().find(|(known, _)| **known == *rule) {
            Some((_, count)) => *count += alerts,
            None if has_room => self.rules.push((rule.into(), alerts)),
            None => self.other_alerts += alerts,
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Tally) {
        for (key, count) in &other.calls {
            match self.calls.iter_mut().find(|(known, _)| known == key) {
                Some((_, own)) => *own += count,
                None => self.calls.push((*key, *count)),
            }
        }
        for (rule, count) in &other.rules {
            self.add_alerts(rule, *count);
        }
        self.other_alerts += other.other_alerts;
    }

    /// Events by type and verdict, in no order.
    pub fn calls(&self) -> impl Iterator<Item = (EventType, Verdict, u64)> {
        self.calls.iter().map(|((ty, verdict), count)| (*ty, *verdict, *count))
    }

    /// Alerts by rule, in no order.
    pub fn rules(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules.iter().map(|(rule, count)| (&**rule, *count))
    }

    /// All alerts.
    pub fn alerts(&self) -> u64 {
        self.rules.iter().map(|(_, count)| count).sum::<u64>() + self.other_alerts
    }

    /// Events whose verdict fits.
    pub fn events(&self, fits: impl Fn(Verdict) -> bool) -> u64 {
        self.calls.iter().filter(|((_, verdict), _)| fits(*verdict)).map(|(_, count)| count).sum()
    }
}

/// The word for a verdict, with who refused: `refused by seccomp`.
pub const fn outcome(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::Failed => "failed",
        Verdict::Refused(RefusedBy::Seccomp) => "refused by seccomp",
        Verdict::Refused(RefusedBy::Capability) => "refused by capability",
        Verdict::Refused(RefusedBy::Lsm) => "refused by lsm",
        Verdict::Refused(RefusedBy::DeviceCgroup) => "refused by device-cgroup",
        Verdict::Refused(RefusedBy::Other) => "refused by other",
    }
}

/// Tallies by cgroup, those of containers one by one.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    by_cgroup: HashMap<CgroupId, (bool, Tally)>,
    delegated: usize,
    /// Outside of containers.
    pub host: Tally,
    /// Of cgroups that are not known, so whose they are is not known either.
    pub unknown: Tally,
    /// Of containers that found no room.
    pub others: Tally,
}

impl Tallies {
    /// Where an event is counted.
    pub fn of(&mut self, event: &Event<'_>) -> &mut Tally {
        self.at(event.raw.task.cgroup, event.cgroup)
    }

    fn at(&mut self, id: CgroupId, cgroup: Option<&Cgroup>) -> &mut Tally {
        let Some(cgroup) = cgroup else { return &mut self.unknown };
        let Some(container) = cgroup.container() else { return &mut self.host };
        if !self.by_cgroup.contains_key(&id) {
            let delegated = container.user.is_some() || container.nested;
            let full = self.by_cgroup.len() >= MAX_TALLIES || delegated && self.delegated >= MAX_DELEGATED;
            if full {
                return &mut self.others;
            }
            self.delegated += usize::from(delegated);
            self.by_cgroup.insert(id, (delegated, Tally::default()));
        }
        match self.by_cgroup.get_mut(&id) {
            Some((_, tally)) => tally,
            None => &mut self.others,
        }
    }

    /// Keeps only those of cgroups that are still known.
    pub fn retain(&mut self, known: impl Fn(CgroupId) -> bool) {
        self.by_cgroup.retain(|id, _| known(*id));
        self.delegated = self.by_cgroup.values().filter(|(delegated, _)| *delegated).count();
    }

    /// Those of containers.
    pub fn iter(&self) -> impl Iterator<Item = (CgroupId, &Tally)> {
        self.by_cgroup.iter().map(|(id, (_, tally))| (*id, tally))
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use monitor_common::call::Call;

    use super::*;
    use crate::rules::RuleSet;

    fn cgroup(number: u64, user: bool) -> Cgroup {
        let slice = if user { "/user.slice/user-1000.slice/user@1000.service/user.slice" } else { "" };
        Cgroup::new(format!("{slice}/docker-{number:064x}.scope").as_bytes())
    }

    fn setns() -> EventType {
        Call::Setns.into()
    }

    #[test]
    fn events_and_alerts_are_counted_where_they_belong() {
        let mut tallies = Tallies::default();
        let (web, host) = (cgroup(7, false), Cgroup::new(b"/system.slice"));
        assert!(web.container().is_some() && host.container().is_none());
        let refused = Verdict::Refused(RefusedBy::Seccomp);
        let text =
            "- rule: R\n  id: r\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: INFO\n";
        let rules = RuleSet::from_sources(&[("r.yaml", text)]).unwrap();
        for _ in 0..3 {
            let tally = tallies.at(CgroupId(1), Some(&web));
            tally.event(setns(), refused);
            tally.alert(&rules.rules()[0]);
        }
        tallies.at(CgroupId(1), Some(&web)).event(setns(), Verdict::Allowed);
        tallies.at(CgroupId(2), Some(&host)).event(setns(), Verdict::Failed);
        tallies.at(CgroupId(3), None).event(setns(), Verdict::Failed);
        let (id, tally) = tallies.iter().next().unwrap();
        assert_eq!((id, tallies.iter().count()), (CgroupId(1), 1));
        assert_eq!((tally.events(|_| true), tally.events(|v| v == refused), tally.alerts()), (4, 3, 3));
        assert_eq!(tally.rules().collect::<Vec<_>>(), [("r", 3)]);
        assert_eq!((tallies.host.events(|_| true), tallies.unknown.events(|_| true)), (1, 1));
        let mut sum = tally.clone();
        sum.add(&tally.clone());
        assert_eq!((sum.events(|_| true), sum.alerts()), (8, 6));
        tallies.retain(|id| id != CgroupId(1));
        assert_eq!(tallies.iter().count(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_users_leave_room_for_root() {
        let mut tallies = Tallies::default();
        for number in 0..MAX_TALLIES as u64 {
            tallies.at(CgroupId(number), Some(&cgroup(number, true))).event(setns(), Verdict::Allowed);
        }
        assert_eq!(tallies.iter().count(), MAX_DELEGATED);
        assert_eq!(tallies.others.events(|_| true) as usize, MAX_TALLIES - MAX_DELEGATED);
        for number in 0..MAX_TALLIES as u64 {
            let id = CgroupId(1_000_000 + number);
            tallies.at(id, Some(&cgroup(number, false))).event(setns(), Verdict::Allowed);
        }
        assert_eq!(tallies.iter().count(), MAX_TALLIES);
        assert_eq!(tallies.others.events(|_| true) as usize, MAX_TALLIES);
        let mut tally = Tally::default();
        for number in 0..2 * MAX_RULES {
            tally.add_alerts(&format!("rule-{number}"), 2);
        }
        assert_eq!((tally.rules().count(), tally.alerts()), (MAX_RULES, 4 * MAX_RULES as u64));
    }

    /// What each event pays.
    #[test]
    fn counting_is_cheap() {
        const EVENTS: u32 = 300_000;
        let mut tallies = Tallies::default();
        let all: Vec<Cgroup> = (0..100).map(|number| cgroup(number, false)).collect();
        let start = Instant::now();
        for number in 0..EVENTS {
            let at = (number % 100) as usize;
            tallies.at(CgroupId(at as u64), Some(&all[at])).event(black_box(setns()), Verdict::Allowed);
        }
        let per_event = start.elapsed() / EVENTS;
        println!("counting an event: {per_event:?}");
        assert!(per_event < Duration::from_micros(5), "{per_event:?}");
    }
}
