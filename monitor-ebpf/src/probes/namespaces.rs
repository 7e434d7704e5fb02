//! A task's namespaces change, by whatever door.

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use monitor_common::wire::{NsSet, NsproxyRecord, kind};

use crate::canary;
use crate::kernel::{Ptr, describe_child, namespaces_of, nsproxy_of, user_ns_of};
use crate::maps::{kind_slot, reserve, submit};

/// Before the switch, when the old namespaces can still be compared; it cannot fail. Each process comes here at its
/// end, too, and then gets none: only a canary's end is told, as a test of the hook.
/// match-proto: void switch_task_namespaces(struct task_struct *p, struct nsproxy *new)
#[fentry]
pub fn nsproxy_switched(ctx: FEntryContext) -> i32 {
    let (task, new) = (Ptr(ctx.arg(0)), Ptr(ctx.arg(1)));
    if new.0 == 0 && !canary::is_current() {
        return 0;
    }
    let user = user_ns_of(task);
    let (mut before, mut after) = (NsSet { inum: [0; 8] }, NsSet { inum: [0; 8] });
    namespaces_of(nsproxy_of(task), user, true, &raw mut before);
    namespaces_of(new, user, true, &raw mut after);
    let mut differ = 0;
    for kind in 0..before.inum.len() {
        differ |= before.inum[kind] ^ after.inum[kind];
    }
    if differ == 0 {
        return 0;
    }
    let slot = kind_slot(kind::NSPROXY);
    let cgroup_id = crate::kernel::cgroup_of(task);
    let Some(mut entry) = reserve::<NsproxyRecord>(slot, kind::NSPROXY, cgroup_id) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        describe_child(task, &raw mut (*record).task);
        (*record).ns_after = after;
    }
    submit(entry);
    0
}
