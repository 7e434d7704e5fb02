//! The end of a watched call: is it an attempt, and if so, everything about it goes into one record.
//!
//! Both attach modes end here: `fexit` on the call's own function and `tp_btf/sys_exit` hand over the
//! same registers and return value.

use core::mem::{MaybeUninit, offset_of};

use monitor_common::call::{Abi, Call, NEW_NAMESPACES, X32_SYSCALL_BIT};
use monitor_common::capability::Door;
use monitor_common::caps::Cap;
use monitor_common::wire::{CallRecord, OpenRecord, call_flag, kind};

use crate::kernel::calling::Caller;
use crate::kernel::creds::own_cred;
use crate::kernel::{
    Current, Ptr, Registers, Regs, Watched, caps_of, namespaces, namespaces_differ, parent_user_ns,
    pid_as_seen_by, watched_file, zero,
};
use crate::maps::{Mark, mark, reserve, submit};
use crate::settings::{call_in, door_in, offset, setting, slot_i386, slot_x86_64};
use crate::tasks;
use crate::user::{self, Claims};

/// Is not one of [`NEW_NAMESPACES`].
const CLONE_NEWTIME: u64 = 0x80;
const CLONE_NEWUSER: u64 = 0x1000_0000;
/// What unshare takes besides namespaces: `CLONE_VM`, `CLONE_FS`, `CLONE_FILES`, `CLONE_SIGHAND`, `CLONE_THREAD`,
/// `CLONE_SYSVSEM`.
const OWN_THINGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x0001_0000 | 0x0004_0000;

/// `EACCES` and `EPERM`: the two answers of somebody who refuses.
const EPERM: i64 = -1;
const EACCES: i64 = -13;
/// `EFAULT`: the kernel could not read the arguments either.
const EFAULT: i64 = -14;
/// `ENOSYS`: what filters answer to calls that they do not know.
const ENOSYS: i64 = -38;

/// Reports a clone whose child got other namespaces, when the child is complete and has not run.
///
/// The call's end would be too late: there a tracer may have changed the number (`PTRACE_EVENT_CLONE` stops before
/// it), and the maker of a vfork'ed child comes there only when the child has exec'ed or ended.
#[inline(always)]
pub fn child_made(current: &Current, child: Ptr) {
    if !namespaces_differ(current.task, child) {
        return;
    }
    let regs = current.registers();
    if !may_be_watched(Registers::get(regs, offset_of!(Regs, orig_ax))) {
        return;
    }
    let ret = i64::from(pid_as_seen_by(child, current.task));
    let Some(call) = Returned::new(current, None, regs, ret) else { return };
    if !matches!(call.call, Call::Clone | Call::Clone3) {
        return;
    }
    let mut mark = Mark::of_call(current.tid, call.nr);
    if let Some(mark) = &mut mark {
        mark.filled |= mark::CHILD;
        mark.caps_child = caps_of(child);
        namespaces(child, true, &raw mut mark.ns_child);
    }
    let claims = user::claims(call.call, call.abi, call.nr, &call.args);
    call.send(current, &claims, &mark);
}

/// Reports a watched call in which a seccomp filter killed the thread alone (`SECCOMP_RET_KILL_THREAD`): it never
/// returns. Runs where the thread ends, on the way out of the filter (`__seccomp_filter` calls `do_exit`).
#[inline(always)]
pub fn ended_inside(current: &Current) {
    /// The whole exit code of a thread that `SIGSYS` ended without a core.
    const SIGSYS: u32 = 31;
    /// What stands for the result until a call has one (the entry code puts it there).
    const ENOSYS: u64 = -38_i64 as u64;
    if current.task.get::<u32>(offset!(task_exit_code)) != SIGSYS || !current.has_seccomp_filter() {
        return;
    }
    let regs = current.registers();
    if Registers::get(regs, offset_of!(Regs, ax)) != ENOSYS
        || !may_be_watched(Registers::get(regs, offset_of!(Regs, orig_ax)))
    {
        return;
    }
    let Some(mut call) = Returned::new(current, None, regs, 0) else { return };
    // A refused open is known by what hooks inside the call saw, and here there was nothing inside.
    if call.is_open() {
        return;
    }
    // As where the filter kills the whole process, and the registers are put back.
    call.ret = i64::from(call.nr);
    call.seccomp_refused = true;
    call.report_other(current, None);
}

/// A watched call, as the registers tell it.
pub struct Returned {
    pub call: Call,
    pub abi: Abi,
    pub nr: u32,
    pub args: [u64; 4],
    pub ret: i64,
    /// The hook on seccomp saw the filter refuse it.
    pub seccomp_refused: bool,
}

/// True if the number (`orig_ax`) stands for a watched call in some table: the first question of each hook,
/// asked before anything else is read. A number that is watched in the other table only is sorted out later.
#[inline(always)]
pub fn may_be_watched(orig_ax: u64) -> bool {
    let nr = orig_ax as u32 & !X32_SYSCALL_BIT;
    call_in(slot_x86_64(nr)) != 0 || call_in(slot_i386(nr)) != 0
}

/// True if the number stands for a watched call in the table of the caller's ABI.
#[inline(always)]
pub fn is_watched(orig_ax: u64, is_compat: bool) -> bool {
    call_in(slot_of(orig_ax, is_compat)) != 0
}

/// What a number stands for in the table of the caller's ABI: see [`monitor_common::call::NrTable`].
#[inline(always)]
fn slot_of(orig_ax: u64, is_compat: bool) -> u16 {
    let nr = orig_ax as u32 & !X32_SYSCALL_BIT;
    if is_compat { slot_i386(nr) } else { slot_x86_64(nr) }
}

/// A call that is watched, or a door by which credentials may grow.
#[derive(Clone, Copy)]
pub struct Matter {
    slot: u16,
    is_compat: bool,
}

impl Matter {
    /// `None` for all other calls, which are most of the machine's. Numbers that neither table knows pay for nothing,
    /// and those that only the other table knows, such as fstat's, for a look at the thread's status.
    #[inline(always)]
    pub fn of(orig_ax: u64) -> Option<Self> {
        let nr = orig_ax as u32 & !X32_SYSCALL_BIT;
        if slot_x86_64(nr) | slot_i386(nr) == 0 {
            return None;
        }
        let is_compat = Caller::get().is_compat;
        let slot = slot_of(orig_ax, is_compat);
        if slot == 0 { None } else { Some(Matter { slot, is_compat }) }
    }

    /// Holds the credentials with which the call has returned against those that were known.
    #[inline(always)]
    pub fn settle(self, current: &Current, regs: impl Registers, ret: i64) {
        let first = if self.is_compat { offset_of!(Regs, bx) } else { offset_of!(Regs, di) };
        let door = door_at(self.slot, regs.get(first));
        if door != tasks::NO_DOOR || call_in(self.slot) != 0 {
            // What failed opened no door.
            let door = if ret < 0 { tasks::NO_DOOR } else { door };
            tasks::settle(current, own_cred(current.task), door);
        }
    }
}

/// Wire number of the door that a call is, [`tasks::NO_DOOR`] if it is none. `argument` is its first.
#[inline(always)]
pub fn door_of(orig_ax: u64, is_compat: bool, argument: u64) -> u16 {
    door_at(slot_of(orig_ax, is_compat), argument)
}

#[inline(always)]
fn door_at(slot: u16, argument: u64) -> u16 {
    /// `PR_CAP_AMBIENT` (include/uapi/linux/prctl.h): of prctl's many things the one that may add a capability.
    const PR_CAP_AMBIENT: u32 = 47;
    let door = door_in(slot);
    if door == Door::Prctl as u16 && argument as u32 != PR_CAP_AMBIENT { tasks::NO_DOOR } else { door }
}

impl Returned {
    /// Takes number, ABI and arguments from the saved registers; `None` if the call is not watched. A program
    /// that sits on one call says which: the compiler then leaves out what other calls need.
    #[inline(always)]
    pub fn new(current: &Current, only: Option<Call>, regs: impl Registers, ret: i64) -> Option<Self> {
        let raw = regs.get(offset_of!(Regs, orig_ax)) as u32;
        let nr = raw & !X32_SYSCALL_BIT;
        let compat = current.is_compat();
        let call = match only {
            Some(call) => call,
            None => Call::from_wire(call_in(if compat { slot_i386(nr) } else { slot_x86_64(nr) }))?,
        };
        let low = |register: usize| regs.get(register) & 0xffff_ffff;
        let (abi, args) = if compat {
            let args = [
                low(offset_of!(Regs, bx)),
                low(offset_of!(Regs, cx)),
                low(offset_of!(Regs, dx)),
                low(offset_of!(Regs, si)),
            ];
            (Abi::I386, args)
        } else {
            let args = [
                regs.get(offset_of!(Regs, di)),
                regs.get(offset_of!(Regs, si)),
                regs.get(offset_of!(Regs, dx)),
                regs.get(offset_of!(Regs, r10)),
            ];
            (if raw & X32_SYSCALL_BIT != 0 { Abi::X32 } else { Abi::X86_64 }, args)
        };
        Some(Returned { call, abi, nr, args, ret, seccomp_refused: false })
    }

    /// Reports the call if it is an attempt, and forgets its mark.
    #[inline(always)]
    pub fn report(&self, current: &Current) {
        let mark = Mark::of(current.tid);
        let marked = mark.is_some();
        // A mark of another call: that call ended unseen, as when a tracer made it one that is not watched. One without
        // a number is the device controller's, and only opens ask that.
        let mark = match mark {
            Some(m) if m.nr != self.nr && (m.nr != 0 || !self.is_open()) => None,
            mark => mark,
        };
        if self.is_open() {
            self.report_open(current, mark);
        } else {
            self.report_other(current, mark);
        }
        if marked {
            Mark::forget(current.tid);
        }
    }

    #[inline(always)]
    const fn is_open(&self) -> bool {
        matches!(self.call, Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt)
    }

    #[inline(always)]
    fn report_other(&self, current: &Current, mark: Option<&'static mut Mark>) {
        let claims = user::claims(self.call, self.abi, self.nr, &self.args);
        if self.is_attempt(current, &claims, &mark) {
            self.send(current, &claims, &mark);
        }
    }

    #[inline(always)]
    fn send(&self, current: &Current, claims: &Claims, mark: &Option<&'static mut Mark>) {
        let slot = self.call as u32;
        let cgroup_id = current.cgroup_id();
        let Some(mut entry) = reserve::<CallRecord>(slot, kind::CALL, cgroup_id) else { return };
        self.fill(current, mark, claims, Watched::NONE, &mut entry);
        submit(entry);
    }

    /// True if the call would change or open something: a plain fork or a read of the clock's state is not.
    #[inline(always)]
    fn is_attempt(&self, current: &Current, claims: &Claims, mark: &Option<&'static mut Mark>) -> bool {
        let checked = |cap: Cap| match mark {
            Some(m) => (m.denied | m.granted) & cap.mask() != 0,
            None => false,
        };
        let claim = claims.values[0];
        // Memory that was never touched can be read by the call alone, and a filter refused the call first: what it
        // would have asked for is not known, which makes more noise, not less.
        let unread = !claims.known && self.ret < 0 && self.ret != EFAULT;
        match self.call {
            // A child in other namespaces was reported when it was made, and one in the same passes no wall, whatever
            // register and memory say by now. The child's own return, with 0, is nobody's attempt.
            Call::Clone | Call::Clone3 if self.ret >= 0 && !self.is_filtered(current, mark) => false,
            Call::Clone => self.args[0] & NEW_NAMESPACES != 0,
            // Flags in memory are a claim. But who was told EPERM for want of CAP_SYS_ADMIN had asked for a namespace
            // (or for process ids of its choice, and then the kernel asks for CAP_CHECKPOINT_RESTORE first).
            Call::Clone3 => {
                unread
                    || claim & (NEW_NAMESPACES | CLONE_NEWTIME) != 0
                    || (self.ret == EPERM && checked(Cap::SysAdmin) && !checked(Cap::CheckpointRestore))
            }
            // Parting with one's own files or working directory touches no wall. Unknown flags are an attempt.
            Call::Unshare => self.args[0] & !OWN_THINGS != 0,
            Call::Settimeofday => self.args[0] != 0 || self.args[1] != 0,
            // The kernel asks for CAP_SYS_TIME exactly when the call would change something.
            Call::Adjtimex | Call::ClockAdjtime => {
                unread || checked(Cap::SysTime) || claim & !ADJ_READ_ONLY != 0
            }
            _ => true,
        }
    }

    /// True if a filter gave the result. The hook on seccomp saw it; or the result is the call's own number, as
    /// where a filter traps or kills (`syscall_rollback`), and the call passed no hook.
    #[inline(always)]
    fn is_filtered(&self, current: &Current, mark: &Option<&'static mut Mark>) -> bool {
        self.seccomp_refused
            || (setting!(seccomp_hooked) == 0
                && self.ret == i64::from(self.nr)
                && mark.is_none()
                && current.has_seccomp_filter())
    }

    #[inline(always)]
    fn report_open(&self, current: &Current, mark: Option<&'static mut Mark>) {
        let watched = if self.ret >= 0 { watched_file(current, self.ret as u32) } else { Watched::NONE };
        let of_interest = match &mark {
            _ if self.ret >= 0 => watched.known,
            // The device controller was asked for a watched device: the inode's own number.
            Some(m) if m.filled & mark::DEVICE != 0 && is_answer_of_a_device(self.ret) => true,
            // A filter refused it: only the path says what was to be opened.
            _ if self.seccomp_refused => true,
            // A handle names no path. Opening by handle at all is a way out of a mount namespace.
            _ if matches!(self.call, Call::OpenByHandleAt) => self.ret == EPERM,
            // Refused by a check of rights, or by a security module that is asked after it. Only the path says what
            // was to be opened; the daemon looks.
            Some(m) => {
                m.denied & OPEN_CAPS | m.granted & DRIVER_CAPS != 0
                    && (self.ret == EPERM || self.ret == EACCES)
            }
            // No check was made inside: in the tracepoint mode that is how a filter's refusal shows.
            None => {
                setting!(seccomp_hooked) == 0
                    && setting!(caps_hooked) != 0
                    && (self.ret == EPERM || self.ret == EACCES || self.ret == ENOSYS)
                    && current.has_seccomp_filter()
            }
        };
        if !of_interest {
            return;
        }
        let slot = self.call as u32;
        let Some(mut entry) = reserve::<OpenRecord>(slot, kind::CALL, current.cgroup_id()) else { return };
        let claims = user::claims(self.call, self.abi, self.nr, &self.args);
        let record = entry.as_mut_ptr();
        // SAFETY: `record` points to the reserved room; each member is written before it is sent.
        unsafe {
            self.fill(current, &mark, &claims, watched, &mut *record.cast::<MaybeUninit<CallRecord>>());
            (*record).pad = 0;
            zero(&mut (*record).path);
            let address = match self.call {
                Call::Open | Call::Creat => self.args[0],
                // The path went into the handle long ago.
                Call::OpenByHandleAt => 0,
                _ => self.args[1],
            };
            (*record).path_len = user::path(address, &mut (*record).path);
        }
        submit(entry);
    }

    /// True for an unshare that made a user namespace. If it made nothing else, no capability was asked for,
    /// so no hook saw the state before; but the new namespace's parent is the caller's old one.
    #[inline(always)]
    fn makes_user_ns_only(&self) -> bool {
        matches!(self.call, Call::Unshare) && self.ret == 0 && self.args[0] & CLONE_NEWUSER != 0
    }

    /// Writes every member behind the header.
    #[inline(always)]
    fn fill(
        &self,
        current: &Current,
        mark: &Option<&'static mut Mark>,
        claims: &Claims,
        watched: Watched,
        record: &mut MaybeUninit<CallRecord>,
    ) {
        let out = record.as_mut_ptr();
        let changes_namespaces =
            matches!(self.call, Call::Setns | Call::Unshare | Call::Clone | Call::Clone3);
        let mut flags = 0;
        if self.seccomp_refused {
            flags |= call_flag::SECCOMP_REFUSED;
        }
        if setting!(seccomp_hooked) == 0 && current.has_seccomp_filter() {
            flags |= call_flag::SECCOMP_POSSIBLE;
        }
        if setting!(caps_hooked) != 0 {
            flags |= call_flag::CAPS_VISIBLE;
        }
        if claims.known {
            flags |= call_flag::CLAIMED;
        }
        // SAFETY: `out` points to the reserved room; each member is written exactly once below.
        unsafe {
            current.describe(&raw mut (*out).task);
            (*out).call = self.call as u16;
            (*out).abi = self.abi as u16;
            (*out).nr = self.nr;
            (*out).pad = 0;
            (*out).ret = self.ret;
            (*out).args = self.args;
            (*out).claimed = claims.values;
            let caps = current.caps();
            (*out).caps_after = caps;
            (*out).caps_before = caps;
            (*out).caps_denied = 0;
            (*out).caps_granted = 0;
            namespaces(current.task, changes_namespaces, &raw mut (*out).ns_after);
            (*out).ns_before = (*out).ns_after;
            (*out).major = 0;
            (*out).minor = 0;
            (*out).file_ino = 0;
            if let Some(m) = mark {
                (*out).caps_denied = m.denied;
                (*out).caps_granted = m.granted;
                if m.filled & mark::BEFORE != 0 {
                    flags |= call_flag::BEFORE_KNOWN;
                    (*out).caps_before = m.caps_before;
                    if changes_namespaces && !matches!(self.call, Call::Clone | Call::Clone3) {
                        (*out).ns_before = m.ns_before;
                    }
                }
                // A call that failed made no child: that mark is of an earlier one, whose end was not seen.
                if m.filled & mark::CHILD != 0 && self.ret >= 0 {
                    flags |= call_flag::CHILD;
                    (*out).ns_after = m.ns_child;
                    (*out).caps_after = m.caps_child;
                }
                if m.filled & mark::DEVICE != 0 && self.is_open() {
                    flags |= call_flag::DEVICE_ASKED;
                    (*out).major = m.major;
                    (*out).minor = m.minor;
                }
            }
            if self.makes_user_ns_only() && flags & call_flag::BEFORE_KNOWN == 0 {
                flags |= call_flag::NS_BEFORE_KNOWN;
                (*out).ns_before.inum[2] = parent_user_ns(current.task);
            }
            if watched.known {
                flags |= call_flag::FILE_KNOWN;
                (*out).major = watched.major;
                (*out).minor = watched.minor;
                (*out).file_ino = watched.ino;
            }
            (*out).flags = flags;
        }
    }
}

/// `ADJ_OFFSET_SS_READ` without the bits that write: reads the remaining offset (include/uapi/linux/timex.h).
const ADJ_READ_ONLY: u64 = 0xa001;

/// Capabilities whose denial ends an open of a watched file.
const OPEN_CAPS: u64 = Cap::DacOverride.mask()
    | Cap::DacReadSearch.mask()
    | Cap::SysRawio.mask()
    | Cap::SysAdmin.mask()
    | Cap::Syslog.mask();

/// Capabilities that the drivers of the kernel's log, memory and ports ask for, and few others.
const DRIVER_CAPS: u64 = Cap::SysRawio.mask() | Cap::Syslog.mask();

/// Errors with which the open of a device that exists can end. Another one, such as `ENOENT`, is about another
/// file: then the mark is left from access(2), which asks the device controller too.
#[inline(always)]
fn is_answer_of_a_device(ret: i64) -> bool {
    /// `EIO`, `ENXIO`, `EBUSY`, `ENODEV`.
    const OTHERS: [i64; 4] = [-5, -6, -16, -19];
    ret == EPERM || ret == EACCES || OTHERS.contains(&ret)
}
