//! Races on capabilities and namespaces: capset, setns, clone3.

use std::io;

use monitor_common::caps::{self, Cap};

use super::{BOTH, EPERM, Facts, NEW_UTS, against, call64, poke};
use crate::attempt::prep;
use crate::attempt::raw::Arena;
use crate::attempt::wait;

/// A mask as events show it.
fn names(mask: u64) -> String {
    let names: Vec<&str> = caps::names(mask).collect();
    if names.is_empty() { "<NA>".to_owned() } else { names.join(" ") }
}

/// The effective set changes, and with `race_pid` the target process too: it is the parent in every other turn.
/// `sets` are written over each other; a set that the thread has not permitted may be among them.
pub(super) fn capset(count: u64, facts: &mut Facts, sets: &[u64], race_pid: bool) -> io::Result<()> {
    let (own, raced) = (Arena::new()?, Arena::new()?);
    let low = |set: u64| set as u32;
    let header = raced.put_u32s(0, &[prep::cap_version(), 0]);
    let data = raced.put_u32s(64, &[low(BOTH), low(BOTH), 0, 0, 0, 0]);
    // SAFETY: a plain question.
    let parent = unsafe { libc::getppid() }.max(1) as u32;
    let refuser = if race_pid { "other" } else { "capability" };
    let mut before = prep::capget(&own).effective;
    let mut step = || {
        let ret = call64(libc::SYS_capset, [header, data, 0, 0, 0, 0]);
        let after = prep::capget(&own).effective;
        let (verdict, by) = if ret == 0 { ("allowed", "<NA>") } else { ("refused", refuser) };
        let (was, is) = (names(before), names(after));
        before = after;
        facts.push(format_args!("{ret} {verdict} {by} before={was} after={is} claimed=true"))
    };
    // Only two capabilities are left from here on, and nothing but them can be had.
    step()?;
    let rewrite = |turn: u64| {
        poke(data, low(sets[(turn / 2) as usize % sets.len()]));
        poke(header + 4, if race_pid && turn & 1 == 1 { parent } else { 0 });
    };
    against(rewrite, || (0..count).try_for_each(|_| step()))
}

/// The descriptor is made to stand for one of two UTS namespaces (by their files and by a process in one of
/// them) or for no namespace at all. Now and then the thread moves into a new one.
pub(super) fn setns(count: u64, facts: &mut Facts) -> io::Result<()> {
    let mut before = own_namespaces()?.0;
    let mut step = |name: &str, ret: i64| {
        let after = own_namespaces()?.0;
        let verdict = if ret == 0 { "allowed" } else { "failed" };
        let changed = if after == before { "<NA>" } else { "uts" };
        let was = std::mem::replace(&mut before, after);
        facts.push(format_args!("{name} {ret} {verdict} before={was} after={after} changed={changed}"))
    };
    let unshare = || call64(libc::SYS_unshare, [NEW_UTS, 0, 0, 0, 0, 0]);
    step("unshare", unshare())?;
    let first = prep::open_fd("/proc/self/ns/uts");
    let idle = Idle::start()?;
    step("unshare", unshare())?;
    let second = prep::open_fd("/proc/self/ns/uts");
    let none = prep::open_fd("/dev/null");
    // SAFETY: a copy of our own descriptor.
    let raced = unsafe { libc::dup(first) };
    let targets = [first, second, idle.pidfd, none];
    let rewrite = |turn: u64| {
        // SAFETY: all are descriptors of our own; `raced` is used for nothing else.
        unsafe { libc::dup2(targets[turn as usize % targets.len()], raced) };
    };
    against(rewrite, || {
        (0..count).try_for_each(|i| match i % 64 {
            63 => step("unshare", unshare()),
            _ => step("setns", call64(libc::SYS_setns, [raced as u64, NEW_UTS, 0, 0, 0, 0])),
        })
    })
}

/// A child that does nothing until it is dropped.
struct Idle {
    pid: i32,
    pidfd: i32,
}

impl Idle {
    fn start() -> io::Result<Idle> {
        // SAFETY: this program has one thread as yet; the child only sleeps, and ends when its parent does.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: calls without memory.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        let pidfd = if pid < 0 { -1 } else { call64(libc::SYS_pidfd_open, [pid as u64, 0, 0, 0, 0, 0]) };
        if pidfd < 0 { Err(io::Error::last_os_error()) } else { Ok(Idle { pid, pidfd: pidfd as i32 }) }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        wait(self.pid);
    }
}

/// Inodes of this thread's UTS and user namespaces; the thread is the first of its process.
fn own_namespaces() -> io::Result<(u32, u32)> {
    let inode = |path: &std::ffi::CStr| {
        let mut link = [0_u8; 64];
        // SAFETY: the path ends in NUL, and the kernel writes at most the given length.
        let len = unsafe { libc::readlink(path.as_ptr(), link.as_mut_ptr().cast(), link.len()) };
        let text = link.get(..len.max(0) as usize).unwrap_or_default();
        let digits = text.iter().filter(|byte| byte.is_ascii_digit());
        digits.fold(0, |number: u32, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')))
    };
    match (inode(c"/proc/self/ns/uts"), inode(c"/proc/self/ns/user")) {
        (0, _) | (_, 0) => Err(io::Error::other("/proc/self/ns cannot be read")),
        both => Ok(both),
    }
}

/// The flags change between some that make namespaces and none. The child tells in which it is.
pub(super) fn clone3(count: u64, facts: &mut Facts, flags: &[u64], drop: bool) -> io::Result<()> {
    let (own, raced) = (Arena::new()?, Arena::new()?);
    if drop {
        prep::without(&own, &[Cap::SysAdmin]);
    }
    let args = raced.put_u64s(0, &[0, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0]);
    let (uts, user) = own_namespaces()?;
    let rewrite = |turn: u64| poke(args, flags[turn as usize % flags.len()]);
    against(rewrite, || {
        (0..count).try_for_each(|_| {
            own.leave_result([0; 5]);
            let ret = call64(libc::SYS_clone3, [args, 64, 0, 0, 0, 0]);
            if ret == 0 {
                // The child has a copy of everything, and one thread. It may not come back.
                let (uts, user) = own_namespaces().unwrap_or((0, 0));
                own.leave_result([uts.into(), user.into(), 0, 0, 0]);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            if ret == EPERM {
                return facts.push(format_args!(
                    "-1 refused capability uts={uts} user={user} changed=<NA> claimed=true"
                ));
            }
            if ret < 0 {
                return Err(io::Error::from_raw_os_error(-ret as i32));
            }
            wait(ret as i32);
            let [childs_uts, childs_user, ..] = own.result();
            let changed = match (childs_user == i64::from(user), childs_uts == i64::from(uts)) {
                (true, true) => return Ok(()),
                (true, false) => "uts",
                (false, true) => "user",
                (false, false) => "user uts",
            };
            facts.push(format_args!(
                "{ret} allowed <NA> uts={childs_uts} user={childs_user} changed={changed} claimed=true"
            ))
        })
    })
}
