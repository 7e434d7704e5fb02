//! The device controller's question, seen from inside: which device number a task wants to open.
//!
//! A cgroup device program at the root of the v2 hierarchy is asked for each open of a device node by any
//! task (`devcgroup_check_permission`, security/device_cgroup.c, since 4.15; before the v1 controller), and
//! it is asked with the inode's own number, whatever the path was called. This one always agrees.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_cgroup_dev_ctx;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::cgroup_device;
use aya_ebpf::programs::DeviceContext;

use crate::kernel::is_watched_device;
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
    if let Some(mark) = Mark::of_or_new(bpf_get_current_pid_tgid() as u32) {
        mark.filled |= mark::DEVICE;
        mark.major = major;
        mark.minor = minor;
    }
    ALLOW
}
