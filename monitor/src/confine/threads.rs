//! Does something in every thread of the process.
//!
//! The kernel keeps capabilities, filters and rulesets by thread, and what one thread gives up the others keep. So each
//! is sent a signal, one after the other, whose handler gives up what it is told to; it makes nothing but system calls.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a thread may take to obey. One that stands in the kernel, in a file system that does not answer, does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a new thread may take until it has its own name: until then it bears that of the thread that began it.
const NAMING: Duration = Duration::from_millis(500);
/// How long threads may go on to begin others.
const ROUNDS: Duration = Duration::from_secs(10);
/// Of the real-time signals that the C library leaves to programs, the one that is used.
const SIGNAL: i32 = 7;

/// The signal that threads are sent.
pub(super) fn signal() -> i32 {
    libc::SIGRTMIN() + SIGNAL
}

/// What a thread gives up. Parts that are not wanted are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// New programs bring no privileges any more.
    pub(super) no_new_privs: bool,
    /// The capabilities that stay, of those that are there; and none in the other sets.
    pub(super) keep: Option<u64>,
    /// A Landlock ruleset.
    pub(super) ruleset: Option<i32>,
    /// A seccomp filter.
    pub(super) filter: Option<libc::sock_fprog>,
}

// SAFETY: the filter's instructions are only read, and live as long as the order is under way: `everywhere` borrows
// them from its caller.
unsafe impl Sync for Order {}

/// The order under way.
static ORDER: AtomicPtr<Order> = AtomicPtr::new(std::ptr::null_mut());
/// What became of it: [`PENDING`], 0, or the error.
static OUTCOME: AtomicI32 = AtomicI32::new(0);
const PENDING: i32 = -1;
/// Held by whoever gives orders.
static TURN: Mutex<()> = Mutex::new(());

impl Order {
    /// Carries it out in the running thread; gives 0 or the error. Async-signal-safe.
    pub(super) fn carry_out(&self) -> i32 {
        if self.no_new_privs || self.filter.is_some() || self.ruleset.is_some() {
            // SAFETY: no pointers.
            if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
                return errno();
            }
        }
        if let Some(keep) = self.keep
            && let Err(error) = drop_capabilities(keep)
        {
            return error;
        }
        if let Some(ruleset) = self.ruleset {
            // SAFETY: no pointers.
            if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } != 0 {
                return errno();
            }
        }
        if let Some(filter) = &self.filter {
            // SAFETY: the program lives as long as the order, and the kernel copies it. SPEC_ALLOW (since 4.17): the
            // thread need not pay for what only another process's secrets would need.
            let ret = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                    std::ptr::from_ref(filter),
                )
            };
            if ret != 0 {
                return errno();
            }
        }
        0
    }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

/// Empties the bounding set of the running thread, if it may: that takes CAP_SETPCAP. Async-signal-safe.
pub(crate) fn empty_bounding_set() {
    for capability in 0..64 {
        // SAFETY: no pointers. An error means that there is no such capability, or that it may not be dropped.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Leaves the running thread these capabilities, of those that it has, and none in any other set. Async-signal-safe.
fn drop_capabilities(keep: u64) -> Result<(), i32> {
    empty_bounding_set();
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: both structures are as version 3 has them and live until the calls return.
    let done = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) == 0
            && {
                for (half, keep) in data.iter_mut().zip([keep as u32, (keep >> 32) as u32]) {
                    let left = half.permitted & keep;
                    *half = CapData { effective: left, permitted: left, inheritable: 0 };
                }
                libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) == 0
            }
    };
    if done { Ok(()) } else { Err(errno()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

extern "C" fn obey(_: i32) {
    // SAFETY: errno is the thread's own; the code that the signal interrupted finds it as it was.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let order = ORDER.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if !order.is_null() {
        // SAFETY: `everywhere` keeps the order alive until the outcome is there.
        OUTCOME.store(unsafe { &*order }.carry_out(), Ordering::Release);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Has every thread carry out the order that `order_of` has for its name, the calling thread last. What threads begin
/// meanwhile is reached too.
///
/// # Errors
/// The first thread that could not, with its name. The others have obeyed all the same, and a thread that did not
/// answer in time is told no more.
pub(super) fn everywhere<'o>(order_of: impl Fn(&str) -> Option<&'o Order>) -> io::Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = signal();
    let before = set_handler(signal, obey as extern "C" fn(i32) as usize)?;
    let mut fault = None;
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let own_name = name(own);
    let mut done = vec![own];
    let start = Instant::now();
    loop {
        let new: Vec<i32> = threads()?.into_iter().filter(|tid| !done.contains(tid)).collect();
        if new.is_empty() || start.elapsed() > ROUNDS {
            break;
        }
        for tid in new {
            let name = name(tid);
            if name == own_name && start.elapsed() < NAMING {
                continue;
            }
            if let Some(order) = order_of(&name)
                && let Err(error) = tell(tid, signal, order)
            {
                fault.get_or_insert(io::Error::new(error.kind(), format!("thread {name}: {error}")));
            }
            done.push(tid);
        }
        sleep(Duration::from_micros(200));
    }
    // Signals that come late find no order.
    restore_handler(signal, &before)?;
    if let Some(order) = order_of(&own_name) {
        match order.carry_out() {
            0 => {}
            error => {
                fault.get_or_insert(io::Error::from_raw_os_error(error));
            }
        }
    }
    fault.map_or(Ok(()), Err)
}

/// Has one thread carry out the order. A thread that has ended meanwhile is none.
fn tell(tid: i32, signal: i32, order: &Order) -> io::Result<()> {
    OUTCOME.store(PENDING, Ordering::Release);
    ORDER.store(std::ptr::from_ref(order).cast_mut(), Ordering::Release);
    // SAFETY: a thread of our own, or none any more.
    let ret = unsafe {
        libc::syscall(libc::SYS_tgkill, rustix::process::getpid().as_raw_nonzero().get(), tid, signal)
    };
    let sent = if ret == 0 { 0 } else { errno() };
    if sent != 0 && sent != libc::ESRCH {
        ORDER.store(std::ptr::null_mut(), Ordering::Release);
        return Err(io::Error::from_raw_os_error(sent));
    }
    let start = Instant::now();
    loop {
        match OUTCOME.load(Ordering::Acquire) {
            0 => return Ok(()),
            PENDING => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        let has_ended = sent != 0 || !fs::exists(format!("/proc/self/task/{tid}")).unwrap_or(true);
        if has_ended || start.elapsed() > PATIENCE {
            // Whoever takes the order away first decides: the handler, or this.
            if !ORDER.swap(std::ptr::null_mut(), Ordering::AcqRel).is_null() {
                let late = || io::Error::new(io::ErrorKind::TimedOut, "it did not answer");
                return if has_ended { Ok(()) } else { Err(late()) };
            }
        }
        sleep(Duration::from_micros(50));
    }
}

fn set_handler(signal: i32, handler: usize) -> io::Result<libc::sigaction> {
    // SAFETY: for this structure zero is a value: no flags, and no signals that are held back.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: both structures live until the call returns; the handler makes system calls only.
    match unsafe { libc::sigaction(signal, &raw const action, &raw mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A signal that is still on its way must not end the process: what was the default becomes "ignored".
fn restore_handler(signal: i32, before: &libc::sigaction) -> io::Result<()> {
    let handler = if before.sa_sigaction == libc::SIG_DFL { libc::SIG_IGN } else { before.sa_sigaction };
    set_handler(signal, handler).map(drop)
}

/// The threads of this process.
pub(super) fn threads() -> io::Result<Vec<i32>> {
    let tasks = fs::read_dir("/proc/self/task")?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
}

/// The name of a thread of this process; empty if it has ended.
pub(super) fn name(tid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}
