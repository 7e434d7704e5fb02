//! A journald beside the machine's own, if it has one: with a `/run` of its own, in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Server, program, write};

const MACHINE: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToWall=no
";

const START: &str = r#"mount --bind "$1/run" /run &&
mount --bind "$1/machine-id" /etc/machine-id &&
mount --bind "$1/journald.conf" /etc/systemd/journald.conf &&
exec "$2""#;

/// A running journald.
#[derive(Debug)]
pub struct Journald {
    _server: Server,
    run: PathBuf,
}

impl Journald {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path) -> Result<Journald, String> {
        let dir = dir.join("journald");
        let run = dir.join("run");
        std::fs::create_dir_all(&run).map_err(|error| format!("{}: {error}", run.display()))?;
        write(&dir.join("machine-id"), &format!("{MACHINE}\n"))?;
        write(&dir.join("journald.conf"), CONFIG)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", START, "sh"]);
        command.arg(&dir).arg(program("systemd-journald")?);
        let mut server = Server::start(command, &dir.join("output.log"))?;
        let journald = |server| Journald { _server: server, run: run.clone() };
        let socket = run.join("systemd/journal/socket");
        server.await_ready(|| socket.exists())?;
        Ok(journald(server))
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("systemd/journal/socket")
    }

    /// The entries that `journalctl` finds for these matches.
    ///
    /// # Errors
    /// What it says.
    pub fn entries(&self, matches: &[&str]) -> Result<Vec<Value>, String> {
        let mut command = Command::new(program("journalctl")?);
        // Long fields are shown, too.
        command.args(["--quiet", "--all", "--output", "json", "--directory"]);
        command.arg(self.run.join("log/journal").join(MACHINE)).args(matches);
        let output = command.output().map_err(|error| format!("journalctl: {error}"))?;
        if !output.status.success() {
            return Err(format!("journalctl: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).map_err(|error| error.to_string())).collect()
    }
}
