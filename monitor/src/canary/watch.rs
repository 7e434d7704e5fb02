//! The watch: a thread of its own that orders rounds of canaries, and judges from what came back, from the ledger
//! and from the kernel's word on our links and maps. It waits for nothing that could stand still with the pipeline.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use monitor_common::control::Counter;
use monitor_common::ids::BootNs;
use monitor_common::wire::{KIND_NAMES, kind};

use super::board::now;
use super::finding::{Cause, Finding, Findings, Progress, by_cause};
use super::report::Reporter;
use super::{Canaries, GRACE, Hook, SECOND_LOOK, State};
use crate::ledger::{Ledger, LostTable, slot_names};
use crate::telling::unix_seconds;

/// The daemon stood still if a pause took so much longer than it should.
const GAP: Duration = Duration::from_secs(1);
/// Or if the work between two pauses did, of which a busy machine may make more than of a pause.
const LONG_WORK: Duration = Duration::from_secs(3);
/// Stack of the thread.
const STACK: usize = 128 << 10;

/// The running watch. Dropped, it ends with its canaries.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            super::end(&thread);
        }
    }
}

/// What the ledger said at the last judgement.
#[derive(Default)]
struct Before {
    counters: Vec<Counter>,
    /// Records that were lost by the judgement before that.
    lost: u64,
    /// Canaries' records that had gone into the ring, and come out of it, when both were last in step.
    base: (u64, u64),
    /// Canaries' records, and all, that had come out of it.
    came_out: (u64, u64),
}

struct Watcher {
    canaries: Canaries,
    ledger: Arc<Ledger>,
    reporter: Reporter,
    findings: Findings,
    before: Before,
    /// Why a hook is not tested, as last logged.
    untested: Vec<Option<String>>,
}

impl Watch {
    /// Starts the watch; a round each `interval`. So many canaries' records are of earlier processes that used the same
    /// programs ([`sent`], before this process has canaries).
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        canaries: Canaries,
        interval: Duration,
        ledger: Arc<Ledger>,
        reporter: Reporter,
        earlier: u64,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let untested = canaries.hooks.iter().map(|_| None).collect();
        let findings = Findings::default();
        let before = Before { base: (earlier, 0), ..Before::default() };
        let mut watcher = Watcher { canaries, ledger, reporter, findings, before, untested };
        let thread = Builder::new()
            .name("watch".to_owned())
            .stack_size(STACK)
            .spawn(move || watcher.run(interval, &stopped))?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Watcher {
    fn run(&mut self, interval: Duration, stopped: &Receiver<()>) {
        // A table that nobody wrote to yet has no entry of ours.
        self.ledger.check_lost();
        self.before.counters = self.ledger.counters().unwrap_or_default();
        let mut pauses = Pauses { stopped, woke: Instant::now() };
        loop {
            let progress = self.canaries.order();
            let Some(stood) = pauses.pause(GRACE) else { return };
            self.look(progress, stood);
            self.reporter.health.watch_looked(3 * interval);
            let mut rest = interval.saturating_sub(GRACE);
            if self.canaries.is_any_out() {
                let Some(stood) = pauses.pause(SECOND_LOOK) else { return };
                self.look(progress, stood);
                rest = rest.saturating_sub(SECOND_LOOK);
            }
            let Some(stood) = pauses.pause(rest) else { return };
            if let Some(stood) = stood {
                self.stood_still(stood);
            }
        }
    }

    /// After a standstill there is nothing to judge by.
    fn look(&mut self, progress_before: u64, stood: Option<Standstill>) {
        match stood {
            None => self.judge(progress_before),
            Some(stood) => self.stood_still(stood),
        }
    }

    /// A standstill in the middle of a judgement may have come before what that read of the ledger: then what was lost is
    /// counted from the judgement before.
    fn stood_still(&mut self, Standstill { time, at_work }: Standstill) {
        let now = self.ledger.counters().unwrap_or_default();
        let before = if at_work { self.before.lost } else { lost(&self.before.counters) };
        self.reporter.stood_still(time.as_secs(), lost(&now).saturating_sub(before));
    }

    fn judge(&mut self, progress_before: u64) {
        self.before.lost = lost(&self.before.counters);
        let mut found = Vec::new();
        // In this order: what came out has gone in before.
        let received = self.canaries.board.received();
        let (counters, in_ring) = self.check_counters(received, &mut found);
        self.check_maps(&mut found);
        if self.canaries.is_stuck(progress_before) {
            found.push(Finding {
                subject: "canary thread".to_owned(),
                cause: Cause::CanaryStalled,
                since: now(),
                cost: "the hooks are not tested",
            });
        }
        let general = self.general_cause(&counters, in_ring);
        let Canaries { hooks, board, .. } = &self.canaries;
        let mut states: Vec<State> = hooks.iter().map(|hook| hook.state(board)).collect();
        let ftrace_off = self.canaries.note_ftrace();
        if ftrace_off {
            silence_trampolines(hooks, &mut states);
        }
        let mut slowest = Some(0);
        for (position, state) in states.iter().enumerate() {
            let hook = &self.canaries.hooks[position];
            let finding = match state {
                State::Silent(since) => {
                    Some((general.unwrap_or_else(|| own_cause(hook, ftrace_off)), *since))
                }
                // Nothing tests it, but the kernel can be asked whether it is there.
                State::Untested(_) if hook.is_detached() => Some((Cause::Detached, now())),
                State::Untested(_) | State::Up(_) | State::Pending => None,
            };
            slowest = match state {
                State::Up(trip) => slowest.map(|slowest: u64| slowest.max(*trip)),
                State::Untested(_) => slowest,
                State::Silent(_) | State::Pending => None,
            };
            if let Some((cause, since)) = finding {
                found.push(blindness(hook, cause, since));
            }
            self.show(position, state);
        }
        if let Some(slowest) = slowest {
            self.reporter.metrics.canary_round_trip.set(slowest as f64 / 1e9);
        }
        self.before.counters = counters;
        let progress = self.progress(received);
        self.ledger.note_spoilt(progress.is_spoilt(&found));
        if progress.proves(&found) {
            self.reporter.health.prove();
        }
        self.tell(found);
    }

    fn progress(&mut self, canaries: u64) -> Progress {
        let all = self.reporter.metrics.events_received.iter().map(|count| count.get()).sum();
        let before = std::mem::replace(&mut self.before.came_out, (canaries, all));
        Progress { came_back: canaries > before.0, read: all > before.1 }
    }

    fn tell(&mut self, found: Vec<Finding>) {
        let (begun, ended) = self.findings.update(found);
        // First the state, then the news of it: who reads an alert and asks must not be told otherwise.
        if !begun.is_empty() || !ended.is_empty() {
            self.reporter.health.set_blind(self.findings.summary());
        }
        for (cause, findings) in by_cause(begun) {
            self.reporter.begun(cause, &findings);
        }
        for (cause, findings) in by_cause(ended) {
            self.reporter.ended(cause, &findings);
        }
    }

    /// Counters only grow, and what came out of the ring went into it. Gives the counters, and how many records of
    /// canaries wait in the ring.
    fn check_counters(&mut self, received: u64, found: &mut Vec<Finding>) -> (Vec<Counter>, u64) {
        let counters = self.ledger.counters().unwrap_or_default();
        let grew = |(now, then): (&Counter, &Counter)| {
            now.seen >= then.seen && now.sent >= then.sent && now.lost >= then.lost
        };
        let all_grew = counters.len() == self.before.counters.len()
            && counters.iter().zip(&self.before.counters).all(grew);
        let (base_sent, base_received) = self.before.base;
        let sent = canaries(&counters).sent;
        let in_ring = sent.checked_sub(base_sent).and_then(|sent| sent.checked_sub(received - base_received));
        if let (true, Some(in_ring)) = (all_grew, in_ring) {
            return (counters, in_ring);
        }
        self.before.base = (sent, received);
        found.push(Finding {
            subject: "map COUNTERS".to_owned(),
            cause: Cause::MapChanged,
            since: now(),
            cost: "the counts of attempts seen, sent and lost are wrong",
        });
        (counters, 0)
    }

    fn check_maps(&self, found: &mut Vec<Finding>) {
        let mut changed = |subject: &str, cause, cost| {
            found.push(Finding { subject: subject.to_owned(), cause, since: now(), cost });
        };
        match self.ledger.check_lost() {
            LostTable::Sound => {}
            LostTable::Changed => {
                changed("map LOST", Cause::MapChanged, "whose records were lost is not known");
            }
            LostTable::Full => {
                changed("map LOST", Cause::MapFull, "losses of further cgroups are counted, not attributed");
            }
        }
        if self.canaries.board.take_forged() || !self.canaries.is_enrolled() {
            let cost = "another thread's calls may be taken for tests and not reported";
            changed("map CANARIES", Cause::MapChanged, cost);
        }
    }

    /// What keeps all records back, if something does: they wait in the ring, or found no room.
    fn general_cause(&self, counters: &[Counter], in_ring: u64) -> Option<Cause> {
        if in_ring > 0 {
            return Some(Cause::ReaderStalled);
        }
        (canaries(counters).lost > canaries(&self.before.counters).lost).then_some(Cause::RingFull)
    }

    /// Metrics and log of one hook.
    fn show(&mut self, position: usize, state: &State) {
        let metrics = &self.reporter.metrics;
        let why = if let State::Untested(why) = state { Some(why.clone()) } else { None };
        let is_up = matches!(state, State::Up(_));
        // Of two probes on one hook the tested one speaks for it.
        let speaks = why.is_none() || !self.is_tested_by_another(position);
        if let Some(probe) = metrics.probes().get(position).filter(|_| speaks) {
            probe.canary_up.set(is_up.into());
            probe.canary_untested.set(why.is_some().into());
            if is_up {
                probe.canary_last_success.set(unix_seconds());
            }
        }
        let Some(known) = self.untested.get_mut(position) else { return };
        if *known != why {
            let hook = &self.canaries.hooks[position].name;
            match &why {
                Some(reason) => tracing::warn!(hook, reason, "the hook is not tested"),
                None => tracing::info!(hook, "the hook is tested"),
            }
            *known = why;
        }
    }
}

impl Watcher {
    fn is_tested_by_another(&self, position: usize) -> bool {
        let Canaries { hooks, board, .. } = &self.canaries;
        let Some(hook) = hooks.get(position) else { return false };
        hooks.iter().enumerate().any(|(other, same)| {
            other != position && same.name == hook.name && !matches!(same.state(board), State::Untested(_))
        })
    }
}

/// Canaries' records that went into the ring so far.
pub fn sent(ledger: &Ledger) -> u64 {
    canaries(&ledger.counters().unwrap_or_default()).sent
}

/// The counters of canaries, among those of all slots in use.
fn canaries(counters: &[Counter]) -> Counter {
    let slot = slot_names().position(|name| name == KIND_NAMES[usize::from(kind::CANARY)]);
    slot.and_then(|slot| counters.get(slot)).copied().unwrap_or_default()
}

/// One switch moves all trampolines: where one is silent by it, what came back of the others came before it was moved.
fn silence_trampolines(hooks: &[Hook], states: &mut [State]) {
    let is_silent =
        |(hook, state): (&Hook, &State)| hook.uses_trampoline() && matches!(state, State::Silent(_));
    if !hooks.iter().zip(&*states).any(is_silent) {
        return;
    }
    for (hook, state) in hooks.iter().zip(states) {
        if hook.uses_trampoline() && matches!(state, State::Up(_) | State::Pending) {
            *state = State::Silent(now());
        }
    }
}

/// Why the kernel did not see a call that was made.
fn own_cause(hook: &Hook, ftrace_off: bool) -> Cause {
    match () {
        () if hook.is_detached() => Cause::Detached,
        () if ftrace_off && hook.uses_trampoline() => Cause::FtraceDisabled,
        () => Cause::NotSeen,
    }
}

/// What concerns all hooks is one finding, whichever hook it is found at.
fn blindness(hook: &Hook, cause: Cause, since: BootNs) -> Finding {
    let (subject, cost) = match cause {
        Cause::RingFull => ("ring buffer", "attempts are lost; events_lost_total counts them"),
        Cause::ReaderStalled => {
            ("reader thread", "attempts are reported late, and lost when the ring buffer is full")
        }
        _ => (hook.name.as_str(), hook.cost),
    };
    Finding { subject: subject.to_owned(), cause, since, cost }
}

/// All records that were lost.
fn lost(counters: &[Counter]) -> u64 {
    counters.iter().map(|counter| counter.lost).sum()
}

/// The thread did not run for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standstill {
    time: Duration,
    /// Between two pauses, not in one.
    at_work: bool,
}

impl Standstill {
    /// From how much longer a pause took than it should, and how long the work before it.
    fn of(late: Duration, work: Duration) -> Option<Self> {
        if late >= GAP {
            return Some(Standstill { time: late, at_work: false });
        }
        (work >= LONG_WORK).then_some(Standstill { time: work, at_work: true })
    }
}

/// The waits between looks.
struct Pauses<'s> {
    stopped: &'s Receiver<()>,
    /// The end of the last one.
    woke: Instant,
}

impl Pauses<'_> {
    /// Waits; `None` if the end has come, else a standstill in this pause or in the work before it.
    fn pause(&mut self, time: Duration) -> Option<Option<Standstill>> {
        let start = Instant::now();
        let work = start.saturating_duration_since(self.woke);
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        self.woke = Instant::now();
        Some(Standstill::of(start.elapsed().saturating_sub(time), work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_in_a_pause_and_between_two() {
        let millis = Duration::from_millis;
        assert_eq!(Standstill::of(millis(900), millis(2_900)), None);
        let told = |late, work| Standstill::of(millis(late), millis(work)).map(|it| (it.time, it.at_work));
        assert_eq!(told(4_000, 10), Some((millis(4_000), false)));
        assert_eq!(told(2, 4_100), Some((millis(4_100), true)));
        let (end, stopped) = channel();
        let mut pauses =
            Pauses { stopped: &stopped, woke: Instant::now().checked_sub(millis(5_000)).unwrap() };
        let told = pauses.pause(Duration::ZERO).unwrap().unwrap();
        assert!(told.at_work && told.time >= millis(5_000));
        assert_eq!(pauses.pause(Duration::ZERO), Some(None));
        drop(end);
        assert_eq!(pauses.pause(Duration::ZERO), None);
    }

    #[test]
    fn a_switch_in_the_middle_of_a_round_silences_all_trampolines() {
        let hook = |name: &str| Hook {
            name: name.to_owned(),
            cost: "c",
            missing: None,
            canaries: Vec::new(),
            link: None,
        };
        let hooks =
            ["fexit/first", "fexit/second", "fexit/third", "fentry/untested", "tp_btf/other"].map(hook);
        let silent = |third: State| {
            let untested = State::Untested(String::new());
            let mut states = [State::Up(1), State::Pending, third, untested, State::Up(1)];
            silence_trampolines(&hooks, &mut states);
            states.map(|state| matches!(state, State::Silent(_)))
        };
        // The third call came when the switch was off already.
        assert_eq!(silent(State::Silent(BootNs(1))), [true, true, true, false, false]);
        // None did: it may be too early to tell.
        assert_eq!(silent(State::Up(1)), [false; 5]);
    }

    #[test]
    fn the_canaries_have_a_slot_of_their_own() {
        let mut counters = vec![Counter::default(); slot_names().count()];
        let slot = slot_names().position(|name| name == "canary").unwrap();
        counters[slot].sent = 7;
        assert_eq!(canaries(&counters).sent, 7);
        assert_eq!(canaries(&[]), Counter::default());
    }
}
