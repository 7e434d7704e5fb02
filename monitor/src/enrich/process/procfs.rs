//! Processes as `/proc` shows them: for those that ran before anybody looked.
//!
//! What a process is, the kernel says here, too. Its command line it can have written over since its exec; and where
//! that lies the process decides, so reading it can take as long as the process likes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use monitor_common::ids::{BootNs, CgroupId, NsInum, Tgid};
use monitor_common::wire::ARGS_TEXT;
use rustix::fs::{AtFlags, CWD, MemfdFlags, StatxFlags, fstat, major, memfd_create, minor, statx};

use super::program::Held;
use super::{Arguments, Process, Program, TICK_NS};
use crate::decode::ProcessKey;
use crate::enrich::namespaces::Standing;
use crate::text::escape;

/// Reads a process, but for its command line; `None` if it is gone. Memfds lie on the device `memfds`.
pub(super) fn read_process(tgid: Tgid, cgroup: CgroupId, memfds: Option<u32>) -> Option<Process> {
    let own = stat(tgid)?;
    let parent_start = stat(own.parent).map_or(BootNs(0), |parent| parent.start);
    let link = |name: &str| fs::read_link(format!("/proc/{tgid}/{name}")).unwrap_or_default();
    let text = |name: &str| Box::from(escape(link(name).as_os_str().as_bytes()));
    // Not synchronised: the file may lie on a file system whose server the process runs itself and lets hang.
    let path = format!("/proc/{tgid}/exe");
    let file = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok();
    let dev = file.map(|file| file.stx_dev_major << 20 | file.stx_dev_minor);
    Some(Process {
        key: ProcessKey { tgid, start: own.start },
        parent: ProcessKey { tgid: own.parent, start: parent_start },
        comm: own.comm,
        program: Arc::new(Program {
            exe: text("exe"),
            exe_ino: file.map_or(0, |file| file.stx_ino),
            exe_dev: dev.unwrap_or(0),
            upper_layer: None,
            memfd: dev.and_then(|dev| Some(dev == memfds?)),
            arguments: None,
            cwd: text("cwd"),
            tty: Some(own.tty),
            held: Held::default(),
        }),
        cgroup,
        exec_mnt_ns: NsInum(0),
        starting: false,
        starting_since: BootNs(0),
        standing: Standing::default(),
        ended: None,
    })
}

/// The device on which memfds lie, `major << 20 | minor`: the kernel's own tmpfs, which nobody can mount.
pub(super) fn memfd_device() -> Option<u32> {
    let file = memfd_create("ringfence", MemfdFlags::CLOEXEC).ok()?;
    let dev = fstat(file).ok()?.st_dev;
    Some(major(dev) << 20 | minor(dev))
}

/// How long one command line may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// So many may take longer before the rest is given up: each keeps a thread.
const MAX_STUCK: usize = 4;

/// Reads the command lines of processes, on threads of their own: a process can lay its own over a file of a file
/// system that it serves itself, and let whoever reads it wait for ever.
pub(super) fn command_lines(processes: Vec<ProcessKey>) -> Vec<(ProcessKey, Arguments)> {
    collect(processes, |key| {
        let arguments = arguments(key.tgid)?;
        // Another process may have got the number meanwhile.
        (stat(key.tgid)?.start == key.start).then_some(arguments)
    })
}

/// What `read` gives for each process, those left out for which it takes too long.
fn collect<T: Send + 'static>(
    processes: Vec<ProcessKey>,
    read: impl Fn(ProcessKey) -> Option<T> + Clone + Send + 'static,
) -> Vec<(ProcessKey, T)> {
    let work = Arc::new((processes, AtomicUsize::new(0)));
    let mut found = Vec::with_capacity(work.0.len());
    for _ in 0..MAX_STUCK {
        let (results, inbox) = sync_channel(64);
        let (work, read) = (Arc::clone(&work), read.clone());
        let reader = move || {
            while let Some(key) = work.0.get(work.1.fetch_add(1, Ordering::Relaxed)) {
                if results.send((*key, read(*key))).is_err() {
                    return;
                }
            }
        };
        if thread::Builder::new().name("cmdlines".to_owned()).spawn(reader).is_err() {
            break;
        }
        loop {
            match inbox.recv_timeout(PATIENCE) {
                Ok((key, value)) => found.extend(value.map(|value| (key, value))),
                Err(RecvTimeoutError::Disconnected) => return found,
                // The thread ends if its process ever lets it. Another goes on behind that process.
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
    }
    tracing::warn!("some running processes do not let their command lines be read: they stay unknown");
    found
}

/// The command line; `None` for a kernel thread, or if it cannot be read.
fn arguments(tgid: Tgid) -> Option<Arguments> {
    let mut bytes = Vec::with_capacity(256);
    let file = File::open(format!("/proc/{tgid}/cmdline")).ok()?;
    // One byte more tells whether there is more.
    file.take(ARGS_TEXT as u64 + 1).read_to_end(&mut bytes).ok()?;
    let total = bytes.len();
    bytes.truncate(ARGS_TEXT);
    (total > 0).then(|| Arguments::parse(&bytes, total))?
}

/// When the process with this id started, to the tick; `None` if there is none.
pub(super) fn started(tgid: Tgid) -> Option<BootNs> {
    stat(tgid).map(|stat| stat.start)
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Name, escaped.
    comm: Arc<str>,
    parent: Tgid,
    /// Controlling terminal, 0 without one.
    tty: u32,
    /// Start time, to the tick.
    start: BootNs,
}

fn stat(tgid: Tgid) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{tgid}/stat")).ok()?)
}

fn parse_stat(stat: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may hold any byte, parentheses and blanks too.
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?;
    let mut words = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace();
    // Fields are counted from 1 in proc(5): the state behind the name is 3, the terminal 7, starttime 22.
    let parent = words.nth(1)?.parse().ok()?;
    let tty: i32 = words.nth(7 - 4 - 1)?.parse().ok()?;
    let ticks: u64 = words.nth(22 - 7 - 1)?.parse().ok()?;
    let start = BootNs(ticks.saturating_mul(TICK_NS));
    Some(Stat { comm: Arc::from(escape(name)), parent: Tgid(parent), tty: tty.cast_unsigned(), start })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name_holds() {
        let tail = "S 41 1 1 34816 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0";
        let stat_of = parse_stat(format!("42 (a) b (c) {tail}").as_bytes()).unwrap();
        let start = BootNs(777 * TICK_NS);
        assert_eq!(stat_of, Stat { comm: Arc::from("a) b (c"), parent: Tgid(41), tty: 34816, start });
        assert!(!stat(Tgid(std::process::id())).unwrap().comm.is_empty());
        for broken in ["", "1", "1 (", "1 (x", "1 (x)", "1 (x) S", "1 (x) S y", ") 1 (", "1 (x) S 4 1 1 0 -1"]
        {
            assert!(parse_stat(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn this_process_is_read() {
        let own = read_process(Tgid(std::process::id()), CgroupId(4), memfd_device()).unwrap();
        let exe = std::env::current_exe().unwrap();
        let meta = fs::metadata(&exe).unwrap();
        assert_eq!((own.program.exe_ino, own.cgroup), (meta.ino(), CgroupId(4)));
        assert_eq!(&*own.program.exe, exe.to_str().unwrap());
        assert_eq!(&*own.program.cwd, std::env::current_dir().unwrap().to_str().unwrap());
        assert_eq!(own.program.memfd, Some(false));
        assert_eq!(own.program.upper_layer, None, "nobody saw the exec");
        let lines = command_lines(vec![own.key, ProcessKey { start: BootNs(1), ..own.key }]);
        let [(key, arguments)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((*key, &*arguments.first), (own.key, &*std::env::args().next().unwrap()));
        assert_eq!(own.parent.tgid.0, std::os::unix::process::parent_id());
    }

    #[test]
    fn a_memfd_is_told_by_its_device_and_not_by_a_name() {
        let memfd = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        fs::copy("/bin/cat", format!("/proc/self/fd/{}", memfd.as_raw_fd())).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("memfd:x (deleted)");
        fs::copy("/bin/cat", &named).unwrap();
        for (path, expected) in
            [(format!("/proc/self/fd/{}", memfd.as_raw_fd()).into(), true), (named, false)]
        {
            let mut child = Command::new(path).stdin(Stdio::piped()).spawn().unwrap();
            let read = read_process(Tgid(child.id()), CgroupId(0), memfd_device()).unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            assert_eq!(read.program.memfd, Some(expected), "{}", read.program.exe);
        }
    }

    #[test]
    fn a_process_that_lets_its_reader_wait_costs_the_others_nothing() {
        let keys =
            |n| (0..n).map(|tgid| ProcessKey { tgid: Tgid(tgid), start: BootNs(1) }).collect::<Vec<_>>();
        let hang = |of: fn(u32) -> bool| {
            move |key: ProcessKey| {
                if of(key.tgid.0) {
                    thread::sleep(Duration::from_secs(20));
                }
                Some(key.tgid.0)
            }
        };
        let start = Instant::now();
        let found = collect(keys(300), hang(|tgid| tgid == 7 || tgid == 9));
        assert_eq!(found.len(), 298);
        // Many of them: the rest is given up.
        assert_eq!(collect(keys(300), hang(|tgid| tgid > 100)).len(), 101);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let long = "x".repeat(3000);
        let mut child = Command::new("/bin/cat")
            .args(["-", &long])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A spawn returns a moment before the new program's arguments are in place.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut arguments = None;
        while arguments.is_none() && Instant::now() < deadline {
            arguments = super::arguments(Tgid(child.id()));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        let rest = arguments.unwrap().rest;
        assert!(rest.starts_with("- xxx") && rest.ends_with("x...") && rest.len() < ARGS_TEXT, "{rest}");
    }
}
