//! Alert files under test: rotation by size and age, what is kept, other processes that rename, full disks.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;
use crate::sink::tests::Tmpfs;
use crate::sink::{Batch, Sink};

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|ext| ext == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        return text;
    }
    String::from_utf8(bytes).unwrap()
}

/// Everything in order: the files put aside, then the one at the path.
fn all(path: &Path) -> String {
    let aside = asides(path).iter().map(|aside| text(&aside.path)).collect::<String>();
    aside + &text(path)
}

fn line(number: usize) -> String {
    format!("{number} {}\n", "x".repeat(number % 97))
}

/// Writes as the sink's thread does.
fn write(file: &mut AlertFile, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = file.write(bytes).unwrap();
        assert!(taken > 0);
        bytes = &bytes[taken..];
    }
}

fn rotation(bytes: Option<u64>, seconds: Option<u64>) -> Rotation {
    Rotation { bytes, seconds, keep: 1000, compress: false }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_large_file_is_put_aside_between_two_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let mut file = AlertFile::open(&path, Some(rotation(Some(4096), None))).unwrap();
    let whole: String = (0..1000).map(line).collect();
    // In pieces that end anywhere.
    for piece in whole.as_bytes().chunks(333) {
        write(&mut file, piece);
    }
    let aside = asides(&path);
    assert!(aside.len() > 5);
    for aside in &aside {
        let text = text(&aside.path);
        // Of a line that comes in two pieces the first one's place is decided.
        assert!(text.len() <= 4096 + 110 && text.len() > 3800 && text.ends_with('\n'), "{}", text.len());
        assert_eq!(fs::metadata(&aside.path).unwrap().permissions().mode() & 0o7777, 0o640);
    }
    assert_eq!(all(&path), whole);
    assert!(aside[0].path.ends_with("alerts.jsonl.000001"));
    drop(file);
    // Numbers go on, and the size is known.
    let mut file = AlertFile::open(&path, Some(rotation(Some(4096), None))).unwrap();
    let long = format!("{}\n", "y".repeat(9000));
    write(&mut file, long.as_bytes());
    write(&mut file, b"last\n");
    assert_eq!(text(&asides(&path).last().unwrap().path), long);
    assert_eq!(all(&path), whole + &long + "last\n");
    assert_eq!(text(&path), "last\n");
}

#[test]
fn an_old_file_is_put_aside_by_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let mut file = AlertFile::open(&path, Some(rotation(None, Some(1)))).unwrap();
    write(&mut file, b"a\n");
    write(&mut file, b"b\n");
    assert!(asides(&path).is_empty());
    thread::sleep(Duration::from_millis(1100));
    write(&mut file, b"c\nd\n");
    assert_eq!((asides(&path).len(), text(&path).as_str()), (1, "c\nd\n"));
    drop(file);
    thread::sleep(Duration::from_millis(1100));
    // Its age is known to the next process, too.
    let mut file = AlertFile::open(&path, Some(rotation(None, Some(1)))).unwrap();
    write(&mut file, b"e\n");
    assert_eq!((asides(&path).len(), text(&path).as_str()), (2, "e\n"));
}

#[test]
fn old_files_are_compressed_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let others = [
        "alerts.jsonl.1",
        "alerts.jsonl.00000x",
        "alerts.jsonl.20261123",
        "alerts.jsonl.1000000",
        "alerts.jsonl.20261123.gz",
        "alerts.jsonl.000001.gz.new",
        "other.jsonl.000001",
    ];
    for other in others {
        fs::write(dir.path().join(other), "left alone").unwrap();
    }
    let rotation = Rotation { keep: 3, compress: true, ..rotation(Some(4096), None) };
    let mut file = AlertFile::open(&path, Some(rotation)).unwrap();
    let whole: String = (0..1000).map(line).collect();
    write(&mut file, whole.as_bytes());
    let last = file.last;
    // Another one, when the thread is done with those before.
    wait_until("compressing", || !file.compressing.load(Ordering::Acquire));
    file.tidy();
    wait_until("compressing", || {
        !file.compressing.load(Ordering::Acquire) && asides(&path).iter().all(|aside| aside.compressed)
    });
    let numbers: Vec<u64> = asides(&path).iter().map(|aside| aside.number).collect();
    assert_eq!(numbers, [last - 2, last - 1, last]);
    assert!(whole.ends_with(&all(&path)) && all(&path).len() > 8000);
    assert_eq!(fs::metadata(&asides(&path)[0].path).unwrap().permissions().mode() & 0o7777, 0o640);
    for other in others.into_iter().filter(|other| !other.contains(".gz.new")) {
        assert_eq!(fs::read(dir.path().join(other)).unwrap(), b"left alone", "{other}");
    }
}

#[test]
fn behind_the_last_number_nothing_is_put_aside_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    fs::write(dir.path().join("alerts.jsonl.999998"), "").unwrap();
    let mut file = AlertFile::open(&path, Some(rotation(Some(4096), None))).unwrap();
    let long = format!("{}\n", "y".repeat(5000));
    write(&mut file, long.as_bytes());
    write(&mut file, long.as_bytes());
    assert_eq!(asides(&path).last().unwrap().number, 999_999);
    write(&mut file, long.as_bytes());
    assert_eq!((asides(&path).len(), text(&path).len()), (2, 2 * long.len()));
    asides(&path).iter().for_each(|aside| fs::remove_file(&aside.path).unwrap());
    file.rests_until = Some(boot_now());
    write(&mut file, b"next\n");
    assert_eq!((asides(&path)[0].number, text(&path).as_str()), (1, "next\n"));
}

#[test]
fn a_file_may_be_older_than_the_machines_uptime() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let age = Age { then: hours(12), seen: Duration::from_secs(30) };
    assert_eq!(age.at(Duration::from_secs(30)), hours(12));
    assert_eq!(age.at(hours(12) + Duration::from_secs(30)), hours(24));
    // And the file that is opened has such an age.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let mut file = AlertFile::open(&path, Some(rotation(None, Some(366 * 24 * 3600)))).unwrap();
    write(&mut file, b"a\n");
    file.age.then = hours(366 * 24);
    write(&mut file, b"b\n");
    assert_eq!((asides(&path).len(), text(&path).as_str()), (1, "b\n"));
}

#[test]
fn a_file_that_others_rename_is_opened_anew_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let moved = dir.path().join("moved");
    let sink = Sink::start("file", AlertFile::open(&path, None).unwrap(), 1 << 20).unwrap();
    let offer = |line: &str| {
        sink.offer(Batch { bytes: line.as_bytes().to_vec(), lines: 1, priorities: Vec::new() }).unwrap();
    };
    offer("a\n");
    wait_until("a line", || sink.stats().written_lines() == 1);
    fs::rename(&path, &moved).unwrap();
    offer("b\n");
    wait_until("a line", || sink.stats().written_lines() == 2);
    sink.nudge();
    // At once, not with the next line.
    wait_until("the new file", || path.exists());
    offer("c\n");
    assert_eq!(sink.flush(Instant::now() + Duration::from_secs(30)).lost_lines, 0);
    assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("a\nb\n", "c\n"));
}

/// The disk is full in the middle of a line; its file is moved away and others make room.
#[test]
fn a_line_that_a_full_disk_tore_is_whole_in_the_next_file() {
    let (Some(small), Some(other)) = (Tmpfs::new(64 << 10), Tmpfs::new(1 << 20)) else { return };
    // A link in the directory's path is followed: the disk behind it is exchanged.
    let dir = tempfile::tempdir().unwrap();
    let way = dir.path().join("way");
    std::os::unix::fs::symlink(small.0.path(), &way).unwrap();
    let path = way.join("alerts.jsonl");
    let sink = Sink::start("file", AlertFile::open(&path, None).unwrap(), 8 << 20).unwrap();
    let total = 200;
    for i in 0..total {
        let bytes = format!("{i} {}\n", "z".repeat(777)).into_bytes();
        sink.offer(Batch { bytes, lines: 1, priorities: Vec::new() }).unwrap();
    }
    wait_until("the disk being full", || sink.stats().failures() > 0);
    fs::remove_file(&way).unwrap();
    std::os::unix::fs::symlink(other.0.path(), &way).unwrap();
    sink.nudge();
    wait_until("the rest", || sink.stats().written_lines() == total);
    assert_eq!(sink.flush(Instant::now() + Duration::from_secs(30)).lost_lines, 0);
    let whole = text(&small.0.path().join("alerts.jsonl")) + &text(&path);
    let expected: String = (0..total).map(|i| format!("{i} {}\n", "z".repeat(777))).collect();
    assert!(whole == expected, "lines are lost, torn or doubled");
}

#[test]
fn a_rotation_that_fails_costs_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    let mut file = AlertFile::open(&path, Some(rotation(Some(4096), None))).unwrap();
    fs::create_dir(dir.path().join("alerts.jsonl.000001")).unwrap();
    let whole: String = (0..200).map(line).collect();
    write(&mut file, whole.as_bytes());
    assert_eq!(text(&path), whole);
    // Later it is tried again, with the next number.
    file.rests_until = Some(boot_now());
    write(&mut file, b"next\n");
    assert_eq!(
        (text(&path).as_str(), text(&dir.path().join("alerts.jsonl.000002")) == whole),
        ("next\n", true)
    );
}

#[test]
fn a_device_is_not_rotated() {
    assert!(AlertFile::open(Path::new("/dev/null"), None).is_ok());
    assert!(matches!(
        AlertFile::open(Path::new("/dev/null"), Some(rotation(Some(4096), None))),
        Err(FileError::NotAFile { .. })
    ));
}
