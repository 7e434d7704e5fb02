//! Which canaries this machine allows, found out by a child that makes each call once before anything is attached.
//!
//! A machine may have no 32-bit calls, and a filter on the daemon may refuse a call or kill whoever makes it: that
//! must hit the child. A call that does not end as it must tests nothing.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use monitor_common::call::Abi;
use rustix::fs::{Mode, OFlags, fstat, open};

use super::board::{CAPABILITY, CAPSET, COUNT, DEVICE};
use super::calls::{Answer, CALLS, CHECKED};
use super::low::LowPage;

/// What the canaries open: writing to it is asked for, but nothing is written.
const FILE: &str = "/dev/kmsg";
/// Where a child says which call it makes; the answers stand behind it.
const PROGRESS: usize = 0;

/// What was found out, and what the canaries' calls need.
#[derive(Debug)]
pub struct Trial {
    pub(super) low: LowPage,
    /// The file that is opened, held by its inode.
    pub(super) file: Option<OwnedFd>,
    pub(super) untested: [Option<String>; COUNT],
}

impl Trial {
    /// Makes the trial under the eyes of programs that are attached already, whose records of it `enrolment` lets them
    /// mark as a canary's.
    ///
    /// # Errors
    /// As [`Trial::run`]; or the thread that makes it cannot be enrolled.
    pub fn run_watched(enrolment: OwnedFd) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name("trial".to_owned()).spawn(move || {
            super::maker::enrol(&enrolment)?;
            Trial::run()
        })?;
        thread.join().map_err(|_| io::Error::other("the thread of the trial panicked"))?
    }

    /// Makes the trial. Nothing may be attached yet: the calls are not canaries.
    ///
    /// # Errors
    /// No memory below 4 GiB, or no child.
    pub fn run() -> io::Result<Self> {
        let file = device();
        let mut trial = Trial { low: LowPage::new()?, file, untested: std::array::from_fn(|_| None) };
        if trial.file.is_none() {
            for (canary, call) in CALLS.iter().enumerate() {
                if call.answer == Answer::Opened {
                    trial.untested[canary] = Some(format!("{FILE} is no device here"));
                }
            }
        }
        trial.low.fill(trial.file_number());
        let filtered = has_filter();
        let mut from = 0;
        while from < CALLS.len() {
            from = trial.attempt(from)?;
        }
        for (canary, call) in CALLS.iter().enumerate() {
            let ret = trial.low.noted(PROGRESS + 1 + canary);
            let denied = ret == -i64::from(libc::EPERM);
            let why = match &trial.untested[canary] {
                Some(_) => continue,
                None if !call.answer.fits(ret) => {
                    let error = io::Error::from_raw_os_error(ret.unsigned_abs() as i32);
                    format!("the call answers {ret} here ({error})")
                }
                None if filtered && denied && (call.is_denied() || call.answer == Answer::Opened) => {
                    "the filter on Ringfence itself may be what refuses the call".to_owned()
                }
                None => continue,
            };
            trial.untested[canary] = Some(why);
        }
        trial.excuse_witnesses();
        Ok(trial)
    }

    /// The hooks inside a call are tested by that call.
    fn excuse_witnesses(&mut self) {
        let open = CALLS.iter().rposition(|call| call.answer == Answer::Opened && call.abi == Abi::X86_64);
        for (witness, call) in [(CAPABILITY, Some(CHECKED)), (CAPSET, Some(0)), (DEVICE, open)] {
            self.untested[witness] = call.and_then(|call| self.untested[call].clone());
        }
    }

    pub(super) fn file_number(&self) -> i32 {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Lets a child make the calls from the given one on; gives the first that it did not come to.
    fn attempt(&mut self, from: usize) -> io::Result<usize> {
        // SAFETY: the child makes raw calls only, takes no lock and allocates nothing.
        match unsafe { libc::fork() } {
            0 => self.child(from),
            child if child > 0 => {
                let mut status = 0;
                // SAFETY: our child, and a place for its status.
                while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                Ok(self.judge(status))
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes the call at which the child was killed, if it was, off the list.
    fn judge(&mut self, status: i32) -> usize {
        let reached = self.low.noted(PROGRESS) as usize;
        let (Some(call), true) = (CALLS.get(reached), libc::WIFSIGNALED(status)) else { return CALLS.len() };
        let signal = libc::WTERMSIG(status);
        if call.abi == Abi::I386 && signal == libc::SIGSEGV {
            for (canary, _) in CALLS.iter().enumerate().filter(|(_, call)| call.abi == Abi::I386) {
                self.untested[canary] = Some("this machine has no 32-bit calls".to_owned());
            }
            return CALLS.len();
        }
        self.untested[reached] = Some(format!("the call is answered by signal {signal} here"));
        reached + 1
    }

    fn child(&self, from: usize) -> ! {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a structure that lives until the call returns; a child that may be killed leaves no core.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
        // The first call gives up all capabilities; wherever it starts again, that comes first.
        CALLS[0].make(&self.low);
        for (canary, call) in CALLS.iter().enumerate().skip(from) {
            self.low.note(PROGRESS, canary as i64);
            if self.untested[canary].is_none() {
                self.low.note(PROGRESS + 1 + canary, call.make(&self.low));
            }
        }
        self.low.note(PROGRESS, CALLS.len() as i64);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) }
    }
}

/// The device that is opened, by its inode: what the name means later does not matter.
fn device() -> Option<OwnedFd> {
    let file = open(FILE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    (is_device && stat.st_rdev == libc::makedev(1, 11)).then_some(file)
}

/// True if this process has a seccomp filter already.
fn has_filter() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_ends_as_it_must_or_says_why_not() {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let trial = Trial::run().unwrap();
        assert!(before.tv_sec > 0);
        // capset for oneself, with nothing, is allowed everywhere.
        assert_eq!(trial.untested[0], None);
        assert_eq!(trial.untested[1], None, "a descriptor that is none is refused everywhere");
        for (canary, call) in CALLS.iter().enumerate() {
            if trial.untested[canary].is_none() {
                let ret = trial.low.noted(PROGRESS + 1 + canary);
                assert!(call.answer.fits(ret), "{}: {ret}", super::super::board::describe(canary));
            }
        }
    }
}
