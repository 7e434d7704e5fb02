//! Files through which the kernel tells about itself, read at start.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The kernel log's old door.
pub const PROC_KMSG: &str = "/proc/kmsg";
/// The kernel's memory as a core file.
pub const PROC_KCORE: &str = "/proc/kcore";

/// Where the cgroup v2 hierarchy is mounted, if it is.
pub fn cgroup2_root() -> Option<PathBuf> {
    mounted(&fs::read_to_string("/proc/self/mounts").ok()?, "cgroup2")
}

/// The first mount point of a file system type in the format of `/proc/self/mounts`.
fn mounted(mounts: &str, kind: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, ty) = (words.next()?, words.next()?);
        // Blanks in a mount point are written as \040.
        (ty == kind).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

/// Id of the cgroup v2 directory that a process is in, below the hierarchy mounted at `root`; `None` if it is gone.
pub fn cgroup2_of(tgid: u32, root: &Path) -> Option<u64> {
    let cgroups = fs::read(format!("/proc/{tgid}/cgroup")).ok()?;
    let dir = root.join(OsStr::from_bytes(cgroup2_path(&cgroups)?));
    Some(fs::symlink_metadata(dir).ok()?.ino())
}

/// The path in the line of the v2 hierarchy, whose number is 0, relative to the hierarchy's root.
fn cgroup2_path(cgroups: &[u8]) -> Option<&[u8]> {
    cgroups.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::/"))
}

/// Inode of a namespace of a process, from `/proc/PID/ns`; `None` if it cannot be read.
pub fn namespace(pid: &str, kind: &str) -> Option<u32> {
    let link = fs::read_link(Path::new("/proc").join(pid).join("ns").join(kind)).ok()?;
    // The link reads like `mnt:[4026531841]`.
    link.to_str()?.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_hierarchy_has_number_0() {
        assert_eq!(cgroup2_path(b"4:cpu:/a\n0::/b/c\n"), Some(&b"b/c"[..]));
        assert_eq!(cgroup2_path(b"0::/\n"), Some(&b""[..]));
        assert_eq!(cgroup2_path(b"10::/x\n1:name=systemd:/\n"), None);
    }

    #[test]
    fn finds_the_hierarchy_on_v2_and_hybrid_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounted(hybrid, "cgroup2"), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mounted("cgroup2 /a\\040b cgroup2 rw 0 0\n", "cgroup2"), Some(PathBuf::from("/a b")));
        assert_eq!(mounted("proc /proc proc rw 0 0\nbroken\n", "cgroup2"), None);
    }
}
