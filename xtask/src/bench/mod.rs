//! `cargo xtask bench`: Ringfence against its speed targets, on this machine.
//!
//! With and without Ringfence alternate round by round, so that a machine that warms up or slows down does so for
//! both. Numbers are medians over rounds; the JSON has every sample.

mod checks;
mod daemon;
mod measure;
mod rate;
mod stats;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::environment::{Privilege, release_program, suite_program, work_dir};
use crate::{BenchArgs, check, process, setup};

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    /// An unrelated call with and without Ringfence; also start-up and idle memory.
    Overhead,
    /// The highest rate without loss; also CPU per line and memory under load.
    Rate,
    /// From a call to its readable line.
    Latency,
    /// A capability check with and without Ringfence, and a call that checks nothing.
    Checks,
}

/// What all measurements need.
pub(crate) struct Setting {
    ringfence: PathBuf,
    /// Another daemon, in turn with the first.
    against: Option<PathBuf>,
    attempt: PathBuf,
    attach: String,
    rounds: u32,
    dir: PathBuf,
    rules: PathBuf,
}

/// One row of the result.
struct Row {
    name: &'static str,
    unit: &'static str,
    value: f64,
    target: Option<Target>,
    samples: Vec<f64>,
    note: String,
}

/// What the issue asks for.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

const RULES: &str = "\
# One alert for each event, so that every event is written as a line.
- rule: Every event
  id: bench-every-event
  desc: Matches each event. For measurements only.
  condition: evt.type exists
  output: \"%evt.type by %proc.name\"
  priority: warning
  tags: [bench]
";

/// Builds what is measured, measures, prints the table; true when every target was met.
pub(crate) fn command(args: &BenchArgs) -> Result<bool> {
    let (ringfence, attempt) = match (&args.ringfence, &args.attempt) {
        (Some(ringfence), Some(attempt)) => (ringfence.clone(), attempt.clone()),
        _ => {
            setup::install(setup::Group::Build)?;
            check::build_release()?;
            check::build_attempt()?;
            (release_program("ringfence"), suite_program("attempt"))
        }
    };
    if Privilege::detect() != Privilege::Root {
        return as_root(args, ringfence, attempt);
    }
    let dir = work_dir("xtask/bench")?;
    let rules = dir.join("rules.yaml");
    fs::write(&rules, RULES).with_context(|| format!("cannot write {}", rules.display()))?;
    let setting = Setting {
        ringfence,
        against: args.against.clone(),
        attempt,
        attach: args.attach.clone(),
        rounds: args.rounds,
        dir,
        rules,
    };
    let wanted = |which| args.only.is_empty() || args.only.contains(&which);

    let mut rows = Vec::new();
    if wanted(Measurement::Overhead) {
        rows.extend(measure::overhead(&setting)?);
    }
    if wanted(Measurement::Rate) {
        rows.extend(rate::measure(&setting)?);
    }
    if wanted(Measurement::Latency) {
        rows.extend(measure::latency(&setting)?);
    }
    if wanted(Measurement::Checks) {
        rows.extend(checks::measure(&setting)?);
    }
    let mode = daemon::attach_mode(&setting)?;
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy().into_owned();
    print_table(&rows, &kernel, &mode, args.rounds);
    if let Some(file) = &args.json {
        let result = to_json(&rows, &kernel, &mode, args.rounds);
        let text = serde_json::to_string_pretty(&result)?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(rows.iter().all(|row| row.target.is_none_or(|target| target.met(row.value))))
}

/// The same command under sudo, with the programs just built.
fn as_root(args: &BenchArgs, ringfence: PathBuf, attempt: PathBuf) -> Result<bool> {
    let program = std::env::current_exe()?;
    let mut bench: Command = Privilege::detect().command(&program, "to load the BPF programs")?;
    bench.arg("bench").arg("--ringfence").arg(ringfence).arg("--attempt").arg(attempt);
    bench.args(["--attach", &args.attach, "--rounds", &args.rounds.to_string()]);
    if let Some(file) = &args.json {
        bench.arg("--json").arg(file);
    }
    if let Some(against) = &args.against {
        bench.arg("--against").arg(against);
    }
    for which in &args.only {
        if let Some(value) = which.to_possible_value() {
            bench.args(["--only", value.get_name()]);
        }
    }
    let status = bench.status().context("cannot start sudo")?;
    Ok(status.success())
}

fn print_table(rows: &[Row], kernel: &str, mode: &str, rounds: u32) {
    println!("\nKernel {kernel}, attach mode {mode}, medians of {rounds} rounds");
    println!("{:<34} {:>12} {:<8} {:>12}  verdict", "", "value", "unit", "target");
    for row in rows {
        let (target, verdict) = match row.target {
            None => (String::new(), ""),
            Some(target) => {
                let text = match target {
                    Target::AtMost(limit) => format!("<= {limit}"),
                    Target::AtLeast(limit) => format!(">= {limit}"),
                };
                (text, if target.met(row.value) { "pass" } else { "MISS" })
            }
        };
        let value =
            if row.value >= 1000.0 { format!("{:.0}", row.value) } else { format!("{:.3}", row.value) };
        println!("{:<34} {value:>12} {:<8} {target:>12}  {verdict:<4}  {}", row.name, row.unit, row.note);
    }
}

fn to_json(rows: &[Row], kernel: &str, mode: &str, rounds: u32) -> Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (kind, limit) = match row.target {
                None => (None, None),
                Some(Target::AtMost(limit)) => (Some("at_most"), Some(limit)),
                Some(Target::AtLeast(limit)) => (Some("at_least"), Some(limit)),
            };
            json!({
                "name": row.name, "unit": row.unit, "value": row.value, "target_kind": kind, "target": limit,
                "met": row.target.map(|target| target.met(row.value)), "note": row.note, "samples": row.samples,
            })
        })
        .collect();
    let commit = process::output(Command::new("git").args(["rev-parse", "HEAD"])).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "schema_version": 1, "kernel": kernel, "attach": mode, "rounds": rounds, "cpus": cpus,
        "commit": commit.trim(), "results": rows,
    })
}
