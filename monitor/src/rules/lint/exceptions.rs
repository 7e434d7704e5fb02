//! Exceptions that have ended, and such that nothing shows to except anything.

use std::sync::Arc;

use super::rules::Judged;
use super::{Found, Kind};
use crate::fields::FieldValues;
use crate::rules::eval::{Memo, Node};
use crate::rules::file::Text;
use crate::rules::library::Library;

/// Exceptions whose last day has passed.
pub(super) fn expired(rules: &[Judged<'_>], found: &mut Vec<Found>) {
    for judged in rules {
        for exception in judged.rule.exceptions.iter().filter(|exception| exception.expired) {
            let ended = exception.expires.map(|day| format!(" on {day}")).unwrap_or_default();
            let message =
                format!("the exception `{}` of the rule `{}` ended{ended}", exception.name, judged.rule.name);
            let help = "take it out, or give it a later day";
            found.push(Found::new(
                Kind::ExceptionExpired,
                place(judged, &exception.name).wrong(message).help(help),
            ));
        }
    }
}

/// Where an exception is named; of a rule without, the rule's name.
fn place<'m>(judged: &Judged<'m>, name: &str) -> &'m Text {
    let item = judged.item.exceptions.iter().find(|item| item.name.as_str() == name);
    item.map_or(&judged.item.name, |item| &item.name)
}

/// An exception of a rule, and whether an event was seen that it excepts.
struct Watched<'m> {
    judged: usize,
    name: &'m str,
    /// The rule's condition without its exceptions.
    base: Arc<Node>,
    exception: Arc<Node>,
    hit: bool,
}

/// Watches exceptions while events pass.
pub(super) struct Watch<'j, 'm> {
    rules: &'j [Judged<'m>],
    watched: Vec<Watched<'m>>,
    events: u64,
}

impl<'j, 'm> Watch<'j, 'm> {
    /// The exceptions in force of these rules.
    pub(super) fn new(rules: &'j [Judged<'m>], library: &mut Library) -> Self {
        let mut watched = Vec::new();
        for (index, judged) in rules.iter().enumerate() {
            if judged.rule.exceptions.iter().all(|exception| exception.compiled.is_none()) {
                continue;
            }
            let condition = judged.item.condition.as_ref();
            let Some(Ok(base)) = condition.map(|condition| library.compile(condition, 0)) else { continue };
            let in_force = judged.rule.exceptions.iter().filter_map(|exception| {
                let node = Arc::clone(&exception.compiled.as_ref()?.node);
                let base = Arc::clone(&base.node);
                Some(Watched { judged: index, name: &exception.name, base, exception: node, hit: false })
            });
            watched.extend(in_force);
        }
        Watch { rules, watched, events: 0 }
    }

    /// Whether there is anything to watch.
    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// An event passes.
    pub(super) fn event(&mut self, event: &FieldValues) {
        self.events += 1;
        let memo = Memo::default();
        for watched in self.watched.iter_mut().filter(|watched| !watched.hit) {
            watched.hit = watched.exception.holds(event, &memo) && watched.base.holds(event, &memo);
        }
    }

    /// The events of each rule's own tests pass, each for its rule alone.
    pub(super) fn own_tests(&mut self) {
        for watched in &mut self.watched {
            for test in self.rules.get(watched.judged).into_iter().flat_map(|judged| &*judged.rule.tests) {
                let (event, memo) = (&test.event.values, Memo::default());
                watched.hit |= watched.exception.holds(event, &memo) && watched.base.holds(event, &memo);
            }
        }
    }

    /// Notes the exceptions that no event needed. `recorded`: the events were recorded, not those of tests.
    pub(super) fn report(self, recorded: bool, found: &mut Vec<Found>) {
        // An exception to which values were appended is named once; it is hit if one of its parts is.
        let mut told: Vec<(usize, &str)> = Vec::new();
        for watched in &self.watched {
            let key = (watched.judged, watched.name);
            let parts = self.watched.iter().filter(|other| (other.judged, other.name) == key);
            if told.contains(&key) || parts.into_iter().any(|part| part.hit) {
                continue;
            }
            told.push(key);
            let Some(judged) = self.rules.get(watched.judged) else { continue };
            let (name, of) = (watched.name, &judged.rule.name);
            let (message, help) = if recorded {
                let message = format!(
                    "the exception `{name}` of the rule `{of}` excepts none of {} recorded events",
                    self.events
                );
                (message, "if the recording is long enough, take it out")
            } else {
                let message = format!("no test of the rule `{of}` shows what its exception `{name}` excepts");
                (message, "add a test with `match: false`, or look at recorded events by `--events`")
            };
            let diagnostic = place(judged, name).wrong(message).help(help);
            found.push(Found { note: true, ..Found::new(Kind::ExceptionUnhit, diagnostic) });
        }
    }
}
