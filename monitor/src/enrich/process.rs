//! The process table: who runs what, and who made whom. Fed by fork, exec and exit, seeded from `/proc`.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId, NsInum, Tgid};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::decode::{ProcessKey, RawExec, RawTask};
use crate::kernel_files;
use crate::text::{escape, until_nul};

/// Start times read from `/proc/PID/stat` are whole clock ticks (`USER_HZ` is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;
/// How long a dead process is remembered: its children's ancestors, and its own records still on their way.
const KEEP_DEAD_NS: u64 = 60_000_000_000;

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Who it is.
    pub key: ProcessKey,
    /// Its parent.
    pub parent: ProcessKey,
    /// Its name when it was made or last exec'ed, escaped.
    pub comm: Arc<str>,
    /// Path of its executable, escaped; empty if unknown.
    pub exe: Arc<str>,
    /// Inode of the executable.
    pub exe_ino: u64,
    /// Device of its file system, `major << 20 | minor`; 0 if unknown.
    pub exe_dev: u32,
    /// Where it was last seen in the cgroup tree.
    pub cgroup: CgroupId,
    /// It came into its container from outside and has not yet exec'ed a program of the container's own
    /// mount namespace: the runtime is still at work.
    pub starting: bool,
    /// When its leading thread ended. An exec by another thread takes the leader's place, and the process
    /// lives on under the same id.
    pub ended: Option<BootNs>,
}

/// The known processes.
#[derive(Debug)]
pub struct Processes {
    table: HashMap<Tgid, Process>,
    /// Dead ones, oldest first.
    dead: VecDeque<(BootNs, ProcessKey)>,
    capacity: usize,
    host_mnt_ns: NsInum,
    /// Living processes that were forgotten because the table was full, since the number was last taken.
    pub evicted: u64,
}

impl Processes {
    /// An empty table for at most `capacity` processes, on a host whose mount namespace is `host_mnt_ns`.
    pub fn new(capacity: usize, host_mnt_ns: NsInum) -> Self {
        Processes {
            table: HashMap::new(),
            dead: VecDeque::new(),
            capacity: capacity.max(1),
            host_mnt_ns,
            evicted: 0,
        }
    }

    /// Number of remembered processes, dead ones included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if none is remembered.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The process, if it is known; another one that had the same id is not it.
    pub fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.table.get(&key.tgid).filter(|process| same_start(process.key.start, key.start))
    }

    /// An ancestor: 0 is the process itself, 1 its parent, and so on.
    pub fn ancestor(&self, key: ProcessKey, generation: u16) -> Option<&Process> {
        let mut process = self.get(key)?;
        for _ in 0..generation {
            process = self.get(process.parent)?;
        }
        Some(process)
    }

    /// A process was made: it runs what its maker runs. `enters` is true if its cgroup lies in a container
    /// in which its maker's does not.
    pub fn forked(&mut self, task: &RawTask, caller: ProcessKey, enters: bool) {
        let maker = self.get(caller).or_else(|| self.get(task.parent));
        let process = Process {
            key: task.process,
            parent: task.parent,
            comm: comm(&task.comm),
            exe: maker.map_or_else(|| Arc::from(""), |maker| Arc::clone(&maker.exe)),
            exe_ino: maker.map_or(0, |maker| maker.exe_ino),
            exe_dev: maker.map_or(0, |maker| maker.exe_dev),
            cgroup: task.cgroup,
            starting: enters || maker.is_some_and(|maker| maker.starting),
            ended: None,
        };
        self.insert(process);
    }

    /// A process exec'ed.
    pub fn execed(&mut self, exec: &RawExec<'_>) {
        let task = &exec.task;
        let was_starting = self.get(task.process).is_some_and(|process| process.starting);
        // The container's own program: its file lies in the mount namespace that the process is in, and that
        // is not the host's. The runtime's binary, or a sealed copy of it in memory, lies elsewhere.
        let own_program = exec.exe_mnt_ns == exec.mnt_ns && exec.mnt_ns != self.host_mnt_ns;
        self.insert(Process {
            key: task.process,
            parent: task.parent,
            comm: comm(&task.comm),
            exe: Arc::from(escape(&exec.path())),
            exe_ino: exec.exe_ino,
            exe_dev: exec.exe_dev,
            cgroup: task.cgroup,
            starting: was_starting && !own_program,
            ended: None,
        });
    }

    /// A process was moved into a cgroup; `enters` as for [`Processes::forked`].
    pub fn attached(&mut self, key: ProcessKey, cgroup: CgroupId, enters: bool) {
        if let Some(process) = self.table.get_mut(&key.tgid).filter(|p| same_start(p.key.start, key.start)) {
            process.cgroup = cgroup;
            process.starting |= enters;
        }
    }

    /// A process ended; it is forgotten a minute later.
    pub fn exited(&mut self, key: ProcessKey, now: BootNs) {
        if let Some(process) = self.table.get_mut(&key.tgid).filter(|p| same_start(p.key.start, key.start)) {
            process.ended = Some(now);
            self.dead.push_back((now, key));
        }
        // Ids are reused before a minute is over, so the queue could outgrow the table.
        while let Some((when, _)) = self.dead.front()
            && (now.0.saturating_sub(when.0) >= KEEP_DEAD_NS || self.dead.len() > self.capacity)
        {
            self.forget_oldest();
        }
    }

    /// Forgets the process that ended first, unless it exec'ed since; `false` if none is waiting.
    fn forget_oldest(&mut self) -> bool {
        let Some((when, key)) = self.dead.pop_front() else { return false };
        if self.get(key).is_some_and(|process| process.ended == Some(when)) {
            self.table.remove(&key.tgid);
        }
        true
    }

    fn insert(&mut self, process: Process) {
        while self.table.len() >= self.capacity && !self.table.contains_key(&process.key.tgid) {
            if !self.forget_oldest() {
                // Whichever the hash order gives: an attacker cannot choose the victim.
                let Some(victim) = self.table.keys().next().copied() else { break };
                self.table.remove(&victim);
                self.evicted += 1;
            }
        }
        self.table.insert(process.key.tgid, process);
    }

    /// Learns the processes that run already, over a cgroup hierarchy mounted at `cgroup_root`. Those known from
    /// records are left as they are.
    pub fn seed(&mut self, cgroup_root: Option<&Path>) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(tgid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && !self.table.contains_key(&Tgid(tgid))
                && let Some(process) = read_process(Tgid(tgid), CgroupId(0))
            {
                let cgroup = cgroup_root.and_then(|root| kernel_files::cgroup2_of(tgid, root));
                self.insert(Process { cgroup: CgroupId(cgroup.unwrap_or(0)), ..process });
            }
        }
    }

    /// Learns one process that a record named and that the table misses, if it still runs.
    pub fn learn(&mut self, task: &RawTask) {
        if self.get(task.process).is_none()
            && let Some(process) = read_process(task.process.tgid, task.cgroup)
            && same_start(process.key.start, task.process.start)
        {
            self.insert(Process { key: task.process, parent: task.parent, ..process });
        }
    }
}

/// Reads a process from `/proc`; `None` if it is gone.
fn read_process(tgid: Tgid, cgroup: CgroupId) -> Option<Process> {
    let (comm, parent, start) = stat(tgid)?;
    let (_, _, parent_start) = stat(parent).unwrap_or((Arc::from(""), Tgid(0), BootNs(0)));
    let link = format!("/proc/{tgid}/exe");
    let exe = fs::read_link(&link).unwrap_or_default();
    // Not synchronised: the file may lie on a file system whose server the process runs itself and lets hang.
    let file = statx(CWD, &link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok();
    Some(Process {
        key: ProcessKey { tgid, start },
        parent: ProcessKey { tgid: parent, start: parent_start },
        comm,
        exe: Arc::from(escape(exe.as_os_str().as_bytes())),
        exe_ino: file.map_or(0, |file| file.stx_ino),
        exe_dev: file.map_or(0, |file| file.stx_dev_major << 20 | file.stx_dev_minor),
        cgroup,
        starting: false,
        ended: None,
    })
}

/// Name, parent and start time from `/proc/PID/stat`.
fn stat(tgid: Tgid) -> Option<(Arc<str>, Tgid, BootNs)> {
    parse_stat(&fs::read(format!("/proc/{tgid}/stat")).ok()?)
}

fn parse_stat(stat: &[u8]) -> Option<(Arc<str>, Tgid, BootNs)> {
    // The name stands in parentheses and may hold any byte, parentheses and blanks too.
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?;
    let mut words = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let parent = words.nth(1)?.parse().ok()?;
    // Fields are counted from 1 in proc(5); starttime is 22, and the state behind the name is 3.
    let ticks: u64 = words.nth(22 - 3 - 2)?.parse().ok()?;
    Some((Arc::from(escape(name)), Tgid(parent), BootNs(ticks.saturating_mul(TICK_NS))))
}

/// Start times are equal, or one of them is known to the tick only and the ticks are equal.
fn same_start(a: BootNs, b: BootNs) -> bool {
    let coarse = a.0.is_multiple_of(TICK_NS) || b.0.is_multiple_of(TICK_NS);
    a == b || (coarse && a.0 / TICK_NS == b.0 / TICK_NS)
}

fn comm(bytes: &[u8; 16]) -> Arc<str> {
    Arc::from(escape(until_nul(bytes)))
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
