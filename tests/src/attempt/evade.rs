//! Ways to hide a call from whoever looks at its end.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;

use libc::{CLONE_NEWUTS, CLONE_VFORK, SIGCHLD, c_int, c_long, pid_t};
use monitor_common::call::Abi;

use super::raw::{Arena, call};
use super::wait;

/// The user that owns nothing.
const NOBODY: libc::uid_t = 65534;

/// A way: its name, and what it does.
pub type Way = (&'static str, fn() -> io::Result<()>);

/// The ways.
pub const WAYS: &[Way] = &[("tracer", by_tracer), ("vfork", by_vfork)];

/// A second thread calls unshare under a filter that kills it there and then.
///
/// # Errors
/// The kernel's; a text if the thread lives on.
pub fn killed_thread() -> io::Result<()> {
    let (send, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: a plain question.
        let _ = send.send(crate::seccomp::death_of_unshare().map(|()| unsafe { libc::gettid() }));
        // SAFETY: the filter ends this thread instead; if it does not, only this thread moves.
        unsafe { libc::syscall(libc::SYS_unshare, CLONE_NEWUTS) };
        let _ = send.send(Err(io::Error::other("the filter did not kill the thread")));
    });
    // A thread that was killed never says anything again; it is gone when the kernel has forgotten it.
    let tid = ready.recv().map_err(io::Error::other)??;
    while std::path::Path::new(&format!("/proc/self/task/{tid}")).exists() {
        if let Ok(Err(error)) = ready.try_recv() {
            return Err(error);
        }
        std::thread::yield_now();
    }
    // SAFETY: a plain question.
    say(unsafe { libc::getpid() }.into(), tid.into())
}

/// Asks the device controller by a call that is not watched, access(2), and lets others follow that have nothing to do
/// with a device: an unshare that a filter refuses, and an open of another file that rights refuse.
///
/// # Errors
/// The kernel's, or a text if it did not refuse.
pub fn asked_before() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, secret) = (dir.path().join("node"), dir.path().join("secret"));
    let name = std::ffi::CString::new(node.as_os_str().as_encoded_bytes())?;
    std::fs::write(&secret, "")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let check = |ret: c_int| if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: strings that end in NUL, and no other pointers.
    unsafe {
        check(libc::mknod(name.as_ptr(), libc::S_IFCHR, libc::makedev(1, 1)))?;
        check(libc::chmod(name.as_ptr(), 0o666))?;
        crate::seccomp::put_in_force(crate::seccomp::Filter::Docker)?;
        check(libc::access(name.as_ptr(), libc::R_OK))?;
        if libc::syscall(libc::SYS_unshare, CLONE_NEWUTS) == 0 {
            return Err(io::Error::other("the filter let unshare pass"));
        }
        check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        check(libc::access(name.as_ptr(), libc::R_OK))?;
    }
    match std::fs::File::open(&secret) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => return Err(io::Error::other(format!("the open was not refused: {other:?}"))),
    }
    // SAFETY: a plain question.
    say(unsafe { libc::getpid() }.into(), 0)
}

/// A child that clones; gives what clone returned, to both.
fn clone(flags: c_int) -> i64 {
    // SAFETY: no shared memory and no new stack: the child has a copy, as after fork.
    unsafe { call(Abi::X86_64, libc::SYS_clone as u32, [(flags | SIGCHLD) as u64, 0, 0, 0, 0, 0]) }
}

/// Says which process clones and which child it got, as the live suite reads it.
fn say(maker: i64, child: i64) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{maker} {child}")?;
    out.flush()
}

fn ptrace(request: libc::c_uint, pid: pid_t, address: u64, data: u64) -> io::Result<c_long> {
    // SAFETY: the requests made here read and write only registers of the tracee.
    let ret = unsafe { libc::ptrace(request, pid, address, data) };
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// The caller's tracer stops it after the child is made and before the call returns, and changes the call's number
/// to none.
fn by_tracer() -> io::Result<()> {
    let orig_rax = 8 * libc::ORIG_RAX as u64;
    let arena = Arena::new()?;
    arena.leave_result([0; 5]);
    // SAFETY: this program has one thread.
    let tracee = unsafe { libc::fork() };
    if tracee == 0 {
        let traced = ptrace(libc::PTRACE_TRACEME, 0, 0, 0).is_ok();
        // SAFETY: the tracer goes on from this stop.
        unsafe { libc::raise(libc::SIGSTOP) };
        let ret = if traced { clone(CLONE_NEWUTS) } else { -1 };
        if ret > 0 {
            arena.leave_result([ret, 0, 0, 0, 0]);
            wait(ret as i32);
        }
        // SAFETY: ends the tracee, or its child, at once.
        unsafe { libc::_exit(0) }
    }
    if tracee < 0 {
        return Err(io::Error::last_os_error());
    }
    wait(tracee);
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, tracee, 0, options as u64)?;
    ptrace(libc::PTRACE_CONT, tracee, 0, 0)?;
    let mut hidden = false;
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let stopped = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if stopped < 0 || (stopped == tracee && !libc::WIFSTOPPED(status)) {
            break;
        }
        if status >> 8 == libc::SIGTRAP | libc::PTRACE_EVENT_FORK << 8 {
            ptrace(libc::PTRACE_POKEUSER, tracee, orig_rax, u64::MAX)?;
            hidden = true;
        }
        if libc::WIFSTOPPED(status) {
            ptrace(libc::PTRACE_CONT, stopped, 0, 0)?;
        }
    }
    let child = arena.result()[0];
    if !hidden || child <= 0 {
        return Err(io::Error::other("the number could not be changed, or clone failed"));
    }
    say(tracee.into(), child)
}

/// The child of a vfork neither execs nor ends until standard input ends; until then the call does not return.
fn by_vfork() -> io::Result<()> {
    // SAFETY: a plain question.
    let maker = unsafe { libc::getpid() };
    match clone(CLONE_VFORK | CLONE_NEWUTS) {
        0 => {
            // The child has a copy of memory (no CLONE_VM), and the first lines of output are its own.
            // SAFETY: a plain question.
            let said = say(maker.into(), unsafe { libc::syscall(libc::SYS_getpid) });
            let waited = io::stdin().read_to_end(&mut Vec::new());
            // SAFETY: ends the child without running anything of its maker's.
            unsafe { libc::_exit(c_int::from(said.is_err() || waited.is_err())) }
        }
        ret if ret > 0 && wait(ret as i32) == 0 => Ok(()),
        ret => Err(io::Error::other(format!("clone returned {ret}, or its child failed"))),
    }
}
