//! The two calls by which an object of the kernel's gets a name in a BPF file system, and is had again by it.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
const PIN: libc::c_long = 6;
const GET: libc::c_long = 7;

/// The beginning of `union bpf_attr` for both commands.
#[repr(C)]
struct Attr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn call(command: libc::c_long, path: &Path, fd: u32) -> io::Result<libc::c_long> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = Attr { pathname: path.as_ptr() as u64, bpf_fd: fd, file_flags: 0 };
    // SAFETY: a structure of the size given, and a string that ends with NUL; both live until the call returns.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Gives the object behind a descriptor this name.
///
/// # Errors
/// What the kernel said; `EEXIST` if the name is taken.
pub(super) fn pin(object: u32, path: &Path) -> io::Result<()> {
    call(PIN, path, object).map(drop)
}

/// A descriptor for the object of this name; it is closed on exec.
///
/// # Errors
/// What the kernel said.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let fd = call(GET, path, 0)?;
    // SAFETY: a descriptor that the kernel has just made for us, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
