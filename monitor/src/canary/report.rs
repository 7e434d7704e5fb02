//! How blindness is told: alerts straight to the outputs, past the pipeline; metrics; readiness; the log.

use std::sync::Arc;

use monitor_common::ids::BootNs;

use super::board::now;
use super::finding::{Cause, Finding};
use crate::alert::{Fact, WallClock};
use crate::http::Health;
use crate::metrics::Metrics;
use crate::pins::Carried;
use crate::pipeline::Output;
use crate::telling::{Kind, Teller};
use crate::wall_clock::BootOffset;
use crate::watchers::Hub;

const BLIND: (&str, &str, &str) = ("ringfence-blind", "Ringfence is blind", "Critical");
const SEES: (&str, &str, &str) = ("ringfence-sees-again", "Ringfence sees again", "Notice");
const STOOD: (&str, &str, &str) = ("ringfence-stood-still", "Ringfence stood still", "Critical");

/// The ids and priorities of these alerts.
pub const INTERNAL_ALERTS: [(&str, &str); 3] = [(BLIND.0, BLIND.2), (SEES.0, SEES.2), (STOOD.0, STOOD.2)];

/// Where blindness is told.
pub struct Reporter {
    teller: Teller,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    blind: Kind,
    sees: Kind,
    stood: Kind,
    /// What the next process goes on counting from.
    carried: Option<Arc<Carried>>,
}

impl Reporter {
    /// Tells it to these outputs.
    ///
    /// # Errors
    /// Only if the table of metrics is wrong.
    pub fn new(
        outputs: &[Output],
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        hostname: &str,
        carried: Option<Arc<Carried>>,
    ) -> prometheus::Result<Self> {
        Ok(Reporter {
            teller: Teller::new(outputs, Arc::clone(&metrics)),
            blind: Kind::new(BLIND, hostname, &metrics)?,
            sees: Kind::new(SEES, hostname, &metrics)?,
            stood: Kind::new(STOOD, hostname, &metrics)?,
            health,
            metrics,
            carried,
        })
    }

    /// Tells it from now on also to whoever watches there.
    pub fn show_at(&mut self, hub: &Arc<Hub>) {
        self.teller.show_at(hub);
    }

    /// Something is seen no longer, for one cause.
    pub(super) fn begun(&mut self, cause: Cause, findings: &[Finding]) {
        let hooks = subjects(findings);
        let since = since(findings);
        let cost = costs(findings);
        self.count(cause);
        let text = format!(
            "Ringfence sees no longer what it watched (cause={} hooks={} since={since} cost={cost})",
            cause.name(),
            hooks.join(",")
        );
        tracing::error!(cause = cause.name(), hooks = hooks.join(", "), since, cost, "blind");
        let facts = [
            ("ringfence.cause", Fact::Text(cause.name().to_owned())),
            ("ringfence.hooks", Fact::List(hooks)),
            ("ringfence.cost", Fact::Text(cost)),
            ("ringfence.since", Fact::Text(since)),
        ];
        self.teller.tell(&self.blind, &text, &facts);
    }

    /// It is seen again.
    pub(super) fn ended(&mut self, cause: Cause, findings: &[Finding]) {
        let hooks = subjects(findings);
        let start = findings.iter().map(|finding| finding.since.0).min().unwrap_or_default();
        let seconds = now().0.saturating_sub(start) / 1_000_000_000;
        let since = since(findings);
        let text = format!(
            "Ringfence sees again what it watched (cause={} hooks={} since={since} seconds={seconds})",
            cause.name(),
            hooks.join(",")
        );
        tracing::info!(cause = cause.name(), hooks = hooks.join(", "), seconds, "seeing again");
        let facts = [
            ("ringfence.cause", Fact::Text(cause.name().to_owned())),
            ("ringfence.hooks", Fact::List(hooks)),
            ("ringfence.since", Fact::Text(since)),
            ("ringfence.seconds", Fact::Number(seconds)),
        ];
        self.teller.tell(&self.sees, &text, &facts);
    }

    /// The whole daemon did not run for so long, and so many records were lost in that time.
    pub(super) fn stood_still(&mut self, seconds: u64, lost: u64) {
        self.count(Cause::StoodStill);
        let text =
            format!("Ringfence did not run for {seconds} s: nothing was reported, {lost} records were lost");
        tracing::error!(seconds, lost, "the daemon stood still");
        let facts = [
            ("ringfence.cause", Fact::Text(Cause::StoodStill.name().to_owned())),
            ("ringfence.seconds", Fact::Number(seconds)),
            ("ringfence.lost", Fact::Number(lost)),
        ];
        self.teller.tell(&self.stood, &text, &facts);
    }

    fn count(&self, cause: Cause) {
        if let Some(counter) = self.metrics.blindness.get(cause as usize) {
            counter.inc();
        }
        if let Some(carried) = &self.carried {
            carried.add_blindness(cause as usize);
        }
    }
}

fn subjects(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.subject.clone()).collect()
}

/// Each cost once.
fn costs(findings: &[Finding]) -> String {
    let mut costs: Vec<&str> = findings.iter().map(|finding| finding.cost).collect();
    costs.sort_unstable();
    costs.dedup();
    costs.join("; ")
}

/// The earliest time, as RFC 3339.
fn since(findings: &[Finding]) -> String {
    let since = findings.iter().map(|finding| finding.since.0).min().unwrap_or_default();
    let mut text = Vec::new();
    WallClock::default().push_rfc3339(BootOffset::measure().unix_ns(BootNs(since)), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
