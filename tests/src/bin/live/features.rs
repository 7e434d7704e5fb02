//! What the daemon attached and resolved on this kernel, held against the table of features.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::bpf_objects::FdInfo;
use tests::features::{FEATURES, Feature, Sign, running};
use tests::harness::Daemon;
use tests::harness::http::Metrics;

use crate::places::Suite;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let features = FEATURES.iter().map(|feature| {
        let suite = suite.clone();
        Trial::test(format!("features::{}", feature.name), move || {
            hold(suite.daemon()?, feature).map_err(Failed::from)
        })
    });
    let suite = suite.clone();
    let others = Trial::test("features::every_planned_probe_is_attached", move || {
        all_attached(&suite.daemon()?.metrics()?).map_err(Failed::from)
    });
    features.chain([others]).collect()
}

fn hold(daemon: &Daemon, feature: &Feature) -> Result<(), String> {
    let kernel = running().ok_or("the kernel does not tell its version")?;
    let (major, minor) = kernel;
    let metrics = daemon.metrics()?;
    let mode = ["trampoline", "tracepoint"]
        .into_iter()
        .find(|mode| metrics.sum("ringfence_attach_mode_info", &[("mode", mode)]) == Some(1.0))
        .ok_or("no attach mode is stated")?;
    let expected = feature.is_used(kernel, mode);
    let found = match feature.sign {
        Sign::Probe(probe) => metrics.sum("ringfence_probe_attached", &[("probe", probe)]) == Some(1.0),
        Sign::Log(key) => logged(daemon, key)?,
        Sign::ProgramInfo(key) => described(daemon, key)?,
    };
    match (expected, found) {
        (true, false) => Err(format!("missing on {major}.{minor}, {mode} mode: {feature}")),
        (false, true) => Err(format!("unexpected on {major}.{minor}, {mode} mode: {feature}")),
        _ => Ok(()),
    }
}

/// The value of a key in the daemon's line on what BTF says.
fn logged(daemon: &Daemon, key: &str) -> Result<bool, String> {
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("resolved from BTF"));
    let line = line.ok_or(format!("no line on what BTF says; the log:\n{log}"))?;
    match (line.contains(&format!("{key}=true")), line.contains(&format!("{key}=false"))) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        _ => Err(format!("no {key} in: {line}")),
    }
}

/// Whether the kernel's description of the daemon's programs has a key: of all or of none.
fn described(daemon: &Daemon, key: &str) -> Result<bool, String> {
    let all = FdInfo::all(daemon.pid()).map_err(|error| error.to_string())?;
    // Links describe their program, too, in fewer lines.
    let programs: Vec<&FdInfo> =
        all.iter().filter(|info| info.get("prog_id").is_some() && info.get("link_id").is_none()).collect();
    let with = programs.iter().filter(|info| info.get(key).is_some()).count();
    match with {
        _ if programs.is_empty() => Err("the daemon holds no program".to_owned()),
        0 => Ok(false),
        with if with == programs.len() => Ok(true),
        with => Err(format!("{with} of {} programs show {key}", programs.len())),
    }
}

/// What the daemon plans on a kernel must attach there: the machines of the suite refuse nothing that their attach
/// mode needs.
fn all_attached(metrics: &Metrics) -> Result<(), String> {
    let probes = metrics.lines("ringfence_probe_attached");
    let missing: Vec<&str> = probes.lines().filter(|line| !line.ends_with(" 1")).collect();
    if probes.is_empty() {
        return Err("no probe is planned".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}
