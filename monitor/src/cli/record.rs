//! The command line of recordings: `record`, `replay`, `rules backtest`.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::{ColorArg, ConfigArg, RulesArgs, backtest, emit, failure, logging, recorded, replay};
use super::{Failure, metadata_wait_ms, ring_bytes};
use crate::alert::{JsonLines, Palette, TextLines};
use crate::alerting::Format;
use crate::cli::rules_command::RuleFiles;
use crate::config::{AttachChoice, OutputFormat, Settings, check_root, parse_priority};
use crate::daemon::{RecordPlan, RecordSummary};
use crate::hierarchy::HierarchyChoice;
use crate::recording::Span;
use crate::rules::Priority;

/// Arguments of `record`; those of the daemon override the configuration.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The recording; an existing one is gone on with
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// End before the file has more bytes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(65_536..))]
    max_bytes: Option<u64>,
    /// Which configuration is read.
    #[command(flatten)]
    config: ConfigArg,
    /// How to attach the probes
    #[arg(long, value_enum)]
    attach: Option<AttachChoice>,
    /// Refuse to start if any probe does not attach
    #[arg(long)]
    strict: bool,
    /// Size of the ring buffer in bytes, a power of two [default: 4194304]
    #[arg(long, value_name = "N", value_parser = ring_bytes)]
    ring_bytes: Option<u32>,
    /// Cgroup hierarchy by which containers are known: auto, v2 or a version 1 controller [default: auto]
    #[arg(long, value_name = "NAME")]
    cgroup_hierarchy: Option<HierarchyChoice>,
    /// How long an event waits for its container's name, 0 for not at all [default: 250]
    #[arg(long, value_name = "MS", value_parser = metadata_wait_ms)]
    metadata_wait_ms: Option<u32>,
    /// Where the host's root is mounted, if not at / [default: /]
    #[arg(long, value_name = "DIR", value_parser = check_root)]
    host_root: Option<PathBuf>,
    /// Whether output is coloured.
    #[command(flatten)]
    color: ColorArg,
}

impl RecordArgs {
    pub(super) fn run(
        self,
        record: fn(Settings, RecordPlan) -> anyhow::Result<RecordSummary>,
    ) -> Result<ExitCode, Failure> {
        let mut settings = self.config.settings()?;
        settings.attach = self.attach.unwrap_or(settings.attach);
        settings.strict |= self.strict;
        settings.ring_bytes = self.ring_bytes.unwrap_or(settings.ring_bytes);
        settings.cgroup_hierarchy = self.cgroup_hierarchy.unwrap_or(settings.cgroup_hierarchy);
        settings.metadata_wait_ms = self.metadata_wait_ms.unwrap_or(settings.metadata_wait_ms);
        settings.roots.host = self.host_root.unwrap_or(settings.roots.host);
        settings.no_color |= self.color.no_color;
        logging::start(settings.no_color);
        let plan = RecordPlan { file: self.output, seconds: self.seconds, max_bytes: self.max_bytes };
        let summary = record(settings, plan)?;
        emit(&summary.to_string())?;
        Ok(code(summary.is_lossy()))
    }
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recordings, or directories of some, in this order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Which rules are meant.
    #[command(flatten)]
    from: RulesArgs,
    /// Format of alerts [default: text on a terminal, json elsewhere]
    #[arg(short, long, value_enum)]
    output: Option<OutputFormat>,
    /// Leave out rules below this priority
    #[arg(long, value_name = "PRIORITY", value_parser = parse_priority)]
    min_priority: Option<Priority>,
    /// Whether output is coloured.
    #[command(flatten)]
    color: ColorArg,
}

impl ReplayArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let settings = Settings { output: self.output, ..Settings::default() };
        let format = match settings.stdout_format() {
            OutputFormat::Json => Format::Json(JsonLines::default()),
            OutputFormat::Text => Format::Text(TextLines::new(Palette::for_stdout(self.color.no_color))),
        };
        let replay = replay::Replay {
            files: recorded::files(&self.files)?,
            rules: self.from.files()?,
            min_priority: self.min_priority.unwrap_or(Priority::Debug),
        };
        let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
        let replayed = replay.run(format, &mut out)?;
        note(&format!("{}{} events, {} alerts\n", replayed.report, replayed.events, replayed.alerts));
        Ok(code(replayed.damaged))
    }
}

/// Arguments of `rules backtest`.
#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// Recordings, or directories of some [default: the configured record_dir]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only events of the last 90s, 15m, 24h, 7d [default: all]
    #[arg(long, value_name = "TIME", value_parser = recorded::parse_span)]
    since: Option<i64>,
    /// Which rules are meant.
    #[command(flatten)]
    from: RulesArgs,
    /// Rule file or directory to compare with; may be repeated
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
    /// How
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

impl BacktestArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let files = if self.files.is_empty() {
            let settings = self.from.config.settings()?;
            let dir = settings.record_dir.ok_or_else(|| {
                Failure::environment(
                    "no recordings: name some, or set record_dir so that the daemon makes them",
                )
            })?;
            recorded::ring(&dir)?
        } else {
            recorded::files(&self.files)?
        };
        if files.is_empty() {
            return Err(Failure::environment("no recordings there; the daemon makes some with record_dir"));
        }
        let rules = self.from.files()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let from = self.since.map_or(i64::MIN, |since| now.saturating_sub(since));
        let against = (!self.against.is_empty()).then(|| RuleFiles::plain(self.against));
        let backtest = backtest::run(files, Span { from, ..Span::default() }, &rules, against.as_ref())?;
        emit(&backtest.show(self.output))?;
        note(&backtest.report);
        Ok(code(backtest.damaged))
    }
}

/// To standard error, which nobody may read.
fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn code(wrong: bool) -> ExitCode {
    if wrong { ExitCode::from(failure::FOUND_WRONG) } else { ExitCode::SUCCESS }
}
