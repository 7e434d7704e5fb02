//! An OpenTelemetry collector: rotel, which takes OTLP as any other does and prints the records that it got.

use std::path::Path;
use std::process::Command;

use super::{Server, free_port, listens, program};

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    server: Server,
    /// OTLP over gRPC.
    pub grpc: u16,
    /// OTLP over HTTP.
    pub http: u16,
}

impl Collector {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path) -> Result<Collector, String> {
        let (grpc, http) = (free_port()?, free_port()?);
        let mut command = Command::new(program("rotel-agent")?);
        command.args(["start", "--exporter", "blackhole", "--debug-log", "logs"]);
        command.args([
            "--debug-log-verbosity",
            "detailed",
            "--otlp-grpc-endpoint",
            &format!("127.0.0.1:{grpc}"),
        ]);
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}"), "--pid-file"]);
        command.arg(dir.join("collector.pid")).env("NO_COLOR", "1");
        let mut server = Server::start(command, &dir.join("collector.log"))?;
        server.await_ready(|| listens(grpc) && listens(http))?;
        Ok(Collector { server, grpc, http })
    }

    /// What it printed of the records.
    pub fn printed(&self) -> String {
        self.server.log()
    }
}
