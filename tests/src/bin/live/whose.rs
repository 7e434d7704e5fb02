//! Ways into namespaces, from whose into whose: each has an answer of its own.

use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::Trial;
use tempfile::TempDir;
use tests::attempt::mark;
use tests::docker::Engine;
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation, Must};

use crate::places::Suite;

/// The suite's own rule.
const RULE: &str = include_str!("../../../rules/whose.yaml");

/// What a container needs to get at the namespaces of others. `--privileged` would be more than this machine may have
/// itself.
pub(crate) const STRONG: &[&str] = &[
    "--cap-add=SYS_ADMIN",
    "--cap-add=SYS_PTRACE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--pid=host",
];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    // Guests have no engine.
    if suite.settings().guest {
        return Vec::new();
    }
    vec![
        suite.trial("whose::ways_have_answers_of_their_own", ways),
        suite.trial("whose::entries_are_told_from_main", entries),
    ]
}

/// The daemon under the suite's own rule and the shipped ones.
pub(crate) fn start(suite: &Suite) -> Result<(Daemon, TempDir), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::write(dir.path().join("whose.yaml"), RULE).map_err(|error| error.to_string())?;
    let [own, shipped] = [dir.path(), &suite.settings().rules].map(|path| path.display().to_string());
    Ok((Daemon::start(suite.settings(), &["--rules", &own, "--rules", &shipped])?, dir))
}

/// A container that waits, and the process id of its first program.
pub(crate) struct Waiting<'e> {
    engine: &'e Engine,
    pub(crate) id: String,
    pub(crate) pid: String,
}

impl<'e> Waiting<'e> {
    /// One that runs this shell command.
    pub(crate) fn start(engine: &'e Engine, options: &[&str], script: &str) -> Result<Waiting<'e>, String> {
        let start = || {
            let id = engine.create(options, &["/bin/sh", "-c", script])?;
            engine.client(&["start", &id])?;
            let pid = engine.client(&["inspect", "--format", "{{.State.Pid}}", &id])?;
            Ok(Waiting { engine, id, pid })
        };
        start().map_err(|error: std::io::Error| error.to_string())
    }

    /// The id as alerts show it.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The engine is cleared away whole at its end.
        let _ = self.engine.client(&["rm", "--force", &self.id]);
    }
}

/// What a way must be answered by.
struct Answer {
    way: &'static str,
    /// What tells its events from all others.
    by: Expectation,
    kind: &'static str,
    direction: &'static str,
    from: String,
    to: String,
    rule: &'static str,
    priority: &'static str,
}

fn ways(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let (daemon, _rules) = start(suite)?;
    let target = Waiting::start(engine, &[], "sleep 600")?;
    let answers = make(engine, &target)?;
    let mut faults = Vec::new();
    let mut told: Vec<(&str, [Option<String>; 5])> = Vec::new();
    for answer in &answers {
        match judge(&daemon, answer) {
            Ok(alert) => {
                let all = ["ns.direction", "ns.from", "ns.to", "evt.type", "rule"].map(|key| alert.get(key));
                told.push((answer.way, all));
            }
            Err(fault) => faults.push(format!("{}: {fault}", answer.way)),
        }
    }
    for (at, (way, answer)) in told.iter().enumerate() {
        if let Some((other, _)) = told[..at].iter().find(|(_, other)| other == answer) {
            faults.push(format!("{way} and {other} have one answer: {answer:?}"));
        }
    }
    drop(target);
    daemon.stop()?.check()?;
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Goes each way.
fn make(engine: &Engine, target: &Waiting) -> Result<Vec<Answer>, String> {
    let text = |error: std::io::Error| error.to_string();
    let named = |name: &str, container: &str| {
        Expectation::new().is("proc.name", name).is("container.id", container).is("evt.verdict", "allowed")
    };
    // Not process 1: it may have more rights than we can give a container, and be closed to it.
    let out = format!("nsenter -t {} -m -u -i -n true", std::process::id());
    let to_host = engine.run(STRONG, &out).map_err(text)?;
    let other = format!("nsenter -t {} -m -u -i -n /bin/true", target.pid);
    let to_other = engine.run(STRONG, &other).map_err(text)?;
    let user = engine.run(&["--security-opt", "seccomp=unconfined"], "unshare -U -r true").map_err(text)?;
    engine.client(&["exec", &target.id, "/bin/ls", "/"]).map_err(text)?;
    let from_host = perform("nsenter", &["-t", &target.pid, "-m", "-u", "-i", "-n", "/bin/true"])?;
    let user_on_host = perform("unshare", &["-U", "-r", "true"])?;
    let [to_host, to_other, user] = [to_host, to_other, user].map(|ran| ran.id[..12].to_owned());
    let target = target.short_id();
    Ok(vec![
        Answer {
            way: "nsenter into the host from a container",
            by: named("nsenter", &to_host),
            kind: "setns",
            direction: "container_to_host",
            from: to_host,
            to: "host".to_owned(),
            rule: "Host namespace entered from container",
            priority: "Critical",
        },
        Answer {
            way: "nsenter into another container",
            by: named("nsenter", &to_other),
            kind: "setns",
            direction: "container_to_container",
            from: to_other,
            to: target.to_owned(),
            rule: "Another container's namespace entered from container",
            priority: "Error",
        },
        Answer {
            way: "nsenter from the host into a container",
            by: named("nsenter", "host").is("proc.vpid", from_host),
            kind: "setns",
            direction: "host_to_container",
            from: "host".to_owned(),
            to: target.to_owned(),
            rule: "Container's namespace entered from host",
            priority: "Informational",
        },
        Answer {
            way: "unshare -Ur in a container",
            by: named("unshare", &user),
            kind: "unshare",
            direction: "new",
            from: user.clone(),
            to: user,
            rule: "User namespace created in container",
            priority: "Error",
        },
        Answer {
            way: "unshare -Ur on the host",
            by: named("unshare", "host").is("proc.vpid", user_on_host),
            kind: "unshare",
            direction: "new",
            from: "host".to_owned(),
            to: "host".to_owned(),
            rule: "User namespace created on host",
            priority: "Notice",
        },
        Answer {
            way: "docker exec",
            by: named("ls", target),
            kind: "entered",
            direction: "host_to_container",
            from: "host".to_owned(),
            to: target.to_owned(),
            rule: "Container entered from outside",
            priority: "Notice",
        },
    ])
}

/// Runs a program of the host to its end; gives its process id.
fn perform(program: &str, arguments: &[&str]) -> Result<u32, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let pid = child.id();
    let status = tests::harness::wait(&mut child)?;
    if status.success() { Ok(pid) } else { Err(format!("{program} {}: {status}", arguments.join(" "))) }
}

/// Waits for the alerts of a way: the suite's own, which has the fields, and the shipped rule's, which comes back.
fn judge(daemon: &Daemon, answer: &Answer) -> Result<Alert, String> {
    let own = answer.by.clone().is("rule", "Suite whose").is("evt.type", answer.kind);
    let own = own.is("ns.direction", answer.direction).is("ns.from", &answer.from).is("ns.to", &answer.to);
    let mut alert = daemon.expect(&own)?;
    let pid = alert.get("proc.pid").ok_or("no proc.pid")?;
    let shipped = Expectation::new().is("proc.pid", &pid).is("evt.type", answer.kind);
    let shipped = shipped.is("rule", answer.rule).is("priority", answer.priority);
    daemon.expect(&shipped)?;
    // None of its calls has another answer.
    let others =
        Expectation::new().is("rule", "Suite whose").is("evt.type", answer.kind).is("proc.pid", &pid);
    let others = others
        .is("evt.verdict", "allowed")
        .must("proc.name", Must::Be(alert.get("proc.name").unwrap_or_default()));
    let stray: Vec<Alert> =
        daemon.inbox().fitting(&others).into_iter().filter(|alert| !own.fits(alert)).collect();
    if let Some(stray) = stray.first() {
        return Err(format!("another answer, too: {}", stray.json));
    }
    alert.json["rule"] = answer.rule.into();
    Ok(alert)
}

/// What a container's own program does is told from what was started in it from outside.
fn entries(suite: &Suite) -> Result<(), String> {
    let engine = suite.engine()?;
    let (daemon, _rules) = start(suite)?;
    let (main, exec) = (mark::FIRST, mark::FIRST + 1);
    let script = format!("read go; /attempt mark {main}; sleep 600");
    // Its standard input is open and nobody writes: it waits until its name pipe does.
    let script = script.replace("read go", "mkfifo /go; read go < /go");
    let waiting = Waiting::start(engine, &[], &script)?;
    let text = |error: std::io::Error| error.to_string();
    engine.client(&["exec", &waiting.id, "/attempt", "mark", &exec.to_string()]).map_err(text)?;
    let go = "until [ -p /go ]; do sleep 0.1; done; echo > /go";
    engine.client(&["exec", &waiting.id, "/bin/sh", "-c", go]).map_err(text)?;
    for (number, entry) in [(main, "main"), (exec, "exec")] {
        let mark = Expectation::new().is("rule", "Suite whose").is("evt.args", mark::arguments(number));
        daemon.expect(&mark.is("container.id", waiting.short_id()).is("proc.entry", entry))?;
    }
    // Two entries, and not one more for the container's own first program.
    let entered = Expectation::new().is("rule", "Suite whose").is("evt.type", "entered");
    let count = daemon.inbox().count(&entered.is("container.id", waiting.short_id()));
    drop(waiting);
    daemon.stop()?.check()?;
    if count == 2 { Ok(()) } else { Err(format!("{count} entries instead of two")) }
}
