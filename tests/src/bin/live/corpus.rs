//! A quiet host stays quiet: what machines do every day raises no alert above `notice`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::cgroup;
use tests::docker::is_program;
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation};

use crate::benign::{self, Part};
use crate::places::Suite;
use crate::probing::knock;

/// The priorities that a quiet host may show.
const QUIET: &[&str] = &["notice", "informational", "info", "debug"];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    if suite.settings().guest {
        return Vec::new();
    }
    let cases: [(&str, &str, Case); 6] = [
        ("quiet::containers_start_and_stop", "containers that start, run one program and end", containers),
        (
            "quiet::docker_exec",
            "`docker exec` into a running container, as root and as another user",
            docker_exec,
        ),
        (
            "quiet::programs_in_a_container",
            "su, apt-get, chronyd -x, setpriv, a program that becomes nobody and root again, ls and ps in a plain container",
            programs_in_a_container,
        ),
        ("quiet::apt_get_update", "`apt-get update` on the host", |_| apt().map(|()| 0)),
        (
            "quiet::system_programs",
            "systemd-detect-virt, systemd-tmpfiles and systemd-sysusers on the host",
            |_| system_programs().map(|()| 0),
        ),
        ("quiet::chronyd", "chronyd asking for the time without setting it", |_| chronyd().map(|()| 0)),
    ];
    cases
        .into_iter()
        .map(|(name, what, case)| {
            let suite = suite.clone();
            Trial::test(name, move || quiet(&suite, what, case).map_err(Failed::from))
        })
        .collect()
}

/// Does what a host does; gives the number of containers that it made.
type Case = fn(&Suite) -> Result<u64, String>;

/// Does what a host does under the shipped rules and looks at every alert that comes of it.
fn quiet(suite: &Suite, what: &'static str, case: Case) -> Result<(), String> {
    let shipped = suite.settings().rules.display().to_string();
    let daemon = Daemon::start(suite.settings(), &["--rules", &shipped])?;
    let containers = case(suite)?;
    let id = cgroup::container_id("quiet marker");
    knock(suite.settings(), &id, &["setns-badfd"])?;
    // Inside containers every outcome alerts: the marker shows that the rules work, and that all have come.
    let marker = Expectation::new().is("container.id", &id[..12]).is("evt.type", "setns");
    daemon.expect(&marker)?;
    let metrics = daemon.metrics()?;
    let ended = daemon.stop()?;
    ended.check()?;
    let came: Vec<&Alert> =
        ended.everything().filter(|alert| alert.get("container.id").as_deref() != Some(&id[..12])).collect();
    let engine = if containers > 0 { Some(suite.engine()?) } else { None };
    benign::record(suite.settings(), &Part { what, containers, engine }, &metrics, &came)?;
    loud(came.into_iter())
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

fn containers(suite: &Suite) -> Result<u64, String> {
    let engine = suite.engine()?;
    for _ in 0..5 {
        engine.run(&[], "true").map_err(|error| error.to_string())?;
    }
    Ok(5)
}

fn docker_exec(suite: &Suite) -> Result<u64, String> {
    let engine = suite.engine()?;
    let exec = || {
        let id = engine.create(&[], &["/bin/sleep", "600"])?;
        engine.client(&["start", &id])?;
        engine.client(&["exec", &id, "/bin/ls", "/"])?;
        engine.client(&["exec", "--user", "65534", &id, "/bin/true"])?;
        engine.client(&["rm", "--force", &id]).map(drop)
    };
    exec().map(|()| 1).map_err(|error: std::io::Error| error.to_string())
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
    perform("/usr/bin/systemd-sysusers", &[&root])
}

/// The programs of the host, in a container with Docker's default rights. What they answer is their own affair.
fn programs_in_a_container(suite: &Suite) -> Result<u64, String> {
    let chrony = find_chronyd()?;
    let usr = chrony.parent().and_then(Path::parent).ok_or("chronyd lies in no directory")?;
    let of_chrony = format!("{}:/chrony:ro", usr.display());
    let mut options = vec!["-v", &of_chrony, "-e", "LD_LIBRARY_PATH=/chrony/lib/x86_64-linux-gnu"];
    for mount in ["/usr:/usr:ro", "/etc:/etc:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro"] {
        options.extend(["-v", mount]);
    }
    let script = "/bin/sh -c 'exec 2>/dev/null; /bin/busybox mkdir -p /var/lib/dpkg /tmp/lists/partial; \
        /usr/bin/su nobody -s /bin/sh -c true; \
        /usr/bin/apt-get update -o Dir::State::lists=/tmp/lists -o Acquire::Retries=0 >/dev/null; \
        /chrony/sbin/chronyd -x -Q -t 1 \"server 127.0.0.1 iburst\" >/dev/null; \
        /usr/bin/setpriv --reuid 33 --regid 33 --clear-groups /bin/true; \
        ls -la / /root >/dev/null; /bin/busybox ps >/dev/null; exec /attempt gain seteuid'";
    suite.engine()?.run(&options, script).map_err(|error| error.to_string())?;
    Ok(1)
}

fn find_chronyd() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chrony = std::env::split_paths(&path).map(|dir| dir.join("chronyd")).find(|file| file.is_file());
    chrony.ok_or_else(|| "chronyd is missing: it is not in PATH".to_owned())
}

fn chronyd() -> Result<(), String> {
    // -x never touches the clock, -Q only prints the offset, and nobody answers within -t's two seconds.
    let chrony = find_chronyd()?;
    perform(&chrony.display().to_string(), &["-x", "-Q", "-t", "2", "server 127.0.0.1 iburst"])
}
