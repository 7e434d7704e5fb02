//! Makes harmless attempts on a container's walls: by name, all kinds for a demonstration, or many for a measurement.
//!
//! To run inside containers and guests it is linked statically:
//! `cargo rustc --package tests --bin attempt -- -C target-feature=+crt-static`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use monitor_common::call::{Abi, Call};
use tests::attempt::{self, Attempt, load};
use tests::seccomp;

#[derive(Parser)]
#[command(name = "attempt", about = "Makes harmless attempts on a container's walls")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists every attempt: what it does, why it is harmless, what must come of it.
    List,
    /// Makes attempts; each result is a line of JSON.
    Run {
        /// Names from `attempt list`.
        #[arg(required = true)]
        names: Vec<String>,
        /// System call tables to go through, where the call exists.
        #[arg(long, default_value = "all")]
        abi: AbiChoice,
        /// How many times each is made.
        #[arg(long, default_value_t = 1)]
        repeat: u32,
        /// Milliseconds to wait after each.
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
        /// Allow attempts that set the clock (to the current time). Only for virtual machines of your own.
        #[arg(long)]
        allow_clock: bool,
        /// First put a seccomp filter like Docker's default in force.
        #[arg(long)]
        seccomp: bool,
    },
    /// Makes one attempt of each kind, from a cgroup that looks like a Docker container's.
    Demo {
        /// Already inside that cgroup: the demonstration starts itself so.
        #[arg(long, hide = true)]
        inside: bool,
    },
    /// Makes cheap failing calls at a rate.
    Flood {
        /// setns, unshare or capset.
        #[arg(long, default_value = "setns")]
        call: String,
        /// Calls each second; 0: as fast as possible.
        #[arg(long, default_value_t = 0)]
        rate: u64,
        /// How long.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Stop after so many calls; 0: no limit.
        #[arg(long, default_value_t = 0)]
        count: u64,
    },
    /// Measures a call that nobody watches: nanoseconds each.
    Spin {
        /// Which call.
        #[arg(long, default_value = "getppid")]
        call: Unrelated,
        /// How many calls.
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum AbiChoice {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "i386")]
    I386,
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum Unrelated {
    Getppid,
    Read,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attempt: {error}");
            ExitCode::from(2)
        }
    }
}

fn perform(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    match command {
        Command::List => list(&mut out)?,
        Command::Run { names, abi, repeat, pause_ms, allow_clock, seccomp } => {
            let chosen = choose(&names, allow_clock)?;
            if seccomp {
                seccomp::put_in_force()?;
            }
            for _ in 0..repeat {
                for (attempt, abi) in expand(&chosen, abi) {
                    writeln!(out, "{}", attempt::run(attempt, abi)?.json(attempt, abi))?;
                    std::thread::sleep(std::time::Duration::from_millis(pause_ms));
                }
            }
        }
        Command::Demo { inside: false } => attempt::demo::demo()?,
        Command::Demo { inside: true } => attempt::demo::inside()?,
        Command::Flood { call, rate, seconds, count } => {
            let what = Call::ALL.iter().find(|known| known.name() == call);
            let flood = what.and_then(|what| load::flood(*what, rate, seconds, count));
            let flood = flood.ok_or_else(|| {
                let known: Vec<&str> = load::FLOOD_CALLS.iter().map(|call| call.name()).collect();
                format!("no flood of `{call}`: choose one of {}", known.join(", "))
            })?;
            let odd = flood.odd;
            if odd > 0 {
                return Err(format!("{odd} of {} calls returned something unexpected", flood.made).into());
            }
            writeln!(out, "{}", serde_json::json!({"made": flood.made, "elapsed_ns": flood.elapsed_ns}))?;
        }
        Command::Spin { call, count } => {
            let call = match call {
                Unrelated::Getppid => load::Unrelated::Getppid,
                Unrelated::Read => load::Unrelated::Read,
            };
            writeln!(out, "{:.2}", load::spin(call, count))?;
        }
    }
    Ok(())
}

fn choose(names: &[String], allow_clock: bool) -> Result<Vec<&'static Attempt>, String> {
    names
        .iter()
        .map(|name| match attempt::by_name(name) {
            None => Err(format!("no attempt is called `{name}`; `attempt list` names them all")),
            Some(attempt) if attempt.guest_only && !allow_clock => {
                Err(format!("`{name}` sets the clock; it needs --allow-clock, which is for guests only"))
            }
            Some(attempt) => Ok(attempt),
        })
        .collect()
}

fn expand(chosen: &[&'static Attempt], choice: AbiChoice) -> Vec<(&'static Attempt, Abi)> {
    let wanted = |abi: &Abi| match choice {
        AbiChoice::All => true,
        AbiChoice::X86_64 => *abi == Abi::X86_64,
        AbiChoice::I386 => *abi == Abi::I386,
    };
    chosen
        .iter()
        .flat_map(|attempt| attempt.abis.iter().copied().filter(wanted).map(|abi| (*attempt, abi)))
        .collect()
}

fn list(out: &mut impl Write) -> std::io::Result<()> {
    for attempt in attempt::all() {
        let abis: Vec<&str> = attempt.abis.iter().map(|abi| abi.name()).collect();
        writeln!(out, "{} ({}; {})", attempt.name, attempt.call.name(), abis.join(", "))?;
        writeln!(out, "    {}; {}", attempt.what, attempt.harmless)?;
        writeln!(out, "    natively as root: {}; in a container: {}", attempt.native, attempt.contained)?;
        if let Some((cap, want)) = attempt.granted {
            writeln!(out, "    with --cap-add {cap}: {want}")?;
        }
    }
    Ok(())
}
