//! Credentials: the five sets of capabilities, and in which user namespace they count.

use monitor_common::capability::CapSets;

use super::Ptr;
use crate::settings::offset;

/// A task's credentials, as far as capabilities go by them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Creds {
    /// The five sets.
    pub caps: CapSets,
    /// Inode of the user namespace in which they count.
    pub user_ns: u32,
    /// The real user, in the initial user namespace. No exec changes it.
    pub uid: u32,
    /// How deep that namespace lies; the initial one, alone, is at level 0.
    pub level: u32,
    /// Zero.
    pub pad: u32,
}

/// The five sets as they lie in `struct cred` of every kernel so far.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Adjacent {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
}

impl Creds {
    /// Reads a `struct cred`.
    #[inline(always)]
    pub fn of(cred: Ptr) -> Self {
        let user_ns = cred.follow(offset!(cred_user_ns));
        Creds {
            caps: sets_of(cred),
            user_ns: user_ns.get(offset!(user_ns_inum)),
            uid: cred.get(offset!(cred_uid)),
            level: user_ns.get(offset!(user_ns_level)),
            pad: 0,
        }
    }
}

/// The five sets: with one read where they lie side by side. The offsets are constants to the verifier, which walks one
/// way only.
#[inline(always)]
fn sets_of(cred: Ptr) -> CapSets {
    let first = offset!(cred_cap_inheritable);
    if offset!(cred_cap_permitted) == first + 8
        && offset!(cred_cap_effective) == first + 16
        && offset!(cred_cap_bounding) == first + 24
        && offset!(cred_cap_ambient) == first + 32
    {
        let Adjacent { inheritable, permitted, effective, bounding, ambient } = cred.get(first);
        return CapSets { effective, permitted, inheritable, bounding, ambient };
    }
    CapSets {
        effective: cred.get(offset!(cred_cap_effective)),
        permitted: cred.get(offset!(cred_cap_permitted)),
        inheritable: cred.get(first),
        bounding: cred.get(offset!(cred_cap_bounding)),
        ambient: cred.get(offset!(cred_cap_ambient)),
    }
}

/// The task's own credentials (`real_cred`): not those that the kernel borrows for it, as overlayfs does.
#[inline(always)]
pub fn own_cred(task: Ptr) -> Ptr {
    task.follow(offset!(task_real_cred))
}

/// True if a user namespace is not the initial one, which is the only one at level 0.
#[inline(always)]
pub fn is_child_ns(user_ns: Ptr) -> bool {
    user_ns.get::<u32>(offset!(user_ns_level)) != 0
}
