//! Telling of Ringfence itself: alerts straight to the outputs, past the pipeline, which may be what stands still.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntCounter;

use crate::alert::{AlertForm, Fact, InternalAlert, JsonLines};
use crate::alerting::{Format, Output};
use crate::metrics::Metrics;
use crate::rules::Priority;
use crate::sink::Sink;
use crate::watchers::Hub;

/// An internal alert's constant parts and its counter.
#[derive(Debug)]
pub struct Kind {
    form: AlertForm,
    priority: Priority,
    count: IntCounter,
}

impl Kind {
    /// With this id, name and priority.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub fn new(
        (id, name, priority): (&str, &str, &str),
        hostname: &str,
        metrics: &Metrics,
    ) -> prometheus::Result<Self> {
        let form = InternalAlert::form(id, name, priority, hostname);
        // The words are ours.
        let weight = priority.parse().unwrap_or(Priority::Emergency);
        Ok(Kind { form, priority: weight, count: metrics.internal_alerts(id, priority)? })
    }
}

/// Writes internal alerts.
pub struct Teller {
    outputs: Vec<(Arc<Sink>, Format, Priority)>,
    /// Who watches, and how lines are made for them.
    hub: Option<(Arc<Hub>, JsonLines)>,
    metrics: Arc<Metrics>,
}

impl Teller {
    /// Writes to these outputs.
    pub fn new(outputs: &[Output], metrics: Arc<Metrics>) -> Self {
        let of = |output: &Output| (Arc::clone(&output.sink), output.format.clone(), output.min_priority);
        Teller { outputs: outputs.iter().map(of).collect(), hub: None, metrics }
    }

    /// From now on also to whoever watches there.
    pub fn show_at(&mut self, hub: &Arc<Hub>) {
        self.hub = Some((Arc::clone(hub), JsonLines::default()));
    }

    /// Counts the alert and writes it to each output, and to whoever watches.
    pub fn tell(&mut self, kind: &Kind, text: &str, facts: &[(&'static str, Fact)]) {
        kind.count.inc();
        let unix_ns = unix_now();
        let generation = u64::try_from(self.metrics.rules_generation.get()).unwrap_or_default();
        let alert = InternalAlert { form: &kind.form, output: text, unix_ns, generation, facts };
        for (sink, format, least) in &mut self.outputs {
            if kind.priority < *least {
                continue;
            }
            let mut batch = sink.batch();
            batch.lines = 1;
            if sink.takes_records() {
                batch.priorities.push(kind.priority);
            }
            format.write_internal(&alert, &mut batch.bytes);
            // What finds no room is counted by the sink under its reason.
            let _ = sink.offer(batch);
        }
        if let Some((hub, json)) = &mut self.hub {
            hub.tell(|line| json.write_internal(&alert, line));
        }
    }
}

/// Now, as metrics have it: seconds since 1970.
pub fn unix_seconds() -> i64 {
    unix_now() / 1_000_000_000
}

/// Now, as alerts have it: nanoseconds since 1970. A wall clock before that counts as 1970.
pub fn unix_now() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchers::{Said, Watch};

    #[test]
    fn whoever_watches_is_told() {
        let metrics = Arc::new(crate::pipeline::metrics().unwrap());
        let kind = Kind::new(("ringfence-x", "X", "Critical"), "h", &metrics).unwrap();
        let mut teller = Teller::new(&[], metrics);
        let hub = Arc::<Hub>::default();
        let mut watcher = hub.watch(Watch::default()).unwrap();
        teller.show_at(&hub);
        teller.tell(&kind, "it is so", &[]);
        let Some(Said::Line(line)) = watcher.next_now() else { panic!("nothing came") };
        let alert: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&alert["rule_id"], &alert["source"]), (&"ringfence-x".into(), &"internal".into()));
        assert!(line.ends_with(b"}\n") && watcher.next_now().is_none());
    }
}
