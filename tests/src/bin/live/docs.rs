//! What the documentation promises: each command in it is run, or says why not; and the commands for people work for
//! people: on a terminal, as nobody, until the daemon ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::book;
use tests::harness::{self, Daemon, Settings};

use crate::cases::cases;

/// Somebody without rights.
const NOBODY: u32 = 65_534;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // No matter of the kernel, and guests have neither documents nor bash.
        return Vec::new();
    }
    cases(
        settings,
        &[
            ("docs::commands", commands),
            ("docs::watch", watch),
            ("docs::refusals", refusals),
            ("docs::support", support),
            ("docs::top", crate::docs_terminal::top),
        ],
    )
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// A daemon with the shipped rules.
pub(crate) fn daemon(settings: &Settings) -> Result<Daemon, String> {
    Daemon::start(settings, &["--rules", &settings.rules.display().to_string()])
}

/// `ringfence` with these arguments, asking this daemon: by the environment, as every setting may be given.
pub(crate) fn ringfence(settings: &Settings, daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(&settings.ringfence);
    command.args(arguments).env("RINGFENCE_CONTROL_SOCKET", daemon.control_socket());
    command.env("RINGFENCE_LISTEN", daemon.address()).stdin(Stdio::null());
    command
}

/// One harmless attempt of each kind, in a cgroup like a container's.
pub(crate) fn demo(settings: &Settings) -> Result<(), String> {
    let output = Command::new(&settings.attempt).arg("demo").output().map_err(text)?;
    if output.status.success() { Ok(()) } else { Err(said(&output)) }
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}

/// Every block of commands is run in a scratch directory against a daemon, or is marked with why not.
fn commands(settings: &Settings) -> Result<(), String> {
    let root = settings.rules.parent().ok_or("the rules lie in no directory")?;
    let documents = book::documents(root)?;
    let blocks = documents.values().flat_map(|document| &document.blocks);
    let (mut run, mut faults) = (0, Vec::new());
    let daemon = daemon(settings)?;
    let scratch = tempfile::tempdir().map_err(text)?;
    let bin = scratch.path().join("bin");
    std::fs::create_dir(&bin).map_err(text)?;
    std::os::unix::fs::symlink(&settings.ringfence, bin.join("ringfence")).map_err(text)?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    for block in blocks.filter(|block| block.not_run.is_none()) {
        run += 1;
        if let Some(program) = block.harmful() {
            faults.push(format!("{}: `{program}` is not run here, and no reason is given", block.place));
            continue;
        }
        let dir = scratch.path().join(run.to_string());
        std::fs::create_dir(&dir).map_err(text)?;
        // Commands end with 1 where they found something wrong, which they may.
        let script = format!("set -uE\ntrap '[ $? -le 1 ] || exit 99' ERR\n{}true\n", block.commands);
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(&dir).env("PATH", &path).stdin(Stdio::null());
        bash.env("RINGFENCE_CONTROL_SOCKET", daemon.control_socket())
            .env("RINGFENCE_LISTEN", daemon.address());
        bash.env("RINGFENCE_RULES", format!("[{:?}]", settings.rules.display().to_string()));
        match bash.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => faults.push(format!("{}: {}\n{}", block.place, said(&output), block.commands)),
            Err(error) => faults.push(format!("{}: bash: {error}", block.place)),
        }
    }
    if run < 4 {
        faults.push(format!("only {run} blocks were run"));
    }
    daemon.stop()?.check()?;
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Events and alerts come as they happen, filtered; and the end is told.
fn watch(settings: &Settings) -> Result<(), String> {
    let daemon = daemon(settings)?;
    let start = |arguments: &[&str]| -> Result<_, String> {
        let mut command = ringfence(settings, &daemon, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(text)?;
        let mut told = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        told.read_line(&mut line).map_err(text)?;
        if !line.contains("watching") {
            return Err(format!("{arguments:?}: {line}"));
        }
        Ok((child, told))
    };
    let events = start(&["watch", "--events", "evt.type = setns and container.id != host", "-o", "json"])?;
    let alerts = start(&["watch", "evt.category = namespace", "-o", "json"])?;
    let people = start(&["watch", "--events", "--no-color"])?;
    let wrong = ringfence(settings, &daemon, &["watch", "evt.typ = setns"]).output().map_err(text)?;
    if wrong.status.code() != Some(2) || !said(&wrong).contains("did you mean `evt.type`") {
        return Err(format!("a wrong filter: {}", said(&wrong)));
    }
    demo(settings)?;
    daemon.stop()?.check()?;
    let mut outputs = Vec::new();
    for (name, (child, mut told)) in [("events", events), ("alerts", alerts), ("people", people)] {
        let output = child.wait_with_output().map_err(text)?;
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut told, &mut rest).map_err(text)?;
        if output.status.code() != Some(2) || !rest.contains("the daemon is stopping") {
            return Err(format!("watching {name} ended with {}: {rest}", output.status));
        }
        outputs.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let [events, alerts, people] = &outputs[..] else { return Err("three were started".to_owned()) };
    let of = |lines: &str, key: &str, field: &str| -> Result<Vec<String>, String> {
        let line = |line: &str| {
            let json: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            Ok(json[key][field].as_str().unwrap_or_default().to_owned())
        };
        lines.lines().map(line).collect()
    };
    let types = of(events, "output_fields", "evt.type")?;
    if types.is_empty() || types.iter().any(|ty| ty != "setns") {
        return Err(format!("events of setns alone were wanted: {types:?}\n{events}"));
    }
    // What it tells of itself comes past the condition.
    let of_events = |line: &&str| !line.contains("\"source\":\"internal\"");
    let alerts: String = alerts.lines().filter(of_events).map(|line| line.to_owned() + "\n").collect();
    let types = of(&alerts, "output_fields", "evt.type")?;
    let is_namespace =
        |ty: &String| ["setns", "unshare", "clone", "clone3", "entered"].contains(&ty.as_str());
    if types.is_empty() || !types.iter().all(is_namespace) {
        return Err(format!("alerts about namespaces alone were wanted: {types:?}"));
    }
    for part in ["refused by", "iopl", "unshare"] {
        if !people.lines().any(|line| line.contains(part)) {
            return Err(format!("{part} is in no line for people:\n{people}"));
        }
    }
    Ok(())
}

/// Who may not is told so, and what to do.
fn refusals(settings: &Settings) -> Result<(), String> {
    let daemon = daemon(settings)?;
    // Where nobody can reach it.
    let dir = tempfile::tempdir().map_err(text)?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(text)?;
    let program = dir.path().join("ringfence");
    std::fs::copy(&settings.ringfence, &program).map_err(text)?;
    let socket = daemon.control_socket();
    let home = socket.parent().unwrap_or(Path::new("/"));
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).map_err(text)?;
    let rules = settings.rules.display().to_string();
    for (arguments, parts) in [
        (
            &["status"][..],
            &["not allowed to ask the daemon", "as root, or as a member of the socket's group"][..],
        ),
        (&["containers"], &["not allowed", "as root"]),
        (&["caps"], &["not allowed", "as root"]),
        (&["watch"], &["not allowed", "as root"]),
        (&["top", "--once"], &["not allowed", "as root"]),
        (&["run", "--rules", &rules, "--listen", "off"], &["root", "CAP_BPF"]),
    ] {
        let command = ringfence(settings, &daemon, &[]);
        let mut nobody = Command::new(&program);
        nobody.args(arguments).envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        nobody.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
        let output = nobody.output().map_err(text)?;
        let said = said(&output);
        if output.status.code() != Some(2) || parts.iter().any(|part| !said.contains(part)) {
            return Err(format!("nobody's {arguments:?} must end with 2 and say {parts:?}: {said}"));
        }
    }
    daemon.stop()?.check()
}

/// A bundle of a real daemon: whole, and without what was planted; in a file, and as a stream.
fn support(settings: &Settings) -> Result<(), String> {
    const PLANTED: [&str; 4] = ["hdr-secret-1111", "url-secret-2222", "env-secret-3333", "cmd-secret-4444"];
    let dir = tempfile::tempdir().map_err(text)?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (config, alerts, log, archive) = (at("c.yaml"), at("alerts.jsonl"), at("log"), at("s.tar.gz"));
    let lines =
        format!("rules: [{}]\noutputs:\n- {{type: file, path: {alerts}}}\n", settings.rules.display());
    std::fs::write(&config, lines).map_err(text)?;
    let daemon = Daemon::start(settings, &["--config", &config])?;
    // A command line with a secret, in alerts.
    let secret_dir = dir.path().join(PLANTED[3]);
    std::fs::create_dir(&secret_dir).map_err(text)?;
    let program = secret_dir.join("attempt");
    std::fs::copy(&settings.attempt, &program).map_err(text)?;
    let output = Command::new(&program).arg("demo").output().map_err(text)?;
    if !output.status.success() {
        return Err(said(&output));
    }
    let end = Instant::now() + Duration::from_secs(20);
    let alerts = loop {
        let lines = std::fs::read_to_string(&alerts).unwrap_or_default();
        if lines.contains(PLANTED[3]) {
            break lines;
        }
        if Instant::now() > end {
            return Err(format!("no alert has the command line:\n{lines}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // The log and the alerts in one file, as a unit without outputs has them; and what a peer might have said.
    let repeated = format!("2026-11-27T04:05:07.123456Z  WARN it said: {}\n", PLANTED[..3].join(" and "));
    std::fs::write(&log, daemon.log() + "\n" + &repeated + &alerts).map_err(text)?;
    // The settings of the command, not of the daemon.
    let outputs = format!(
        "[{{type: file, path: /x.jsonl, name: a}}, {{type: webhook, url: \"https://h.example/{}\", headers: {{X-Key: \
         \"Bearer {}\"}}, token_env: RINGFENCE_PLANTED}}]",
        PLANTED[1], PLANTED[0]
    );
    let bundle = |place: &str, log: &str, input: Stdio| -> Result<Output, String> {
        let arguments = ["support", "--config", &config, "-o", place, "--log", log];
        let mut command = ringfence(settings, &daemon, &arguments);
        command.env("RINGFENCE_OUTPUTS", &outputs).env("RINGFENCE_PLANTED", PLANTED[2]).stdin(input);
        let output = command.output().map_err(text)?;
        if output.status.success() { Ok(output) } else { Err(format!("support: {}", said(&output))) }
    };
    bundle(&archive, &log, Stdio::null())?;
    if std::fs::metadata(&archive).map_err(text)?.permissions().mode() & 0o777 != 0o600 {
        return Err("others may read the bundle".to_owned());
    }
    let stream = bundle("-", "-", std::fs::File::open(&log).map_err(text)?.into())?;
    if !String::from_utf8_lossy(&stream.stderr).contains("metrics.txt") {
        return Err(format!("no list beside the stream: {}", String::from_utf8_lossy(&stream.stderr)));
    }
    for (name, bytes) in [("a file", std::fs::read(&archive).map_err(text)?), ("a stream", stream.stdout)] {
        let found = unpacked(&bytes).map_err(|error| format!("{name}: {error}"))?;
        for part in [
            "ringfence_events_seen_total",
            "\"probes_attached\"",
            "ring_bytes: ",
            "kernel: ",
            "ready",
            "contents.txt",
            "it said: (secret removed)",
        ] {
            if !found.contains(part) {
                return Err(format!("{part} is not in the bundle, {name}:\n{found}"));
            }
        }
        if let Some(secret) = PLANTED.iter().find(|secret| found.contains(**secret)) {
            return Err(format!("{secret} is in the bundle, {name}"));
        }
    }
    daemon.stop()?.check()
}

/// The names and texts of an archive.
fn unpacked(archive: &[u8]) -> Result<String, String> {
    let mut found = String::new();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in tar.entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        found.push_str(&entry.path().map_err(text)?.display().to_string());
        std::io::Read::read_to_string(&mut entry, &mut found).map_err(text)?;
    }
    Ok(found)
}

/// Ends a child, if it has not ended.
pub(crate) fn end(child: &mut std::process::Child) -> Result<std::process::ExitStatus, String> {
    harness::wait(child)
}
