//! The canaries of the life cycle: a process that is made, runs a program, is moved into a cgroup and ends, and the
//! cgroup's directory that comes and goes.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;

use monitor_common::wire::kind;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::board::{Board, NSPROXY, of_kind};
use crate::confine::{Answer, Rule, Test};
use crate::hierarchy::Hierarchy;

/// Names of the daemons' directories begin so; the daemon's process id follows.
const DIR_PREFIX: &str = "ringfence-canary-";
/// The directory in it that comes and goes.
const ROUND: &str = "round";

/// A program that reads one byte from its standard input and ends; an end of file will do.
///
/// `xor edi, edi; push rax; mov rsi, rsp; mov edx, 1; xor eax, eax; syscall; mov eax, 60; xor edi, edi; syscall`
const CODE: [u8; 25] = [
    0x31, 0xff, 0x50, 0x48, 0x89, 0xe6, 0xba, 1, 0, 0, 0, 0x31, 0xc0, 0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x31,
    0xff, 0x0f, 0x05, 0x90,
];
const LOADED_AT: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// The program as an ELF file: one header, one segment.
fn elf() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    let size = HEADERS + CODE.len() as u64;
    // Entry, program headers, section headers.
    for word in [LOADED_AT + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    // Flags; sizes of the header and of a program header, one of them; no sections.
    file.extend([0; 4]);
    file.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable; offset, two addresses, two sizes, alignment.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, LOADED_AT, LOADED_AT, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(CODE);
    file
}

/// The program in a file without a name, which nobody can change any more.
fn program() -> io::Result<OwnedFd> {
    let make = |flags| memfd_create("canary", flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    // `MFD_EXEC`, since 6.3: needed where `vm.memfd_noexec` is set.
    let file = make(MemfdFlags::EXEC).or_else(|_| make(MemfdFlags::empty()))?;
    let mut file = fs::File::from(file);
    file.write_all(&elf())?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The program, and what the call that starts it is given: all at places that stay, by which the thread's filter knows it.
#[derive(Debug)]
struct Start {
    /// Held open.
    _program: OwnedFd,
    path: CString,
    /// The path, and the end.
    argv: Box<[*const libc::c_char; 2]>,
    /// The end.
    envp: Box<[*const libc::c_char; 1]>,
}

impl Start {
    fn new() -> io::Result<Self> {
        let program = program()?;
        let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
        let argv = Box::new([path.as_ptr(), ptr::null()]);
        Ok(Start { _program: program, path, argv, envp: Box::new([ptr::null()]) })
    }

    /// The call that starts it, as a filter sees it.
    fn rule(&self) -> Rule {
        let address = |pointer: *const libc::c_char| Test::Exactly(pointer as u64);
        let places = [
            address(self.path.as_ptr()),
            address(self.argv.as_ptr().cast()),
            address(self.envp.as_ptr().cast()),
        ];
        let tests: Vec<(u32, Test)> = (0..).zip(places).collect();
        Rule::new(libc::SYS_execve as u32, &tests, Answer::Allow)
    }

    /// Starts a child that ends when its standard input does. The standard library's way copies the path.
    fn spawn(&self) -> io::Result<Child> {
        let (input, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut actions = std::mem::MaybeUninit::uninit();
        let checked = |error| if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) };
        // SAFETY: makes what is destroyed below.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        let mut pid = 0;
        // SAFETY: the actions were made above; path and lists end as they must, and outlive the call.
        let spawned = unsafe {
            checked(libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), input.as_raw_fd(), 0))
                .and_then(|()| {
                    checked(libc::posix_spawn(
                        &raw mut pid,
                        self.path.as_ptr(),
                        actions.as_ptr(),
                        ptr::null(),
                        self.argv.as_ptr().cast(),
                        self.envp.as_ptr().cast(),
                    ))
                })
        };
        // SAFETY: made above, and used no more.
        unsafe { libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr()) };
        spawned?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the child has no process id"))?;
        Ok(Child { pid, orders: Some(orders) })
    }
}

/// The child, until it is waited for.
struct Child {
    pid: Pid,
    orders: Option<OwnedFd>,
}

impl Child {
    /// Ends its standard input, and waits for its end.
    fn end(&mut self) -> io::Result<()> {
        self.orders = None;
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// What the life cycle's canaries need.
#[derive(Debug)]
pub(super) struct Life {
    start: io::Result<Start>,
    /// The directory that comes and goes, and whether it exists now; or why it cannot be made.
    dir: Result<(PathBuf, bool), String>,
}

impl Life {
    /// Makes the program, and a directory below `base`. Called while the thread still has its capabilities: the root
    /// of the hierarchy is writable for nobody without them.
    pub(super) fn new(base: Option<&Path>) -> Self {
        let make = |base: &Path| {
            fs::create_dir(base).map_err(|error| format!("{}: {error}", base.display()))?;
            Ok((base.join(ROUND), false))
        };
        let dir = base.ok_or("no cgroup hierarchy can be used".to_owned()).and_then(make);
        Life { start: Start::new(), dir }
    }

    /// The one start of a program that a filter has to let pass, if there is one.
    pub(super) fn rule(&self) -> Option<Rule> {
        self.start.as_ref().ok().map(Start::rule)
    }

    /// Sends all canaries once.
    pub(super) fn run(&mut self, board: &Board) {
        self.remake_dir(board);
        let Some(mut child) = self.spawn(board) else { return };
        self.attach(board, &child);
        // The child's end is that of its namespaces, too.
        if board.untested(NSPROXY).is_none() {
            board.ask(NSPROXY);
        }
        // What went wrong stands on the board.
        let _ = send(board, kind::EXIT, || child.end());
    }

    /// Removes the directory of the last round and makes a new one. Between rounds it stands there empty, because a
    /// process may leave its cgroup a moment after its end was seen (since 6.19).
    fn remake_dir(&mut self, board: &Board) {
        let (dir, exists) = match &mut self.dir {
            Ok(dir) => (&dir.0, &mut dir.1),
            Err(why) => {
                for kind in [kind::CGROUP_MKDIR, kind::CGROUP_RMDIR, kind::CGROUP_ATTACH] {
                    board.excuse(of_kind(kind), why.clone());
                }
                return;
            }
        };
        if *exists {
            *exists = match send(board, kind::CGROUP_RMDIR, || fs::remove_dir(dir)) {
                Ok(()) => false,
                Err(error) => error.kind() != ErrorKind::NotFound,
            };
        }
        if !*exists {
            *exists = send(board, kind::CGROUP_MKDIR, || fs::create_dir(dir)).is_ok();
        }
        if !*exists {
            board.excuse(of_kind(kind::CGROUP_RMDIR), format!("{} cannot be made", dir.display()));
        }
    }

    fn spawn(&self, board: &Board) -> Option<Child> {
        let spawn = || self.start.as_ref().map_err(|error| io::Error::from(error.kind()))?.spawn();
        board.ask(of_kind(kind::EXEC));
        match send(board, kind::FORK, spawn) {
            Ok(child) => {
                board.admit(of_kind(kind::EXEC));
                Some(child)
            }
            Err(error) => {
                for kind in [kind::EXEC, kind::EXIT, kind::CGROUP_ATTACH] {
                    board.excuse(of_kind(kind), format!("no child can be started: {error}"));
                }
                None
            }
        }
    }

    fn attach(&self, board: &Board, child: &Child) {
        match &self.dir {
            Ok((dir, true)) => {
                let _ = send(board, kind::CGROUP_ATTACH, || {
                    fs::write(dir.join("cgroup.procs"), child.pid.as_raw_nonzero().to_string())
                });
            }
            Ok((dir, false)) => {
                board.excuse(of_kind(kind::CGROUP_ATTACH), format!("{} cannot be made", dir.display()));
            }
            // Said already.
            Err(_) => {}
        }
    }
}

/// Does what a canary is sent by; if that fails, the canary is excused.
fn send<T>(board: &Board, kind: u16, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    board.ask(of_kind(kind));
    let result = act();
    match &result {
        Ok(_) => board.admit(of_kind(kind)),
        Err(error) => board.excuse(of_kind(kind), error.to_string()),
    }
    board.acted();
    result
}

/// This daemon's directory for its canaries, in its own cgroup. What daemons left there that were killed is removed.
pub(super) fn base(hierarchy: &Hierarchy) -> Option<PathBuf> {
    let own = hierarchy.own_directory()?;
    for entry in fs::read_dir(&own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(DIR_PREFIX));
        if pid.is_some_and(|pid| {
            pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists()
        }) {
            remove(&entry.path());
        }
    }
    Some(own.join(format!("{DIR_PREFIX}{}", std::process::id())))
}

/// Removes a daemon's directory. If a process still leaves it, the next daemon removes it.
pub(super) fn remove(base: &Path) {
    let _ = fs::remove_dir(base.join(ROUND));
    let _ = fs::remove_dir(base);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_runs_until_its_input_ends() {
        let start = Start::new().unwrap();
        for _ in 0..2 {
            let mut child = start.spawn().unwrap();
            let still_runs = waitpid(Some(child.pid), WaitOptions::NOHANG).unwrap();
            assert!(still_runs.is_none(), "{still_runs:?}");
            child.end().unwrap();
        }
        let gone = fs::write(format!("/proc/self/fd/{}", start._program.as_raw_fd()), b"x");
        assert!(gone.is_err(), "nobody changes the program");
    }
}
