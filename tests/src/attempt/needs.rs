//! Calls for which the kernel asks for one capability: the real thing, in a form that harms nothing.
//!
//! Each is made by the process that was told to, which ends then, so nothing that it changes outlives it.

use std::ffi::CString;
use std::{io, ptr};

use monitor_common::call::Abi;
use monitor_common::caps::Cap;
use serde_json::{Value, json};

use super::raw::{Arena, call};
use super::{errno_name, wait};

/// A call and the capability that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the kernel asks for.
    pub cap: Cap,
    /// The system call that asks for it.
    pub call: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Why it harms nothing.
    pub harmless: &'static str,
    /// What the kernel may answer to who has the capability: 0, or an error that it finds afterwards.
    pub granted: &'static [i32],
    /// The error for who has not.
    pub refused: i32,
    /// Makes the call; gives the kernel's answer.
    run: fn(&Arena) -> i64,
}

/// Another user, whom nothing of ours belongs to.
const NOBODY: libc::uid_t = 65_534;

/// Every one of them.
pub const NEEDS: &[Need] = &[
    Need {
        name: "nice",
        cap: Cap::SysNice,
        call: "setpriority",
        what: "lowers its own nice value",
        harmless: "the process ends at once",
        granted: &[0],
        refused: libc::EACCES,
        // Lower than whatever it was started with. SAFETY: numbers only.
        run: |_| unsafe {
            let lower = libc::getpriority(libc::PRIO_PROCESS, 0) - 1;
            answer(libc::setpriority(libc::PRIO_PROCESS, 0, lower).into())
        },
    },
    Need {
        name: "raise-limit",
        cap: Cap::SysResource,
        call: "prlimit64",
        what: "lowers its own hard limit for the size of files, and raises it again",
        harmless: "the limit is the process's own",
        granted: &[0],
        refused: libc::EPERM,
        run: |_| {
            limit(1 << 30);
            limit(2 << 30)
        },
    },
    Need {
        name: "link-up",
        cap: Cap::NetAdmin,
        call: "sendto",
        what: "asks by netlink that the loopback device be up",
        harmless: "the network namespace is the container's, and the device is up",
        granted: &[0],
        refused: libc::EPERM,
        run: |_| link_up(),
    },
    Need {
        name: "log-unread",
        cap: Cap::Syslog,
        call: "syslog",
        what: "asks how much of the kernel's log is unread",
        harmless: "it reads nothing",
        granted: &[0],
        refused: libc::EPERM,
        // SAFETY: SYSLOG_ACTION_SIZE_UNREAD takes no buffer.
        run: |_| unsafe { answer(libc::syscall(libc::SYS_syslog, 9, 0, 0)) },
    },
    Need {
        name: "port",
        cap: Cap::SysRawio,
        call: "ioperm",
        what: "asks for access to one I/O port",
        harmless: "the process touches no port",
        granted: &[0],
        refused: libc::EPERM,
        // SAFETY: concerns this thread alone, which touches no port.
        run: |_| unsafe { answer(libc::syscall(libc::SYS_ioperm, 0x80, 1, 1)) },
    },
    Need {
        name: "map-zero",
        cap: Cap::SysRawio,
        call: "mmap",
        what: "maps page 0",
        harmless: "it is the process's own memory",
        granted: &[0],
        refused: libc::EPERM,
        // SAFETY: nothing lies at page 0, and nothing of ours refers to it.
        run: |_| unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            call(
                Abi::X86_64,
                libc::SYS_mmap as u32,
                [0, 4096, libc::PROT_READ as u64, flags as u64, u64::MAX, 0],
            )
        },
    },
    Need {
        name: "tick",
        cap: Cap::SysTime,
        call: "adjtimex",
        what: "sets the clock's tick to no length",
        harmless: "the kernel accepts only ticks within a tenth of the nominal one, and asks for the capability first",
        granted: &[libc::EINVAL],
        refused: libc::EPERM,
        run: |_| {
            // SAFETY: a structure of numbers, of which all zeros is one.
            let mut timex: libc::timex = unsafe { std::mem::zeroed() };
            timex.modes = libc::ADJ_TICK;
            // SAFETY: the kernel reads and writes the structure.
            unsafe { answer(libc::syscall(libc::SYS_adjtimex, &raw mut timex)) }
        },
    },
    Need {
        name: "bounding-drop",
        cap: Cap::Setpcap,
        call: "prctl",
        what: "drops a capability from its own bounding set",
        harmless: "the set is the process's own",
        granted: &[0],
        refused: libc::EPERM,
        // SAFETY: numbers only.
        run: |_| unsafe { answer(libc::prctl(libc::PR_CAPBSET_DROP, Cap::WakeAlarm as u64, 0, 0, 0).into()) },
    },
    Need {
        name: "mount",
        cap: Cap::SysAdmin,
        call: "mount",
        what: "mounts an empty file system over /tmp",
        harmless: "the mount namespace is the container's",
        granted: &[0],
        refused: libc::EPERM,
        // SAFETY: strings that end in NUL, and no options.
        run: |_| unsafe {
            let (none, at, kind) = (c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr());
            answer(libc::mount(none, at, kind, 0, ptr::null()).into())
        },
    },
    Need {
        name: "policy",
        cap: Cap::MacAdmin,
        call: "write",
        what: "gives AppArmor a policy of one byte",
        harmless: "that is no policy",
        granted: &[libc::EPROTONOSUPPORT, libc::EPROTO],
        refused: libc::EACCES,
        run: |_| give_policy(),
    },
    Need {
        name: "load-module",
        cap: Cap::SysModule,
        call: "init_module",
        what: "loads a kernel module of 64 zeros",
        harmless: "that is no module",
        granted: &[libc::ENOEXEC],
        refused: libc::EPERM,
        run: |_| {
            let image = [0_u8; 64];
            // SAFETY: the kernel reads the image and the parameters, which end in NUL.
            unsafe { answer(libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr())) }
        },
    },
    Need {
        name: "attach",
        cap: Cap::SysPtrace,
        call: "ptrace",
        what: "attaches to a child that is another user",
        harmless: "the child is its own, and is ended",
        granted: &[0],
        refused: libc::EPERM,
        run: |_| attach(),
    },
    Need {
        name: "open-handle",
        cap: Cap::DacReadSearch,
        call: "open_by_handle_at",
        what: "opens a file by a handle that names none",
        harmless: "there is no such file",
        granted: &[libc::ESTALE, libc::EOPNOTSUPP, libc::EINVAL],
        refused: libc::EPERM,
        run: |_| open_handle(),
    },
    Need {
        name: "bpf-types",
        cap: Cap::Bpf,
        call: "bpf",
        what: "gives the kernel a description of types that is empty",
        harmless: "it is no description, and the kernel asks for the capability first",
        granted: &[libc::EINVAL],
        refused: libc::EPERM,
        run: |_| {
            // Of a map the kernel before 5.11 would ask whether it fits the limit of locked memory.
            let (btf_load, nothing) = (18_i64, [0_u64; 16]);
            // SAFETY: the kernel reads the attributes, which name no memory.
            unsafe { answer(libc::syscall(libc::SYS_bpf, btf_load, nothing.as_ptr(), 128)) }
        },
    },
    Need {
        name: "sample",
        cap: Cap::Perfmon,
        call: "perf_event_open",
        what: "opens a software counter of a whole processor",
        harmless: "it is opened and not read",
        granted: &[0],
        refused: libc::EACCES,
        run: |_| {
            // `struct perf_event_attr` in its first version: type 1 (software), size, event 0 (the processor's clock).
            let mut attributes = [0_u32; 16];
            attributes[0] = 1;
            attributes[1] = 64;
            // SAFETY: the kernel reads the attributes; every task (-1) on processor 0, in no group (-1).
            unsafe { answer(libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), -1, 0, -1, 0)) }
        },
    },
];

impl Need {
    /// That of this name.
    pub fn by_name(name: &str) -> Option<&'static Need> {
        NEEDS.iter().find(|need| need.name == name)
    }

    /// Makes the call; gives the line that `attempt need` prints.
    ///
    /// # Errors
    /// The kernel's, if it has no room for arguments.
    pub fn make(&self) -> io::Result<Value> {
        let arena = Arena::new()?;
        let ret = (self.run)(&arena);
        let errno = if ret < 0 { errno_name(-ret as i32) } else { "" };
        Ok(
            json!({"name": self.name, "cap": self.cap.name(), "pid": std::process::id(), "ret": ret, "errno": errno}),
        )
    }
}

/// Makes the kernel look for CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH on the way to what takes none of them, or
/// is refused every day: the attributes of a file, the program of a child that is another user, and a file in memory whose
/// permissions are for nobody.
///
/// # Errors
/// The kernel's, if the preparations fail. What it answers is no matter.
pub fn look() -> io::Result<()> {
    // SAFETY: the child is our own, and is ended; strings end in NUL.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::setresuid(NOBODY, NOBODY, NOBODY);
            libc::raise(libc::SIGSTOP);
            libc::_exit(0)
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, libc::WUNTRACED);
        let program = CString::new(format!("/proc/{child}/exe"))?;
        let mut name = [0_u8; 256];
        libc::readlink(program.as_ptr(), name.as_mut_ptr().cast(), name.len());
        libc::kill(child, libc::SIGKILL);
        wait(child);
        let file = libc::memfd_create(c"look".as_ptr(), libc::MFD_CLOEXEC);
        // Those of `trusted.` are listed to who has CAP_SYS_ADMIN (`simple_xattr_list`).
        libc::flistxattr(file, name.as_mut_ptr().cast(), name.len());
        libc::fchmod(file, 0);
        let path = CString::new(format!("/proc/self/fd/{file}"))?;
        libc::close(libc::open(path.as_ptr(), libc::O_RDONLY));
        libc::close(file);
    }
    Ok(())
}

/// What the C library returned, as the kernel answered it.
fn answer(ret: i64) -> i64 {
    if ret >= 0 { ret } else { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
}

/// Sets the limit for the size of files, hard and soft.
fn limit(bytes: u64) -> i64 {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the kernel reads the limit.
    unsafe { answer(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit).into()) }
}

/// `RTM_NEWLINK` for the first device, with `IFF_UP`; the answer is in the acknowledgement.
fn link_up() -> i64 {
    let mut request = Vec::new();
    let (newlink, request_and_ack, loopback, up) = (16_u16, 5_u16, 1_i32, 1_u32);
    request.extend(32_u32.to_ne_bytes());
    request.extend(newlink.to_ne_bytes());
    request.extend(request_and_ack.to_ne_bytes());
    // Sequence, port, family and type.
    request.extend([0_u8; 12]);
    request.extend(loopback.to_ne_bytes());
    request.extend(up.to_ne_bytes());
    request.extend(up.to_ne_bytes());
    let mut reply = [0_u8; 256];
    // SAFETY: both buffers are as long as said; the socket goes with the process.
    let got = unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        libc::send(socket, request.as_ptr().cast(), request.len(), 0);
        libc::recv(socket, reply.as_mut_ptr().cast(), reply.len(), 0)
    };
    match (got, reply[16..].first_chunk::<4>()) {
        (20.., Some(error)) => i32::from_ne_bytes(*error).into(),
        _ => answer(got as i64),
    }
}

/// Where whoever starts the container shows it AppArmor's own directory of securityfs.
pub const POLICY: &str = "/policy";

fn give_policy() -> i64 {
    let Ok(path) = CString::new(format!("{POLICY}/.replace")) else { return -i64::from(libc::EINVAL) };
    // SAFETY: a path that ends in NUL, and a buffer of one byte; the file goes with the process.
    unsafe {
        let file = answer(libc::open(path.as_ptr(), libc::O_WRONLY).into());
        if file < 0 { file } else { answer(libc::write(file as i32, c"x".as_ptr().cast(), 1) as i64) }
    }
}

fn attach() -> i64 {
    // SAFETY: this program has one thread; the child only becomes somebody else and waits to be ended.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: numbers only.
        unsafe {
            libc::setresuid(NOBODY, NOBODY, NOBODY);
            libc::raise(libc::SIGSTOP);
            libc::_exit(0)
        }
    }
    let mut status = 0;
    // SAFETY: our own child, which stops by itself; `status` is writable. The request reads no memory.
    let ret = unsafe {
        libc::waitpid(child, &raw mut status, libc::WUNTRACED);
        let ret = answer(libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, child, 0, 0));
        libc::kill(child, libc::SIGKILL);
        ret
    };
    wait(child);
    ret
}

/// A handle of eight zeros of type 1, which every file system takes for a file's number.
fn open_handle() -> i64 {
    let handle: [u32; 4] = [8, 1, 0, 0];
    let Ok(root) = CString::new("/") else { return -i64::from(libc::EINVAL) };
    // SAFETY: the kernel reads the path, and of the handle what its first number says.
    unsafe {
        let root = libc::open(root.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
        call(
            Abi::X86_64,
            libc::SYS_open_by_handle_at as u32,
            [root as u64, handle.as_ptr() as u64, libc::O_RDONLY as u64, 0, 0, 0],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_says_why_it_is_harmless() {
        for need in NEEDS {
            assert_eq!(NEEDS.iter().filter(|other| other.name == need.name).count(), 1, "{}", need.name);
            assert!(!need.what.is_empty() && !need.harmless.is_empty(), "{}", need.name);
            assert!(!need.granted.contains(&need.refused), "{}: the answer tells nothing", need.name);
        }
    }
}
