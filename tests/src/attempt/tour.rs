//! Asks for capabilities one after the other by calls that ask for exactly one each, so that it is known how many checks
//! the kernel makes: by who has them, and by who has none in force; in one cgroup, or in many.
//!
//! Left out are capabilities that the kernel asks for only together with others (CAP_BPF, CAP_PERFMON and
//! CAP_CHECKPOINT_RESTORE, and on old kernels CAP_SYSLOG, with CAP_SYS_ADMIN; CAP_FSETID and CAP_AUDIT_WRITE twice), that a
//! security module alone asks for (CAP_MAC_ADMIN, CAP_MAC_OVERRIDE), or whose calls change the machine.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libc::{c_int, c_long};
use monitor_common::call::Abi;
use monitor_common::caps::Cap;
use serde_json::{Value, json};

use super::prep::{CapSets, cap_version, capget, capset, temp_name};
use super::raw::{Arena, call};
use super::wait;

/// Another user and group, whom nothing of ours belongs to.
const OTHER: u32 = 65_534;
/// A group of options of sockets, and two of them, that the C library's crate does not name for every target.
const SOL_NETLINK: c_int = 270;
const NETLINK_LISTEN_ALL_NSID: c_int = 8;
/// Commands of shmctl(2) that asks for the lock's capability, and that looks.
const SHM_UNLOCK: c_int = 12;

/// Answer of kernels that were built without I/O ports.
const NO_PORTS: i64 = -(libc::ENOSYS as i64);

/// A capability, and a call that asks for it once.
struct Stop {
    cap: Cap,
    ask: fn(&Things) -> i64,
    /// Without the capability the call fails; otherwise it does less.
    fails: bool,
    /// What the kernel asks for besides if it is denied.
    then: Option<Cap>,
}

const fn stop(cap: Cap, ask: fn(&Things) -> i64) -> Stop {
    Stop { cap, ask, fails: true, then: None }
}

/// Each of them asks once, whatever came of it before.
const STOPS: &[Stop] = &[
    // The owner is another already, but for the first time.
    stop(Cap::Chown, |things| answer(give_away(things.foreign.as_raw_fd()))),
    stop(Cap::DacOverride, |things| things.open(libc::O_WRONLY)),
    // Whoever may not search and read may still be above all permissions.
    Stop { then: Some(Cap::DacOverride), ..stop(Cap::DacReadSearch, |things| things.open(libc::O_RDONLY)) },
    // SAFETY: numbers only; the file is ours alone.
    stop(Cap::Fowner, |things| answer(unsafe { libc::fchmod(things.foreign.as_raw_fd(), 0o600) }.into())),
    // SAFETY: numbers only; no signal is sent.
    stop(Cap::Kill, |things| answer(unsafe { libc::kill(things.child, 0) }.into())),
    // More groups than there can be.
    stop(Cap::Setgid, |_| raw(libc::SYS_setgroups, [65_537, 0, 0, 0])),
    // Who is root may become root in any case.
    Stop { fails: false, ..stop(Cap::Setuid, |_| raw(libc::SYS_setuid, [0; 4])) },
    // A capability that there is not.
    stop(Cap::Setpcap, |_| raw(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as u64, 63, 0, 0])),
    stop(Cap::NetBindService, |things| things.bind()),
    stop(Cap::NetBroadcast, |things| option(&things.netlink, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID)),
    stop(Cap::NetAdmin, |things| option(&things.socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE)),
    stop(Cap::NetRaw, |_| {
        closed(raw(
            libc::SYS_socket,
            [libc::AF_INET as u64, libc::SOCK_RAW as u64, libc::IPPROTO_ICMP as u64, 0],
        ))
    }),
    // The owner may unlock it in any case.
    Stop { fails: false, ..stop(Cap::IpcLock, |things| things.shmctl(SHM_UNLOCK)) },
    // Nobody may look at it, the owner neither.
    stop(Cap::IpcOwner, |things| things.shmctl(libc::IPC_STAT)),
    // A module of no name.
    stop(Cap::SysModule, |_| raw(libc::SYS_delete_module, [0; 4])),
    // Old kernels ask for page 0 where no hook sees it; machines that see it may have no ports.
    stop(Cap::SysRawio, |_| match raw(libc::SYS_ioperm, [0x80, 1, 1, 0]) {
        NO_PORTS => page_zero(),
        other => other,
    }),
    stop(Cap::SysChroot, |_| raw(libc::SYS_chroot, [c"/".as_ptr() as u64, 0, 0, 0])),
    stop(Cap::SysPtrace, |things| {
        let (mut head, mut size) = (0_u64, 0_u64);
        let places = [&raw mut head as u64, &raw mut size as u64];
        raw(libc::SYS_get_robust_list, [things.child as u64, places[0], places[1], 0])
    }),
    // A file that there is not.
    stop(Cap::SysPacct, |_| raw(libc::SYS_acct, [c"/ringfence-no-such-file".as_ptr() as u64, 0, 0, 0])),
    // A name that is too long, which is found before it is read.
    stop(Cap::SysAdmin, |_| raw(libc::SYS_sethostname, [0, 1 << 16, 0, 0])),
    // Numbers that are no reboot's.
    stop(Cap::SysBoot, |_| raw(libc::SYS_reboot, [0; 4])),
    stop(Cap::SysNice, |things| {
        let all = [u64::MAX; 16];
        raw(
            libc::SYS_sched_setaffinity,
            [things.child as u64, size_of_val(&all) as u64, all.as_ptr() as u64, 0],
        )
    }),
    stop(Cap::SysResource, |_| {
        limit(0);
        limit(1)
    }),
    // A tick of no length.
    stop(Cap::SysTime, |_| {
        // SAFETY: a structure of numbers, of which all zeros is one.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        timex.modes = libc::ADJ_TICK;
        raw(libc::SYS_adjtimex, [&raw mut timex as u64, 0, 0, 0])
    }),
    // There is no terminal.
    stop(Cap::SysTtyConfig, |_| raw(libc::SYS_vhangup, [0; 4])),
    stop(Cap::Mknod, |things| things.mknod()),
    stop(Cap::Lease, |things| {
        // It is open for writing, so there is no lease.
        raw(
            libc::SYS_fcntl,
            [things.foreign.as_raw_fd() as u64, libc::F_SETLEASE as u64, libc::F_RDLCK as u64, 0],
        )
    }),
    stop(Cap::Setfcap, |things| things.mark()),
    stop(Cap::WakeAlarm, |_| {
        closed(raw(libc::SYS_timerfd_create, [libc::CLOCK_REALTIME_ALARM as u64, 0, 0, 0]))
    }),
];

/// What the calls are about: all of it is this process's own, and goes with it.
struct Things {
    arena: Arena,
    /// A file in memory that another owns.
    foreign: OwnedFd,
    /// One of ours that nobody may open, and its path.
    shut: OwnedFd,
    path: CString,
    socket: OwnedFd,
    netlink: OwnedFd,
    /// Shared memory that nobody may use; removed when dropped.
    memory: c_int,
    /// A child that is another user, and ends when nobody holds this end of a pipe.
    child: c_int,
    leash: Option<PipeWriter>,
    /// Where a device is made.
    node: CString,
}

/// Numbers of checks by capability.
type Counts = BTreeMap<&'static str, u64>;

/// How many checks were made with the capability in force, and without.
#[derive(Default)]
struct Made {
    allowed: Counts,
    denied: Counts,
}

impl Made {
    fn side(&mut self, denied: bool) -> &mut Counts {
        if denied { &mut self.denied } else { &mut self.allowed }
    }

    fn add(&mut self, cap: Cap, denied: bool) {
        *self.side(denied).entry(cap.name()).or_default() += 1;
    }

    fn json(&self) -> Value {
        json!({"allowed": self.allowed, "denied": self.denied})
    }
}

/// Which way to go.
#[derive(Clone, Debug)]
pub struct Tour<'p> {
    /// Capabilities to ask for; all that the process has and this kernel has a call for,
    /// if none is named.
    pub only: &'p [Cap],
    /// How often each is asked for: with the capability in force, and as often without.
    pub rounds: u64,
    /// Asked instead in so many new cgroups `t0`, `t1` and so on below this directory: with the capability in the first
    /// half of them and without in the second, once, twice or three times (the number modulo three, and one).
    pub below: Option<(&'p Path, u64)>,
}

impl Tour<'_> {
    /// Asks. Gives the line that `attempt tour` prints: in `home` the checks made in the cgroup in which it began, in
    /// `each` those of one round.
    ///
    /// # Errors
    /// The kernel's, or it answered otherwise than it must.
    pub fn make(&self) -> io::Result<Value> {
        let mut home = Made::default();
        let things = Things::new(&mut home)?;
        let sets = capget(&things.arena);
        let mut stops: Vec<&Stop> = Vec::new();
        let wanted = |stop: &&Stop| {
            let ours = sets.effective & stop.cap.mask() != 0;
            ours && (self.only.is_empty() || self.only.contains(&stop.cap))
        };
        for stop in STOPS.iter().filter(wanted) {
            // What the kernel was built without checks nothing.
            if -(stop.ask)(&things) != i64::from(libc::ENOSYS) {
                stops.push(stop);
                home.add(stop.cap, false);
            }
        }
        let mut each = Made::default();
        for stop in &stops {
            each.add(stop.cap, false);
            each.add(stop.cap, true);
            stop.then.into_iter().for_each(|then| each.add(then, true));
        }
        match self.below {
            None => {
                for _ in 0..self.rounds {
                    things.round(&stops, false, &mut home)?;
                    things.set(CapSets { effective: 0, ..sets }, false, &mut home)?;
                    things.round(&stops, true, &mut home)?;
                    things.set(sets, true, &mut home)?;
                }
            }
            Some((below, count)) => {
                let mut elsewhere = Made::default();
                for number in 0..count {
                    let denied = number >= count / 2;
                    if number == count / 2 {
                        // At home, where it is counted.
                        enter(below)?;
                        things.set(CapSets { effective: 0, ..sets }, false, &mut home)?;
                    }
                    let directory = below.join(format!("t{number}"));
                    std::fs::create_dir(&directory)?;
                    enter(&directory)?;
                    for _ in 0..=number % 3 {
                        things.round(&stops, denied, &mut elsewhere)?;
                    }
                }
                enter(below)?;
            }
        }
        Ok(json!({"pid": std::process::id(), "home": home.json(), "each": each.json()}))
    }
}

/// Moves this process to a cgroup.
fn enter(cgroup: &Path) -> io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")
}

impl Things {
    /// Makes them, and counts the checks that this takes.
    fn new(made: &mut Made) -> io::Result<Things> {
        // SAFETY: numbers only. Without a session of its own the terminal's would be hung up.
        check(unsafe { libc::setsid() })?;
        let (foreign, shut) = (memory_file()?, memory_file()?);
        check(give_away(foreign.as_raw_fd()) as c_int)?;
        made.add(Cap::Chown, false);
        // SAFETY: our own file.
        check(unsafe { libc::fchmod(shut.as_raw_fd(), 0) })?;
        let path = CString::new(format!("/proc/self/fd/{}", shut.as_raw_fd()))?;
        // SAFETY: numbers only.
        let memory = check(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT) })?;
        let (child, leash) = another()?;
        made.add(Cap::Setuid, false);
        Ok(Things {
            arena: Arena::new()?,
            foreign,
            path,
            shut,
            socket: socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?,
            netlink: socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?,
            memory,
            child,
            leash: Some(leash),
            node: CString::new(temp_name("node"))?,
        })
    }

    /// One round, with the capabilities or without.
    fn round(&self, stops: &[&Stop], denied: bool, made: &mut Made) -> io::Result<()> {
        for stop in stops {
            let ret = (stop.ask)(self);
            let refused = [-i64::from(libc::EPERM), -i64::from(libc::EACCES)].contains(&ret);
            if refused != (denied && stop.fails) {
                let text = format!("{}, denied: {denied}: the kernel answered {ret}", stop.cap.name());
                return Err(io::Error::other(text));
            }
            made.add(stop.cap, denied);
            if let Some(then) = stop.then.filter(|_| denied) {
                made.add(then, true);
            }
        }
        Ok(())
    }

    /// Puts other capabilities in force. Each such call asks for CAP_SETPCAP, which is in force before or not.
    fn set(&self, sets: CapSets, denied: bool, made: &mut Made) -> io::Result<()> {
        made.add(Cap::Setpcap, denied);
        match capset(&self.arena, Abi::X86_64, cap_version(), 0, sets) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error as i32)),
        }
    }

    fn open(&self, flags: c_int) -> i64 {
        closed(raw(libc::SYS_open, [self.path.as_ptr() as u64, flags as u64, 0, 0]))
    }

    /// A port of few.
    fn bind(&self) -> i64 {
        // SAFETY: a structure of numbers, of which all zeros is one.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        address.sin_family = libc::AF_INET as u16;
        address.sin_port = 1_u16.to_be();
        address.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
        let size = size_of::<libc::sockaddr_in>() as u64;
        raw(libc::SYS_bind, [self.socket.as_raw_fd() as u64, &raw const address as u64, size, 0])
    }

    fn shmctl(&self, command: c_int) -> i64 {
        // Room for what the kernel tells.
        let mut told = [0_u64; 32];
        raw(libc::SYS_shmctl, [self.memory as u64, command as u64, told.as_mut_ptr() as u64, 0])
    }

    /// A node for the device that takes everything, which goes again at once.
    fn mknod(&self) -> i64 {
        let (mode, device) = (libc::S_IFCHR | 0o600, libc::makedev(1, 3));
        let ret = raw(libc::SYS_mknod, [self.node.as_ptr() as u64, mode.into(), device, 0]);
        // SAFETY: a path that ends in NUL.
        unsafe { libc::unlink(self.node.as_ptr()) };
        ret
    }

    /// A capability of the file, which nobody can execute.
    fn mark(&self) -> i64 {
        // `struct vfs_ns_cap_data`, revision 3, of CAP_CHOWN and for root. Of the revision before the kernel asks twice.
        let data = [0x0300_0000_u32, 1, 0, 0, 0, 0].map(u32::to_le);
        let name = c"security.capability".as_ptr() as u64;
        let arguments = [self.shut.as_raw_fd() as u64, name, data.as_ptr() as u64, size_of_val(&data) as u64];
        raw(libc::SYS_fsetxattr, arguments)
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // A signal would take a capability, and a check.
        drop(self.leash.take());
        wait(self.child);
        // SAFETY: our own memory; numbers only.
        unsafe { libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// A child that has become another user, for which it asked for CAP_SETUID, and that may be looked at.
fn another() -> io::Result<(c_int, PipeWriter)> {
    let (mut ready, fine) = io::pipe()?;
    let (held, leash) = io::pipe()?;
    // SAFETY: the child makes system calls only.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let id = c_long::from(OTHER);
        let mut byte = [0_u8];
        // SAFETY: numbers, and a byte of ours. The last read ends when the parent lets go.
        unsafe {
            libc::close(leash.as_raw_fd());
            let became = libc::syscall(libc::SYS_setresuid, id, id, id)
                | c_long::from(libc::prctl(libc::PR_SET_DUMPABLE, 1));
            byte[0] = u8::from(became == 0);
            libc::write(fine.as_raw_fd(), byte.as_ptr().cast(), 1);
            libc::read(held.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
            libc::_exit(0)
        }
    }
    drop((fine, held));
    let mut byte = [0];
    ready.read_exact(&mut byte)?;
    if byte == [1] {
        return Ok((child, leash));
    }
    drop(leash);
    wait(child);
    Err(io::Error::other("the child could not become another user"))
}

fn memory_file() -> io::Result<OwnedFd> {
    // SAFETY: a name that ends in NUL; the descriptor is ours since a moment ago.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::memfd_create(c"tour".as_ptr(), libc::MFD_CLOEXEC))?)) }
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the descriptor is ours since a moment ago.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol))?)) }
}

fn check(ret: c_int) -> io::Result<c_int> {
    if ret >= 0 { Ok(ret) } else { Err(io::Error::last_os_error()) }
}

/// What the C library returned, as the kernel answered it.
fn answer(ret: i64) -> i64 {
    if ret >= 0 { ret } else { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
}

/// A call of the 64-bit table, without anything else that the C library might do. What the arguments point to lives in
/// the callers, and none of the calls keeps it.
fn raw(nr: c_long, [a, b, c, d]: [u64; 4]) -> i64 {
    // SAFETY: see above; each of the calls concerns this process and its child alone, or fails.
    unsafe { call(Abi::X86_64, nr as u32, [a, b, c, d, 0, 0]) }
}

/// Closes what was opened.
fn closed(fd: i64) -> i64 {
    if fd >= 0 {
        // SAFETY: opened a moment ago, and nothing else knows it.
        unsafe { libc::close(fd as c_int) };
    }
    fd
}

/// Gives a file of ours to another.
fn give_away(fd: c_int) -> i64 {
    // SAFETY: numbers only.
    i64::from(unsafe { libc::fchown(fd, OTHER, u32::MAX) })
}

/// Sets an option of a socket to some number.
fn option(socket: &OwnedFd, level: c_int, name: c_int) -> i64 {
    let value: c_int = 4096;
    let size = size_of_val(&value) as u32;
    // SAFETY: the kernel reads the number.
    unsafe {
        answer(libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size).into())
    }
}

/// Maps page 0 of this process's memory, and takes it away again.
fn page_zero() -> i64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let arguments = [0, 4096, libc::PROT_READ as u64, flags as u64, u64::MAX, 0];
    // SAFETY: nothing lies at page 0, and nothing of ours refers to it.
    unsafe {
        let ret = call(Abi::X86_64, libc::SYS_mmap as u32, arguments);
        if ret >= 0 {
            call(Abi::X86_64, libc::SYS_munmap as u32, [0, 4096, 0, 0, 0, 0]);
        }
        ret
    }
}

/// Sets both limits of a priority that nothing here asks for.
fn limit(both: u64) -> i64 {
    let limit = libc::rlimit { rlim_cur: both, rlim_max: both };
    // SAFETY: the kernel reads the limit.
    unsafe { answer(libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const limit).into()) }
}
