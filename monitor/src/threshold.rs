//! Counting what rules with a `threshold` match: the event that makes the count full fires, the others do not.
//!
//! For each such rule and each key (the values of its `by` fields) the times of the last events are remembered, or the
//! different values of the `distinct` field with the time of the last event of each. Time is the events' own boot time.
//! A key's clock is the latest time that it has seen: what lies longer than `within` before it no longer counts, also if
//! it comes late, and the order in which the rest arrives makes no difference. When the count is full the rule fires and
//! the key is forgotten: a flood raises one alert per `count`, not one per event.
//!
//! An event that has no value for a `by` field has a key of its own with all others that have none; one that has no value
//! for the `distinct` field is not counted. Of a list each member is a value to be counted, in a key the whole list is one.
//!
//! Keys and values are kept as 64-bit hashes with a secret of the process, so a key has a fixed size whatever an
//! attacker puts into it, and nobody can make two alike on purpose. Two of [`MAX_KEYS`] are alike by chance with a
//! probability of 1 in 10^12; they would then be counted together.
//!
//! Everything is bounded: see [`MAX_KEYS`], [`RULE_ENTRIES`] and [`TOTAL_ENTRIES`]. If there is no room, the key that has
//! been quiet for longest is forgotten, which is counted. Nothing outlives the process.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash, Hasher};

use lru::LruCache;

use crate::fields::{FieldSource, Value};
use crate::rules::{COUNTS, NamedField, Rule, RuleSet, Threshold};

/// Keys that are remembered for one rule, at most.
pub const MAX_KEYS: usize = 4096;

/// Times or values that are remembered for one rule, its keys together, at most; each takes 16 bytes.
pub const RULE_ENTRIES: usize = 64 << 10;

/// The same for all rules together, unless there are so many that each one's part would be smaller than one full key.
pub const TOTAL_ENTRIES: usize = 256 << 10;

/// How much later than the latest event of a rule an event of it may come and still find its key: more than events wait.
/// Beyond it, another boot's clock tells the time, as recordings may have it, and the key begins anew.
const LATE_NS: u64 = 60_000_000_000;

/// What an event does to a rule with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was counted (or has no value to be counted); the rule does not fire.
    Counted,
    /// It makes the count full: the rule fires.
    Reached(Reached),
}

/// A full count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// How many events, or different values, were counted. A list can bring more values than were missing.
    pub count: u32,
    /// When the first of them happened, of a value its latest event: nanoseconds since boot.
    pub since_boot_ns: u64,
}

/// The counts of a rule set. They belong to that set: see [`Thresholds::carried_over`] for when it is replaced.
#[derive(Debug, Default)]
pub struct Thresholds {
    /// In the order of the rule set; empty if no rule has a threshold.
    rules: Vec<Option<Counts>>,
    hasher: RandomState,
    evicted: u64,
}

impl Thresholds {
    /// Counts for these rules, all at zero.
    pub fn new(set: &RuleSet) -> Self {
        let with = set.rules().iter().filter(|rule| rule.threshold.is_some()).count();
        if with == 0 {
            return Thresholds::default();
        }
        let room = (TOTAL_ENTRIES / with).clamp(*COUNTS.end() as usize, RULE_ENTRIES);
        let counts = |rule: &Rule| rule.threshold.as_ref().map(|_| Counts::new(room));
        Thresholds { rules: set.rules().iter().map(counts).collect(), ..Thresholds::default() }
    }

    /// Counts for the rules that replace others: a rule that is the same goes on counting where it was. Two rules are the
    /// same if id, condition and threshold are, as they are written; what the macros in the condition say may differ.
    pub fn carried_over(self, old: &RuleSet, new: &RuleSet) -> Self {
        let mut next = Thresholds::new(new);
        next.evicted = self.evicted;
        next.hasher = self.hasher;
        let kept = old.rules().iter().zip(self.rules).filter_map(|(rule, counts)| Some((rule, counts?)));
        let mut kept: HashMap<&str, (&Rule, Counts)> =
            kept.map(|(rule, counts)| (rule.id.as_str(), (rule, counts))).collect();
        for (rule, counts) in new.rules().iter().zip(&mut next.rules) {
            let Some(counts) = counts else { continue };
            let same = |(old, _): &(&Rule, Counts)| {
                old.condition == rule.condition && old.threshold == rule.threshold
            };
            if kept.get(rule.id.as_str()).is_some_and(same)
                && let Some((_, old)) = kept.remove(rule.id.as_str())
            {
                let room = counts.room;
                *counts = Counts { room, ..old };
                next.evicted += counts.make_room(0, None);
            }
        }
        next
    }

    /// Counts an event that a rule of the set matches and that happened at `boot_ns` since boot. `None` if the rule has
    /// no threshold: each event fires.
    pub fn judge<E: FieldSource + ?Sized>(
        &mut self,
        rule: &Rule,
        event: &E,
        boot_ns: u64,
    ) -> Option<Outcome> {
        let threshold = rule.threshold.as_ref()?;
        let counts = self.rules.get_mut(rule.position)?.as_mut()?;
        let key = key_of(&threshold.by, event, &self.hasher);
        let outcome = match &threshold.distinct {
            None => counts.event(threshold, key, boot_ns),
            Some(field) => {
                let (value, hasher) = (event.value(field.field), &self.hasher);
                let mut members = [0; crate::fields::MAX_LIST];
                let values = match &value {
                    Value::Absent => 0,
                    Value::List(list) => {
                        for (slot, member) in members.iter_mut().zip(list.iter()) {
                            *slot = hasher.hash_one(&**member);
                        }
                        list.len()
                    }
                    one => {
                        members[0] = hasher.hash_one(Hashed(one));
                        1
                    }
                };
                counts.values(threshold, key, members.get(..values).unwrap_or_default(), boot_ns)
            }
        };
        self.evicted += counts.make_room(boot_ns, Some(threshold));
        Some(outcome)
    }

    /// Keys that are remembered, of all rules.
    pub fn len(&self) -> usize {
        self.rules.iter().flatten().map(|counts| counts.keys.len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys that there is room for, if each has one entry.
    pub fn capacity(&self) -> usize {
        self.rules.iter().flatten().map(|counts| counts.room.min(MAX_KEYS)).sum()
    }

    /// Keys that were forgotten before their time for want of room, since this was last asked.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

/// The counts of one rule.
#[derive(Debug)]
struct Counts {
    /// By the hash of the key, the one used last in front.
    keys: LruCache<u64, Window>,
    /// Entries of all windows.
    entries: usize,
    /// Entries there is room for; at least one full key's.
    room: usize,
}

/// What is remembered for one key.
#[derive(Debug, Default)]
struct Window {
    /// The latest time seen.
    clock: u64,
    entries: Vec<Entry>,
}

/// An event, or a value with its latest event.
#[derive(Clone, Copy, Debug)]
struct Entry {
    boot_ns: u64,
    /// The value's hash; 0 where events are counted.
    value: u64,
}

impl Counts {
    fn new(room: usize) -> Self {
        // Not `new(MAX_KEYS)`: that would take the memory at once.
        Counts { keys: LruCache::unbounded(), entries: 0, room }
    }

    /// Counts an event.
    fn event(&mut self, threshold: &Threshold, key: u64, boot_ns: u64) -> Outcome {
        self.count(threshold, key, boot_ns, |entries| entries.push(Entry { boot_ns, value: 0 }))
    }

    /// Counts values.
    fn values(&mut self, threshold: &Threshold, key: u64, values: &[u64], boot_ns: u64) -> Outcome {
        if values.is_empty() {
            return Outcome::Counted;
        }
        self.count(threshold, key, boot_ns, |entries| {
            for value in values {
                match entries.iter_mut().find(|entry| entry.value == *value) {
                    Some(entry) => entry.boot_ns = entry.boot_ns.max(boot_ns),
                    None => entries.push(Entry { boot_ns, value: *value }),
                }
            }
        })
    }

    fn count(
        &mut self,
        threshold: &Threshold,
        key: u64,
        boot_ns: u64,
        add: impl FnOnce(&mut Vec<Entry>),
    ) -> Outcome {
        let window = self.keys.get_or_insert_mut(key, Window::default);
        let before = window.entries.len();
        if boot_ns > window.clock {
            window.clock = boot_ns;
            let oldest = boot_ns.saturating_sub(threshold.within_ns());
            window.entries.retain(|entry| entry.boot_ns >= oldest);
        } else if window.clock - boot_ns > threshold.within_ns().saturating_add(LATE_NS) {
            window.clock = boot_ns;
            window.entries.clear();
        } else if window.clock - boot_ns > threshold.within_ns() {
            return Outcome::Counted;
        }
        add(&mut window.entries);
        let after = window.entries.len();
        let outcome = if after >= threshold.count as usize {
            let since = window.entries.iter().map(|entry| entry.boot_ns).min();
            let count = u32::try_from(after).unwrap_or(u32::MAX);
            Outcome::Reached(Reached { count, since_boot_ns: since.unwrap_or(boot_ns) })
        } else {
            Outcome::Counted
        };
        self.entries = self.entries - before + after;
        if outcome != Outcome::Counted {
            self.keys.pop(&key);
            self.entries -= after;
        }
        outcome
    }

    /// Forgets keys, those that were quiet for longest first: the ones whose time is over (two at most, so that no event
    /// pays for many), and as many as there is no room for. Returns how many of the latter still counted.
    fn make_room(&mut self, now: u64, threshold: Option<&Threshold>) -> u64 {
        let mut evicted = 0;
        let mut over = 0;
        while let Some((_, quietest)) = self.keys.peek_lru() {
            let quiet = now.saturating_sub(quietest.clock);
            let within = threshold.map_or(u64::MAX - LATE_NS, Threshold::within_ns);
            let is_over = quiet > within;
            let full = self.keys.len() > MAX_KEYS || self.entries > self.room;
            if !full && (quiet <= within + LATE_NS || over >= 2) {
                break;
            }
            over += usize::from(is_over);
            evicted += u64::from(!is_over);
            if let Some((_, window)) = self.keys.pop_lru() {
                self.entries -= window.entries.len();
            }
        }
        evicted
    }
}

/// The hash of the values of these fields.
pub(crate) fn key_of<E: FieldSource + ?Sized>(by: &[NamedField], event: &E, hasher: &RandomState) -> u64 {
    let mut state = hasher.build_hasher();
    for by in by {
        Hashed(&event.value(by.field)).hash(&mut state);
    }
    state.finish()
}

/// Hashes a value so that different ones, also one after the other, feed different bytes.
struct Hashed<'v>(&'v Value<'v>);

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            Value::Absent => state.write_u8(0),
            Value::Text(text) => {
                state.write_u8(1);
                text.hash(state);
            }
            Value::List(members) => {
                state.write_u8(2);
                state.write_usize(members.len());
                members.iter().for_each(|member| member.hash(state));
            }
            Value::Number(number) => {
                state.write_u8(3);
                number.hash(state);
            }
            Value::Bool(flag) => {
                state.write_u8(4);
                flag.hash(state);
            }
        }
    }
}

#[cfg(test)]
#[path = "threshold_tests.rs"]
mod tests;
