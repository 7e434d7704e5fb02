//! Where the root of this process's cgroup namespace lies in the hierarchy.
//!
//! Where version 2 is all that is mounted, the kubelet and Docker Engine give each container a cgroup namespace. Seen from
//! there `/proc/PID/cgroup` shows every process relative to the container's own directory, of which the kernel does not say
//! where it lies. The directory that lists us does.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Hierarchy, lines};
use crate::kernel_files;

/// Inode of the first cgroup namespace (`PROC_CGROUP_INIT_INO`, include/linux/proc_ns.h, since 4.6).
const FIRST: u32 = 0xefff_fffb;
/// Directories that are looked at.
const MAX_DIRECTORIES: usize = 1 << 16;
/// Bytes of a list of processes that are read.
const MAX_PROCS: u64 = 1 << 20;

/// True if paths begin at the root of the hierarchy.
pub(super) fn is_hosts() -> bool {
    kernel_files::namespace("self", "cgroup").is_none_or(|own| own == FIRST)
}

/// The path of the namespace's root below that of the hierarchy; `None` if we are in none of its directories, as where
/// only a part of it is mounted.
pub(super) fn root(hierarchy: &Hierarchy) -> Option<PathBuf> {
    let cgroups = fs::read("/proc/self/cgroup").ok()?;
    let line = lines(&cgroups).find(|line| line.number == hierarchy.number)?;
    // We may be in a directory below the namespace's root.
    let own = line.below_root(Path::new(""))?;
    let directory = directory_of(&hierarchy.root, std::process::id())?;
    let below = directory.strip_prefix(&hierarchy.root).ok()?;
    let depth = below.components().count().checked_sub(own.components().count())?;
    let root: PathBuf = below.components().take(depth).collect();
    (root.join(own) == below).then_some(root)
}

/// The directory whose list of processes has this one, by its id in our pid namespace.
fn directory_of(root: &Path, tgid: u32) -> Option<PathBuf> {
    let own = tgid.to_string();
    let mut pending = vec![root.to_owned()];
    for _ in 0..MAX_DIRECTORIES {
        let directory = pending.pop()?;
        let mut procs = String::new();
        // One of threads has no such list, and one may vanish while it is read.
        let read = File::open(directory.join("cgroup.procs"))
            .and_then(|file| file.take(MAX_PROCS).read_to_string(&mut procs));
        if read.is_ok() && procs.lines().any(|line| line == own) {
            return Some(directory);
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|ty| ty.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchy::HierarchyChoice;

    #[test]
    fn the_directory_that_lists_a_process_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for (path, procs) in [("", "1\n"), ("a", "12\n123\n"), ("b/c", "23\n"), ("b", "7\n2\n")] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join("cgroup.procs"), procs).unwrap();
        }
        let found = |tgid| directory_of(dir.path(), tgid);
        assert_eq!(found(23), Some(dir.path().join("b/c")));
        assert_eq!((found(2), found(12)), (Some(dir.path().join("b")), Some(dir.path().join("a"))));
        assert_eq!(found(3), None);
    }

    /// Also where the tests run in a namespace of the host's: then it lies at the root.
    #[test]
    fn the_namespaces_root_leads_to_our_own_directory() {
        let Some(hierarchy) = Hierarchy::find(HierarchyChoice::Auto).unwrap() else { return };
        let Some(found) = root(&hierarchy) else { return };
        assert_eq!(Some(found), hierarchy.namespace_root);
    }
}
