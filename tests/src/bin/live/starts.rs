//! Bad starts and a full disk: one message that names cause and remedy, the right exit code, no panic.

use std::ffi::CString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Trial;
use tempfile::TempDir;
use tests::harness::alerts::Expectation;
use tests::harness::{Daemon, PATIENCE, Settings, wait};

use crate::cases::{Case, cases};
use crate::places::suite_rules;

/// Wrong in its condition's syntax, in line 3.
const MALFORMED: &str =
    "- rule: Broken\n  desc: d.\n  condition: evt.type = (\n  output: o\n  priority: notice\n";
/// A field that does not exist, in line 3.
const UNKNOWN_FIELD: &str =
    "- rule: Broken\n  desc: d.\n  condition: evt.typ = setns\n  output: o\n  priority: notice\n";
/// Not even YAML, from line 2.
const NOT_YAML: &str = "- rule: Broken\n  desc: [\n  condition: }\n";

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let mut all: Vec<(&str, Case)> = vec![
        ("starts::port_taken", port_taken),
        ("starts::control_socket_taken", control_socket_taken),
        ("starts::rules_missing", rules_missing),
        ("starts::rule_malformed", |settings| bad_rule(settings, MALFORMED, &["bad.yaml", "3:"])),
        ("starts::rule_with_unknown_field", |settings| {
            bad_rule(settings, UNKNOWN_FIELD, &["bad.yaml", "3:", "evt.typ", "unknown field"])
        }),
        ("starts::rules_not_yaml", |settings| bad_rule(settings, NOT_YAML, &["bad.yaml"])),
        ("starts::not_root", not_root),
        ("starts::unknown_option", |settings| {
            refused(settings.command().arg("--no-such-option"), 2, &["--no-such-option"])
        }),
    ];
    if !settings.guest {
        // No matter of the kernel, and it needs a daemon of its own.
        all.push(("starts::full_disk_under_the_alert_file", full_disk));
    }
    cases(settings, &all)
}

/// Runs a start that must be refused.
pub(crate) fn refused(command: &mut Command, status: i32, words: &[&str]) -> Result<(), String> {
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    // Messages are short, so they fit the pipe until they are read.
    let ended = wait(&mut child);
    let output = child.wait_with_output().map_err(|error| format!("wait: {error}"))?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = format!("{}; standard error:\n{message}", output.status);
    ended.map_err(|fault| format!("it was not refused: {fault}\n{message}"))?;
    if message.contains("panicked") {
        return Err(format!("it panicked; {shown}"));
    }
    if output.status.code() != Some(status) {
        return Err(format!("expected exit status {status}, found {shown}"));
    }
    if !output.stdout.is_empty() {
        return Err("something on standard output, where only alerts belong".to_owned());
    }
    let lower = message.to_lowercase();
    match words.iter().find(|word| !lower.contains(&word.to_lowercase())) {
        Some(word) => Err(format!("the message does not name `{word}`; {shown}")),
        None => Ok(()),
    }
}

fn port_taken(settings: &Settings) -> Result<(), String> {
    let taken = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = taken.local_addr().map_err(|error| error.to_string())?.to_string();
    let rules = suite_rules()?;
    // The remedy is another --listen.
    refused(
        settings.command().args(["--listen", &address]).arg("--rules").arg(rules.path()),
        2,
        &[&address, "in use", "--listen"],
    )
}

fn control_socket_taken(settings: &Settings) -> Result<(), String> {
    let dir = open_dir()?;
    let socket = dir.path().join("other.sock");
    let _other = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
    let rules = suite_rules()?;
    refused(
        settings
            .command()
            .args(["--listen", "off", "--control-socket"])
            .arg(&socket)
            .arg("--rules")
            .arg(rules.path()),
        2,
        &["other.sock", "answers there", "--control-socket"],
    )
}

fn rules_missing(settings: &Settings) -> Result<(), String> {
    let path = "/no-such-directory/rules";
    refused(settings.command().args(["--listen", "off", "--rules", path]), 2, &[path, "no such file"])
}

fn bad_rule(settings: &Settings, text: &str, words: &[&str]) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::write(dir.path().join("bad.yaml"), text).map_err(|error| error.to_string())?;
    refused(settings.command().args(["--listen", "off"]).arg("--rules").arg(dir.path()), 2, words)
}

fn not_root(settings: &Settings) -> Result<(), String> {
    // Where the program lies, others may not go: it is copied to where they may.
    let dir = open_dir()?;
    let program = dir.path().join("ringfence");
    fs::copy(&settings.ringfence, &program).map_err(|error| error.to_string())?;
    let rules = dir.path().join("rules.yaml");
    fs::write(&rules, tests::harness::ALL_EVENTS).map_err(|error| error.to_string())?;
    let mut command = Command::new(&program);
    command
        .args(["run", "--output", "json", "--listen", "off", "--attach", &settings.attach, "--rules"])
        .arg(&rules)
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    refused(&mut command, 2, &["CAP_BPF", "root"])
}

/// A temporary directory that everybody may enter.
fn open_dir() -> Result<TempDir, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    Ok(dir)
}

/// A file system of 64 KiB, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Result<SmallDisk, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let target = c_path(dir.path())?;
        // SAFETY: all four are strings that end in NUL and live until the call returns.
        let ret = unsafe {
            libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=64k".as_ptr().cast())
        };
        if ret != 0 {
            return Err(format!("cannot mount a tmpfs: {}", std::io::Error::last_os_error()));
        }
        Ok(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(target) = c_path(self.0.path()) {
            // SAFETY: a string that ends in NUL; the mount is ours.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn c_path(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())
}

/// The file's alerts are lost and counted, those on standard output are not touched.
fn full_disk(settings: &Settings) -> Result<(), String> {
    let disk = SmallDisk::mount()?;
    let file = disk.0.path().join("alerts.jsonl").display().to_string();
    let rules = suite_rules()?;
    let path = rules.path().display().to_string();
    let daemon = Daemon::start(settings, &["--rules", &path, "--alert-file", &file])?;
    let child = Command::new(&settings.attempt)
        .args(["flood", "--call", "unshare", "--count", "1000", "--rate", "1000", "--seconds", "60"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("attempt: {error}"))?;
    let of_flood = Expectation::new().is("rule", "Suite unshare").is("proc.vpid", child.id());
    wait(&mut child)?;
    let end = std::time::Instant::now() + PATIENCE;
    // Every line is longer than 64 bytes, so a thousand of them cannot fit.
    let counted = loop {
        let metrics = daemon.metrics()?;
        let of_file = |name| metrics.sum(name, &[("output", "file")]).unwrap_or(0.0);
        // Lines wait while the disk is full; none may be unaccounted for.
        let waiting = of_file("ringfence_output_queue_length");
        let lost = of_file("ringfence_output_dropped_total");
        let out = daemon.inbox().count(&of_flood);
        if out == 1000 && waiting + lost > 0.0 && of_file("ringfence_output_errors_total") > 0.0 {
            break lost;
        }
        if std::time::Instant::now() > end {
            return Err(format!(
                "{out} of 1000 alerts on standard output; lost at the file: {lost}, waiting: {waiting}\n{}",
                metrics.lines("ringfence_output")
            ));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let ended = daemon.stop()?;
    ended.check()?;
    let told =
        ended.log.lines().filter(|line| line.contains(&file) && line.contains("No space left")).count();
    if (1..=5).contains(&told) {
        return Ok(());
    }
    Err(format!("{told} log lines name the full disk (lost {counted}), expected 1 to 5:\n{}", ended.log))
}
