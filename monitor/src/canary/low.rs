//! What the canaries' calls point to: one page that 32-bit calls can reach too; and the calls themselves.

use std::io;
use std::os::fd::RawFd;

use monitor_common::call::Abi;

/// One page below 4 GiB, shared with children.
#[derive(Debug)]
pub(super) struct LowPage {
    base: *mut u8,
}

// SAFETY: plain memory; whoever has the page is its only user at that time.
unsafe impl Send for LowPage {}

const SIZE: usize = 4096;

/// Where things lie in the page.
pub(super) mod at {
    /// `struct __user_cap_header_struct`, version 3, for the caller itself.
    pub(crate) const CAP_HEADER: usize = 0x000;
    /// `struct __user_cap_data_struct[2]`: no capabilities at all.
    pub(crate) const CAP_DATA: usize = 0x010;
    /// `struct clone_args` with flags that exclude each other.
    pub(crate) const CLONE_ARGS: usize = 0x040;
    /// `struct timeval` with microseconds that no second has, for the 64-bit table.
    pub(crate) const TIMEVAL: usize = 0x0a0;
    /// The same with 32-bit members.
    pub(crate) const TIMEVAL32: usize = 0x0b0;
    /// `struct timex` of any table: `modes` that exclude each other, all else zero.
    pub(crate) const TIMEX: usize = 0x100;
    /// Path of the file to open.
    pub(crate) const PATH: usize = 0x300;
    /// `struct open_how`.
    pub(crate) const OPEN_HOW: usize = 0x380;
    /// `struct file_handle` of a file that does not exist.
    pub(crate) const HANDLE: usize = 0x3c0;
    /// What a child leaves for its parent.
    pub(crate) const NOTES: usize = 0x800;
}

/// Flags of the opens: nothing is read, and nobody is waited for.
pub(super) const OPEN_FLAGS: u64 = (libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC) as u64;
/// New mount namespace and shared working directory: `copy_process` refuses the two together before anything else.
pub(super) const CLONE_FLAGS: u64 = (libc::CLONE_NEWNS | libc::CLONE_FS) as u64;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;
/// `ADJ_ADJTIME` without `ADJ_OFFSET_SINGLESHOT` is refused before anything else (`timekeeping_validate_timex`);
/// `ADJ_FREQUENCY` makes it an attempt to change something.
const ADJ_MODES: u32 = 0x8002;
/// More than a million: refused before anything else.
const IMPOSSIBLE_USEC: u32 = 2_000_000_000;

impl LowPage {
    /// Maps the page.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { base: base.cast() })
        }
    }

    /// Address of a place in the page.
    pub(super) fn at(&self, offset: usize) -> u64 {
        self.base as u64 + offset as u64
    }

    /// Lays out all that the calls point to. The file to open is given as a descriptor, so that no name counts.
    pub(super) fn fill(&self, file: RawFd) {
        self.clear();
        self.put(at::CAP_HEADER, &CAP_VERSION.to_ne_bytes());
        self.put(at::CLONE_ARGS, &CLONE_FLAGS.to_ne_bytes());
        self.put(at::CLONE_ARGS + 32, &(libc::SIGCHLD as u64).to_ne_bytes());
        self.put(at::TIMEVAL + 8, &u64::from(IMPOSSIBLE_USEC).to_ne_bytes());
        self.put(at::TIMEVAL32 + 4, &IMPOSSIBLE_USEC.to_ne_bytes());
        self.put(at::TIMEX, &ADJ_MODES.to_ne_bytes());
        self.put(at::PATH, format!("/proc/self/fd/{file}").as_bytes());
        self.put(at::OPEN_HOW, &OPEN_FLAGS.to_ne_bytes());
        // Eight bytes of a handle of type 1 (FILEID_INO32_GEN): inode 0.
        self.put(at::HANDLE, &[8, 0, 0, 0, 1, 0, 0, 0]);
    }

    fn clear(&self) {
        // SAFETY: the part of our mapping before the notes, to which no reference exists.
        unsafe { std::ptr::write_bytes(self.base, 0, at::NOTES) };
    }

    fn put(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= at::NOTES, "arguments beyond their part of the page");
        // SAFETY: the range lies in our mapping (asserted), to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) };
    }

    /// Leaves a number for the parent.
    pub(super) fn note(&self, position: usize, value: i64) {
        let offset = at::NOTES + position * size_of::<i64>();
        assert!(offset + size_of::<i64>() <= SIZE, "notes beyond the page");
        // SAFETY: aligned, and in our mapping (asserted). The other process reads it when this one has ended.
        unsafe { self.base.add(offset).cast::<i64>().write_volatile(value) };
    }

    /// A number that a child left.
    pub(super) fn noted(&self, position: usize) -> i64 {
        let offset = at::NOTES + position * size_of::<i64>();
        assert!(offset + size_of::<i64>() <= SIZE, "notes beyond the page");
        // SAFETY: as in `note`.
        unsafe { self.base.add(offset).cast::<i64>().read_volatile() }
    }
}

impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with no reference into it left.
        unsafe { libc::munmap(self.base.cast(), SIZE) };
    }
}

/// Makes a call through a table and returns what the kernel returned: a negative number is an error.
///
/// # Safety
/// The caller answers for the call's effect and for every pointer among the arguments.
pub(super) unsafe fn call(abi: Abi, nr: u32, args: [u64; 4]) -> i64 {
    match abi {
        // SAFETY: passed on to our caller.
        Abi::X86_64 | Abi::X32 => unsafe { call64(nr, args) },
        // SAFETY: as above.
        Abi::I386 => unsafe { call32(nr, args) },
    }
}

/// The `syscall` instruction, without the C library's errno.
unsafe fn call64(nr: u32, args: [u64; 4]) -> i64 {
    let ret;
    // SAFETY: the kernel clobbers rcx and r11 and nothing else; memory effects are our caller's.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") u64::from(nr) => ret,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") 0_u64,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// The `int 0x80` instruction. Rust keeps rbx for itself, so it is swapped in and out.
unsafe fn call32(nr: u32, args: [u64; 4]) -> i64 {
    let ret: u64;
    // SAFETY: rbx is restored; the kernel may clear r8 to r11 on this path; memory effects are our caller's.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) args[0] & 0xffff_ffff => _,
            inlateout("rax") u64::from(nr) => ret,
            in("rcx") args[1] & 0xffff_ffff,
            in("rdx") args[2] & 0xffff_ffff,
            in("rsi") args[3] & 0xffff_ffff,
            in("rdi") 0_u64,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    i64::from(ret as u32 as i32)
}
