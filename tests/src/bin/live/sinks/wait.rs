//! A peer that is away while alerts are made and while the daemon ends and starts again.

use tests::harness::Settings;
use tests::servers::{HeldPort, Nginx, Pki, await_count, free_port};

use super::{Running, alerts, start};

const ALERTS: u32 = 50;

pub(super) fn in_the_spool(settings: &Settings) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let pki = Pki::make(dir.path())?;
    let held = HeldPort::take()?;
    let port = held.port()?;
    let spool = dir.path().join("spool").display().to_string();
    let outputs = [format!(
        "{{type: webhook, url: 'http://127.0.0.1:{port}/late', timeout_ms: 1000, spool: {{dir: {spool}}}}}"
    )];
    let Running { daemon, _rules } = start(settings, dir.path(), &outputs)?;
    let before = alerts(settings, &daemon, ALERTS)?;
    daemon.stop()?.check()?;
    let Running { daemon, _rules } = start(settings, dir.path(), &outputs)?;
    let after = alerts(settings, &daemon, ALERTS)?;
    drop(held);
    let nginx = Nginx::start_at(dir.path(), &pki, free_port()?, port)?;
    for pid in [before, after] {
        await_count("alerts that waited", ALERTS.into(), || {
            Ok(nginx.noted("plain", &format!(" vpid={pid} tid=")))
        })?;
    }
    // Between them stand alerts about others of this machine.
    let text = |pid: u32| format!(" vpid={pid} tid=");
    let requests = nginx.requests("plain", "POST\t/late");
    let ours: Vec<bool> = requests
        .iter()
        .filter(|line| line.contains(&text(before)) || line.contains(&text(after)))
        .map(|line| line.contains(&text(before)))
        .collect();
    if !ours.is_sorted_by(|one, next| one >= next) {
        return Err("what waited longest did not come first".to_owned());
    }
    daemon.stop()?.check()
}
