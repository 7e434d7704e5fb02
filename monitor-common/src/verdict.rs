//! How an attempt ended, judged from what the probes saw.

use crate::call::Call;
use crate::caps::Cap;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The kernel did it.
    Allowed,
    /// Something whose job it is to refuse refused it.
    Refused(RefusedBy),
    /// A plain error such as `EINVAL`: the attempt was wrong in itself.
    Failed,
}

impl Verdict {
    /// The word in events (`evt.verdict`).
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Refused(_) => "refused",
            Verdict::Failed => "failed",
        }
    }

    /// Who refused; `None` unless refused.
    pub const fn refused_by(self) -> Option<RefusedBy> {
        match self {
            Verdict::Refused(by) => Some(by),
            Verdict::Allowed | Verdict::Failed => None,
        }
    }
}

/// Who refused an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    /// A seccomp filter of the task.
    Seccomp,
    /// A capability check (`cap_capable`) that the task did not pass.
    Capability,
    /// A Linux security module.
    Lsm,
    /// The device controller of the task's cgroup.
    DeviceCgroup,
    /// The kernel said `EPERM` or `EACCES` for another reason, or nobody could see who.
    Other,
}

impl RefusedBy {
    /// The word in events (`evt.refused_by`).
    pub const fn name(self) -> &'static str {
        match self {
            RefusedBy::Seccomp => "seccomp",
            RefusedBy::Capability => "capability",
            RefusedBy::Lsm => "lsm",
            RefusedBy::DeviceCgroup => "device-cgroup",
            RefusedBy::Other => "other",
        }
    }
}

/// `EPERM`, as the kernel returns it.
pub const EPERM: i64 = -1;
/// `EACCES`, as the kernel returns it.
pub const EACCES: i64 = -13;
/// `ENOSYS`, as the kernel returns it.
pub const ENOSYS: i64 = -38;

/// What the probes saw of one attempt, reduced to what the verdict rests on.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// What was called.
    pub call: Call,
    /// What it returned.
    pub ret: i64,
    /// Its number in its system call table: what a call that a filter trapped or killed "returns".
    pub nr: u32,
    /// The seccomp hook itself saw the refusal: certain.
    pub seccomp_refused: bool,
    /// The task has a seccomp filter and no hook sits on seccomp: a refusal by it must be inferred.
    pub seccomp_possible: bool,
    /// Capability checks are seen at all on this kernel and in this mode.
    pub caps_visible: bool,
    /// Some hook inside the call was passed: the filter had let it through.
    pub reached: bool,
    /// Capabilities that were asked for during the call and denied, as a mask.
    pub caps_denied: u64,
    /// Capabilities that were asked for during the call and granted, as a mask.
    pub caps_granted: u64,
    /// The device controller was asked about a watched device during the call.
    pub device_asked: bool,
    /// capset only: the caller named another process, which the kernel refuses before any check.
    pub foreign_pid: bool,
}

impl Evidence {
    /// Judges the attempt.
    ///
    /// In the trampoline mode a refusal by seccomp is a fact. In the tracepoint mode it is inferred:
    /// each watched call makes a capability check before the kernel itself can answer `EPERM`, so
    /// `EPERM` without a check, from a task with a filter, came from the filter. The exceptions are
    /// known: capset for another process, `EPERM` for a user namespace in a chroot, and opens, where the
    /// device controller answers first. `ENOSYS` is taken for a filter's answer (Docker's to clone3), except
    /// to calls that a kernel can be built without.
    pub const fn verdict(&self) -> Verdict {
        if self.seccomp_refused {
            return Verdict::Refused(RefusedBy::Seccomp);
        }
        if self.ret >= 0 {
            // SECCOMP_RET_TRAP and RET_KILL put the registers back (`syscall_rollback`): the result is the number.
            // A descriptor may have that number, so opens are left out.
            let opens = matches!(
                self.call,
                Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt
            );
            let rolled_back = self.ret == self.nr as i64 && !self.reached && !opens;
            if self.seccomp_possible && self.caps_visible && rolled_back {
                return Verdict::Refused(RefusedBy::Seccomp);
            }
            return Verdict::Allowed;
        }
        let refusal = self.ret == EPERM || self.ret == EACCES;
        let reached = self.reached || self.device_asked || self.foreign_pid;
        let optional = matches!(self.call, Call::Iopl | Call::Ioperm);
        let filtered = refusal || (self.ret == ENOSYS && !optional);
        if self.seccomp_possible && self.caps_visible && !reached && filtered {
            return Verdict::Refused(RefusedBy::Seccomp);
        }
        if !refusal {
            return Verdict::Failed;
        }
        if self.caps_denied != 0 {
            return Verdict::Refused(RefusedBy::Capability);
        }
        if matches!(self.call, Call::Capset) {
            // cap_capset compares the new sets with the old ones itself; no other module hooks capset.
            return Verdict::Refused(if self.foreign_pid { RefusedBy::Other } else { RefusedBy::Capability });
        }
        // The drivers of memory and of the log ask for these, after the controller has agreed. Where nobody sees them
        // ask, their refusal cannot be told from the controller's.
        let drivers = Cap::SysRawio.mask() | Cap::Syslog.mask() | Cap::SysAdmin.mask();
        if self.caps_visible && self.device_asked && self.caps_granted & drivers == 0 && self.ret == EPERM {
            return Verdict::Refused(RefusedBy::DeviceCgroup);
        }
        if self.caps_granted != 0 {
            return Verdict::Refused(RefusedBy::Lsm);
        }
        Verdict::Refused(RefusedBy::Other)
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
