//! Files through which the kernel tells about itself, read at start.

use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;

/// The kernel log's old door.
pub const PROC_KMSG: &str = "/proc/kmsg";
/// The kernel's memory as a core file.
pub const PROC_KCORE: &str = "/proc/kcore";

/// Inode of a file of procfs, the same in each of its instances, as the directory lists it; `None` if that does not list
/// it. Asked by its path, whatever is mounted over it would answer: sandboxes and runtimes hide these files so.
pub fn proc_inode(path: &str) -> Option<u64> {
    let path = Path::new(path);
    let entries = fs::read_dir(path.parent()?).ok()?;
    entries.flatten().find(|entry| Some(&*entry.file_name()) == path.file_name()).map(|entry| entry.ino())
}

/// True if `kernel.ftrace_enabled` is 0, which takes trampolines off their functions; false also where it cannot be
/// read.
pub fn ftrace_is_off() -> bool {
    fs::read("/proc/sys/kernel/ftrace_enabled").is_ok_and(|text| text.trim_ascii() == b"0")
}

/// Inode of a namespace of a process, from `/proc/PID/ns`; `None` if it cannot be read.
pub fn namespace(pid: &str, kind: &str) -> Option<u32> {
    let link = fs::read_link(Path::new("/proc").join(pid).join("ns").join(kind)).ok()?;
    // The link reads like `mnt:[4026531841]`.
    link.to_str()?.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// Inode of the first pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h, since 3.8).
const FIRST_PID_NAMESPACE: u32 = 0xefff_fffc;

/// Inode of a namespace of the host: that of process 1, or where that may not be read that of the kernel's threads, or else
/// our own; `None` if none can be.
pub fn host_namespace(kind: &str) -> Option<u32> {
    first_namespace(kind).or_else(|| namespace("self", kind))
}

/// Inode of a namespace of process 1, or of process 2; `None` if neither may be looked at. A sandbox may keep us from the
/// first alone. In the first pid namespace the second is the kernel's own, `kthreadd`, from which nobody is kept who may look at
/// others at all; in any other it may be anybody.
pub fn first_namespace(kind: &str) -> Option<u32> {
    let of_kernel = || {
        let is_first = namespace("self", "pid") == Some(FIRST_PID_NAMESPACE);
        is_first.then(|| namespace("2", kind)).flatten()
    };
    namespace("1", kind).or_else(of_kernel)
}

/// The first 32 bits of the boot's id: drawn anew at each boot, the same in every container. `None` if it cannot be
/// read.
pub fn boot_id() -> Option<u32> {
    parse_boot_id(&fs::read("/proc/sys/kernel/random/boot_id").ok()?)
}

/// The boot's whole id, 32 hexadecimal digits without dashes.
pub fn whole_boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id: String = text.trim().chars().filter(|c| *c != '-').collect();
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(id)
}

fn parse_boot_id(text: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text.get(..8)?).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_namespaces_are_known_even_if_the_first_process_may_not_be_looked_at() {
        assert!(host_namespace("mnt").is_some());
        assert_eq!(host_namespace("none"), None);
    }

    #[test]
    fn a_file_of_procfs_has_the_inode_that_it_tells_itself() {
        use std::os::unix::fs::MetadataExt as _;
        let told = fs::metadata("/proc/meminfo").unwrap().ino();
        assert_eq!(proc_inode("/proc/meminfo"), Some(told));
        assert_eq!(proc_inode("/proc/no-such-file"), None);
    }

    #[test]
    fn a_boots_id_is_read() {
        assert_eq!(parse_boot_id(b"0c2a4b1f-7d0c-4a5e-9f0a-2f6f0c1d2e3f\n"), Some(0x0c2a_4b1f));
        assert_eq!((parse_boot_id(b"0c2a"), parse_boot_id(b"0c2a4b-\xff")), (None, None));
        assert!(boot_id().is_some());
        assert!(whole_boot_id().is_some());
    }
}
