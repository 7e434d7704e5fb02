//! Running other programs: simply, or with a log, a limit on time and a limit on silence.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a command in the foreground; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed: {status}", command.get_program());
    }
    Ok(())
}

/// Runs a command and returns its standard output; an exit code other than 0 is an error with its last words.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !result.status.success() {
        let errors = String::from_utf8_lossy(&result.stderr);
        let last = errors.lines().last().unwrap_or("no message").to_owned();
        bail!("{:?} failed: {}: {last}", command.get_program(), result.status);
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// When to give up on a command.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// From start to end.
    pub(crate) total: Duration,
    /// Without a line of output.
    pub(crate) silence: Duration,
}

/// How a logged command ended.
pub(crate) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// By us, for the reason given.
    Killed(String),
}

/// Runs a command whose output, both streams, goes line by line to `log`, each line with the seconds since the
/// start before it, and to `on_line`, as it came.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &Path,
    limits: Limits,
    mut on_line: impl FnMut(&str),
) -> Result<End> {
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (reader, writer) = io::pipe()?;
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {program:?}"))?;
    // The command holds the pipe's writing end too: without this the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = sync_channel(1024);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });

    let start = Instant::now();
    let mut last_line = start;
    let mut exited: Option<(ExitStatus, Instant)> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                last_line = Instant::now();
                writeln!(file, "{:7.1} {line}", start.elapsed().as_secs_f64())?;
                on_line(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Exited(child.wait()?)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if exited.is_none() {
            exited = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        // A grandchild may keep the pipe open after the command itself is gone.
        if let Some((status, since)) = exited
            && since.elapsed() > Duration::from_secs(2)
            && last_line.elapsed() > Duration::from_secs(1)
        {
            return Ok(End::Exited(status));
        }
        let reason = if start.elapsed() > limits.total {
            format!("stopped after {} s", limits.total.as_secs())
        } else if last_line.elapsed() > limits.silence {
            format!("stopped after {} s without output", limits.silence.as_secs())
        } else {
            continue;
        };
        child.kill()?;
        child.wait()?;
        writeln!(file, "xtask: {reason}")?;
        return Ok(End::Killed(reason));
    }
}
