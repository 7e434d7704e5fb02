//! Spools under test: order, bounds, crashes at every byte, damage, full disks.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;
use crate::sink::tests::Tmpfs;

const LIMIT: u64 = 1 << 20;

fn batch(lines: impl IntoIterator<Item = String>) -> Batch {
    let mut batch = Batch::default();
    for line in lines {
        batch.bytes.extend_from_slice(line.as_bytes());
        batch.bytes.push(b'\n');
        batch.lines += 1;
        batch.priorities.push(Priority::Warning);
    }
    batch
}

fn line(number: usize) -> String {
    format!("{number} {}", "x".repeat(number % 300))
}

/// Opens it and reads what is there.
fn spool(dir: &Path) -> (Spool, Recovered) {
    let mut spool = Spool::open(dir, "peer", LIMIT).unwrap();
    let found = spool.recover().unwrap();
    (spool, found)
}

/// Takes everything out, a few at a time.
fn drain(spool: &mut Spool) -> Vec<String> {
    let mut all = Vec::new();
    while spool.records() > 0 {
        let loaded = spool.read(7, 1000).unwrap();
        let records = loaded.records();
        assert!(!records.is_empty() && records.len() <= 7);
        assert!(records.iter().all(|record| record.priority == Priority::Warning));
        all.extend(records.iter().map(|record| String::from_utf8(record.line.to_vec()).unwrap()));
        let count = records.len();
        spool.advance(count);
    }
    all
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir.join("peer")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "seg"));
    files.sort();
    files
}

#[test]
fn records_come_out_in_order_across_files_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, found) = spool(dir.path());
    assert_eq!(found, Recovered::default());
    for chunk in 0..100 {
        first.append(&batch((0..10).map(|i| line(chunk * 10 + i))), 0).unwrap();
    }
    assert!(files(dir.path()).len() > 1, "one file only");
    assert!(matches!(Spool::open(dir.path(), "peer", LIMIT), Err(SpoolError::InUse { .. })));
    // Delivered up to the middle of a batch, then the process ends without a word.
    assert_eq!(first.read(5, LIMIT as usize).unwrap().records().len(), 5);
    first.advance(3);
    drop(first);
    let (mut second, found) = spool(dir.path());
    assert_eq!((found.records, found.torn_bytes), (997, 0));
    // What is new goes behind, but for what is to be skipped.
    second.append(&batch((1000..1003).map(line)), 1).unwrap();
    let expected: Vec<String> = (3..1000).chain(1001..1003).map(line).collect();
    assert_eq!(drain(&mut second), expected);
    assert_eq!((second.records(), second.bytes(), files(dir.path()).len()), (0, 0, 0));
    drop(second);
    // Numbers of files go on, so that the old note skips nothing.
    let (mut third, _) = spool(dir.path());
    third.append(&batch([line(1)]), 0).unwrap();
    drop(third);
    let (mut fourth, found) = spool(dir.path());
    assert_eq!(found.records, 1);
    assert_eq!(drain(&mut fourth), [line(1)]);
    for path in [dir.path().to_owned(), dir.path().join("peer")].iter().skip(1) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}

/// A crash may leave any number of the last bytes unwritten, or anything in their place.
#[test]
fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (mut whole, _) = spool(dir.path());
    whole.append(&batch(["first".into(), "second".into()]), 0).unwrap();
    let before = whole.bytes();
    whole.append(&batch(["third".into()]), 0).unwrap();
    let bytes = fs::read(&files(dir.path())[0]).unwrap();
    drop(whole);
    for end in before..bytes.len() as u64 {
        for garbage in [&b""[..], &b"\0\0\0\0\0\0\0\0\0"[..], &b"\xff\xff\xff\xff\xff"[..]] {
            let mut torn = bytes[..end as usize].to_vec();
            torn.extend_from_slice(garbage);
            fs::write(&files(dir.path())[0], &torn).unwrap();
            let (mut found, recovered) = spool(dir.path());
            assert_eq!(recovered, Recovered { records: 2, torn_bytes: torn.len() as u64 - before });
            found.append(&batch(["fourth".into()]), 0).unwrap();
            drop(found);
            let (mut again, recovered) = spool(dir.path());
            assert_eq!((recovered.records, recovered.torn_bytes), (3, 0));
            let loaded = again.read(10, 1000).unwrap();
            let lines: Vec<&[u8]> = loaded.records().iter().map(|record| record.line).collect();
            assert_eq!(lines, [&b"first"[..], b"second", b"fourth"]);
        }
    }
    // Not even the head is there.
    fs::write(&files(dir.path())[0], &bytes[..3]).unwrap();
    assert_eq!(spool(dir.path()).1, Recovered { records: 0, torn_bytes: 3 });
}

#[test]
fn damage_in_the_middle_costs_what_is_behind_it_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = spool(dir.path());
    for chunk in 0..100 {
        spool.append(&batch((0..10).map(|i| line(chunk * 10 + i))), 0).unwrap();
    }
    let path = &files(dir.path())[0];
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"?", fs::metadata(path).unwrap().len() / 2).unwrap();
    let in_file = spool.segments[0].records;
    let all = drain(&mut spool);
    let lost = spool.take_lost();
    assert!(lost > 0 && lost < in_file, "{lost} of {in_file}");
    assert_eq!(all.len() as u64 + lost, 1000);
    let begin = (in_file - lost) as usize;
    let expected: Vec<String> = (0..begin).chain(in_file as usize..1000).map(line).collect();
    assert_eq!(all, expected);
}

#[test]
fn it_never_takes_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = spool(dir.path());
    let mut kept = 0;
    let full = loop {
        match spool.append(&batch((0..10).map(|_| "y".repeat(500))), 0) {
            Ok(()) => kept += 10,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full));
    let on_disk: u64 = files(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, spool.bytes());
    assert!(on_disk <= LIMIT && on_disk > LIMIT - 8000, "{on_disk}");
    // A delivered file makes room.
    while spool.records() as usize > kept - kept / 8 {
        let count = spool.read(100, 1 << 20).unwrap().records().len();
        spool.advance(count);
    }
    spool.append(&batch((0..10).map(|_| "y".repeat(500))), 0).unwrap();
}

#[test]
fn a_long_line_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = spool(dir.path());
    let long = "z".repeat(300_000);
    spool.append(&batch(["a".into(), long.clone(), "b".into()]), 0).unwrap();
    assert_eq!(drain(&mut spool), ["a", &long, "b"]);
}

#[test]
fn a_full_disk_tears_nothing() {
    let Some(disk) = Tmpfs::new(256 << 10) else { return };
    fs::set_permissions(disk.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (mut spool, _) = spool(disk.0.path());
    let mut kept = 0;
    let error = loop {
        match spool.append(&batch((0..10).map(|_| "y".repeat(500))), 0) {
            Ok(()) => kept += 10,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AppendError::Io(error) if error.kind() == ErrorKind::StorageFull), "{error:?}");
    assert_eq!(spool.records(), kept);
    assert_eq!(drain(&mut spool).len() as u64, kept);
}

#[test]
fn others_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Spool::open(dir.path(), "peer", LIMIT).unwrap_err();
    assert!(matches!(&error, SpoolError::Untrusted { .. }) && error.to_string().contains("chmod"), "{error}");
    let missing = Spool::open(&dir.path().join("a/b"), "peer", LIMIT).unwrap_err();
    assert!(missing.to_string().contains("mkdir -p"), "{missing}");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/tmp", &link).unwrap();
    assert!(matches!(Spool::open(&link, "peer", LIMIT), Err(SpoolError::Untrusted { .. })));
}
