//! What processes were granted that ran before the daemon, and which programs they run, from `/proc`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use monitor_common::ids::CgroupId;

use super::granted::Sets;
use super::look::DELETED;
use super::programs::{Begun, Noted, Programs};
use crate::hierarchy::Hierarchy;
use crate::kernel_files;

/// Processes that are looked at, at most.
const MAX_PROCESSES: usize = 1 << 20;
/// Bytes of `/proc/PID/status` that are read: more than a process in as many groups as there can be has.
const MAX_STATUS: u64 = 1 << 20;

/// What processes are found to be and to have, by cgroup.
#[derive(Debug, Default)]
pub struct Seen {
    /// The unions of their sets.
    pub sets: HashMap<u64, Sets>,
    /// The programs that they run.
    pub programs: HashMap<CgroupId, Arc<Programs>>,
}

/// What all processes are and have that are in another mount namespace than the host's: a runtime that enters a container
/// just now does not count.
pub fn read(hierarchy: &Hierarchy) -> Seen {
    let mut sets: HashMap<u64, Sets> = HashMap::new();
    let mut noted = Noted::default();
    let host = kernel_files::host_namespace("mnt");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten().take(MAX_PROCESSES) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let own = kernel_files::namespace(&pid.to_string(), "mnt");
        if own.is_none() || own == host {
            continue;
        }
        let mount_ns = own.unwrap_or_default();
        let Some(own) = status(pid).and_then(|text| parse(&text)) else { continue };
        if let Some(cgroup) = hierarchy.directory_of(pid) {
            sets.entry(cgroup).or_default().join(own);
            if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
                let path = path.as_os_str().as_bytes();
                let path = path.strip_suffix(DELETED).unwrap_or(path);
                // Who made the cgroup is not told here, and these are few: there is room for all processes.
                noted.begun(CgroupId(cgroup), false, Some(path), Begun { tgid: pid, told: false, mount_ns });
            }
        }
    }
    Seen { sets, programs: noted.into_programs() }
}

fn status(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/status")).ok()?.take(MAX_STATUS).read_to_end(&mut bytes).ok()?;
    // The name of a process may hold anything.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The sets in the text of `/proc/PID/status` (`task_cap`). The line of the name, which a process chooses, is the first and
/// has its line feeds escaped, so it cannot look like another one.
fn parse(status: &str) -> Option<Sets> {
    let set = |name: &str| {
        let line = status.lines().skip(1).find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some(Sets {
        bounding: set("CapBnd:")?,
        permitted: set("CapPrm:")?,
        // Since 4.3.
        ambient: set("CapAmb:").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_read_and_a_name_is_no_set() {
        let text =
            "Name:\tCapBnd:\tffff\nUid:\t0\nCapInh:\t0\nCapPrm:\t00000000a80425fb\nCapBnd:\t1\nCapAmb:\t2\n";
        let sets = parse(text).unwrap();
        assert_eq!((sets.permitted, sets.bounding, sets.ambient), (0xa804_25fb, 1, 2));
        assert_eq!(parse("Name:\tx\nCapPrm:\t1\n"), None);
        assert_eq!(parse("CapBnd:\tx\n"), None);
    }

    #[test]
    fn ones_own_sets_are_those_that_the_kernel_tells() {
        let sets = parse(&status(std::process::id()).unwrap()).unwrap();
        let told = rustix::thread::capabilities(None).unwrap();
        assert_eq!(sets.permitted, told.permitted.bits());
        assert_eq!(status(u32::MAX), None);
    }
}
