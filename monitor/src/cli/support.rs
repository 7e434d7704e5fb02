//! `ringfence support`: what somebody needs to help from afar, in one archive, without secrets.
//!
//! Three things keep secrets out. Only what is listed is put in, and of the log only lines of the log: what stands
//! between them, such as alerts with command lines, is left out. Settings go in as `config dump` shows them. And whatever
//! is known to be a secret is looked for in every part, and taken out.

mod facts;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::containers::failure;
use crate::cli::rules::visible;
use crate::cli::{ConfigArg, Failure, doctor, emit};
use crate::config::{self, Listen, Loaded, OutputFormat, Secret};
use crate::control::{self, Reply, Request, rfc3339};
use crate::preflight::Check;
use crate::telling::unix_now;

/// Bytes of a part, at most; of a log, the last.
const MAX_PART: u64 = 8 << 20;
/// Lines of the log, at most.
const MAX_LINES: &str = "20000";
/// How long asking for metrics, or for the log, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// As a file's name, means standard input or output.
const STREAM: &str = "-";
/// Stands for a secret that was found.
const REMOVED: &str = "(secret removed)";

/// Arguments of `support`.
#[derive(Debug, Args)]
pub struct SupportArgs {
    /// The archive, which must not exist yet; `-` writes it to standard output [default: ringfence-support-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// File with the daemon's log, if the journal of `ringfence.service` has it not; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Control socket of the daemon instead of the configured one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
}

/// A file of the archive.
#[derive(Debug)]
struct Part {
    name: &'static str,
    /// What it is, for whoever looks into the archive before it is sent.
    about: &'static str,
    text: String,
}

impl SupportArgs {
    /// Makes the archive and lists what is in it.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub(super) fn run(self, probe_checks: fn(bool) -> Vec<Check>) -> Result<(), Failure> {
        let loaded = self.config.loaded();
        let mut parts = Vec::new();
        let secrets = match &loaded {
            Ok(loaded) => {
                let socket = self.socket.as_deref().or(loaded.settings.control_socket.path());
                settings_and_state(loaded, socket, &mut parts);
                loaded.secrets()
            }
            // A configuration that is wrong is shown nowhere: what is wrong with it may be a secret.
            Err(_) => {
                let text = "the configuration is wrong; `ringfence check` says how\n".to_owned();
                parts.push(Part { name: "config.yaml", about: "the effective settings", text });
                Vec::new()
            }
        };
        let mut checks = crate::preflight::checks();
        checks.extend(probe_checks(false));
        let text = doctor::table(&checks, false);
        parts.push(Part { name: "doctor.txt", about: "what `ringfence doctor` says", text });
        parts.push(Part {
            name: "kernel.txt",
            about: "the machine: kernel, its settings, memory",
            text: facts::text(),
        });
        parts.push(Part {
            name: "log.txt",
            about: "lines of the daemon's log; no alerts",
            text: log(self.log.as_deref()),
        });
        let parts = scrubbed(parts, &secrets);
        match self.output {
            Some(path) if path == Path::new(STREAM) => {
                to_stream(&parts, &mut io::stdout().lock(), &mut io::stderr())
            }
            path => to_file(&parts, &path.unwrap_or_else(default_name)),
        }
    }
}

/// Makes the archive in a new file, and lists on standard output what is in it.
fn to_file(parts: &[Part], path: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        let path = path.display();
        Failure::environment(format_args!("cannot write {path}: {error}; name another file with -o, or -o -"))
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    write(parts, file).map_err(cannot)?;
    emit(&(listing(parts) + &visible(&format!("written to {}", path.display())) + "\n"))
}

/// Writes the archive, as in a container where no file can be made, and lists beside it what is in it.
fn to_stream(parts: &[Part], archive: &mut impl Write, list: &mut impl Write) -> Result<(), Failure> {
    write(parts, archive).map_err(|error| Failure::stdout(&error))?;
    // The archive is out, whether or not somebody reads the list.
    let _ = list.write_all(listing(parts).as_bytes());
    Ok(())
}

fn default_name() -> PathBuf {
    let time: String = rfc3339(unix_now()).chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    format!("ringfence-support-{time}Z.tar.gz").into()
}

/// The settings, and what the running daemon says.
fn settings_and_state(loaded: &Loaded, socket: Option<&Path>, parts: &mut Vec<Part>) {
    let text = config::yaml(&loaded.shown());
    parts.push(Part { name: "config.yaml", about: "the effective settings, without secrets", text });
    let ask = |request: Request| match socket {
        None => "the configuration says `control_socket: off`\n".to_owned(),
        Some(path) => match control::ask(path, request) {
            Ok(Reply::Status(status)) => super::status::show(&status, OutputFormat::Json),
            Ok(reply) => serde_json::to_string_pretty(&reply).unwrap_or_default() + "\n",
            Err(error) => failure(error).to_string(),
        },
    };
    let text = ask(Request::Status {});
    parts.push(Part {
        name: "status.json",
        about: "what `ringfence status` says: rule files, totals, outputs",
        text,
    });
    let text = ask(Request::Top { container: None });
    parts.push(Part { name: "top.json", about: "containers by name and image, with counts", text });
    let text = match loaded.settings.listen {
        Listen::Off => "the configuration says `listen: off`\n".to_owned(),
        Listen::On(address) => {
            get(address, "/metrics").unwrap_or_else(|error| format!("no metrics from {address}: {error}\n"))
        }
    };
    parts.push(Part { name: "metrics.txt", about: "what Prometheus would read", text });
}

/// The body of an answer over HTTP.
fn get(address: std::net::SocketAddr, page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_PART).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("no answer that is one")),
    }
}

/// Lines of the log: of a file, or of the journal.
fn log(file: Option<&Path>) -> String {
    let read = match file {
        Some(path) if path == Path::new(STREAM) => last_read(io::stdin().lock()),
        Some(path) => last_of(path),
        None => journal(),
    };
    match read {
        Ok(text) => log_lines(&text),
        Err(error) => format!("no log: {error}; name a file with --log\n"),
    }
}

/// The end of a file.
fn last_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_PART)))?;
    let mut bytes = Vec::new();
    file.take(MAX_PART).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of what can only be read once.
fn last_read(mut from: impl io::Read) -> io::Result<String> {
    let most = MAX_PART as usize;
    let mut bytes = Vec::new();
    // In pieces, so that it never holds more than twice of what is wanted.
    while from.by_ref().take(MAX_PART).read_to_end(&mut bytes)? > 0 {
        bytes.drain(..bytes.len().saturating_sub(most));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the journal has of the unit.
fn journal() -> io::Result<String> {
    let mut child = Command::new("journalctl")
        .args(["--unit=ringfence.service", "--no-pager", "--quiet", "--output=cat", "--lines", MAX_LINES])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = out.map(|out| out.take(MAX_PART).read_to_end(&mut bytes));
        read.transpose().map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let end = Instant::now() + PATIENCE;
    while !reader.is_finished() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    // It has ended, or takes too long, or has more to say than is wanted.
    let _ = child.kill();
    let _ = child.wait();
    reader.join().map_err(|_| io::Error::other("the journal could not be read"))?
}

/// Lines as the log writes them, `TIME LEVEL text`, and nothing else: alerts that went to the same place have another
/// form, and no alert holds a line feed.
fn log_lines(text: &str) -> String {
    let is_log = |line: &&str| {
        let mut words = line.split_whitespace();
        let is_time =
            |word: &str| word.len() >= 20 && word.ends_with('Z') && word.as_bytes().get(10) == Some(&b'T');
        words.next().is_some_and(is_time)
            && words.next().is_some_and(|word| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&word))
    };
    let mut out = String::new();
    let mut others = 0_u64;
    for line in text.lines() {
        if is_log(&line) {
            out.push_str(&visible(line));
            out.push('\n');
        } else {
            others += 1;
        }
    }
    out + &format!("({others} lines that are none of the log's, such as alerts, were left out)\n")
}

/// Takes out of every part whatever is known to be a secret.
fn scrubbed(mut parts: Vec<Part>, secrets: &[Secret]) -> Vec<Part> {
    for secret in secrets {
        for part in &mut parts {
            if let Some(text) = secret.taken_out(&part.text, REMOVED) {
                part.text = text;
            }
        }
    }
    parts
}

/// What is in the archive, a line each.
fn listing(parts: &[Part]) -> String {
    parts.iter().map(|part| format!("{:12} {:>8}  {}\n", part.name, part.text.len(), part.about)).collect()
}

fn write(parts: &[Part], file: impl Write) -> io::Result<()> {
    let contents = format!(
        "A support bundle of ringfence {}, made {}. What is in it:\n\n{}\nLook through it before you send it.\n",
        env!("CARGO_PKG_VERSION"),
        rfc3339(unix_now()),
        listing(parts)
    );
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let all = [("contents.txt", contents.as_str())];
    for (name, text) in all.into_iter().chain(parts.iter().map(|part| (part.name, part.text.as_str()))) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime((unix_now() / 1_000_000_000).unsigned_abs());
        archive.append_data(&mut header, format!("ringfence-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

#[cfg(test)]
mod tests;
