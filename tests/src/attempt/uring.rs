//! An open by io_uring: the kernel does it, no call of the open family is made.

use std::sync::atomic::{AtomicU32, Ordering};

use monitor_common::call::Abi;

use super::raw::{Arena, call};

/// Numbers in every table (include/uapi/asm-generic/unistd.h).
const SETUP: u32 = 425;
const ENTER: u32 = 426;
/// `IORING_OP_OPENAT` (since 5.6).
const OP_OPENAT: u8 = 18;
/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u64 = 1;
/// Where the ring's parts are mapped from (`IORING_OFF_*`).
const OFF_SQ_RING: i64 = 0;
const OFF_CQ_RING: i64 = 0x800_0000;
const OFF_SQES: i64 = 0x1000_0000;
const PAGE: usize = 4096;
/// `struct io_uring_params`: 10 words, then the offsets of both rings, 10 words each.
const PARAMS_WORDS: usize = 30;

/// Opens a path for reading and returns the new descriptor or the error, as the completion has it.
pub(super) fn openat(arena: &Arena, abi: Abi, path: &str) -> i64 {
    let path = arena.put_path(0, path);
    let params = arena.put_u32s(512, &[0; PARAMS_WORDS]);
    // SAFETY: the kernel reads and writes the parameters, which stand in the arena.
    let ring = unsafe { call(Abi::X86_64, SETUP, [1, params, 0, 0, 0, 0]) };
    if ring < 0 {
        return ring;
    }
    let bytes = arena.bytes(512, 4 * PARAMS_WORDS);
    let word = |i: usize| {
        u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]) as usize
    };
    // sq_off: head, tail, ring_mask, ring_entries, flags, dropped, array; cq_off: head, tail, mask, entries, overflow, cqes.
    let (sq_tail, sq_array, cq_cqes) = (word(11), word(16), word(25));
    let map = |offset: i64| {
        // SAFETY: fresh mappings of the ring; for one entry each part fits a page.
        unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                ring as i32,
                offset,
            )
        }
    };
    let (sq, cq, sqes) = (map(OFF_SQ_RING), map(OFF_CQ_RING), map(OFF_SQES));
    if [sq, cq, sqes].contains(&libc::MAP_FAILED) {
        return -i64::from(libc::ENOMEM);
    }
    let flags = (libc::O_RDONLY | libc::O_NONBLOCK) as u32;
    // SAFETY: all offsets are those that the kernel gave, inside the mapped pages; the entry is 64 bytes long.
    // struct io_uring_sqe: opcode at 0, fd at 4, addr at 16, open_flags at 28.
    unsafe {
        let entry = sqes.cast::<u8>();
        entry.write_bytes(0, 64);
        entry.write(OP_OPENAT);
        entry.add(4).cast::<i32>().write(libc::AT_FDCWD);
        entry.add(16).cast::<u64>().write(path);
        entry.add(28).cast::<u32>().write(flags);
        sq.byte_add(sq_array).cast::<u32>().write(0);
        AtomicU32::from_ptr(sq.byte_add(sq_tail).cast()).store(1, Ordering::Release);
    }
    // SAFETY: numbers; what the entry points to stands in the arena.
    let entered = unsafe { call(abi, ENTER, [ring as u64, 1, 1, GETEVENTS, 0, 0]) };
    if entered < 0 {
        return entered;
    }
    // SAFETY: the first completion: user_data (8 bytes), then the result; the kernel has written it.
    let result = unsafe { cq.byte_add(cq_cqes + 8).cast::<i32>().read_volatile() };
    // SAFETY: our own ring and mappings.
    unsafe {
        for part in [sq, cq, sqes] {
            libc::munmap(part, PAGE);
        }
        libc::close(ring as i32);
    }
    i64::from(result)
}
