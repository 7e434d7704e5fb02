//! Ways in which a process comes by capabilities, each made by a child of root's that is nobody at first.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use monitor_common::call::Abi;
use monitor_common::caps::Cap;
use serde_json::{Value, json};

use super::prep::{self, CapSets};
use super::raw::Arena;
use super::wait;

/// Who has no capability until it gains one.
const NOBODY: libc::uid_t = 65_534;
/// Where the program that carries the capabilities lies.
const CARRIER: &str = "/tmp/ringfence-carrier";

/// A way, by its name on the command line.
pub const WAYS: &[&str] =
    &["set-uid", "file", "file-permitted", "seteuid", "capset", "ambient", "user-namespace"];

/// Goes a way. `cap` is the file's capability for the two ways by a file, and what is raised by `capset` and `ambient`.
/// Gives the line that `attempt gain` prints: the process that gained.
///
/// # Errors
/// The kernel's, or a text for a way that is not known, or whose child did not end well.
pub fn go(way: &str, cap: Cap) -> io::Result<Value> {
    let carrier = Path::new(CARRIER);
    let arena = Arena::new()?;
    match way {
        "set-uid" => carry(carrier, 0o4755, None)?,
        "file" => carry(carrier, 0o755, Some((cap, true)))?,
        "file-permitted" => carry(carrier, 0o755, Some((cap, false)))?,
        _ if WAYS.contains(&way) => {}
        _ => return Err(io::Error::other(format!("no way `{way}`: choose one of {}", WAYS.join(", ")))),
    }
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        let went = match way {
            "set-uid" | "file" | "file-permitted" => start(carrier),
            "seteuid" => seteuid(),
            "capset" => by_capset(&arena, cap),
            "ambient" => ambient(&arena, cap),
            _ => user_namespace(),
        };
        if let Err(error) = &went {
            eprintln!("attempt: {way}: {error}");
        }
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(went.is_err())) }
    }
    match wait(child) {
        0 => Ok(json!({"way": way, "pid": child})),
        status => Err(io::Error::other(format!("{way}: wait status {status:#x}"))),
    }
}

/// The other way: becomes nobody for good, and says so.
///
/// # Errors
/// The kernel's, or a text if there is a way back.
pub fn drop_to_nobody() -> io::Result<&'static str> {
    // SAFETY: numbers only.
    unsafe {
        check("setgroups", libc::setgroups(0, std::ptr::null()))?;
        check("setresgid", libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        check("setresuid", libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        if libc::geteuid() == NOBODY && libc::getegid() == NOBODY {
            return Ok("nobody");
        }
    }
    Err(io::Error::other("it is still somebody"))
}

fn check(what: &str, ret: i32) -> io::Result<()> {
    if ret == 0 { Ok(()) } else { Err(of(what)) }
}

/// The last call's error, with its name.
fn of(call: &str) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// Copies this program and marks the copy: by its mode, or with a capability, in force at once or not.
///
/// # Errors
/// The kernel's.
pub fn carry(carrier: &Path, mode: u32, file_cap: Option<(Cap, bool)>) -> io::Result<()> {
    if let Some(directory) = carrier.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy("/proc/self/exe", carrier)?;
    fs::set_permissions(carrier, fs::Permissions::from_mode(mode))?;
    let Some((cap, effective)) = file_cap else { return Ok(()) };
    // `struct vfs_cap_data`, revision 2: permitted and inheritable, low words first.
    let mut data = Vec::new();
    data.extend((0x0200_0000_u32 | u32::from(effective)).to_le_bytes());
    data.extend((cap.mask() as u32).to_le_bytes());
    data.extend(0_u32.to_le_bytes());
    data.extend(((cap.mask() >> 32) as u32).to_le_bytes());
    data.extend(0_u32.to_le_bytes());
    let path = CString::new(carrier.as_os_str().as_bytes())?;
    let name = c"security.capability";
    // SAFETY: strings that end in NUL, and data as long as said.
    check("setxattr", unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), data.as_ptr().cast(), data.len(), 0)
    })
}

/// Becomes nobody, who has no capability, and starts the program that carries them.
fn start(carrier: &Path) -> io::Result<()> {
    let path = CString::new(carrier.as_os_str().as_bytes())?;
    let arguments = [path.as_ptr(), c"getpid".as_ptr(), std::ptr::null()];
    // SAFETY: numbers, and strings that end in NUL.
    unsafe {
        check("setgroups", libc::setgroups(0, std::ptr::null()))?;
        check("setresuid", libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        libc::execv(path.as_ptr(), arguments.as_ptr());
    }
    Err(of("execv"))
}

/// Nobody for a while, and root again, as servers do it.
fn seteuid() -> io::Result<()> {
    // SAFETY: numbers only.
    unsafe {
        check("seteuid", libc::seteuid(NOBODY))?;
        check("seteuid", libc::seteuid(0))
    }
}

fn set(arena: &Arena, sets: CapSets) -> io::Result<()> {
    match prep::capset(arena, Abi::X86_64, prep::cap_version(), 0, sets) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno as i32)),
    }
}

/// Puts a capability out of force and in force again.
fn by_capset(arena: &Arena, cap: Cap) -> io::Result<()> {
    let sets = prep::capget(arena);
    set(arena, CapSets { effective: sets.effective & !cap.mask(), ..sets })?;
    set(arena, sets)
}

/// Makes a capability inheritable and raises it in the ambient set.
fn ambient(arena: &Arena, cap: Cap) -> io::Result<()> {
    let sets = prep::capget(arena);
    set(arena, CapSets { inheritable: sets.inheritable | cap.mask(), ..sets })?;
    // SAFETY: numbers only.
    check("prctl", unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap as u64, 0, 0) })
}

fn user_namespace() -> io::Result<()> {
    // SAFETY: numbers only; the namespace goes with the child.
    check("unshare", unsafe { libc::unshare(libc::CLONE_NEWUSER) })
}
