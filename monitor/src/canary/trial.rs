//! Which canaries this machine allows, found out by a child that makes each call once before anything is attached.
//!
//! A machine may have no 32-bit calls, and a filter on the daemon may refuse a call or kill whoever makes it: that
//! must hit the child. A call that does not end as it must tests nothing.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;

use monitor_common::call::Abi;
use rustix::fs::{MemfdFlags, Mode, OFlags, fstat, memfd_create, open};

use super::board::{CAPABILITY, CAPSET, COUNT, DEVICE, Doubts};
use super::calls::{Answer, CALLS, CHECKED};
use super::low::LowPage;

/// What the canaries open: writing to it is asked for, but nothing is written.
const DEVICE_FILE: &str = "/dev/kmsg";
/// Where a child says which call it makes; the answers stand behind it.
const PROGRESS: usize = 0;
/// Why a canary may never come: only a call that a filter lets through reaches the hook behind it.
const FILTERED: &str = "the filter on Ringfence itself may be what refuses the call";
/// Why the canary of an open may never come that the kernel refuses by the file's mode: that it was for a file which is
/// watched, or a test, shows only where capability checks are seen.
const BY_MODE: &str = "the open of a file without a mode is not seen here";

/// What was found out, and what the canaries' calls need.
#[derive(Debug)]
pub struct Trial {
    pub(super) low: LowPage,
    /// The file that is opened, held by its inode.
    pub(super) file: Option<OwnedFd>,
    pub(super) untested: [Option<String>; COUNT],
    pub(super) doubts: Doubts,
    /// The call that asks for a capability.
    pub(super) checked: usize,
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
        let device = device();
        let has_device = device.is_some();
        // In a container there is no such device. Anything that refuses will do for the calls themselves.
        let file = device.map_or_else(closed_file, Ok);
        let mut trial = Trial {
            low: LowPage::new()?,
            untested: std::array::from_fn(|_| None),
            doubts: [None; COUNT],
            checked: CHECKED,
            file: None,
        };
        match file {
            Ok(file) => trial.file = Some(file),
            Err(error) => {
                for (canary, _) in opens() {
                    trial.untested[canary] = Some(format!("no file can be made that refuses: {error}"));
                }
            }
        }
        trial.low.fill(trial.file_number());
        let mut from = 0;
        while from < CALLS.len() {
            from = trial.attempt(from)?;
        }
        let filtered = has_filter();
        for (canary, call) in CALLS.iter().enumerate() {
            let ret = trial.answer(canary);
            if trial.untested[canary].is_some() {
                continue;
            }
            if !call.answer.fits(ret) {
                let error = io::Error::from_raw_os_error(ret.unsigned_abs() as i32);
                trial.untested[canary] = Some(format!("the call answers {ret} here ({error})"));
            } else if filtered && call.may_be_a_filters(ret) {
                trial.doubts[canary] = Some(FILTERED);
            } else if call.answer == Answer::Opened && !has_device {
                trial.doubts[canary] = Some(BY_MODE);
            }
        }
        trial.judge_witnesses(has_device);
        Ok(trial)
    }

    /// The hooks inside a call are tested by that call.
    fn judge_witnesses(&mut self, has_device: bool) {
        let open = opens().find(|(_, call)| call.abi == Abi::X86_64).map(|(canary, _)| canary);
        let by_mode = open.filter(|open| self.answer(*open) == -i64::from(libc::EACCES));
        let is_certain = |canary: usize| self.untested[canary].is_none() && self.doubts[canary].is_none();
        // The kernel refuses by a file's mode only who lacks a capability.
        if let Some(open) = by_mode.filter(|open| !is_certain(CHECKED) && self.untested[*open].is_none()) {
            self.checked = open;
        }
        for (witness, call) in [(CAPABILITY, Some(self.checked)), (CAPSET, Some(0)), (DEVICE, open)] {
            self.untested[witness] = call.and_then(|call| self.untested[call].clone());
            self.doubts[witness] = call.and_then(|call| self.doubts[call]);
        }
        if self.untested[DEVICE].is_none() && !has_device {
            self.untested[DEVICE] = Some(format!("{DEVICE_FILE} is no device here"));
        } else if self.untested[DEVICE].is_none() && by_mode.is_some() {
            self.untested[DEVICE] =
                Some(format!("the mode of {DEVICE_FILE} keeps Ringfence out before the device is asked for"));
        }
    }

    /// What the child was answered.
    fn answer(&self, canary: usize) -> i64 {
        self.low.noted(PROGRESS + 1 + canary)
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

/// The canaries that open a file by its name.
fn opens() -> impl Iterator<Item = (usize, &'static super::calls::CallCanary)> {
    CALLS.iter().enumerate().filter(|(_, call)| call.answer == Answer::Opened)
}

/// The device that is opened, by its inode: what the name means later does not matter.
fn device() -> Option<OwnedFd> {
    let file = open(DEVICE_FILE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    (is_device && stat.st_rdev == libc::makedev(1, 11)).then_some(file)
}

/// A file without a name that nobody may open, its owner included, who could only with a capability.
fn closed_file() -> io::Result<OwnedFd> {
    let file = fs::File::from(memfd_create("canary", MemfdFlags::CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o0))?;
    Ok(file.into())
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
    fn a_file_without_a_mode_refuses_whoever_has_no_capabilities() {
        let mut trial = Trial::run().unwrap();
        let file = closed_file().unwrap();
        trial.low.fill(file.as_raw_fd());
        trial.file = Some(file);
        trial.untested = std::array::from_fn(|_| None);
        assert_eq!(trial.attempt(0).unwrap(), CALLS.len());
        let opens: Vec<i64> = opens()
            .filter(|(canary, _)| trial.untested[*canary].is_none())
            .map(|(canary, _)| trial.answer(canary))
            .collect();
        assert!(opens.len() >= 4, "{opens:?}");
        assert!(opens.iter().all(|ret| *ret == -i64::from(libc::EACCES)), "{opens:?}");
    }

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
                let ret = trial.answer(canary);
                assert!(call.answer.fits(ret), "{}: {ret}", super::super::board::describe(canary));
            }
        }
    }
}
