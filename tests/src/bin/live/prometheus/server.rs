//! A Prometheus of the test's own, which scrapes one daemon and evaluates the shipped rules.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::harness::PATIENCE;
use tests::harness::http::get;

/// How often it scrapes and evaluates.
const INTERVAL: &str = "1s";
/// Ports are free when they are chosen; somebody else may be faster.
const TRIES: usize = 3;

/// A running server. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: String,
    dir: TempDir,
}

/// A rule as the server reads it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) query: String,
    /// What was wrong with its last evaluation.
    pub(super) fault: Option<String>,
    pub(super) evaluated: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to keep.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it with the daemon at this address as its one target, and these rules.
    pub(super) fn start(target: &str, rules: &str) -> Result<Server, String> {
        let mut faults = Vec::new();
        for _ in 0..TRIES {
            match Self::try_start(target, rules) {
                Ok(server) => return Ok(server),
                Err(fault) => faults.push(fault),
            }
        }
        Err(faults.join("\n"))
    }

    fn try_start(target: &str, rules: &str) -> Result<Server, String> {
        let text = |error: std::io::Error| error.to_string();
        let dir = tempfile::tempdir().map_err(text)?;
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("ringfence.rules.yaml"), rules).map_err(text)?;
        let config = format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}, evaluation_interval: {INTERVAL}}}\n\
             rule_files: [ringfence.rules.yaml]\n\
             scrape_configs:\n  - job_name: ringfence\n    static_configs: [{{targets: ['{target}']}}]\n"
        );
        std::fs::write(file("prometheus.yml"), config).map_err(text)?;
        let log = std::fs::File::create(file("log")).map_err(text)?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(text)?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("prometheus: {error}; `cargo xtask setup` brings it"))?;
        let mut server = Server { child, address: free.to_string(), dir };
        let end = Instant::now() + PATIENCE;
        while !matches!(get(&server.address, "/-/ready"), Ok((200, _))) {
            let ended = server.child.try_wait().map_err(text)?;
            if ended.is_some() || Instant::now() > end {
                return Err(format!("prometheus does not get ready ({ended:?}): {}", server.log()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn api(&self, path: &str) -> Result<Value, String> {
        let (_, body) = get(&self.address, path).map_err(|error| format!("{path}: {error}"))?;
        let json: Value = serde_json::from_str(&body).map_err(|error| format!("{path}: {error}: {body}"))?;
        match json["status"].as_str() {
            Some("success") => Ok(json["data"].clone()),
            _ => Err(json["error"].as_str().unwrap_or(&body).to_owned()),
        }
    }

    /// The samples of an expression at this moment.
    pub(super) fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            let _ = write!(path, "%{byte:02X}");
        }
        let data = self.api(&path).map_err(|fault| format!("`{expression}`: {fault}"))?;
        data["result"].as_array().cloned().ok_or_else(|| format!("`{expression}` gives no list: {data}"))
    }

    /// Waits until an expression has samples.
    pub(super) fn await_some(&self, expression: &str) -> Result<Vec<Value>, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let samples = self.query(expression)?;
            if !samples.is_empty() {
                return Ok(samples);
            }
            if Instant::now() > end {
                let firing = self.query("ALERTS")?;
                return Err(format!("`{expression}` stays empty; alerts: {firing:?}; log: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The rules as it reads them.
    pub(super) fn rules(&self) -> Result<Vec<Rule>, String> {
        let data = self.api("/api/v1/rules")?;
        let groups = data["groups"].as_array().ok_or("no groups of rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let rule = |rule: &Value| Rule {
            name: text(rule, "name"),
            query: text(rule, "query"),
            fault: (rule["health"] == "err").then(|| text(rule, "lastError")),
            evaluated: rule["health"] == "ok",
        };
        Ok(rules.map(rule).collect())
    }
}
