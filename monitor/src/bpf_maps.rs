//! How full the kernel's maps and the ring are, and how much memory maps take.
//!
//! The kernel keeps no number of a hash map's entries, so they are counted key by key: a few milliseconds for a full one.
//! Whoever asks for metrics again and again gets the last count.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::attach::MapFile;
use crate::bpf_files::memory_of;
use crate::metrics::{
    BPF_MAP_MEMORY, LateSource, MAP_CAPACITY, MAP_ENTRIES, MetricSpec, RING_USED, Samples, Source,
};

/// The hash maps, whose entries come and go, and their names as values of the label `map`.
const COUNTED: [(&str, &str); 6] = [
    ("LOST", "lost"),
    ("MARKS", "marks"),
    ("TASKS", "tasks"),
    ("CAP_LEDGER", "cap_ledger"),
    ("CAP_TOLD", "cap_told"),
    ("SYSCALL_SETS", "syscall_sets"),
];
/// The ring.
const RING: &str = "EVENTS";
/// Keys are at most so long; [`monitor_common::capability::CapKey`] has the longest.
const MOST_KEY_BYTES: usize = 64;
/// How long a count stands for the next one.
const COUNT_STANDS: Duration = Duration::from_secs(30);

/// The maps of the programs.
#[derive(Debug)]
pub struct BpfMaps {
    files: Vec<MapFile>,
    ring: Option<RingPositions>,
    /// When entries were last counted, and how many of each of [`COUNTED`].
    counts: Mutex<Option<(Instant, [u64; COUNTED.len()])>>,
}

impl BpfMaps {
    /// Looks at these maps.
    pub fn new(files: Vec<MapFile>) -> Self {
        let ring = files.iter().find(|file| file.name == RING);
        let ring = ring.and_then(|file| {
            RingPositions::map(&file.fd)
                .inspect_err(|error| tracing::warn!(%error, "how full the ring is cannot be read"))
                .ok()
        });
        BpfMaps { files, ring, counts: Mutex::default() }
    }

    fn file(&self, name: &str) -> Option<&MapFile> {
        self.files.iter().find(|file| file.name == name)
    }

    fn counts(&self) -> [u64; COUNTED.len()] {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match *counts {
            Some((at, known)) if at.elapsed() < COUNT_STANDS => known,
            _ => {
                let now = COUNTED.map(|(name, _)| self.file(name).map_or(0, entries));
                *counts = Some((Instant::now(), now));
                now
            }
        }
    }
}

impl Source for BpfMaps {
    fn specs(&self) -> Vec<&'static MetricSpec> {
        Self::specs_before()
    }

    fn sample(&self, out: &mut Samples) {
        for ((name, label), count) in COUNTED.iter().zip(self.counts()) {
            out.push(&MAP_ENTRIES, &[label], count);
            out.push(&MAP_CAPACITY, &[label], self.file(name).map_or(0, |file| file.max_entries.into()));
        }
        out.push(&RING_USED, &[], self.ring.as_ref().map_or(0, RingPositions::used));
        let memory = self.files.iter().filter_map(|file| memory_of(file.fd.as_raw_fd()));
        out.push(&BPF_MAP_MEMORY, &[], memory.sum());
    }
}

impl LateSource for BpfMaps {
    fn specs_before() -> Vec<&'static MetricSpec> {
        vec![&MAP_ENTRIES, &MAP_CAPACITY, &RING_USED, &BPF_MAP_MEMORY]
    }

    fn sample_before(out: &mut Samples) {
        for (_, label) in COUNTED {
            out.push(&MAP_ENTRIES, &[label], 0);
            out.push(&MAP_CAPACITY, &[label], 0);
        }
        out.push(&RING_USED, &[], 0);
        out.push(&BPF_MAP_MEMORY, &[], 0);
    }
}

/// Counts the entries of a hash map: no more than it has room for, because one whose keys come and go while it is
/// walked may begin anew.
fn entries(file: &MapFile) -> u64 {
    if file.key_size as usize > MOST_KEY_BYTES {
        return 0;
    }
    let (mut key, mut next) = ([0; MOST_KEY_BYTES], [0; MOST_KEY_BYTES]);
    let mut count = 0;
    while count < u64::from(file.max_entries)
        && next_key(&file.fd, (count > 0).then_some(&key), &mut next).is_ok()
    {
        count += 1;
        std::mem::swap(&mut key, &mut next);
    }
    count
}

/// The key behind `key`, or the first one (`BPF_MAP_GET_NEXT_KEY`).
fn next_key(
    map: &OwnedFd,
    key: Option<&[u8; MOST_KEY_BYTES]>,
    next: &mut [u8; MOST_KEY_BYTES],
) -> io::Result<()> {
    /// `BPF_MAP_GET_NEXT_KEY`.
    const GET_NEXT_KEY: libc::c_long = 4;
    /// The beginning of `union bpf_attr` for that command.
    #[repr(C)]
    struct Attr {
        map_fd: u64,
        key: u64,
        next_key: u64,
    }
    let key = key.map_or(0, |key| key.as_ptr() as u64);
    let attr = Attr { map_fd: map.as_raw_fd() as u64, key, next_key: next.as_mut_ptr() as u64 };
    // SAFETY: a structure of the size given; the kernel reads and writes as many bytes as the map's keys have, which
    // the callers found to fit into the arrays.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, GET_NEXT_KEY, &raw const attr, size_of::<Attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The pages in which the kernel keeps how far the ring was written and read, mapped for reading
/// (`bpf_ringbuf_mmap`, since 5.8).
struct RingPositions {
    pages: NonNull<u8>,
    page: usize,
}

// SAFETY: the pages are only read, by atomic loads.
unsafe impl Send for RingPositions {}
// SAFETY: as above.
unsafe impl Sync for RingPositions {}

impl fmt::Debug for RingPositions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingPositions").field("used", &self.used()).finish()
    }
}

impl RingPositions {
    fn map(ring: &OwnedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at a place of the kernel's choice, of two pages that each ring has before its data.
        let pages = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * page, libc::PROT_READ, libc::MAP_SHARED, ring.as_raw_fd(), 0)
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = NonNull::new(pages.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(RingPositions { pages, page })
    }

    /// Bytes that were written and not read.
    fn used(&self) -> u64 {
        let position = |offset| {
            // SAFETY: the first word of each of the two mapped pages, aligned as pages are; others only write it whole.
            let word = unsafe { self.pages.add(offset).cast::<AtomicU64>().as_ref() };
            word.load(Ordering::Acquire)
        };
        // In this order: what was read had been written.
        let read = position(0);
        position(self.page).saturating_sub(read)
    }
}

impl Drop for RingPositions {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more. A failure leaves it mapped.
        let _ = unsafe { libc::munmap(self.pages.as_ptr().cast(), 2 * self.page) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_no_map_has_no_entries() {
        let fd: OwnedFd = File::open("/dev/null").unwrap().into();
        let file = MapFile { name: "LOST".to_owned(), fd, key_size: 16, max_entries: 8 };
        assert_eq!(entries(&file), 0);
        let maps = BpfMaps::new(vec![file]);
        assert_eq!(maps.counts(), [0; COUNTED.len()]);
    }

    #[test]
    fn longer_keys_than_there_is_room_for_are_not_asked_for() {
        let fd: OwnedFd = File::open("/dev/null").unwrap().into();
        let key_size = MOST_KEY_BYTES as u32 + 1;
        assert_eq!(entries(&MapFile { name: String::new(), fd, key_size, max_entries: 8 }), 0);
        assert!(size_of::<monitor_common::capability::CapKey>() <= MOST_KEY_BYTES);
    }

    #[test]
    fn positions_are_read_from_the_first_two_pages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let page = rustix::param::page_size();
        let mut bytes = vec![0; 2 * page];
        bytes[..8].copy_from_slice(&1000u64.to_ne_bytes());
        bytes[page..page + 8].copy_from_slice(&1640u64.to_ne_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let fd: OwnedFd = File::open(&path).unwrap().into();
        assert_eq!(RingPositions::map(&fd).unwrap().used(), 640);
    }
}
