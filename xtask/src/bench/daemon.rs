//! A Ringfence of our own: started with the rules of the measurement, asked for its numbers, stopped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Setting;

const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon; killed when dropped without [`Daemon::stop`].
pub(super) struct Daemon {
    child: Child,
    address: SocketAddr,
    /// From before its start to the first 200 of `/readyz`.
    pub(super) ready_after: Duration,
}

/// Where its alerts go.
pub(super) enum Alerts {
    /// To a file.
    File(File),
    /// To a pipe, for a reader that wants each line at once.
    Pipe,
}

impl Daemon {
    /// Starts it and waits until it is ready. Its log goes to `daemon.log`.
    pub(super) fn start(setting: &Setting, alerts: Alerts) -> Result<Self> {
        Self::start_program(setting, &setting.ringfence, alerts)
    }

    /// The same with another program.
    pub(super) fn start_program(setting: &Setting, program: &Path, alerts: Alerts) -> Result<Self> {
        let mut command = Command::new(program);
        command.args([
            "run",
            "--no-color",
            "-o",
            "json",
            "--listen",
            "127.0.0.1:0",
            "--control-socket",
            "off",
            "--attach",
            &setting.attach,
        ]);
        command
            .arg("--rules")
            .arg(&setting.rules)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command.stdout(match alerts {
            Alerts::File(file) => file.into(),
            Alerts::Pipe => Stdio::piped(),
        });
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let log = setting.dir.join("daemon.log");
        let lines = follow_log(&mut child, File::create(&log)?)?;
        let mut daemon =
            Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), ready_after: Duration::ZERO };
        let deadline = start + READY_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines
                .recv_timeout(left)
                .map_err(|_| anyhow!("the daemon named no listening address; see {}", log.display()))?;
            if let Some(address) = listening_address(&line) {
                daemon.address = address;
                break;
            }
        }
        while !daemon.get("/readyz").is_ok_and(|(status, _)| status == 200) {
            if Instant::now() > deadline {
                bail!("the daemon was not ready after {} s; see {}", READY_LIMIT.as_secs(), log.display());
            }
            thread::sleep(Duration::from_millis(1));
        }
        daemon.ready_after = start.elapsed();
        Ok(daemon)
    }

    /// Its alerts; only once, and only with [`Alerts::Pipe`].
    pub(super) fn alerts(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("the daemon's output is not a pipe")
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a service manager would; an exit code other than 0 is an error.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("the daemon ended with {status}");
                }
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the daemon did not end within {} s of SIGTERM", STOP_LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time of all its threads so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let ticks = cpu_ticks(&stat).context("unknown form of /proc/PID/stat")?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory, in megabytes (10^6 bytes).
    pub(super) fn resident_megabytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    /// The sum of its counters of losses: every series whose name speaks of lost, dropped or held back events.
    pub(super) fn counted_losses(&self) -> Result<f64> {
        let (status, body) = self.get("/metrics")?;
        if status != 200 {
            bail!("/metrics answers {status}");
        }
        Ok(sum_of_losses(&body))
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // HTTP/1.0: the answer ends with the connection and is not chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
        Ok((status, body.to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Copies its log into `file` and hands out the lines.
fn follow_log(child: &mut Child, mut file: File) -> Result<Receiver<String>> {
    let stderr = child.stderr.take().context("the daemon's log is not a pipe")?;
    let (sender, receiver) = sync_channel(4096);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = writeln!(file, "{line}");
            // Nobody listens after the start; the log must be read all the same, or the daemon would block.
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (before, rest) = line.split_once("address=")?;
    let text = rest.split_whitespace().next()?.trim_matches('"');
    before.contains("listening").then(|| text.parse().ok())?
}

/// User and system ticks: fields 14 and 15, counted after the name, which may have blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn sum_of_losses(metrics: &str) -> f64 {
    let is_loss = |name: &str| ["lost", "dropped", "held_back"].iter().any(|word| name.contains(word));
    let series = metrics.lines().filter(|line| !line.starts_with('#'));
    let values = series.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        (name.ends_with("_total") && is_loss(name)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

/// The attach mode that the last daemon logged.
pub(super) fn attach_mode(setting: &Setting) -> Result<String> {
    let log = std::fs::read_to_string(setting.dir.join("daemon.log"))?;
    let lines = || log.lines().filter(|line| line.contains("attach"));
    let found = ["trampoline", "tracepoint"].into_iter().find(|mode| lines().any(|line| line.contains(mode)));
    Ok(found.map_or_else(|| format!("{} (asked for; the log names none)", setting.attach), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_log_lines_only_where_they_are_meant() {
        let line = "2026-01-01T00:00:00Z  INFO ringfence: listening address=127.0.0.1:9477 paths=3";
        assert_eq!(listening_address(line), Some(SocketAddr::from(([127, 0, 0, 1], 9477))));
        assert_eq!(listening_address("ready address=127.0.0.1:1"), None);
        assert_eq!(listening_address("listening address=nowhere"), None);
    }

    #[test]
    fn cpu_time_is_found_after_a_hostile_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn losses_are_summed_over_their_counters_only() {
        let metrics = "# HELP ringfence_events_lost_total Lost.\n\
                       ringfence_events_lost_total{reason=\"ring_full\"} 3\n\
                       ringfence_sink_dropped_total{sink=\"stdout\"} 4\n\
                       ringfence_events_total 100\nringfence_lost_ratio 9\n";
        assert!((sum_of_losses(metrics) - 7.0).abs() < f64::EPSILON);
    }
}
