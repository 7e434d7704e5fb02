//! A quiet host stays quiet: what machines do every day raises no alert above `notice`.

use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::cgroup::{self, Cgroup};
use tests::docker::is_program;
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation};

use crate::places::Suite;

/// The priorities that a quiet host may show.
const QUIET: &[&str] = &["notice", "informational", "info", "debug"];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    if suite.settings().guest {
        return Vec::new();
    }
    type Case = fn(&Suite) -> Result<(), String>;
    let cases: [(&str, Case); 4] = [
        ("quiet::containers_start_and_stop", containers),
        ("quiet::docker_exec", docker_exec),
        ("quiet::apt_get_update", |_| apt()),
        ("quiet::system_programs", |_| system_programs()),
    ];
    cases
        .into_iter()
        .map(|(name, case)| {
            let suite = suite.clone();
            Trial::test(name, move || quiet(&suite, case).map_err(Failed::from))
        })
        .collect()
}

/// Does what a host does under the shipped rules and looks at every alert that comes of it.
fn quiet(suite: &Suite, case: fn(&Suite) -> Result<(), String>) -> Result<(), String> {
    let shipped = suite.settings().rules.display().to_string();
    let daemon = Daemon::start(suite.settings(), &["--rules", &shipped])?;
    case(suite)?;
    let id = cgroup::container_id("quiet marker");
    mark(suite, &id)?;
    // Inside containers every outcome alerts: the marker shows that the rules work, and that all have come.
    let marker = Expectation::new().is("container.id", &id[..12]).is("evt.type", "setns");
    daemon.expect(&marker)?;
    let ended = daemon.stop()?;
    ended.check()?;
    loud(ended.alerts.iter().filter(|alert| alert.get("container.id").as_deref() != Some(&id[..12])))
}

/// Holds alerts against what a quiet host may show.
///
/// # Errors
/// Those that are louder, one a line.
pub(crate) fn loud<'a>(alerts: impl Iterator<Item = &'a Alert>) -> Result<(), String> {
    let loud: Vec<String> = alerts
        .filter(|alert| {
            let priority = alert.get("priority").unwrap_or_default().to_lowercase();
            !QUIET.contains(&priority.as_str())
        })
        .map(|alert| alert.json.to_string())
        .collect();
    if loud.is_empty() { Ok(()) } else { Err(format!("alerts above notice:\n{}", loud.join("\n"))) }
}

/// An attempt from a cgroup that is named as a container's.
fn mark(suite: &Suite, id: &str) -> Result<(), String> {
    let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(|error| error.to_string())?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$1\" run setns-badfd --abi x86_64"])
        .arg(cgroup.path())
        .arg(&suite.settings().attempt)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("sh: {error}"))?;
    let status = tests::harness::wait(&mut child)?;
    if status.success() { Ok(()) } else { Err(format!("the marker's attempt: {status}")) }
}

fn containers(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    for _ in 0..5 {
        engine.run(&[], "true").map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn docker_exec(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let exec = || {
        let id = engine.create(&[], &["/bin/sleep", "600"])?;
        engine.client(&["start", &id])?;
        engine.client(&["exec", &id, "/bin/ls", "/"])?;
        engine.client(&["exec", "--user", "65534", &id, "/bin/true"])?;
        engine.client(&["rm", "--force", &id]).map(drop)
    };
    exec().map_err(|error: std::io::Error| error.to_string())
}

/// Runs a program to its end; what it answers is its own affair (there may be no network).
fn perform(program: &str, arguments: &[&str]) -> Result<(), String> {
    if !is_program(program) {
        return Err(format!("{program} is missing"));
    }
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.map(drop).map_err(|error| format!("{program}: {error}"))
}

fn apt() -> Result<(), String> {
    // The machine's own lists stay as they are.
    let lists = tempfile::tempdir().map_err(|error| error.to_string())?;
    let option = format!("Dir::State::lists={}", lists.path().display());
    let quick =
        ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5"];
    perform("/usr/bin/apt-get", &[&["update", "-o", &option][..], &quick[..]].concat())
}

fn system_programs() -> Result<(), String> {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let root = format!("--root={}", root.path().display());
    perform("/usr/bin/systemd-detect-virt", &[])?;
    perform("/usr/bin/systemd-tmpfiles", &["--create", &root])?;
    perform("/usr/bin/systemd-sysusers", &[&root])?;
    // -x never touches the clock, -Q only prints the offset, and nobody answers within -t's two seconds.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chrony = std::env::split_paths(&path).map(|dir| dir.join("chronyd")).find(|file| file.is_file());
    let chrony = chrony.ok_or("chronyd is missing: it is not in PATH")?;
    perform(&chrony.display().to_string(), &["-x", "-Q", "-t", "2", "server 127.0.0.1 iburst"])
}
