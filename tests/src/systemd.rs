//! A real systemd as the first process: its answers, and Ringfence in the sandbox of the shipped unit.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The shipped service.
pub const SERVICE: &str = "ringfence.service";
/// The socket of its metrics.
pub const SOCKET: &str = "ringfence.socket";
/// Where packages have units.
const SHIPPED: &str = "/usr/lib/systemd/system";
/// Where units are that end with the boot.
const RUNTIME: &str = "/run/systemd/system";
/// The first port of copies of the service.
const FIRST_PORT: u32 = 20_000;
/// How long systemd may take for what it was asked, on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `systemctl` and gives what it wrote.
///
/// # Errors
/// What it complained about.
pub fn systemctl(arguments: &[&str]) -> Result<String, String> {
    output(Command::new("systemctl").args(arguments))
}

/// What a unit's property says.
///
/// # Errors
/// As [`systemctl`].
pub fn property(unit: &str, name: &str) -> Result<String, String> {
    systemctl(&["show", "--value", "--property", name, unit]).map(|text| text.trim().to_owned())
}

/// Waits until a unit's property is as wanted, and gives it.
///
/// # Errors
/// What it was when two minutes were over, with the unit's last lines in the journal.
pub fn await_property(unit: &str, name: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let value = property(unit, name)?;
        if wanted(&value) {
            return Ok(value);
        }
        if Instant::now() > end {
            return Err(format!("{name} of {unit} is {value}\n{}", journal(unit)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The process of a service that runs.
///
/// # Errors
/// It runs none.
pub fn main_pid(unit: &str) -> Result<i32, String> {
    let pid = property(unit, "MainPID")?;
    match pid.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(format!("{unit} has the process {pid:?}\n{}", journal(unit))),
    }
}

/// The number of a user of this machine.
///
/// # Errors
/// There is no such user.
pub fn user_id(name: &str) -> Result<u32, String> {
    let users = fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let fields =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let id = fields.as_ref().and_then(|fields| fields.get(2)).and_then(|id| id.parse().ok());
    id.ok_or_else(|| format!("there is no user {name}:\n{users}"))
}

/// What a unit wrote, as the journal has it.
pub fn journal(unit: &str) -> String {
    output(Command::new("journalctl").args(["--no-pager", "--output", "cat", "--unit", unit]))
        .unwrap_or_else(|fault| fault)
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{program}: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Makes copies of the shipped service, one for each daemon of the suite. They differ from it by what two daemons cannot
/// share, by where they write to, by staying down when they end, and by the suite's patience in place of the watchdog's: the
/// sandbox is the same to the letter.
#[derive(Debug, Default)]
pub struct Services {
    started: AtomicU32,
}

/// One copy.
#[derive(Debug)]
pub struct Service {
    /// Without `.service`.
    name: String,
    /// Of the two pipes that it writes to.
    pipes: TempDir,
    pid: i32,
}

impl Services {
    /// A copy that runs with these arguments, and the command that starts it and hands on what it writes.
    ///
    /// # Errors
    /// The units cannot be written, or systemd does not take them.
    pub fn command(&self, attach: &str, arguments: &[&str]) -> Result<(Command, Service), String> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let pipes = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let service = Service { name: format!("ringfence-{number}"), pipes, pid: 0 };
        let [out, err] = ["out", "err"].map(|name| service.pipes.path().join(name));
        for pipe in [&out, &err] {
            make_pipe(pipe).map_err(|error| format!("{}: {error}", pipe.display()))?;
        }
        service.write_units(FIRST_PORT + number, attach, arguments)?;
        systemctl(&["daemon-reload"])?;
        // A unit that fails before it writes would leave the readers waiting.
        const RELAY: &str = "cat \"$0\" & out=$!; cat \"$1\" >&2 & err=$!; \
             systemctl start \"$2\" || { systemctl status --no-pager --full \"$2\" >&2; kill $out $err; }; wait";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", RELAY]).args([&out, &err]).arg(service.unit());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok((command, service))
    }
}

impl Service {
    fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    fn write_units(&self, port: u32, attach: &str, arguments: &[&str]) -> Result<(), String> {
        let shipped = |name: &str| {
            let path = Path::new(SHIPPED).join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let own = |text: String| {
            text.replace(SERVICE, &self.unit()).replace(SOCKET, &format!("{}.socket", self.name))
        };
        let mut words =
            vec!["/usr/bin/ringfence", "run", "--output", "json", "--no-color", "--attach", attach];
        let (state, control) = (format!("state_dir=/var/lib/ringfence/{}", self.name), self.control_socket());
        let control = control.to_string_lossy();
        words.extend(["--set", &state, "--control-socket", &control, "--no-pin"]);
        words.extend(arguments);
        let line = words.into_iter().map(quoted).collect::<Vec<_>>().join(" ");
        let [out, err] = ["out", "err"].map(|name| self.pipes.path().join(name));
        let change = format!(
            "[Service]\nExecStart=\nExecStart={line}\nRestart=no\nWatchdogSec=0\nTimeoutStartSec=120\nStandardOutput=file:{}\nStandardError=file:{}\n",
            out.display(),
            err.display()
        );
        let listen = format!("[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n");
        for (kind, changed) in [("service", change), ("socket", listen)] {
            let name = format!("{}.{kind}", self.name);
            let text = own(shipped(&format!("ringfence.{kind}"))?);
            let directory = Path::new(RUNTIME).join(format!("{name}.d"));
            fs::create_dir_all(&directory)
                .and_then(|()| fs::write(Path::new(RUNTIME).join(name), text))
                .and_then(|()| fs::write(directory.join("suite.conf"), changed))
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(())
    }

    /// Finds its process, once it runs.
    ///
    /// # Errors
    /// It runs none.
    pub fn enter(&mut self) -> Result<(), String> {
        self.pid = main_pid(&self.unit())?;
        Ok(())
    }

    /// Its process; 0 before [`Service::enter`].
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The daemon's control socket.
    pub fn control_socket(&self) -> PathBuf {
        Path::new("/run/ringfence").join(format!("{}.sock", self.name))
    }

    /// How its process ended, by systemd's word.
    ///
    /// # Errors
    /// It has not ended.
    pub fn ended(&self) -> Result<ExitStatus, String> {
        let unit = self.unit();
        await_property(&unit, "ActiveState", |state| ["inactive", "failed"].contains(&state))?;
        let number = |name| {
            let text = property(&unit, name)?;
            text.parse::<i32>().map_err(|error| format!("{name} of {unit} is {text:?}: {error}"))
        };
        let code = number("ExecMainCode")?;
        let status = number("ExecMainStatus")?;
        // As `siginfo_t` has it.
        match code {
            libc::CLD_EXITED => Ok(ExitStatus::from_raw(status << 8)),
            libc::CLD_KILLED | libc::CLD_DUMPED => Ok(ExitStatus::from_raw(status)),
            _ => Err(format!("{unit} ran nothing: ExecMainCode is {code}")),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its socket would start it again for whoever connects.
        let (service, socket) = (self.unit(), format!("{}.socket", self.name));
        let _ = systemctl(&["stop", &socket, &service]);
        for unit in [service, socket] {
            let _ = fs::remove_dir_all(Path::new(RUNTIME).join(format!("{unit}.d")));
            let _ = fs::remove_file(Path::new(RUNTIME).join(unit));
        }
    }
}

/// A word of `ExecStart=` that stands for itself.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '$' | '%' => text.extend([letter, letter]),
            letter => text.push(letter),
        }
    }
    text + "\""
}

fn make_pipe(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a string that ends in NUL.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_themselves() {
        assert_eq!(quoted(r#"a={b: "c\d", e: 5%, f: $g}"#), r#""a={b: \"c\\d\", e: 5%%, f: $$g}""#);
    }
}
