//! Outputs that have a peer, at real servers: each gets every alert, and none that hangs, is slow, refuses or has broken
//! TLS costs the others anything.

mod arrive;
mod hurt;
mod wait;

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Trial;
use tempfile::TempDir;
use tests::harness::alerts::Expectation;
use tests::harness::{Daemon, Settings};
use tests::servers::{Collector, Nginx, Pki, await_count};

use crate::cases::cases;
use crate::law::{delivered, flood};
use crate::places::suite_rules;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // No matter of the kernel.
        return Vec::new();
    }
    cases(
        settings,
        &[
            ("sinks::every_output_gets_every_alert", arrive::all),
            ("sinks::syslog_hurts_nobody", hurt::syslog),
            ("sinks::journald_hurts_nobody", hurt::journald),
            ("sinks::webhook_hurts_nobody", hurt::webhook),
            ("sinks::alertmanager_hurts_nobody", hurt::alertmanager),
            ("sinks::otlp_hurts_nobody", hurt::otlp),
            ("sinks::falcosidekick_hurts_nobody", hurt::falcosidekick),
            ("sinks::alerts_wait_for_a_peer_over_a_restart", wait::in_the_spool),
        ],
    )
}

/// What every case needs: a directory, certificates, and a server that says yes.
struct Place {
    dir: TempDir,
    pki: Pki,
    collector: Collector,
    nginx: Nginx,
}

impl Place {
    fn new() -> Result<Place, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("temporary directory: {error}"))?;
        let pki = Pki::make(dir.path())?;
        let collector = Collector::start(dir.path())?;
        let nginx = Nginx::start(dir.path(), &pki, collector.grpc)?;
        Ok(Place { dir, pki, collector, nginx })
    }
}

/// A daemon with these outputs, each a line of YAML in braces.
struct Running {
    daemon: Daemon,
    _rules: TempDir,
}

fn start(settings: &Settings, dir: &Path, outputs: &[String]) -> Result<Running, String> {
    let config = dir.join("ringfence.yaml");
    let list: String = outputs.iter().map(|output| format!("  - {output}\n")).collect();
    std::fs::write(&config, format!("outputs:\n{list}")).map_err(|error| error.to_string())?;
    let rules = suite_rules()?;
    let arguments =
        ["--config", &config.display().to_string(), "--rules", &rules.path().display().to_string()];
    Ok(Running { daemon: Daemon::start(settings, &arguments)?, _rules: rules })
}

/// Has so many alerts made, of which not one may be lost on the path of events. Gives the process that made them.
fn alerts(settings: &Settings, daemon: &Daemon, count: u32) -> Result<u32, String> {
    let (pid, made) = flood(settings, None, &["--count", &count.to_string(), "--seconds", "60"])?;
    let out = await_count("attempts on standard output", made, || Ok(delivered(daemon, &[pid])));
    out.map_err(|fault| match daemon.metrics() {
        Ok(metrics) => format!("{fault}\n{}", metrics.lines("ringfence_events_lost_total{call=\"unshare\"")),
        Err(other) => format!("{fault}; {other}"),
    })?;
    Ok(pid)
}

/// The alerts of that process on standard output.
fn on_stdout(daemon: &Daemon, pid: u32) -> Vec<serde_json::Value> {
    let theirs = Expectation::new().is("rule", "Suite unshare").is("proc.vpid", pid);
    daemon.inbox().all().into_iter().filter(|alert| theirs.fits(alert)).map(|alert| alert.json).collect()
}
