//! From an enriched event to lines at the outputs: match, alert, hand over. One owner, no lock, no `await`.

use std::sync::Arc;

use monitor_common::ids::CgroupId;

use crate::alert::{Alert, Crossed, InternalAlert, JsonLines, TextLines};
use crate::enrich::names::NAME_FIELDS;
use crate::event::Event;
use crate::event_type::EventType;
use crate::fields::{FieldRef, FieldSource};
use crate::generation::{FIRST, Generation, Maker, Next, Slot};
use crate::grouping::{Groups, Summary, Verdict};
use crate::metrics::{Discard, Metrics};
use crate::rules::{Priority, Rule, RuleSet};
use crate::sink::{Batch, Sink};
use crate::tally::Tallies;
use crate::threshold::{Outcome, Thresholds};
use crate::watchers::{Hub, Watching};

/// How a sink's lines look.
#[derive(Clone)]
pub enum Format {
    /// One JSON object a line.
    Json(JsonLines),
    /// For people.
    Text(TextLines),
}

impl Format {
    /// Appends an alert of Ringfence about itself.
    pub fn write_internal(&mut self, alert: &InternalAlert<'_>, out: &mut Vec<u8>) {
        match self {
            Format::Json(lines) => lines.write_internal(alert, out),
            Format::Text(lines) => lines.write(&alert.as_alert(), out),
        }
    }
}

/// A sink, and the lines that are being collected for it.
pub struct Output {
    /// Where the lines go. Internal alerts go there past the pipeline, which may be what stands still.
    pub sink: Arc<Sink>,
    /// How they look.
    pub format: Format,
    /// Alerts below it do not go there.
    pub min_priority: Priority,
    batch: Batch,
}

/// A batch is handed over when it has grown to this size, so that sinks write while the ring is drained.
const BATCH_BYTES: usize = 64 << 10;

/// Or to this part of the sink's queue: an empty queue has room for what a burst collects before it is handed over.
const BATCHES_IN_QUEUE: usize = 4;

impl Output {
    /// An output without lines, for alerts of any priority.
    pub fn new(sink: Sink, format: Format) -> Self {
        Output { sink: Arc::new(sink), format, min_priority: Priority::Debug, batch: Batch::default() }
    }

    /// The same without alerts below this priority.
    pub fn above(self, min_priority: Priority) -> Self {
        Output { min_priority, ..self }
    }

    /// Writes an alert. `json` has its JSON line, or makes it.
    fn write<E: FieldSource + ?Sized>(
        &mut self,
        priority: Priority,
        alert: &Alert<'_, E>,
        json: &mut JsonOnce<'_>,
    ) {
        if priority < self.min_priority {
            return;
        }
        match &mut self.format {
            Format::Json(_) => self.batch.bytes.extend_from_slice(json.of(alert)),
            Format::Text(lines) => lines.write(alert, &mut self.batch.bytes),
        }
        self.batch.lines += 1;
        if self.sink.takes_records() {
            self.batch.priorities.push(priority);
        }
        if self.batch.bytes.len() >= BATCH_BYTES.min(self.sink.limit() / BATCHES_IN_QUEUE) {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if self.batch.lines > 0 {
            let full = std::mem::replace(&mut self.batch, self.sink.batch());
            // What finds no room is counted by the sink under its reason.
            let _ = self.sink.offer(full);
        }
    }
}

/// The JSON line of the alert at hand, which all outputs share: made when the first asks for it.
struct JsonOnce<'j> {
    lines: &'j mut JsonLines,
    line: &'j mut Vec<u8>,
}

impl JsonOnce<'_> {
    fn of<E: FieldSource + ?Sized>(&mut self, alert: &Alert<'_, E>) -> &[u8] {
        if self.line.is_empty() {
            self.lines.write(alert, self.line);
        }
        self.line
    }
}

/// Takes an alert with its rule.
pub type Each<'f> = dyn FnMut(&Rule, &Alert<'_, dyn FieldSource + '_>) + 'f;

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970 UTC, by the clock of that time.
    pub unix_ns: i64,
    /// Nanoseconds since boot, which nobody can set.
    pub boot_ns: u64,
}

/// The rules, and what becomes of an event that matches some.
pub struct Alerting {
    /// The rules in force.
    current: Box<Generation>,
    /// Where the next ones wait.
    slot: Arc<Slot>,
    /// What rules with a threshold have counted.
    thresholds: Thresholds,
    /// Alerts that are held together.
    groups: Groups,
    min_priority: Priority,
    outputs: Vec<Output>,
    /// Where those come in who watch live.
    hub: Arc<Hub>,
    watching: Watching,
    tallies: Tallies,
    metrics: Arc<Metrics>,
    /// Whether alerts say why their rule matched.
    why: bool,
    /// The rendered template of the alert at hand.
    text: String,
    json: JsonLines,
    /// Its JSON line.
    line: Vec<u8>,
}

impl Alerting {
    /// Lays out the alerts of each rule on the host of that name. Rules below `min_priority` raise none.
    ///
    /// # Errors
    /// The rules' counters cannot be made.
    pub fn new(
        rules: RuleSet,
        min_priority: Priority,
        outputs: Vec<Output>,
        hostname: &str,
        metrics: Arc<Metrics>,
    ) -> prometheus::Result<Self> {
        metrics.set_rules_loaded(rules.rules());
        metrics.rules_generation.set(FIRST as i64);
        Ok(Alerting {
            thresholds: Thresholds::new(&rules),
            current: Maker::new(hostname, Arc::clone(&metrics)).make(FIRST, rules)?,
            slot: Arc::default(),
            groups: Groups::default(),
            min_priority,
            outputs,
            hub: Arc::default(),
            watching: Watching::default(),
            tallies: Tallies::default(),
            metrics,
            why: false,
            text: String::new(),
            json: JsonLines::default(),
            line: Vec::new(),
        })
    }

    /// Makes alerts say, or not, why their rule matched.
    pub fn with_why(self, why: bool) -> Self {
        Alerting { why, ..self }
    }

    /// Where the next rules are put, to be taken over by [`Alerting::turn`].
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Where those come in who watch live, to be taken over by [`Alerting::turn`].
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Takes over the next rules, if some wait, and those who come to watch. Called between two events, so that all alerts
    /// of an event are of one generation. Lines of the generation before go to the sinks first.
    pub fn turn(&mut self) {
        self.watching.turn(&self.hub);
        // Looked at once: whatever comes in behind this look is taken by the next turn.
        if let Some(next) = self.slot.take() {
            self.enter(next);
        }
    }

    #[cold]
    fn enter(&mut self, next: Next) {
        // What is held back is of the rules before.
        let held = self.groups.end();
        self.write_summaries(held);
        let generation = next.generation();
        let thresholds = std::mem::take(&mut self.thresholds);
        self.thresholds = thresholds.carried_over(&self.current.rules, &generation.rules);
        self.outputs.iter_mut().for_each(Output::hand_over);
        self.metrics.rules_generation.set(generation.number as i64);
        next.enter(&mut self.current);
    }

    /// Matches an event, counts it, and writes what it raises; whoever watches is offered both.
    pub fn judge(&mut self, ty: EventType, event: &Event<'_>, at: Moment) {
        if !self.watching.is_idle() {
            self.watching.event(event, at.unix_ns);
        }
        let mut tallies = std::mem::take(&mut self.tallies);
        let tally = tallies.of(event);
        tally.event(ty, event.verdict);
        self.written(|alerting, write| {
            alerting.raise(ty, event, at, &mut |rule, alert| {
                // What tells of alerts that were held back may be another container's.
                if alert.grouped.is_none() {
                    tally.alert(rule);
                }
                write(rule, alert);
            });
        });
        self.tallies = tallies;
    }

    /// Once a second: writes what was held back in periods that are over at that time since boot, and looks after those
    /// who watch.
    pub fn tick(&mut self, boot_ns: u64) {
        if self.groups.is_due(boot_ns) {
            let due = self.groups.due(boot_ns);
            self.write_summaries(due);
        }
        self.watching.turn(&self.hub);
        self.watching.tend();
    }

    fn write_summaries(&mut self, summaries: Vec<Summary>) {
        if !summaries.is_empty() {
            self.written(|alerting, write| alerting.tell(summaries, write));
        }
    }

    /// Writes to the outputs, and to whoever watches, what `raise` gives.
    fn written(&mut self, raise: impl FnOnce(&mut Self, &mut Each<'_>)) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let (mut json, mut line) = (std::mem::take(&mut self.json), std::mem::take(&mut self.line));
        let mut watching = (!self.watching.is_idle()).then(|| std::mem::take(&mut self.watching));
        raise(self, &mut |rule, alert| {
            line.clear();
            let mut json = JsonOnce { lines: &mut json, line: &mut line };
            outputs.iter_mut().for_each(|output| output.write(rule.priority, alert, &mut json));
            if let Some(watching) = &mut watching {
                watching.alert(alert);
            }
        });
        if let Some(watching) = watching {
            self.watching = watching;
        }
        (self.outputs, self.json, self.line) = (outputs, json, line);
    }

    /// What containers tried, and which rules fired for them.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Forgets the counts of cgroups that are not known any more.
    pub fn forget_tallies(&mut self, is_known: impl Fn(CgroupId) -> bool) {
        self.tallies.retain(is_known);
    }

    /// Gives the alerts that tell of those that were held back.
    fn tell(&self, summaries: Vec<Summary>, each: &mut Each<'_>) {
        let Generation { number: generation, rules, forms, .. } = &*self.current;
        for Summary { position, values, output, crossed, grouped } in summaries {
            let (Some(rule), Some(form)) = (rules.rules().get(position), forms.get(position)) else {
                continue;
            };
            let (event, unix_ns): (&dyn FieldSource, _) = (&values, grouped.first_unix_ns);
            let grouped = Some(grouped);
            let generation = *generation;
            each(
                rule,
                &Alert { form, event, output: &output, unix_ns, generation, crossed, grouped, why: None },
            );
        }
    }

    /// Gives what is still held back to `each`: there will be no more events.
    pub fn end(&mut self, each: &mut Each<'_>) {
        let held = self.groups.end();
        self.tell(held, each);
    }

    /// Matches an event and gives what it raises, with the rule, to `each` instead of the outputs; before that, what was
    /// held back in periods that are over.
    pub fn raise<E: FieldSource>(&mut self, ty: EventType, event: &E, at: Moment, each: &mut Each<'_>) {
        if self.groups.is_due(at.boot_ns) {
            let due = self.groups.due(at.boot_ns);
            self.tell(due, each);
        }
        let Generation { number, rules, forms, alerts, suppressed } = &*self.current;
        let (text, generation, thresholds) = (&mut self.text, *number, &mut self.thresholds);
        let groups = &mut self.groups;
        let (mut matched, mut counted, mut raised) = (false, false, false);
        rules.matches(ty, event, |rule| {
            matched = true;
            if rule.priority < self.min_priority {
                return;
            }
            let (Some(form), Some(count)) = (forms.get(rule.position), alerts.get(rule.position)) else {
                return;
            };
            let crossed = match thresholds.judge(rule, event, at.boot_ns) {
                Some(Outcome::Counted) => {
                    counted = true;
                    return;
                }
                Some(Outcome::Reached(reached)) => Some(Crossed::new(reached, at.boot_ns, at.unix_ns)),
                None => None,
            };
            raised = true;
            count.inc();
            text.clear();
            rule.output.render(event, text);
            if groups.judge(rule, form, (event, text, crossed), at) == Verdict::Held {
                if let Some(count) = suppressed.get(rule.position) {
                    count.inc();
                }
                return;
            }
            let why = self.why.then(|| rule.why(event));
            let (Moment { unix_ns, .. }, event): (_, &dyn FieldSource) = (at, event);
            let (why, grouped) = (why.as_deref(), None);
            each(rule, &Alert { form, event, output: text, unix_ns, generation, crossed, grouped, why });
        });
        match (matched, counted, raised) {
            (_, _, true) => {}
            (_, true, false) => self.discarded(Discard::BelowThreshold),
            (true, false, false) => self.discarded(Discard::BelowPriority),
            (false, false, false) => self.discarded(Discard::NoRule),
        }
    }

    /// Whether an event whose container's name is not known yet may raise an alert, whatever the name is. One that a
    /// threshold may count waits, too: by what it is counted may be the name.
    pub fn may_alert(&self, event: &Event<'_>) -> bool {
        let known = |field: FieldRef| (!NAME_FIELDS.contains(&field.field)).then(|| event.value(field));
        self.current.rules.may_match(event.ty, self.min_priority, known)
    }

    /// Counts an event that leads to no alert.
    pub fn discarded(&self, why: Discard) {
        self.metrics.events_discarded[why as usize].inc();
    }

    /// What rules with a threshold have counted.
    pub fn thresholds(&mut self) -> &mut Thresholds {
        &mut self.thresholds
    }

    /// The alerts that are held together.
    pub fn groups(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// Hands what was collected to the sinks.
    pub fn hand_over(&mut self) {
        self.outputs.iter_mut().for_each(Output::hand_over);
    }

    /// Ends it: what was held back is told, and those who watch that this was all. The sinks still hold lines.
    pub fn into_outputs(mut self) -> Vec<Output> {
        self.watching.turn(&self.hub);
        let held = self.groups.end();
        self.write_summaries(held);
        self.hand_over();
        self.hub.close();
        self.watching.end();
        self.outputs
    }
}

#[cfg(test)]
#[path = "alerting_tests.rs"]
mod tests;
