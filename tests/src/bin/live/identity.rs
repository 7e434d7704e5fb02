//! A cgroup is known by the right id, whichever hierarchy Ringfence goes by, and by none where there is none.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::Trial;
use tests::cgroup::{self, Cgroup, Hierarchy};
use tests::harness::alerts::{Expectation, Must};
use tests::harness::{Daemon, Settings};

use crate::places::{Suite, suite_rules};

pub(crate) fn trials(suite: &Arc<Suite>) -> io::Result<Vec<Trial>> {
    let mut trials = vec![suite.trial("identity::auto", auto)];
    for hierarchy in cgroup::hierarchies()? {
        let name = format!("identity::by_{}", hierarchy.name);
        trials.push(suite.trial(name, move |suite| by(suite.settings(), &hierarchy)));
    }
    trials.push(suite.trial("identity::no_hierarchy", |suite| no_hierarchy(suite.settings())));
    Ok(trials)
}

/// Told to go by a hierarchy, the daemon knows directories of it, and nothing of any other.
fn by(settings: &Settings, hierarchy: &Hierarchy) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let rules = suite_rules()?;
    let rules = rules.path().display().to_string();
    let daemon = Daemon::start(settings, &["--rules", &rules, "--cgroup-hierarchy", hierarchy.name])?;
    has_hierarchy(&daemon, hierarchy.name)?;
    let others: Vec<Hierarchy> =
        cgroup::hierarchies().map_err(text)?.into_iter().filter(|other| other != hierarchy).collect();
    let elsewhere = others.iter().map(|other| other.of_process("self").map(|(_, id)| id));
    let elsewhere = elsewhere.collect::<io::Result<Vec<u64>>>().map_err(text)?;

    // Each hierarchy counts its own directories: one whose number we have elsewhere would prove nothing.
    let id = cgroup::container_id(&format!("by {}", hierarchy.name));
    let mut taken = Vec::new();
    let cgroup = loop {
        let cgroup = Cgroup::make_in(hierarchy, &format!("docker/{id}/{}", taken.len())).map_err(text)?;
        if !elsewhere.contains(&cgroup.id().map_err(text)?) {
            break cgroup;
        }
        taken.push(cgroup);
    };
    let directory = cgroup.id().map_err(text)?;
    let pid = attempt_in(settings, &cgroup)?;
    let event = Expectation::new()
        .is("rule", "Suite setns")
        .is("proc.vpid", pid)
        .is("cgroup.id", directory)
        .is("cgroup.path", format!("/docker/{id}/{}", taken.len()))
        .is("container.full_id", &id);
    daemon.expect(&event)?;

    // A container's name in another hierarchy makes no container here.
    let (_, own) = hierarchy.of_process("self").map_err(text)?;
    if let Some(other) = others.last() {
        let id = cgroup::container_id(&format!("not by {}", hierarchy.name));
        let cgroup = Cgroup::make_in(other, &format!("docker/{id}")).map_err(text)?;
        let pid = attempt_in(settings, &cgroup)?;
        let event = Expectation::new()
            .is("rule", "Suite setns")
            .is("proc.vpid", pid)
            .is("cgroup.id", own)
            .is("container.id", "host");
        daemon.expect(&event)?;
    }
    daemon.stop()?.check()
}

/// Makes one attempt by a process in the cgroup and gives its process id.
fn attempt_in(settings: &Settings, cgroup: &Cgroup) -> Result<i64, String> {
    let mut command = Command::new(&settings.attempt);
    cgroup.contain(command.args(["run", "setns-badfd", "--abi", "x86_64"]));
    pid_of_attempt(&mut command)
}

fn pid_of_attempt(command: &mut Command) -> Result<i64, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    json["pid"].as_i64().ok_or(format!("no `pid`: {text}"))
}

fn has_hierarchy(daemon: &Daemon, name: &str) -> Result<(), String> {
    let metrics = daemon.metrics()?;
    match metrics.sum("ringfence_cgroup_hierarchy_info", &[("hierarchy", name)]) {
        Some(1.0) => Ok(()),
        _ => Err(format!("{name} is not in force\n{}", metrics.lines("ringfence_cgroup"))),
    }
}

/// Not told, the daemon goes by the managers' hierarchy, and `doctor` says so.
fn auto(suite: &Suite) -> Result<(), String> {
    let expected = cgroup::hierarchy().map_err(|error| error.to_string())?;
    has_hierarchy(suite.daemon()?, expected.name)?;
    let doctor = Command::new(&suite.settings().ringfence).args(["doctor", "--no-color"]).output();
    let doctor = doctor.map_err(|error| format!("ringfence doctor: {error}"))?;
    let shown = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let name =
        if expected.name == "v2" { "version 2".to_owned() } else { format!("controller {}", expected.name) };
    let mount = expected.mount.display().to_string();
    if shown.lines().any(|line| line.contains("cgroups") && line.contains(&name) && line.contains(&mount)) {
        return Ok(());
    }
    Err(format!("`ringfence doctor` does not name {name} on {mount}:\n{shown}"))
}

/// Where nothing is mounted, events have no cgroup and no container, not even a wrong one; the daemon says so. What
/// needs no directory works, as the witness of opened devices does.
fn no_hierarchy(settings: &Settings) -> Result<(), String> {
    let rules = suite_rules()?;
    let mut command = settings.command();
    // SAFETY: between fork and exec the child makes a few system calls with constant arguments.
    unsafe { command.pre_exec(unmount_cgroups) };
    let daemon = Daemon::start_by(command, settings, &["--rules", &rules.path().display().to_string()])?;
    has_hierarchy(&daemon, "none")?;
    let metrics = daemon.metrics()?;
    if metrics.sum("ringfence_probe_attached", &[("probe", "device_asked")]) != Some(1.0) {
        return Err(format!("the witness of devices is missing\n{}", metrics.lines("ringfence_probe")));
    }
    let (status, ready) = daemon.get("/readyz")?;
    if !ready.contains("no cgroup hierarchy") {
        return Err(format!("/readyz does not tell: {status} {ready}"));
    }
    let mut command = Command::new(&settings.attempt);
    let pid = pid_of_attempt(command.args(["run", "setns-badfd", "--abi", "x86_64"]))?;
    let event = Expectation::new()
        .is("rule", "Suite setns")
        .is("proc.vpid", pid)
        .is("container.id", "unknown")
        .must("cgroup.id", Must::BeAbsent)
        .must("cgroup.path", Must::BeAbsent);
    daemon.expect(&event)?;
    let ended = daemon.stop()?;
    ended.check()?;
    if ended.log.contains("no cgroup hierarchy is mounted") {
        return Ok(());
    }
    Err(format!("the log does not tell that no hierarchy is mounted:\n{}", ended.log))
}

/// Gives this process a mount table of its own, without cgroups.
fn unmount_cgroups() -> io::Result<()> {
    let check = |ret: i32| if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: strings that end in NUL, and no other pointers.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()))?;
        check(libc::umount2(c"/sys/fs/cgroup".as_ptr(), libc::MNT_DETACH))
    }
}
