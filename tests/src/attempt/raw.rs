//! Raw system calls through both tables of an x86 machine, and the memory that both can reach.
//!
//! A 32-bit call takes 32-bit pointers, so everything that a call points to lies in an [`Arena`] below
//! 4 GiB. The structures whose layout differs between the tables are written field by field.

use std::io;

use monitor_common::call::Abi;

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
}

/// Where the result of a child stands, from the arena's start.
const RESULT: usize = 0;
/// Where arguments begin.
const SCRATCH: usize = 4096;

impl Arena {
    /// Maps an arena.
    ///
    /// # Errors
    /// The kernel's, if it has no room below 4 GiB.
    pub fn new() -> io::Result<Arena> {
        // SAFETY: a fresh anonymous mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ARENA_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Arena { base: base.cast() })
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
    pub fn leave_result(&self, words: [i64; 4]) {
        for (i, word) in words.iter().enumerate() {
            // SAFETY: the first page holds nothing else; the address is aligned to 8.
            unsafe { self.base.add(RESULT + 8 * i).cast::<i64>().write_volatile(*word) };
        }
    }

    /// What the last child left.
    pub fn result(&self) -> [i64; 4] {
        // SAFETY: as in `leave_result`.
        std::array::from_fn(|i| unsafe { self.base.add(RESULT + 8 * i).cast::<i64>().read_volatile() })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with no reference into it left.
        unsafe { libc::munmap(self.base.cast(), ARENA_SIZE) };
    }
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
