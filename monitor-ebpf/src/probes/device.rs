//! The device controller's question, seen from inside: which device number a task wants to open.
//!
//! A cgroup device program at the root of the v2 hierarchy is asked for each open of a device node by any
//! task (`devcgroup_check_permission`, security/device_cgroup.c, since 4.15; before the v1 controller), and
//! it is asked with the inode's own number, whatever the path was called. This one always agrees.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_cgroup_dev_ctx;
use aya_ebpf::macros::cgroup_device;
use aya_ebpf::programs::DeviceContext;
use monitor_common::call::X32_SYSCALL_BIT;

use crate::call::may_be_watched;
use crate::kernel::{call_number_from_stack, current_tid, is_watched_device};
use crate::maps::{Mark, mark};

/// `BPF_DEVCG_DEV_CHAR`, in the lower half of `access_type`.
const CHAR: u32 = 2;
/// `BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE`, in the upper half: mknod alone opens nothing.
const READ_WRITE: u32 = (2 | 4) << 16;
/// The access is allowed as far as this program goes; the others still decide.
const ALLOW: i32 = 1;

#[cgroup_device]
pub fn device_asked(ctx: DeviceContext) -> i32 {
    let asked = ctx.as_ptr().cast::<bpf_cgroup_dev_ctx>();
    // SAFETY: the program's context, whose members the verifier lets it read.
    let (access, major, minor) = unsafe { ((*asked).access_type, (*asked).major, (*asked).minor) };
    if access & 0xffff != CHAR || access & READ_WRITE == 0 || !is_watched_device(major, minor) {
        return ALLOW;
    }
    // Others ask too, access(2) and io_uring among them: what is left of theirs must not pass for a later open's.
    let number = call_number_from_stack();
    if number != 0 && !may_be_watched(u64::from(number)) {
        return ALLOW;
    }
    if let Some(mark) = Mark::of_call(current_tid(), number & !X32_SYSCALL_BIT) {
        mark.filled |= mark::DEVICE;
        mark.major = major;
        mark.minor = minor;
    }
    ALLOW
}
