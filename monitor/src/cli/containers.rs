//! `ringfence containers`: what a running daemon knows about containers.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use unicode_width::UnicodeWidthChar as _;

use crate::alert::json_visible;
use crate::cli::rules::visible;
use crate::cli::{ConfigArg, Failure};
use crate::config::OutputFormat;
use crate::control::{self, ClientError, ContainerInfo, Listing, Reply, Request};

/// Stands where nothing is known.
const UNKNOWN: &str = "-";
/// Between two columns.
const GAP: usize = 2;
/// Columns are not made narrower than this.
const NARROWEST: usize = 8;
/// Stands where a text was cut.
const CUT: char = '…';

/// Asks the daemon.
pub(super) fn ask(socket: Option<PathBuf>, config: &ConfigArg) -> Result<Listing, Failure> {
    match ask_daemon(socket, config, Request::Containers {})? {
        Reply::Containers(listing) => Ok(listing),
        _ => Err(other_answer()),
    }
}

/// A daemon that answers another question than the one asked.
pub(super) fn other_answer() -> Failure {
    Failure::environment("what answers is no Ringfence, or one of another version; check --socket")
}

/// Asks the daemon at this socket, or at the configured one.
pub(super) fn ask_daemon(
    socket: Option<PathBuf>,
    config: &ConfigArg,
    request: Request,
) -> Result<Reply, Failure> {
    let path = self::socket(socket, config)?;
    match control::ask(&path, request).map_err(failure)? {
        Reply::Error(refusal) => Err(Failure::environment(visible(&refusal.message))),
        reply => Ok(reply),
    }
}

/// This control socket, or the configured one.
pub(super) fn socket(socket: Option<PathBuf>, config: &ConfigArg) -> Result<PathBuf, Failure> {
    if let Some(path) = socket {
        return Ok(path);
    }
    match config.settings()?.control_socket.path() {
        Some(path) => Ok(path.to_owned()),
        None => Err(Failure::environment(
            "the configuration says `control_socket: off`; name a socket with --socket PATH",
        )),
    }
}

/// What the daemon says may hold anything, if it is another program.
pub(super) fn failure(error: ClientError) -> Failure {
    Failure::environment(visible(&error.to_string()))
}

/// Columns of the terminal on standard output; `None` if it is none, or does not say.
pub(super) fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// All containers; a table of at most so many columns, or JSON.
pub(super) fn list(containers: &[ContainerInfo], output: OutputFormat, columns: Option<usize>) -> String {
    match output {
        OutputFormat::Json => {
            // Only a map with keys that are no texts can fail.
            let json = serde_json::to_string_pretty(containers).unwrap_or_default();
            json_visible(&json) + "\n"
        }
        OutputFormat::Text => table(containers, columns),
    }
}

struct Column {
    title: &'static str,
    /// Gives room when the terminal is too narrow.
    gives: bool,
    /// Shown also if no container has a value.
    always: bool,
    value: fn(&ContainerInfo) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "CONTAINER", gives: false, always: true, value: |info| short(&info.id) },
    Column { title: "NAME", gives: true, always: true, value: |info| or_unknown(info.name.as_deref()) },
    Column { title: "IMAGE", gives: true, always: true, value: |info| or_unknown(info.image.as_deref()) },
    Column { title: "RUNTIME", gives: false, always: true, value: |info| info.runtime.clone() },
    Column { title: "POD", gives: true, always: false, value: pod },
    Column { title: "PHASE", gives: false, always: true, value: |info| info.phase.name().to_owned() },
    Column { title: "NAMESPACES", gives: true, always: true, value: namespaces },
    Column { title: "CGROUP", gives: false, always: true, value: |info| info.cgroup_id.to_string() },
    Column { title: "INSIDE", gives: false, always: false, value: inside },
];

/// Ids of most runtimes are 64 digits, of which their own tools show 12. Names that stand for ids are shown whole.
pub(super) fn short(id: &str) -> String {
    let digits = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    id.get(..12).filter(|_| digits).unwrap_or(id).to_owned()
}

fn or_unknown(text: Option<&str>) -> String {
    text.unwrap_or(UNKNOWN).to_owned()
}

/// The pod as `namespace/name`, otherwise its UID.
fn pod(info: &ContainerInfo) -> String {
    let Some(pod) = &info.pod else { return UNKNOWN.to_owned() };
    match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.clone(),
        (_, None) => or_unknown(pod.uid.as_deref()),
    }
}

/// Which of the known namespaces are not its own.
fn namespaces(info: &ContainerInfo) -> String {
    match (info.namespaces.is_empty(), info.host_namespaces.as_slice()) {
        (true, _) => UNKNOWN.to_owned(),
        (false, []) => "own".to_owned(),
        (false, kinds) => format!("host: {}", kinds.join(",")),
    }
}

fn inside(info: &ContainerInfo) -> String {
    info.chain.get(1).map_or(UNKNOWN.to_owned(), |outer| short(outer))
}

fn table(containers: &[ContainerInfo], columns: Option<usize>) -> String {
    if containers.is_empty() {
        return "no containers\n".to_owned();
    }
    let mut shown: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .map(|column| (column, containers.iter().map(|info| cell(&(column.value)(info))).collect()))
        .collect();
    shown.retain(|(column, cells)| column.always || cells.iter().any(|cell| cell != UNKNOWN));
    let mut widths: Vec<usize> = shown
        .iter()
        .map(|(column, cells)| cells.iter().map(|cell| width(cell)).fold(column.title.len(), usize::max))
        .collect();
    if let Some(columns) = columns {
        let gives: Vec<bool> = shown.iter().map(|(column, _)| column.gives).collect();
        shrink(&mut widths, &gives, columns);
    }
    let mut text = String::new();
    let titles = shown.iter().map(|(column, _)| column.title);
    line(&mut text, titles, &widths, columns);
    for row in 0..containers.len() {
        let cells = shown.iter().map(|(_, cells)| cells.get(row).map_or("", String::as_str));
        line(&mut text, cells, &widths, columns);
    }
    text
}

/// Takes room from the widest of the columns that give, until the rest fits or none has more to give.
fn shrink(widths: &mut [usize], gives: &[bool], columns: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(columns);
        let widest = widths
            .iter_mut()
            .zip(gives)
            .filter(|(width, gives)| **gives && **width > NARROWEST)
            .map(|(width, _)| width)
            .max();
        match widest {
            Some(width) if excess > 0 => *width -= 1,
            _ => return,
        }
    }
}

/// One row. What does not fit the terminal even so is cut off.
fn line<'c>(
    text: &mut String,
    cells: impl Iterator<Item = &'c str>,
    widths: &[usize],
    columns: Option<usize>,
) {
    let mut row = String::new();
    for (number, (cell, columns)) in cells.zip(widths).enumerate() {
        if number > 0 {
            row.push_str(&" ".repeat(GAP));
        }
        let cell = fit(cell, *columns);
        row.push_str(&cell);
        row.push_str(&" ".repeat(columns.saturating_sub(width(&cell))));
    }
    let row = row.trim_end();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", columns.map_or(row.to_owned(), |columns| fit(row, columns)));
}

/// A text as a table may have it. Besides controls, what takes no column would make a text look like another one.
pub(super) fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in visible(text).chars() {
        if c.width().is_none_or(|width| width == 0) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    if out.is_empty() { UNKNOWN.to_owned() } else { out }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text, cut if it takes more than so many columns.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        out.push(c);
    }
    if columns > 0 {
        out.push(CUT);
    }
    out
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod tests;
