//! The canaries' calls: one for each function that a watched call ends in, all of them harmless.
//!
//! Each is refused for a plain reason, or changes nothing. Two things stand behind that: the arguments, which the
//! kernel rejects before it looks at anything else, and the caller, which has no capabilities: the first call of
//! the table gives them all up. No value here could set a clock.

use monitor_common::call::{Abi, Call};

use super::low::{CLONE_FLAGS, LowPage, OPEN_FLAGS, at};
use crate::confine::{Answer as Filtered, Rule, Rules, Test};

/// How a canary's call must end. If it ends otherwise, something stands between it and the hook, as a seccomp
/// filter on the daemon does, and it tests nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// With 0.
    Zero,
    /// With one of these errors.
    Error(&'static [i32]),
    /// With a descriptor; with `EPERM` where the kernel log is locked, or with `EACCES` where the file's mode refuses.
    Opened,
}

impl Answer {
    /// True if the call ended as it must.
    pub(super) fn fits(self, ret: i64) -> bool {
        match self {
            Answer::Zero => ret == 0,
            Answer::Error(errors) => errors.iter().any(|error| ret == -i64::from(*error)),
            Answer::Opened => ret >= 0 || [libc::EPERM, libc::EACCES].iter().any(|no| ret == -i64::from(*no)),
        }
    }
}

/// One call of one table.
pub(super) struct CallCanary {
    /// What it is.
    pub(super) call: Call,
    /// Through which table it goes.
    pub(super) abi: Abi,
    /// Its number there.
    pub(super) nr: u32,
    /// The program that sees its end in the trampoline mode.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) args: fn(&LowPage) -> [u64; 4],
    /// How it must end.
    pub(super) answer: Answer,
}

/// Position of the call that the capability hook is judged by: it asks for CAP_SYSLOG.
pub(super) const CHECKED: usize = 9;

/// A descriptor that is none.
const NO_FD: u64 = 0xffff_ffff;
/// What kind of namespace it is said to be, which the kernel looks at later: a filter that knows kinds lets this one through
/// (`RestrictNamespaces=mnt` of systemd).
const MOUNTS: u64 = libc::CLONE_NEWNS as u64;
/// The descriptor in the setns call that the canary thread's own seccomp filter refuses.
pub(super) const FILTERED_FD: u32 = 0xffff_fffe;
/// `CSIGNAL`'s lowest bit, which unshare does not know.
const BAD_UNSHARE: u64 = 1;
/// There is no such clock.
const NO_CLOCK: u64 = 0x1000;
/// `SYSLOG_ACTION_SIZE_UNREAD`: asks for CAP_SYSLOG in any configuration, and reads nothing.
const SIZE_UNREAD: u64 = 9;
/// There are four levels.
const NO_LEVEL: u64 = 4;
/// One port beyond the last.
const NO_PORT: u64 = 0x1_0000;
const HERE: u64 = libc::AT_FDCWD as u32 as u64;
const OPEN_HOW_SIZE: u64 = 24;
const CLONE_ARGS_SIZE: u64 = 64;

const INVALID: Answer = Answer::Error(&[libc::EINVAL]);
const BAD_FD: Answer = Answer::Error(&[libc::EBADF]);
const DENIED: Answer = Answer::Error(&[libc::EPERM]);
const FAULT: Answer = Answer::Error(&[libc::EFAULT]);
/// Kernels can be built without the I/O port calls; the tracepoint mode sees them all the same.
const NO_PORTS: Answer = Answer::Error(&[libc::EINVAL, libc::ENOSYS]);

/// Makes [`CALLS`].
macro_rules! calls {
    ($($abi:ident $nr:literal $call:ident $program:literal $answer:expr, $args:expr;)*) => {
        /// All of them, in the order in which they are made.
        pub(super) const CALLS: &[CallCanary] = &[
            $(CallCanary {
                call: Call::$call, abi: Abi::$abi, nr: $nr, program: $program, args: $args, answer: $answer,
            },)*
        ];
    };
}

calls! {
    X86_64 126 Capset "on_x64_sys_capset" Answer::Zero, |low| [low.at(at::CAP_HEADER), low.at(at::CAP_DATA), 0, 0];
    X86_64 308 Setns "on_x64_sys_setns" BAD_FD, |_| [NO_FD, MOUNTS, 0, 0];
    X86_64 272 Unshare "on_x64_sys_unshare" INVALID, |_| [BAD_UNSHARE, 0, 0, 0];
    X86_64 56 Clone "on_x64_sys_clone" INVALID, |_| [CLONE_FLAGS, 0, 0, 0];
    X86_64 435 Clone3 "on_x64_sys_clone3" INVALID, |low| [low.at(at::CLONE_ARGS), CLONE_ARGS_SIZE, 0, 0];
    X86_64 164 Settimeofday "on_x64_sys_settimeofday" INVALID, |low| [low.at(at::TIMEVAL), 0, 0, 0];
    X86_64 227 ClockSettime "on_x64_sys_clock_settime" INVALID, |_| [NO_CLOCK, 0, 0, 0];
    X86_64 159 Adjtimex "on_x64_sys_adjtimex" INVALID, |low| [low.at(at::TIMEX), 0, 0, 0];
    X86_64 305 ClockAdjtime "on_x64_sys_clock_adjtime" INVALID, |low| [NO_CLOCK, low.at(at::TIMEX), 0, 0];
    X86_64 103 Syslog "on_x64_sys_syslog" DENIED, |_| [SIZE_UNREAD, 0, 0, 0];
    X86_64 172 Iopl "on_x64_sys_iopl" NO_PORTS, |_| [NO_LEVEL, 0, 0, 0];
    X86_64 173 Ioperm "on_x64_sys_ioperm" NO_PORTS, |_| [NO_PORT, 1, 0, 0];
    X86_64 2 Open "on_x64_sys_open" Answer::Opened, |low| [low.at(at::PATH), OPEN_FLAGS, 0, 0];
    X86_64 85 Creat "on_x64_sys_creat" Answer::Opened, |low| [low.at(at::PATH), 0, 0, 0];
    X86_64 257 Openat "on_x64_sys_openat" Answer::Opened, |low| [HERE, low.at(at::PATH), OPEN_FLAGS, 0];
    X86_64 437 Openat2 "on_x64_sys_openat2" Answer::Opened, |low| [HERE, low.at(at::PATH), low.at(at::OPEN_HOW), OPEN_HOW_SIZE];
    X86_64 304 OpenByHandleAt "on_x64_sys_open_by_handle_at" DENIED, |low| [HERE, low.at(at::HANDLE), 0, 0];
    I386 185 Capset "on_ia32_sys_capset" Answer::Zero, |low| [low.at(at::CAP_HEADER), low.at(at::CAP_DATA), 0, 0];
    I386 346 Setns "on_ia32_sys_setns" BAD_FD, |_| [NO_FD, MOUNTS, 0, 0];
    I386 310 Unshare "on_ia32_sys_unshare" INVALID, |_| [BAD_UNSHARE, 0, 0, 0];
    I386 120 Clone "on_ia32_compat_sys_ia32_clone" INVALID, |_| [CLONE_FLAGS, 0, 0, 0];
    I386 435 Clone3 "on_ia32_sys_clone3" INVALID, |low| [low.at(at::CLONE_ARGS), CLONE_ARGS_SIZE, 0, 0];
    I386 79 Settimeofday "on_ia32_compat_sys_settimeofday" INVALID, |low| [low.at(at::TIMEVAL32), 0, 0, 0];
    I386 25 Stime "on_ia32_sys_stime32" FAULT, |_| [0, 0, 0, 0];
    I386 264 ClockSettime "on_ia32_sys_clock_settime32" INVALID, |_| [NO_CLOCK, 0, 0, 0];
    I386 404 ClockSettime "on_ia32_sys_clock_settime" INVALID, |_| [NO_CLOCK, 0, 0, 0];
    I386 124 Adjtimex "on_ia32_sys_adjtimex_time32" INVALID, |low| [low.at(at::TIMEX), 0, 0, 0];
    I386 343 ClockAdjtime "on_ia32_sys_clock_adjtime32" INVALID, |low| [NO_CLOCK, low.at(at::TIMEX), 0, 0];
    I386 405 ClockAdjtime "on_ia32_sys_clock_adjtime" INVALID, |low| [NO_CLOCK, low.at(at::TIMEX), 0, 0];
    I386 103 Syslog "on_ia32_sys_syslog" DENIED, |_| [SIZE_UNREAD, 0, 0, 0];
    I386 110 Iopl "on_ia32_sys_iopl" NO_PORTS, |_| [NO_LEVEL, 0, 0, 0];
    I386 101 Ioperm "on_ia32_sys_ioperm" NO_PORTS, |_| [NO_PORT, 1, 0, 0];
    I386 5 Open "on_ia32_compat_sys_open" Answer::Opened, |low| [low.at(at::PATH), OPEN_FLAGS, 0, 0];
    I386 8 Creat "on_ia32_sys_creat" Answer::Opened, |low| [low.at(at::PATH), 0, 0, 0];
    I386 295 Openat "on_ia32_compat_sys_openat" Answer::Opened, |low| [HERE, low.at(at::PATH), OPEN_FLAGS, 0];
    I386 437 Openat2 "on_ia32_sys_openat2" Answer::Opened, |low| [HERE, low.at(at::PATH), low.at(at::OPEN_HOW), OPEN_HOW_SIZE];
    I386 342 OpenByHandleAt "on_ia32_compat_sys_open_by_handle_at" DENIED, |low| [HERE, low.at(at::HANDLE), 0, 0];
}

impl CallCanary {
    /// Makes the call and gives its answer; a descriptor that it opened is closed again.
    pub(super) fn make(&self, low: &LowPage) -> i64 {
        // SAFETY: the arguments point into the page or nowhere, and the call changes nothing (see above).
        let ret = unsafe { super::low::call(self.abi, self.nr, (self.args)(low)) };
        if ret >= 0 && self.answer == Answer::Opened {
            // SAFETY: the descriptor was opened by this very call and is known to nobody else.
            unsafe { libc::close(ret as i32) };
        }
        ret
    }

    /// True if this answer, which is as it must be, may be a filter's as well as the kernel's own.
    pub(super) fn may_be_a_filters(&self, ret: i64) -> bool {
        self.answer == DENIED || (self.answer == Answer::Opened && ret < 0)
    }
}

/// What a filter has to let the canary thread do besides what all threads may: each canary with exactly its arguments, and
/// the start of its program. The one call that is there to be refused is refused.
pub(super) fn rules(low: &LowPage, start: Option<Rule>) -> Rules {
    let mut rules = Rules::default();
    let filtered = [(0, Test::Word(FILTERED_FD))];
    rules.x86_64.push(Rule::new(libc::SYS_setns as u32, &filtered, Filtered::Error(libc::EPERM)));
    rules.x86_64.extend(start);
    for call in CALLS {
        let args: Vec<(u32, Test)> = (0..).zip((call.args)(low).map(Test::Exactly)).collect();
        let rule = Rule::new(call.nr, &args, Filtered::Allow);
        if call.abi == Abi::I386 { rules.i386.push(rule) } else { rules.x86_64.push(rule) }
    }
    rules
}

#[cfg(test)]
mod tests {
    use monitor_common::call::{I386_CALLS, X86_64_CALLS};

    use super::*;
    use crate::attach::hooked_functions;

    #[test]
    fn every_watched_number_has_its_canary() {
        for (abi, numbers) in [(Abi::X86_64, X86_64_CALLS), (Abi::I386, I386_CALLS)] {
            let made: Vec<_> = CALLS.iter().filter(|canary| canary.abi == abi).collect();
            assert_eq!(made.len(), numbers.len(), "{abi:?}");
            for (nr, call) in numbers {
                let canary = made.iter().find(|canary| canary.nr == u32::from(*nr));
                assert_eq!(canary.map(|canary| canary.call), Some(*call), "{abi:?} {nr}");
            }
        }
        assert_eq!(CALLS[CHECKED].call, Call::Syslog);
        assert_eq!(CALLS[0].call, Call::Capset, "capabilities are given up first");
    }

    #[test]
    fn every_program_on_a_call_has_its_canary() {
        let functions: Vec<String> = hooked_functions().filter(|name| name.contains("_sys_")).collect();
        let mut programs: Vec<&str> = CALLS.iter().map(|canary| canary.program).collect();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), CALLS.len());
        assert_eq!(functions.len(), CALLS.len());
        for program in programs {
            assert!(functions.contains(&program.replacen("on_", "__", 1)), "{program}");
        }
    }
}
