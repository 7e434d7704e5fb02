//! Directories of the chosen cgroup hierarchy come and go, and processes move between them: a container is known
//! before its first process runs. The hooks serve every hierarchy, of both versions, from 5.10 to 7.2.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use monitor_common::wire::{AttachRecord, CGROUP_PATH, CgroupRecord, kind};

use crate::kernel::{Ptr, cgroup_id, in_hierarchy, start_of, zero};
use crate::maps::{kind_slot, reserve, submit};
use crate::settings::offset;

/// match-proto: cgroup_mkdir(struct cgroup *cgrp, const char *path)
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    report(kind::CGROUP_MKDIR, Ptr(ctx.arg(0)), ctx.arg(1));
    0
}

/// match-proto: cgroup_rmdir(struct cgroup *cgrp, const char *path)
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    report(kind::CGROUP_RMDIR, Ptr(ctx.arg(0)), ctx.arg(1));
    0
}

#[inline(always)]
fn report(kind: u16, cgroup: Ptr, path: u64) {
    if !in_hierarchy(cgroup) {
        return;
    }
    let slot = kind_slot(kind);
    let id = cgroup_id(cgroup);
    let Some(mut entry) = reserve::<CgroupRecord>(slot, kind, id) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved room; each member behind the header is written. The helper checks the address
    // and writes at most the given length.
    unsafe {
        (*record).cgroup_id = id;
        (*record).pad = 0;
        zero(&mut (*record).path);
        let len =
            bpf_probe_read_kernel_str((&raw mut (*record).path).cast(), CGROUP_PATH as u32, path as *const _);
        (*record).path_len = if len > 0 { len as u32 - 1 } else { 0 };
    }
    submit(entry);
}

/// match-proto: cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Ptr(ctx.arg(0));
    if !in_hierarchy(cgroup) {
        return 0;
    }
    let task = Ptr(ctx.arg(2));
    let slot = kind_slot(kind::CGROUP_ATTACH);
    let id = cgroup_id(cgroup);
    let Some(mut entry) = reserve::<AttachRecord>(slot, kind::CGROUP_ATTACH, id) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved room; each member behind the header is written.
    unsafe {
        (*record).cgroup_id = id;
        (*record).start_ns = start_of(task);
        (*record).tgid = task.get(offset!(task_tgid));
        (*record).pad = 0;
    }
    submit(entry);
    0
}
