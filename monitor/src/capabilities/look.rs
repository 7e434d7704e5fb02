//! Looks at programs' files: through the process that runs one, or below the root of another process of the container.
//!
//! On threads of their own that nobody waits for long: a file system of a container's (FUSE, NFS) may not answer.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::fs::{Mode, OFlags, ResolveFlags, getxattr, open, openat2};
use rustix::io::Errno;

use super::files::{Living, Looked, Looker, Wanted, Whose};
use crate::hierarchy::Hierarchy;
use crate::kernel_files;

/// How long a round waits for a thread.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this time a thread is left behind, and another takes its place.
const TOO_LONG: Duration = Duration::from_secs(30);
/// Threads that are left behind, at most.
const MAX_LEFT: usize = 4;
/// Bytes of a `cgroup.procs` that are read.
const MAX_PROCS: u64 = 16 << 10;
/// Processes of a cgroup that are tried, at most.
const MAX_TRIED: usize = 32;
/// What a path in `/proc` has behind it when its file was removed.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// How the programs of one container are looked at.
type Look = Arc<dyn Fn(&Wanted) -> Vec<Looked> + Send + Sync>;

/// The threads: one for root's containers, and one for those that others may have made, who may see to it that a file does
/// not answer.
pub struct FileLooker([Lane; 2]);

impl std::fmt::Debug for FileLooker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLooker").finish_non_exhaustive()
    }
}

impl FileLooker {
    /// Looks at files on threads that are named `file-caps`, which start when they are needed and end with this.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self::of(Arc::new(move |wanted| look(&hierarchy, wanted)))
    }

    fn of(look: Look) -> Self {
        FileLooker([(); 2].map(|()| Lane::new(Arc::clone(&look))))
    }
}

impl Looker for FileLooker {
    fn look(&mut self, wanted: Vec<Wanted>) -> Vec<Looked> {
        let (others, roots) = wanted.into_iter().partition(|one| one.delegated);
        let [first, second] = &mut self.0;
        let mut looked = first.look(roots);
        looked.extend(second.look(others));
        looked
    }
}

/// A thread after the other.
struct Lane {
    look: Look,
    thread: Option<Thread>,
    left: usize,
    /// Whose files did not answer: they are not looked at again.
    stuck: HashSet<Whose>,
}

/// A thread, as the keeper sees it.
struct Thread {
    ask: SyncSender<Vec<Wanted>>,
    answers: Receiver<Vec<Looked>>,
    /// Since when it has not answered.
    busy: Option<Instant>,
    /// Whose files it looks at.
    at: Arc<Mutex<Option<Whose>>>,
}

impl Thread {
    fn start(look: Look) -> io::Result<Self> {
        let (ask, asked) = sync_channel::<Vec<Wanted>>(1);
        let (answer, answers) = sync_channel(1);
        let at = Arc::new(Mutex::new(None));
        let here = Arc::clone(&at);
        thread::Builder::new().name("file-caps".to_owned()).spawn(move || {
            while let Ok(wanted) = asked.recv() {
                let looked = wanted.iter().flat_map(|wanted| {
                    *here.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted.whose.clone());
                    look(wanted)
                });
                if answer.send(looked.collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Thread { ask, answers, busy: None, at })
    }
}

impl Lane {
    fn new(look: Look) -> Self {
        Lane { look, thread: None, left: 0, stuck: HashSet::new() }
    }

    fn look(&mut self, mut wanted: Vec<Wanted>) -> Vec<Looked> {
        let looked = self.late();
        wanted.retain(|one| !self.stuck.contains(&one.whose));
        if wanted.is_empty() || self.left >= MAX_LEFT {
            return looked;
        }
        if self.thread.is_none() {
            match Thread::start(Arc::clone(&self.look)) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => tracing::debug!(%error, "no thread looks at programs' files now"),
            }
        }
        let Some(thread) = self.thread.as_mut().filter(|thread| thread.busy.is_none()) else { return looked };
        let begun = Instant::now();
        if thread.ask.try_send(wanted).is_err() {
            return looked;
        }
        match thread.answers.recv_timeout(PATIENCE) {
            Ok(mut now) => {
                now.extend(looked);
                now
            }
            Err(_) => {
                thread.busy = Some(begun);
                looked
            }
        }
    }

    /// What came after nobody waited for it any more. A thread that is late for too long is left behind.
    fn late(&mut self) -> Vec<Looked> {
        let Some(thread) = &mut self.thread else { return Vec::new() };
        let Some(since) = thread.busy else { return Vec::new() };
        match thread.answers.try_recv() {
            Ok(late) => {
                thread.busy = None;
                return late;
            }
            Err(TryRecvError::Empty) if since.elapsed() < TOO_LONG => return Vec::new(),
            Err(_) => {}
        }
        let at = thread.at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tracing::warn!(
            whose = ?at,
            "a program's file does not answer what capabilities it has; advice says so of its container"
        );
        self.stuck.extend(at);
        (self.thread, self.left) = (None, self.left + 1);
        Vec::new()
    }
}

/// Looks at the programs of one container.
fn look(hierarchy: &Hierarchy, wanted: &Wanted) -> Vec<Looked> {
    let places: HashSet<u64> = wanted.living.iter().map(|living| living.id.0).collect();
    let is_there = |tgid| hierarchy.directory_of(tgid).is_some_and(|id| places.contains(&id));
    let mut roots: HashMap<u32, Option<OwnedFd>> = HashMap::new();
    let mut looked = Vec::new();
    for (path, begun) in &wanted.programs {
        let own = begun.iter().find_map(|begun| {
            let exe = executable(begun.tgid, |running| running == &**path)?;
            is_there(begun.tgid).then(|| required(&exe)).flatten()
        });
        let required = own.or_else(|| {
            begun.iter().find_map(|begun| {
                let root = roots.entry(begun.mount_ns);
                let root = root.or_insert_with(|| root_of(hierarchy, &wanted.living, begun.mount_ns));
                required(&below(root.as_ref()?, path)?)
            })
        });
        if let Some(required) = required {
            looked.push(Looked { whose: wanted.whose.clone(), path: path.clone(), required });
        }
    }
    looked
}

/// What a process runs, if the path of it is right. Nothing is asked of its file system.
fn executable(tgid: u32, is: impl Fn(&[u8]) -> bool) -> Option<OwnedFd> {
    let exe = open(format!("/proc/{tgid}/exe"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // Of what was opened, for the process may run something else by now.
    let path = fs::read_link(own_link(&exe)).ok()?.into_os_string().into_vec();
    let path = path.strip_suffix(DELETED).unwrap_or(&path);
    is(path).then_some(exe)
}

fn own_link(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The file at a path below a root, whatever is mounted there. The kernel gave the path, so a link on it is another file.
fn below(root: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    openat2(root, OsStr::from_bytes(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
}

/// The root of a mount namespace, by somebody in one of these cgroups who is at home there: who runs a program that began
/// there, in this namespace and not below a directory of its (chroot). A runtime on its way in does not.
fn root_of(hierarchy: &Hierarchy, places: &[Living], mount_ns: u32) -> Option<OwnedFd> {
    if mount_ns == 0 || Some(mount_ns) == kernel_files::host_namespace("mnt") {
        return None;
    }
    places.iter().find_map(|place| {
        // Escaped, if it has a backslash; an odd one is no directory then, or not this one.
        let path = place.cgroup.path.replace(r"\\", r"\");
        let directory = hierarchy.root.join(path.trim_start_matches('/'));
        if fs::symlink_metadata(&directory).ok()?.ino() != place.id.0 {
            return None;
        }
        let mut procs = String::new();
        File::open(directory.join("cgroup.procs")).ok()?.take(MAX_PROCS).read_to_string(&mut procs).ok()?;
        procs.lines().filter_map(|line| line.parse().ok()).take(MAX_TRIED).find_map(|tgid: u32| {
            let began =
                |path: &[u8]| place.programs.iter().any(|programs| programs.by_path.contains_key(path));
            executable(tgid, began)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(format!("/proc/{tgid}/root"), flags, Mode::empty()).ok()?;
            let is_whole = fs::read_link(own_link(&root)).is_ok_and(|path| path == Path::new("/"));
            let is_there = kernel_files::namespace(&tgid.to_string(), "mnt") == Some(mount_ns)
                && hierarchy.directory_of(tgid) == Some(place.id.0);
            (is_whole && is_there).then_some(root)
        })
    })
}

/// What must be in the bounding set for a file to be begun; `None` if it cannot be told.
fn required(file: &OwnedFd) -> Option<u64> {
    // More than there can be, so that what is longer is seen.
    let mut data = [0_u8; 64];
    match getxattr(own_link(file), "security.capability", &mut data) {
        Ok(len) => parse(data.get(..len)?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Some(0),
        Err(_) => None,
    }
}

/// The permitted capabilities in a `struct vfs_cap_data` (linux/capability.h) with the effective bit, 0 without that bit;
/// `None` if it is none of the three revisions. Whose root it is for (revision 3) is left aside: to keep too much breaks
/// nothing.
fn parse(data: &[u8]) -> Option<u64> {
    const REVISION: u32 = 0xff00_0000;
    const EFFECTIVE: u32 = 1;
    let word = |at: usize| Some(u32::from_le_bytes(data.get(4 * at..4 * at + 4)?.try_into().ok()?));
    let magic = word(0)?;
    // Permitted and inheritable by turns, low words first.
    let permitted = match (magic & REVISION, data.len()) {
        (0x0100_0000, 12) => word(1)?.into(),
        (0x0200_0000, 20) | (0x0300_0000, 24) => u64::from(word(1)?) | u64::from(word(3)?) << 32,
        _ => return None,
    };
    Some(if magic & EFFECTIVE == 0 { 0 } else { permitted })
}

#[cfg(test)]
mod tests {
    use super::super::programs::Begun;
    use super::*;
    use crate::enrich::container::Cgroup;
    use crate::hierarchy::HierarchyChoice;
    use monitor_common::ids::CgroupId;

    fn data(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn each_revision_is_read() {
        assert_eq!(parse(&data(&[0x0100_0001, 1 << 10, 1 << 3])), Some(1 << 10));
        assert_eq!(parse(&data(&[0x0200_0001, 1 << 10, 7, 1 << 6, 7])), Some(1 << 10 | 1 << 38));
        assert_eq!(parse(&data(&[0x0300_0001, 1 << 13, 0, 0, 0, 100_000])), Some(1 << 13));
        assert_eq!(parse(&data(&[0x0200_0000, 1 << 10, 0, 0, 0])), Some(0), "not in force at once");
        assert_eq!(parse(&data(&[0x0200_0001, 0, 1 << 10, 0, 0])), Some(0), "only inheritable");
    }

    #[test]
    fn damage_is_no_answer() {
        let whole = [0x0200_0001, 1 << 10, 0, 0, 0, 0, 0];
        for words in [1, 2, 3, 4, 6, 7] {
            assert_eq!(parse(&data(&whole[..words])), None, "{words} words");
        }
        assert_eq!(parse(&data(&whole[..5])), Some(1 << 10));
        assert_eq!(parse(&data(&whole[..5])[..19]), None);
        for revision in [0, 0x0400_0000, 0xff00_0000] {
            assert_eq!(parse(&data(&[revision | 1, 1, 0, 0, 0])), None, "{revision:#x}");
        }
        assert_eq!(parse(&[]), None);
    }

    fn wanted(path: &[u8], tgid: u32, place: u64) -> Wanted {
        let cgroup = Arc::new(Cgroup::new(b"/nowhere"));
        Wanted {
            whose: Whose::Cgroup(CgroupId(place)),
            delegated: false,
            living: vec![Living { id: CgroupId(place), cgroup, programs: Vec::new() }],
            programs: HashMap::from([(Arc::from(path), vec![Begun { tgid, told: false, mount_ns: 0 }])]),
        }
    }

    #[test]
    fn this_program_has_no_capabilities_of_its_file() {
        let Ok(Some(hierarchy)) = Hierarchy::find(HierarchyChoice::Auto) else { return };
        let own = std::process::id();
        let Some(place) = hierarchy.directory_of(own) else { return };
        let exe = std::env::current_exe().unwrap().into_os_string().into_vec();
        let found = look(&hierarchy, &wanted(&exe, own, place));
        assert_eq!(found.iter().map(|looked| looked.required).collect::<Vec<_>>(), [0]);
        assert_eq!(look(&hierarchy, &wanted(b"/bin/other", own, place)), [], "it runs something else");
        assert_eq!(look(&hierarchy, &wanted(&exe, own, place + 1)), [], "it is elsewhere");
        assert_eq!(look(&hierarchy, &wanted(&exe, u32::MAX, place)), [], "it is gone");
    }

    #[test]
    fn a_path_stays_below_its_root_and_a_link_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/a"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("bin/link")).unwrap();
        let root = open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let ino = |path: &[u8]| below(&root, path).map(|file| rustix::fs::fstat(&file).unwrap().st_ino);
        let expected = fs::metadata(dir.path().join("bin/a")).unwrap().ino();
        assert_eq!(ino(b"/bin/a"), Some(expected));
        assert_eq!(ino(b"/../../../bin/a"), Some(expected));
        assert_eq!((ino(b"/bin/link"), ino(b"/bin/none")), (None, None));
        assert_eq!(required(&below(&root, b"/bin/a").unwrap()), Some(0));
    }

    /// A looker whose looks at a container wait until they may end.
    fn slow() -> (FileLooker, SyncSender<()>) {
        let (go, wait) = sync_channel::<()>(0);
        let wait = Mutex::new(wait);
        let looker = FileLooker::of(Arc::new(move |wanted: &Wanted| {
            if !wanted.programs.contains_key(b"/quick".as_slice()) {
                let _ = wait.lock().unwrap().recv();
            }
            vec![Looked { whose: wanted.whose.clone(), path: Arc::from(*b"/a"), required: 4 }]
        }));
        (looker, go)
    }

    #[test]
    fn nobody_waits_for_a_file_system_that_does_not_answer() {
        let (mut looker, go) = slow();
        assert_eq!(looker.look(vec![wanted(b"/a", 1, 1)]), []);
        let begun = Instant::now();
        assert_eq!(looker.look(vec![wanted(b"/b", 1, 1)]), [], "it is busy");
        assert!(begun.elapsed() < PATIENCE);
        let of_user = Wanted { delegated: true, ..wanted(b"/quick", 1, 2) };
        assert_eq!(looker.look(vec![of_user]).len(), 1, "others have a thread of their own");
        go.send(()).unwrap();
        let late = loop {
            match looker.look(Vec::new()) {
                none if none.is_empty() => thread::sleep(Duration::from_millis(1)),
                late => break late,
            }
        };
        assert_eq!(late[0].required, 4, "what comes late is not lost");
        assert_eq!(looker.look(vec![wanted(b"/quick", 1, 1)]).len(), 1);
    }

    #[test]
    fn a_thread_that_hangs_is_left_behind_a_few_times() {
        let (mut looker, _go) = slow();
        for place in 1..=MAX_LEFT as u64 {
            assert_eq!(looker.look(vec![wanted(b"/hangs", 1, place)]), []);
            let thread = looker.0[0].thread.as_mut().unwrap();
            thread.busy = thread.busy.and_then(|since| since.checked_sub(TOO_LONG));
            if place < MAX_LEFT as u64 {
                assert_eq!(looker.look(vec![wanted(b"/quick", 1, 99)]).len(), 1, "another took its place");
                assert_eq!(looker.look(vec![wanted(b"/quick", 1, place)]), [], "it is not asked again");
            }
        }
        assert_eq!(looker.look(vec![wanted(b"/quick", 1, 99)]), [], "enough of them hang");
    }
}
