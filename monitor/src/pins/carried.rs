//! What one process leaves to the next, in a map of the kernel's that both have mapped: it is there however the process
//! ended, and gone when the pins are.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, IterableMap as _, MapData};
use monitor_common::control::{COUNTER_SLOTS, Counter};
use monitor_common::wire::KIND_SLOTS;

/// `BPF_F_MMAPABLE` (since 5.5).
const MMAPABLE: u32 = 1 << 10;
/// Words of the map.
const WORDS: usize = 8192;
const BYTES: usize = WORDS * 8;
/// What the first word holds: the version of what follows.
const MAGIC: u64 = u64::from_le_bytes(*b"ringf-01");

/// Places of words.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const STARTS: usize = 1;
    pub(super) const LOSSES_TOLD: usize = 2;
    pub(super) const SKIPPED_TOLD: usize = 3;
    pub(super) const TEXT_LEN: usize = 4;
    pub(super) const SPOILT: usize = 5;
    pub(super) const HANDED_OVER: usize = 6;
    pub(super) const REPLACED: usize = 7;
    pub(super) const BLINDNESS: usize = 8;
    pub(super) const RECEIVED: usize = 32;
    pub(super) const BASE: usize = 64;
    pub(super) const GONE: usize = 256;
    pub(super) const TEXT: usize = 512;
}

const _: () = assert!(KIND_SLOTS <= at::BASE - at::RECEIVED && 4 * COUNTER_SLOTS <= at::GONE - at::BASE);
const _: () = assert!(COUNTER_SLOTS <= at::TEXT - at::GONE);

/// Causes of blindness, at most.
const CAUSES: usize = at::RECEIVED - at::BLINDNESS;

/// The map, mapped.
pub struct Carried {
    memory: NonNull<AtomicU64>,
    fd: OwnedFd,
}

// SAFETY: the memory is shared with the kernel and is touched by atomic operations only.
unsafe impl Send for Carried {}
// SAFETY: as above.
unsafe impl Sync for Carried {}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").finish_non_exhaustive()
    }
}

impl Carried {
    /// Makes the map; everything is 0, but for the text.
    ///
    /// # Errors
    /// What the kernel said; or the text is too long.
    pub fn make(text: &str) -> io::Result<Self> {
        let map = Array::<MapData, [u64; WORDS]>::create(1, MMAPABLE).map_err(io::Error::other)?;
        let carried = Self::map(map.map().fd().as_fd().try_clone_to_owned()?)?;
        carried.word(at::MAGIC).store(MAGIC, Ordering::Relaxed);
        carried.set_text(text)?;
        Ok(carried)
    }

    /// Takes over what another process made.
    ///
    /// # Errors
    /// It is something else, or of another version.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let other = || io::Error::other("it is of another version, or no map of Ringfence's");
        let data = MapData::from_fd(fd.try_clone()?).map_err(io::Error::other)?;
        let info = data.info().map_err(io::Error::other)?;
        if info.value_size() as usize != BYTES || info.max_entries() != 1 {
            return Err(other());
        }
        let carried = Self::map(fd)?;
        if carried.word(at::MAGIC).load(Ordering::Relaxed) == MAGIC { Ok(carried) } else { Err(other()) }
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Carried { memory, fd })
    }

    /// The map's descriptor, to pin it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is so long, page aligned, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), WORDS) }
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        &self.words()[place]
    }

    fn set_text(&self, text: &str) -> io::Result<()> {
        let chunks = text.as_bytes().chunks(8);
        if at::TEXT + chunks.len() > WORDS {
            return Err(io::Error::other("what is left to the next process is too long"));
        }
        for (word, chunk) in self.words()[at::TEXT..].iter().zip(chunks) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.word(at::TEXT_LEN).store(text.len() as u64, Ordering::Release);
        Ok(())
    }

    /// What was given when the map was made; what was damaged since shows in it.
    pub fn text(&self) -> String {
        let len = self.word(at::TEXT_LEN).load(Ordering::Acquire) as usize;
        let words = self.words()[at::TEXT..].iter();
        let mut bytes: Vec<u8> =
            words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).take(len).collect();
        bytes.truncate(len);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Counts a start, and gives how many there were before.
    pub fn started(&self) -> u64 {
        self.word(at::STARTS).fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a record of this kind that came out of the ring.
    pub fn received(&self, kind: u16) {
        if usize::from(kind) < KIND_SLOTS {
            self.word(at::RECEIVED + usize::from(kind)).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that came out of the ring so far, by kind.
    pub fn all_received(&self) -> [u64; KIND_SLOTS] {
        std::array::from_fn(|kind| self.word(at::RECEIVED + kind).load(Ordering::Relaxed))
    }

    /// Goes on counting from these.
    pub fn set_received(&self, received: [u64; KIND_SLOTS]) {
        for (kind, count) in received.into_iter().enumerate() {
            self.word(at::RECEIVED + kind).store(count, Ordering::Relaxed);
        }
    }

    /// Counts blindness for the cause of this number; a start anew may be what ends it.
    pub fn add_blindness(&self, cause: usize) {
        if cause < CAUSES {
            self.word(at::BLINDNESS + cause).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was blind so far, by the number of the cause; 0 for one that there is not.
    pub fn blindness(&self, cause: usize) -> u64 {
        if cause < CAUSES { self.word(at::BLINDNESS + cause).load(Ordering::Relaxed) } else { 0 }
    }

    /// Goes on counting from what another counted.
    pub fn take_blindness(&self, of: &Carried) {
        for cause in 0..CAUSES {
            self.word(at::BLINDNESS + cause).store(of.blindness(cause), Ordering::Relaxed);
        }
    }

    /// What is to be added to the kernel's counters of a slot, because they began anew: a number that may be below 0,
    /// wrapped.
    pub fn base(&self, slot: usize) -> Counter {
        let member = |member| self.word(at::BASE + 4 * slot + member).load(Ordering::Relaxed);
        if slot >= COUNTER_SLOTS {
            return Counter::default();
        }
        Counter { seen: member(0), sent: member(1), lost: member(2), unattributed: member(3) }
    }

    /// Sets what is to be added.
    pub fn set_base(&self, slot: usize, base: Counter) {
        if slot >= COUNTER_SLOTS {
            return;
        }
        for (member, value) in [base.seen, base.sent, base.lost, base.unattributed].into_iter().enumerate() {
            self.word(at::BASE + 4 * slot + member).store(value, Ordering::Relaxed);
        }
    }

    /// Whether programs and maps were of use when somebody last looked: the programs saw, and the ring was read.
    pub fn is_spoilt(&self) -> bool {
        self.word(at::SPOILT).load(Ordering::Relaxed) != 0
    }

    /// Notes that they are, or are not.
    pub fn set_spoilt(&self, spoilt: bool) {
        self.word(at::SPOILT).store(spoilt.into(), Ordering::Relaxed);
    }

    /// Lost records of a slot whose cgroups are gone and have no entry any more.
    pub fn gone(&self, slot: usize) -> u64 {
        if slot < COUNTER_SLOTS { self.word(at::GONE + slot).load(Ordering::Relaxed) } else { 0 }
    }

    /// Adds to these.
    pub fn add_gone(&self, slot: usize, lost: u64) {
        if slot < COUNTER_SLOTS {
            self.word(at::GONE + slot).fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// How often programs were replaced before these: what the last ones counted since somebody read their tables is
    /// missing.
    pub fn replaced(&self) -> u64 {
        self.word(at::REPLACED).load(Ordering::Relaxed)
    }

    /// Goes on counting from this.
    pub fn set_replaced(&self, times: u64) {
        self.word(at::REPLACED).store(times, Ordering::Relaxed);
    }

    /// Whether what waited in the ring, and what was counted, went to programs that replaced these.
    pub fn is_handed_over(&self) -> bool {
        self.word(at::HANDED_OVER).load(Ordering::Relaxed) != 0
    }

    /// Notes that it did.
    pub fn hand_over(&self) {
        self.word(at::HANDED_OVER).store(1, Ordering::Relaxed);
    }

    /// Lost records, and skipped runs of probes, of which the log has told.
    pub fn told(&self) -> (u64, u64) {
        let word = |place| self.word(place).load(Ordering::Relaxed);
        (word(at::LOSSES_TOLD), word(at::SKIPPED_TOLD))
    }

    /// Notes what the log has told of.
    pub fn tell(&self, lost: u64, skipped: u64) {
        self.word(at::LOSSES_TOLD).store(lost, Ordering::Relaxed);
        self.word(at::SKIPPED_TOLD).store(skipped, Ordering::Relaxed);
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // SAFETY: our own mapping, with no reference into it left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}
