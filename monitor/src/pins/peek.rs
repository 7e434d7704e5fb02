//! Looks at the records that wait in a ring, and leaves them there.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT` and `BPF_RINGBUF_HDR_SZ` (include/uapi/linux/bpf.h).
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;

/// A ring's memory, to be read.
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn map(ring: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at a place of the kernel's choice, which nobody can write through.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                offset as i64,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Memory { base, len })
    }

    /// The place of something of this size and alignment, if it lies inside.
    fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        // SAFETY: inside the mapping, as is checked first.
        let place = (end <= self.len).then(|| unsafe { self.base.add(offset) })?.cast::<T>();
        place.is_aligned().then_some(place)
    }

    /// Bytes that the kernel has finished.
    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(len)?;
        // SAFETY: inside the mapping, as is checked first; the kernel writes to a finished record no more, and to the place
        // of one only when it was taken out of the ring, which nobody does now.
        (end <= self.len).then(|| unsafe { std::slice::from_raw_parts(self.base.add(offset).as_ptr(), len) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with no reference into it left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Shows the records that wait in a ring of so many bytes, in their order. Nobody may take records out meanwhile.
///
/// # Errors
/// The ring's memory cannot be had.
pub fn peek(ring: BorrowedFd<'_>, ring_bytes: u32, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let page = rustix::param::page_size();
    let size = ring_bytes as usize;
    // The reader's position; then the writers', and behind it the data twice, so that no record is torn (`bpf_ringbuf`).
    let reader = Memory::map(ring, 0, page)?;
    let rest = Memory::map(ring, page, page + 2 * size)?;
    let position = |memory: &Memory| {
        // SAFETY: aligned and inside (`at`), and written by atomic operations only.
        memory.at::<AtomicU64>(0).map_or(0, |word| unsafe { word.as_ref() }.load(Ordering::Acquire))
    };
    let (mut from, to) = (position(&reader), position(&rest));
    while from < to && to - from <= u64::from(ring_bytes) {
        let place = page + (from as usize & size.wrapping_sub(1));
        // SAFETY: as above; the kernel finishes a record by an exchange of this word.
        let Some(header) = rest.at::<AtomicU32>(place).map(|word| unsafe { word.as_ref() }) else { break };
        let header = header.load(Ordering::Acquire);
        if header & BUSY != 0 {
            break;
        }
        let len = header & !DISCARDED;
        if header & DISCARDED == 0 {
            let Some(record) = rest.bytes(place + HEADER as usize, len as usize) else { break };
            look(record);
        }
        from += (u64::from(len) + HEADER).next_multiple_of(8);
    }
    Ok(())
}
