//! Makes harmless attempts on a container's walls: by name, all kinds for a demonstration, or many for a measurement.
//!
//! To run inside containers and guests it is linked statically:
//! `cargo rustc --package tests --bin attempt -- -C target-feature=+crt-static`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use monitor_common::call::{Abi, Call};
use monitor_common::caps::Cap;
use tests::attempt::needs::Need;
use tests::attempt::tour::Tour;
use tests::attempt::{self, Attempt, Way, elf32, evade, gains, grow, load, mark, needs, prep, race};
use tests::seccomp::{self, Filter};

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
        /// How to get into the kernel, where the call exists that way; all: x86_64 and int80.
        #[arg(long = "abi", default_value = "all")]
        ways: Ways,
        /// How many times each is made.
        #[arg(long, default_value_t = 1)]
        repeat: u32,
        /// How many times the process that makes it makes it.
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Milliseconds to wait after each.
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
        /// Allow attempts that change the machine, such as its clock (to the current time). Only for virtual
        /// machines of your own.
        #[arg(long)]
        allow_clock: bool,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Runs a program in place of this one.
    Exec {
        #[command(flatten)]
        bounds: Bounds,
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
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
    /// Makes calls while a second thread rewrites their arguments; waits for a line on standard input first.
    /// Each line of output is the event that must come.
    Race {
        /// Which race.
        name: String,
        /// How many calls.
        #[arg(long, default_value_t = 1000)]
        count: u64,
    },
    /// Makes an attempt in a way that hides its end; prints the process and its child or thread.
    Evade {
        /// tracer, vfork or killed-thread.
        way: String,
    },
    /// Makes our own capabilities grow by a door that the kernel has for it.
    Grow {
        /// setuid, setreuid, setresuid, setfsuid, capset, prctl, unshare, setns, clone or exec; nothing: by none.
        door: String,
        /// By which system call table.
        #[arg(long, default_value = "x86_64")]
        abi: Ways,
        /// By the call with ids of 16 bits, of the 32-bit table.
        #[arg(long)]
        old: bool,
    },
    /// Makes a known number of capability checks.
    Checks,
    /// Asks for capabilities one after the other, in a cgroup or in many; a line of JSON says how many checks that made.
    Tour {
        /// Capabilities to ask for, with commas between them; all for which the kernel has a call, if none is named.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// How often: with the capability and as often without.
        #[arg(long, default_value_t = 1)]
        rounds: u64,
        /// Ask instead in new cgroups below this directory.
        #[arg(long, requires = "count")]
        below: Option<PathBuf>,
        /// How many of these.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Makes one attempt that carries a number, by which its alert is known.
    Mark {
        /// At least 2,000,000.
        #[arg(value_parser = clap::value_parser!(u32).range(i64::from(mark::FIRST)..))]
        number: u32,
    },
    /// Makes children one after the other, some of which make a mark; each of those is a line of JSON.
    Churn {
        /// How many children.
        forks: u32,
        /// Each so many-th makes a mark, and so does a child of the one after it.
        #[arg(long, default_value_t = 500)]
        every: u32,
        /// The first mark's number.
        #[arg(long, default_value_t = mark::FIRST)]
        first: u32,
        /// The first process id and the number of those that all children take in turn: pids are used again at once.
        #[arg(long, num_args = 2)]
        pids: Option<Vec<i32>>,
    },
    /// Does something that takes a capability, and ends; each result is a line of JSON.
    Need {
        /// What: nice, raise-limit, link-up, log-unread, port, map-zero, tick, bounding-drop, mount, policy, load-module, attach,
        /// open-handle, bpf-types or sample.
        #[arg(required = true)]
        names: Vec<String>,
        /// Move to this cgroup first.
        #[arg(long)]
        cgroup: Option<PathBuf>,
    },
    /// Looks for capabilities as harmless programs do, without a need: at the attributes of a file, at another user's process,
    /// and at a file that nobody may read.
    Look,
    /// Comes by capabilities; prints the process that did.
    Gain {
        /// set-uid, file, file-permitted, seteuid, capset, ambient or user-namespace.
        way: String,
        /// The capability of the file, or that is raised.
        #[arg(long, default_value = "CAP_NET_RAW")]
        cap: String,
    },
    /// Makes a copy of this program that has a file capability with the effective bit.
    Carry {
        /// Where the copy goes.
        path: PathBuf,
        /// The capability.
        cap: String,
    },
    /// Waits, and says that it did.
    Linger {
        /// For how long.
        ms: u64,
    },
    /// Becomes nobody by setgroups, setresgid and setresuid, for good.
    Drop,
    /// Does nothing but say its process id.
    Getpid,
    /// Opens a file for reading, by a path of any bytes.
    Open {
        /// Which.
        path: PathBuf,
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

/// What to give up first.
#[derive(clap::Args)]
struct Bounds {
    /// Put a seccomp filter in force; without a name that which is like Docker's default.
    #[arg(long, require_equals = true, num_args = 0..=1, default_missing_value = "docker")]
    seccomp: Option<SeccompChoice>,
    /// Drop for good every capability that a wall asks for.
    #[arg(long)]
    bare: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SeccompChoice {
    Docker,
    Watched,
    WatchedButOpens,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ways {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "i386", alias = "int80")]
    Int80,
    #[value(name = "elf32")]
    Elf32,
    #[value(name = "x32")]
    X32,
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum Unrelated {
    Getppid,
    Read,
    Checked,
    Denied,
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
        Command::Run { names, ways, repeat, count, pause_ms, allow_clock, bounds } => {
            let chosen = choose(&names, allow_clock)?;
            let _program = matches!(ways, Ways::Elf32).then(elf32::install).transpose()?;
            bounds.put_in_force()?;
            if count > 1 {
                attempt::raise_file_limit();
            }
            for _ in 0..repeat {
                for (attempt, way) in expand(&chosen, ways) {
                    writeln!(out, "{}", attempt::run(attempt, way, count)?.json(attempt, way))?;
                    std::thread::sleep(std::time::Duration::from_millis(pause_ms));
                }
            }
        }
        Command::Exec { bounds, command } => {
            bounds.put_in_force()?;
            let (program, arguments) = command.split_first().ok_or("no program")?;
            return Err(std::process::Command::new(program).args(arguments).exec().into());
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
        Command::Race { name, count } => {
            let known = || race::RACES.iter().map(|race| race.name).collect::<Vec<_>>().join(", ");
            let race =
                race::by_name(&name).ok_or_else(|| format!("no race `{name}`: choose one of {}", known()))?;
            race::run(race, count)?;
        }
        Command::Evade { way } => {
            if way == "killed-thread" {
                return Ok(evade::killed_thread()?);
            }
            if way == "asked-before" {
                return Ok(evade::asked_before()?);
            }
            let known = evade::WAYS.iter().find(|(name, _)| *name == way);
            known.ok_or_else(|| format!("no way `{way}`"))?.1()?;
        }
        Command::Grow { door, .. } if door == "nothing" => {}
        Command::Grow { door, abi, old } => {
            let abi = match abi {
                Ways::X32 => Abi::X32,
                Ways::Int80 => Abi::I386,
                _ => Abi::X86_64,
            };
            grow::grow(&door, abi, old)?;
        }
        Command::Checks => grow::checks()?,
        Command::Mark { number } => {
            let ret = mark::make(number);
            writeln!(out, "{}", serde_json::json!({"number": number, "ret": ret}))?;
        }
        Command::Churn { forks, every, first, pids } => {
            let pids = pids.and_then(|pids| Some((*pids.first()?, *pids.get(1)?)));
            mark::Churn { forks, every: every.max(2), first, pids }.make(|line| writeln!(out, "{line}"))?;
        }
        Command::Tour { only, rounds, below, count } => {
            let named = |name: &String| {
                Cap::ALL
                    .iter()
                    .find(|cap| cap.name() == name)
                    .copied()
                    .ok_or(format!("no capability `{name}`"))
            };
            let only: Vec<Cap> = only.iter().map(named).collect::<Result<_, _>>()?;
            let tour = Tour { only: &only, rounds, below: below.as_deref().zip(count) };
            writeln!(out, "{}", tour.make()?)?;
        }
        Command::Look => needs::look()?,
        Command::Need { names, cgroup } => {
            if let Some(cgroup) = cgroup {
                std::fs::write(cgroup.join("cgroup.procs"), "0")?;
            }
            for name in names {
                let need = Need::by_name(&name).ok_or_else(|| format!("nothing called `{name}`"))?;
                writeln!(out, "{}", need.make()?)?;
            }
        }
        Command::Gain { way, cap } => {
            let cap = Cap::ALL.iter().find(|known| known.name() == cap);
            writeln!(out, "{}", gains::go(&way, *cap.ok_or("no such capability")?)?)?;
        }
        Command::Carry { path, cap } => {
            let cap = Cap::ALL.iter().find(|known| known.name() == cap);
            gains::carry(&path, 0o755, Some((*cap.ok_or("no such capability")?, true)))?;
        }
        Command::Linger { ms } => {
            std::thread::sleep(std::time::Duration::from_millis(ms));
            writeln!(out, "lingered")?;
        }
        Command::Drop => writeln!(out, "{}", gains::drop_to_nobody()?)?,
        Command::Getpid => writeln!(out, "{}", std::process::id())?,
        Command::Open { path } => std::fs::File::open(path).map(drop)?,
        Command::Spin { call, count } => {
            let call = match call {
                Unrelated::Getppid => load::Unrelated::Getppid,
                Unrelated::Read => load::Unrelated::Read,
                Unrelated::Checked => load::Unrelated::Checked,
                Unrelated::Denied => load::Unrelated::Denied,
            };
            writeln!(out, "{:.2}", load::spin(call, count)?)?;
        }
    }
    Ok(())
}

impl Bounds {
    fn put_in_force(&self) -> std::io::Result<()> {
        if self.bare {
            prep::bare()?;
            // Without CAP_SYS_ADMIN a filter needs this.
            // SAFETY: numbers only; a failure shows in the filter.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        }
        match self.seccomp {
            None => Ok(()),
            Some(SeccompChoice::Docker) => seccomp::put_in_force(Filter::Docker),
            Some(SeccompChoice::Watched) => seccomp::put_in_force(Filter::Watched),
            Some(SeccompChoice::WatchedButOpens) => seccomp::put_in_force(Filter::WatchedButOpens),
        }
    }
}

fn choose(names: &[String], allow_clock: bool) -> Result<Vec<&'static Attempt>, String> {
    names
        .iter()
        .map(|name| match attempt::by_name(name) {
            None => Err(format!("no attempt is called `{name}`; `attempt list` names them all")),
            Some(attempt) if attempt.guest_only && !allow_clock => {
                Err(format!("`{name}` changes the machine; it needs --allow-clock, which is for guests only"))
            }
            Some(attempt) => Ok(attempt),
        })
        .collect()
}

fn expand(chosen: &[&'static Attempt], ways: Ways) -> Vec<(&'static Attempt, Way)> {
    let ways: &[Way] = match ways {
        Ways::All => &[Way::X86_64, Way::Int80],
        Ways::X86_64 => &[Way::X86_64],
        Ways::Int80 => &[Way::Int80],
        Ways::Elf32 => &[Way::Elf32],
        Ways::X32 => &[Way::X32],
    };
    let each = |attempt: &'static Attempt| {
        ways.iter().copied().filter(|way| way.takes(attempt)).map(move |way| (attempt, way))
    };
    chosen.iter().copied().flat_map(each).collect()
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
