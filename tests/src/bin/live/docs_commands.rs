//! The commands of the documents, word for word, against a running daemon.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::book::{self, Run};
use tests::docker::Engine;
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::state::Config;

use crate::docs::{Watching, daemon, demo, ringfence, said, text};

/// The container that the documents ask about.
const WEB: &str = "web";

/// Directories of our own, and the program in one of them.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    repository: PathBuf,
    made: usize,
}

impl Scratch {
    pub(crate) fn new(settings: &Settings) -> Result<Scratch, String> {
        let dir = tempfile::tempdir().map_err(text)?;
        let scratch = Scratch { dir, repository: settings.repository()?, made: 0 };
        std::fs::create_dir(scratch.bin()).map_err(text)?;
        symlink(&settings.ringfence, scratch.bin().join("ringfence")).map_err(text)?;
        Ok(scratch)
    }

    /// The first directory in which its shells look for programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// A shell for these commands, in a new directory with what they use of the repository.
    pub(crate) fn bash(&mut self, commands: &str) -> Result<Command, String> {
        self.made += 1;
        let dir = self.dir.path().join(self.made.to_string());
        std::fs::create_dir(&dir).map_err(text)?;
        // Not the repository's own, for commands may write.
        let mut copy = Command::new("cp");
        copy.arg("-r").args(book::USED_OF_REPOSITORY.map(|name| self.repository.join(name))).arg(&dir);
        let copied = copy.output().map_err(text)?;
        if !copied.status.success() {
            return Err(said(&copied));
        }
        let path = format!("{}:{}", self.bin().display(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.args(["-c", commands]).current_dir(dir).env("PATH", path).stdin(Stdio::null());
        Ok(bash)
    }
}

/// The commands one after the other; `ringfence` ends with 1 where it found something wrong, which it may.
pub(crate) fn one_by_one(commands: &str) -> String {
    const FOUND_SOMETHING: &str = r#"[ $? = 1 ] && [[ "$BASH_COMMAND " == *"ringfence "[a-z]* ]]"#;
    format!("set -uEo pipefail\ntrap '{FOUND_SOMETHING} || exit 99' ERR\n{commands}true\n")
}

/// Tells a shell whom to ask.
fn about<'c>(bash: &'c mut Command, settings: &Settings, daemon: &Daemon) -> &'c mut Command {
    bash.env("RINGFENCE_CONTROL_SOCKET", daemon.control_socket())
        .env("RINGFENCE_LISTEN", daemon.address())
        .env("RINGFENCE_RULES", format!("[{:?}]", settings.rules.display().to_string()))
}

/// Waits until the list of containers, as `ask` gives it, calls this one so: names are read aside.
pub(crate) fn await_name(
    id: &str,
    name: &str,
    ask: impl Fn() -> Result<String, String>,
) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let list = ask()?;
        if list.lines().any(|line| line.contains(&id[..12]) && line.contains(name)) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{id} is not called {name}:\n{list}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every block that no test of its own runs, and that is not marked with why not.
pub(crate) fn commands(settings: &Settings) -> Result<(), String> {
    let documents = book::documents(&settings.repository()?)?;
    let blocks = documents.values().flat_map(|document| &document.blocks);
    let (mut run, mut faults) = (0, Vec::new());
    let daemon = daemon(settings)?;
    let mut scratch = Scratch::new(settings)?;
    for block in blocks.filter(|block| block.run == Run::Anywhere) {
        run += 1;
        if let Some(program) = block.harmful() {
            faults.push(format!("{}: `{program}` is not run here, and no reason is given", block.place));
            continue;
        }
        let mut bash = scratch.bash(&one_by_one(&block.commands))?;
        match about(&mut bash, settings, &daemon).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => faults.push(format!("{}: {}\n{}", block.place, said(&output), block.commands)),
            Err(error) => faults.push(format!("{}: bash: {error}", block.place)),
        }
    }
    if run < 5 {
        faults.push(format!("only {run} blocks were run"));
    }
    daemon.stop()?.check()?;
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Commands that go on until the daemon ends, all at once, each in a line of its own.
pub(crate) fn watching(settings: &Settings) -> Result<(), String> {
    let daemon = daemon(settings)?;
    let mut scratch = Scratch::new(settings)?;
    let mut all = Vec::new();
    for block in book::blocks_of(&settings.repository()?, book::WATCHES)? {
        for line in block.commands.lines() {
            let mut bash = scratch.bash(&format!("set -o pipefail\n{line}\n"))?;
            all.push(Watching::start(line, about(&mut bash, settings, &daemon))?);
        }
    }
    demo(settings)?;
    daemon.stop()?.check()?;
    for watching in all {
        let (line, printed) = watching.end()?;
        // The demonstration is in no container of that name.
        let is_elsewhere = line.contains(&format!("container.name = {WEB}"));
        if printed.is_empty() != is_elsewhere {
            return Err(format!("`{line}` printed: {printed}"));
        }
        if line.ends_with("jq .rule") && !printed.lines().any(|rule| rule.starts_with('"')) {
            return Err(format!("`{line}` names no rules: {printed}"));
        }
    }
    Ok(())
}

/// What a container of that name was granted, and what it needs.
pub(crate) fn capabilities(settings: &Settings) -> Result<(), String> {
    let engine = Engine::start(&settings.attempt).map_err(text)?;
    let config = Config::docker(&engine.state()).map_err(text)?;
    let rules = settings.rules.display().to_string();
    let daemon = Daemon::start(settings, &["--config", &config.path(), "--rules", &rules])?;
    let id = engine.create(&["--name", WEB], &["/bin/sleep", "600"]).map_err(text)?;
    engine.client(&["start", &id]).map_err(text)?;
    await_name(&id, WEB, || {
        Ok(said(&ringfence(settings, &daemon, &["containers"]).output().map_err(text)?))
    })?;
    let mut scratch = Scratch::new(settings)?;
    for block in book::blocks_of(&settings.repository()?, book::CAPABILITIES)? {
        let mut bash = scratch.bash(&one_by_one(&block.commands))?;
        let output = about(&mut bash, settings, &daemon).output().map_err(text)?;
        let printed = said(&output);
        // The list, the container for people, the container for programs; and why it is too early for advice.
        let parts = [WEB, "CAP_CHOWN", "\"granted\"", "--min-observation"];
        if !output.status.success() || parts.iter().any(|part| !printed.contains(part)) {
            return Err(format!("{}: wanted are {parts:?}: {printed}", block.place));
        }
    }
    engine.client(&["rm", "--force", WEB]).map_err(text)?;
    daemon.stop()?.check()
}
