//! Does Ringfence still see? For each hook it makes a harmless call of its own on a timer, a canary, that must come
//! back through the kernel, the ring buffer and the matcher. What does not come back is blindness, and is told.
//!
//! Three parts: the canary thread (`maker`) makes the calls; the pipeline hands their records to the [`Matcher`]
//! instead of matching them with the rules; the [`Watch`] compares. They share a board of atomics, so that none of
//! them waits for another, and the watch can tell when one of the others stands still.

mod board;
mod calls;
mod finding;
mod life;
mod low;
mod maker;
mod matcher;
mod report;
mod selftest;
mod trial;
mod watch;

pub use finding::Cause;
pub use matcher::Matcher;
pub use report::{INTERNAL_ALERTS, Reporter};
pub use selftest::checks;
pub use trial::Trial;
pub use watch::{Watch, sent};

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use monitor_common::ids::{BootNs, Tid};

use crate::attach::{AttachMode, Attached, CanaryMap, Probe};
use crate::bpf_files::{BpfFiles, LinkFile};
use crate::confine::CanaryFilter;
use crate::kernel_files::ftrace_is_off;
use crate::rules::LoadError;
use board::{Board, COUNT, CREDENTIALS, NSPROXY};
use maker::Maker;

/// How long a round may take. One is ordered each second and judged so much later, and again [`SECOND_LOOK`] later if
/// some canary was sent so late that it may still be on its way: whatever breaks is noticed within two seconds.
const GRACE: Duration = Duration::from_millis(600);
const SECOND_LOOK: Duration = Duration::from_millis(300);
const _: () = assert!(SECOND_LOOK.as_millis() > board::LATE.as_millis(), "what was out then is late now");
const _: () = assert!(GRACE.as_millis() + SECOND_LOOK.as_millis() < 1000, "a round is over before the next");

/// Why the canary on changes of namespaces may never come: no harmless call reaches that hook on every kernel; the end of
/// a process nearly does.
const DRAWN_IN: &str = "this kernel's compiler drew the function into the end of processes";

/// Waits for a thread that was told to end, but not for ever: it may be what stands still.
fn end(thread: &JoinHandle<()>) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < PATIENCE {
        sleep(Duration::from_millis(1));
    }
}

/// A hook, and the canaries that test it.
#[derive(Debug)]
struct Hook {
    /// As in [`Probe::hook`].
    name: String,
    /// As in [`Probe::cost`].
    cost: &'static str,
    /// Why it is not attached, if it is not.
    missing: Option<String>,
    canaries: Vec<usize>,
    link: Option<LinkFile>,
}

/// What the canaries say about a hook.
#[derive(Debug)]
enum State {
    /// All came back; the slowest took so many nanoseconds.
    Up(u64),
    /// One has not come back, since then.
    Silent(BootNs),
    /// One was not sent yet, or is on its way.
    Pending,
    /// None can be sent: why.
    Untested(String),
}

impl Hook {
    fn of(probe: &Probe, mode: AttachMode, files: &BpfFiles) -> Self {
        Hook {
            name: probe.hook.clone(),
            cost: probe.cost,
            missing: probe.missing.clone(),
            canaries: (0..COUNT).filter(|canary| board::tests(*canary, mode, &probe.name)).collect(),
            link: probe.program.and_then(|program| files.link(program)),
        }
    }

    fn state(&self, board: &Board) -> State {
        if let Some(reason) = &self.missing {
            return State::Untested(format!("it is not attached: {reason}"));
        }
        let mut slowest = 0;
        let mut silent: Option<BootNs> = None;
        let mut pending = false;
        let mut excuse = None;
        let now = board::now();
        for canary in &self.canaries {
            let carrier = board.carrier(*canary).and_then(|call| board.silent_since(call));
            let doubt = board.may_never_come(*canary);
            if let Some(why) = board.untested(*canary) {
                excuse = Some(why);
            } else if let (Some(why), Some(_)) = (doubt, board.late_since(*canary, now)) {
                excuse = Some(why.to_owned());
            } else if carrier.is_some() {
                // What this hook saw would come with the record of a call that has not come: nobody knows.
                pending = true;
            } else if let Some(since) = board.late_since(*canary, now) {
                silent = Some(silent.map_or(since, |earlier| earlier.min(since)));
            } else if board.silent_since(*canary).is_some() {
                pending = true;
            } else if board.was_seen(*canary) {
                slowest = slowest.max(board.trip_ns(*canary));
            } else {
                pending = true;
            }
        }
        match (silent, excuse) {
            (Some(since), _) => State::Silent(since),
            (None, _) if pending => State::Pending,
            // Some of a hook's canaries are enough to see that it is there.
            (None, Some(why)) if slowest == 0 => State::Untested(why),
            (None, _) => State::Up(slowest),
        }
    }

    /// The canaries that cannot be sent, and why.
    fn excuses(&self, board: &Board) -> Vec<(String, String)> {
        let excuse = |canary: &usize| Some((board::describe(*canary), board.untested(*canary)?));
        self.canaries.iter().filter_map(excuse).collect()
    }

    /// True if the kernel says that nothing holds the program on its hook any more.
    fn is_detached(&self) -> bool {
        self.link.is_some_and(|link| !link.is_attached())
    }

    fn uses_trampoline(&self) -> bool {
        self.name.starts_with("fexit/") || self.name.starts_with("fentry/")
    }
}

/// The canary thread, enrolled and waiting for orders, and what it tests.
pub struct Canaries {
    board: Arc<Board>,
    maker: Maker,
    hooks: Vec<Hook>,
    tasks: CanaryMap,
    /// The thread as the kernel noted it.
    enrolled: [u64; 2],
    ordered: Cell<u64>,
    /// See [`Canaries::note_ftrace`].
    ftrace_was_off: Cell<bool>,
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

impl Canaries {
    /// Starts the canary thread; it is enrolled when this returns, and has made no call. What it is confined by, it sets
    /// itself.
    ///
    /// # Errors
    /// A text: the thread cannot be enrolled or started here. Then no hook can be tested.
    pub fn start(
        mut trial: Trial,
        attached: &mut Attached,
        ring_bytes: u32,
        confined: Option<CanaryFilter>,
    ) -> Result<Self, String> {
        for canary in [NSPROXY, CREDENTIALS] {
            let is_hooked = |probe: &Probe| board::tests(canary, attached.mode, &probe.name);
            if !attached.probes.iter().any(is_hooked) {
                trial.untested[canary] = Some("nothing is hooked there in this mode".to_owned());
            }
        }
        let files = BpfFiles::read();
        let mut doubts = trial.doubts;
        doubts[NSPROXY] = Some(DRAWN_IN);
        let board = Arc::new(Board::new(trial.untested.clone(), doubts, trial.checked));
        let hooks = attached.probes.iter().map(|probe| Hook::of(probe, attached.mode, &files)).collect();
        let tasks = attached.take_canaries().ok_or("a map is missing from the object")?;
        let enrolment = attached.enrolment()?;
        let maker = Maker::start(
            trial,
            enrolment,
            Arc::clone(&board),
            ring_bytes,
            attached.hierarchy.as_ref(),
            confined,
        )
        .map_err(|error| format!("the canary thread cannot be enrolled: {error}"))?;
        let (ordered, ftrace_was_off) = (Cell::new(0), Cell::new(false));
        let mut canaries = Canaries { board, maker, hooks, tasks, enrolled: [0; 2], ordered, ftrace_was_off };
        canaries.enrolled = canaries.thread();
        if canaries.enrolled[0] == 0 {
            return Err("the kernel did not note the canary thread".to_owned());
        }
        Ok(canaries)
    }

    /// When the canary thread began: what is marked and older is of an earlier process.
    pub fn since(&self) -> BootNs {
        BootNs(self.enrolled[0])
    }

    /// What the pipeline hands the canaries' records to.
    ///
    /// # Errors
    /// Never, unless the built-in rule is wrong.
    pub fn matcher(&self) -> Result<Matcher, LoadError> {
        Matcher::new(Arc::clone(&self.board), Tid(self.enrolled[1] as u32))
    }

    /// Orders a round, unless the last one is not done yet. Gives how many canaries were sent so far.
    fn order(&self) -> u64 {
        if self.maker.done() >= self.ordered.get() {
            self.ordered.set(self.ordered.get() + 1);
            self.ftrace_was_off.set(ftrace_is_off());
            self.maker.order();
        }
        self.board.sent()
    }

    /// Looks again, and says whether trampolines were off their functions at any look since the last round began.
    fn note_ftrace(&self) -> bool {
        self.ftrace_was_off.set(self.ftrace_was_off.get() || ftrace_is_off());
        self.ftrace_was_off.get()
    }

    /// True if some canary is out, late or not, that is known to come back.
    fn is_any_out(&self) -> bool {
        let is_out =
            |canary| self.board.silent_since(canary).is_some() && self.board.may_never_come(canary).is_none();
        (0..COUNT).any(is_out)
    }

    fn is_done(&self) -> bool {
        self.maker.done() >= self.ordered.get()
    }

    /// True if the round is not done and nothing was sent since.
    fn is_stuck(&self, sent_before: u64) -> bool {
        !self.is_done() && self.board.sent() == sent_before
    }

    /// True if the canary thread is still the one that the kernel noted.
    fn is_enrolled(&self) -> bool {
        self.thread() == self.enrolled
    }

    /// Start time and thread id.
    fn thread(&self) -> [u64; 2] {
        self.tasks.get(&0, 0).map_or([0; 2], |[start, tid, ..]| [start, tid])
    }
}
