//! What somebody with root can do to a running monitor: detach its links, close its descriptors, write to its maps,
//! stop one of its threads. Done to our own daemons only, to see that they notice.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use libc::c_long;

use crate::bpf_objects::FdInfo;

/// How long a thread may run without waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
mod command {
    use libc::c_long;

    pub(super) const MAP_LOOKUP_ELEM: c_long = 1;
    pub(super) const MAP_UPDATE_ELEM: c_long = 2;
    pub(super) const MAP_DELETE_ELEM: c_long = 3;
    pub(super) const MAP_GET_NEXT_KEY: c_long = 4;
    pub(super) const MAP_GET_FD_BY_ID: c_long = 14;
    pub(super) const LINK_GET_FD_BY_ID: c_long = 30;
    /// Since 5.9.
    pub(super) const LINK_DETACH: c_long = 34;
}

/// The part of `union bpf_attr` that these commands use.
#[repr(C)]
#[derive(Default)]
struct Attr {
    first: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
    rest: [u64; 12],
}

fn bpf(command: c_long, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: a structure of the size given, whose pointers the caller keeps alive.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

/// A descriptor of ours, closed when dropped.
#[derive(Debug)]
struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { libc::close(self.0) };
    }
}

/// Detaches another process's link, as `bpftool link detach` does.
///
/// # Errors
/// The kernel's.
pub fn detach_link(id: u32) -> io::Result<()> {
    let link = Fd(bpf(command::LINK_GET_FD_BY_ID, &mut Attr { first: id, ..Attr::default() })?);
    bpf(command::LINK_DETACH, &mut Attr { first: link.0 as u32, ..Attr::default() }).map(drop)
}

/// Another process's map.
#[derive(Debug)]
pub struct Map {
    fd: Fd,
    key: usize,
    value: usize,
}

impl Map {
    /// Opens the map behind one of a process's descriptors.
    ///
    /// # Errors
    /// It is no map, or the kernel refuses.
    pub fn open(info: &FdInfo) -> io::Result<Map> {
        let number = |key| info.number(key).ok_or_else(|| io::Error::other(format!("no {key} in fdinfo")));
        let fd = bpf(command::MAP_GET_FD_BY_ID, &mut Attr { first: number("map_id")?, ..Attr::default() })?;
        Ok(Map { fd: Fd(fd), key: number("key_size")? as usize, value: number("value_size")? as usize })
    }

    fn command(&self, command: c_long, key: *const u8, value: *const u8) -> io::Result<()> {
        let fd = self.fd.0 as u32;
        let mut attr = Attr { first: fd, key: key as u64, value: value as u64, ..Attr::default() };
        bpf(command, &mut attr).map(drop)
    }

    /// Writes an entry whose bytes are all alike, for each of `cpus` processors.
    ///
    /// # Errors
    /// The kernel's, `E2BIG` if the map is full.
    pub fn write(&self, key: &[u8], byte: u8, cpus: usize) -> io::Result<()> {
        assert_eq!(key.len(), self.key, "the key's size");
        let value = vec![byte; self.value.next_multiple_of(8) * cpus];
        self.command(command::MAP_UPDATE_ELEM, key.as_ptr(), value.as_ptr())
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        assert_eq!(key.len(), self.key, "the key's size");
        let mut value = vec![0_u8; self.value.next_multiple_of(8)];
        self.command(command::MAP_LOOKUP_ELEM, key.as_ptr(), value.as_mut_ptr())?;
        Ok(value)
    }

    /// Writes an entry of a map that has one value for all processors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!((key.len(), value.len()), (self.key, self.value), "the sizes");
        self.command(command::MAP_UPDATE_ELEM, key.as_ptr(), value.as_ptr())
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// The kernel's, `ENOENT` if there is none.
    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.key, "the key's size");
        self.command(command::MAP_DELETE_ELEM, key.as_ptr(), std::ptr::null())
    }

    /// Every key, as long as nobody deletes entries meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key];
            let last = keys.last().map_or(std::ptr::null(), |last| last.as_ptr());
            match self.command(command::MAP_GET_NEXT_KEY, last, next.as_mut_ptr()) {
                Ok(()) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes everything; gives how many entries there were.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_all(&self) -> io::Result<usize> {
        let mut key = vec![0; self.key];
        let mut count = 0;
        while self.command(command::MAP_GET_NEXT_KEY, std::ptr::null(), key.as_mut_ptr()).is_ok() {
            match self.delete(&key) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => count += 1,
            }
        }
        Ok(count)
    }
}

/// Threads of a process with this name.
pub fn threads(pid: i32, name: &str) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name))
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// A thread of another process that stands still as long as this lives.
#[derive(Debug)]
pub struct Stopped(i32);

fn ptrace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests used here read or write what `data` points to, which the callers keep alive.
    match unsafe { libc::ptrace(request, tid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn await_stop(tid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: a place for the status; the thread is traced by us.
    let ret = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
    match ret {
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFSTOPPED(status) => Ok(()),
        _ => Err(io::Error::other(format!("thread {tid} ended: status {status:#x}"))),
    }
}

impl Stopped {
    /// Stops one thread; the others of its process run on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(tid: i32) -> io::Result<Stopped> {
        ptrace(libc::PTRACE_SEIZE, tid, 0, 0)?;
        let stopped = Stopped(tid);
        ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        await_stop(tid)?;
        Ok(stopped)
    }

    /// Makes the thread close a descriptor of its process. It must wait inside a system call.
    ///
    /// # Errors
    /// As [`Stopped::call`].
    pub fn close(&self, fd: u32) -> io::Result<()> {
        self.call(libc::SYS_close, [fd.into(), 0, 0], None).map(drop)
    }

    /// The thread's registers inside a system call that it waits in: it may have been stopped between two.
    fn inside_a_call(&self) -> io::Result<libc::user_regs_struct> {
        let end = Instant::now() + PATIENCE;
        loop {
            // SAFETY: plain integers, for which zero is a value.
            let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
            ptrace(libc::PTRACE_GETREGS, self.0, 0, &raw mut registers as usize)?;
            // The call's number; -1 outside of one (arch/x86/entry).
            if registers.orig_rax as i64 >= 0 {
                return Ok(registers);
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!("thread {} waits in no system call", self.0)));
            }
            ptrace(libc::PTRACE_CONT, self.0, 0, 0)?;
            thread::sleep(Duration::from_millis(2));
            ptrace(libc::PTRACE_INTERRUPT, self.0, 0, 0)?;
            await_stop(self.0)?;
        }
    }

    /// Makes the thread make a system call. It must wait inside one. With a path, that is the second argument: it is
    /// laid below the thread's stack.
    ///
    /// # Errors
    /// The kernel's, what the call answered, or that the thread ended by it.
    pub fn call(&self, nr: c_long, mut args: [u64; 3], path: Option<&str>) -> io::Result<i64> {
        let saved = self.inside_a_call()?;
        let mut registers = saved;
        if let Some(path) = path {
            // Beyond the part below the stack that a function may use without saying so.
            let place = (registers.rsp - 4096) & !7;
            let mut bytes = path.as_bytes().to_vec();
            bytes.resize((bytes.len() + 1).next_multiple_of(8), 0);
            for (offset, word) in bytes.chunks_exact(8).enumerate() {
                let word = usize::from_ne_bytes(word.try_into().unwrap_or_default());
                ptrace(libc::PTRACE_POKEDATA, self.0, place as usize + 8 * offset, word)?;
            }
            args[1] = place;
        }
        // The instruction before is the `syscall` that it waits in. No number: nothing is restarted.
        registers.rip -= 2;
        registers.rax = nr as u64;
        (registers.rdi, registers.rsi, registers.rdx) = (args[0], args[1], args[2]);
        registers.orig_rax = u64::MAX;
        ptrace(libc::PTRACE_SETREGS, self.0, 0, &raw const registers as usize)?;
        ptrace(libc::PTRACE_SINGLESTEP, self.0, 0, 0)?;
        await_stop(self.0)?;
        ptrace(libc::PTRACE_GETREGS, self.0, 0, &raw mut registers as usize)?;
        ptrace(libc::PTRACE_SETREGS, self.0, 0, &raw const saved as usize)?;
        match registers.rax as i64 {
            answer if answer >= 0 => Ok(answer),
            error => Err(io::Error::from_raw_os_error(-error as i32)),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if ptrace(libc::PTRACE_DETACH, self.0, 0, 0).is_err() {
            // It was ended meanwhile, and its process with it, which is not gone before we have heard of it.
            // SAFETY: no place for the status; the thread is traced by us.
            unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) };
        }
    }
}
