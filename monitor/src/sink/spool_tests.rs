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
            let torn_bytes = torn.len() as u64 - before;
            let lost = u64::from(torn_bytes > 0);
            assert_eq!(recovered, Recovered { records: 2, torn_bytes, lost });
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
    assert_eq!(spool(dir.path()).1, Recovered { records: 0, torn_bytes: 3, lost: 0 });
}

#[test]
fn damage_of_a_record_costs_that_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = spool(dir.path());
    for chunk in 0..100 {
        spool.append(&batch((0..10).map(|i| line(chunk * 10 + i))), 0).unwrap();
    }
    let path = &files(dir.path())[0];
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"?", fs::metadata(path).unwrap().len() / 2).unwrap();
    let all = drain(&mut spool);
    assert_eq!((all.len(), spool.take_lost()), (999, 1));
    let gone = (0..1000).find(|number| all.get(*number) != Some(&line(*number))).unwrap();
    assert_eq!(all, (0..gone).chain(gone + 1..1000).map(line).collect::<Vec<_>>());
}

/// A spool of a thousand records that an earlier process left, and where each file's frames begin.
fn left(dir: &Path) -> Vec<(PathBuf, Vec<usize>)> {
    let (mut spool, _) = spool(dir);
    for chunk in 0..100 {
        spool.append(&batch((0..10).map(|i| line(chunk * 10 + i))), 0).unwrap();
    }
    let frames = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let (mut frames, mut at) = (Vec::new(), 8);
        while at < bytes.len() {
            frames.push(at);
            at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
        (path, frames)
    };
    files(dir).into_iter().map(frames).collect()
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at as u64).unwrap();
}

#[test]
fn damage_that_is_found_at_the_start_is_counted_and_costs_no_more_than_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let files = left(dir.path());
    let (path, frames) = &files[0];
    let size = fs::metadata(path).unwrap().len();
    // One record's text, and the length of a later one.
    overwrite(path, frames[10] + 9, b"?");
    overwrite(path, frames[20], b"\xff\xff\xff\xff");
    let (mut spool, found) = spool(dir.path());
    let first = frames.len();
    assert_eq!((found.records, found.lost), ((1000 - first + 19) as u64, 2));
    // Only the last file is cut.
    assert_eq!(fs::metadata(path).unwrap().len(), size);
    let expected: Vec<String> = (0..10).chain(11..20).chain(first..1000).map(line).collect();
    assert_eq!(drain(&mut spool), expected);
    assert_eq!(spool.take_lost(), 0);
}

#[test]
fn behind_damage_nothing_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let files = left(dir.path());
    let [.., (path, frames), (last, _)] = &files[..] else { panic!("one file only") };
    overwrite(path, *frames.last().unwrap(), b"\xff\xff\xff\xff");
    // Of the last one there is only what a crash left of its making: the one before is the last then.
    fs::write(last, b"RFS").unwrap();
    // With files of twice the size it would be appended to.
    let mut spool = Spool::open(dir.path(), "peer", 2 * LIMIT).unwrap();
    let found = spool.recover().unwrap();
    assert_eq!(found.lost, 1);
    spool.append(&batch(["new".into()]), 0).unwrap();
    let all = drain(&mut spool);
    assert_eq!((all.len() as u64, all.last().unwrap().as_str()), (found.records + 1, "new"));
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside_and_tried_again_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let files = left(dir.path());
    let [(version, first), (link, second), ..] = &files[..] else { panic!("one file only") };
    // Another version, and one that cannot be opened.
    overwrite(version, 7, b"\x02");
    let away = dir.path().join("away");
    fs::rename(link, &away).unwrap();
    std::os::unix::fs::symlink(&away, link).unwrap();
    let unread = || -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            fs::read_dir(dir.path().join("peer")).unwrap().map(|e| e.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "unread"));
        paths.sort();
        paths
    };
    let (mut spool_now, found) = spool(dir.path());
    let rest = first.len() + second.len();
    assert_eq!((found.records, found.lost), ((1000 - rest) as u64, 2));
    assert_eq!(drain(&mut spool_now), (rest..1000).map(line).collect::<Vec<_>>());
    // They take their room, and are not removed because newer ones were delivered.
    assert_eq!(unread().len(), 2);
    assert!(spool_now.bytes() > fs::metadata(&unread()[0]).unwrap().len());
    spool_now.append(&batch(["new".into()]), 0).unwrap();
    drop(spool_now);
    overwrite(&unread()[0], 7, b"\x01");
    let (mut spool_now, found) = spool(dir.path());
    assert_eq!((found.records, found.lost), (first.len() as u64 + 1, 0));
    let expected: Vec<String> = ["new".to_owned()].into_iter().chain((0..first.len()).map(line)).collect();
    assert_eq!(drain(&mut spool_now), expected);
    drop(spool_now);
    fs::rename(&away, &unread()[0]).unwrap();
    let (mut spool, found) = spool(dir.path());
    assert_eq!(found.records, second.len() as u64);
    assert_eq!(drain(&mut spool), (first.len()..rest).map(line).collect::<Vec<_>>());
    assert!(unread().is_empty());
}

/// The disk fails while the daemon runs: the others go on, and what was delivered of that file is not again.
#[test]
fn a_file_that_the_disk_does_not_give_is_given_up_after_some_tries() {
    let dir = tempfile::tempdir().unwrap();
    let files = left(dir.path());
    let (path, frames) = &files[0];
    let whole = fs::read(path).unwrap();
    let (mut spool_now, _) = spool(dir.path());
    assert_eq!(spool_now.read(5, 1 << 20).unwrap().records().len(), 5);
    spool_now.advance(5);
    fs::write(path, &whole[..100]).unwrap();
    for _ in 1..READ_TRIES {
        spool_now.read(5, 1 << 20).unwrap_err();
        assert_eq!(spool_now.take_lost(), 0);
    }
    assert_eq!(drain(&mut spool_now), (frames.len()..1000).map(line).collect::<Vec<_>>());
    assert_eq!(spool_now.take_lost(), frames.len() as u64 - 5);
    drop(spool_now);
    let aside = segment::unread_path(&dir.path().join("peer"), 1, frames[5] as u64);
    fs::write(&aside, &whole).unwrap();
    assert_eq!(drain(&mut spool(dir.path()).0), (5..frames.len()).map(line).collect::<Vec<_>>());
}

/// Each file is kept open.
#[test]
fn a_large_spool_has_no_more_files_than_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    for limit in [LIMIT, 64 << 20, 16 << 30] {
        let spool = Spool::open(dir.path(), "peer", limit).unwrap();
        assert!(limit / spool.segment_bytes <= SEGMENTS, "{limit}");
    }
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
