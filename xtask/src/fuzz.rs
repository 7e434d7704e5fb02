//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, each for so many seconds.
//!
//! What a run learns stays in `target/fuzz/corpus` for the next one; an input that breaks a promise is kept in
//! `target/fuzz/artifacts`, and its path is part of the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::check::Counts;
use crate::environment::{Unfit, cargo, repository, target_dir, work_dir};
use crate::process::{self, End, Limits};

/// A fuzz target.
struct Target {
    /// Its program in `fuzz/fuzz_targets`.
    name: &'static str,
    /// The longest input, in bytes.
    longest: u32,
    /// Directories of the repository with inputs to begin with.
    seeds: &'static [&'static str],
}

const TARGETS: &[Target] = &[
    Target { name: "condition", longest: 4096, seeds: &[] },
    Target { name: "recording", longest: 16 << 10, seeds: &[] },
    Target { name: "rule_file", longest: 16 << 10, seeds: &["rules"] },
];

/// Words of the language, so that inputs get past the first letter.
const DICTIONARY: &str = "fuzz/rules.dict";
/// How long each target is run by `cargo xtask test`.
pub(crate) const IN_TESTS: Duration = Duration::from_secs(60);
/// One input may take this many seconds, and the whole program this much memory.
const INPUT_SECONDS: u32 = 20;
const MEMORY_MIB: u32 = 2048;
/// Beyond its time a target may need this long to start and to end.
const GRACE: Duration = Duration::from_secs(120);
/// As many run at a time: each of them takes input for its whole time, and they share the processors.
const LANES: usize = 3;

/// Runs the target of that name, or all; true when none found anything.
pub(crate) fn command(name: Option<&str>, seconds: u64) -> Result<bool> {
    let targets: Vec<_> =
        TARGETS.iter().filter(|target| name.is_none_or(|name| target.name == name)).collect();
    if targets.is_empty() {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        return Err(Unfit(format!("there is no such fuzz target; known are {}", known.join(", "))).into());
    }
    Ok(run(&targets, Duration::from_secs(seconds))?.failed == 0)
}

/// Runs every target.
pub(crate) fn all(time: Duration) -> Result<Counts> {
    run(&TARGETS.iter().collect::<Vec<_>>(), time)
}

/// The command that builds the targets.
pub(crate) fn build() -> Command {
    let mut cargo = cargo();
    cargo.args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir", "fuzz", "--target-dir"]);
    // What is fuzzed has no BPF programs in it.
    cargo.arg(target_dir().join("fuzz")).env("RINGFENCE_SKIP_BPF", "1").current_dir(repository());
    cargo
}

fn run(targets: &[&Target], time: Duration) -> Result<Counts> {
    process::run(&mut build()).context("the fuzz targets do not build")?;
    let waiting = Mutex::new(targets.iter());
    let counts = Mutex::new(Counts::default());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                // A lock that another thread left in a panic still holds a whole iterator.
                while let Some(target) = waiting.lock().ok().and_then(|mut targets| targets.next()) {
                    let outcome = one(target, time);
                    let Ok(mut counts) = counts.lock() else { return };
                    match outcome {
                        Ok(inputs) => {
                            counts.passed += 1;
                            println!("test fuzz::{} ... ok, {inputs} inputs", target.name);
                        }
                        Err(error) => {
                            counts.failed += 1;
                            println!("test fuzz::{} ... FAILED: {error:#}", target.name);
                        }
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap_or_default();
    if counts.passed + counts.failed != targets.len() as u64 {
        bail!("not every target was run");
    }
    Ok(counts)
}

/// Runs one target and says how many inputs it took.
fn one(target: &Target, time: Duration) -> Result<u64> {
    let program = target_dir().join("fuzz/x86_64-unknown-linux-gnu/release").join(target.name);
    let corpus = work_dir(&format!("fuzz/corpus/{}", target.name))?;
    let artifacts = work_dir(&format!("fuzz/artifacts/{}", target.name))?;
    let before = entries(&artifacts)?;
    let mut fuzzer = Command::new(&program);
    fuzzer
        .current_dir(repository())
        .arg(corpus)
        .args(target.seeds.iter().map(|seed| repository().join(seed)));
    fuzzer.arg(format!("-max_total_time={}", time.as_secs())).arg(format!("-max_len={}", target.longest));
    fuzzer.arg(format!("-timeout={INPUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    fuzzer.arg(format!("-dict={DICTIONARY}")).arg("-print_final_stats=1");
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let log = work_dir("fuzz/logs")?.join(format!("{}.log", target.name));
    let limits = Limits { total: time + GRACE, silence: time + GRACE };
    let mut inputs = None;
    let end = process::run_logged(&mut fuzzer, &log, limits, |line| {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            inputs = number.trim().parse().ok();
        }
    })?;
    let found = entries(&artifacts)?.into_iter().find(|artifact| !before.contains(artifact));
    let input = found.map(|input| format!("; input: {}", input.display())).unwrap_or_default();
    match (end, inputs) {
        (End::Exited(status), Some(inputs)) if status.success() && inputs > 0 => Ok(inputs),
        (End::Exited(status), _) if status.success() => bail!("it took no input; log: {}", log.display()),
        (End::Exited(status), _) => bail!("{status}{input}; log: {}", log.display()),
        (End::Killed(reason), _) => bail!("{reason}{input}; log: {}", log.display()),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_package_is_run() -> Result<()> {
        let mut files = entries(&repository().join("fuzz/fuzz_targets"))?;
        files.sort();
        let names: Vec<_> = files.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
        let mut listed: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        listed.sort_unstable();
        assert_eq!(names, listed);
        Ok(())
    }
}
