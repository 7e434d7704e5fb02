//! The live suite: attempts are made, and Ringfence must judge and report each of them rightly.
//!
//! It needs root. `cargo xtask test` runs it on the machine at hand, `cargo xtask vm` in guests.
//! Arguments besides those below are those of Rust's test runner, such as `--list` or a filter by name, which may be
//! several with commas between them.

mod advice;
mod benign;
mod blind;
mod capability;
mod capability_counts;
mod capability_full;
mod capability_limits;
mod capability_place;
mod cases;
mod churn;
mod confined;
mod corpus;
mod docs;
mod docs_commands;
mod docs_terminal;
mod engine_record;
mod evasions;
mod faults;
mod features;
mod guest;
mod hostile;
mod identity;
mod judge;
mod law;
mod listing;
mod looks;
mod manifests;
mod many;
mod matrix;
mod nine;
mod outputs;
mod outside;
mod places;
mod podman;
mod pods;
mod probing;
mod processes;
mod prometheus;
mod races;
mod reload;
mod restart;
mod recording;
mod service;
mod shared;
mod sinks;
mod starts;
mod state_files;
mod syscalls;
mod unit;
mod watched;
mod whose;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tests::features::{Version, running};
use tests::harness::Settings;
use tests::kubernetes::Manifests;

const USAGE: &str = "usage: live --ringfence PATH --attempt PATH --rules DIR [--schema FILE] \
[--attach auto|trampoline|tracepoint] [--guest] [--record FILE] [--benign FILE] [--deploy DIR [--pod IMAGE]] [--services] [test runner's arguments]";

/// What does not depend on how probes are attached. Starting a daemon takes a guest seconds, and half a minute with
/// trampolines: there these are left to the same kernel's boot with tracepoints, and on the first [`IN_BETWEEN`] to the
/// older and the newer kernels, unless they are asked for.
const BESIDE_PROBES: &[&str] = &[
    "reload::",
    "recording::",
    "many::",
    "state-files::",
    "probing::",
    "identity::",
    "advice::",
    "capability-limits::",
    "syscalls::",
    "confined::",
];

/// Kernels that have both an older and a newer neighbour.
const IN_BETWEEN: [Version; 2] = [(6, 1), (6, 12)];
/// What runs in the tracepoint mode only there.
const ONE_MODE_BETWEEN: [&str; 3] = ["races::", "faults::", "law::"];
/// Of [`BESIDE_PROBES`] what does not depend on the kernel at all: it is left to the oldest, where a guest is quickest.
const BESIDE_KERNELS: [&str; 3] = ["recording::", "state-files::", "probing::"];
/// From here on those are left out.
const NEWEST: Version = (7, 0);

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
    if let Err(fault) = benign::begin(&settings, arguments.list) {
        eprintln!("live: {fault}");
        return ExitCode::from(2);
    }
    let settings = Arc::new(settings);
    let gathered = gather(settings.clone(), arguments.filter.as_deref().unwrap_or_default());
    let Gathered { mut trials, suite, matrix } = match gathered {
        Ok(gathered) => gathered,
        Err(fault) => {
            eprintln!("live: {fault}");
            return ExitCode::from(2);
        }
    };
    if settings.guest && arguments.filter.is_none() {
        let is_trampoline = settings.attach == "trampoline";
        let is_beside = is_trampoline || running() == Some(IN_BETWEEN[0]);
        let mut left_out = if is_beside { BESIDE_PROBES.to_vec() } else { Vec::new() };
        if is_trampoline && running().is_some_and(|version| IN_BETWEEN.contains(&version)) {
            left_out.extend(ONE_MODE_BETWEEN);
        }
        if running() >= Some(NEWEST) {
            left_out.extend(BESIDE_KERNELS);
        }
        trials.retain(|trial| !left_out.iter().any(|family| trial.name().starts_with(family)));
    }
    if settings.pod.is_some()
        && let Err(fault) = pods::choose(&mut trials)
    {
        eprintln!("live: {fault}");
        return ExitCode::from(2);
    }
    if settings.services.is_some() {
        unit::choose(&mut trials);
    }
    // The runner knows one filter; a guest's command line may ask for several things.
    if let Some(filter) = arguments.filter.take_if(|filter| filter.contains(',')) {
        let matches = |part: &str| trials.iter().any(|trial| trial.name().contains(part));
        if let Some(nothing) = filter.split(',').find(|part| !matches(part)) {
            eprintln!("live: no test has `{nothing}` in its name");
            return ExitCode::from(2);
        }
        trials.retain(|trial| filter.split(',').any(|part| trial.name().contains(part)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let recorded = match Arc::try_unwrap(matrix) {
        Ok(matrix) => matrix.finish(),
        Err(_) => Err("a test still holds the matrix, so its daemon cannot be stopped".to_owned()),
    };
    // The daemon that served all places has an end of its own to pass.
    let finished = match Arc::try_unwrap(suite) {
        Ok(suite) => suite.finish(),
        Err(_) => Err("a test still holds the suite, so the daemon cannot be stopped".to_owned()),
    };
    match recorded.and(finished) {
        Ok(()) if !conclusion.has_failed() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(101),
        Err(fault) => {
            eprintln!("live: at the end of a daemon that served many tests: {fault}");
            ExitCode::from(101)
        }
    }
}

/// Every trial, and what they share.
struct Gathered {
    trials: Vec<Trial>,
    suite: Arc<places::Suite>,
    matrix: Arc<matrix::Matrix>,
}

/// Lists the trials in the order in which they run; none begins yet.
///
/// # Errors
/// There is no room for a state directory, or the cgroup hierarchies cannot be listed.
fn gather(settings: Arc<Settings>, asked_for: &str) -> Result<Gathered, String> {
    let guest_trials = if settings.guest { guest::trials() } else { Vec::new() };
    let suite = Arc::new(places::Suite::new(settings.clone()));
    let mut trials: Vec<Trial> = unit::trials(&settings);
    // Floods and races come before the daemon that serves all places is started: it would report each call, and
    // the suite would keep them all.
    trials.extend(races::trials(&settings));
    trials.extend(law::trials(&settings));
    trials.extend(reload::trials(&settings));
    trials.extend(blind::trials(&settings));
    trials.extend(starts::trials(&settings));
    trials.extend(restart::trials(&settings));
    trials.extend(service::trials(&settings));
    trials.extend(sinks::trials(&settings));
    trials.extend(prometheus::trials(&settings));
    trials.extend(outputs::trials(&settings));
    trials.extend(docs::trials(&settings));
    trials.extend(confined::trials(&settings));
    trials.extend(processes::trials(&settings));
    trials.extend(capability::trials(&settings));
    trials.extend(capability_limits::trials(&settings));
    trials.extend(faults::trials(&settings));
    trials.extend(recording::trials(&settings));
    trials.extend(many::trials(&suite, asked_for));
    trials.extend(manifests::trials(&settings));
    trials.extend(pods::trials(&settings));
    trials.extend(podman::trials(&settings));
    trials.extend(state_files::trials(&settings));
    trials.extend(churn::trials(&settings));
    trials.extend(whose::trials(&suite));
    trials.extend(outside::trials(&suite));
    trials.extend(listing::trials(&suite));
    trials.extend(syscalls::trials(&suite));
    trials.extend(hostile::trials(&suite));
    trials.extend(probing::trials(&settings));
    trials.extend(evasions::trials(&suite));
    let place = capability_place::Place::new(&suite).map(Arc::new);
    let place = place.map_err(|error| format!("there is no room for a state directory: {error}"))?;
    trials.extend(nine::trials(&place));
    trials.extend(advice::trials(&place));
    trials.push(nine::the_end(&place));
    trials.extend(places::trials(&suite));
    let matrix = Arc::new(matrix::Matrix::new(suite.clone()));
    trials.extend(matrix::trials(&matrix));
    trials.extend(corpus::trials(&suite));
    trials.extend(engine_record::trials(&suite));
    let of_identity = identity::trials(&suite);
    trials.extend(of_identity.map_err(|error| format!("the cgroup hierarchies cannot be listed: {error}"))?);
    trials.extend(features::trials(&suite));
    trials.extend(pods::memory(&suite));
    trials.extend(guest_trials);
    Ok(Gathered { trials, suite, matrix })
}

/// Every trial of a suite with neither pods nor services, to look at their names.
#[cfg(test)]
fn gather_nowhere() -> Result<Gathered, String> {
    let nowhere = || "/nonexistent".into();
    let settings = Settings {
        ringfence: nowhere(),
        attempt: nowhere(),
        rules: nowhere(),
        schema: None,
        attach: "tracepoint".to_owned(),
        guest: false,
        record: None,
        benign: None,
        manifests: Some(Manifests::new(nowhere())),
        pod: None,
        services: None,
    };
    gather(Arc::new(settings), "")
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<(Settings, Arguments), String> {
    let (mut ringfence, mut attempt, mut rules, mut schema) = (None, None, None, None);
    let (mut attach, mut guest, mut record) = ("auto".to_owned(), false, None);
    let (mut benign, mut deploy, mut pod, mut services) = (None, None, None, None);
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
            "--record" => record = Some(value()?.into()),
            "--benign" => benign = Some(value()?.into()),
            "--deploy" => deploy = Some(PathBuf::from(value()?)),
            "--services" => services = Some(Arc::default()),
            "--pod" => pod = Some(PathBuf::from(value()?)),
            _ => others.push(argument),
        }
    }
    let ringfence: PathBuf = ringfence.ok_or("--ringfence is missing")?;
    let attempt: PathBuf = attempt.ok_or("--attempt is missing")?;
    let rules: PathBuf = rules.ok_or("--rules is missing")?;
    if services.is_some() && !guest {
        return Err("--services starts and stops the machine's own Ringfence: it needs --guest".to_owned());
    }
    let manifests = deploy.map(Manifests::new);
    let pod = match (pod, &manifests) {
        (None, _) => None,
        (Some(_), None) => return Err("--pod needs --deploy".to_owned()),
        (Some(image), Some(manifests)) => Some(Arc::new(pods::runner(manifests, image, &attempt, &rules))),
    };
    let settings = Settings {
        ringfence,
        attempt,
        rules,
        schema,
        attach,
        guest,
        record,
        benign,
        manifests,
        pod,
        services,
    };
    Ok((settings, Arguments::from_iter(others)))
}
