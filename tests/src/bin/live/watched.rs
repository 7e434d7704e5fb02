//! A daemon whose blindness is tested: what it tells about itself, and its descriptors.

use std::time::{Duration, Instant};

use tests::bpf_objects::FdInfo;
use tests::features::{NAMESPACE_SWITCH, SWITCH_IS_UNTESTED, running};
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::tamper::Map;

use crate::places::suite_rules;

/// Within this time blindness must be told. Guests run on an emulated processor.
fn limit(settings: &Settings) -> Duration {
    Duration::from_secs(if settings.guest { 4 } else { 2 })
}

const BLIND: &str = "Ringfence is blind";
const SEES: &str = "Ringfence sees again";

/// A daemon under the suite's rules, which match every event, with all its canaries back.
pub(crate) struct Watched {
    pub(crate) daemon: Daemon,
    pub(crate) limit: Duration,
    _rules: tempfile::TempDir,
}

impl Watched {
    pub(crate) fn start(settings: &Settings, arguments: &[&str]) -> Result<Watched, String> {
        let rules = suite_rules()?;
        let path = rules.path().display().to_string();
        let mut all = vec!["--rules", path.as_str()];
        all.extend(arguments);
        let daemon = Daemon::start(settings, &all)?;
        let watched = Watched { daemon, limit: limit(settings), _rules: rules };
        let is_switch_tested = running().is_none_or(|kernel| !SWITCH_IS_UNTESTED.contains(&kernel));
        watched.await_metrics("all canaries back", |metrics| {
            let up = metrics.sum("ringfence_canary_up", &[])?;
            let untested = metrics.sum("ringfence_canary_untested", &[])?;
            let attached = metrics.sum("ringfence_probe_attached", &[])?;
            let missing = metrics.lines("ringfence_probe_attached").lines().count() as f64 - attached;
            // Whatever is attached is tested here, and nothing else is; but see `SWITCH_IS_UNTESTED`.
            let drawn_in =
                metrics.sum("ringfence_canary_untested", &[("hook", NAMESPACE_SWITCH)]).unwrap_or(0.0);
            let excused = if is_switch_tested { 0.0 } else { drawn_in.min(1.0) };
            Some(up + excused == attached && untested == missing + excused && attached > 0.0)
        })?;
        Ok(watched)
    }

    /// What came before is forgotten, and nothing is blind: a case may begin.
    pub(crate) fn begin(&self) -> Result<(), String> {
        self.daemon.inbox().forget(&Expectation::new());
        match self.gauge("ringfence_blind", &[])? {
            0.0 => Ok(()),
            _ => Err("the case before left the daemon blind".to_owned()),
        }
    }

    pub(crate) fn await_metrics(
        &self,
        what: &str,
        holds: impl Fn(&tests::harness::http::Metrics) -> Option<bool>,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let metrics = self.daemon.metrics()?;
            if holds(&metrics) == Some(true) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > PATIENCE {
                let lines = ["ringfence_canary", "ringfence_blind", "ringfence_probe", "ringfence_events"];
                let shown: Vec<String> = lines.iter().map(|prefix| metrics.lines(prefix)).collect();
                return Err(format!("the metrics never show {what}:\n{}", shown.join("\n")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, String> {
        self.daemon.metrics()?.sum(name, labels).ok_or(format!("no series {name} {labels:?}"))
    }

    /// Waits for an internal alert that came in time after `start`, and for the metric that goes with it.
    pub(crate) fn expect_blind(&self, start: Instant, cause: &str, hook: &str) -> Result<Alert, String> {
        let wanted = Expectation::new()
            .is("rule", BLIND)
            .is("priority", "Critical")
            .is("source", "internal")
            .is("ringfence.cause", cause);
        let alert = self.daemon.expect(&wanted)?;
        let took = alert.arrived.saturating_duration_since(start);
        if took > self.limit {
            return Err(format!("{cause} was told after {took:?}, later than {:?}", self.limit));
        }
        let hooks = alert.get("ringfence.hooks").unwrap_or_default();
        if !hooks.contains(hook) {
            return Err(format!("`{hook}` is not among the hooks: {hooks}"));
        }
        for key in ["ringfence.cost", "ringfence.since"] {
            alert.get(key).ok_or(format!("no {key}: {}", alert.json))?;
        }
        let counted = self.gauge("ringfence_blindness_total", &[("cause", cause)])?;
        if counted < 1.0 {
            return Err(format!("blindness_total of {cause} is {counted}"));
        }
        Ok(alert)
    }

    /// While it lasts the metric and `/readyz` say so.
    pub(crate) fn stays_blind(&self, hook: &str) -> Result<(), String> {
        if self.gauge("ringfence_blind", &[])? != 1.0 {
            return Err("ringfence_blind is not 1".to_owned());
        }
        let (status, page) = self.daemon.get("/readyz")?;
        if status != 503 || !page.contains("blind") || !page.contains(hook) {
            return Err(format!("/readyz answers {status}: {page}"));
        }
        Ok(())
    }

    pub(crate) fn expect_sight(&self, cause: &str) -> Result<(), String> {
        let wanted =
            Expectation::new().is("rule", SEES).is("priority", "Notice").is("ringfence.cause", cause);
        self.daemon.expect(&wanted)?;
        self.await_metrics("that nothing is blind", |metrics| {
            Some(metrics.sum("ringfence_blind", &[])? == 0.0)
        })?;
        match self.daemon.get("/readyz")? {
            (200, _) => Ok(()),
            (status, page) => Err(format!("/readyz still answers {status}: {page}")),
        }
    }

    /// Internal alerts so far, each told once.
    pub(crate) fn internal(&self) -> Vec<String> {
        let wanted = Expectation::new().is("source", "internal");
        self.daemon.inbox().fitting(&wanted).iter().map(|alert| alert.json.to_string()).collect()
    }

    pub(crate) fn told(&self, count: usize) -> Result<(), String> {
        let internal = self.internal();
        if internal.len() == count {
            return Ok(());
        }
        Err(format!("{} internal alerts instead of {count}:\n{}", internal.len(), internal.join("\n")))
    }

    pub(crate) fn stop(self) -> Result<tests::harness::Ended, String> {
        let ended = self.daemon.stop()?;
        ended.check()?;
        Ok(ended)
    }

    /// The descriptors of the daemon that show these numbers.
    pub(crate) fn descriptor(&self, wanted: &[(&str, &str)]) -> Result<FdInfo, String> {
        let all = FdInfo::all(self.daemon.pid()).map_err(|error| error.to_string())?;
        let fits = |info: &&FdInfo| wanted.iter().all(|(key, value)| info.get(key) == Some(*value));
        all.iter().find(fits).cloned().ok_or(format!("the daemon has no descriptor with {wanted:?}"))
    }

    /// A link of perf's kind of this program.
    pub(crate) fn perf_link(&self, program: &str) -> Result<FdInfo, String> {
        let all = FdInfo::all(self.daemon.pid()).map_err(|error| error.to_string())?;
        let fits = |info: &&FdInfo| {
            let name = info.number("prog_id").and_then(|id| tests::bpf::program_name(id).ok());
            info.get("link_type") == Some("perf") && name.as_deref() == Some(program)
        };
        all.iter().find(fits).cloned().ok_or(format!("the daemon has no such link of {program}"))
    }

    pub(crate) fn map(&self, kind: &str, entries: u32) -> Result<Map, String> {
        let info = self.descriptor(&[("map_type", kind), ("max_entries", &entries.to_string())])?;
        Map::open(&info).map_err(|error| error.to_string())
    }
}
