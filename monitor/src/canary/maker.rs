//! The canary thread: sends all canaries when it is told to.
//!
//! It enrols itself with the programs, puts a filter on itself that refuses one magic call, and gives up all
//! capabilities with its first call. It waits for nobody, except that it lets a small ring be drained.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use monitor_common::call::Abi;
use monitor_common::wire::{CgroupRecord, ExecRecord, GainRecord, OpenRecord};

use super::board::{Board, CAPABILITY, CAPSET, CREDENTIALS, DEVICE, SECCOMP};
use super::calls::{Answer, CALLS, FILTERED_FD, rules};
use super::life::{self, Life};
use super::low;
use super::trial::Trial;
use crate::confine::{self, CanaryFilter, Program};
use crate::hierarchy::Hierarchy;

/// The canaries of one round take at most this part of the ring at a time.
const RING_PART: usize = 4;
/// How long one such part, and all parts of a round, are waited for.
const DRAIN_PART: Duration = Duration::from_millis(20);
const DRAIN: Duration = Duration::from_millis(200);
/// What a call takes: its record, and that of the credentials that capset makes.
const CALL: usize = size_of::<OpenRecord>() + size_of::<GainRecord>();
/// What a life takes of the ring: seven records, of which those of directories and of the exec are the largest. The
/// paths that they carry are the daemon's own.
const LIFE: usize = 2 * size_of::<CgroupRecord>() + offset_of!(ExecRecord, text) + 1024;
/// Stack of the thread: nothing here is deep.
const STACK: usize = 128 << 10;

/// The canary thread, as the watch sees it.
pub(super) struct Maker {
    orders: Option<Sender<()>>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    /// The daemon's cgroup for canaries. The thread cannot remove it: by then it has no capabilities.
    base: Option<PathBuf>,
}

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maker").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Maker {
    /// Starts the thread and waits until it is enrolled.
    ///
    /// # Errors
    /// No thread, or the kernel did not let it enrol. Then nothing was sent.
    pub(super) fn start(
        trial: Trial,
        enrolment: OwnedFd,
        board: Arc<Board>,
        ring_bytes: u32,
        hierarchy: Option<&Hierarchy>,
        confined: Option<CanaryFilter>,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let (ready, is_ready) = channel();
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let base = hierarchy.and_then(life::base);
        let parent = base.clone();
        let thread = Builder::new().name("canary".to_owned()).stack_size(STACK).spawn(move || {
            let enrolled = enrol(&enrolment);
            let may_go_on = enrolled.is_ok();
            if ready.send(enrolled).is_ok() && may_go_on {
                Worker::new(trial, board, ring_bytes, parent.as_deref(), confined).run(&received, &count);
            }
        })?;
        is_ready.recv().map_err(|_| io::Error::other("the canary thread ended"))??;
        Ok(Maker { orders: Some(orders), done, thread: Some(thread), base })
    }

    /// Orders a round; returns at once.
    pub(super) fn order(&self) {
        // A thread that ended is noticed by its rounds, which do not get done.
        let _ = self.orders.as_ref().map(|orders| orders.send(()));
    }

    /// Rounds that were sent whole.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // Without orders the thread ends.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            super::end(&thread);
        }
        if let Some(base) = &self.base {
            life::remove(base);
        }
    }
}

/// Makes the running thread a canary: it runs the program of that purpose itself.
pub(super) fn enrol(program: &OwnedFd) -> io::Result<()> {
    /// `BPF_PROG_TEST_RUN`.
    const TEST_RUN: libc::c_long = 10;
    /// The beginning of `union bpf_attr` for that command: the descriptor; everything else is zero.
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        rest: [u32; 19],
    }
    let attr = Attr { prog_fd: program.as_raw_fd() as u32, rest: [0; 19] };
    // SAFETY: a structure of the size given, which lives until the call returns; the kernel writes into it.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw const attr, size_of::<Attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A filter that answers one setns call with `EPERM` and lets everything else pass.
fn open_filter() -> Program {
    /// Offsets in `struct seccomp_data`.
    const NR: u32 = 0;
    const ARCH: u32 = 4;
    const FIRST_ARG: u32 = 16;
    /// `AUDIT_ARCH_X86_64`.
    const X86_64: u32 = 0xc000_003e;
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    // Equal: go on; else: jump over so many.
    let equal = |value, over| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: over,
        k: value,
    };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    vec![
        load(ARCH),
        equal(X86_64, 5),
        load(NR),
        equal(libc::SYS_setns as u32, 3),
        load(FIRST_ARG),
        equal(FILTERED_FD, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Puts a filter on the running thread.
fn filter(mut program: Program) -> io::Result<()> {
    let program = confine::as_kernel_takes_it(&mut program);
    // SAFETY: the program lives until the calls return, and the kernel copies it. Both calls concern this thread only.
    // SPEC_ALLOW (since 4.17): the thread need not pay for what only another process's secrets would need.
    let ret = unsafe {
        match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
            0 => libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                &raw const program,
            ),
            _ => -1,
        }
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the thread works with.
struct Worker {
    trial: Trial,
    board: Arc<Board>,
    life: Life,
    /// Bytes that may be sent before the ring must be drained.
    budget: usize,
    /// Bytes sent since then.
    sent: usize,
    /// Canaries sent since then.
    out: Vec<usize>,
    /// How long this round may still wait.
    patience: Duration,
}

impl Worker {
    fn new(
        trial: Trial,
        board: Arc<Board>,
        ring_bytes: u32,
        base: Option<&Path>,
        confined: Option<CanaryFilter>,
    ) -> Self {
        let life = Life::new(base);
        let program = match confined {
            None => Ok(open_filter()),
            Some(confined) => {
                // The first canary gives up the rest.
                confine::empty_bounding_set();
                confined.program(rules(&trial.low, life.rule()))
            }
        };
        if let Err(error) = program.and_then(filter) {
            board.excuse(SECCOMP, format!("no seccomp filter can be set: {error}"));
        }
        let budget = ring_bytes as usize / RING_PART;
        Worker { trial, board, life, budget, sent: 0, out: Vec::new(), patience: DRAIN }
    }

    fn run(mut self, orders: &Receiver<()>, done: &AtomicU64) {
        while orders.recv().is_ok() {
            self.round();
            done.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn round(&mut self) {
        self.patience = DRAIN;
        (self.sent, self.out) = (0, Vec::new());
        self.trial.low.fill(self.trial.file_number());
        for (canary, call) in CALLS.iter().enumerate() {
            if self.board.untested(canary).is_some() {
                continue;
            }
            self.make_room(CALL);
            self.board.ask(canary);
            self.out.push(canary);
            if canary == self.trial.checked && self.board.untested(CAPABILITY).is_none() {
                self.board.ask(CAPABILITY);
            }
            if canary == 0 {
                self.board.ask(CAPSET);
                if self.board.untested(CREDENTIALS).is_none() {
                    self.board.ask(CREDENTIALS);
                }
            }
            if call.answer == Answer::Opened
                && call.abi == Abi::X86_64
                && self.board.untested(DEVICE).is_none()
            {
                self.board.ask(DEVICE);
            }
            call.make(&self.trial.low);
            self.board.acted();
        }
        if self.board.untested(SECCOMP).is_none() {
            self.make_room(size_of::<OpenRecord>());
            self.board.ask(SECCOMP);
            filtered_call();
            self.board.acted();
        }
        self.make_room(LIFE);
        self.life.run(&self.board);
    }

    /// Lets a small ring be drained before more is sent; one that nobody drains is not waited for.
    fn make_room(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent < self.budget {
            return;
        }
        let start = Instant::now();
        let all_back = || self.out.iter().all(|canary| self.board.silent_since(*canary).is_none());
        while start.elapsed() < self.patience.min(DRAIN_PART) && !all_back() {
            sleep(Duration::from_millis(1));
        }
        self.patience = self.patience.saturating_sub(start.elapsed());
        self.out.clear();
        self.sent = bytes;
    }
}

/// The call that the thread's own filter refuses.
fn filtered_call() {
    // SAFETY: no pointers; and should the filter be gone, the descriptor is none.
    unsafe { low::call(Abi::X86_64, libc::SYS_setns as u32, [FILTERED_FD.into(), 0, 0, 0]) };
}
