//! `ringfence containers` against a live daemon, as a table and as JSON.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::Value;
use tests::cgroup;
use tests::docker::IMAGE;
use tests::harness::Daemon;
use tests::state::Config;

use crate::places::Suite;
use crate::whose::Waiting;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    // Guests have no engine.
    if suite.settings().guest {
        return Vec::new();
    }
    vec![suite.trial("listing::containers", containers)]
}

/// Asks the daemon by the program; gives what it prints.
fn ask(suite: &Suite, daemon: &Daemon, options: &[&str]) -> Result<String, String> {
    let mut command = Command::new(&suite.settings().ringfence);
    command.arg("containers").arg("--socket").arg(daemon.control_socket()).args(options);
    let output = command.output().map_err(|error| format!("ringfence containers: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ringfence containers: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn containers(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let text = |error: std::io::Error| error.to_string();
    // One was there before the daemon, one came after it.
    let early = Waiting::start(engine, &["--name", "listing-early"], "sleep 600")?;
    let config = Config::docker(&engine.state()).map_err(text)?;
    let shipped = suite.settings().rules.display().to_string();
    let daemon = Daemon::start(suite.settings(), &["--rules", &shipped, "--config", &config.path()])?;
    let late = Waiting::start(engine, &["--name", "listing-late", "--uts", "host"], "sleep 600")?;
    let all = [(&early, "listing-early", false), (&late, "listing-late", true)];
    let mut last = Ok(());
    // Names are read aside, so the first answer may lack one.
    for _ in 0..50 {
        last = judge(suite, &daemon, &all);
        if last.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    last?;
    // After its end it is known for a minute.
    let id = late.id.clone();
    drop(late);
    let listed = ask(suite, &daemon, &["-o", "json"])?;
    let phase = of(&listed, &id)?["phase"].clone();
    if phase != "ended" {
        return Err(format!("the phase of a removed container is {phase}"));
    }
    drop(early);
    daemon.stop()?.check()
}

/// Holds both answers against the containers: name, and whether it shares the host's uts namespace.
fn judge(suite: &Suite, daemon: &Daemon, all: &[(&Waiting, &str, bool)]) -> Result<(), String> {
    let table = ask(suite, daemon, &[])?;
    let title = table.lines().next().unwrap_or_default();
    for word in ["CONTAINER", "NAME", "IMAGE", "RUNTIME", "PHASE", "NAMESPACES", "CGROUP"] {
        if !title.split_whitespace().any(|title| title == word) {
            return Err(format!("no column {word}:\n{table}"));
        }
    }
    let listed = ask(suite, daemon, &["-o", "json"])?;
    for (waiting, name, shares) in all {
        let (path, number) = cgroup::of_process(&waiting.pid).map_err(|error| error.to_string())?;
        let line = table.lines().find(|line| line.starts_with(waiting.short_id()));
        let line = line.ok_or_else(|| format!("{name} is not in the table:\n{table}"))?;
        for word in [*name, IMAGE, "docker", "running", "host: user", &number.to_string()] {
            if !line.contains(word) {
                return Err(format!("the table does not say {word}: {line}"));
            }
        }
        let words: Vec<&str> = line.split([' ', ',']).collect();
        let (uts, mnt) = (words.contains(&"uts"), words.contains(&"mnt"));
        if uts != *shares || mnt {
            return Err(format!("the table says wrongly which namespaces are the host's: {line}"));
        }
        let json = of(&listed, &waiting.id)?;
        let pid_ns =
            std::fs::read_link(format!("/proc/{}/ns/pid", waiting.pid)).map_err(|error| error.to_string())?;
        let pid_ns = pid_ns.display().to_string();
        let wanted = [
            ("name", Value::from(*name)),
            ("image", IMAGE.into()),
            ("metadata", "complete".into()),
            ("runtime", "docker".into()),
            ("phase", "running".into()),
            ("cgroup_id", number.into()),
            ("cgroup_path", path.into()),
            ("chain", vec![waiting.id.clone()].into()),
        ];
        for (key, value) in wanted {
            if json[key] != value {
                return Err(format!("{key} of {name} is {} instead of {value}: {json}", json[key]));
            }
        }
        if format!("pid:[{}]", json["namespaces"]["pid"]) != pid_ns {
            return Err(format!("the pid namespace of {name} is not {pid_ns}: {json}"));
        }
    }
    Ok(())
}

/// What the answer in JSON says of one container.
fn of(listed: &str, id: &str) -> Result<Value, String> {
    let all: Vec<Value> = serde_json::from_str(listed).map_err(|error| format!("{error}: {listed}"))?;
    all.into_iter().find(|one| one["id"] == id).ok_or_else(|| format!("{id} is not listed: {listed}"))
}
