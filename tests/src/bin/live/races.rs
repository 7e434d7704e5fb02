//! What Ringfence reports as fact is what the kernel did, while a second thread rewrites the arguments.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::Trial;
use tempfile::TempDir;
use tests::attempt::race::{RACES, Race};
use tests::harness::{Daemon, MOST_TURNS, PATIENCE, Settings, wait};

use crate::shared::{self, Life};

/// Calls of each race on a real machine: more than a million over all races.
const CALLS: u64 = 250_000;
/// Calls that make a process each take about 200 microseconds.
const CALLS_WITH_PROCESSES: u64 = 20_000;
/// A guest interprets every instruction, which takes about fifty times as long, and more with each process.
const CALLS_IN_GUESTS: u64 = 5_000;
const CALLS_WITH_PROCESSES_IN_GUESTS: u64 = 200;
/// So often these calls are made at most, to see everything that a race can come to.
const MOST_HEATS: usize = 10;
/// Begins the part of a line that the suite's rule renders.
const BEGIN: &str = "RACE ";
/// Begins what the rule for markers renders; the process follows.
const MARKER: &str = "marker ";

/// One daemon for all races; its standard output is read as it comes.
struct Course {
    daemon: Daemon,
    /// The rendered part of each line.
    events: Mutex<Receiver<String>>,
    _rules: TempDir,
}

const COURSE: Life<Course> = Life {
    start: Course::start,
    last: "races::daemon_ends_well",
    end: |_, course| course.daemon.stop()?.check(),
};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let named: Vec<(String, Race)> = RACES
        .iter()
        .filter(|race| settings.guest || !race.guest_only)
        .map(|race| (format!("races::{}", race.name), *race))
        .collect();
    let cases: Vec<_> = named
        .iter()
        .map(|(name, race)| {
            let race = *race;
            (name.as_str(), move |settings: &Settings, course: &Course| course.hold(settings, &race))
        })
        .collect();
    shared::trials(settings, COURSE, &cases)
}

impl Course {
    fn start(settings: &Settings) -> Result<Course, String> {
        let rules = rules()?;
        let path = rules.path().display().to_string();
        let quiet = ["--canary-interval-ms", "off"];
        let arguments = [&["--rules", &path][..], &quiet].concat();
        let (daemon, out) = Daemon::start_text(settings, &arguments, Stdio::piped())?;
        let events = Mutex::new(read_events(out.ok_or("no standard output")?));
        Ok(Course { daemon, events, _rules: rules })
    }

    /// Races until every outcome was seen, and memory that differed: where two threads seldom run at once, that
    /// takes longer. Each event of each heat must be true.
    fn hold(&self, settings: &Settings, race: &Race) -> Result<(), String> {
        let mut tally = Tally::default();
        for _ in 0..MOST_HEATS {
            self.whole_heat(settings, race, &mut tally)?;
            if tally.lacks(race).is_none() {
                println!("race {}: {:?}, memory differed {} times", race.name, tally.outcomes, tally.lies);
                return Ok(());
            }
        }
        Err(tally.lacks(race).unwrap_or_default())
    }

    /// Runs one race in which the kernel skipped no probe. A skipped one leaves a call without its event, so all that
    /// follow are compared with the wrong ones: that proves nothing.
    fn whole_heat(&self, settings: &Settings, race: &Race, tally: &mut Tally) -> Result<(), String> {
        for _ in 0..MOST_TURNS {
            let before = self.daemon.skipped()?;
            let mut turn = tally.clone();
            match self.heat(settings, race, &mut turn) {
                Ok(()) => {
                    *tally = turn;
                    return Ok(());
                }
                Err(fault) if self.daemon.skipped()? == before => return Err(fault),
                Err(_) => self.catch_up(settings)?,
            }
        }
        Err(format!("the kernel skipped probes in each of {MOST_TURNS} turns"))
    }

    /// Lets pass what is left of a heat that was given up.
    fn catch_up(&self, settings: &Settings) -> Result<(), String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let marker = mark(settings)?;
        loop {
            if events.recv_timeout(PATIENCE).map_err(|_| "the marker's event is missing")? == marker {
                return Ok(());
            }
        }
    }

    /// Runs one race and compares event by event with what the racer learnt from the kernel. The racer waits for
    /// us to take its facts, and we take one only after its event: so nothing can be lost for want of room.
    fn heat(&self, settings: &Settings, race: &Race, tally: &mut Tally) -> Result<(), String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = match (settings.guest, race.makes_processes) {
            (false, false) => CALLS,
            (false, true) => CALLS_WITH_PROCESSES,
            (true, false) => CALLS_IN_GUESTS,
            (true, true) => CALLS_WITH_PROCESSES_IN_GUESTS,
        };
        let mut racer = Command::new(&settings.attempt)
            .args(["race", race.name, "--count", &calls.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("attempt: {error}"))?;
        let facts = BufReader::new(racer.stdout.take().ok_or("no standard output")?);
        let compared = tally.compare(race, facts, &events);
        // A racer that is ahead of a comparison that failed would wait for ever.
        let status = if compared.is_ok() { wait(&mut racer)? } else { stop(&mut racer)? };
        compared.map_err(|fault| format!("{fault}\nthe daemon's log:\n{}", self.daemon.log()))?;
        if !status.success() {
            return Err(format!("attempt: {status}"));
        }
        nothing_more(settings, &events)
    }
}

fn stop(racer: &mut std::process::Child) -> Result<std::process::ExitStatus, String> {
    racer.kill().and_then(|()| racer.wait()).map_err(|error| format!("attempt: {error}"))
}

/// Makes a marker and gives what its event renders.
fn mark(settings: &Settings) -> Result<String, String> {
    let made = Command::new(&settings.attempt)
        .args(["run", "setns-badfd", "--abi", "x86_64"])
        .output()
        .map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok(format!("{MARKER}{}", json["pid"]))
}

/// The event of a marker is the next to come.
fn nothing_more(settings: &Settings, events: &Receiver<String>) -> Result<(), String> {
    let marker = mark(settings)?;
    let event = events.recv_timeout(PATIENCE).map_err(|_| "the marker's event is missing")?;
    if event == marker {
        return Ok(());
    }
    Err(format!("an event of nothing that was done: {event}"))
}

/// A rule for the events of each race, by the name that racers give themselves, and one for markers.
fn rules() -> Result<TempDir, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let rule = |name: &str, condition: &str, output: &str| {
        format!(
            "- rule: {name}\n  desc: Events of a race.\n  condition: {condition}\n  \
             output: '{BEGIN}{output}'\n  priority: notice\n"
        )
    };
    let marker = format!("{MARKER}%proc.vpid");
    let mut all = rule("Marker", "proc.name = attempt and evt.type = setns and evt.res = EBADF", &marker);
    for race in RACES {
        let condition = format!("proc.name = {} and {}", race.name, race.condition);
        all.push_str(&rule(&format!("Race {}", race.name), &condition, race.output));
    }
    std::fs::write(dir.path().join("races.yaml"), all).map_err(|error| error.to_string())?;
    Ok(dir)
}

/// The rendered part of each line, as it comes.
fn read_events(out: ChildStdout) -> Receiver<String> {
    let (send, events) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::with_capacity(1 << 20, out).lines().map_while(Result::ok) {
            let rendered = line.split_once(BEGIN).map_or(line.as_str(), |(_, rendered)| rendered);
            if send.send(rendered.to_owned()).is_err() {
                return;
            }
        }
    });
    events
}

/// What was compared.
#[derive(Clone, Default)]
struct Tally {
    /// Events whose claim was not the fact.
    lies: u64,
    /// Facts by the outcome that they show.
    outcomes: HashMap<&'static str, u64>,
}

impl Tally {
    fn compare(&mut self, race: &Race, facts: impl BufRead, events: &Receiver<String>) -> Result<(), String> {
        for (number, fact) in facts.lines().enumerate() {
            let fact = fact.map_err(|error| format!("attempt: {error}"))?;
            let event = events
                .recv_timeout(PATIENCE)
                .map_err(|_| format!("event {number} is missing; the kernel did: {fact}"))?;
            let (shown, claim) = event.split_once('#').ok_or(format!("no `#` in: {event}"))?;
            if shown != fact {
                return Err(format!("event {number}\n  shows  {shown}\n  claims {claim}\n  kernel {fact}"));
            }
            self.lies += u64::from((race.lies)(&fact, claim));
            for outcome in race.outcomes.iter().filter(|outcome| fact.contains(**outcome)) {
                *self.outcomes.entry(outcome).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What did not happen yet. A race in which nothing was raced proves nothing.
    fn lacks(&self, race: &Race) -> Option<String> {
        let missing: Vec<&&str> =
            race.outcomes.iter().filter(|outcome| !self.outcomes.contains_key(**outcome)).collect();
        if !missing.is_empty() {
            return Some(format!(
                "these outcomes never came: {missing:?}; those that did: {:?}",
                self.outcomes
            ));
        }
        let never = "user memory never held anything else than what the kernel took";
        (self.lies == 0).then(|| never.to_owned())
    }
}
