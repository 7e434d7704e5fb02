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

    /// The position that a page of the ring begins with.
    fn position(&self) -> u64 {
        // SAFETY: aligned and inside (`at`), and written by atomic operations only.
        self.at::<AtomicU64>(0).map_or(0, |word| unsafe { word.as_ref() }.load(Ordering::Acquire))
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

/// Whether the ring's positions can be: the reader's is not beyond the writers', and these are at most the whole ring ahead.
///
/// # Errors
/// The ring's memory cannot be had.
pub fn is_sound(ring: BorrowedFd<'_>, ring_bytes: u32) -> io::Result<bool> {
    let page = rustix::param::page_size();
    let (reader, writers) = (Memory::map(ring, 0, page)?, Memory::map(ring, page, page)?);
    Ok(are_positions(reader.position(), writers.position(), ring_bytes))
}

fn are_positions(reader: u64, writers: u64, ring_bytes: u32) -> bool {
    // Records begin at whole words.
    reader.is_multiple_of(8) && writers.checked_sub(reader).is_some_and(|ahead| ahead <= ring_bytes.into())
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
    let (mut from, to) = (reader.position(), rest.position());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_that_cannot_be_are_noticed() {
        for (reader, writers, sound) in [
            (0, 0, true),
            (8, 4104, true),
            (u64::MAX - 7, u64::MAX - 7, true),
            (16, 8, false),
            (8, 4112, false),
            (4, 8, false),
        ] {
            assert_eq!(are_positions(reader, writers, 4096), sound, "{reader} {writers}");
        }
    }
}
