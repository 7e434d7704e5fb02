//! What some attempts need first: capabilities dropped, files that can be opened by handle, current values.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};

use monitor_common::call::Abi;
use monitor_common::caps::Cap;

use super::raw::{Arena, call};

/// Version of the capability structures with 64 bits.
const CAP_VERSION_3: u32 = 0x2008_0522;
/// Scratch place of the capability header; the data follow 64 bytes later.
const HEADER: usize = 0;
const DATA: usize = 64;

/// The three capability sets of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapSets {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over an exec of a file that allows it.
    pub inheritable: u64,
}

/// Our own sets.
pub fn capget(arena: &Arena) -> CapSets {
    capget_at(arena, HEADER)
}

/// As [`capget`], by another place in the arena than the one where arguments of calls stand.
pub(super) fn capget_at(arena: &Arena, place: usize) -> CapSets {
    let header = arena.put_u32s(place, &[CAP_VERSION_3, 0]);
    let data = arena.put_u32s(place + DATA, &[0; 6]);
    // SAFETY: capget reads the header and writes 24 bytes of data, both in the arena.
    unsafe { call(Abi::X86_64, libc::SYS_capget as u32, [header, data, 0, 0, 0, 0]) };
    let bytes = arena.bytes(place + DATA, 24);
    let word = |i: usize| {
        u64::from(u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]))
    };
    CapSets {
        effective: word(0) | word(3) << 32,
        permitted: word(1) | word(4) << 32,
        inheritable: word(2) | word(5) << 32,
    }
}

/// The `capset` call itself, with any version and process id.
pub fn capset(arena: &Arena, abi: Abi, version: u32, pid: i32, sets: CapSets) -> i64 {
    let header = arena.put_u32s(HEADER, &[version, pid as u32]);
    let halves = |set: u64| [set as u32, (set >> 32) as u32];
    let [effective, permitted, inheritable] =
        [halves(sets.effective), halves(sets.permitted), halves(sets.inheritable)];
    let data = arena.put_u32s(
        DATA,
        &[effective[0], permitted[0], inheritable[0], effective[1], permitted[1], inheritable[1]],
    );
    let nr = if abi == Abi::I386 { 185 } else { libc::SYS_capset as u32 };
    // SAFETY: both structures stand in the arena; the call concerns this child alone.
    unsafe { call(abi, nr, [header, data, 0, 0, 0, 0]) }
}

/// The current version of the capability structures, for [`capset`].
pub const fn cap_version() -> u32 {
    CAP_VERSION_3
}

/// Drops capabilities from the effective and the permitted set and makes sure that they are gone.
///
/// Attempts that would change something if they were allowed rest on this: if a capability is still
/// there afterwards, the child ends with status 3 and the attempt is never made.
pub fn without(arena: &Arena, caps: &[Cap]) {
    let mask = caps.iter().fold(0, |mask, cap| mask | cap.mask());
    let sets = capget(arena);
    let fewer = CapSets { effective: sets.effective & !mask, permitted: sets.permitted & !mask, ..sets };
    let ret = if fewer == sets { 0 } else { capset(arena, Abi::X86_64, CAP_VERSION_3, 0, fewer) };
    let now = capget(arena);
    if ret != 0 || (now.effective | now.permitted) & mask != 0 {
        eprintln!("attempt: could not drop capabilities (capset returned {ret}): the attempt is not made");
        // SAFETY: ends this child at once.
        unsafe { libc::_exit(3) }
    }
}

/// Capabilities that open a wall.
const WALLS: &[Cap] =
    &[Cap::SysAdmin, Cap::SysTime, Cap::Syslog, Cap::SysRawio, Cap::DacReadSearch, Cap::SysPtrace];

/// Drops for good, bounding set included, every capability that a wall asks for.
///
/// # Errors
/// If one is still there afterwards.
pub fn bare() -> io::Result<()> {
    let arena = Arena::new()?;
    without(&arena, WALLS);
    if super::elf32::shrink_bounding(capget(&arena).permitted) {
        Ok(())
    } else {
        Err(io::Error::other("the bounding set keeps a capability that was to go"))
    }
}

/// Opens a file for reading and keeps it open; -1 if that fails (the attempt then shows `EBADF`).
pub fn open_fd(path: &str) -> RawFd {
    fs::File::open(path).map(IntoRawFd::into_raw_fd).unwrap_or(-1)
}

/// A name for a file of this child alone, in a directory that every container and guest has.
pub fn temp_name(what: &str) -> String {
    let dir = if fs::metadata("/tmp").is_ok() { "/tmp" } else { "" };
    format!("{dir}/ringfence-attempt-{what}-{}", std::process::id())
}

/// Makes a character device node; a failure shows in the open that follows.
pub fn make_node(path: &str, major: u32, minor: u32) {
    let Ok(c_path) = CString::new(path) else { return };
    // SAFETY: a path that ends in NUL. The node is unlinked by whoever made it.
    unsafe { libc::mknod(c_path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(major, minor)) };
}

/// Whether this process's mounts are not the host's, so that a mount of ours concerns no one else.
pub fn has_own_mounts() -> bool {
    let namespace = |of: &str, kind: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
    // In another pid namespace process 1 is not the host's; but that is a container, which has its own mounts.
    let in_container = namespace("self", "pid").is_some_and(|pid| pid.as_os_str() != FIRST_PID_NAMESPACE);
    in_container || namespace("self", "mnt") != namespace("1", "mnt")
}

/// `PROC_PID_INIT_INO` of the kernel's headers, as links show it.
pub const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Mounts one file over another, in no mount namespace but this one; `false` if that may not be done.
pub fn bind(from: &str, over: &str) -> bool {
    let (Ok(from), Ok(over)) = (CString::new(from), CString::new(over)) else { return false };
    let none = c"none".as_ptr();
    // SAFETY: strings that end in NUL, and no options. The mounts are made private first.
    unsafe {
        libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()) == 0
            && libc::mount(from.as_ptr(), over.as_ptr(), none, libc::MS_BIND, std::ptr::null()) == 0
    }
}

/// Takes a mount away.
pub fn unmount(path: &str) {
    let Ok(path) = CString::new(path) else { return };
    // SAFETY: a string that ends in NUL. What stays goes with the mount namespace.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}
