//! An attempt that carries a number of its own, so that its alert can be told from a thousand others; and processes
//! that come and go by the ten thousand, a few of which make one.

use std::io::{self, Read, Write};

use monitor_common::call::Abi;
use serde_json::{Value, json};

use super::raw::call;
use super::wait;

/// The first number of a mark: above every file that a process can have open (`fs.nr_open` is 1,048,576), so the call
/// fails for want of the file, if nobody refuses it before.
pub const FIRST: u32 = 2_000_000;

/// Calls setns with that many as its descriptor and gives the kernel's answer.
pub fn make(number: u32) -> i64 {
    // SAFETY: numbers only, and no such file is open.
    unsafe { call(Abi::X86_64, libc::SYS_setns as u32, [u64::from(number), 0, 0, 0, 0, 0]) }
}

/// What `evt.args` says of it.
pub fn arguments(number: u32) -> String {
    format!("fd={number} nstype=0")
}

/// The number in the `evt.args` of an alert, if it is that of a mark.
pub fn number(arguments: &str) -> Option<u32> {
    let number = arguments.strip_prefix("fd=")?.strip_suffix(" nstype=0")?.parse().ok()?;
    (number >= FIRST).then_some(number)
}

/// Children by the ten thousand.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How many, one after the other.
    pub forks: u32,
    /// Each so many-th makes a mark, and the one after it has a child that does.
    pub every: u32,
    /// The mark's number of the first; each further one counts from there.
    pub first: u32,
    /// Process ids that all children take in turn: the first, and how many. The kernel gives them only to root.
    pub pids: Option<(i32, i32)>,
}

impl Churn {
    /// Makes them, and tells of each mark: its number, who made it, and that process's parent.
    ///
    /// # Errors
    /// The kernel's, or that a child did not end well.
    pub fn make(self, mut tell: impl FnMut(Value) -> io::Result<()>) -> io::Result<()> {
        let mut number = self.first;
        for turn in 0..self.forks {
            let marks = turn % self.every < 2;
            // The second one's own child makes it.
            let below = turn % self.every == 1;
            let pipe = marks.then(io::pipe).transpose()?;
            let child = fork(self.pids(turn))?;
            if child == 0 {
                let done = pipe.is_none_or(|(_, mut end)| end.write_all(&act(number, below)).is_ok());
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(i32::from(!done)) }
            }
            let mut made = Vec::new();
            if let Some((mut reader, writer)) = pipe {
                drop(writer);
                reader.read_to_end(&mut made)?;
            }
            let status = wait(child);
            if status != 0 {
                return Err(io::Error::other(format!("child {turn} ended with wait status {status:#x}")));
            }
            if marks {
                let [pid, parent] = pids(&made).ok_or_else(|| {
                    io::Error::other(format!("child {turn} does not say who made its mark"))
                })?;
                tell(json!({"number": number, "pid": pid, "ppid": parent, "below": below}))?;
                number += 1;
            }
        }
        Ok(())
    }

    /// The process ids that a turn may take, the one first that it shall take.
    fn pids(self, turn: u32) -> Option<impl Iterator<Item = i32>> {
        self.pids.map(|(first, count)| (0..count).map(move |add| first + (turn as i32 + add) % count))
    }
}

/// Makes the mark, here or in a child, and gives the maker's process id and its parent's.
fn act(number: u32, below: bool) -> Vec<u8> {
    // SAFETY: plain questions, straight to the kernel.
    let [own, parent] = unsafe { [libc::SYS_getpid, libc::SYS_getppid].map(|nr| libc::syscall(nr) as i32) };
    if !below {
        make(number);
        return [own, parent].iter().flat_map(|pid| pid.to_le_bytes()).collect();
    }
    let child = fork(None::<std::iter::Empty<i32>>).unwrap_or(-1);
    if child == 0 {
        make(number);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    if child < 0 || wait(child) != 0 {
        return Vec::new();
    }
    [child, own].iter().flat_map(|pid| pid.to_le_bytes()).collect()
}

/// What [`act`] gave.
fn pids(made: &[u8]) -> Option<[i32; 2]> {
    let (pid, parent) = made.split_at_checked(4)?;
    Some([i32::from_le_bytes(pid.try_into().ok()?), i32::from_le_bytes(parent.try_into().ok()?)])
}

/// A child; `wanted` are the process ids that it may have: the first that nobody else has.
fn fork(wanted: Option<impl Iterator<Item = i32>>) -> io::Result<i32> {
    let Some(wanted) = wanted else {
        // SAFETY: the programs that make attempts have one thread, so the child may do anything.
        let child = unsafe { libc::fork() };
        return if child < 0 { Err(io::Error::last_os_error()) } else { Ok(child) };
    };
    let mut last = io::ErrorKind::InvalidInput.into();
    for pid in wanted {
        // Zero is a value of each member.
        let mut arguments = CloneArguments {
            exit_signal: libc::SIGCHLD as u64,
            set_tid: &raw const pid as u64,
            set_tid_size: 1,
            ..CloneArguments::default()
        };
        // SAFETY: no shared memory and no new stack: the child has a copy, as after fork; the structure has the size
        // that is passed, and its one pointer leads to a number on our stack.
        let child =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
        if child >= 0 {
            return Ok(child as i32);
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EEXIST) {
            break;
        }
    }
    Err(last)
}

/// `struct clone_args` of `include/uapi/linux/sched.h`, as of Linux 5.5.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_by_its_number() {
        assert_eq!(number(&arguments(FIRST + 17)), Some(FIRST + 17));
        for other in ["fd=-1 nstype=0", "fd=3 nstype=0", "fd=2000000 nstype=CLONE_NEWUTS", ""] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
