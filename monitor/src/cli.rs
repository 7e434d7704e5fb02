//! The command line: arguments, commands, exit codes.

mod backtest;
mod caps;
mod check;
mod config_dump;
mod containers;
mod coverage;
mod doctor;
mod failure;
mod falco;
mod fields;
mod lint;
mod logging;
mod man;
mod parse;
mod record;
mod recorded;
pub(crate) mod replay;
mod rules;
pub(crate) mod rules_command;
mod status;
mod support;
mod top;
mod unpin;
mod watch;

pub use caps::{CapsArgs, PatchFormat};
pub use config_dump::ConfigCommand;
pub use failure::Failure;
pub use fields::fields_markdown;
pub use record::{BacktestArgs, RecordArgs, ReplayArgs};
pub use rules_command::{RulesArgs, RulesCommand, TestFormat};
pub use support::SupportArgs;
pub use top::{SortKey, TopArgs};
pub use unpin::UnpinArgs;
pub use watch::WatchArgs;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{
    Assignment, AttachChoice, CanaryInterval, ConfigError, Listen, Loaded, OutputFormat, PinChoice, Settings,
    check_metadata_wait_ms, check_ring_bytes, check_root, parse_priority,
};
use crate::control::ControlSocket;
use crate::coverage::Sight;
use crate::daemon::{RecordPlan, RecordSummary};
use crate::hierarchy::HierarchyChoice;
use crate::preflight::Check;
use crate::recording::check_record_bytes;
use crate::rules::Priority;

/// Watches the walls of Linux containers: who tries to pass one, and what became of it.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, about, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 fine, 1 something was found wrong, 2 usage or environment.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch, and raise alerts until SIGTERM or SIGINT
    Run(RunArgs),
    /// Record every event until SIGTERM, SIGINT or a limit, without rules; say what is missing
    Record(RecordArgs),
    /// Take recorded events through the rules; alerts are those of the time
    Replay(ReplayArgs),
    /// Check rules (and, without a PATH, the configuration); say everything that is wrong
    Check {
        /// Rule files and directories instead of the configured ones
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Take the files for Falco's, and say for each rule whether it loads, loads with approximations, or does not
        #[arg(long, requires = "paths", conflicts_with = "config")]
        falco: bool,
        /// How, with --falco
        #[arg(short, long, value_enum, default_value = "text", requires = "falco")]
        output: OutputFormat,
        /// Which configuration is read.
        #[command(flatten)]
        config: ConfigArg,
        /// Whether output is coloured.
        #[command(flatten)]
        color: ColorArg,
    },
    /// List rules or show one
    Rules {
        /// What to show.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// List the containers that the running daemon knows
    Containers(AskArgs),
    /// Say what containers were granted of capabilities, used and were refused; or the change that drops the rest
    Caps(CapsArgs),
    /// Say how the running daemon is: its rules, what it sees, what it lost
    Status(AskArgs),
    /// Take off the probes that an ended Ringfence left pinned for the next one
    Unpin(UnpinArgs),
    /// Show events or alerts as they come
    Watch(WatchArgs),
    /// Show what containers try, what is refused, lost and alerted, and let it be looked into
    Top(TopArgs),
    /// List the fields that conditions and outputs may use
    Fields {
        /// How
        #[arg(long, value_enum, default_value = "text")]
        format: FieldsFormat,
    },
    /// Show the effective settings, and what set each
    Config {
        /// What to do with them.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check kernel, privileges and probes; say what each gap costs
    Doctor {
        /// Also make a harmless test call for each hook and see that it comes back
        #[arg(long)]
        selftest: bool,
        /// Whether output is coloured.
        #[command(flatten)]
        color: ColorArg,
    },
    /// Make a bundle for whoever is to help: status, settings, checks, metrics, kernel, log; no secrets
    Support(SupportArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages of all commands, for packages
    #[command(hide = true)]
    Man {
        /// A directory that exists
        directory: PathBuf,
    },
}

/// Arguments of commands that ask the running daemon.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Control socket of the daemon instead of the configured one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
    /// How
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// Which configuration is read.
#[derive(Debug, Default, Args)]
pub struct ConfigArg {
    /// Configuration file instead of /etc/ringfence/config.yaml and its drop-ins
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A setting on top of the configuration: KEY=VALUE, or KEY[]=VALUE to add to a list; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Assignment>,
}

impl ConfigArg {
    fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(self.loaded()?.settings)
    }

    /// The settings, with where each came from.
    fn loaded(&self) -> Result<Loaded, ConfigError> {
        Loaded::load(self.config.as_deref(), &self.set)
    }

    /// Whether a command that got its rules by name reads the configuration all the same.
    fn is_given(&self) -> bool {
        self.config.is_some() || !self.set.is_empty()
    }
}

/// Whether output is coloured.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ColorArg {
    /// No colours, also on a terminal (as the environment variable NO_COLOR)
    #[arg(long)]
    pub no_color: bool,
}

/// Arguments of `run`; each overrides the configuration.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
    /// Rule file or directory; may be repeated, and replaces the configured ones
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Read rules anew when their files change; without it only on SIGHUP [default: true]
    #[arg(long, value_name = "true|false")]
    watch_rules: Option<bool>,
    /// How to attach the probes
    #[arg(long, value_enum)]
    attach: Option<AttachChoice>,
    /// Refuse to start if any probe does not attach
    #[arg(long)]
    strict: bool,
    /// Format of alerts on standard output [default: text on a terminal, json elsewhere]
    #[arg(short, long, value_enum)]
    output: Option<OutputFormat>,
    /// File that gets every alert as a JSON line
    #[arg(long, value_name = "FILE")]
    alert_file: Option<PathBuf>,
    /// Directory in which every event is recorded, for `replay` and `rules backtest`
    #[arg(long, value_name = "DIR", value_parser = check_root)]
    record_dir: Option<PathBuf>,
    /// Bytes that the recordings there may have together [default: 268435456]
    #[arg(long, value_name = "N", value_parser = record_bytes)]
    record_bytes: Option<u64>,
    /// Where to serve metrics and health, or off [default: 127.0.0.1:9477]
    #[arg(long, value_name = "ADDR:PORT|off")]
    listen: Option<Listen>,
    /// Where to answer questions such as `ringfence containers`, or off [default: /run/ringfence/ringfence.sock]
    #[arg(long, value_name = "PATH|off")]
    control_socket: Option<ControlSocket>,
    /// Directory in a BPF file system where probes stay for the next start [default: /run/ringfence/bpf, if mounted]
    #[arg(long, value_name = "DIR", value_parser = check_root)]
    pin_dir: Option<PathBuf>,
    /// Take the probes off with the process: what happens during a restart is not seen
    #[arg(long, conflicts_with = "pin_dir")]
    no_pin: bool,
    /// Size of the ring buffer in bytes, a power of two [default: 4194304]
    #[arg(long, value_name = "N", value_parser = ring_bytes)]
    ring_bytes: Option<u32>,
    /// Cgroup hierarchy by which containers are known: auto, v2 or a version 1 controller [default: auto]
    #[arg(long, value_name = "NAME")]
    cgroup_hierarchy: Option<HierarchyChoice>,
    /// How often to test that each hook still sees, or off [default: 1000]
    #[arg(long, value_name = "MS|off")]
    canary_interval_ms: Option<CanaryInterval>,
    /// How long an alert waits for its container's name, 0 for not at all [default: 250]
    #[arg(long, value_name = "MS", value_parser = metadata_wait_ms)]
    metadata_wait_ms: Option<u32>,
    /// Where the host's root is mounted, if not at / [default: /]
    #[arg(long, value_name = "DIR", value_parser = check_root)]
    host_root: Option<PathBuf>,
    /// Leave out rules below this priority
    #[arg(long, value_name = "PRIORITY", value_parser = parse_priority)]
    min_priority: Option<Priority>,
    /// Let each alert say why its rule matched: the conditions that decided, with their values
    #[arg(long)]
    why: bool,
    /// Whether output is coloured.
    #[command(flatten)]
    color: ColorArg,
}

/// Formats of `fields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FieldsFormat {
    /// For a terminal.
    Text,
    /// Markdown: docs/fields.md.
    Md,
    /// For programs.
    Json,
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u64 = text.parse().map_err(|_| format!("`{text}` is not a whole number of bytes"))?;
    check_ring_bytes(bytes)
}

fn record_bytes(text: &str) -> Result<u64, String> {
    let bytes: u64 = text.parse().map_err(|_| format!("`{text}` is not a whole number of bytes"))?;
    check_record_bytes(bytes)
}

fn metadata_wait_ms(text: &str) -> Result<u32, String> {
    let ms: u64 = text.parse().map_err(|_| format!("`{text}` is not a whole number of milliseconds"))?;
    check_metadata_wait_ms(ms)
}

impl RunArgs {
    /// The configuration with these arguments on top.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn settings(self) -> Result<Settings, Failure> {
        let mut settings = self.config.settings()?;
        if !self.rules.is_empty() {
            settings.rules = self.rules;
        }
        settings.watch_rules = self.watch_rules.unwrap_or(settings.watch_rules);
        settings.attach = self.attach.unwrap_or(settings.attach);
        settings.strict |= self.strict;
        settings.output = self.output.or(settings.output);
        settings.alert_file = self.alert_file.or(settings.alert_file);
        settings.record_dir = self.record_dir.or(settings.record_dir);
        settings.record_bytes = self.record_bytes.unwrap_or(settings.record_bytes);
        settings.listen = self.listen.unwrap_or(settings.listen);
        settings.control_socket = self.control_socket.unwrap_or(settings.control_socket);
        settings.pin_dir = match (self.no_pin, self.pin_dir) {
            (true, _) => PinChoice::Off,
            (false, Some(dir)) => PinChoice::At(dir),
            (false, None) => settings.pin_dir,
        };
        settings.ring_bytes = self.ring_bytes.unwrap_or(settings.ring_bytes);
        settings.canary_interval = self.canary_interval_ms.unwrap_or(settings.canary_interval);
        settings.metadata_wait_ms = self.metadata_wait_ms.unwrap_or(settings.metadata_wait_ms);
        settings.roots.host = self.host_root.unwrap_or(settings.roots.host);
        settings.min_priority = self.min_priority.unwrap_or(settings.min_priority);
        settings.alert_why |= self.why;
        settings.no_color |= self.color.no_color;
        settings.cgroup_hierarchy = self.cgroup_hierarchy.unwrap_or(settings.cgroup_hierarchy);
        Ok(settings)
    }
}

/// What the commands need from the rest of the daemon.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Watches until a signal ends it. Logging is set up already.
    pub run: fn(Settings) -> anyhow::Result<()>,
    /// Records until a signal or the plan ends it.
    pub record: fn(Settings, RecordPlan) -> anyhow::Result<RecordSummary>,
    /// Checks of the probes, with a test of each hook if asked for, which `doctor` shows below those of [`crate::preflight`].
    pub probe_checks: fn(selftest: bool) -> Vec<Check>,
    /// What the probes see, attached for a moment; for `rules coverage`.
    pub sight: fn(AttachChoice) -> anyhow::Result<Sight>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

/// Reads the command line, obeys it, and turns the outcome into an exit code.
pub fn main(entry: Entry) -> ExitCode {
    match execute(Cli::parse(), entry) {
        Ok(code) => code,
        Err(failure) => {
            // Nobody may be left to read it.
            let _ = io::stderr().lock().write_all(failure.to_string().as_bytes());
            ExitCode::from(failure.code())
        }
    }
}

fn execute(cli: Cli, entry: Entry) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => {
            let settings = args.settings()?;
            logging::start(settings.no_color);
            (entry.run)(settings)?;
        }
        Command::Record(args) => return args.run(entry.record),
        Command::Replay(args) => return args.run(),
        Command::Check { paths, falco, output, config, color } => {
            let report = if falco {
                falco::report(&paths, output, coloured(color))
            } else {
                check::report(paths, &config, coloured(color))
            };
            emit(&report.text)?;
            return Ok(if report.wrong { ExitCode::from(failure::FOUND_WRONG) } else { ExitCode::SUCCESS });
        }
        Command::Rules { command } => return rules_command::execute(command, entry),
        Command::Containers(AskArgs { socket, config, output }) => {
            let known = containers::ask(socket, &config)?;
            emit(&containers::list(&known.known, output, containers::terminal_columns()))?;
            if known.omitted > 0 {
                let omitted = known.omitted;
                return Err(Failure::environment(format_args!(
                    "the answer had no room for {omitted} more; containers in users' own slices come last"
                )));
            }
        }
        Command::Caps(args) => args.run()?,
        Command::Unpin(args) => args.run()?,
        Command::Watch(args) => args.run()?,
        Command::Top(args) => args.run()?,
        Command::Support(args) => args.run(entry.probe_checks)?,
        Command::Config { command: ConfigCommand::Dump { config, output } } => {
            emit(&config_dump::text(&config.loaded()?, output))?;
        }
        Command::Status(AskArgs { socket, config, output }) => {
            let status = status::ask(socket, &config)?;
            emit(&status::show(&status, output))?;
            if status.is_wrong() {
                return Ok(ExitCode::from(failure::FOUND_WRONG));
            }
        }
        Command::Fields { format } => emit(&fields::text(format))?,
        Command::Doctor { selftest, color } => {
            let mut checks = crate::preflight::checks();
            checks.extend((entry.probe_checks)(selftest));
            emit(&doctor::table(&checks, coloured(color)))?;
            if doctor::is_wrong(&checks) {
                return Ok(ExitCode::from(failure::FOUND_WRONG));
            }
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ringfence", &mut script);
            emit(&String::from_utf8_lossy(&script))?;
        }
        Command::Man { directory } => man::write(Cli::command(), &directory).map_err(|error| {
            Failure::environment(format_args!("{} takes no writes: {error}", directory.display()))
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether standard output gets colours.
fn coloured(arg: ColorArg) -> bool {
    crate::alert::Palette::for_stdout(arg.no_color) == crate::alert::Palette::Coloured
}

/// Writes to standard output. A reader that has read enough (`| head`) is no failure.
fn emit(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::stdout(&error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod docs_tests;
