//! Telling of Ringfence itself: alerts straight to the outputs, past the pipeline, which may be what stands still.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntCounter;

use crate::alert::{AlertForm, Fact, InternalAlert};
use crate::alerting::{Format, Output};
use crate::metrics::Metrics;
use crate::sink::{Batch, Sink};

/// An internal alert's constant parts and its counter.
#[derive(Debug)]
pub struct Kind {
    form: AlertForm,
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
        Ok(Kind { form, count: metrics.internal_alerts(id, priority)? })
    }
}

/// Writes internal alerts.
pub struct Teller {
    outputs: Vec<(Arc<Sink>, Format)>,
    metrics: Arc<Metrics>,
}

impl Teller {
    /// Writes to these outputs.
    pub fn new(outputs: &[Output], metrics: Arc<Metrics>) -> Self {
        let outputs =
            outputs.iter().map(|output| (Arc::clone(&output.sink), output.format.clone())).collect();
        Teller { outputs, metrics }
    }

    /// Counts the alert and writes it to each output.
    pub fn tell(&mut self, kind: &Kind, text: &str, facts: &[(&'static str, Fact)]) {
        kind.count.inc();
        let unix_ns = unix_now();
        let generation = u64::try_from(self.metrics.rules_generation.get()).unwrap_or_default();
        let alert = InternalAlert { form: &kind.form, output: text, unix_ns, generation, facts };
        for (sink, format) in &mut self.outputs {
            let mut batch = Batch { bytes: sink.buffer(), lines: 1 };
            format.write_internal(&alert, &mut batch.bytes);
            // What finds no room is counted by the sink under its reason.
            let _ = sink.offer(batch);
        }
    }
}

/// Now, as alerts have it: nanoseconds since 1970. A wall clock before that counts as 1970.
pub fn unix_now() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)
}
