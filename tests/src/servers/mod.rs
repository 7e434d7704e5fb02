//! Real servers for the outputs that have a peer: started by a test in a directory of its own, on loopback, and ended by
//! their process ids.

mod alertmanager;
mod collector;
mod held;
mod journald;
mod nginx;
mod pki;
mod rsyslog;

pub use alertmanager::Alertmanager;
pub use collector::Collector;
pub use held::HeldPort;
pub use journald::Journald;
pub use nginx::Nginx;
pub use pki::Pki;
pub use rsyslog::Rsyslog;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;

/// A program by its name in `PATH`, or below one of the directories that only root has there.
///
/// # Errors
/// It is not there: `cargo xtask setup` brings it.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/lib/systemd"].map(PathBuf::from));
    let mut candidates = dirs.map(|dir| dir.join(name));
    candidates.find(|file| file.is_file()).ok_or(format!("there is no {name}; run `cargo xtask setup`"))
}

/// A port of loopback on which nobody listens. Somebody else may get it at any time: it is for a server that is started
/// at once; see [`HeldPort`] for one that stays without.
///
/// # Errors
/// The kernel's.
pub fn free_port() -> Result<u16, String> {
    let socket = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
    socket.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// A server's process; it ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    what: String,
}

impl Server {
    /// Starts a command with its output in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Server, String> {
        let what = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let other = file.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(other);
        let child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
        Ok(Server { child, log: log.to_owned(), what })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Its log, if it ends before or takes longer than [`PATIENCE`].
    pub fn await_ready(&mut self, ready: impl Fn() -> bool) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while !ready() {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} is not ready ({ended:?}); its log:\n{log}", self.what));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // None of them has anything to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens on this port of loopback.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Waits until `count` gives this number, and a moment more, so that one too many is seen, too.
///
/// # Errors
/// The last number, when [`PATIENCE`] is over or it is too large.
pub fn await_count(what: &str, wanted: u64, count: impl Fn() -> Result<u64, String>) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = count()?;
        if found == wanted {
            std::thread::sleep(Duration::from_millis(50));
            return match count()? {
                again if again == wanted => Ok(()),
                again => Err(format!("{what}: {again} instead of {wanted}")),
            };
        }
        if found > wanted || Instant::now() > end {
            return Err(format!("{what}: {found} instead of {wanted}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often a text stands in a file; a file that is not there yet has nothing.
pub fn occurrences(file: &Path, text: &str) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).matches(text).count() as u64
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
