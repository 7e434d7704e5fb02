//! Daemons that follow each other: each is started at the same place, and what all of them told is in one list.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::harness::http::{self, Metrics};
use tests::harness::{PATIENCE, Settings, wait};

use super::load::BASE;

const RULE: &str = "- rule: Restart\n  desc: d.\n  condition: evt.type = setns\n  output: \"n=%evt.arg[fd] by %proc.name running %proc.exepath in %container.full_id\"\n  priority: debug\n";

/// A BPF file system of our own.
pub(crate) struct BpfFs(TempDir);

impl BpfFs {
    pub(crate) fn mount() -> Result<BpfFs, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let fs = BpfFs(dir);
        let target = c_path(fs.0.path())?;
        // SAFETY: all four are strings that end in NUL and live until the call returns.
        let ret = unsafe {
            libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, c"mode=0700".as_ptr().cast())
        };
        if ret != 0 {
            return Err(format!("no BPF file system: {}", std::io::Error::last_os_error()));
        }
        Ok(fs)
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    pub(crate) fn names(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.0.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        // The kernel's own iterators have names that nobody else can make.
        all.filter(|path| path.extension().is_none()).collect()
    }

    pub(crate) fn must_be_empty(&self) -> Result<(), String> {
        match self.names().first() {
            None => Ok(()),
            Some(left) => Err(format!("{} is left", left.display())),
        }
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        if let Ok(target) = c_path(self.0.path()) {
            // SAFETY: a string that ends in NUL; the mount is ours. What is still pinned goes with it.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

pub(crate) fn c_path(path: &Path) -> Result<std::ffi::CString, String> {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())
}

/// Where daemons follow each other.
pub(crate) struct Place {
    settings: Settings,
    arguments: Vec<String>,
    dir: TempDir,
    told: Arc<Mutex<Vec<u64>>>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A running daemon.
pub(crate) struct Process {
    child: Child,
    log: mpsc::Receiver<String>,
    readers: Vec<JoinHandle<()>>,
    address: String,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
    /// What the log says of what was taken over from programs that were replaced.
    pub(crate) handed: Option<String>,
}

impl Place {
    pub(crate) fn new(settings: &Settings, arguments: &[&str]) -> Result<Place, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        std::fs::write(dir.path().join("rules.yaml"), RULE).map_err(|error| error.to_string())?;
        Ok(Place {
            settings: settings.clone(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            dir,
            told: Arc::default(),
            lines: Arc::default(),
        })
    }

    /// The same place with other arguments.
    pub(crate) fn with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    }

    /// Numbers of the attempts that were told of so far, in their order.
    pub(crate) fn told(&self) -> Vec<u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Alert lines that are of no numbered attempt.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn command(&self) -> Command {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = self.settings.command();
        command.args(["--rules", &at("rules.yaml"), "--listen", "127.0.0.1:0"]);
        command.args(["--control-socket", &at("control.sock")]);
        command.arg("--set").arg(format!("state_dir={}", at("state"))).args(&self.arguments);
        command
    }

    /// Starts the next one and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Process, String> {
        self.start_and(|_| Ok(()))
    }

    /// The same, and looks at it from when it listens.
    pub(crate) fn start_and(
        &self,
        meanwhile: impl FnOnce(&Process) -> Result<(), String>,
    ) -> Result<Process, String> {
        let started = Instant::now();
        let mut process = self.begin()?;
        let line = process.await_log("listening")?;
        process.address = line
            .split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':')))
            .find(|word| word.starts_with("127.0.0.1:"))
            .ok_or(format!("no address in: {line}"))?
            .to_owned();
        meanwhile(&process)?;
        process.await_log(" ready attach=")?;
        process.ready_after = started.elapsed();
        Ok(process)
    }

    /// Starts the next one and waits for nothing.
    pub(crate) fn begin(&self) -> Result<Process, String> {
        let mut child = self.command().spawn().map_err(|error| format!("ringfence: {error}"))?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("no pipes".to_owned());
        };
        let (told, lines) = (Arc::clone(&self.told), Arc::clone(&self.lines));
        let alerts = std::thread::spawn(move || {
            for line in BufReader::with_capacity(1 << 20, out).lines().map_while(Result::ok) {
                match number(&line) {
                    Some(number) => told.lock().unwrap_or_else(PoisonError::into_inner).push(number),
                    None => lines.lock().unwrap_or_else(PoisonError::into_inner).push(line),
                }
            }
        });
        let (send, log) = mpsc::channel();
        let logs = std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                // Who waits for no more lines has what it wanted.
                let _ = send.send(line);
            }
        });
        Ok(Process {
            child,
            log,
            readers: vec![alerts, logs],
            address: String::new(),
            ready_after: Duration::ZERO,
            handed: None,
        })
    }

    /// `ringfence unpin`, which must succeed or not.
    pub(crate) fn unpin(&self, fs: &BpfFs, succeeds: bool) -> Result<String, String> {
        let mut command = Command::new(&self.settings.ringfence);
        command.args(["unpin", "--pin-dir", &fs.path()]);
        let output = command.output().map_err(|error| format!("ringfence: {error}"))?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() == succeeds { Ok(said) } else { Err(format!("unpin: {said}")) }
    }
}

/// The number of the attempt that an alert line tells of.
fn number(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("n=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().ok()?.checked_sub(BASE)
}

impl Process {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for a line of its log.
    pub(crate) fn await_log(&mut self, wanted: &str) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        let mut log = Vec::new();
        loop {
            let line = self.log.recv_timeout(end.saturating_duration_since(Instant::now()));
            match line {
                Ok(line) if line.contains(wanted) => return Ok(line),
                Ok(line) if line.contains("of what was replaced") => self.handed = Some(line),
                Ok(line) => log.push(line),
                Err(_) => return Err(format!("`{wanted}` is not in the log:\n{}", log.join("\n"))),
            }
        }
    }

    pub(crate) fn metrics(&self) -> Result<Metrics, String> {
        let (status, text) = http::get(&self.address, "/metrics").map_err(|error| error.to_string())?;
        if status == 200 { Ok(Metrics::new(text)) } else { Err(format!("/metrics answers {status}")) }
    }

    /// Sends it this signal, and waits for nothing.
    pub(crate) fn send(&self, signal: i32) {
        // SAFETY: the process is our child and not yet waited for, so the id is still its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Ends it by this signal, and waits until everything that it wrote was read. Gives its log.
    pub(crate) fn stop(mut self, signal: i32) -> Result<String, String> {
        self.send(signal);
        let status = wait(&mut self.child)?;
        for reader in self.readers.drain(..) {
            reader.join().map_err(|_| "a reader of the daemon's output panicked")?;
        }
        let log: Vec<String> = self.log.try_iter().collect();
        let log = log.join("\n");
        let is_fine = status.success() || (signal == libc::SIGKILL && status.signal() == Some(signal));
        if is_fine && !log.contains("panicked") { Ok(log) } else { Err(format!("{status}\n{log}")) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
