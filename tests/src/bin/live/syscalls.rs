//! The system calls that a container makes, as a seccomp profile: a fresh container works with it, and no longer if one
//! call is taken away.
//!
//! Docker runs on the machine itself; in guests the runtime alone does.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tests::docker::Ran;
use tests::features;
use tests::harness::{Daemon, MOST_TURNS};
use tests::oci::{self, Profile};
use tests::state::Config;

use crate::places::Suite;

/// What the container does. Its own standard error must be seen where it fails.
const SCRIPT: &str =
    "/bin/busybox mkdir /tmp/made 2>&1 && /bin/ls -l /tmp 2>&1 && /bin/busybox rmdir /tmp/made";

/// Docker's profile, and that of the guests' containers, refuses the flag.
const CLONE: &str = "exec /attempt run clone-user";

/// The call that the script cannot do without, by its names.
const NEEDED: [&str; 2] = ["mkdir", "mkdirat"];

/// Calls by which a runtime builds a container, and which no script of ours makes.
const BUILDERS: [&str; 6] = ["pivot_root", "setns", "unshare", "mount", "sethostname", "umount2"];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    // The programs are others on the oldest kernel (no typed loads) and on the newest (perf's tracepoint); on those between
    // they are the machine's own.
    let between = |version| ((5, 15)..(7, 0)).contains(&version);
    if suite.settings().guest && features::running().is_some_and(between) {
        return Vec::new();
    }
    let case = |name: &str, case: fn(&Suite) -> Result<(), String>| {
        let suite = suite.clone();
        Trial::test(name, move || case(&suite).map_err(Failed::from))
    };
    vec![case("syscalls::profiles", profiles), case("syscalls::off", off)]
}

/// Runs a script in a fresh container: with the profile, or with the runtime's own; `Value::Null` is none.
fn run(suite: &Suite, seccomp: Option<&Value>, script: &str) -> Result<Ran, String> {
    let settings = suite.settings();
    if settings.guest {
        let program = ["/bin/sh", "-c", script];
        let change = |config: &mut Value| match (seccomp, config["linux"].as_object_mut()) {
            (Some(Value::Null), Some(linux)) => drop(linux.remove("seccomp")),
            (Some(profile), Some(linux)) => drop(linux.insert("seccomp".to_owned(), profile.clone())),
            _ => {}
        };
        return oci::run_with(&settings.attempt, Profile::Default, &program, &change)
            .map_err(|error| error.to_string());
    }
    let engine = suite.engine()?;
    let script = format!("/bin/sh -c '{script}'");
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let option = match seccomp {
        None => return engine.run(&[], &script).map_err(|error| error.to_string()),
        Some(Value::Null) => "seccomp=unconfined".to_owned(),
        Some(profile) => {
            let path = dir.path().join("profile.json");
            fs::write(&path, profile.to_string()).map_err(|error| error.to_string())?;
            format!("seccomp={}", path.display())
        }
    };
    engine.run(&["--security-opt", &option], &script).map_err(|error| error.to_string())
}

fn start(suite: &Suite, extra: &str) -> Result<(Daemon, Config), String> {
    let docker = if suite.settings().guest {
        String::new()
    } else {
        format!("docker_roots: [{:?}]\n", suite.engine()?.state().display().to_string())
    };
    let config = Config::of_text(&format!("{docker}{extra}")).map_err(|e| e.to_string())?;
    let shipped = suite.settings().rules.display().to_string();
    let daemon = Daemon::start(suite.settings(), &["--rules", &shipped, "--config", &config.path()])?;
    Ok((daemon, config))
}

/// `caps ID --seccomp`: what it prints, or what it says instead.
fn ask(suite: &Suite, daemon: &Daemon, id: &str, options: &[&str]) -> Result<(String, String), String> {
    let mut command = Command::new(&suite.settings().ringfence);
    command.args(["caps", id, "--seccomp", "--socket"]).arg(daemon.control_socket()).args(options);
    let output = command.output().map_err(|error| format!("ringfence caps: {error}"))?;
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if output.status.success() { Ok((out, err)) } else { Err(format!("{}\n{err}", output.status)) }
}

fn names(profile: &Value) -> Vec<&str> {
    let entries = profile["syscalls"].as_array().into_iter().flatten();
    let allowed = entries.filter(|entry| entry["action"] == "SCMP_ACT_ALLOW");
    allowed.filter_map(|entry| entry["names"].as_array()).flatten().filter_map(Value::as_str).collect()
}

/// Of a container under the runtime's own filter, and of one under none.
fn profiles(suite: &Suite) -> Result<(), String> {
    let (daemon, _config) = start(suite, "syscall_sets: true\n")?;
    if !is_attached(&daemon)? {
        return Err("the probe that notes system calls is not there".to_owned());
    }
    profile(suite, &daemon, None)?;
    profile(suite, &daemon, Some(&Value::Null)).map_err(|fault| format!("without a filter: {fault}"))?;
    arguments(suite, &daemon, None, false)?;
    arguments(suite, &daemon, Some(&Value::Null), true)?;
    daemon.stop()?.check()
}

fn profile(suite: &Suite, daemon: &Daemon, watched: Option<&Value>) -> Result<(), String> {
    let (printed, notes) = advice(suite, daemon, watched, SCRIPT)?;
    if !notes.contains("rests on") {
        return Err(format!("the time it rests on is not told: {notes}"));
    }
    let profile: Value = serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))?;
    let allowed = names(&profile);
    if !NEEDED.iter().any(|call| allowed.contains(call)) {
        return Err(format!("the script's mkdir is not allowed: {printed}"));
    }
    // What the runtime did to build the container was before the filter, or in no container's name.
    if let Some(builder) = BUILDERS.iter().find(|call| allowed.contains(call)) {
        return Err(format!("{builder} is allowed, which only the runtime made: {printed}"));
    }
    let again = run(suite, Some(&profile), SCRIPT)
        .map_err(|error| format!("with the profile: {error}\n{printed}"))?;
    if !again.lines.iter().any(|line| line.contains("made")) {
        return Err(format!("with the profile the script printed {:?}", again.lines));
    }
    let mut less = profile.clone();
    for entry in less["syscalls"].as_array_mut().into_iter().flatten() {
        if let Some(names) = entry["names"].as_array_mut() {
            names.retain(|name| !NEEDED.iter().any(|call| name == call));
        }
    }
    if less == profile {
        return Err(format!("nothing was taken away: {printed}"));
    }
    match run(suite, Some(&less), SCRIPT) {
        Err(error) if error.contains("mkdir: can't create directory") => Ok(()),
        other => Err(format!("without mkdir the script did not fail by it: {other:?}")),
    }
}

/// Of a container that clones itself into a user namespace of its own: the profile lets that pass only if the filter
/// under which it was watched did.
fn arguments(suite: &Suite, daemon: &Daemon, watched: Option<&Value>, passed: bool) -> Result<(), String> {
    let (printed, _) = advice(suite, daemon, watched, CLONE)?;
    let profile: Value = serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))?;
    let again = run(suite, Some(&profile), CLONE)?;
    let line = again.lines.last().map(String::as_str).unwrap_or_default();
    let said: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
    let passes = said["ret"].as_i64().ok_or("no answer")? >= 0;
    if passes == passed {
        Ok(())
    } else {
        Err(format!("that the clone passed is {passed}, and then: {said}\n{printed}"))
    }
}

/// The profile for a container under this filter, and what is said about it.
fn advice(
    suite: &Suite,
    daemon: &Daemon,
    watched: Option<&Value>,
    script: &str,
) -> Result<(String, String), String> {
    let mut answer = Err("no container was watched".to_owned());
    for _ in 0..MOST_TURNS {
        let ran = run(suite, watched, script)?;
        match ask(suite, daemon, &ran.id, &[]) {
            Err(refusal) if refusal.contains("--min-observation") => {}
            other => return Err(format!("advice that rests on seconds: {other:?}")),
        }
        answer = ask(suite, daemon, &ran.id, &["--min-observation", "0s"]);
        // If the kernel skipped a probe, the advice is to make the container anew.
        let skipped = |refusal: &String| refusal.contains("could not be noted");
        if !answer.as_ref().is_err_and(skipped) || daemon.skipped()? == 0 {
            break;
        }
    }
    answer
}

/// Whether a probe sits where every call of the machine passes.
fn is_attached(daemon: &Daemon) -> Result<bool, String> {
    Ok(daemon.get("/metrics")?.1.contains("syscall_entered"))
}

/// Without the setting nothing of it is attached, and there is no profile.
fn off(suite: &Suite) -> Result<(), String> {
    let (daemon, _config) = start(suite, "")?;
    let ran = run(suite, None, SCRIPT)?;
    match ask(suite, &daemon, &ran.id, &["--min-observation", "0s"]) {
        Err(refusal) if refusal.contains("syscall_sets: true") => {}
        other => return Err(format!("a profile of what was not noted: {other:?}")),
    }
    if is_attached(&daemon)? {
        return Err("a probe that notes system calls is there".to_owned());
    }
    daemon.stop()?.check()
}
