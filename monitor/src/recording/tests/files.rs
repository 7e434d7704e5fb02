//! Recordings on disk: appending, the ring, and a disk that refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

fn read_file(path: &Path) -> (Vec<Recorded>, Vec<Damage>, Tally) {
    read(&fs::read(path).unwrap())
}

#[test]
fn a_file_is_gone_on_with_behind_its_last_good_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rfrec");
    let events = few(6);
    let mut file = RecordingFile::open(&path).unwrap();
    assert!(file.is_empty());
    assert!(matches!(RecordingFile::open(&path), Err(RecordingError::InUse { .. })));
    file.append(&block_of(&events[..2], 0)).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    // Whatever a crash leaves of the next block, and of the head of a new file.
    let torn = block_of(&events[2..4], 0);
    let good = fs::read(&path).unwrap();
    for len in 0..torn.len() {
        fs::write(&path, [&good, &torn[..len]].concat()).unwrap();
        let mut file = RecordingFile::open(&path).unwrap();
        assert_eq!((file.events_before, file.cut), (2, len as u64), "torn after {len}");
        file.append(&block_of(&events[4..], 0)).unwrap();
        let (read, damages, _) = read_file(&path);
        assert_eq!((read, damages.len()), ([&events[..2], &events[4..]].concat(), 0), "torn after {len}");
    }
    for len in 0..FILE_HEAD {
        fs::write(&path, &good[..len]).unwrap();
        RecordingFile::open(&path).unwrap().append(&block_of(&events[..2], 0)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    // Damage in the middle stays: good blocks are behind it.
    let mut damaged = good.clone();
    damaged[FILE_HEAD + HEAD] ^= 1;
    damaged.extend(&torn);
    fs::write(&path, &damaged).unwrap();
    RecordingFile::open(&path).unwrap().append(&block_of(&events[4..], 0)).unwrap();
    let (read, damages, _) = read_file(&path);
    assert_eq!((read, damages.len()), (events[2..].to_vec(), 1));
}

#[test]
fn what_is_none_of_ours_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("notes"), "mine").unwrap();
    assert!(matches!(RecordingFile::open(&path("notes")), Err(RecordingError::Foreign { .. })));
    assert_eq!(fs::read(path("notes")).unwrap(), b"mine");
    fs::write(path("real.rfrec"), file_head()).unwrap();
    symlink(path("real.rfrec"), path("link.rfrec")).unwrap();
    assert!(matches!(RecordingFile::open(&path("link.rfrec")), Err(RecordingError::SymbolicLink { .. })));
    assert!(matches!(RecordingFile::open(dir.path()), Err(RecordingError::NotAFile { .. })));
    let error = RecordingFile::open(&path("no/such/place")).unwrap_err().to_string();
    assert!(error.contains("no/such/place") && error.contains("check"), "{error}");
    fs::create_dir(path("ring")).unwrap();
    symlink(path("ring"), path("linked")).unwrap();
    let bytes = *RING_BYTES.start();
    let refused = Ring::open(&path("linked"), bytes);
    assert!(matches!(refused, Err(RecordingError::SymbolicLink { .. })), "{refused:?}");
    fs::set_permissions(path("ring"), PermissionsExt::from_mode(0o770)).unwrap();
    assert!(matches!(Ring::open(&path("ring"), bytes), Err(RecordingError::Untrusted { .. })));
    fs::set_permissions(path("ring"), PermissionsExt::from_mode(0o750)).unwrap();
    let held = Ring::open(&path("ring"), bytes).unwrap();
    assert!(matches!(Ring::open(&path("ring"), bytes), Err(RecordingError::InUse { .. })));
    drop(held);
}

/// A block that cannot be compressed, with the number in its event.
fn bulky(number: i64) -> Vec<u8> {
    let mut values = FieldValues::default();
    let mut state = number.cast_unsigned();
    let noise: String = (0..4096)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + (state >> 58) as u8)
        })
        .collect();
    values.set_key(FieldKey::find("proc.args", None).unwrap(), Value::Text(noise.into())).unwrap();
    block_of(&[recorded(number, EventType::Entered, values)], 0)
}

fn on_disk(dir: &Path) -> u64 {
    list(dir).unwrap().iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum()
}

fn numbers(dir: &Path) -> Vec<i64> {
    let mut numbers = Vec::new();
    for (_, path) in list(dir).unwrap() {
        let (events, damages, _) = read_file(&path);
        assert_eq!(damages, []);
        numbers.extend(
            events
                .iter()
                .map(|event| (event.unix_ns - recorded(0, event.ty, FieldValues::default()).unix_ns) / 1000),
        );
    }
    numbers
}

#[test]
fn the_ring_keeps_its_size_also_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    // Small, so that it turns often; what settings allow is larger.
    let bytes = 160 << 10;
    let mut number = 0;
    fs::create_dir(&path).unwrap();
    fs::write(path.join("README"), "not the ring's").unwrap();
    for _ in 0..4 {
        let mut ring = Ring::open(&path, bytes).unwrap();
        for _ in 0..50 {
            ring.append(&bulky(number)).unwrap();
            number += 1;
            assert!(on_disk(&path) <= bytes, "after {number}");
            assert_eq!(ring.len(), on_disk(&path));
        }
        // A crash in the middle of a block.
        let newest = list(&path).unwrap().pop().unwrap().1;
        drop(ring);
        let mut torn = fs::read(&newest).unwrap();
        torn.extend(&bulky(0)[..100]);
        fs::write(&newest, torn).unwrap();
    }
    let kept = numbers_but_torn(&path, bytes);
    let wanted: Vec<i64> = (number - kept.len() as i64..number).collect();
    assert_eq!(kept, wanted, "the newest, in order");
    assert!(kept.len() > 30, "{kept:?}");
    assert_eq!(fs::read(path.join("README")).unwrap(), b"not the ring's");
    // A smaller bound is kept from the start on. Files are whole eighths of the larger.
    fs::rename(&path, dir.path().join("big")).unwrap();
    let big = dir.path().join("big");
    drop(Ring::open(&big, bytes * 2).unwrap());
    let mut ring = Ring::open(&big, bytes * 2).unwrap();
    for _ in 0..150 {
        ring.append(&bulky(number)).unwrap();
        number += 1;
    }
    assert!(on_disk(&big) > bytes);
    drop(ring);
    let ring = Ring::open(&big, bytes).unwrap();
    assert!(on_disk(&big) <= bytes && ring.len() == on_disk(&big));
}

/// Opening the ring cuts off what is torn.
fn numbers_but_torn(path: &Path, bytes: u64) -> Vec<i64> {
    drop(Ring::open(path, bytes).unwrap());
    numbers(path)
}

#[test]
fn a_ring_whose_file_was_removed_goes_on_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::open(dir.path(), *RING_BYTES.start()).unwrap();
    ring.append(&block_of(&few(2), 0)).unwrap();
    fs::remove_file(&list(dir.path()).unwrap()[0].1).unwrap();
    ring.append(&block_of(&few(3), 0)).unwrap();
    assert_eq!(numbers(dir.path()), [0, 1, 2]);
}

/// A disk in a test's hand.
#[derive(Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
    stands_still: Arc<AtomicBool>,
}

impl Store for Disk {
    fn append(&mut self, block: &[u8]) -> io::Result<Stored> {
        while self.stands_still.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.lock().unwrap().extend_from_slice(block);
        Ok(Stored::Yes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self) -> String {
        "a test's hand".to_owned()
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Hands an event over in a block of its own.
fn record(recorder: &mut Recorder, number: i64) {
    recorder.record_values(&few(number + 1)[number as usize]);
    recorder.hand_over();
}

#[test]
fn a_full_disk_costs_what_it_costs_and_is_told_in_the_next_block() {
    let disk = Disk::default();
    let mut recorder = Recorder::start("host", disk.clone(), false).unwrap();
    record(&mut recorder, 0);
    until("the first is written", || recorder.stats().recorded() == 1);
    disk.is_full.store(true, Ordering::Relaxed);
    record(&mut recorder, 1);
    record(&mut recorder, 2);
    until("both are refused", || recorder.stats().dropped(RecordDrop::WriteError) == 2);
    disk.is_full.store(false, Ordering::Relaxed);
    record(&mut recorder, 3);
    let stats = recorder.finish(Instant::now() + Duration::from_secs(60));
    assert_eq!((stats.recorded(), stats.dropped(RecordDrop::Shutdown)), (2, 0));
    let bytes = disk.bytes.lock().unwrap().clone();
    assert_eq!(stats.bytes(), bytes.len() as u64);
    let (events, _, tally) = read(&[&file_head()[..], &bytes].concat());
    assert_eq!((events, tally.dropped), (vec![few(1)[0].clone(), few(4)[3].clone()], 2));
}

#[test]
fn a_disk_that_stands_still_never_holds_the_path_back() {
    let disk = Disk::default();
    disk.stands_still.store(true, Ordering::Relaxed);
    let mut recorder = Recorder::start("host", disk.clone(), false).unwrap();
    let start = Instant::now();
    for number in 0..100 {
        record(&mut recorder, number);
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    let dropped = recorder.stats().dropped(RecordDrop::QueueFull);
    // The queue, and perhaps one in the thread's hands.
    assert!((100 - 33..=100 - 32).contains(&dropped), "{dropped}");
    // What waits when the end comes is lost, and counted.
    let stats = recorder.finish(Instant::now() + Duration::from_millis(20));
    assert_eq!(stats.dropped(RecordDrop::Shutdown) + dropped, 100);
    disk.stands_still.store(false, Ordering::Relaxed);
}

#[test]
fn a_file_stops_at_the_size_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rfrec");
    let one = block_of(&few(1), 0).len() as u64;
    let file = RecordingFile::open(&path).unwrap();
    let store = Single::new(file, FILE_HEAD as u64 + 2 * one + one / 2);
    let mut recorder = Recorder::start("host", store, true).unwrap();
    let full = recorder.full();
    for _ in 0..4 {
        record(&mut recorder, 0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), full.notified()).await.unwrap() });
    let stats = recorder.finish(Instant::now() + Duration::from_secs(60));
    assert_eq!((stats.recorded(), stats.dropped(RecordDrop::Limit)), (2, 2));
    assert_eq!(read_file(&path).0.len(), 2);
}
