//! The capability ledger: what the programs count of the kernel's capability checks, without an event for each.

/// Key of a row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CapKey {
    /// The cgroup of the task that was checked; 0 if no hierarchy is known.
    pub cgroup_id: u64,
    /// The capability's number. Below [`CAP_SLOTS`] on every kernel; others are not counted in rows.
    pub cap: u16,
    /// Bits of [`cap_flag`].
    pub flags: u16,
    /// Zero.
    pub pad: u32,
}

/// Bits of [`CapKey::flags`] and of the record of a first check.
pub mod cap_flag {
    /// The check was denied.
    pub const DENIED: u16 = 1 << 0;
    /// It was about rights in another user namespace than the initial one: it asked for the capability there, with
    /// credentials that count there alone, or as whoever made it.
    pub const CHILD_NS: u16 = 1 << 1;
    /// The kernel only looked: a denial is no refusal of what was asked for (`CAP_OPT_NOAUDIT`).
    pub const SILENT: u16 = 1 << 2;
    /// Whether the kernel only looked cannot be told here: `tracepoint/cap_capable` does not say.
    pub const MAYBE_SILENT: u16 = 1 << 3;
    /// The task came from another cgroup and has not yet begun a program from its own mount namespace since: a
    /// runtime that builds the container or enters it, not what the container runs.
    pub const VISITOR: u16 = 1 << 4;
    /// Where the number of the [`crate::cap_group::CapGroup`] lies: a group has rows of its own.
    pub const GROUP_SHIFT: u16 = 8;
    /// The bits of that number.
    pub const GROUP: u16 = 0xf << GROUP_SHIFT;
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CapCount {
    /// Number of checks. Added to atomically.
    pub count: u64,
    /// Boot time of the first, in nanoseconds.
    pub first_ns: u64,
    /// Boot time of the last, or of an earlier one in the same tick of the kernel's timer (at most 10 ms before).
    pub last_ns: u64,
    /// Number of the system call of the last, without the x32 bit; [`NO_CALL`] outside of one.
    pub last_nr: u32,
    /// [`crate::call::Abi`] of that call.
    pub last_abi: u16,
    /// Lowest bits of the tick (`jiffies`) in which `last_ns` was read: reading the clock is the dearest part of a check.
    pub last_tick: u16,
}

/// Stands for a check that no system call made: a page fault, a kernel thread.
pub const NO_CALL: u32 = u32::MAX;

/// Bound of the ledger. When it is full, checks that need a new row are counted in [`cap_slot`]s instead.
pub const CAP_LEDGER_ENTRIES: u32 = 65_536;

/// Capabilities that rows can be about, by number: more than any kernel has.
pub const CAP_SLOTS: u32 = 64;

/// Slot of the per-CPU counters of checks that found no room in the ledger.
pub const fn cap_slot(cap: u32, denied: bool) -> u32 {
    (cap & (CAP_SLOTS - 1)) * 2 + denied as u32
}

/// The five sets of a task's credentials (`struct cred`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CapSets {
    /// What counts in checks.
    pub effective: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What can pass an exec, by file capabilities.
    pub inheritable: u64,
    /// What an exec can give at most.
    pub bounding: u64,
    /// What passes an exec without file capabilities.
    pub ambient: u64,
}

impl CapSets {
    /// The five sets as numbers, in the order of the members.
    pub const fn to_array(self) -> [u64; 5] {
        [self.effective, self.permitted, self.inheritable, self.bounding, self.ambient]
    }

    /// The inverse of [`CapSets::to_array`].
    pub const fn from_array(sets: [u64; 5]) -> Self {
        let [effective, permitted, inheritable, bounding, ambient] = sets;
        CapSets { effective, permitted, inheritable, bounding, ambient }
    }

    /// What is in these sets and not in the same of `before`.
    pub const fn gained(self, before: CapSets) -> CapSets {
        CapSets {
            effective: self.effective & !before.effective,
            permitted: self.permitted & !before.permitted,
            inheritable: self.inheritable & !before.inheritable,
            bounding: self.bounding & !before.bounding,
            ambient: self.ambient & !before.ambient,
        }
    }

    /// Whether no set has a member.
    pub const fn is_empty(self) -> bool {
        self.effective | self.permitted | self.inheritable | self.bounding | self.ambient == 0
    }
}

/// Makes [`Door`] with its names.
macro_rules! doors {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal;)*) => {
        /// A way by which a task's credentials may grow and the kernel means them to. The numbers are part of the wire
        /// format. The calls of the group family are none: they leave the capabilities alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Door {
            $($(#[$doc])* $variant = $id,)*
        }

        impl Door {
            /// Every door.
            pub const ALL: &[Door] = &[$(Door::$variant),*];

            /// The door with this wire number.
            pub const fn from_wire(id: u16) -> Option<Door> {
                match id {
                    $($id => Some(Door::$variant),)*
                    _ => None,
                }
            }

            /// The word in events (`cap.door`).
            pub const fn name(self) -> &'static str {
                match self {
                    $(Door::$variant => $name,)*
                }
            }
        }
    };
}

doors! {
    /// capset(2).
    Capset = 1, "capset";
    /// execve(2): a set-uid program, one with file capabilities, root's or ambient capabilities.
    Exec = 2, "exec";
    /// setuid(2).
    Setuid = 3, "setuid";
    /// setreuid(2).
    Setreuid = 4, "setreuid";
    /// setresuid(2).
    Setresuid = 5, "setresuid";
    /// setfsuid(2).
    Setfsuid = 6, "setfsuid";
    /// prctl(2): an ambient raise.
    Prctl = 7, "prctl";
    /// unshare(2) into a new user namespace.
    Unshare = 8, "unshare";
    /// setns(2) into a user namespace.
    Setns = 9, "setns";
    /// clone(2) or clone3(2) with a new user namespace.
    Clone = 10, "clone";
}

const _: () = assert!(size_of::<CapKey>() == 16 && size_of::<CapCount>() == 32 && size_of::<CapSets>() == 40);
