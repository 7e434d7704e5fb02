//! Sinks under test: full queues, full disks, closed pipes, torn lines.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn batch(lines: &[&str]) -> Batch {
    Batch { bytes: lines.concat().into_bytes(), lines: lines.len() as u32, priorities: Vec::new() }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = soon();
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An output that does what a script says, once per write; then it takes everything.
#[derive(Clone, Default)]
struct Scripted {
    steps: Arc<Mutex<VecDeque<Result<usize, io::ErrorKind>>>>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Scripted {
    fn new(steps: impl IntoIterator<Item = Result<usize, io::ErrorKind>>) -> Self {
        Self { steps: Arc::new(Mutex::new(steps.into_iter().collect())), seen: Arc::default() }
    }

    fn seen(&self) -> String {
        String::from_utf8(self.seen.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = match self.steps.lock().unwrap().pop_front() {
            Some(Ok(n)) => n.min(bytes.len()),
            Some(Err(kind)) => return Err(kind.into()),
            None => bytes.len(),
        };
        self.seen.lock().unwrap().extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output that blocks until it is told to go on.
struct Gate(mpsc::Receiver<()>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_arrive_in_order_and_buffers_come_back() {
    let output =
        Scripted::new([Ok(1), Err(io::ErrorKind::Interrupted), Ok(2), Err(io::ErrorKind::WouldBlock)]);
    let sink = Sink::start("test", output.clone(), DEFAULT_QUEUE_BYTES).unwrap();
    for i in 0..100 {
        let mut batch = sink.batch();
        assert!(batch.bytes.is_empty());
        writeln!(batch.bytes, "line {i}").unwrap();
        batch.lines = 1;
        sink.offer(batch).unwrap();
    }
    assert_eq!(sink.flush(soon()), Flushed { lost_lines: 0 });
    let expected: String = (0..100).map(|i| format!("line {i}\n")).collect();
    assert_eq!(output.seen(), expected);
    assert_eq!(sink.stats().written_lines(), 100);
    assert_eq!(sink.stats().written_bytes(), expected.len() as u64);
    assert_eq!((sink.stats().queued_lines(), sink.stats().queued_bytes()), (0, 0));
    assert!(sink.batch().bytes.capacity() > 0, "no buffer came back");
}

#[test]
fn a_stalled_reader_costs_lines_not_time() {
    let (go, gate) = mpsc::channel();
    let sink = Sink::start("test", Gate(gate), 64).unwrap();
    let line = "0123456789abcde\n";
    let start = Instant::now();
    let outcomes: Vec<_> = (0..10).map(|_| sink.offer(batch(&[line]))).collect();
    assert!(start.elapsed() < Duration::from_secs(5), "offer waited for the reader");
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 4);
    assert!(outcomes[4..].iter().all(|o| *o == Err(Dropped { lines: 1, reason: DropReason::QueueFull })));
    assert_eq!(sink.stats().dropped_lines(DropReason::QueueFull), 6);
    assert_eq!(sink.stats().queued_lines(), 4);
    for _ in 0..4 {
        go.send(()).unwrap();
    }
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert_eq!(sink.stats().written_lines(), 4);
    assert_eq!(sink.offer(batch(&[line])), Err(Dropped { lines: 1, reason: DropReason::Shutdown }));
}

#[test]
fn a_blocked_output_does_not_hold_the_exit_back() {
    let (_go, gate) = mpsc::channel();
    let sink = Sink::start("test", Gate(gate), 1024).unwrap();
    sink.offer(batch(&["a\n", "b\n"])).unwrap();
    sink.offer(batch(&["c\n"])).unwrap();
    assert_eq!(sink.flush(Instant::now() + Duration::from_millis(50)), Flushed { lost_lines: 3 });
    assert_eq!(sink.stats().dropped_lines(DropReason::Shutdown), 3);
}

#[test]
fn a_full_disk_is_waited_for_and_no_line_is_torn() {
    let full = || Err(io::ErrorKind::StorageFull);
    let output = Scripted::new([Ok(7), full(), Ok(1), full(), full()]);
    let sink = Sink::start("test", output.clone(), 64).unwrap();
    sink.offer(batch(&["first\n", "second\n", "third\n"])).unwrap();
    wait_until("the failure", || sink.stats().failures() >= 1);
    assert_eq!(sink.offer(batch(&[&"x".repeat(99)])).unwrap_err().reason, DropReason::WriteError);
    sink.offer(batch(&["fourth\n"])).unwrap();
    wait_until("the recovery", || sink.stats().written_lines() == 4);
    assert_eq!(output.seen(), "first\nsecond\nthird\nfourth\n");
    assert_eq!(sink.stats().dropped_lines(DropReason::WriteError), 1);
    assert_eq!(sink.stats().failures(), 3);
    assert_eq!(sink.flush(soon()).lost_lines, 0);
}

#[test]
fn after_a_closed_pipe_lines_are_lost_but_the_torn_one_is_completed() {
    let output = Scripted::new([Ok(8), Err(io::ErrorKind::BrokenPipe)]);
    let sink = Sink::start("test", output.clone(), 1024).unwrap();
    sink.offer(batch(&["first\n", "second\n", "third\n"])).unwrap();
    wait_until("the failure", || sink.stats().dropped_lines(DropReason::WriteError) > 0);
    sink.offer(batch(&["fourth\n"])).unwrap();
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert_eq!(output.seen(), "first\nsecond\nfourth\n");
    let stats = sink.stats();
    assert_eq!(stats.written_lines() + stats.dropped_lines(DropReason::WriteError), 4);
}

#[test]
fn a_real_closed_pipe_is_survived() {
    let (reader, writer) = io::pipe().unwrap();
    let sink = Sink::start("test", writer, 1024).unwrap();
    let mut reader = BufReader::new(reader);
    sink.offer(batch(&["seen\n"])).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "seen\n");
    drop(reader);
    sink.offer(batch(&["lost\n", "lost\n"])).unwrap();
    sink.flush(soon());
    assert_eq!(sink.stats().dropped_lines(DropReason::WriteError), 2);
    assert_eq!(sink.stats().written_lines(), 1);
}

#[test]
fn a_device_without_room_loses_nothing_uncounted() {
    let sink = Sink::start("test", open_alert_file("/dev/full".as_ref()).unwrap(), 1024).unwrap();
    sink.offer(batch(&["a\n", "b\n"])).unwrap();
    wait_until("the failure", || sink.stats().failures() >= 2);
    assert_eq!(sink.flush(soon()).lost_lines, 2);
    assert_eq!(sink.stats().dropped_lines(DropReason::WriteError), 2);
    assert_eq!(sink.stats().written_lines(), 0);
}

#[test]
fn what_is_lost_while_others_are_waited_for_is_told() {
    let sink = Sink::start("test", open_alert_file("/dev/full".as_ref()).unwrap(), 1024).unwrap();
    sink.offer(batch(&["a\n", "b\n"])).unwrap();
    // All outputs are told of the end first, and then waited for one after the other.
    sink.close(soon());
    wait_until("the end of its thread", || sink.shared.lock().ended);
    assert_eq!(sink.flush(soon()).lost_lines, 2);
}

#[test]
fn what_cannot_be_an_alert_file_is_known_before() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "").unwrap();
    symlink(at("file"), at("link")).unwrap();
    assert!(check_alert_file(&at("file")).is_ok() && check_alert_file(&at("new")).is_ok());
    assert!(!at("new").exists());
    for (path, said) in [(at("link"), "symbolic link"), (dir.path().to_owned(), "not a regular file")] {
        let (checked, opened) = (check_alert_file(&path), open_alert_file(&path));
        let checked = checked.unwrap_err().to_string();
        assert!(checked.contains(said), "{checked}");
        assert_eq!(checked, opened.unwrap_err().to_string());
    }
}

/// A mount that goes away with the test.
pub(super) struct Tmpfs(pub(super) tempfile::TempDir);

impl Tmpfs {
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount(
            "none",
            dir.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(&*options),
        )
        .inspect_err(|error| eprintln!("SKIPPED: a small tmpfs cannot be mounted ({error}); run as root"))
        .ok()?;
        Some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_real_full_disk_recovers_without_a_torn_line() {
    let Some(disk) = Tmpfs::new(64 << 10) else { return };
    let (alerts, ballast) = (disk.0.path().join("alerts.jsonl"), disk.0.path().join("ballast"));
    fs::write(&ballast, vec![0; 32 << 10]).unwrap();
    let sink = Sink::start("test", open_alert_file(&alerts).unwrap(), DEFAULT_QUEUE_BYTES).unwrap();
    let line = |i: usize| format!("{i} {}\n", "x".repeat(777));
    let total = 70;
    for i in 0..total {
        sink.offer(Batch { bytes: line(i).into_bytes(), lines: 1, priorities: Vec::new() }).unwrap();
    }
    wait_until("the disk being full", || sink.stats().failures() > 0);
    assert!(sink.stats().written_lines() < total as u64);
    fs::remove_file(&ballast).unwrap();
    wait_until("the recovery", || sink.stats().written_lines() == total as u64);
    assert_eq!(sink.flush(soon()).lost_lines, 0);
    assert_eq!(fs::read_to_string(&alerts).unwrap(), (0..total).map(line).collect::<String>());
}

#[test]
fn the_alert_file_is_private_and_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.jsonl");
    drop(open_alert_file(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    fs::write(&path, "whole\ntorn").unwrap();
    open_alert_file(&path).unwrap().write_all(b"next\n").unwrap();
    let mut text = String::new();
    File::open(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "whole\ntorn\nnext\n");
}

#[test]
fn what_is_no_alert_file_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "").unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    assert!(matches!(open_alert_file(&link), Err(FileError::SymbolicLink { .. })));
    assert!(matches!(open_alert_file(dir.path()), Err(FileError::NotAFile { .. })));
    let error = open_alert_file(&dir.path().join("no/alerts.jsonl")).unwrap_err();
    assert!(error.to_string().contains("mkdir -p"), "{error}");
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(open_alert_file(&socket), Err(FileError::NotAFile { .. })));
}
