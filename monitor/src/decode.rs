//! Bytes from the ring buffer to [`RawEvent`]s. The bytes are input, not memory: nothing is cast, every
//! length and every number is checked, and nothing here can panic.

mod caps;
mod exec;

pub use caps::{RawCheck, RawGain};
pub use exec::RawExec;

use monitor_common::WIRE_VERSION;
use monitor_common::call::{Abi, Call};
use monitor_common::ids::{BootNs, CgroupId, Gid, NsInum, Tgid, Tid, Uid};
use monitor_common::wire::{CGROUP_PATH, CLAIMED_PATH, kind};

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its kind says, or than its own length says.
    #[error("record too short")]
    Short,
    /// Longer than its own length says.
    #[error("record too long")]
    Long,
    /// Written by programs of another version.
    #[error("wire version differs")]
    Version,
    /// Not a kind of record.
    #[error("unknown kind of record")]
    Kind,
    /// Not a watched call.
    #[error("unknown call")]
    Call,
    /// Not an ABI.
    #[error("unknown ABI")]
    Abi,
    /// A part of variable length claims more than its room.
    #[error("length of a part out of range")]
    Length,
    /// Not a door.
    #[error("unknown way to gain capabilities")]
    Door,
}

impl DecodeError {
    /// Every reason, for the counters.
    pub const ALL: &[DecodeError] = &[
        DecodeError::Short,
        DecodeError::Long,
        DecodeError::Version,
        DecodeError::Kind,
        DecodeError::Call,
        DecodeError::Abi,
        DecodeError::Length,
        DecodeError::Door,
    ];

    /// The label of the counter.
    pub const fn label(self) -> &'static str {
        match self {
            DecodeError::Short => "short",
            DecodeError::Long => "long",
            DecodeError::Version => "version",
            DecodeError::Kind => "kind",
            DecodeError::Call => "call",
            DecodeError::Abi => "abi",
            DecodeError::Length => "length",
            DecodeError::Door => "door",
        }
    }
}

/// A process for ever: its id and when it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Its id in the initial pid namespace.
    pub tgid: Tgid,
    /// `start_boottime` of its leading thread.
    pub start: BootNs,
}

/// The acting task; see [`monitor_common::wire::Task`] for each member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawTask {
    /// The process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: Tid,
    /// The process's parent.
    pub parent: ProcessKey,
    /// Process id in its own pid namespace.
    pub ns_tgid: u32,
    /// Where it is in the chosen cgroup hierarchy; 0 if that is not known.
    pub cgroup: CgroupId,
    /// Effective user.
    pub euid: Uid,
    /// Effective group.
    pub egid: Gid,
    /// Login user; `u32::MAX` without a login.
    pub loginuid: Uid,
    /// Session id in the initial pid namespace; 0 if not known.
    pub session: u32,
    /// Name of the thread; the process chooses it.
    pub comm: [u8; 16],
}

/// Namespaces by kind: mnt, pid (for children), user, net, uts, ipc, cgroup, time; 0 where not read.
pub type NsSet = [NsInum; 8];

/// A watched call; see [`monitor_common::wire::CallRecord`] for each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCall<'r> {
    /// When it returned.
    pub boot: BootNs,
    /// Who called.
    pub task: RawTask,
    /// What was called.
    pub call: Call,
    /// Through which table.
    pub abi: Abi,
    /// bits of [`monitor_common::wire::call_flag`].
    pub flags: u32,
    /// Under which number.
    pub nr: u32,
    /// What it returned.
    pub ret: i64,
    /// Registers.
    pub args: [u64; 4],
    /// User memory: a claim.
    pub claimed: [u64; 4],
    /// Effective capabilities before and after, asked for and denied, asked for and granted.
    pub caps_before: u64,
    /// See `caps_before`.
    pub caps_after: u64,
    /// See `caps_before`.
    pub caps_denied: u64,
    /// See `caps_before`.
    pub caps_granted: u64,
    /// Namespaces before.
    pub ns_before: NsSet,
    /// Namespaces after; of the child with `CHILD`.
    pub ns_after: NsSet,
    /// Device number.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Inode in procfs.
    pub file_ino: u64,
    /// The path that the caller gave to an open: a claim; empty elsewhere.
    pub path: &'r [u8],
}

impl RawCall<'static> {
    /// Stands for a record where an event is no call: who, when and in which namespaces. The rest means nothing.
    pub fn of_state(boot: BootNs, task: RawTask, ns: NsSet) -> Self {
        RawCall {
            boot,
            task,
            call: Call::Setns,
            abi: Abi::X86_64,
            flags: 0,
            nr: 0,
            ret: 0,
            args: [0; 4],
            claimed: [0; 4],
            caps_before: 0,
            caps_after: 0,
            caps_denied: 0,
            caps_granted: 0,
            ns_before: ns,
            ns_after: ns,
            major: 0,
            minor: 0,
            file_ino: 0,
            path: b"",
        }
    }
}

impl RawCall<'_> {
    /// True if the bit of `call_flag` is set.
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawEvent<'r> {
    /// A watched call returned.
    Call(RawCall<'r>),
    /// See [`RawExec`].
    Exec(RawExec<'r>),
    /// A process was made.
    Fork {
        /// The new process.
        task: RawTask,
        /// Who made it.
        caller: ProcessKey,
    },
    /// A process ended.
    Exit {
        /// When.
        boot: BootNs,
        /// Which.
        process: ProcessKey,
    },
    /// A directory of the chosen cgroup hierarchy was made (`true`) or removed.
    Cgroup {
        /// When.
        boot: BootNs,
        /// Made, not removed.
        made: bool,
        /// Its id.
        id: CgroupId,
        /// Its path below the root of the hierarchy.
        path: &'r [u8],
    },
    /// A process was moved into a cgroup.
    Attach {
        /// Which.
        process: ProcessKey,
        /// Whereto.
        cgroup: CgroupId,
    },
    /// A task's namespaces change, by whatever door.
    Nsproxy {
        /// When.
        boot: BootNs,
        /// Whose.
        task: RawTask,
        /// What it gets; for the user namespace see [`monitor_common::wire::NsproxyRecord::ns_after`].
        ns: NsSet,
    },
    /// A capability was checked for the first time in this way.
    Capability {
        /// When.
        boot: BootNs,
        /// Who was checked.
        task: RawTask,
        /// Its namespaces.
        ns: NsSet,
        /// What was asked for, and what came of it.
        check: RawCheck,
    },
    /// A task's credentials grew.
    Gained {
        /// When.
        boot: BootNs,
        /// Whose.
        task: RawTask,
        /// Its namespaces.
        ns: NsSet,
        /// From what to what.
        gain: RawGain,
    },
}

/// When a canary made this record; `None` for a record of any other task, and for one too short to tell.
pub fn canary_boot(bytes: &[u8]) -> Option<BootNs> {
    let mut r = Reader { rest: bytes };
    let (_version, kind, _len) = (r.u16().ok()?, r.u16().ok()?, r.u32().ok()?);
    let boot = r.u64().ok()?;
    (kind & kind::CANARY_BIT != 0).then_some(BootNs(boot))
}

/// When a record was made; 0 for one too short to tell.
pub fn boot_of(bytes: &[u8]) -> BootNs {
    let mut r = Reader { rest: bytes };
    let header = r.u64().and_then(|_| r.u64());
    BootNs(header.unwrap_or(0))
}

/// Decodes one record, a canary's ([`canary_boot`]) like any other.
///
/// # Errors
/// [`DecodeError`] names what is wrong; the record is then of no use.
pub fn decode(bytes: &[u8]) -> Result<RawEvent<'_>, DecodeError> {
    let mut r = Reader { rest: bytes };
    let (version, kind) = (r.u16()?, r.u16()?);
    let len = r.u32()? as usize;
    let boot = BootNs(r.u64()?);
    if version != WIRE_VERSION {
        return Err(DecodeError::Version);
    }
    if len > bytes.len() {
        return Err(DecodeError::Short);
    }
    if len < bytes.len() {
        return Err(DecodeError::Long);
    }
    let kind = kind & !kind::CANARY_BIT;
    let event = match kind {
        kind::CALL => RawEvent::Call(r.call(boot)?),
        kind::EXEC => RawEvent::Exec(r.exec()?),
        kind::FORK => {
            let task = r.task()?;
            let tgid = Tgid(r.u32()?);
            r.u32()?;
            RawEvent::Fork { task, caller: ProcessKey { tgid, start: BootNs(r.u64()?) } }
        }
        kind::EXIT => {
            let tgid = Tgid(r.u32()?);
            r.u32()?;
            RawEvent::Exit { boot, process: ProcessKey { tgid, start: BootNs(r.u64()?) } }
        }
        kind::CGROUP_MKDIR | kind::CGROUP_RMDIR => {
            let id = CgroupId(r.u64()?);
            let len = r.u32()?;
            r.u32()?;
            let path = part(r.take(CGROUP_PATH)?, len)?;
            RawEvent::Cgroup { boot, made: kind == kind::CGROUP_MKDIR, id, path }
        }
        kind::CGROUP_ATTACH => {
            let cgroup = CgroupId(r.u64()?);
            let start = BootNs(r.u64()?);
            let tgid = Tgid(r.u32()?);
            r.u32()?;
            RawEvent::Attach { process: ProcessKey { tgid, start }, cgroup }
        }
        kind::NSPROXY => RawEvent::Nsproxy { boot, task: r.task()?, ns: r.ns_set()? },
        kind::CAPABILITY => {
            let (task, ns) = (r.task()?, r.ns_set()?);
            RawEvent::Capability { boot, task, ns, check: r.check()? }
        }
        kind::GAINED | kind::GAINED_UNSEEN => {
            let (task, ns) = (r.task()?, r.ns_set()?);
            let gain = r.gain(&ns, kind == kind::GAINED_UNSEEN)?;
            RawEvent::Gained { boot, task, ns, gain }
        }
        _ => return Err(DecodeError::Kind),
    };
    if r.rest.is_empty() { Ok(event) } else { Err(DecodeError::Long) }
}

/// The filled beginning of a part that has fixed room.
fn part(room: &[u8], len: u32) -> Result<&[u8], DecodeError> {
    room.get(..len as usize).ok_or(DecodeError::Length)
}

struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    fn take(&mut self, n: usize) -> Result<&'r [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_ne_bytes)
    }

    fn u64s<const N: usize>(&mut self) -> Result<[u64; N], DecodeError> {
        let mut values = [0; N];
        for value in &mut values {
            *value = self.u64()?;
        }
        Ok(values)
    }

    fn ns_set(&mut self) -> Result<NsSet, DecodeError> {
        let mut set = NsSet::default();
        for inum in &mut set {
            *inum = NsInum(self.u32()?);
        }
        Ok(set)
    }

    fn task(&mut self) -> Result<RawTask, DecodeError> {
        let cgroup = CgroupId(self.u64()?);
        let start = BootNs(self.u64()?);
        let parent_start = BootNs(self.u64()?);
        let tgid = Tgid(self.u32()?);
        let tid = Tid(self.u32()?);
        let parent = ProcessKey { tgid: Tgid(self.u32()?), start: parent_start };
        let ns_tgid = self.u32()?;
        let (euid, egid) = (Uid(self.u32()?), Gid(self.u32()?));
        let loginuid = Uid(self.u32()?);
        let session = self.u32()?;
        let process = ProcessKey { tgid, start };
        let comm = self.array()?;
        Ok(RawTask { process, tid, parent, ns_tgid, cgroup, euid, egid, loginuid, session, comm })
    }

    fn call(&mut self, boot: BootNs) -> Result<RawCall<'r>, DecodeError> {
        let task = self.task()?;
        let call = Call::from_wire(self.u16()?).ok_or(DecodeError::Call)?;
        let abi = Abi::from_wire(self.u16()?).ok_or(DecodeError::Abi)?;
        let (flags, nr) = (self.u32()?, self.u32()?);
        self.u32()?;
        let ret = self.u64()?.cast_signed();
        let (args, claimed) = (self.u64s()?, self.u64s()?);
        let [caps_before, caps_after, caps_denied, caps_granted] = self.u64s()?;
        let (ns_before, ns_after) = (self.ns_set()?, self.ns_set()?);
        let (major, minor) = (self.u32()?, self.u32()?);
        let file_ino = self.u64()?;
        let path = if self.rest.is_empty() {
            self.rest
        } else {
            let len = self.u32()?;
            self.u32()?;
            part(self.take(CLAIMED_PATH)?, len)?
        };
        Ok(RawCall {
            boot,
            task,
            call,
            abi,
            flags,
            nr,
            ret,
            args,
            claimed,
            caps_before,
            caps_after,
            caps_denied,
            caps_granted,
            ns_before,
            ns_after,
            major,
            minor,
            file_ino,
            path,
        })
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
