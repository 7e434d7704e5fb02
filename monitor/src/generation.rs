//! Generations of rules: the set in force, and the place where the next one waits until the path takes it.
//!
//! Everything about a generation is made beside the path. The path looks between two events whether one waits, which
//! is one load of a flag, and exchanges two pointers. The old set goes back to whoever made the new one, so that the
//! path does not have to take it apart either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use crate::alert::{AlertForm, AlertRule};
use crate::enrich::names::Bell;
use crate::metrics::Metrics;
use crate::rules::{Rule, RuleSet};

/// Number of the set that the daemon starts with.
pub const FIRST: u64 = 1;

/// A set of rules with all that its alerts need.
#[derive(Debug)]
pub struct Generation {
    /// Counted from [`FIRST`] for each run of the daemon.
    pub number: u64,
    /// The rules.
    pub rules: RuleSet,
    /// Constant parts of each rule's alerts, in the order of the rules.
    pub forms: Vec<AlertForm>,
    /// Counter of each rule's alerts, in the same order.
    pub alerts: Vec<IntCounter>,
    /// Counter of those that are held together, in the same order.
    pub suppressed: Vec<IntCounter>,
}

/// Makes generations.
#[derive(Clone, Debug)]
pub struct Maker {
    hostname: String,
    metrics: Arc<Metrics>,
}

impl Maker {
    /// For alerts of this host, counted in these metrics.
    pub fn new(hostname: &str, metrics: Arc<Metrics>) -> Self {
        Maker { hostname: hostname.to_owned(), metrics }
    }

    /// Lays out the alerts of each rule, and makes its counter.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub fn make(&self, number: u64, rules: RuleSet) -> prometheus::Result<Box<Generation>> {
        let form = |rule: &Rule| AlertForm::new(&AlertRule::from(rule), &self.hostname);
        Ok(Box::new(Generation {
            number,
            forms: rules.rules().iter().map(form).collect(),
            alerts: self.metrics.rule_alerts(rules.rules())?,
            suppressed: self.metrics.rule_suppressed(rules.rules())?,
            rules,
        }))
    }
}

/// A generation that waits, and how the one before it comes back.
#[derive(Debug)]
pub struct Next {
    generation: Box<Generation>,
    before: oneshot::Sender<Box<Generation>>,
}

impl Next {
    /// The generation.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Puts it in force; the one before goes back to whoever made this one.
    pub fn enter(self, current: &mut Box<Generation>) {
        let old = std::mem::replace(current, self.generation);
        // If nobody waits for it any more, it is taken apart here.
        let _ = self.before.send(old);
    }
}

/// The place where the next generation waits.
#[derive(Debug, Default)]
pub struct Slot {
    waits: AtomicBool,
    next: Mutex<Option<Next>>,
}

impl Slot {
    /// The generation that waits, if one does: one load of a flag where none does. Whoever takes it puts it in force.
    /// Never blocks: while one is just being put there, it is not there yet.
    pub fn take(&self) -> Option<Next> {
        if self.waits.load(Ordering::Acquire) { self.take_waiting() } else { None }
    }

    #[cold]
    fn take_waiting(&self) -> Option<Next> {
        let mut place = self.next.try_lock().ok()?;
        self.waits.store(false, Ordering::Release);
        place.take()
    }

    /// Keeps others from the place, as one that is just being put there does.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> std::sync::MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap()
    }

    pub(crate) fn put(&self, generation: Box<Generation>, before: oneshot::Sender<Box<Generation>>) {
        let mut place = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Next { generation, before });
        self.waits.store(true, Ordering::Release);
    }
}

/// The end of whoever makes new generations.
#[derive(Clone, Debug)]
pub struct Handover {
    slot: Arc<Slot>,
    /// Wakes whoever drives the path.
    bell: Bell,
}

impl Handover {
    pub(crate) fn new(slot: Arc<Slot>, bell: Bell) -> Self {
        Handover { slot, bell }
    }

    /// Puts a generation into the place, waits until it is in force, and gives the one before it; `None` if another
    /// call put its own there first. Waits for ever if nobody drives the path any more.
    pub async fn offer(&self, generation: Box<Generation>) -> Option<Box<Generation>> {
        let (before, old) = oneshot::channel();
        self.slot.put(generation, before);
        self.bell.ring();
        old.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::enrich::names::tests::metrics;

    fn rules(id: &str) -> RuleSet {
        let text = format!(
            "- rule: R\n  id: {id}\n  desc: d\n  condition: evt.type = setns\n  output: o\n  priority: NOTICE\n"
        );
        RuleSet::from_sources(&[("r.yaml", &text)]).unwrap()
    }

    fn taken(slot: &Slot, current: &mut Box<Generation>) -> Vec<u64> {
        let Some(next) = slot.take() else { return Vec::new() };
        let number = next.generation().number;
        next.enter(current);
        vec![number]
    }

    #[tokio::test]
    async fn the_next_is_taken_once_and_the_old_one_comes_back() {
        let maker = Maker::new("h", metrics());
        let (slot, bell) = (Arc::new(Slot::default()), Bell::default());
        let handover = Handover::new(Arc::clone(&slot), bell.clone());
        let mut current = maker.make(FIRST, rules("one")).unwrap();
        assert!(taken(&slot, &mut current).is_empty());
        let next = maker.make(2, rules("two")).unwrap();
        let offered = tokio::spawn(async move { handover.offer(next).await });
        bell.rung().await;
        assert_eq!(taken(&slot, &mut current), [2]);
        assert_eq!((current.number, current.rules.rules()[0].id.as_str()), (2, "two"));
        assert_eq!((current.forms.len(), current.alerts.len()), (1, 1));
        assert!(taken(&slot, &mut current).is_empty());
        assert_eq!(offered.await.unwrap().unwrap().number, FIRST);
    }

    #[tokio::test]
    async fn a_place_that_is_being_filled_is_not_waited_for() {
        let maker = Maker::new("h", metrics());
        let slot = Arc::new(Slot::default());
        let mut current = maker.make(FIRST, rules("one")).unwrap();
        let (before, old) = oneshot::channel();
        slot.put(maker.make(2, rules("two")).unwrap(), before);
        let held = slot.hold();
        assert!(taken(&slot, &mut current).is_empty());
        drop(held);
        // Nobody waits for the old one; the new one is taken all the same.
        drop(old);
        assert_eq!(taken(&slot, &mut current), [2]);
    }

    /// What each record pays for reloads.
    #[test]
    fn a_look_is_cheap() {
        const LOOKS: u32 = 1_000_000;
        let slot = Slot::default();
        let start = Instant::now();
        for _ in 0..LOOKS {
            assert!(black_box(&slot).take().is_none());
        }
        let per_look = start.elapsed() / LOOKS;
        println!("a look for new rules: {per_look:?}");
        assert!(per_look < Duration::from_micros(1), "{per_look:?}");
    }

    #[tokio::test]
    async fn the_latest_offer_wins() {
        let maker = Maker::new("h", metrics());
        let (slot, bell) = (Arc::new(Slot::default()), Bell::default());
        let mut current = maker.make(FIRST, rules("one")).unwrap();
        let offer = |number, id| {
            let handover = Handover::new(Arc::clone(&slot), bell.clone());
            let generation = maker.make(number, rules(id)).unwrap();
            tokio::spawn(async move { handover.offer(generation).await.map(|old| old.number) })
        };
        let first = offer(2, "two");
        bell.rung().await;
        let second = offer(3, "three");
        bell.rung().await;
        assert_eq!(first.await.unwrap(), None);
        assert_eq!(taken(&slot, &mut current), [3]);
        assert_eq!(second.await.unwrap(), Some(FIRST));
    }
}
