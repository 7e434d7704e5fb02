//! From an enriched event to lines at the outputs: match, alert, hand over. One owner, no lock, no `await`.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::alert::{Alert, AlertForm, AlertRule, Crossed, InternalAlert, JsonLines, TextLines};
use crate::enrich::names::NAME_FIELDS;
use crate::event::Event;
use crate::event_type::EventType;
use crate::fields::{FieldRef, FieldSource};
use crate::metrics::{Discard, Metrics};
use crate::rules::{Priority, Rule, RuleSet};
use crate::sink::{Batch, Sink};
use crate::threshold::{Outcome, Thresholds, boot_of};

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
    batch: Batch,
}

/// A batch is handed over when it has grown to this size, so that sinks write while the ring is drained.
const BATCH_BYTES: usize = 64 << 10;

impl Output {
    /// An output without lines.
    pub fn new(sink: Sink, format: Format) -> Self {
        Output { sink: Arc::new(sink), format, batch: Batch::default() }
    }

    fn write(&mut self, alert: &Alert<'_, impl FieldSource>) {
        match &mut self.format {
            Format::Json(lines) => lines.write(alert, &mut self.batch.bytes),
            Format::Text(lines) => lines.write(alert, &mut self.batch.bytes),
        }
        self.batch.lines += 1;
        if self.batch.bytes.len() >= BATCH_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if self.batch.lines > 0 {
            let fresh = Batch { bytes: self.sink.buffer(), lines: 0 };
            let full = std::mem::replace(&mut self.batch, fresh);
            // What finds no room is counted by the sink under its reason.
            let _ = self.sink.offer(full);
        }
    }
}

/// The rules, and what becomes of an event that matches some.
pub struct Alerting {
    rules: RuleSet,
    /// What rules with a threshold have counted.
    thresholds: Thresholds,
    forms: Vec<AlertForm>,
    min_priority: Priority,
    outputs: Vec<Output>,
    metrics: Arc<Metrics>,
    /// Whether alerts say why their rule matched.
    why: bool,
    /// Alerts by rule, in the order of the rule set.
    alerts: Vec<IntCounter>,
    /// The rendered template of the alert at hand.
    text: String,
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
        let form = |rule: &Rule| AlertForm::new(&AlertRule::from(rule), hostname);
        Ok(Alerting {
            forms: rules.rules().iter().map(form).collect(),
            alerts: metrics.rules(rules.rules())?,
            thresholds: Thresholds::new(&rules),
            rules,
            min_priority,
            outputs,
            metrics,
            why: false,
            text: String::new(),
        })
    }

    /// Makes alerts say, or not, why their rule matched.
    pub fn with_why(self, why: bool) -> Self {
        Alerting { why, ..self }
    }

    /// Matches an event, which happened at `unix_ns` since 1970, and writes what it raises.
    pub fn judge<E: FieldSource>(&mut self, ty: EventType, event: &E, unix_ns: i64) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.raise(ty, event, unix_ns, |_, alert| outputs.iter_mut().for_each(|output| output.write(alert)));
        self.outputs = outputs;
    }

    /// Matches an event and gives what it raises, with the rule, to `each` instead of the outputs.
    pub fn raise<E: FieldSource>(
        &mut self,
        ty: EventType,
        event: &E,
        unix_ns: i64,
        mut each: impl FnMut(&Rule, &Alert<'_, E>),
    ) {
        let (forms, alerts, text) = (&self.forms, &self.alerts, &mut self.text);
        let thresholds = &mut self.thresholds;
        let (mut matched, mut counted, mut raised) = (false, false, false);
        self.rules.matches(ty, event, |rule| {
            matched = true;
            if rule.priority < self.min_priority {
                return;
            }
            let (Some(form), Some(count)) = (forms.get(rule.position), alerts.get(rule.position)) else {
                return;
            };
            let crossed = match thresholds.judge(rule, event, boot_of(event)) {
                Some(Outcome::Counted) => {
                    counted = true;
                    return;
                }
                Some(Outcome::Reached(reached)) => Some(Crossed::new(reached, boot_of(event), unix_ns)),
                None => None,
            };
            raised = true;
            count.inc();
            text.clear();
            rule.output.render(event, text);
            let why = self.why.then(|| rule.why(event));
            each(rule, &Alert { form, event, output: text, unix_ns, crossed, why: why.as_deref() });
        });
        match (matched, counted, raised) {
            (_, _, true) => {}
            (_, true, false) => self.discarded(Discard::BelowThreshold),
            (true, false, false) => self.discarded(Discard::BelowPriority),
            (false, false, false) => self.discarded(Discard::NoRule),
        }
    }

    /// From here on alerts are those of the host of that name.
    pub fn set_hostname(&mut self, hostname: &str) {
        let form = |rule: &Rule| AlertForm::new(&AlertRule::from(rule), hostname);
        self.forms = self.rules.rules().iter().map(form).collect();
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Whether an event whose container's name is not known yet may raise an alert, whatever the name is. One that a
    /// threshold may count waits, too: by what it is counted may be the name.
    pub fn may_alert(&self, event: &Event<'_>) -> bool {
        let known = |field: FieldRef| (!NAME_FIELDS.contains(&field.field)).then(|| event.value(field));
        self.rules.may_match(event.ty, self.min_priority, known)
    }

    /// Counts an event that leads to no alert.
    pub fn discarded(&self, why: Discard) {
        self.metrics.events_discarded[why as usize].inc();
    }

    /// What rules with a threshold have counted.
    pub fn thresholds(&mut self) -> &mut Thresholds {
        &mut self.thresholds
    }

    /// Hands what was collected to the sinks.
    pub fn hand_over(&mut self) {
        self.outputs.iter_mut().for_each(Output::hand_over);
    }

    /// Ends it; the sinks still hold lines.
    pub fn into_outputs(self) -> Vec<Output> {
        self.outputs
    }
}
