//! Settings: built-in values, then the configuration file, then its drop-ins, then the environment, then the command
//! line.
//!
//! Files are YAML. Whoever can write them decides what is watched, so a file that others than its owner
//! can write is refused, as is an unknown key: a misspelt setting must not be a silent one.

mod assign;
mod dump;
mod environment;
mod file;
mod hostname;
mod layers;
mod outputs;
mod pin_dir;
mod secrets;
mod state_dir;
mod veil;

pub use assign::Assignment;
pub use dump::{Shown, json, yaml};
pub use file::{ConfigError, FileConfig};
#[cfg(test)]
pub(crate) use layers::loaded_with_written;
pub use layers::{Loaded, Origin};
pub use outputs::{
    DEFAULT_SPOOL_BYTES, MAX_OUTPUTS, OutputConfig, OutputKind, QUEUE_BYTES, SPOOL_BYTES, SpoolConfig,
    StdoutConfig, StdoutFormat, check_outputs,
};
pub use pin_dir::{DEFAULT_PIN_DIR, PinChoice};
pub use secrets::Secret;
pub use state_dir::{DEFAULT_STATE_DIR, StateDir, check_unused_series};

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use crate::confine::Confine;
use crate::control::ControlSocket;
use crate::enrich::metadata::Roots;
use crate::hierarchy::HierarchyChoice;
use crate::rules::{AppendOutput, GroupDefault, LoadOptions, Priority, Selection};
use crate::trust::Trust;

/// The configuration file that is read when none is named. It may be missing.
pub const DEFAULT_CONFIG: &str = "/etc/ringfence/config.yaml";

/// Drop-ins, `*.yaml` in the order of their names; each setting in them replaces the earlier one. They
/// belong to [`DEFAULT_CONFIG`]: a configuration named on the command line stands alone.
pub const DROP_IN_DIR: &str = "/etc/ringfence/config.d";

/// Where rules are looked for when none are named: the shipped ones, then the local ones.
pub const DEFAULT_RULES: [&str; 2] = ["/usr/share/ringfence/rules", "/etc/ringfence/rules.d"];

/// Where metrics and health are served unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

/// Size of the ring buffer unless told otherwise, in bytes.
pub const DEFAULT_RING_BYTES: u32 = 4 << 20;

/// Smallest and largest ring buffer, in bytes.
pub const RING_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// Entries of the process table unless told otherwise.
pub const DEFAULT_PROCESS_TABLE_ENTRIES: u32 = 65_536;

/// Smallest and largest process table, in entries.
pub const PROCESS_TABLE_ENTRIES: std::ops::RangeInclusive<u64> = 1024..=4_194_304;

/// Milliseconds between two rounds of canaries unless told otherwise.
pub const DEFAULT_CANARY_INTERVAL_MS: u32 = 1000;

/// Shortest and longest time between two rounds of canaries, in milliseconds. A round needs most of a second to
/// be judged; a longer interval finds blindness later.
pub const CANARY_INTERVAL_MS: std::ops::RangeInclusive<u64> = 1000..=60_000;

/// How long an alert waits for its container's name unless told otherwise, in milliseconds.
pub const DEFAULT_METADATA_WAIT_MS: u32 = 250;

/// The longest that an alert may wait for its container's name, in milliseconds.
pub const MAX_METADATA_WAIT_MS: u64 = 5000;

/// Bytes of recorded events that are kept unless told otherwise, if events are recorded at all.
pub const DEFAULT_RECORD_BYTES: u64 = 256 << 20;

/// How often the hooks are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryInterval {
    /// Never: blindness is not noticed.
    Off,
    /// Each so many milliseconds, within [`CANARY_INTERVAL_MS`].
    Every(u32),
}

impl FromStr for CanaryInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(CanaryInterval::Off);
        }
        let (least, most) = (CANARY_INTERVAL_MS.start(), CANARY_INTERVAL_MS.end());
        match text.parse() {
            Ok(ms) if CANARY_INTERVAL_MS.contains(&ms) => Ok(CanaryInterval::Every(ms as u32)),
            _ => Err(format!(
                "`{text}` is no interval of canaries: it is off, or from {least} to {most} milliseconds"
            )),
        }
    }
}

/// How probes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AttachChoice {
    /// The first of the two that this machine allows.
    #[default]
    Auto,
    /// On the watched calls themselves: no other call pays anything.
    Trampoline,
    /// On every system call's exit: works nearly everywhere.
    Tracepoint,
}

/// How alerts are written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
}

/// Where metrics and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On this address; port 0 lets the kernel choose one.
    On(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        text.parse().map(Listen::On).map_err(|_| {
            format!("`{text}` is neither ADDRESS:PORT, such as 127.0.0.1:9477 or [::1]:9477, nor off")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::On(address) => address.fmt(f),
        }
    }
}

/// Everything that can be set, after all sources were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How probes are attached.
    pub attach: AttachChoice,
    /// Refuse to start if any probe does not attach.
    pub strict: bool,
    /// Note which system calls each container makes, for which each call of the machine pays.
    pub syscall_sets: bool,
    /// Have the kernel measure what the probes cost, for which each run of a BPF program of the machine pays.
    pub probe_cost: bool,
    /// Rule files and directories. [`Settings::rule_paths`] knows what an empty list means.
    pub rules: Vec<PathBuf>,
    /// Read rules anew when their files change; without it only on SIGHUP.
    pub watch_rules: bool,
    /// What is enabled and disabled, in order, whatever the rule files say.
    pub rule_selection: Vec<Selection>,
    /// What is added to the outputs of rules.
    pub append_output: Vec<AppendOutput>,
    /// How alerts are written to standard output; none: text on a terminal, JSON elsewhere.
    pub output: Option<OutputFormat>,
    /// The host's name in alerts; none: what the kernel says.
    pub hostname: Option<String>,
    /// A file that gets every alert as a JSON line.
    pub alert_file: Option<PathBuf>,
    /// Where alerts go besides; see [`check_outputs`].
    pub outputs: Vec<OutputConfig>,
    /// A directory in which every event is recorded; none: nothing is.
    pub record_dir: Option<PathBuf>,
    /// Bytes that the recordings there may have together, within [`RING_BYTES`](crate::recording::RING_BYTES).
    pub record_bytes: u64,
    /// Where metrics and health are served.
    pub listen: Listen,
    /// Where questions to the daemon are answered.
    pub control_socket: ControlSocket,
    /// Size of the ring buffer in bytes: a power of two within [`RING_BYTES`], whole pages.
    pub ring_bytes: u32,
    /// Rules below this priority raise no alert.
    pub min_priority: Priority,
    /// Alerts say why their rule matched.
    pub alert_why: bool,
    /// How alerts are held together of rules that do not say so themselves.
    pub group: GroupDefault,
    /// No colours on the terminal.
    pub no_color: bool,
    /// Entries of the process table, within [`PROCESS_TABLE_ENTRIES`].
    pub process_table_entries: u32,
    /// The cgroup hierarchy by which containers are known.
    pub cgroup_hierarchy: HierarchyChoice,
    /// How often the hooks are tested.
    pub canary_interval: CanaryInterval,
    /// How long an alert waits for its container's name, in milliseconds: at most [`MAX_METADATA_WAIT_MS`], 0 for
    /// not at all.
    pub metadata_wait_ms: u32,
    /// Where the host's files and the state of its container runtimes are.
    pub roots: Roots,
    /// Where what must outlive the daemon is kept.
    pub state_dir: StateDir,
    /// Where probes and maps are pinned, so that the next process takes them over.
    pub pin_dir: PinChoice,
    /// Series of the metric `capability_unused_info`, at most; 0 for none.
    pub capability_unused_series: u32,
    /// What the daemon takes from itself once it has attached.
    pub confine: Confine,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attach: AttachChoice::Auto,
            strict: false,
            syscall_sets: false,
            probe_cost: false,
            rules: Vec::new(),
            watch_rules: true,
            rule_selection: Vec::new(),
            append_output: Vec::new(),
            output: None,
            hostname: None,
            alert_file: None,
            outputs: Vec::new(),
            record_dir: None,
            record_bytes: DEFAULT_RECORD_BYTES,
            listen: Listen::On(DEFAULT_LISTEN),
            control_socket: ControlSocket::default(),
            ring_bytes: DEFAULT_RING_BYTES,
            min_priority: Priority::Debug,
            alert_why: false,
            group: GroupDefault::default(),
            no_color: false,
            process_table_entries: DEFAULT_PROCESS_TABLE_ENTRIES,
            cgroup_hierarchy: HierarchyChoice::Auto,
            canary_interval: CanaryInterval::Every(DEFAULT_CANARY_INTERVAL_MS),
            metadata_wait_ms: DEFAULT_METADATA_WAIT_MS,
            roots: Roots::default(),
            state_dir: StateDir::default(),
            pin_dir: PinChoice::default(),
            capability_unused_series: 0,
            confine: Confine::default(),
        }
    }
}

impl Settings {
    /// How rules are loaded with these settings.
    pub fn load_options(&self, trust: Trust) -> LoadOptions {
        LoadOptions {
            trust,
            selection: self.rule_selection.clone(),
            append_output: self.append_output.clone(),
            group: self.group.clone(),
            ..LoadOptions::default()
        }
    }

    /// The rule paths to load: those that were set, otherwise those of [`DEFAULT_RULES`] that exist and hold
    /// a rule file.
    pub fn rule_paths(&self) -> Vec<PathBuf> {
        if self.rules.is_empty() { default_rule_paths() } else { self.rules.clone() }
    }

    /// Where rule files may be: those that were set, otherwise all of [`DEFAULT_RULES`].
    pub fn watched_rule_paths(&self) -> Vec<PathBuf> {
        if self.rules.is_empty() { DEFAULT_RULES.map(PathBuf::from).to_vec() } else { self.rules.clone() }
    }

    /// The format for standard output: the one set, otherwise text for a terminal and JSON for the rest.
    pub fn stdout_format(&self) -> OutputFormat {
        self.output.unwrap_or_else(|| {
            use std::io::IsTerminal as _;
            if std::io::stdout().is_terminal() { OutputFormat::Text } else { OutputFormat::Json }
        })
    }

    fn apply(&mut self, file: FileConfig) {
        let FileConfig {
            attach,
            strict,
            syscall_sets,
            probe_cost,
            rules,
            watch_rules,
            output,
            hostname,
            alert_file,
            outputs,
            record_dir,
            record_bytes,
            listen,
            control_socket,
            ring_bytes,
            min_priority,
            alert_why,
            no_color,
            process_table_entries,
            cgroup_hierarchy,
            canary_interval_ms,
            metadata_wait_ms,
            host_root,
            docker_roots,
            containerd_roots,
            crio_roots,
            podman_roots,
            rule_selection,
            append_output,
            group_by,
            group_seconds,
            state_dir,
            pin_dir,
            capability_unused_series,
            confine,
        } = file;
        set(&mut self.attach, attach);
        set(&mut self.strict, strict);
        set(&mut self.confine, confine);
        set(&mut self.syscall_sets, syscall_sets);
        set(&mut self.probe_cost, probe_cost);
        set(&mut self.rules, rules);
        set(&mut self.record_bytes, record_bytes.map(|bytes| bytes.0));
        set(&mut self.watch_rules, watch_rules);
        set(&mut self.outputs, outputs);
        set(&mut self.rule_selection, rule_selection);
        set(&mut self.append_output, append_output);
        set(&mut self.group.by, group_by.map(|by| by.into_iter().map(|field| field.0).collect()));
        set(&mut self.group.seconds, group_seconds.map(|seconds| seconds.0));
        set(&mut self.state_dir, state_dir.map(|dir| dir.0));
        set(&mut self.pin_dir, pin_dir.map(|dir| dir.0));
        set(&mut self.capability_unused_series, capability_unused_series.map(|series| series.0));
        set(&mut self.listen, listen.map(|listen| listen.0));
        set(&mut self.control_socket, control_socket.map(|socket| socket.0));
        set(&mut self.ring_bytes, ring_bytes.map(|bytes| bytes.0));
        set(&mut self.min_priority, min_priority.map(|priority| priority.0));
        set(&mut self.alert_why, alert_why);
        set(&mut self.no_color, no_color);
        set(&mut self.process_table_entries, process_table_entries.map(|entries| entries.0));
        set(&mut self.cgroup_hierarchy, cgroup_hierarchy.map(|choice| choice.0));
        set(&mut self.canary_interval, canary_interval_ms.map(|interval| interval.0));
        set(&mut self.metadata_wait_ms, metadata_wait_ms.map(|ms| ms.0));
        set(&mut self.roots.host, host_root.map(|root| root.0));
        for (roots, named) in [
            (&mut self.roots.docker, docker_roots),
            (&mut self.roots.containerd, containerd_roots),
            (&mut self.roots.crio, crio_roots),
            (&mut self.roots.podman, podman_roots),
        ] {
            set(roots, named.map(|named| named.into_iter().map(|root| root.0).collect()));
        }
        self.output = output.or(self.output);
        self.hostname = hostname.map(|name| name.0).or(self.hostname.take());
        self.alert_file = alert_file.or(self.alert_file.take());
        self.record_dir = record_dir.map(|dir| dir.0).or(self.record_dir.take());
    }

    /// Adds members to lists. Only lists can be given.
    fn add(&mut self, file: FileConfig) {
        if let Some(rules) = file.rules {
            // Those that are looked for when none are named stay.
            self.rules = self.rule_paths();
            self.rules.extend(rules);
        }
        self.outputs.extend(file.outputs.into_iter().flatten());
        self.rule_selection.extend(file.rule_selection.into_iter().flatten());
        self.group.by.extend(file.group_by.into_iter().flatten().map(|field| field.0));
        self.append_output.extend(file.append_output.into_iter().flatten());
        for (roots, named) in [
            (&mut self.roots.docker, file.docker_roots),
            (&mut self.roots.containerd, file.containerd_roots),
            (&mut self.roots.crio, file.crio_roots),
            (&mut self.roots.podman, file.podman_roots),
        ] {
            roots.extend(named.into_iter().flatten().map(|root| root.0));
        }
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// Those of [`DEFAULT_RULES`] that exist and hold a rule file: a package may leave the local one empty.
fn default_rule_paths() -> Vec<PathBuf> {
    let holds_a_rule_file = |dir: &PathBuf| {
        std::fs::read_dir(dir).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let path = entry.path();
                path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml")
            })
        })
    };
    DEFAULT_RULES.iter().map(PathBuf::from).filter(holds_a_rule_file).collect()
}

/// Checks the size of a ring buffer.
///
/// # Errors
/// A sentence that says what is wrong and what fits.
pub fn check_ring_bytes(bytes: u64) -> Result<u32, String> {
    let page = rustix::param::page_size() as u64;
    if !RING_BYTES.contains(&bytes) || !bytes.is_power_of_two() || !bytes.is_multiple_of(page) {
        let (least, most) = (page.max(*RING_BYTES.start()), RING_BYTES.end());
        return Err(format!(
            "{bytes} is no size for the ring buffer: it must be a power of two from {least} to {most}"
        ));
    }
    Ok(bytes as u32)
}

/// Checks the size of the process table.
///
/// # Errors
/// A sentence that says what fits.
pub fn check_process_table_entries(entries: u64) -> Result<u32, String> {
    if !PROCESS_TABLE_ENTRIES.contains(&entries) {
        let (least, most) = (PROCESS_TABLE_ENTRIES.start(), PROCESS_TABLE_ENTRIES.end());
        return Err(format!("{entries} entries: the process table takes {least} to {most}"));
    }
    Ok(entries as u32)
}

/// Checks how long an alert may wait for its container's name.
///
/// # Errors
/// A sentence that says what fits.
pub fn check_metadata_wait_ms(ms: u64) -> Result<u32, String> {
    if ms > MAX_METADATA_WAIT_MS {
        return Err(format!("{ms} milliseconds: an alert may wait from 0 to {MAX_METADATA_WAIT_MS}"));
    }
    Ok(ms as u32)
}

/// Checks that a directory is named from the root on: where the daemon was started must not matter.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_root(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{}` does not begin with `/`", path.display())) }
}

/// Reads a priority.
///
/// # Errors
/// A sentence that lists the priorities.
pub fn parse_priority(word: &str) -> Result<Priority, String> {
    word.parse().map_err(|_| {
        let words: Vec<String> = Priority::ALL.iter().map(|p| p.as_str().to_lowercase()).collect();
        format!("`{word}` is no priority: one of {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests;
