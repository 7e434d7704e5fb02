//! The live suite: attempts are made, and Ringfence must judge and report each of them rightly.
//!
//! It needs root. `cargo xtask test` runs it on the machine at hand, `cargo xtask vm` in guests.
//! Arguments besides those below are those of Rust's test runner, such as a filter by name or `--list`.

mod corpus;
mod judge;
mod law;
mod places;
mod starts;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tests::harness::Settings;

const USAGE: &str = "usage: live --ringfence PATH --attempt PATH --rules DIR [--schema FILE] \
[--attach auto|trampoline|tracepoint] [--guest] [test runner's arguments]";

fn main() -> ExitCode {
    let (settings, mut arguments) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("live: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // SAFETY: a plain question.
    if !arguments.list && unsafe { libc::geteuid() } != 0 {
        eprintln!("live: the suite attaches probes and makes attempts, so it must run as root");
        return ExitCode::from(2);
    }
    if settings.guest && !tests::attempt::is_own_guest() {
        eprintln!(
            "live: --guest sets the clock; the kernel's command line has no ringfence.attach=MODE, \
             so this is no guest of the suite"
        );
        return ExitCode::from(2);
    }
    // One at a time: two cores are shared with the daemon, and floods must not meet other cases.
    arguments.test_threads = Some(1);
    let settings = Arc::new(settings);
    let suite = Arc::new(places::Suite::new(settings.clone()));
    let mut trials: Vec<Trial> = places::trials(&suite);
    trials.extend(law::trials(&settings));
    trials.extend(starts::trials(&settings));
    trials.extend(corpus::trials(&suite));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The daemon that served all places has an end of its own to pass.
    let finished = match Arc::try_unwrap(suite) {
        Ok(suite) => suite.finish(),
        Err(_) => Err("a test still holds the suite, so the daemon cannot be stopped".to_owned()),
    };
    match finished {
        Ok(()) if !conclusion.has_failed() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(101),
        Err(fault) => {
            eprintln!("live: at the end of the daemon that served all places: {fault}");
            ExitCode::from(101)
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<(Settings, Arguments), String> {
    let (mut ringfence, mut attempt, mut rules, mut schema) = (None, None, None, None);
    let (mut attach, mut guest) = ("auto".to_owned(), false);
    let mut others = vec!["live".to_owned()];
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--ringfence" => ringfence = Some(value()?.into()),
            "--attempt" => attempt = Some(value()?.into()),
            "--rules" => rules = Some(value()?.into()),
            "--schema" => schema = Some(value()?.into()),
            "--attach" => attach = value()?,
            "--guest" => guest = true,
            _ => others.push(argument),
        }
    }
    let settings = Settings {
        ringfence: ringfence.ok_or("--ringfence is missing")?,
        attempt: attempt.ok_or("--attempt is missing")?,
        rules: rules.ok_or("--rules is missing")?,
        schema,
        attach,
        guest,
    };
    Ok((settings, Arguments::from_iter(others)))
}
