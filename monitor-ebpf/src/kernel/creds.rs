//! Credentials: the five sets of capabilities, and in which user namespace they count.

use monitor_common::capability::CapSets;

use super::Ptr;
use crate::settings::offset;

/// A task's credentials, as far as capabilities go by them.
#[derive(Clone, Copy)]
pub struct Creds {
    /// The five sets.
    pub caps: CapSets,
    /// Inode of the user namespace in which they count.
    pub user_ns: u32,
    /// The real user, in the initial user namespace. No exec changes it.
    pub uid: u32,
}

impl Creds {
    /// Reads a `struct cred`.
    #[inline(always)]
    pub fn of(cred: Ptr) -> Self {
        Creds {
            caps: CapSets {
                effective: cred.get(offset!(cred_cap_effective)),
                permitted: cred.get(offset!(cred_cap_permitted)),
                inheritable: cred.get(offset!(cred_cap_inheritable)),
                bounding: cred.get(offset!(cred_cap_bounding)),
                ambient: cred.get(offset!(cred_cap_ambient)),
            },
            user_ns: cred.follow(offset!(cred_user_ns)).get(offset!(user_ns_inum)),
            uid: cred.get(offset!(cred_uid)),
        }
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
