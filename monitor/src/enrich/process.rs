//! The process table: who runs what, and who made whom. Fed by fork, exec and exit, seeded from `/proc`.

mod procfs;
mod program;

pub use program::{Arguments, Program};

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use arrayvec::ArrayVec;
use monitor_common::ids::{BootNs, CgroupId, NsInum, Tgid};

use crate::decode::{ProcessKey, RawExec, RawTask};
use crate::enrich::namespaces::Standing;
use crate::hierarchy::Hierarchy;
use crate::text::{escape, until_nul};
use program::Held;

/// Start times read from `/proc/PID/stat` are whole clock ticks (`USER_HZ` is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;
/// How long a dead process is remembered: its children's ancestors, and its own records still on their way.
const KEEP_DEAD_NS: u64 = 60_000_000_000;

/// How long the starting phase may last: a runtime needs milliseconds to bring a process into a container.
pub const STARTING_NS: u64 = 10_000_000_000;

/// Most bytes of paths and command lines that are held for all processes together. Each may have 13 KiB of them, if
/// somebody fills them with bytes that have to be escaped.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Most ancestors that are asked for.
pub const MAX_ANCESTORS: usize = 8;

/// A process and its ancestors, as they are now: the process itself, its parent, and so on.
pub type Lineage = ArrayVec<Arc<Process>, { MAX_ANCESTORS + 1 }>;

/// A process for ever, whether its start was read from `/proc`, to the tick, or came in a record: no id is given out
/// twice within a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StableId {
    /// Its id in the initial pid namespace.
    pub tgid: Tgid,
    /// When its leading thread started, in clock ticks since boot.
    pub ticks: u64,
}

impl From<ProcessKey> for StableId {
    fn from(key: ProcessKey) -> Self {
        StableId { tgid: key.tgid, ticks: key.start.0 / TICK_NS }
    }
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Who it is.
    pub key: ProcessKey,
    /// Its parent.
    pub parent: ProcessKey,
    /// Its name when it was made or last exec'ed, escaped.
    pub comm: Arc<str>,
    /// What it runs.
    pub program: Arc<Program>,
    /// Where it was last seen in the cgroup tree.
    pub cgroup: CgroupId,
    /// Mount namespace in which it, or the maker that it is a copy of, last exec'ed; 0 if unknown.
    pub exec_mnt_ns: NsInum,
    /// It came into its container from outside and has not yet exec'ed inside the container's mount namespace: the
    /// runtime is still at work.
    pub starting: bool,
    /// When it, or the maker that it is a copy of, came into the container; means something only while it starts.
    pub starting_since: BootNs,
    /// Where it belongs, and whether it is still there.
    pub standing: Standing,
    /// When its leading thread ended. An exec by another thread takes the leader's place, and the process
    /// lives on under the same id.
    pub ended: Option<BootNs>,
}

impl Process {
    /// True if it is starting, and has been for longer than a runtime needs.
    pub fn starts_late(&self, now: BootNs) -> bool {
        self.starting && now.0.saturating_sub(self.starting_since.0) >= STARTING_NS
    }
}

/// What a process runs of which nobody knows.
static UNKNOWN: LazyLock<Arc<Program>> = LazyLock::new(Arc::default);

/// The known processes. Each stands behind a pointer, so that who has to remember one takes a copy of that; the
/// table changes a copy of its own while somebody does.
#[derive(Debug)]
pub struct Processes {
    table: HashMap<StableId, Arc<Process>>,
    /// Dead ones, oldest first.
    dead: VecDeque<(BootNs, ProcessKey)>,
    capacity: usize,
    host_mnt_ns: NsInum,
    /// The device on which memfds lie, `major << 20 | minor`.
    memfds: Option<u32>,
    /// Living processes that were forgotten because the table was full, since the number was last taken.
    pub evicted: u64,
    /// Bytes of texts that are held, also for those who remember a process that the table forgot.
    texts: Arc<AtomicUsize>,
    max_texts: usize,
    /// Programs whose texts found no room, since the number was last taken.
    pub texts_left_out: u64,
}

impl Processes {
    /// An empty table for at most `capacity` processes, on a host whose mount namespace is `host_mnt_ns`.
    pub fn new(capacity: usize, host_mnt_ns: NsInum) -> Self {
        Processes {
            table: HashMap::new(),
            dead: VecDeque::new(),
            capacity: capacity.max(1),
            host_mnt_ns,
            memfds: procfs::memfd_device(),
            evicted: 0,
            texts: Arc::default(),
            max_texts: MAX_TEXT_BYTES,
            texts_left_out: 0,
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

    /// Bytes of paths and command lines that are held; see [`MAX_TEXT_BYTES`].
    pub fn text_bytes(&self) -> usize {
        self.texts.load(Ordering::Relaxed)
    }

    /// The process, if it is known; another one that had the same id is not it.
    pub fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.table.get(&key.into()).map(|process| &**process)
    }

    /// To change it: a copy, if somebody remembers it as it was.
    fn get_mut(&mut self, key: ProcessKey) -> Option<&mut Process> {
        self.table.get_mut(&key.into()).map(Arc::make_mut)
    }

    /// An ancestor: 0 is the process itself, 1 its parent, and so on.
    pub fn ancestor(&self, key: ProcessKey, generation: u16) -> Option<&Process> {
        let mut process = self.get(key)?;
        for _ in 0..generation {
            process = self.get(process.parent)?;
        }
        Some(process)
    }

    /// The process and its ancestors, to be remembered as they are now. It ends where the table does not know who
    /// comes next, and is empty if it does not know the process.
    pub fn lineage(&self, key: ProcessKey) -> Lineage {
        let next = |process: &&Arc<Process>| self.table.get(&process.parent.into());
        let known = std::iter::successors(self.table.get(&key.into()), next);
        known.take(MAX_ANCESTORS + 1).cloned().collect()
    }

    /// A process was made: it runs what its maker runs. `enters` is true if its cgroup lies in a container
    /// in which its maker's does not.
    pub fn forked(&mut self, task: &RawTask, caller: ProcessKey, enters: bool) {
        let maker = self.get(caller).or_else(|| self.get(task.parent));
        let process = Process {
            key: task.process,
            parent: task.parent,
            comm: comm(&task.comm),
            program: Arc::clone(maker.map_or(&*UNKNOWN, |maker| &maker.program)),
            cgroup: task.cgroup,
            exec_mnt_ns: maker.map_or(NsInum(0), |maker| maker.exec_mnt_ns),
            starting: enters || maker.is_some_and(|maker| maker.starting),
            starting_since: maker
                .filter(|maker| maker.starting)
                .map_or(task.process.start, |maker| maker.starting_since),
            standing: maker.map(|maker| maker.standing.clone()).unwrap_or_default(),
            ended: None,
        };
        self.insert(process);
    }

    /// A process exec'ed.
    pub fn execed(&mut self, exec: &RawExec<'_>) {
        let program = self.keep(Program::from(exec));
        let task = &exec.task;
        let before = self.get(task.process);
        let was_starting = before.is_some_and(|process| process.starting);
        let starting_since = before.map_or(BootNs(0), |process| process.starting_since);
        let standing = before.map(|process| process.standing.clone()).unwrap_or_default();
        let outside = before.map_or(NsInum(0), |process| process.exec_mnt_ns);
        // The container's own program. Its file lies in the mount namespace that the process is in, that not being
        // the host's; or it is exec'ed in another mount namespace than the one that the runtime came from, and
        // then the file does not matter: an image may point back at the runtime by /proc/self/exe. Before, a
        // runtime execs only sealed copies of itself, which lie in no mount namespace.
        let own = exec.ns[0];
        let moved = outside.0 != 0 && own != outside;
        let inside = own != self.host_mnt_ns && (exec.exe_mnt_ns == own || moved);
        self.insert(Process {
            key: task.process,
            parent: task.parent,
            comm: comm(&task.comm),
            program,
            cgroup: task.cgroup,
            exec_mnt_ns: own,
            starting: was_starting && !inside,
            starting_since,
            standing,
            ended: None,
        });
    }

    /// A process was moved into a cgroup; `enters` as for [`Processes::forked`].
    pub fn attached(&mut self, key: ProcessKey, cgroup: CgroupId, enters: bool, when: BootNs) {
        if let Some(process) = self.get_mut(key) {
            process.cgroup = cgroup;
            if enters && !process.starting {
                (process.starting, process.starting_since) = (true, when);
            }
        }
    }

    /// Living processes that have been starting for too long, makers before those that they made.
    pub fn late_starts(&self, now: BootNs) -> Vec<ProcessKey> {
        let late = self.iter().filter(|process| process.ended.is_none() && process.starts_late(now));
        let mut late: Vec<ProcessKey> = late.map(|process| process.key).collect();
        late.sort_by_key(|key| (key.start, key.tgid.0));
        late
    }

    /// A process starts no longer.
    pub fn started(&mut self, key: ProcessKey) {
        if let Some(process) = self.get_mut(key) {
            process.starting = false;
        }
    }

    /// Where the process belongs, as far as it is known.
    pub fn standing(&self, key: ProcessKey) -> Standing {
        self.get(key).map(|process| process.standing.clone()).unwrap_or_default()
    }

    /// Notes where the process belongs; nothing if it is not known.
    pub fn set_standing(&mut self, key: ProcessKey, standing: Standing) {
        if let Some(process) = self.get_mut(key) {
            process.standing = standing;
        }
    }

    /// All that are remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.table.values().map(|process| &**process)
    }

    /// A process ended; it is forgotten a minute later.
    pub fn exited(&mut self, key: ProcessKey, now: BootNs) {
        if let Some(process) = self.get_mut(key) {
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
            self.table.remove(&key.into());
        }
        true
    }

    /// Takes room for a program's texts; without room it has none. No dead process is forgotten for them: the room
    /// is everybody's, and whoever fills it must not make the others' ancestors unknown.
    fn keep(&mut self, program: Program) -> Arc<Program> {
        let bytes = program.text_bytes();
        if self.text_bytes() + bytes > self.max_texts {
            self.texts_left_out += 1;
            return Arc::new(program.without_texts());
        }
        Arc::new(Program { held: Held::new(bytes, &self.texts), ..program })
    }

    fn insert(&mut self, process: Process) {
        let id = StableId::from(process.key);
        while self.table.len() >= self.capacity && !self.table.contains_key(&id) {
            if !self.forget_oldest() {
                // Whichever the hash order gives: an attacker cannot choose the victim.
                let Some(victim) = self.table.keys().next().copied() else { break };
                self.table.remove(&victim);
                self.evicted += 1;
            }
        }
        self.table.insert(id, Arc::new(process));
    }

    /// Learns the processes that run already, and where they are in the hierarchy. Those known from records are
    /// left as they are.
    pub fn seed(&mut self, hierarchy: Option<&Hierarchy>) {
        let mut seeded = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(tgid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && let Some(process) = procfs::read_process(Tgid(tgid), CgroupId(0), self.memfds)
                && self.get(process.key).is_none()
            {
                let cgroup = hierarchy.and_then(|hierarchy| hierarchy.directory_of(tgid));
                seeded.push(process.key);
                let program = self.keep(Program::clone(&process.program));
                self.insert(Process { cgroup: CgroupId(cgroup.unwrap_or(0)), program, ..process });
            }
        }
        for (key, arguments) in procfs::command_lines(seeded) {
            if let Some(program) = self.get(key).map(|process| Program::clone(&process.program)) {
                let program = self.keep(Program { arguments: Some(arguments), ..program });
                if let Some(process) = self.get_mut(key) {
                    process.program = program;
                }
            }
        }
    }

    /// What the process runs is not known any more, until it execs.
    pub fn forget_program(&mut self, key: ProcessKey) {
        if let Some(process) = self.get_mut(key) {
            process.program = Arc::clone(&*UNKNOWN);
        }
    }

    /// Learns one process that a record named and that the table misses, if it still runs. Its command line stays
    /// unknown: it could let its reader wait.
    pub fn learn(&mut self, task: &RawTask) {
        if self.get(task.process).is_none()
            && let Some(process) = procfs::read_process(task.process.tgid, task.cgroup, self.memfds)
            && StableId::from(process.key) == task.process.into()
        {
            let program = self.keep(Program::clone(&process.program));
            self.insert(Process { key: task.process, parent: task.parent, program, ..process });
        }
    }
}

/// True if the process still runs.
pub(super) fn is_running(key: ProcessKey) -> bool {
    procfs::started(key.tgid).is_some_and(|start| same_process(ProcessKey { start, ..key }, key))
}

/// True if two keys name the same process, although one of them may be known to the tick only.
pub(super) fn same_process(a: ProcessKey, b: ProcessKey) -> bool {
    StableId::from(a) == StableId::from(b)
}

fn comm(bytes: &[u8; 16]) -> Arc<str> {
    Arc::from(escape(until_nul(bytes)))
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
