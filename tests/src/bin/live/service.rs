//! What a service manager is told, and the socket that it hands over: by its protocol, without a systemd.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::tamper::{Stopped, threads};

use crate::cases::cases;
use crate::places::suite_rules;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // No matter of the kernel.
        return Vec::new();
    }
    cases(settings, &[("service::is_told", is_told), ("service::hands_over_a_socket", hands_over)])
}

/// A manager with a watchdog of two seconds.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Result<Manager, String> {
        let dir = tempfile::tempdir().map_err(text)?;
        let socket = UnixDatagram::bind(dir.path().join("notify")).map_err(text)?;
        Ok(Manager { socket, dir })
    }

    fn over(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    }

    /// Whether this line comes in time.
    fn hears(&self, wanted: &str, within: Duration) -> Result<bool, String> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left)).map_err(text)?;
            let mut message = [0; 4096];
            match self.socket.recv(&mut message) {
                Ok(len) => {
                    let told = String::from_utf8_lossy(message.get(..len).unwrap_or_default()).into_owned();
                    if told.lines().any(|line| line == wanted) {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(text(error)),
            }
        }
    }

    fn must_hear(&self, wanted: &str) -> Result<(), String> {
        if self.hears(wanted, PATIENCE)? { Ok(()) } else { Err(format!("`{wanted}` was not told")) }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// That it is ready, how it is, that it lives as long as it sees, and that it ends.
fn is_told(settings: &Settings) -> Result<(), String> {
    let manager = Manager::new()?;
    let rules = suite_rules()?;
    let mut command = settings.command();
    manager.over(&mut command);
    let daemon = Daemon::start_by(command, settings, &["--rules", &rules.path().display().to_string()])?;
    for line in ["READY=1", "STATUS=ready", "WATCHDOG=1", "WATCHDOG=1"] {
        manager.must_hear(line)?;
    }
    let [canaries] = threads(daemon.pid(), "canary")[..] else {
        return Err("the daemon has not one thread named `canary`".to_owned());
    };
    let stopped = Stopped::new(canaries).map_err(text)?;
    // What was on its way when it stopped is told; then nothing more is.
    let end = Instant::now() + PATIENCE;
    while manager.hears("WATCHDOG=1", Duration::from_secs(4))? {
        if Instant::now() > end {
            return Err("the watchdog is fed, though no test came back".to_owned());
        }
    }
    drop(stopped);
    manager.must_hear("WATCHDOG=1")?;
    daemon.stop()?.check()?;
    manager.must_hear("STOPPING=1")
}

/// It serves on the socket that is handed over, and on no other.
fn hands_over(settings: &Settings) -> Result<(), String> {
    const FIRST: i32 = 3;
    let socket = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let address = socket.local_addr().map_err(text)?.to_string();
    let rules = suite_rules()?;
    let inner = settings.command();
    // A shell knows the number of the process that the daemon will be.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=metrics exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let fd = socket.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe, and the socket is open until the daemon has started.
    unsafe {
        // The second for the case that it has that number already.
        command.pre_exec(move || match libc::dup2(fd, FIRST) + libc::fcntl(FIRST, libc::F_SETFD, 0) {
            FIRST => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let daemon = Daemon::start_by(command, settings, &["--rules", &rules.path().display().to_string()])?;
    drop(socket);
    let (status, _) = tests::harness::http::get(&address, "/readyz").map_err(text)?;
    if status != 200 {
        return Err(format!("/readyz on the socket answers {status}"));
    }
    daemon.stop()?.check()
}
