//! Thresholds under test: against a naive model, at their bounds, over a change of rules, and what they cost.

use std::hint::black_box;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::fields::{FieldValues, owned_list, resolve};

const SECOND: u64 = 1_000_000_000;

/// A set of rules, each with this condition's threshold.
fn set(thresholds: &[&str]) -> RuleSet {
    let rule = |(i, threshold): (usize, &&str)| {
        format!(
            "- rule: r{i}\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: DEBUG\n  {threshold}\n"
        )
    };
    let text: String = thresholds.iter().enumerate().map(rule).collect();
    RuleSet::from_sources(&[("t.yaml", &text)]).unwrap()
}

/// An event of these field values; an empty text is an absent value.
fn event(values: &[(&str, &str)]) -> FieldValues {
    let mut event = FieldValues::default();
    for (name, value) in values {
        let value = match *value {
            "" => Value::Absent,
            text => Value::Text(text.to_owned().into()),
        };
        event.set(resolve(name, None).unwrap(), value).unwrap();
    }
    event
}

/// A bench for one rule.
struct Bench {
    set: RuleSet,
    thresholds: Thresholds,
}

impl Bench {
    fn new(threshold: &str) -> Self {
        let set = set(&[&format!("threshold: {threshold}")]);
        Bench { thresholds: Thresholds::new(&set), set }
    }

    /// What an event of this time (in seconds) reaches: the count, and the first time.
    fn at(&mut self, seconds: u64, values: &[(&str, &str)]) -> Option<(u32, u64)> {
        self.judge(seconds, &event(values))
    }

    fn judge(&mut self, seconds: u64, event: &FieldValues) -> Option<(u32, u64)> {
        match self.thresholds.judge(&self.set.rules()[0], event, seconds * SECOND).unwrap() {
            Outcome::Counted => None,
            Outcome::Reached(reached) => Some((reached.count, reached.since_boot_ns / SECOND)),
        }
    }
}

#[test]
fn the_event_that_makes_the_count_full_fires_and_the_next_count_begins() {
    let mut bench = Bench::new("{count: 3, within: 10s}");
    let fired: Vec<_> = (0..9).map(|second| bench.at(100 + second, &[])).collect();
    let expected = [None, None, Some((3, 100)), None, None, Some((3, 103)), None, None, Some((3, 106))];
    assert_eq!(fired, expected);
    assert!(bench.thresholds.is_empty(), "what has fired is forgotten");
}

#[test]
fn events_further_apart_than_the_time_are_not_counted_together() {
    let mut bench = Bench::new("{count: 3, within: 10s}");
    assert_eq!(bench.at(100, &[]), None);
    assert_eq!(bench.at(105, &[]), None);
    assert_eq!(bench.at(111, &[]), None, "the first is 11 s old");
    assert_eq!(bench.at(115, &[]), Some((3, 105)), "the first of these is 10 s old");
}

#[test]
fn a_late_event_counts_if_it_lies_within_the_time() {
    let mut bench = Bench::new("{count: 3, within: 10s}");
    assert_eq!(bench.at(100, &[]), None);
    assert_eq!(bench.at(89, &[]), None, "11 s before what has been seen");
    assert_eq!(bench.at(95, &[]), None);
    assert_eq!(bench.at(90, &[]), Some((3, 90)));
}

#[test]
fn another_boots_clock_begins_anew() {
    let mut bench = Bench::new("{count: 3, within: 10s}");
    assert_eq!((bench.at(1000, &[]), bench.at(1001, &[])), (None, None));
    assert_eq!((bench.at(5, &[]), bench.at(6, &[]), bench.at(7, &[])), (None, None, Some((3, 5))));
}

#[test]
fn keys_are_counted_apart_and_absent_values_are_a_key() {
    let mut bench = Bench::new("{count: 2, within: 10s, by: [container.id, proc.name]}");
    let keys = [("a", "b"), ("a", ""), ("", "a"), ("", ""), ("ab", ""), ("", "ab"), ("b", "a")];
    for (id, name) in keys {
        assert_eq!(bench.at(100, &[("container.id", id), ("proc.name", name)]), None, "{id} {name}");
    }
    assert_eq!(bench.thresholds.len(), keys.len());
    for (id, name) in keys {
        assert_eq!(bench.at(101, &[("container.id", id), ("proc.name", name)]), Some((2, 100)));
    }
}

#[test]
fn different_values_are_counted_and_the_same_one_is_counted_once() {
    let mut bench = Bench::new("{count: 3, within: 10s, distinct: proc.name}");
    for (second, name) in [(100, "a"), (101, "a"), (102, ""), (103, "b"), (109, "a")] {
        assert_eq!(bench.at(second, &[("proc.name", name)]), None, "{name}");
    }
    assert_eq!(bench.at(114, &[("proc.name", "c")]), None, "b is 11 s old, a was seen 5 s ago");
    assert_eq!(bench.at(115, &[("proc.name", "b")]), Some((3, 109)));
}

#[test]
fn each_member_of_a_list_is_a_value() {
    let mut bench = Bench::new("{count: 4, within: 10s, distinct: cap.gained}");
    let gained = |names: &[&str]| {
        let mut event = FieldValues::default();
        let list = owned_list(names.iter().map(|name| (*name).to_owned()));
        event.set(resolve("cap.gained", None).unwrap(), list).unwrap();
        event
    };
    assert_eq!(bench.judge(100, &gained(&["CAP_BPF", "CAP_CHOWN"])), None);
    assert_eq!(bench.judge(101, &gained(&["CAP_CHOWN"])), None);
    assert_eq!(bench.judge(101, &gained(&[])), None);
    assert_eq!(bench.judge(102, &gained(&["CAP_KILL", "CAP_SYSLOG", "CAP_CHOWN"])), Some((4, 100)));
}

#[test]
fn a_rule_without_threshold_is_not_counted() {
    let set = set(&["enabled: true"]);
    let mut thresholds = Thresholds::new(&set);
    assert_eq!(thresholds.judge(&set.rules()[0], &event(&[]), 1), None);
    assert_eq!((thresholds.len(), thresholds.capacity()), (0, 0));
}

#[test]
fn keys_are_bounded_and_the_one_that_was_quiet_for_longest_goes_first() {
    let mut bench = Bench::new("{count: 2, within: 10s, by: [proc.name]}");
    let name = |i: usize| format!("p{i}");
    for i in 0..MAX_KEYS {
        assert_eq!(bench.at(100, &[("proc.name", &name(i))]), None);
    }
    assert_eq!((bench.thresholds.len(), bench.thresholds.take_evicted()), (MAX_KEYS, 0));
    assert_eq!(bench.at(101, &[("proc.name", "one more")]), None);
    assert_eq!((bench.thresholds.len(), bench.thresholds.take_evicted()), (MAX_KEYS, 1));
    assert_eq!(bench.at(102, &[("proc.name", &name(1))]), Some((2, 100)), "the second is still known");
    assert_eq!(bench.at(102, &[("proc.name", &name(0))]), None, "the first is not");
    assert_eq!(bench.thresholds.take_evicted(), 0, "the second had made room");
}

#[test]
fn what_is_over_makes_room_and_is_no_loss() {
    let mut bench = Bench::new("{count: 2, within: 10s, by: [proc.name]}");
    for i in 0..1000 {
        assert_eq!(bench.at(100, &[("proc.name", &format!("p{i}"))]), None);
    }
    for i in 0..1000 {
        assert_eq!(bench.at(171, &[("proc.name", &format!("q{i}"))]), None);
    }
    assert_eq!((bench.thresholds.len(), bench.thresholds.take_evicted()), (1000, 0));
}

#[test]
fn entries_are_bounded_for_each_rule_and_for_all_together() {
    let threshold = "threshold: {count: 1000, within: 1h, by: [container.id]}";
    for rules in [1, 8, 400] {
        let set = set(&vec![threshold; rules]);
        let mut thresholds = Thresholds::new(&set);
        let room = (TOTAL_ENTRIES / rules).clamp(1000, RULE_ENTRIES);
        for key in 0..room / 999 + 5 {
            let event = event(&[("container.id", &format!("c{key}"))]);
            for i in 0..999 {
                let outcome = thresholds.judge(&set.rules()[rules - 1], &event, SECOND + i);
                assert_eq!(outcome, Some(Outcome::Counted));
            }
            let counts = thresholds.rules[rules - 1].as_ref().unwrap();
            assert!(counts.entries <= room, "{} of {room}", counts.entries);
            let sum: usize = counts.keys.iter().map(|(_, window)| window.entries.len()).sum();
            assert_eq!(sum, counts.entries);
        }
        assert!(thresholds.take_evicted() >= 4, "{rules}");
        assert!(thresholds.len() * 999 > room - 999, "{rules}: no more goes than must");
    }
}

#[test]
fn counts_of_a_rule_that_stays_are_carried_over() {
    let keep = "threshold: {count: 2, within: 10s, by: [proc.name]}";
    let before = set(&[keep, keep, keep]);
    let mut thresholds = Thresholds::new(&before);
    let known = event(&[("proc.name", "a")]);
    for rule in before.rules() {
        assert_eq!(thresholds.judge(rule, &known, SECOND), Some(Outcome::Counted));
    }
    // The first stays, at another place; the second has another threshold, the third another condition.
    let text = "\
- rule: new
  desc: d
  condition: evt.type = unshare
  output: o
  priority: DEBUG
- rule: r0
  desc: another
  condition: evt.type = setns
  output: another
  priority: ALERT
  threshold: {by: proc.name, within: 10000ms, count: 2}
- rule: r1
  desc: d
  condition: evt.type = setns
  output: o
  priority: DEBUG
  threshold: {count: 3, within: 10s, by: [proc.name]}
- rule: r2
  desc: d
  condition: evt.type = setns and proc.name exists
  output: o
  priority: DEBUG
  threshold: {count: 2, within: 10s, by: [proc.name]}
";
    let after = RuleSet::from_sources(&[("t.yaml", text)]).unwrap();
    let mut thresholds = thresholds.carried_over(&before, &after);
    assert_eq!(thresholds.len(), 1);
    let outcomes: Vec<_> =
        after.rules().iter().map(|rule| thresholds.judge(rule, &known, 2 * SECOND)).collect();
    let reached = Outcome::Reached(Reached { count: 2, since_boot_ns: SECOND });
    assert_eq!(outcomes, [None, Some(reached), Some(Outcome::Counted), Some(Outcome::Counted)]);
}

#[test]
fn counts_find_the_room_that_the_new_rules_leave_them() {
    let threshold = "threshold: {count: 1000, within: 1h, by: [container.id]}";
    let (before, after) = (set(&[threshold]), set(&vec![threshold; 400]));
    let mut thresholds = Thresholds::new(&before);
    for key in 0..10 {
        let event = event(&[("container.id", &format!("c{key}"))]);
        for i in 0..500 {
            thresholds.judge(&before.rules()[0], &event, SECOND + i);
        }
    }
    let mut thresholds = thresholds.carried_over(&before, &after);
    assert_eq!((thresholds.len(), thresholds.take_evicted()), (2, 8));
}

/// A threshold as its definition has it: everything is remembered and looked through at each event.
#[derive(Default)]
struct Model {
    /// Key, time and value of what was not forgotten.
    seen: Vec<(String, u64, String)>,
}

impl Model {
    fn judge(&mut self, count: usize, within: u64, key: &str, at: u64, value: &str, distinct: bool) -> bool {
        if distinct && value.is_empty() {
            return false;
        }
        self.seen.push((key.to_owned(), at, value.to_owned()));
        let of_key = || self.seen.iter().filter(|(of, ..)| of == key);
        let latest = of_key().map(|(_, at, _)| *at).max().unwrap_or(0);
        let counted = || of_key().filter(|(_, at, _)| latest - at <= within);
        let reached = if distinct {
            counted().map(|(.., value)| value).collect::<std::collections::HashSet<_>>().len()
        } else {
            counted().count()
        };
        if reached < count {
            return false;
        }
        self.seen.retain(|(of, ..)| of != key);
        true
    }
}

proptest! {
    /// The times wander: mostly forwards, with late events among them.
    #[test]
    fn counts_are_those_of_the_naive_model(
        count in 2_usize..6,
        within in 1_u64..30,
        distinct in any::<bool>(),
        events in proptest::collection::vec((0_i64..12, 0_u64..25, "[ab]?", "[xyzuvw]?"), 0..200),
    ) {
        let what = if distinct { ", distinct: proc.name" } else { "" };
        let mut bench = Bench::new(&format!("{{count: {count}, within: {within}s, by: [container.id]{what}}}"));
        let mut model = Model::default();
        let mut now = 100;
        for (i, (step, late, key, value)) in events.into_iter().enumerate() {
            now += step as u64;
            // One in four comes late.
            let at = if late % 4 == 0 { now.saturating_sub(late) } else { now };
            let fired = bench.at(at, &[("container.id", &key), ("proc.name", &value)]);
            prop_assert_eq!(fired.is_some(), model.judge(count, within, &key, at, &value, distinct), "event {}", i);
            if let Some((reached, since)) = fired {
                prop_assert_eq!(reached as usize, count);
                prop_assert!(since <= at && at - since <= within);
            }
        }
    }
}

/// Prints what an event costs; `cargo test --release -p monitor threshold_cost -- --nocapture` gives the figure that
/// counts. The bounds are wide enough for a debug build on a busy machine.
#[test]
fn threshold_cost() {
    fn cpu_ns() -> i64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
    const ROUNDS: u64 = 20_000;
    let events: Vec<FieldValues> = (0..8192)
        .map(|i| event(&[("container.id", &format!("{i:012x}")), ("proc.name", &format!("p{}", i % 3))]))
        .collect();
    for (name, threshold, bound) in [
        ("no threshold", "enabled: true", 2_000.0),
        ("4,096 keys, full", "threshold: {count: 10, within: 1h, by: [container.id]}", 100_000.0),
        ("one key", "threshold: {count: 1000, within: 1h}", 200_000.0),
        ("1,000 values", "threshold: {count: 1000, within: 1h, distinct: container.id}", 400_000.0),
        (
            "3 values by 4,096 keys",
            "threshold: {count: 10, within: 1h, by: [container.id], distinct: proc.name}",
            100_000.0,
        ),
    ] {
        let set = set(&[threshold]);
        let mut thresholds = Thresholds::new(&set);
        let rule = &set.rules()[0];
        let start = cpu_ns();
        for (i, event) in (0..ROUNDS).zip(events.iter().cycle()) {
            black_box(thresholds.judge(rule, black_box(event), SECOND + i * 1000));
        }
        let each = (cpu_ns() - start) as f64 / ROUNDS as f64;
        println!("{name}: {each:.0} ns per event");
        assert!(each < bound, "{name}: {each:.0} ns");
    }
}
