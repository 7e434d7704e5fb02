//! The gauges of each probe, made when it is known which probes there are: when they are attached.

use std::sync::OnceLock;

use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::gauge_vec;
use super::names::{CANARY_LAST_SUCCESS, CANARY_UNTESTED, CANARY_UP, PROBE_ATTACHED};

/// What is shown of one probe and of the tests of its hook.
#[derive(Clone, Debug)]
pub struct ProbeGauges {
    /// 1 if the probe is attached.
    pub attached: IntGauge,
    /// 1 if the last canary came back.
    pub canary_up: IntGauge,
    /// 1 if no canary tests the hook.
    pub canary_untested: IntGauge,
    /// When one last came back, in seconds since 1970.
    pub canary_last_success: IntGauge,
}

/// The gauges of all probes.
#[derive(Debug)]
pub(super) struct ProbeSeries {
    attached: IntGaugeVec,
    up: IntGaugeVec,
    untested: IntGaugeVec,
    last_success: IntGaugeVec,
    made: OnceLock<Vec<ProbeGauges>>,
}

impl ProbeSeries {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(ProbeSeries {
            attached: gauge_vec(registry, &PROBE_ATTACHED)?,
            up: gauge_vec(registry, &CANARY_UP)?,
            untested: gauge_vec(registry, &CANARY_UNTESTED)?,
            last_success: gauge_vec(registry, &CANARY_LAST_SUCCESS)?,
            made: OnceLock::new(),
        })
    }

    /// Makes the series of these probes, each with its name, its hook and whether it is attached. Only the first call
    /// counts.
    pub(super) fn add<'p>(
        &self,
        probes: impl Iterator<Item = (&'p str, &'p str, bool)>,
    ) -> prometheus::Result<()> {
        let gauges = |(name, hook, attached): (&str, &str, bool)| {
            let gauges = ProbeGauges {
                attached: self.attached.get_metric_with_label_values(&[name])?,
                canary_up: self.up.get_metric_with_label_values(&[hook])?,
                canary_untested: self.untested.get_metric_with_label_values(&[hook])?,
                canary_last_success: self.last_success.get_metric_with_label_values(&[hook])?,
            };
            gauges.attached.set(attached.into());
            Ok(gauges)
        };
        let made = probes.map(gauges).collect::<prometheus::Result<_>>()?;
        // They are added once; a second list would be that of another set of probes.
        let _ = self.made.set(made);
        Ok(())
    }

    pub(super) fn all(&self) -> &[ProbeGauges] {
        self.made.get().map_or(&[], Vec::as_slice)
    }
}
