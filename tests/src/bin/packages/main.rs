//! The suite of what `cargo xtask dist` makes: packages are installed, images run, the bill of materials is read.
//!
//! It needs root, and leaves the machine as it is: packages are installed into a copy of it that nobody else sees, images
//! into engines of the suite's own. `cargo xtask test --only dist` runs it.

mod bill;
mod by_hand;
mod debian;
mod image;
mod place;
mod root;
mod tarball;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use libtest_mimic::Arguments;

const USAGE: &str =
    "usage: packages --dist DIR --attempt PATH --schemas DIR --repository DIR [test runner's arguments]";

/// What the suite was told.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The directory with all that `cargo xtask dist` made.
    dist: PathBuf,
    /// Any program that is linked statically, for the engine's own image.
    attempt: PathBuf,
    /// The directory with CycloneDX' schemas.
    schemas: PathBuf,
    /// The repository, whose documents say what to do.
    repository: PathBuf,
}

impl Settings {
    /// The file of the release whose name ends so.
    fn file(&self, end: &str) -> Result<PathBuf, String> {
        let entries =
            std::fs::read_dir(&self.dist).map_err(|error| format!("{}: {error}", self.dist.display()))?;
        let mut found = entries.flatten().map(|entry| entry.path());
        found
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end)))
            .ok_or(format!("nothing in {} ends in {end}", self.dist.display()))
    }
}

/// Runs a command; gives its standard output, or an error with all that it said.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(|error| format!("{program:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let arguments: Vec<_> = command.get_args().collect();
    Err(format!("{program:?} {arguments:?}: {}\n{text}\n{errors}", output.status))
}

fn main() -> ExitCode {
    let (settings, mut arguments) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("packages: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // SAFETY: a plain question.
    if !arguments.list && unsafe { libc::geteuid() } != 0 {
        eprintln!("packages: the suite installs packages and starts containers, so it must run as root");
        return ExitCode::from(2);
    }
    arguments.test_threads = Some(1);
    let settings = Arc::new(settings);
    let mut trials = bill::trials(&settings);
    trials.extend(tarball::trials(&settings));
    trials.extend(debian::trials(&settings));
    trials.extend(by_hand::trials(&settings));
    trials.extend(image::trials(&settings));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Settings, Arguments), String> {
    let (mut dist, mut attempt, mut schemas, mut repository) = (None, None, None, None);
    let mut others = vec!["packages".to_owned()];
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().map(PathBuf::from).ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--dist" => dist = Some(value()?),
            "--attempt" => attempt = Some(value()?),
            "--schemas" => schemas = Some(value()?),
            "--repository" => repository = Some(value()?),
            _ => others.push(argument),
        }
    }
    // Commands run in other directories.
    let whole = |path: Option<PathBuf>, what: &str| {
        let path = path.ok_or(format!("{what} is missing"))?;
        path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
    };
    let settings = Settings {
        dist: whole(dist, "--dist")?,
        attempt: whole(attempt, "--attempt")?,
        schemas: whole(schemas, "--schemas")?,
        repository: whole(repository, "--repository")?,
    };
    Ok((settings, Arguments::from_iter(others)))
}
