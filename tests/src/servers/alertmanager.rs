//! Alertmanager: takes alerts and shows them again.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Server, free_port, listens, program, write};
use crate::harness::http;

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    _server: Server,
    /// Where it listens.
    pub port: u16,
}

impl Alertmanager {
    /// Starts it; `name` tells it from others in the directory.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path, name: &str) -> Result<Alertmanager, String> {
        let port = free_port()?;
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        write(&dir.join("config.yml"), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")?;
        let program = program("prometheus-alertmanager")?;
        // Debian's reads a template by its whole path, which is not there if it was only unpacked.
        let share = program.parent().map(|bin| bin.join("../share")).unwrap_or_default();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c"]);
        command
            .arg("mount --bind \"$1\" /usr/share && shift && exec \"$@\"")
            .arg("sh")
            .arg(share)
            .arg(program);
        command.arg(format!("--config.file={}", dir.join("config.yml").display()));
        command.arg(format!("--storage.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--cluster.listen-address=");
        let mut server = Server::start(command, &dir.join("output.log"))?;
        server.await_ready(|| listens(port))?;
        Ok(Alertmanager { _server: server, port })
    }

    /// The alerts that it has.
    ///
    /// # Errors
    /// What it says instead.
    pub fn alerts(&self) -> Result<Vec<Value>, String> {
        let (status, text) = http::get(&format!("127.0.0.1:{}", self.port), "/api/v2/alerts")
            .map_err(|error| format!("Alertmanager: {error}"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Array(alerts)) if status == 200 => Ok(alerts),
            _ => Err(format!("Alertmanager answers {status}: {text}")),
        }
    }
}
