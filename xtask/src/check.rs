//! `cargo xtask test`: every check and every test, in order, with one verdict line each and one sum at the end.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::aside::Aside;
use crate::environment::{Privilege, cargo, find_program, in_ci, repository, suite_program, work_dir};
use crate::process::{self, End, Limits};
use crate::{benign, coverage, dist, fuzz, setup, tidy, vm};

/// The steps, in the order in which they run. What takes only the processors' time is built beside the live suite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepName {
    /// Formatting.
    Fmt,
    /// Rules of this repository that no common tool knows.
    Tidy,
    /// Tests without root.
    Unit,
    /// What is shipped: made, made again, installed.
    Dist,
    /// The live suite on this kernel.
    Live,
    /// Part of it against a daemon that runs as the DaemonSet's pod.
    Pod,
    /// Lints of the host's packages.
    Clippy,
    /// Lints of the BPF programs.
    ClippyBpf,
    /// Random input, for a minute per target.
    Fuzz,
    /// The live suite on other kernels, in QEMU.
    Vm,
    /// Whether docs/coverage.md is what the two found.
    Coverage,
}

const LIMITS: Limits = Limits { total: Duration::from_secs(20 * 60), silence: Duration::from_secs(10 * 60) };
const LIVE_LIMITS: Limits =
    Limits { total: Duration::from_secs(25 * 60), silence: Duration::from_secs(3 * 60) };
/// Lines of a failed step's log that are shown.
const TAIL: usize = 60;

/// Tests by result.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The counts in a line of the test harness: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("test result: ")?;
        let (_, parts) = rest.split_once(". ")?;
        let mut counts = Self::default();
        for part in parts.split(';') {
            let (number, what) = part.trim().split_once(' ')?;
            let number = number.parse().ok();
            match what {
                "passed" => counts.passed = number?,
                "failed" => counts.failed = number?,
                "ignored" => counts.skipped = number?,
                _ => {}
            }
        }
        Some(counts)
    }
}

/// How a step ended.
enum Verdict {
    Passed,
    Failed(String),
    /// Not run, because there is no way to root.
    NoRoot,
}

struct Suite {
    privilege: Privilege,
    in_ci: bool,
    logs: PathBuf,
    total: Counts,
}

/// Installs what is missing and runs the steps asked for; true when nothing failed.
pub(crate) fn all(fast: bool, only: Option<StepName>) -> Result<bool> {
    let start = Instant::now();
    let steps: Vec<_> = StepName::value_variants()
        .iter()
        .copied()
        .filter(|step| only.is_none_or(|only| only == *step))
        .filter(|step| {
            !(fast
                && matches!(
                    step,
                    StepName::Dist | StepName::Live | StepName::Pod | StepName::Vm | StepName::Coverage
                ))
        })
        .collect();
    let needs_nothing = steps.iter().all(|step| matches!(step, StepName::Fmt | StepName::Tidy));
    if !needs_nothing {
        setup::install(setup::Group::Test)?;
    }
    let mut suite = Suite {
        privilege: Privilege::detect(),
        in_ci: in_ci(),
        logs: work_dir("xtask/logs")?,
        total: Counts::default(),
    };
    let mut aside = None;
    for step in steps {
        match step {
            // The live suite waits more than it computes: what it leaves is enough for these.
            StepName::Live if only.is_none() => {
                let builds = [Ok(fuzz::build()), Ok(clippy()), bpf_clippy()];
                aside = Some(Aside::start(builds.into_iter().flatten().collect()));
            }
            // If they do not build, the step says so.
            StepName::Clippy => drop(aside.take()),
            _ => {}
        }
        suite.step(step);
    }
    println!("\n== All steps: {}", seconds(start.elapsed()));
    let Counts { passed, failed, skipped } = suite.total;
    // The CI takes the last line of this form.
    if skipped > 0 {
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    } else {
        println!("{passed} passed, {failed} failed");
    }
    Ok(failed == 0)
}

impl Suite {
    /// Runs one step, prints its verdict and adds its tests to the sum. A step that fails without a failed test
    /// counts as one.
    fn step(&mut self, step: StepName) {
        let start = Instant::now();
        let mut counts = Counts::default();
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("\n== {name}: {}", step.heading());
        let verdict =
            self.run(step, &name, &mut counts).unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        let time = seconds(start.elapsed());
        let tests = match counts {
            Counts { passed: 0, failed: 0, skipped: 0 } => String::new(),
            Counts { passed, failed, skipped } => {
                format!(", {passed} passed, {failed} failed, {skipped} skipped")
            }
        };
        match verdict {
            Verdict::Passed => println!("-- {name}: ok, {time}{tests}"),
            Verdict::NoRoot if self.in_ci => {
                counts.failed += 1;
                println!("-- {name}: FAILED, {time}: skipped for want of root, which CI=true forbids");
            }
            Verdict::NoRoot => {
                counts.skipped += 1;
                println!("-- {name}: skipped: it needs root (or sudo)");
            }
            Verdict::Failed(reason) => {
                counts.failed = counts.failed.max(1);
                println!("-- {name}: FAILED, {time}{tests}: {reason}");
            }
        }
        self.total.add(counts);
    }

    fn run(&self, step: StepName, name: &str, counts: &mut Counts) -> Result<Verdict> {
        let log = self.logs.join(format!("{name}.log"));
        match step {
            StepName::Fmt => {
                let mut host = cargo();
                let verdict =
                    logged(host.args(["fmt", "--all", "--check", "--", "--color", "never"]), &log, None)?;
                let Some(package) = bpf_package() else { return Ok(verdict) };
                let mut bpf = cargo();
                bpf.args(["fmt", "--check", "--", "--color", "never"]).current_dir(package);
                let bpf = logged(&mut bpf, &self.logs.join("fmt-bpf.log"), None)?;
                Ok(if matches!(verdict, Verdict::Passed) { bpf } else { verdict })
            }
            StepName::Tidy => match tidy::problems()? {
                problems if problems.is_empty() => Ok(Verdict::Passed),
                problems => {
                    fs::write(&log, problems.join("\n"))?;
                    problems.iter().for_each(|problem| println!("{problem}"));
                    Ok(Verdict::Failed(format!("{} problems", problems.len())))
                }
            },
            StepName::Clippy => logged(&mut clippy(), &log, None),
            StepName::ClippyBpf => logged(&mut bpf_clippy()?, &log, None),
            StepName::Unit => {
                let mut test = cargo();
                // Not the release profile: overflow checks and debug assertions are part of the test.
                test.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
                require_tests(logged(&mut test, &log, Some((LIMITS, counts)))?, *counts)
            }
            StepName::Fuzz => {
                counts.add(fuzz::all(fuzz::IN_TESTS)?);
                require_tests(Verdict::Passed, *counts)
            }
            StepName::Dist => self.dist(&log, counts),
            StepName::Live => self.live(&log, counts),
            StepName::Pod => self.pod(&log, counts),
            StepName::Vm => {
                build_suite()?;
                let (ran, verdict) = vm::boot_matrix()?;
                counts.add(ran);
                require_tests(verdict.map_or(Verdict::Passed, Verdict::Failed), *counts)
            }
            StepName::Coverage => {
                let (problems, compared) = coverage::differences()?;
                problems.iter().for_each(|problem| println!("{problem}"));
                counts.passed += compared.saturating_sub(problems.len()) as u64;
                counts.failed += problems.len() as u64;
                require_tests(Verdict::Passed, *counts)
            }
        }
    }

    /// Makes what is shipped from the suite's own program, twice, and installs it. `cargo xtask dist --check` also builds
    /// the program twice, which takes too long for here.
    fn dist(&self, log: &Path, counts: &mut Counts) -> Result<Verdict> {
        if self.privilege == Privilege::None {
            return Ok(Verdict::NoRoot);
        }
        build_suite()?;
        let object = dist::Again::start(&STATIC_RINGFENCE, &STATICALLY)?;
        let (same, out) = dist::package_twice(&suite_program("ringfence"))?;
        for (what, same) in [("packages", same), ("the BPF object", object.finish()?)] {
            println!(
                "test dist::{what} are the same wherever they are made ... {}",
                if same { "ok" } else { "FAILED" }
            );
            counts.add(Counts { passed: same.into(), failed: (!same).into(), skipped: 0 });
        }
        let mut packages = self.suite_command("packages", "to install packages where nobody sees it")?;
        packages
            .arg("--repository")
            .arg(repository())
            .arg("--dist")
            .arg(out)
            .arg("--attempt")
            .arg(suite_program("attempt"));
        packages.arg("--schemas").arg(setup::schemas::directory()?);
        require_tests(logged(&mut packages, log, Some((LIVE_LIMITS, counts)))?, *counts)
    }

    /// The suite as root on this kernel, in the mode that every machine allows.
    fn live(&self, log: &Path, counts: &mut Counts) -> Result<Verdict> {
        let record = coverage::records_dir()?.join("native.jsonl");
        let benign = benign::record_path()?;
        // Those of an earlier run must not pass for this one's.
        for record in [&record, &benign] {
            if record.exists() {
                fs::remove_file(record)?;
            }
        }
        if self.privilege == Privilege::None {
            return Ok(Verdict::NoRoot);
        }
        build_suite()?;
        let mut live = self.live_suite()?;
        live.arg("--record").arg(record).arg("--benign").arg(benign);
        require_tests(logged(&mut live, log, Some((LIVE_LIMITS, counts)))?, *counts)
    }

    /// The part of the suite that a daemon in a container of the shipped image can be held against: see tests/src/bin/live/pods/families.rs.
    fn pod(&self, log: &Path, counts: &mut Counts) -> Result<Verdict> {
        if self.privilege == Privilege::None {
            return Ok(Verdict::NoRoot);
        }
        build_suite()?;
        let image = work_dir("xtask/pod")?.join("ringfence.oci.tar");
        dist::image(&suite_program("ringfence"), Some(&image))?;
        let mut live = self.live_suite()?;
        live.arg("--pod").arg(image);
        require_tests(logged(&mut live, log, Some((LIVE_LIMITS, counts)))?, *counts)
    }

    /// A program of the suite, which finds what was only unpacked.
    fn suite_command(&self, program: &str, why: &str) -> Result<Command> {
        let mut path: Vec<_> = setup::unpacked_programs()?;
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut path_variable = OsString::from("PATH=");
        path_variable.push(env::join_paths(path)?);
        // Of programs that were only unpacked; what the machine has of them, it has in its own directories.
        let mut library_variable = OsString::from("LD_LIBRARY_PATH=");
        library_variable.push(env::join_paths(setup::unpacked_libraries()?)?);
        let mut command = self.privilege.command(Path::new("/usr/bin/env"), why)?;
        command.arg(path_variable).arg(library_variable).arg(suite_program(program));
        Ok(command)
    }

    /// The suite's command in the mode that every machine allows.
    fn live_suite(&self) -> Result<Command> {
        let mut live = self.suite_command("live", "to run the live suite")?;
        live.args(["--attach", "tracepoint", "--ringfence"]);
        live.arg(suite_program("ringfence")).arg("--attempt").arg(suite_program("attempt"));
        live.arg("--rules").arg(repository().join("rules"));
        live.arg("--schema").arg(repository().join("docs/alert.schema.json"));
        live.arg("--deploy").arg(repository().join("deploy"));
        Ok(live)
    }
}

impl StepName {
    fn heading(self) -> &'static str {
        match self {
            Self::Fmt => "formatting (rustfmt)",
            Self::Tidy => "rules of this repository",
            Self::Clippy => "lints, host",
            Self::ClippyBpf => "lints, BPF target",
            Self::Unit => "tests without root",
            Self::Fuzz => "random input to what reads conditions, rule files and recordings",
            Self::Dist => "packages, image, bill of materials; that they are the same wherever they are made",
            Self::Live => "live suite on this kernel, tracepoint mode",
            Self::Pod => "live suite against Ringfence as a pod beside other containers",
            Self::Vm => "live suite on Debian's kernels in QEMU, both modes",
            Self::Coverage => "docs/coverage.md against what the live suites recorded",
        }
    }
}

/// Builds the daemon as it is shipped.
pub(crate) fn build_release() -> Result<()> {
    process::run(cargo().args(["build", "--release", "--locked", "--package", "monitor"]))
}

/// The daemon as the suites run it; with [`STATICALLY`] it is linked as it is shipped.
const STATIC_RINGFENCE: [&str; 8] =
    ["rustc", "--profile", "suite", "--locked", "--package", "monitor", "--bin", "ringfence"];
const STATICALLY: [&str; 3] = ["--", "-C", "target-feature=+crt-static"];

/// Builds what the live suite runs; cargo does nothing when an earlier step did.
pub(crate) fn build_suite() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--profile", "suite", "--locked", "--package", "tests"]);
    process::run(build.args(["--bin", "live", "--bin", "guest-init", "--bin", "packages"]))?;
    process::run(cargo().args(STATIC_RINGFENCE).args(STATICALLY))?;
    build_attempt()
}

/// Builds the program that makes attempts: linked statically, because containers and guests without a C library
/// run it too.
pub(crate) fn build_attempt() -> Result<()> {
    let mut build = cargo();
    build.args(["rustc", "--profile", "suite", "--locked", "--package", "tests", "--bin", "attempt"]);
    process::run(build.args(STATICALLY))
}

fn bpf_package() -> Option<PathBuf> {
    let package = repository().join("monitor-ebpf");
    package.join("Cargo.toml").is_file().then_some(package)
}

/// Clippy for the host's packages.
fn clippy() -> Command {
    let mut clippy = cargo();
    clippy.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    clippy
}

/// Clippy for the BPF target. Debian packages the clippy of the very compiler that builds the programs; the
/// one of rustup cannot read that compiler's `core`, and the host target cannot stand in for inline BPF assembly.
fn bpf_clippy() -> Result<Command> {
    let package = bpf_package().context("there is no monitor-ebpf/Cargo.toml")?;
    let debian = Path::new("/usr/bin/cargo-clippy");
    let mut clippy = if debian.exists() {
        let mut clippy = Command::new(debian);
        // cargo-clippy starts the cargo named by CARGO; ours is newer than Debian's.
        clippy.arg("clippy").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        clippy.env("CARGO", find_program("cargo").context("there is no cargo in PATH")?);
        clippy
    } else {
        let mut clippy = Command::new("rustup");
        clippy.args(["run", "nightly", "cargo", "clippy", "-Z", "build-std=core"]);
        clippy
    };
    clippy.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    clippy.args(["--release", "--locked", "--target", "bpfel-unknown-none", "--target-dir"]);
    clippy.arg(work_dir("xtask/clippy-bpf")?).args(["--", "-D", "warnings"]).current_dir(package);
    Ok(clippy)
}

/// Runs a step's command with its output in `log`. A command of tests (with its limits, and the sum that its
/// tests are added to) shows its output as it comes, another one the end of it when it fails.
fn logged(command: &mut Command, log: &Path, tests: Option<(Limits, &mut Counts)>) -> Result<Verdict> {
    let show = tests.is_some();
    let (limits, mut counts) = match tests {
        Some((limits, counts)) => (limits, Some(counts)),
        None => (LIMITS, None),
    };
    let mut tail = VecDeque::with_capacity(TAIL);
    let end = process::run_logged(command, log, limits, |line| {
        if let Some(sum) = counts.as_deref_mut()
            && let Some(found) = Counts::from_line(line)
        {
            sum.add(found);
        }
        if show {
            println!("{line}");
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    })?;
    let reason = match end {
        End::Exited(status) if status.success() => return Ok(Verdict::Passed),
        End::Exited(status) => status.to_string(),
        End::Killed(reason) => reason,
    };
    if !show {
        tail.iter().for_each(|line| println!("{line}"));
    }
    Ok(Verdict::Failed(format!("{reason}; log: {}", log.display())))
}

/// A step of tests that ran none has not passed.
fn require_tests(verdict: Verdict, counts: Counts) -> Result<Verdict> {
    Ok(match verdict {
        Verdict::Passed if counts.passed + counts.failed == 0 => Verdict::Failed("no test ran".to_owned()),
        // A harness that counts failures and still exits with 0 is not believed.
        Verdict::Passed if counts.failed > 0 => Verdict::Failed(format!("{} tests failed", counts.failed)),
        other => other,
    })
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_from_the_harness_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 4 ignored; 0 measured; 9 filtered out; finished in 0.10s";
        assert_eq!(Counts::from_line(line), Some(Counts { passed: 12, failed: 3, skipped: 4 }));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["", "test a ... ok", "running 3 tests", "test result: ok", "test result: ok. x passed; 0 failed"]
        {
            assert_eq!(Counts::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn a_step_without_tests_fails() -> Result<()> {
        assert!(matches!(require_tests(Verdict::Passed, Counts::default())?, Verdict::Failed(_)));
        let some = Counts { passed: 1, ..Counts::default() };
        assert!(matches!(require_tests(Verdict::Passed, some)?, Verdict::Passed));
        let failed = Counts { passed: 1, failed: 1, skipped: 0 };
        assert!(matches!(require_tests(Verdict::Passed, failed)?, Verdict::Failed(_)));
        Ok(())
    }
}
