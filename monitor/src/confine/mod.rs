//! What the daemon takes from itself once it has attached, before it judges or serves: capabilities, the way to new
//! privileges, system calls, files.
//!
//! Four layers, each by itself, each to be switched off (`confine` in the configuration). A layer that this kernel does not
//! have, or that fails, is said in the log, in `ringfence status` and by a metric, and the daemon watches all the same:
//! less protected is better than blind.

mod calls;
mod capabilities;
mod files;
mod program;
mod refused;
mod report;
mod threads;

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;

use serde::Deserialize;

use crate::capabilities::make_directory;
use crate::config::{OutputKind, Settings};
use crate::hierarchy::Hierarchy;
use crate::rules::Sources;
use calls::Wanted;
use files::{LOOKS_AT_OTHERS, Places, directory_of, existing};
pub(crate) use program::Program;
pub(crate) use program::{Answer, Rule, Rules, Test};
pub use report::{Layer, Outcome, Report, Said};
pub(crate) use threads::empty_bounding_set;
use threads::{Order, everywhere};

/// The canary thread's name: its calls are others, so its filter is another, which it sets itself.
const CANARY: &str = "canary";
/// The thread that attaches, the only one that keeps its capabilities until it ends.
const PRIVILEGED: &str = "attach";

/// Which layers are wanted. All, unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Confine {
    /// Capabilities that are not needed any more are given up.
    pub capabilities: bool,
    /// System calls that the daemon does not make are refused.
    pub seccomp: bool,
    /// Files and ports that the daemon does not need are out of reach.
    pub landlock: bool,
}

impl Default for Confine {
    fn default() -> Self {
        Confine { capabilities: true, seccomp: true, landlock: true }
    }
}

/// The layers of a daemon that starts.
#[derive(Debug)]
pub struct Confinement {
    wanted: Confine,
    calls: Wanted,
    places: Places,
    rulesets: Result<Rulesets, Outcome>,
    report: Report,
    said: Said,
}

impl Confinement {
    /// For a daemon with these settings, which pins in this directory, if it pins; what comes of it is told to `said`.
    /// Nothing is given up yet.
    pub fn new(settings: &Settings, rules: &Sources, pins: Option<&Path>, said: Said) -> Self {
        // What is there can be written to without what is above it. The thread that uses it says what is wrong with it.
        if let Some(state) = settings.state_dir.path()
            && let Err(error) = make_directory(state)
        {
            tracing::debug!(%error, "the state directory cannot be made");
        }
        Confinement {
            wanted: settings.confine,
            calls: Wanted { network: settings.outputs.iter().any(|output| output.kind.is_networked()) },
            places: places(settings, rules, pins),
            rulesets: Err(Outcome::SwitchedOff),
            report: Report::default(),
            said,
        }
    }

    /// Does what takes capabilities, on a thread that has them and ends with it; every other thread, the calling one
    /// included, gives up those that are not needed afterwards, before the work begins. So nothing that is attached by
    /// it sees this.
    ///
    /// # Errors
    /// No thread can be had. What went wrong with capabilities is in the report.
    pub fn apart<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if !self.wanted.capabilities {
            self.report.set(Layer::Capabilities, Outcome::SwitchedOff);
            return Ok(work());
        }
        let keep = capabilities::needed_afterwards();
        let order = Order { no_new_privs: true, keep: Some(keep), ..Order::default() };
        std::thread::scope(|scope| {
            let (go, may_go) = sync_channel::<()>(1);
            let (ready, is_ready) = sync_channel::<()>(1);
            let thread = Builder::new().name(PRIVILEGED.to_owned()).spawn_scoped(scope, move || {
                // A thread gives itself its name: from here on it has it. The other ends outlive this thread.
                let _ = ready.send(());
                let _ = may_go.recv();
                work()
            })?;
            // Without its name it would be told what the others are told.
            let _ = is_ready.recv();
            let dropped = everywhere(|name| (name != PRIVILEGED).then_some(&order));
            self.report.set(Layer::Capabilities, Outcome::of(dropped));
            // A thread that waits takes it.
            let _ = go.send(());
            thread.join().map_err(|_| io::Error::other("the thread that attaches panicked"))
        })
    }

    /// What the canary thread has to know for its own filter; `None` if there are no filters.
    pub fn of_canaries(&self) -> Option<CanaryFilter> {
        self.wanted.seccomp.then_some(CanaryFilter(self.calls))
    }

    /// Refuses all threads, but that of the canaries, the system calls that the daemon does not make. To be called when
    /// everything is attached and opened that takes others.
    pub fn close_calls(&mut self, hierarchy: Option<&Hierarchy>) {
        // Rulesets cannot be made behind the filter, only put into force.
        self.rulesets = self.prepare(hierarchy);
        let seccomp = if self.wanted.seccomp { Outcome::of(self.filter()) } else { Outcome::SwitchedOff };
        self.report.set(Layer::Seccomp, seccomp);
    }

    fn filter(&self) -> io::Result<()> {
        refused::count()?;
        let mut program = calls::rules(self.calls).program().map_err(io::Error::other)?;
        let filter = Some(as_kernel_takes_it(&mut program));
        let order = Order { no_new_privs: true, filter, ..Order::default() };
        everywhere(|name| (name != CANARY).then_some(&order))
    }

    /// Makes the rulesets, or says what came of it if there are none.
    fn prepare(&mut self, hierarchy: Option<&Hierarchy>) -> Result<Rulesets, Outcome> {
        if !self.wanted.landlock {
            return Err(Outcome::SwitchedOff);
        }
        // Canaries come and go below the daemon's own cgroup, and the last is removed by the main thread.
        self.places.write.extend(hierarchy.and_then(Hierarchy::own_directory));
        // Directories of which next to nothing exists yet.
        if self.places.write.iter().any(|place| place == Path::new("/")) {
            let why = "some directory that is written to does not exist, nor any above it: make it first";
            return Err(Outcome::Missing(why.to_owned()));
        }
        // The host's may be mounted elsewhere.
        self.places.read.extend(hierarchy.map(|hierarchy| hierarchy.root.clone()));
        let mut canary = Places { write: self.places.write.clone(), ..Places::default() };
        canary.write_files.push("/dev/kmsg".into());
        let of = |places: &Places| match files::ruleset(places) {
            Ok(Some(ruleset)) => Ok(ruleset),
            Ok(None) => Err(Outcome::Missing("this kernel has no Landlock, or not in `lsm=`".to_owned())),
            Err(error) => Err(Outcome::Missing(error.to_string())),
        };
        Ok(Rulesets { common: of(&self.places)?, canary: of(&canary)? })
    }

    /// Puts files and ports that are not needed out of reach. To be called when all threads run that read about other
    /// processes: what they begin may do that too, and what the others begin may not.
    pub fn close_files(&mut self) {
        let outcome = match std::mem::replace(&mut self.rulesets, Err(Outcome::SwitchedOff)) {
            Ok(rulesets) => Outcome::of(rulesets.put_into_force()),
            Err(outcome) => outcome,
        };
        self.report.set(Layer::Landlock, outcome);
        self.report.look_at_threads(capabilities::needed_afterwards());
        self.report.log();
        // This is called once.
        let _ = self.said.set(self.report.clone());
    }

    /// What came of it, once all layers had their turn.
    pub fn said(&self) -> Said {
        Said::clone(&self.said)
    }
}

/// Landlock rulesets that are not in force yet.
#[derive(Debug)]
struct Rulesets {
    common: OwnedFd,
    canary: OwnedFd,
}

impl Rulesets {
    fn put_into_force(&self) -> io::Result<()> {
        let order = |ruleset: &OwnedFd| Order { ruleset: Some(ruleset.as_raw_fd()), ..Order::default() };
        let (common, canary) = (order(&self.common), order(&self.canary));
        everywhere(|name| match name {
            CANARY => Some(&canary),
            name if LOOKS_AT_OTHERS.contains(&name) => None,
            _ => Some(&common),
        })
    }
}

/// What the canary thread's filter rests on.
#[derive(Clone, Copy, Debug)]
pub struct CanaryFilter(Wanted);

impl CanaryFilter {
    /// The program: the canaries' own calls in exactly these forms, and what every thread may call.
    ///
    /// # Errors
    /// It would be too long.
    pub(crate) fn program(self, own: Rules) -> io::Result<Program> {
        calls::canary_rules(own, self.0).program().map_err(io::Error::other)
    }
}

/// A program as the kernel takes it; to be used while the program lives.
pub(crate) fn as_kernel_takes_it(program: &mut Program) -> libc::sock_fprog {
    // A program has at most 4096 instructions.
    libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() }
}

/// What a daemon with these settings reads and writes.
fn places(settings: &Settings, rules: &Sources, pins: Option<&Path>) -> Places {
    let mut places = Places::default();
    for path in settings.watched_rule_paths() {
        places.read.push(existing(&path));
    }
    // Rule files may be links into other directories.
    for file in rules.names().filter_map(|name| Path::new(name).canonicalize().ok()) {
        places.read.push(directory_of(&file));
    }
    places.write.extend(settings.alert_file.as_deref().map(directory_of));
    places.write.extend(settings.record_dir.as_deref().map(existing));
    places.write.extend(settings.state_dir.path().map(existing));
    places.write.extend(settings.control_socket.path().map(directory_of));
    places.write.extend(pins.map(existing));
    for output in &settings.outputs {
        places.write.extend(output.spool.as_ref().map(|spool| existing(&spool.dir)));
        match &output.kind {
            OutputKind::File(file) => places.write.push(directory_of(&file.path)),
            // Secrets may be put in other places anew: the directories count, and those that links lead to.
            kind => {
                for file in kind.files() {
                    places.read.push(directory_of(file));
                    places.read.extend(file.canonicalize().ok().as_deref().map(directory_of));
                }
            }
        }
        places.any_port |= output.kind.is_networked();
    }
    for paths in [&mut places.read, &mut places.write] {
        paths.sort();
        paths.dedup();
    }
    places
}

/// Calls that the filter refused so far, by name.
pub fn refused() -> Vec<(String, u64)> {
    refused::so_far()
}

#[cfg(test)]
mod tests;
