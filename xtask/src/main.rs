//! Automation of Ringfence's repository: everything that a newcomer or the CI types starts here.
//!
//! Exit codes: 0, 1 (something was found wrong), 2 (usage, or the machine lacks what is needed).

mod apt;
mod aside;
mod bench;
mod benign;
mod check;
mod coverage;
mod dist;
mod environment;
mod fuzz;
mod process;
mod run;
mod setup;
mod tidy;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::environment::Unfit;

/// Automation of Ringfence's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need and this machine lacks.
    Setup {
        /// Only name what is missing; exit with 1 if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Build Ringfence and start it with the shipped rules.
    Run {
        /// Arguments for `ringfence run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Do one harmless attempt of each kind, for a Ringfence that runs in another terminal to see.
    Demo,
    /// Run every check and every test.
    Test(TestArgs),
    /// Boot Debian kernels in QEMU and run the live suite there.
    Vm(VmArgs),
    /// Feed random input to what reads conditions, rule files and recordings.
    Fuzz(FuzzArgs),
    /// Write docs/coverage.md and docs/benign.md and their records from what the last `test` or `vm` found.
    Coverage,
    /// Measure Ringfence against its speed targets.
    Bench(BenchArgs),
    /// Make what is shipped: Debian package, tarball, container image, SBOM, checksums.
    Dist(DistArgs),
    /// Make only the container image, of a program that is built already and linked statically.
    Image {
        /// The program.
        #[arg(long, value_name = "PROGRAM")]
        ringfence: PathBuf,
        /// The archive to write [default: target/dist/out/ringfence-VERSION-amd64.oci.tar]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct TestArgs {
    /// Leave out what needs root: the live suite and the boot in QEMU.
    #[arg(long)]
    fast: bool,
    /// Run one step only.
    #[arg(long, value_name = "NAME", value_enum)]
    only: Option<check::StepName>,
}

#[derive(Args)]
pub(crate) struct VmArgs {
    /// The kernel to boot: 5.10, 6.1, 6.12, 7.2 or all.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// How Ringfence attaches in the guest.
    #[arg(long, value_enum, default_value_t = Attach::All)]
    attach: Attach,
    /// How cgroups are mounted in the guest.
    #[arg(long, value_enum, default_value_t = Layout::V2)]
    cgroups: Layout,
    /// Run only the tests whose name contains this text, or one of several with commas between them.
    #[arg(long)]
    filter: Option<String>,
    /// Let systemd be the guest's first process, and run Ringfence as its service.
    #[arg(long)]
    service: bool,
}

#[derive(Args)]
struct FuzzArgs {
    /// The target to run; all without one.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

#[derive(Args)]
struct BenchArgs {
    /// Also write the result, with all samples, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How Ringfence attaches.
    #[arg(long, default_value = "auto", value_parser = ["auto", "trampoline", "tracepoint"])]
    attach: String,
    /// Rounds per measurement; the medians are taken over them.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<bench::Measurement>,
    /// Measure this daemon instead of building one.
    #[arg(long, value_name = "PROGRAM", requires = "attempt")]
    ringfence: Option<PathBuf>,
    /// Make the attempts with this program instead of building one.
    #[arg(long, value_name = "PROGRAM", requires = "ringfence")]
    attempt: Option<PathBuf>,
    /// Another daemon, such as the last release's: `checks` measures it in turn with the first.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
}

#[derive(Args)]
struct DistArgs {
    /// Where to put it, a directory that is emptied first [default: target/dist/out]
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Package this program, linked statically, instead of building one.
    #[arg(long, value_name = "PROGRAM")]
    ringfence: Option<PathBuf>,
    /// Do it twice, the building from scratch, in different directories and surroundings, and compare.
    #[arg(long)]
    check: bool,
}

/// The attach modes that a boot in QEMU runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attach {
    Trampoline,
    Tracepoint,
    All,
}

impl Attach {
    fn modes(self) -> &'static [&'static str] {
        match self {
            Self::Trampoline => &["trampoline"],
            Self::Tracepoint => &["tracepoint"],
            Self::All => &["trampoline", "tracepoint"],
        }
    }
}

/// How cgroups are mounted in a guest: version 2 alone, version 2 beside version 1, version 1 alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    V2,
    Hybrid,
    V1,
    All,
}

impl Layout {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::V2 => &["v2"],
            Self::Hybrid => &["hybrid"],
            Self::V1 => &["v1"],
            Self::All => &["v2", "hybrid", "v1"],
        }
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup { check: true } => setup::report_missing(),
        Command::Setup { check: false } => setup::install(setup::Group::Test).map(|()| true),
        Command::Run { args } => run::daemon(&args),
        Command::Demo => run::demo(),
        Command::Test(args) => check::all(args.fast, args.only),
        Command::Vm(args) => vm::command(&args),
        Command::Fuzz(args) => fuzz::command(args.target.as_deref(), args.seconds),
        Command::Coverage => benign::write().and_then(|()| coverage::write()),
        Command::Bench(args) => bench::command(&args),
        Command::Dist(DistArgs { check: true, ringfence, .. }) => dist::check(ringfence.as_deref()),
        Command::Dist(args) => dist::command(args.out.as_deref(), args.ringfence.as_deref()),
        Command::Image { ringfence, out } => dist::image(&ringfence, out.as_deref()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Unfit>() { 2 } else { 1 })
        }
    }
}
