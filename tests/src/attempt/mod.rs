//! The attempts: harmless system calls of every watched kind, each with what must come of it.
//!
//! An attempt is made in a child of its own, so nothing that it changes outlives it. The table says what
//! to expect of it in three places: natively as root, in a container with Docker's default seccomp
//! profile, and in one that was given the capability. The live suite asserts exactly this table.

pub mod arguments;
pub mod demo;
pub mod elf32;
pub mod evade;
pub mod gains;
pub mod grow;
pub mod load;
pub mod mark;
pub mod needs;
pub mod prep;
pub mod race;
pub mod raw;
pub mod tour;
mod table_clock;
mod table_io;
mod table_open;
mod table_privilege;
mod uring;

use std::io;

use monitor_common::call::{Abi, Call};
use monitor_common::verdict::RefusedBy;
use serde_json::{Value, json};

use raw::Arena;

/// What must come of an attempt: what the kernel answers and how the event judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Not an attempt on a wall: no event may come, whatever the kernel answers.
    NoEvent,
    /// The kernel does it.
    Allowed,
    /// A plain error with this number.
    Failed(i32),
    /// This error, and no event: what was named does not exist, so no wall was touched.
    Nothing(i32),
    /// Refused by somebody, with this error number.
    Refused(RefusedBy, i32),
    /// Depends on the kernel's configuration: one of these, told apart by the return value.
    Any(&'static [Want]),
}

impl Want {
    /// The expectations that fit what the kernel returned; none: the kernel's answer itself is a surprise.
    pub fn fitting(&self, ret: i64) -> Vec<Want> {
        match *self {
            Want::NoEvent => vec![Want::NoEvent],
            Want::Allowed if ret >= 0 => vec![*self],
            Want::Failed(errno) | Want::Refused(_, errno) if ret == -i64::from(errno) => vec![*self],
            Want::Nothing(errno) if ret == -i64::from(errno) => vec![Want::NoEvent],
            Want::Allowed | Want::Failed(_) | Want::Nothing(_) | Want::Refused(..) => Vec::new(),
            Want::Any(several) => {
                // "No event" fits every answer, so it gives way to whatever names this one.
                let (silent, named): (Vec<Want>, Vec<Want>) = several
                    .iter()
                    .flat_map(|want| want.fitting(ret))
                    .partition(|want| *want == Want::NoEvent);
                if named.is_empty() { silent } else { named }
            }
        }
    }

    /// The `evt.verdict` of a single expectation, and its `evt.refused_by`.
    pub fn verdict(&self) -> Option<(&'static str, Option<&'static str>)> {
        match self {
            Want::NoEvent | Want::Nothing(_) | Want::Any(_) => None,
            Want::Allowed => Some(("allowed", None)),
            Want::Failed(_) => Some(("failed", None)),
            Want::Refused(by, _) => Some(("refused", Some(by.name()))),
        }
    }
}

impl std::fmt::Display for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Want::NoEvent => f.write_str("no event"),
            Want::Allowed => f.write_str("allowed"),
            Want::Failed(errno) => write!(f, "failed {}", errno_name(*errno)),
            Want::Nothing(errno) => write!(f, "no event, {}", errno_name(*errno)),
            Want::Refused(by, errno) => write!(f, "refused by {} {}", by.name(), errno_name(*errno)),
            Want::Any(several) => {
                let words: Vec<String> = several.iter().map(Want::to_string).collect();
                f.write_str(&words.join(" or "))
            }
        }
    }
}

/// Refused by seccomp as Docker's default profile does it.
pub const BY_SECCOMP: Want = Want::Refused(RefusedBy::Seccomp, libc::EPERM);
/// Refused for want of a capability.
pub const BY_CAPABILITY: Want = Want::Refused(RefusedBy::Capability, libc::EPERM);

/// Both tables.
pub const BOTH: &[Abi] = &[Abi::X86_64, Abi::I386];
/// Only the 32-bit table has it.
pub const I386: &[Abi] = &[Abi::I386];

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its name on the command line.
    pub name: &'static str,
    /// The watched call (for attempts without an event, the nearest one).
    pub call: Call,
    /// The tables that have the call.
    pub abis: &'static [Abi],
    /// What it does.
    pub what: &'static str,
    /// Why it harms nothing.
    pub harmless: &'static str,
    /// What must come of it natively as root.
    pub native: Want,
    /// In a container with Docker's default profile and capabilities.
    pub contained: Want,
    /// In a container with one capability added (which also opens the profile), if there is such a case.
    pub granted: Option<(&'static str, Want)>,
    /// It first drops capabilities by a `capset`, which is an event too.
    pub drops: bool,
    /// After a failure only the inode tells which device was meant, and no descriptor leads to it: a mode
    /// that sees calls only as they return may miss it.
    pub nameless: bool,
    /// Fields that the event must show whatever came of the attempt: they stand in the call's registers.
    pub asked: &'static [(&'static str, &'static str)],
    /// Fields that it must show when the kernel did it.
    pub done: &'static [(&'static str, &'static str)],
    /// Changes the machine when allowed: made only with `--allow-clock`, in a guest.
    pub guest_only: bool,
    /// Names a cgroup of version 2: not made in a container that has none mounted.
    pub names_cgroup: bool,
    /// Mounts something: made only where the mounts are not the host's.
    pub mounts: bool,
    /// Makes the call and returns the kernel's answer; runs in a child.
    pub run: fn(&Arena, Abi) -> i64,
}

/// A row to start from: seccomp refuses it by default, nothing is dropped, no guest is needed.
pub(crate) const fn row(
    name: &'static str,
    call: Call,
    abis: &'static [Abi],
    native: Want,
    run: fn(&Arena, Abi) -> i64,
) -> Attempt {
    Attempt {
        name,
        call,
        abis,
        what: "",
        harmless: "it happens in a child that ends at once",
        native,
        contained: BY_SECCOMP,
        granted: None,
        drops: false,
        nameless: false,
        asked: &[],
        done: &[],
        guest_only: false,
        names_cgroup: false,
        mounts: false,
        run,
    }
}

impl Attempt {
    /// Whether its result is an open file.
    pub const fn opens(&self) -> bool {
        matches!(self.call, Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt)
    }

    pub(crate) const fn what(self, what: &'static str) -> Attempt {
        Attempt { what, ..self }
    }

    pub(crate) const fn harmless(self, harmless: &'static str) -> Attempt {
        Attempt { harmless, ..self }
    }

    pub(crate) const fn contained(self, contained: Want) -> Attempt {
        Attempt { contained, ..self }
    }

    pub(crate) const fn granted(self, cap: &'static str, want: Want) -> Attempt {
        Attempt { granted: Some((cap, want)), ..self }
    }

    /// As an attempt for which the capability was dropped first.
    pub(crate) const fn drops(self) -> Attempt {
        Attempt { drops: true, harmless: "it is made only after the capability was seen to be gone", ..self }
    }

    pub(crate) const fn asked(self, asked: &'static [(&'static str, &'static str)]) -> Attempt {
        Attempt { asked, ..self }
    }

    pub(crate) const fn done(self, done: &'static [(&'static str, &'static str)]) -> Attempt {
        Attempt { done, ..self }
    }

    pub(crate) const fn names_cgroup(self) -> Attempt {
        Attempt { names_cgroup: true, ..self }
    }

    pub(crate) const fn mounts(self) -> Attempt {
        Attempt { mounts: true, ..self }
    }

    pub(crate) const fn nameless(self) -> Attempt {
        Attempt { nameless: true, ..self }
    }

    pub(crate) const fn guest_only(self) -> Attempt {
        Attempt { guest_only: true, harmless: "it is made in guests only", ..self }
    }
}

/// Every attempt, grouped by family.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    [table_privilege::ROWS, table_clock::ROWS, table_io::ROWS, table_open::ROWS].into_iter().flatten()
}

/// The attempt with this name.
pub fn by_name(name: &str) -> Option<&'static Attempt> {
    all().find(|attempt| attempt.name == name)
}

/// How a call gets into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// `syscall` from a 64-bit program.
    X86_64,
    /// `int 0x80` from a 64-bit program.
    Int80,
    /// `int 0x80` from a real 32-bit program.
    Elf32,
    /// `syscall` with the bit that selects the x32 view.
    X32,
}

impl Way {
    /// Every way.
    pub const ALL: &[Way] = &[Way::X86_64, Way::Int80, Way::Elf32, Way::X32];

    /// The word in names and options.
    pub const fn name(self) -> &'static str {
        match self {
            Way::X86_64 => "x86_64",
            Way::Int80 => "int80",
            Way::Elf32 => "elf32",
            Way::X32 => "x32",
        }
    }

    /// The table that it reaches, as events say it.
    pub const fn abi(self) -> Abi {
        match self {
            Way::X86_64 => Abi::X86_64,
            Way::Int80 | Way::Elf32 => Abi::I386,
            Way::X32 => Abi::X32,
        }
    }

    /// Whether an attempt can be made so; x32 has each watched call of the 64-bit table.
    pub fn takes(self, attempt: &Attempt) -> bool {
        let table = if self == Way::X32 { Abi::X86_64 } else { self.abi() };
        attempt.abis.contains(&table)
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Process id of the child that made it, as the child itself sees it.
    pub pid: i64,
    /// Its thread id; the same, children have one thread.
    pub tid: i64,
    /// What the kernel returned, the first time.
    pub ret: i64,
    /// When, in nanoseconds since boot.
    pub boot_ns: i64,
    /// Later answers that differ: another error, or one where there was none.
    pub odd: i64,
}

impl Outcome {
    /// The line that `attempt run` prints.
    pub fn json(&self, attempt: &Attempt, way: Way) -> Value {
        let errno = if self.ret < 0 { errno_name(-self.ret as i32) } else { "" };
        json!({"name": attempt.name, "call": attempt.call.name(), "abi": way.abi().name(), "way": way.name(),
               "pid": self.pid, "tid": self.tid, "ret": self.ret, "errno": errno, "odd": self.odd,
               "boot_ns": self.boot_ns})
    }
}

/// Whether this kernel was booted as a guest of the suite: its command line has a word `ringfence.…`.
pub fn is_own_guest() -> bool {
    std::fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.split_whitespace().any(|word| word.starts_with("ringfence.")))
}

/// Makes an attempt in a child, `count` times, and waits for it.
///
/// # Errors
/// The kernel's, if no child can be made; a text if the child ended without a result, or if the attempt
/// changes the machine and this is no guest of the suite. No option gets past the latter.
pub fn run(attempt: &Attempt, way: Way, count: u32) -> io::Result<Outcome> {
    if attempt.guest_only && !is_own_guest() {
        return Err(io::Error::other(format!(
            "{} changes the machine; it is made only in guests booted with ringfence.attach=MODE",
            attempt.name
        )));
    }
    let arena = Arena::new()?;
    arena.leave_result([0; raw::RESULT_WORDS]);
    // SAFETY: the programs that make attempts have one thread, so the child may do anything.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        arena.make_current();
        make(&arena, attempt, way, count);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    let status = wait(child);
    let [pid, tid, ret, boot_ns, odd] = arena.result();
    if status != 0 || pid == 0 {
        return Err(io::Error::other(format!(
            "the child that made {} ({}) ended with wait status {status:#x} and no result",
            attempt.name,
            way.name()
        )));
    }
    Ok(Outcome { pid, tid, ret, boot_ns, odd })
}

/// The child's part of [`run`].
fn make(arena: &Arena, attempt: &Attempt, way: Way, count: u32) {
    // The 32-bit program repeats the call itself.
    let here = if way == Way::Elf32 { 1 } else { count };
    elf32::switch(if way == Way::Elf32 { count } else { 0 });
    let (mut first, mut odd) = (None, 0);
    for left in (0..here).rev() {
        let ret = (attempt.run)(arena, way.abi());
        let first = *first.get_or_insert(ret);
        odd += i64::from(ret != first && (ret < 0 || first < 0));
        if attempt.opens() && ret >= 0 && left > 0 {
            // SAFETY: the file was opened a moment ago, and nothing else knows it.
            unsafe { libc::close(ret as i32) };
        }
    }
    let boot = raw::boot_ns() as i64;
    // SAFETY: plain questions, straight to the kernel: a copy of the C library may hold an old answer.
    let (mut pid, mut tid) = unsafe { (libc::syscall(libc::SYS_getpid), libc::syscall(libc::SYS_gettid)) };
    if way == Way::Elf32 {
        (pid, tid, odd) = elf32::maker(arena);
    }
    arena.leave_result([pid, tid, first.unwrap_or(0), boot, odd]);
}

/// Raises the number of files that may be open to what is allowed: repeated attempts keep what they need open.
pub fn raise_file_limit() {
    // SAFETY: a structure of plain numbers, read and written by the kernel. A refusal shows in the attempts.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Waits for a child and gives its wait status.
pub(crate) fn wait(child: i32) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable; the child is ours.
        let done = unsafe { libc::waitpid(child, &mut status, libc::__WALL) };
        if done == child || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return status;
        }
    }
}

/// The kernel's name for an error number that attempts meet, else `E?`.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        libc::ELOOP => "ELOOP",
        libc::EUSERS => "EUSERS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ESTALE => "ESTALE",
        _ => "E?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_is_explained() {
        for attempt in all() {
            assert_eq!(all().filter(|other| other.name == attempt.name).count(), 1, "{}", attempt.name);
            assert!(!attempt.what.is_empty() && !attempt.harmless.is_empty(), "{}", attempt.name);
            assert!(!attempt.abis.is_empty(), "{}", attempt.name);
        }
    }

    #[test]
    fn the_clock_is_never_set_outside_a_guest_of_our_own() {
        assert!(!is_own_guest());
        let mut refused = 0;
        for attempt in all().filter(|attempt| attempt.guest_only) {
            assert!(run(attempt, Way::Int80, 1).is_err(), "{}", attempt.name);
            refused += 1;
        }
        assert_eq!(refused, 9);
    }

    #[test]
    fn every_watched_call_has_an_attempt_that_makes_an_event() {
        for call in Call::ALL {
            assert!(
                all().any(|attempt| attempt.call == *call && attempt.native != Want::NoEvent),
                "{}",
                call.name()
            );
        }
    }

    #[test]
    fn expectations_are_told_apart_by_the_return_value() {
        const SEVERAL: Want = Want::Any(&[Want::Allowed, Want::Failed(libc::ENOSYS), BY_CAPABILITY]);
        assert_eq!(SEVERAL.fitting(0), [Want::Allowed]);
        assert_eq!(SEVERAL.fitting(-38), [Want::Failed(libc::ENOSYS)]);
        assert_eq!(SEVERAL.fitting(-1), [BY_CAPABILITY]);
        assert_eq!(SEVERAL.fitting(-22), []);
        assert_eq!(Want::NoEvent.fitting(-22), [Want::NoEvent]);
    }
}
