//! What a running daemon has taken from itself, and what happens to one that somebody else steers.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use tests::features::running;
use tests::harness::{Daemon, Settings};
use tests::tamper::{Stopped, threads};

use crate::places::suite_rules;
use crate::watched::Watched;

/// CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
const NEEDED: u64 = 1 << 2 | 1 << 19;
/// CAP_BPF, for lookups in maps before 5.19.
const NEEDED_ON_OLD: u64 = 1 << 39;
const FREE_LOOKUPS: (u32, u32) = (5, 19);

pub(crate) fn trials(settings: &Settings) -> Vec<Trial> {
    // The oldest kernel lacks layers, the newest has all; between them is this machine's own.
    if settings.guest && running().is_some_and(|version| ((5, 15)..(7, 0)).contains(&version)) {
        return Vec::new();
    }
    let trial = |name: &str, test: fn(&Settings) -> Result<(), String>| {
        let settings = settings.clone();
        Trial::test(name.to_owned(), move || test(&settings).map_err(Failed::from))
    };
    vec![
        trial("confined::every_thread_has_given_up_the_rest", given_up),
        trial("confined::a_program_is_not_started", no_program),
        trial("confined::files_are_out_of_reach", no_files),
        trial("confined::each_layer_can_be_switched_off", switched_off),
    ]
}

/// What a thread keeps that does not make the test calls.
pub(crate) fn needed() -> u64 {
    let is_old = running().is_some_and(|kernel| kernel < FREE_LOOKUPS);
    NEEDED | if is_old { NEEDED_ON_OLD } else { 0 }
}

/// A line of `/proc/PID/task/TID/status`.
pub(crate) fn line<'s>(status: &'s str, key: &str) -> Result<&'s str, String> {
    let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    found.ok_or(format!("no {key} in: {status}"))
}

pub(crate) fn set(status: &str, key: &str) -> Result<u64, String> {
    u64::from_str_radix(line(status, key)?, 16).map_err(|error| error.to_string())
}

/// Name and status of each thread.
pub(crate) fn statuses(pid: i32) -> Result<Vec<(String, String)>, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| error.to_string())?;
    let statuses: Vec<String> =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).collect();
    statuses.into_iter().map(|status| Ok((line(&status, "Name")?.to_owned(), status))).collect()
}

/// Whether this kernel has Landlock: the list of its modules, where it can be read, else the daemon's word.
fn has_landlock() -> Option<bool> {
    let list = fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    Some(list.trim().split(',').any(|module| module == "landlock"))
}

fn given_up(settings: &Settings) -> Result<(), String> {
    // By then the canary thread has made its first call, with which it gives up the rest.
    let watched = Watched::start(settings, &[])?;
    let pid = watched.daemon.pid();
    let needed = needed();
    let threads = statuses(pid)?;
    for name in ["canary", "reader", "watch", "names", "capabilities"] {
        if !threads.iter().any(|(thread, _)| thread == name) {
            return Err(format!("no thread is named `{name}`"));
        }
    }
    let bounding_stays =
        set(&fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?, "CapEff")? & 1 << 8 == 0;
    for (name, status) in &threads {
        let expected = if name == "canary" { 0 } else { needed };
        for key in ["CapPrm", "CapEff"] {
            if set(status, key)? != expected {
                return Err(format!("{key} of thread {name} is not {expected:x}\n{status}"));
            }
        }
        for key in ["CapInh", "CapAmb", "CapBnd"] {
            // The bounding set can be emptied by whoever has CAP_SETPCAP.
            if set(status, key)? != 0 && !(key == "CapBnd" && bounding_stays) {
                return Err(format!("{key} of thread {name} is not empty\n{status}"));
            }
        }
        if line(status, "NoNewPrivs")? != "1" || line(status, "Seccomp")? != "2" {
            return Err(format!("thread {name} may gain privileges, or has no filter\n{status}"));
        }
    }
    for layer in ["capabilities", "no_new_privs", "seccomp"] {
        if watched.gauge("ringfence_confined", &[("layer", layer)])? != 1.0 {
            return Err(format!("ringfence_confined of {layer} is not 1"));
        }
    }
    let landlock = watched.gauge("ringfence_confined", &[("layer", "landlock")])? == 1.0;
    if has_landlock().is_some_and(|has| has != landlock) {
        return Err(format!("ringfence_confined of landlock is {landlock}; the kernel says otherwise"));
    }
    let status = status_of(settings, &watched.daemon)?;
    let said = if landlock { "landlock in force" } else { "landlock missing: " };
    if !status.contains(said) || !status.contains("seccomp in force") {
        return Err(format!("`ringfence status` does not say `{said}`:\n{status}"));
    }
    watched.stop().map(drop)
}

fn status_of(settings: &Settings, daemon: &Daemon) -> Result<String, String> {
    let output = std::process::Command::new(&settings.ringfence)
        .args(["status", "--socket"])
        .arg(daemon.control_socket())
        .output()
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn start(settings: &Settings, arguments: &[&str]) -> Result<Daemon, String> {
    let rules = suite_rules()?;
    let path = rules.path().display().to_string();
    Daemon::start(settings, &[&["--rules", path.as_str()], arguments].concat())
}

/// Whoever steers the daemon gets no program started: it ends, and loudly.
fn no_program(settings: &Settings) -> Result<(), String> {
    let daemon = start(settings, &[])?;
    let main = Stopped::new(daemon.pid()).map_err(|error| format!("ptrace: {error}"))?;
    let answer = main.call(libc::SYS_execve, [0; 3], None).map_err(|error| error.to_string());
    // SIGSYS, perhaps with a core.
    match answer {
        Err(text) if ["status 0x1f", "status 0x9f"].iter().any(|end| text.ends_with(end)) => Ok(()),
        answer => Err(format!("execve answers {answer:?}")),
    }
}

/// The threads that do not look at other processes reach the daemon's own files and no others.
fn no_files(settings: &Settings) -> Result<(), String> {
    if has_landlock() == Some(false) {
        return Ok(());
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let daemon = start(settings, &["--alert-file", &dir.path().join("alerts").display().to_string()])?;
    if !status_of(settings, &daemon)?.contains("landlock in force") {
        return daemon.stop()?.check();
    }
    let open = |path: &Path, flags: i32| {
        let main = Stopped::new(daemon.pid()).map_err(|error| format!("ptrace: {error}"))?;
        let here = libc::AT_FDCWD as u32;
        let answer =
            main.call(libc::SYS_openat, [here.into(), 0, flags as u64], Some(&path.display().to_string()));
        Ok::<_, String>(answer.map_err(|error| error.raw_os_error()))
    };
    let made = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
    let own = open(&dir.path().join("more"), made)?;
    if own.is_err() {
        return Err(format!("beside its own file it can make none: {own:?}"));
    }
    for (path, flags) in
        [("/root", libc::O_RDONLY), ("/root/planted", made), ("/usr/planted", made), ("/var/planted", made)]
    {
        let answer = open(Path::new(path), flags)?;
        if answer != Err(Some(libc::EACCES)) {
            return Err(format!("an open of {path} answers {answer:?}"));
        }
    }
    daemon.stop()?.check()
}

fn switched_off(settings: &Settings) -> Result<(), String> {
    let off = "confine={capabilities: false, seccomp: false, landlock: false}";
    let daemon = start(settings, &["--set", off])?;
    let own = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    for (name, status) in statuses(daemon.pid())?.iter().filter(|(name, _)| name != "canary") {
        if set(status, "CapEff")? != set(&own, "CapEff")?
            || line(status, "Seccomp")? != line(&own, "Seccomp")?
        {
            return Err(format!("thread {name} is confined\n{status}"));
        }
    }
    let metrics = daemon.metrics()?;
    for layer in ["capabilities", "seccomp", "landlock"] {
        if metrics.sum("ringfence_confined", &[("layer", layer)]) != Some(0.0) {
            return Err(format!("ringfence_confined of {layer} is not 0"));
        }
    }
    if threads(daemon.pid(), "canary").len() != 1 {
        return Err("the daemon has not one thread named `canary`".to_owned());
    }
    daemon.stop()?.check()
}
