//! Makes a process's capabilities grow by each door that the kernel has for it, and makes capability checks by number.
//! Everything is undone by the process's end.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{CLONE_NEWUSER, CLONE_NEWUTS, SIGCHLD, c_int};
use monitor_common::call::Abi;

use super::prep::{CapSets, cap_version, capget, capset, temp_name};
use super::raw::{Arena, call};
use super::wait;

/// The user that owns nothing, as an argument of calls with ids of 16 bits, too.
const NOBODY: u64 = 65534;
/// "Leave it as it is".
const SAME: u64 = u32::MAX as u64;
const SAME_16: u64 = u16::MAX as u64;

/// Numbers of a call of the user family: in the 64-bit table, in the 32-bit one, and there with ids of 16 bits.
struct Family {
    name: &'static str,
    x86_64: u32,
    i386: u32,
    old: u32,
}

const SETRESUID: Family = Family { name: "setresuid", x86_64: 117, i386: 208, old: 164 };
const FAMILIES: [Family; 4] = [
    Family { name: "setuid", x86_64: 105, i386: 213, old: 23 },
    Family { name: "setreuid", x86_64: 113, i386: 203, old: 70 },
    SETRESUID,
    Family { name: "setfsuid", x86_64: 122, i386: 215, old: 138 },
];

/// Doors by which [`grow`] goes, besides the user family.
pub const OTHERS: &[&str] = &["capset", "prctl", "unshare", "setns", "clone", "exec"];

/// Names of all doors.
pub fn doors() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name).chain(OTHERS.iter().copied())
}

/// Lets the running process gain capabilities by a door, of that table; with `old` by the call with ids of 16 bits.
///
/// # Errors
/// The kernel's, or there is no such door.
pub fn grow(door: &str, abi: Abi, old: bool) -> io::Result<()> {
    let arena = Arena::new()?;
    if let Some(family) = FAMILIES.iter().find(|family| family.name == door) {
        return by_user(family, abi, old);
    }
    let compat = abi == Abi::I386;
    match door {
        "capset" => {
            let sets = capget(&arena);
            let fewer = CapSets { effective: 0, ..sets };
            check(capset(&arena, abi, cap_version(), 0, fewer))?;
            check(capset(&arena, abi, cap_version(), 0, sets))
        }
        "prctl" => {
            const PR_CAP_AMBIENT: u64 = 47;
            const RAISE: u64 = 2;
            let sets = capget(&arena);
            check(capset(&arena, Abi::X86_64, cap_version(), 0, CapSets { inheritable: 1, ..sets }))?;
            // SAFETY: no pointers.
            check(unsafe { call(abi, if compat { 172 } else { 157 }, [PR_CAP_AMBIENT, RAISE, 0, 0, 0, 0]) })
        }
        "unshare" => {
            // SAFETY: no pointers; only this process moves.
            check(unsafe { call(abi, if compat { 310 } else { 272 }, [CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]) })
        }
        "setns" => into_anothers(abi),
        "clone" => {
            let flags = (CLONE_NEWUSER | SIGCHLD) as u64;
            // SAFETY: the child, which has a copy of our memory, ends at once.
            let child = unsafe { call(abi, if compat { 120 } else { 56 }, [flags, 0, 0, 0, 0, 0]) };
            if child == 0 {
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            check(child)?;
            wait(child as c_int);
            Ok(())
        }
        "exec" => by_set_uid_program(),
        _ => Err(io::Error::other(format!("no door `{door}`"))),
    }
}

fn check(ret: i64) -> io::Result<()> {
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret as i32)) } else { Ok(()) }
}

/// Puts root aside, and takes it up again.
fn by_user(family: &Family, abi: Abi, old: bool) -> io::Result<()> {
    let compat = abi == Abi::I386;
    let nr = |family: &Family| match (compat, old) {
        (false, _) => family.x86_64,
        (true, false) => family.i386,
        (true, true) => family.old,
    };
    let same = if old { SAME_16 } else { SAME };
    // SAFETY: no pointers; the calls concern this thread, and the process has no other.
    let make = |family: &Family, args: [u64; 3]| unsafe {
        call(abi, nr(family), [args[0], args[1], args[2], 0, 0, 0])
    };
    match family.name {
        "setuid" => {
            check(make(&SETRESUID, [same, NOBODY, same]))?;
            check(make(family, [0, 0, 0]))
        }
        "setreuid" => {
            check(make(family, [same, NOBODY, 0]))?;
            check(make(family, [same, 0, 0]))
        }
        "setresuid" => {
            check(make(family, [same, NOBODY, same]))?;
            check(make(family, [same, 0, same]))
        }
        _ => {
            // It answers with the old user, whatever comes of it.
            make(family, [NOBODY, 0, 0]);
            make(family, [0, 0, 0]);
            Ok(())
        }
    }
}

/// Enters the user namespace of a child.
fn into_anothers(abi: Abi) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: the child makes system calls only, and ends without running anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(reader);
        // SAFETY: the child alone moves; it tells so, and waits to be killed.
        unsafe {
            let ret = libc::unshare(CLONE_NEWUSER);
            libc::write(writer.as_raw_fd(), [u8::from(ret == 0)].as_ptr().cast(), 1);
            libc::pause();
            libc::_exit(0)
        }
    }
    drop(writer);
    let mut moved = [0];
    io::Read::read_exact(&mut reader, &mut moved)?;
    let entered = fs::File::open(format!("/proc/{child}/ns/user")).and_then(|file| {
        let nr = if abi == Abi::I386 { 346 } else { 308 };
        // SAFETY: a descriptor of ours.
        check(unsafe { call(abi, nr, [file.as_raw_fd() as u64, CLONE_NEWUSER as u64, 0, 0, 0, 0]) })
    });
    // SAFETY: our own child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait(child);
    entered
}

/// Gives up root for good and runs a copy of this program that belongs to root and is set-uid.
fn by_set_uid_program() -> io::Result<()> {
    let copy = temp_name("set-uid");
    fs::copy("/proc/self/exe", &copy)?;
    chown(&copy, Some(0), Some(0))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))?;
    let result = Command::new(&copy).args(["grow", "nothing"]).uid(NOBODY as u32).status();
    fs::remove_file(&copy)?;
    let status = result?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the set-uid program: {status}"))) }
}

/// How often each check of [`checks`] is made.
pub const CHECKS: u64 = 7;

/// Makes capability checks by calls that ask for exactly one capability and then change nothing: [`CHECKS`] times for
/// CAP_SYS_BOOT by reboot(2), and for CAP_SYS_CHROOT by chroot(2) to where the root is. Then once more than that for
/// CAP_SYS_ADMIN in a user namespace of a child's own: for a UTS namespace, and its name by sethostname(2). Then the
/// first two without any capability.
///
/// # Errors
/// The kernel's, or it answered otherwise than it must.
pub fn checks() -> io::Result<()> {
    let arena = Arena::new()?;
    two(libc::EINVAL, 0)?;
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: the child makes system calls only, and ends without running anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: numbers and a byte of ours. A name's length is refused before the name is read.
        unsafe {
            let mut answer = libc::unshare(CLONE_NEWUSER | CLONE_NEWUTS) as i64;
            for _ in 0..CHECKS {
                let ret = call(Abi::X86_64, libc::SYS_sethostname as u32, [0, 1 << 16, 0, 0, 0, 0]);
                answer |= i64::from(ret != -i64::from(libc::EINVAL));
            }
            libc::write(writer.as_raw_fd(), [u8::from(answer == 0)].as_ptr().cast(), 1);
            libc::_exit(0)
        }
    }
    drop(writer);
    let mut fine = [0];
    io::Read::read_exact(&mut reader, &mut fine)?;
    wait(child);
    if fine != [1] {
        return Err(io::Error::other("the kernel answered otherwise in a new user namespace"));
    }
    let none = CapSets { effective: 0, permitted: 0, inheritable: 0 };
    check(capset(&arena, Abi::X86_64, cap_version(), 0, none))?;
    two(libc::EPERM, libc::EPERM)
}

fn two(reboot: c_int, chroot: c_int) -> io::Result<()> {
    for _ in 0..CHECKS {
        // SAFETY: numbers that are no reboot's (the first must be a certain one), and a text.
        let answers = unsafe {
            [
                call(Abi::X86_64, libc::SYS_reboot as u32, [0; 6]),
                call(Abi::X86_64, libc::SYS_chroot as u32, [c"/".as_ptr() as u64, 0, 0, 0, 0, 0]),
            ]
        };
        if answers != [reboot, chroot].map(|errno| -i64::from(errno)) {
            return Err(io::Error::other(format!("the kernel answered {answers:?}")));
        }
    }
    Ok(())
}
