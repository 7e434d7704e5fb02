//! What the documentation promises: each command in it is run, or says why not; and the commands for people work for
//! people: on a terminal, as nobody, until the daemon ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::book;
use tests::harness::{self, Daemon, Settings};

use crate::cases::cases;
use crate::{docs_commands, docs_terminal};

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
            ("docs::commands", docs_commands::commands),
            (book::WATCHES, docs_commands::watching),
            (book::CAPABILITIES, docs_commands::capabilities),
            ("docs::watch", watch),
            ("docs::refusals", refusals),
            ("docs::support", support),
            ("docs::top", docs_terminal::top),
        ],
    )
}

pub(crate) fn text(error: impl ToString) -> String {
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

pub(crate) fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}

/// A command that watches.
pub(crate) struct Watching {
    what: String,
    child: Child,
    told: BufReader<ChildStderr>,
}

impl Watching {
    /// Starts it; it watches when this returns.
    pub(crate) fn start(what: &str, command: &mut Command) -> Result<Watching, String> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(text)?;
        let mut told = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        told.read_line(&mut line).map_err(text)?;
        if !line.contains("watching") {
            return Err(format!("`{what}` says: {line}"));
        }
        Ok(Watching { what: what.to_owned(), child, told })
    }

    /// What it was started as, and the lines that it printed, once the daemon has ended; without those on what was left out.
    pub(crate) fn end(mut self) -> Result<(String, String), String> {
        let output = self.child.wait_with_output().map_err(text)?;
        let mut rest = String::new();
        self.told.read_to_string(&mut rest).map_err(text)?;
        if output.status.code() != Some(2) || !rest.contains("the daemon is stopping") {
            return Err(format!("`{}` ended with {}: {rest}", self.what, output.status));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let lines = printed.lines().filter(|line| !line.contains("missed"));
        Ok((self.what, lines.map(|line| line.to_owned() + "\n").collect()))
    }
}

/// Events and alerts come as they happen, filtered; and the end is told.
fn watch(settings: &Settings) -> Result<(), String> {
    let daemon = daemon(settings)?;
    let start = |arguments: &[&str]| {
        Watching::start(&arguments.join(" "), &mut ringfence(settings, &daemon, arguments))
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
    let [events, alerts, people] = [events.end()?.1, alerts.end()?.1, people.end()?.1];
    let of = |lines: &str, key: &str, field: &str| -> Result<Vec<String>, String> {
        let line = |line: &str| {
            let json: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            Ok(json[key][field].as_str().unwrap_or_default().to_owned())
        };
        lines.lines().map(line).collect()
    };
    let types = of(&events, "output_fields", "evt.type")?;
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
pub(crate) fn unpacked(archive: &[u8]) -> Result<String, String> {
    let mut found = String::new();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in tar.entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        found.push_str(&entry.path().map_err(text)?.display().to_string());
        entry.read_to_string(&mut found).map_err(text)?;
    }
    Ok(found)
}

/// Ends a child, if it has not ended.
pub(crate) fn end(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    harness::wait(child)
}
