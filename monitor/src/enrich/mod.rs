//! What the daemon knows besides the record: the process and its ancestors, the container, the host's own
//! namespaces, users' names. One owner, no lock, no network, no runtime socket.

pub mod container;
pub mod device;
pub mod lineage;
pub mod metadata;
pub mod names;
pub mod namespaces;
pub mod process;
pub mod users;

use monitor_common::ids::NsInum;

use crate::decode::NsSet;
use crate::fields::NS_KINDS;
use crate::kernel_files;

/// Facts about the host that do not change while the daemon runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// The host's own namespaces by kind: those of process 1 as the daemon sees it.
    pub namespaces: NsSet,
    /// The first 32 bits of the boot's id, which is drawn anew at each boot; `None` if it cannot be read.
    pub boot_id: Option<u32>,
}

impl Host {
    /// Reads them from `/proc/1/ns`, or where that is not allowed from the daemon's own.
    pub fn read() -> Self {
        let mut namespaces = NsSet::default();
        for (inum, kind) in namespaces.iter_mut().zip(NS_KINDS) {
            *inum = NsInum(kernel_files::host_namespace(kind).unwrap_or(0));
        }
        let boot_id = kernel_files::boot_id();
        Host { namespaces, boot_id }
    }
}
