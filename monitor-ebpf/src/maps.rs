//! Every map with its bound, the ledger, and the only way into the ring buffer.

pub mod syscall_sets;

use core::mem::{MaybeUninit, offset_of};
use core::ops::{Deref, DerefMut};

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, RingBuf};
use monitor_common::WIRE_VERSION;
use monitor_common::call::CALL_SLOTS;
use monitor_common::control::{COUNTER_SLOTS, Counter, LOST_ENTRIES, LostKey};
use monitor_common::wire::{ARGS_TEXT, CWD_TEXT, EXEC_TEXT, ExecRecord, Header, NsSet, kind};

use crate::canary;

/// The one way to the daemon; one buffer, so one order. The daemon sets its size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The ledger, per CPU.
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTER_SLOTS as u32, 0);

/// Whose records were lost. A full table loses the attribution, which is counted.
#[map]
static LOST: HashMap<LostKey, u64> = HashMap::with_max_entries(LOST_ENTRIES, 0);

/// What the hooks inside a call noted for its end, by thread. A mark lives as long as the call; the bound
/// is far above the number of watched calls that can be under way at once.
#[map]
static MARKS: LruHashMap<u32, Mark> = LruHashMap::with_max_entries(4096, 0);

/// Exec records are too large for the stack; one per CPU, used by one program that is not re-entered.
#[map]
pub static EXEC_SCRATCH: PerCpuArray<ExecRecord> = PerCpuArray::with_max_entries(1, 0);

/// Notes of the hooks that a watched call passes on its way.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Mark {
    /// Capabilities that were asked for and denied.
    pub denied: u64,
    /// Capabilities that were asked for and granted.
    pub granted: u64,
    /// Effective capabilities at the first check.
    pub caps_before: u64,
    /// Namespaces at the first check.
    pub ns_before: NsSet,
    /// Namespaces of the child that clone made.
    pub ns_child: NsSet,
    /// Effective capabilities of that child.
    pub caps_child: u64,
    /// Watched device that the device controller was asked about.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Which of the members are filled: bits of [`mark`].
    pub filled: u32,
    /// Number of the call that the mark belongs to; 0 if only the device controller was asked, and could not tell.
    pub nr: u32,
}

/// Bits of [`Mark::filled`].
pub mod mark {
    /// `caps_before` and `ns_before`.
    pub const BEFORE: u32 = 1;
    /// `ns_child` and `caps_child`.
    pub const CHILD: u32 = 2;
    /// `major` and `minor`.
    pub const DEVICE: u32 = 4;
}

impl Mark {
    const EMPTY: Mark = Mark {
        denied: 0,
        granted: 0,
        caps_before: 0,
        ns_before: NsSet { inum: [0; 8] },
        ns_child: NsSet { inum: [0; 8] },
        caps_child: 0,
        major: 0,
        minor: 0,
        filled: 0,
        nr: 0,
    };

    /// The thread's mark, if some hook left one.
    #[inline(always)]
    pub fn of(tid: u32) -> Option<&'static mut Mark> {
        // SAFETY: the map's memory outlives the program, and only the thread `tid` itself, which is running
        // this program, uses its entry.
        MARKS.get_ptr_mut(tid).map(|mark| unsafe { &mut *mark })
    }

    /// The thread's mark, made if there is none.
    #[inline(always)]
    pub fn of_or_new(tid: u32) -> Option<&'static mut Mark> {
        if let Some(mark) = Self::of(tid) {
            return Some(mark);
        }
        // A failure shows as `None` from the look-up.
        let _ = MARKS.insert(tid, Mark::EMPTY, 0);
        Self::of(tid)
    }

    /// The thread's mark for the call with this number (without the x32 bit); what is left from another call
    /// is forgotten.
    #[inline(always)]
    pub fn of_call(tid: u32, nr: u32) -> Option<&'static mut Mark> {
        let mark = match Self::of_or_new(tid) {
            Some(mark) if mark.nr != 0 && mark.nr != nr => {
                Self::forget(tid);
                Self::of_or_new(tid)?
            }
            mark => mark?,
        };
        mark.nr = nr;
        Some(mark)
    }

    /// Forgets the thread's mark.
    #[inline(always)]
    pub fn forget(tid: u32) {
        // There may be none.
        let _ = MARKS.remove(tid);
    }
}

/// Adds one. Atomic, because on a preemptible kernel two programs may take turns on one CPU.
#[inline(always)]
pub fn add(counter: *mut u64) {
    // SAFETY: the pointer is into a map value, and the instruction touches these eight bytes only. `core`
    // has no atomic addition for this target.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64) };
}

/// Adds one to the member of a slot's counter that lies at this offset.
#[inline(always)]
fn count(slot: u32, member: usize) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the offset is that of a member, so the pointer stays inside the map's value.
        add(unsafe { counter.byte_add(member) }.cast());
    }
}

#[inline(always)]
fn lost(slot: u32, cgroup_id: u64) {
    count(slot, offset_of!(Counter, lost));
    let key = LostKey { cgroup_id, slot, pad: 0 };
    if LOST.get_ptr_mut(key).is_none() {
        // Someone else may have been faster, or the table may be full; the look-up below tells.
        let _ = LOST.insert(key, 0, 1 /* BPF_NOEXIST */);
    }
    match LOST.get_ptr_mut(key) {
        Some(lost) => add(lost),
        None => count(slot, offset_of!(Counter, unattributed)),
    }
}

/// Slot of the ledger for a kind of life cycle record.
pub const fn kind_slot(kind: u16) -> u32 {
    CALL_SLOTS as u32 + kind as u32
}

/// Room for a record, and where the ledger counts it.
pub struct Room<T: 'static> {
    entry: RingBufEntry<T>,
    slot: u32,
}

impl<T> Deref for Room<T> {
    type Target = MaybeUninit<T>;

    #[inline(always)]
    fn deref(&self) -> &MaybeUninit<T> {
        &self.entry
    }
}

impl<T> DerefMut for Room<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut MaybeUninit<T> {
        &mut self.entry
    }
}

/// Counts the record as seen and reserves room for it; without room it is counted as lost. What a canary made is
/// counted in the canaries' slot.
///
/// The room is not zeroed: the caller writes every byte behind the header, then calls [`submit`].
#[inline(always)]
pub fn reserve<T: 'static>(slot: u32, kind: u16, cgroup_id: u64) -> Option<Room<T>> {
    let (slot, kind) = canary::filed(slot, kind);
    count(slot, offset_of!(Counter, seen));
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        lost(slot, cgroup_id);
        return None;
    };
    write_header(&mut entry, kind);
    Some(Room { entry, slot })
}

/// Writes the header that each record begins with.
#[inline(always)]
fn write_header<T>(entry: &mut MaybeUninit<T>, kind: u16) {
    // SAFETY: every record type begins with a header (`repr(C)`), and the entry is large enough for it.
    unsafe { *entry.as_mut_ptr().cast::<Header>() = header(kind, size_of::<T>()) };
}

#[inline(always)]
fn header(kind: u16, len: usize) -> Header {
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    Header { version: WIRE_VERSION, kind, len: len as u32, boot_ns }
}

/// Sends a reserved record. Without flags the kernel wakes the reader only if it had caught up.
#[inline(always)]
pub fn submit<T>(room: Room<T>) {
    room.entry.submit(0);
    count(room.slot, offset_of!(Counter, sent));
}

/// Sends an exec record from the scratch area, with as many bytes of its text as are filled; what stands behind
/// them is of an earlier record.
#[inline(always)]
pub fn send_exec(record: &mut ExecRecord, filled: usize) {
    /// More than the text can fill: two paths below `CWD_TEXT` and a last component, and the command line.
    const MASK: usize = 4095;
    const _: () = assert!(MASK < EXEC_TEXT && CWD_TEXT + 256 + ARGS_TEXT <= MASK);
    let (slot, kind) = canary::filed(kind_slot(kind::EXEC), kind::EXEC);
    count(slot, offset_of!(Counter, seen));
    let mut filled = filled;
    // SAFETY: arithmetic on a register, and no change of value: it bounds the length for the verifier.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) filled, const MASK) };
    let len = offset_of!(ExecRecord, text) + filled;
    record.header = header(kind, len);
    // SAFETY: the record begins there, and is longer.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), len) };
    if EVENTS.output::<[u8]>(bytes, 0).is_ok() {
        count(slot, offset_of!(Counter, sent));
    } else {
        lost(slot, record.task.cgroup_id);
    }
}
