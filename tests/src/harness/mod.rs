//! Ringfence as the suite runs it: started as a child, read line by line, asked for its metrics, stopped.

pub mod alerts;
pub mod http;
mod lines;
mod log;
mod undisturbed;

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kubernetes::Manifests;
use crate::kubernetes::runner::{Change, Placed, Runner};
use crate::systemd::{Service, Services};
use alerts::{Alert, Expectation, Inbox, first_control};
use http::Metrics;
use lines::{CHECKED, CHECKED_IN_GUESTS, Form, judge_lines, read_lines, read_schema};
use log::Log;
use tempfile::TempDir;
pub use undisturbed::MOST_TURNS;

/// How long a condition may take before the test gives up. It is no pace: nothing waits this long
/// unless it fails. Guests without hardware virtualisation are slow, on a busy machine even more so.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Name of a daemon's control socket, in a directory of its own.
const CONTROL_SOCKET: &str = "ringfence.sock";

/// The suite's own rules: one for each call, matching every event.
pub const ALL_EVENTS: &str = include_str!("../../rules/all-events.yaml");

/// What the suite was told on its command line.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon's program.
    pub ringfence: PathBuf,
    /// The program that makes attempts, linked statically.
    pub attempt: PathBuf,
    /// The shipped rules.
    pub rules: PathBuf,
    /// The JSON Schema of alert lines.
    pub schema: Option<PathBuf>,
    /// `auto`, `trampoline` or `tracepoint`.
    pub attach: String,
    /// Whether this is a guest of our own: no Docker, but the clock may be set.
    pub guest: bool,
    /// Where the matrix writes its record.
    pub record: Option<PathBuf>,
    /// Where what a quiet host raised is written.
    pub benign: Option<PathBuf>,
    /// The manifests.
    pub manifests: Option<Manifests>,
    /// Daemons are started as the DaemonSet's pod, by this.
    pub pod: Option<Arc<Runner>>,
    /// Daemons are started in the sandbox of systemd's service, by this.
    pub services: Option<Arc<Services>>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    inbox: Arc<Inbox>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    address: String,
    home: Home,
    /// Holds the control socket and the state directory, so that daemons do not meet at one.
    control: TempDir,
    started: Instant,
    ready_after: Duration,
}

/// What a daemon runs in.
#[derive(Debug)]
enum Home {
    /// Nothing: it is a child of the suite's.
    Child,
    /// The DaemonSet's pod; the child is the engine's client.
    Pod(Placed),
    /// systemd's service; the child hands on what that writes.
    Service(Service),
}

/// What a daemon left when it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Every alert, but for those of rules that count first.
    pub alerts: Vec<Alert>,
    /// Those.
    pub crossed: Vec<Alert>,
    /// What was wrong with lines.
    pub faults: Vec<String>,
    /// Standard error.
    pub log: String,
}

impl Settings {
    /// `ringfence run` with what every start of the suite has; the caller adds rules and the rest.
    pub fn command(&self) -> Command {
        let mut command = self.command_with("json");
        command.arg("--no-color");
        command
    }

    /// The repository, which the shipped rules lie in.
    ///
    /// # Errors
    /// The kernel's, as a text.
    pub fn repository(&self) -> Result<PathBuf, String> {
        let rules = self.rules.canonicalize().map_err(|error| error.to_string())?;
        rules.parent().map(Path::to_owned).ok_or_else(|| "the rules lie in no directory".to_owned())
    }

    /// The same with this format of alerts, and with colours where there is a terminal.
    fn command_with(&self, format: &str) -> Command {
        let mut command = Command::new(&self.ringfence);
        command
            .args(["run", "--output", format, "--attach", &self.attach])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Daemon {
    /// Starts the daemon with these further arguments and waits until it is ready.
    ///
    /// # Errors
    /// A text with its standard error, if it ends or does not get ready.
    pub fn start(settings: &Settings, arguments: &[&str]) -> Result<Daemon, String> {
        if settings.pod.is_some() {
            return Self::start_pod(settings, arguments, Change::default());
        }
        match &settings.services {
            Some(services) => Self::start_service(services, settings, arguments),
            None => Self::start_by(settings.command(), settings, arguments),
        }
    }

    fn start_service(services: &Services, settings: &Settings, arguments: &[&str]) -> Result<Daemon, String> {
        let (mut command, service) = services.command(&settings.attach, arguments)?;
        let mut daemon = Self::launch(&mut command, settings, Home::Service(service))?;
        if let Home::Service(service) = &mut daemon.home {
            service.enter()?;
        }
        Ok(daemon)
    }

    /// Starts the DaemonSet's pod with this change, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Daemon::start`]; the suite was not told to run pods.
    pub fn start_pod(settings: &Settings, arguments: &[&str], change: Change<'_>) -> Result<Daemon, String> {
        let runner = settings.pod.as_ref().ok_or("the suite runs no pods: give it --pod")?;
        let (mut command, placed) = runner.command(&settings.attach, arguments, change)?;
        let mut daemon = Self::launch(&mut command, settings, Home::Pod(placed))?;
        if let Home::Pod(placed) = &mut daemon.home {
            placed.enter(runner)?;
        }
        Ok(daemon)
    }

    /// The same by a command that the caller has prepared, made by [`Settings::command`].
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_by(mut command: Command, settings: &Settings, arguments: &[&str]) -> Result<Daemon, String> {
        Self::launch(command.args(arguments), settings, Home::Child)
    }

    fn launch(command: &mut Command, settings: &Settings, home: Home) -> Result<Daemon, String> {
        let checked = if settings.guest { CHECKED_IN_GUESTS } else { CHECKED };
        let schema = settings.schema.as_deref().map(read_schema).transpose()?;
        let form = schema.map(|schema| Form { schema, checked });
        let mut daemon = Self::spawn(command, home)?;
        if let Some(out) = daemon.child.stdout.take() {
            let inbox = daemon.inbox.clone();
            let (to_judge, lines) = mpsc::channel();
            daemon.readers.push(std::thread::spawn(move || read_lines(out, &to_judge)));
            daemon.readers.push(std::thread::spawn(move || judge_lines(&lines, &inbox, form.as_ref())));
        }
        daemon.await_ready()
    }

    /// The same with alerts as text, which go to `stdout`; of a pipe the reading end comes back.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_text(
        settings: &Settings,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Result<(Daemon, Option<ChildStdout>), String> {
        let mut command = settings.command_with("text");
        command.args(arguments).stdout(stdout).env("TERM", "xterm").env_remove("NO_COLOR");
        let mut daemon = Self::spawn(&mut command, Home::Child)?;
        daemon.inbox.close();
        let out = daemon.child.stdout.take();
        Ok((daemon.await_ready()?, out))
    }

    /// Starts the daemon and lets `meanwhile` ask at its address while it attaches; then waits until it is ready. Its alerts
    /// are left where they are.
    ///
    /// # Errors
    /// As [`Daemon::start`], and what `meanwhile` says.
    pub fn start_and(
        settings: &Settings,
        arguments: &[&str],
        meanwhile: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<Daemon, String> {
        let mut command = settings.command();
        let daemon = Self::spawn(command.args(arguments).stdout(Stdio::null()), Home::Child)?;
        daemon.inbox.close();
        let listening = daemon.log.wait(|line| line.contains("listening"))?;
        meanwhile(&address_in(&listening).ok_or(format!("no address in: {listening}"))?)?;
        daemon.await_ready()
    }

    /// Starts the program and reads its log.
    fn spawn(command: &mut Command, home: Home) -> Result<Daemon, String> {
        let started = Instant::now();
        let control = TempDir::new().map_err(|error| format!("no temporary directory: {error}"))?;
        // A test may name one that outlives the daemon.
        let is_child = matches!(home, Home::Child);
        if is_child && !command.get_args().any(|arg| arg.to_string_lossy().starts_with("state_dir=")) {
            command.arg("--set").arg(format!("state_dir={}", control.path().join("state").display()));
        }
        // Where a pod or a service has them stands in its manifest or unit.
        if is_child {
            command.args(["--listen", "127.0.0.1:0", "--control-socket"]);
            command.arg(control.path().join(CONTROL_SOCKET));
        }
        let mut child =
            command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        let (inbox, log) = (Arc::new(Inbox::default()), Arc::new(Log::default()));
        let mut readers = Vec::new();
        if let Some(err) = child.stderr.take() {
            let log = log.clone();
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
                    log.push(String::from_utf8_lossy(&line).into_owned());
                }
                log.close();
            }));
        }
        Ok(Daemon {
            child,
            inbox,
            log,
            readers,
            address: String::new(),
            home,
            control,
            started,
            ready_after: Duration::ZERO,
        })
    }

    fn await_ready(mut self) -> Result<Daemon, String> {
        self.log.wait(|line| has_word(line, "ready"))?;
        self.ready_after = self.started.elapsed();
        let listening = self.log.wait(|line| line.contains("listening"))?;
        if !matches!(self.home, Home::Pod(_)) {
            self.address = address_in(&listening).ok_or(format!("no address in: {listening}"))?;
        }
        Ok(self)
    }

    /// Its control socket, for `ringfence containers --socket`.
    pub fn control_socket(&self) -> PathBuf {
        match &self.home {
            Home::Child => self.control.path().join(CONTROL_SOCKET),
            Home::Pod(placed) => placed.control_socket(),
            Home::Service(service) => service.control_socket(),
        }
    }

    /// Where it serves metrics, as `ADDRESS:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        match &self.home {
            Home::Child => self.child.id() as i32,
            Home::Pod(placed) => placed.pid(),
            Home::Service(service) => service.pid(),
        }
    }

    /// The pod that it runs in, if it runs in one.
    pub fn placed(&mut self) -> Option<&mut Placed> {
        match &mut self.home {
            Home::Pod(placed) => Some(placed),
            Home::Child | Home::Service(_) => None,
        }
    }

    /// Time from start to ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Its alerts.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Waits for an alert.
    ///
    /// # Errors
    /// The nearest misses, when [`PATIENCE`] is over.
    pub fn expect(&self, expectation: &Expectation) -> Result<Alert, String> {
        self.inbox.expect(expectation, PATIENCE)
    }

    /// Waits for a line of its log.
    ///
    /// # Errors
    /// The log, when [`PATIENCE`] is over or the daemon has ended.
    pub fn await_log(&self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        self.log.wait(wanted)
    }

    /// Fetches a page of its HTTP server.
    ///
    /// # Errors
    /// A text that names the page.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let got = match &self.home {
            Home::Pod(placed) => placed.get(path),
            Home::Child | Home::Service(_) => http::get(&self.address, path),
        };
        got.map_err(|error| format!("GET {path} from {}: {error}\n{}", self.address, threads(self.pid())))
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    /// A text, also for a status other than 200.
    pub fn metrics(&self) -> Result<Metrics, String> {
        match self.get("/metrics")? {
            (200, text) => Ok(Metrics::new(text)),
            (status, text) => Err(format!("/metrics answers {status}: {text}")),
        }
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: i32) -> Result<(), String> {
        // SAFETY: no pointers. The process is our child and not yet waited for, so the id is still its own; or that of a
        // container that such a child holds; or a service's, which only the suite ends.
        match unsafe { libc::kill(self.pid(), signal) } {
            0 => Ok(()),
            _ => Err(format!("kill: {}", io::Error::last_os_error())),
        }
    }

    /// Stops it by SIGTERM and gives what it left.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(mut self) -> Result<Ended, String> {
        self.signal(libc::SIGTERM)?;
        let mut status = wait(&mut self.child)?;
        if let Home::Service(service) = &self.home {
            status = service.ended()?;
        }
        for reader in self.readers.drain(..) {
            reader.join().map_err(|_| "a reader of the daemon's output panicked")?;
        }
        let (alerts, crossed) = (self.inbox.all(), self.inbox.crossed());
        Ok(Ended { status, alerts, crossed, faults: self.inbox.faults(), log: self.log.text() })
    }
}

impl Ended {
    /// Every alert, those of rules that count first at the end.
    pub fn everything(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().chain(&self.crossed)
    }

    /// Holds the end against what every run must be: status 0, proper lines, no panic, a log of plain text.
    ///
    /// # Errors
    /// What was wrong, with the log.
    pub fn check(&self) -> Result<(), String> {
        if !self.status.success() {
            return Err(format!("after SIGTERM: {} instead of status 0\n{}", self.status, self.log));
        }
        if !self.faults.is_empty() {
            return Err(self.faults.join("\n"));
        }
        if self.log.contains("panicked") {
            return Err(format!("something panicked\n{}", self.log));
        }
        // Each of the suite's daemons shows that the list of what it may call is whole.
        if let Some(line) = self.log.lines().find(|line| line.contains("its own filter refuses")) {
            return Err(format!("the daemon's filter on itself lacks something: {line}"));
        }
        match self.log.lines().find(|line| first_control(line).is_some()) {
            Some(line) => Err(format!("a control character in the log: {}", line.escape_debug())),
            None => Ok(()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A daemon that was not stopped properly belongs to a test that has failed already.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // The client's end is not its container's, nor the reader's its service's.
            if !matches!(self.home, Home::Child) && self.pid() > 0 {
                let _ = self.signal(libc::SIGKILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where each thread of a process stands, for a message: its name, state, and place in the kernel.
fn threads(pid: i32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    tasks.map(|task| format!("  {}{}", of(task.path().join("stat")), of(task.path().join("stack")))).collect()
}

/// Waits for a child's end, at most [`PATIENCE`]; then it is killed.
///
/// # Errors
/// If it had to be killed.
pub fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().map_err(|error| format!("wait: {error}"))? {
            Some(status) => return Ok(status),
            None if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("process {} did not end within {PATIENCE:?}: killed", child.id()));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word)
}

/// The value of `address=` in a log line, which may be quoted or coloured.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    port.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_understood() {
        assert!(has_word("INFO ringfence: ready after_ms=12", "ready"));
        assert!(!has_word("INFO already here", "ready"));
        assert_eq!(address_in("listening address=127.0.0.1:9477 x"), Some("127.0.0.1:9477".to_owned()));
        assert_eq!(address_in("listening address=off"), None);
    }

    #[test]
    fn the_suites_rules_cover_every_call() {
        for call in monitor_common::call::Call::ALL {
            let wanted = format!("condition: evt.type = {}\n", call.name());
            assert_eq!(ALL_EVENTS.matches(&wanted).count(), 1, "{}", call.name());
            assert!(ALL_EVENTS.contains(&format!("- rule: Suite {}\n", call.name())), "{}", call.name());
        }
    }
}
