//! Raw system calls through both tables of an x86 machine, and the memory that both can reach.
//!
//! A 32-bit call takes 32-bit pointers, so everything that a call points to lies in an [`Arena`] below
//! 4 GiB. The structures whose layout differs between the tables are written field by field.

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};

use monitor_common::call::Abi;

use super::elf32;

/// Makes a system call through the table of `abi` and returns what the kernel returned: a negative
/// number is an error.
///
/// # Safety
/// The caller answers for the call's effect and for every pointer among the arguments. For
/// [`Abi::I386`] pointers must lie below 4 GiB.
pub unsafe fn call(abi: Abi, nr: u32, args: [u64; 6]) -> i64 {
    match abi {
        // SAFETY: passed on to our caller.
        Abi::X86_64 => unsafe { call64(u64::from(nr), args) },
        // SAFETY: as above; the bit selects the x32 view of the same table.
        Abi::X32 => unsafe { call64(u64::from(nr | monitor_common::call::X32_SYSCALL_BIT), args) },
        // A process of its own makes the call: what it points to is shared.
        Abi::I386 if let Some(count) = elf32::count() => elf32::call(nr, args, count),
        // SAFETY: as above.
        Abi::I386 => unsafe { call32(nr, args) },
    }
}

/// The `syscall` instruction, without the C library's errno.
unsafe fn call64(nr: u64, args: [u64; 6]) -> i64 {
    let ret;
    // SAFETY: the kernel clobbers rcx and r11 and nothing else; memory effects are our caller's.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") nr => ret,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// The `int 0x80` instruction. Rust keeps rbx for itself, so it is swapped in and out; the sixth
/// argument (ebp) is not passed, no call here has one.
unsafe fn call32(nr: u32, args: [u64; 6]) -> i64 {
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
            in("rdi") args[4] & 0xffff_ffff,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    i64::from(ret as u32 as i32)
}

/// Size of an [`Arena`] in bytes.
const ARENA_SIZE: usize = 64 * 1024;

/// Shared memory below 4 GiB: the arguments of calls, and the place where a child leaves its result.
#[derive(Debug)]
pub struct Arena {
    base: *mut u8,
    fd: c_int,
}

/// Where the result of a child stands, from the arena's start.
const RESULT: usize = 0;
/// Numbers in a result; see [`super::Outcome`].
pub(super) const RESULT_WORDS: usize = 5;
/// Where the request to the 32-bit program stands; see [`elf32`].
pub(super) const REQUEST: usize = 64;
/// Words of 32 bits in a request.
const REQUEST_WORDS: usize = 16;
/// Where arguments begin.
pub(super) const SCRATCH: usize = 4096;

/// The arena of the attempt that this process is making.
static CURRENT: AtomicPtr<Arena> = AtomicPtr::new(std::ptr::null_mut());

impl Arena {
    /// Maps an arena.
    ///
    /// # Errors
    /// The kernel's, if it has no room below 4 GiB.
    pub fn new() -> io::Result<Arena> {
        // A file in memory, so that another program can map it, too.
        // SAFETY: a string that ends in NUL.
        let fd = unsafe { libc::memfd_create(c"arena".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: our own file, and a fresh mapping of it at a place of the kernel's choice.
        let base = unsafe {
            if fd < 0 || libc::ftruncate(fd, ARENA_SIZE as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::mmap(
                std::ptr::null_mut(),
                ARENA_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_32BIT,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Arena { base: base.cast(), fd })
    }

    /// Makes it the one that [`Arena::current`] gives, in a process that keeps it to its end.
    pub(super) fn make_current(&self) {
        CURRENT.store((&raw const *self).cast_mut(), Ordering::Relaxed);
    }

    /// The arena of the attempt that this process is making.
    pub(super) fn current() -> Option<&'static Arena> {
        // SAFETY: only `make_current` sets it, and who calls that keeps the arena.
        unsafe { CURRENT.load(Ordering::Relaxed).as_ref() }
    }

    /// The file behind it.
    pub(super) fn fd(&self) -> c_int {
        self.fd
    }

    /// Leaves a request for the 32-bit program, behind the arena's own place and size.
    pub(super) fn put_request(&self, words: &[u32; REQUEST_WORDS - 2]) {
        for (i, word) in [self.base as u32, ARENA_SIZE as u32].iter().chain(words).enumerate() {
            // SAFETY: the first page holds nothing else here; the address is aligned to 4.
            unsafe { self.base.add(REQUEST + 4 * i).cast::<u32>().write_volatile(*word) };
        }
    }

    /// The request with what the program has added.
    pub(super) fn request(&self) -> [u32; REQUEST_WORDS] {
        // SAFETY: as in `put_request`.
        std::array::from_fn(|i| unsafe { self.base.add(REQUEST + 4 * i).cast::<u32>().read_volatile() })
    }

    /// Copies `bytes` to `offset` of the scratch part and gives their address.
    ///
    /// # Panics
    /// If they do not fit: a mistake in the table of attempts.
    pub fn put(&self, offset: usize, bytes: &[u8]) -> u64 {
        let start = SCRATCH + offset;
        assert!(start + bytes.len() <= ARENA_SIZE, "arguments beyond the arena");
        // SAFETY: the range lies in our mapping (asserted), which nothing else refers to.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(start), bytes.len());
            self.base.add(start) as u64
        }
    }

    /// Copies a path, with the NUL that ends it.
    pub fn put_path(&self, offset: usize, path: &str) -> u64 {
        self.put(offset, &[path.as_bytes(), &[0]].concat())
    }

    /// Copies little-endian words of 32 bits.
    pub fn put_u32s(&self, offset: usize, words: &[u32]) -> u64 {
        self.put(offset, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Copies little-endian words of 64 bits.
    pub fn put_u64s(&self, offset: usize, words: &[u64]) -> u64 {
        self.put(offset, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Copies a number in the native word of the ABI, such as the members of a `timespec`.
    pub fn put_longs(&self, offset: usize, abi: Abi, words: &[i64]) -> u64 {
        match abi {
            Abi::I386 => self.put_u32s(offset, &words.iter().map(|word| *word as u32).collect::<Vec<u32>>()),
            Abi::X86_64 | Abi::X32 => {
                self.put_u64s(offset, &words.iter().map(|word| *word as u64).collect::<Vec<u64>>())
            }
        }
    }

    /// Reads bytes back, as the kernel left them.
    ///
    /// # Panics
    /// As [`Arena::put`].
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let start = SCRATCH + offset;
        assert!(start + len <= ARENA_SIZE, "read beyond the arena");
        let mut bytes = vec![0; len];
        // SAFETY: the range lies in our mapping (asserted).
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(start), bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Leaves a child's result for the parent.
    pub fn leave_result(&self, words: [i64; RESULT_WORDS]) {
        for (i, word) in words.iter().enumerate() {
            // SAFETY: the first page holds nothing else; the address is aligned to 8.
            unsafe { self.base.add(RESULT + 8 * i).cast::<i64>().write_volatile(*word) };
        }
    }

    /// What the last child left.
    pub fn result(&self) -> [i64; RESULT_WORDS] {
        // SAFETY: as in `leave_result`.
        std::array::from_fn(|i| unsafe { self.base.add(RESULT + 8 * i).cast::<i64>().read_volatile() })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with no reference into it left, and our own file.
        unsafe {
            libc::munmap(self.base.cast(), ARENA_SIZE);
            libc::close(self.fd);
        }
    }
}

/// Whether the kernel knows x32: it may be built without, or with it switched off.
pub fn has_x32() -> bool {
    // SAFETY: a plain question.
    unsafe { call(Abi::X32, libc::SYS_getppid as u32, [0; 6]) >= 0 }
}

/// Nanoseconds since boot, suspend included.
pub fn boot_ns() -> u64 {
    clock_ns(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds of a clock.
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; reading a clock changes nothing.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
