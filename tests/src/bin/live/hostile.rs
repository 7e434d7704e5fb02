//! Names made of hostile bytes: one valid line of JSON each, from which a reader gets the bytes back; and nothing
//! that a terminal would obey.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use tests::cgroup::Cgroup;
use tests::harness::alerts::{Expectation, bytes_of, first_control};
use tests::harness::{Daemon, Settings, wait};

use crate::places::{Suite, suite_rules};

/// Longest name of a thread, without its NUL (`TASK_COMM_LEN`).
const COMM: usize = 15;

/// Names: every byte that a file name can hold is in some of them, within the first fifteen where it matters.
const NAMES: &[(&str, &[u8])] = &[
    ("terminal", b"\x1b[2J\x1b]0;x\x07\x9b31m\x08\r\x7f red"),
    ("line_ends", b"a\nb\r\nc\x0b\x0c\xc2\x85\xe2\x80\xa8\xe2\x80\xa9"),
    ("json", b"\",\"rule\":\"x\"}\n{\"rule\":\"forged\"}"),
    ("bidi", b"\xe2\x80\xaetxt.\xe2\x81\xa6\xd8\x9c\xe2\x80\x8f exe"),
    ("not_utf8", b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf5\xe2\x80 \xc2"),
    ("escapes", b"\\x41\\\\n\\u{202e}\\\xff\\ \\xzz"),
    ("templates", b"%proc.pid %% {} $(x) `y` <NA>"),
];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (label, name) in NAMES {
        let suite = suite.clone();
        let trial = move || json(&suite, name).map_err(Failed::from);
        trials.push(Trial::test(format!("hostile::json::{label}"), trial));
    }
    if suite.settings().guest {
        // Terminals are no matter of the kernel, and each case needs a daemon of its own.
        return trials;
    }
    for (label, options) in [("plain", &["--no-color"][..]), ("coloured", &[])] {
        let suite = suite.clone();
        let trial = move || terminal(suite.settings(), options).map_err(Failed::from);
        trials.push(Trial::test(format!("hostile::terminal::{label}"), trial));
    }
    trials
}

/// A program, a device node and a cgroup that bear a hostile name.
struct Stage {
    dir: TempDir,
    program: PathBuf,
    node: PathBuf,
    cgroup: Cgroup,
    cgroup_path: Vec<u8>,
}

impl Stage {
    fn set(settings: &Settings, name: &[u8]) -> Result<Stage, String> {
        let fault = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let dir = tempfile::tempdir().map_err(fault("temporary directory"))?;
        let inner = dir.path().join(OsStr::from_bytes(name));
        fs::create_dir(&inner).map_err(fault("directory"))?;
        let program = inner.join(OsStr::from_bytes(name));
        fs::copy(&settings.attempt, &program).map_err(fault("program"))?;
        let node = inner.join("node");
        let path = CString::new(node.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: a path that ends in NUL.
        if unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 11)) } != 0 {
            return Err(format!("node: {}", std::io::Error::last_os_error()));
        }
        // The kernel refuses line feeds there (`cgroup_mkdir`), so that /proc/PID/cgroup can be read.
        let name: Vec<u8> = name.iter().copied().filter(|byte| *byte != b'\n').collect();
        let below = [b"ringfence-hostile-".as_slice(), &name].concat();
        let cgroup = Cgroup::make(OsStr::from_bytes(&below)).map_err(fault("cgroup"))?;
        Ok(Stage { dir, program, node, cgroup, cgroup_path: [b"/".as_slice(), &below].concat() })
    }

    /// Makes an attempt from it; gives its process id.
    fn perform(&self, name: &[u8]) -> Result<u32, String> {
        let mut command = Command::new(&self.program);
        command.arg0(OsStr::from_bytes(name)).arg("open").arg(&self.node).stdout(Stdio::null());
        self.cgroup.contain(&mut command);
        let mut child = command.spawn().map_err(|error| format!("attempt: {error}"))?;
        let pid = child.id();
        let status = wait(&mut child)?;
        if status.success() { Ok(pid) } else { Err(format!("attempt: {status}")) }
    }
}

fn json(suite: &Suite, name: &[u8]) -> Result<(), String> {
    let daemon = suite.daemon()?;
    let stage = Stage::set(suite.settings(), name)?;
    let pid = stage.perform(name)?;
    let alert = daemon.expect(&Expectation::new().is("rule", "Suite openat").is("proc.vpid", pid))?;
    // Each line was held against schema and control characters as it came.
    if let [first, ..] = &daemon.inbox().faults()[..] {
        return Err(first.clone());
    }
    let program = fs::canonicalize(&stage.program).map_err(|error| error.to_string())?;
    let wanted: [(&str, &[u8]); 4] = [
        ("proc.name", &name[..name.len().min(COMM)]),
        ("proc.exepath", program.as_os_str().as_bytes()),
        ("cgroup.path", &stage.cgroup_path),
        ("fd.name", stage.node.as_os_str().as_bytes()),
    ];
    for (field, bytes) in wanted {
        let text = alert.get(field).ok_or(format!("{field} is absent: {}", alert.json))?;
        let found = bytes_of(&text).map_err(|fault| format!("{field}: {fault}: {text}"))?;
        if found != bytes {
            return Err(format!(
                "{field}: {:?} instead of {:?}",
                found.escape_ascii().to_string(),
                bytes.escape_ascii().to_string()
            ));
        }
    }
    drop(stage.dir);
    Ok(())
}

/// Both ends of a new pseudo-terminal.
fn pseudo_terminal() -> Result<(File, OwnedFd), String> {
    let fault = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: calls without memory of ours; each descriptor that comes back is owned from then on.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if master < 0 {
            return Err(fault("posix_openpt"));
        }
        let master = File::from_raw_fd(master);
        if libc::unlockpt(master.as_raw_fd()) != 0 {
            return Err(fault("unlockpt"));
        }
        let slave = libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        );
        if slave < 0 {
            return Err(fault("TIOCGPTPEER"));
        }
        Ok((master, OwnedFd::from_raw_fd(slave)))
    }
}

/// Text on a terminal: no byte that a terminal obeys, besides line ends and the daemon's own colours.
fn terminal(settings: &Settings, options: &[&str]) -> Result<(), String> {
    let rules = suite_rules()?;
    let (mut master, slave) = pseudo_terminal()?;
    let path = rules.path().display().to_string();
    let arguments: Vec<&str> = ["--rules", &path].into_iter().chain(options.iter().copied()).collect();
    let (daemon, _) = Daemon::start_text(settings, &arguments, Stdio::from(slave))?;
    let reader = std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        // The read fails (EIO) when the daemon has closed the other end.
        while let Ok(len @ 1..) = master.read(&mut buffer) {
            all.extend_from_slice(&buffer[..len]);
        }
        all
    });
    for (_, name) in NAMES {
        Stage::set(settings, name)?.perform(name)?;
    }
    let ended = daemon.stop()?;
    ended.check()?;
    let shown = reader.join().map_err(|_| "the terminal's reader panicked")?;
    let shown = String::from_utf8(shown).map_err(|error| format!("not UTF-8: {error}"))?;
    let coloured = shown.contains("\x1b[");
    if coloured == options.contains(&"--no-color") {
        return Err(format!("colours: {coloured}\n{}", shown.escape_debug()));
    }
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("/node")).collect();
    if lines.len() < NAMES.len() {
        return Err(format!("{} lines of {} opens\n{}", lines.len(), NAMES.len(), shown.escape_debug()));
    }
    for line in shown.lines() {
        // The colours of a line stand around its priority, before anything that comes from outside.
        let (own, outside) = line.split_once("suite-").unwrap_or(("", line));
        if let Some(control) = first_control(outside) {
            return Err(format!("{control:?} reaches the terminal: {}", line.escape_debug()));
        }
        let plain = own.replace("\x1b[2m", "").replace("\x1b[0m", "");
        if let Some(control) = first_control(&plain) {
            return Err(format!("{control:?} before the rule's name: {}", line.escape_debug()));
        }
    }
    Ok(())
}
