//! The end of a canary's way: the pipeline hands its record over here instead of matching it with the rules.
//!
//! A rule of our own, evaluated by the same engine over the same enriched event, must match: only then the canary
//! has come back.

use std::fmt;
use std::sync::Arc;

use monitor_common::call::Abi;
use monitor_common::ids::{BootNs, Tgid, Tid};
use monitor_common::verdict::{RefusedBy, Verdict};
use monitor_common::wire::{call_flag, kind};

use super::board::{Board, CAPABILITY, CAPSET, CREDENTIALS, DEVICE, NSPROXY, SECCOMP, of_kind};
use super::calls::{Answer, CALLS, FILTERED_FD};
use crate::decode::{RawEvent, RawTask};
use crate::event::Event;
use crate::rules::{LoadError, RuleSet};

/// What every canary's event must be. The name is that of the thread; who is a canary the kernel has decided.
const RULE: &str = "\
- rule: Canary
  id: ringfence-canary
  desc: A test call of the daemon itself.
  condition: >
    proc.name = canary and proc.pid > 0 and evt.abi in (x86_64, i386) and
    ((evt.type = capset and evt.verdict = allowed) or
     (evt.type in (open, creat, openat, openat2) and (device.name = kmsg or evt.verdict = refused)) or
     (evt.type in (setns, unshare, clone, clone3, settimeofday, clock_settime, stime, adjtimex, clock_adjtime,
       syslog, iopl, ioperm, open_by_handle_at) and evt.verdict in (failed, refused)))
  output: \"%evt.type\"
  priority: DEBUG
";

/// Takes the records of canaries.
pub struct Matcher {
    board: Arc<Board>,
    /// The canary thread, as the kernel noted it when it enrolled.
    thread: Tid,
    /// Its process, as its first call told; until then nobody can be told from it.
    own: Option<Tgid>,
    rules: RuleSet,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").finish_non_exhaustive()
    }
}

impl Matcher {
    pub(super) fn new(board: Arc<Board>, thread: Tid) -> Result<Self, LoadError> {
        Ok(Matcher { board, thread, own: None, rules: RuleSet::from_sources(&[("canary", RULE)])? })
    }

    /// Whether a record with the canaries' mark is theirs: of the canary thread, or of a process that it made. Whoever
    /// can write to the map that names canaries can put the mark on its own calls. That is told, and hides nothing.
    pub fn knows(&mut self, event: &RawEvent<'_>) -> bool {
        let known = match event {
            RawEvent::Call(call) => self.is_own(&call.task),
            RawEvent::Exec(exec) => self.is_own(&exec.task),
            RawEvent::Nsproxy { task, .. }
            | RawEvent::Capability { task, .. }
            | RawEvent::Gained { task, .. } => self.is_own(task),
            RawEvent::Fork { caller, .. } => self.own.is_none_or(|own| caller.tgid == own),
            // These do not tell who did it, and hide no call.
            RawEvent::Exit { .. } | RawEvent::Cgroup { .. } | RawEvent::Attach { .. } => true,
        };
        if !known {
            self.board.count();
            self.board.forged();
        }
        known
    }

    fn is_own(&mut self, task: &RawTask) -> bool {
        if task.tid == self.thread {
            self.own = Some(task.process.tgid);
        }
        task.tid == self.thread || self.own.is_none_or(|own| task.parent.tgid == own)
    }

    /// Takes a canary's call.
    pub fn call(&self, event: &Event<'_>) {
        let raw = event.raw;
        self.board.count();
        let mut matched = false;
        self.rules.matches(raw.call, event, |_| matched = true);
        if !matched {
            return;
        }
        if raw.abi == Abi::X86_64 && raw.nr == libc::SYS_setns as u32 && raw.args[0] as u32 == FILTERED_FD {
            if event.verdict == Verdict::Refused(RefusedBy::Seccomp) {
                self.board.answer(SECCOMP, raw.boot);
            }
            return;
        }
        // A refusal that the hook on seccomp saw says nothing of the hook on the call.
        let of_call = |call: &super::calls::CallCanary| call.abi == raw.abi && call.nr == raw.nr;
        let Some(canary) = CALLS.iter().position(of_call) else { return };
        if raw.has(call_flag::SECCOMP_REFUSED) {
            return;
        }
        self.board.answer(canary, raw.boot);
        if (raw.caps_denied | raw.caps_granted) != 0 {
            self.board.answer(CAPABILITY, raw.boot);
        }
        if canary == 0 && raw.has(call_flag::BEFORE_KNOWN) {
            self.board.answer(CAPSET, raw.boot);
        }
        if CALLS[canary].answer == Answer::Opened && raw.has(call_flag::DEVICE_ASKED) {
            self.board.answer(DEVICE, raw.boot);
        }
    }

    /// Takes another record of a canary, which was made at that time.
    pub fn life_cycle(&self, event: &RawEvent<'_>, boot: BootNs) {
        self.board.count();
        let kind = match event {
            // Its checks make no records.
            RawEvent::Call(_) | RawEvent::Capability { .. } => return,
            RawEvent::Gained { .. } => return self.board.answer(CREDENTIALS, boot),
            RawEvent::Exec(_) => kind::EXEC,
            RawEvent::Fork { .. } => kind::FORK,
            RawEvent::Exit { .. } => kind::EXIT,
            RawEvent::Cgroup { made: true, .. } => kind::CGROUP_MKDIR,
            RawEvent::Cgroup { made: false, .. } => kind::CGROUP_RMDIR,
            RawEvent::Attach { .. } => kind::CGROUP_ATTACH,
            RawEvent::Nsproxy { .. } => return self.board.answer(NSPROXY, boot),
        };
        self.board.answer(of_kind(kind), boot);
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::call::Call;

    use super::*;
    use crate::canary::board::COUNT;
    use crate::canary::calls::CHECKED;
    use crate::decode::{ProcessKey, RawCall};

    #[test]
    fn the_rule_loads_and_asks_for_every_call() {
        let matcher =
            Matcher::new(Arc::new(Board::new(std::array::from_fn(|_| None), [None; COUNT], CHECKED)), Tid(7))
                .unwrap();
        let rule = &matcher.rules.rules()[0];
        for call in Call::ALL {
            assert!(rule.types().has(*call), "{}", call.name());
        }
    }

    #[test]
    fn a_mark_on_somebody_elses_record_is_told_and_hides_nothing() {
        let board = Arc::new(Board::new(std::array::from_fn(|_| None), [None; COUNT], CHECKED));
        let mut matcher = Matcher::new(Arc::clone(&board), Tid(7)).unwrap();
        let key = |tgid| ProcessKey { tgid: Tgid(tgid), start: BootNs(1) };
        let task = |tid, tgid, parent| RawTask {
            tid: Tid(tid),
            process: key(tgid),
            parent: key(parent),
            ..RawTask::default()
        };
        let call = |task| RawEvent::Call(RawCall { task, ..RawCall::made_up(Call::Setns) });
        assert!(matcher.knows(&call(task(7, 5, 1))), "the thread");
        assert!(matcher.knows(&call(task(9, 9, 5))), "its child");
        assert!(matcher.knows(&RawEvent::Fork { task: task(9, 9, 5), caller: key(5) }));
        assert!(!board.take_forged());
        assert!(!matcher.knows(&call(task(9, 9, 6))), "somebody else");
        assert!(board.take_forged() && !board.take_forged(), "told once");
        assert!(!matcher.knows(&RawEvent::Fork { task: task(9, 9, 6), caller: key(6) }));
        assert!(board.take_forged());
    }
}
