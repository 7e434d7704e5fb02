//! What a process runs, where, and at which terminal: read when it has just exec'ed.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use monitor_common::control::MISSING;
use monitor_common::wire::{CWD_TEXT, EXE_TEXT, ExecRecord, exec_flag};

use super::Ptr;
use crate::settings::offset;
use crate::user;

/// How many path components and mount borders are followed; a path that is longer is marked as cut.
const MAX_COMPONENTS: usize = 48;
/// Longest path component (`NAME_MAX`), its NUL included.
const COMPONENT: usize = 256;
/// `OVERLAYFS_SUPER_MAGIC`, `TMPFS_MAGIC` (include/uapi/linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// What `memfd_create` puts before each name, as the first bytes in memory.
const MEMFD_PREFIX: u64 = u64::from_le_bytes(*b"memfd:\0\0");
const MEMFD_PREFIX_MASK: u64 = (1 << 48) - 1;

/// Fills the record behind its task and namespaces; gives how many bytes of its text are filled.
#[inline(always)]
pub fn program(task: Ptr, record: &mut ExecRecord) -> usize {
    let mm = task.follow(offset!(task_mm));
    let file = mm.follow(offset!(mm_exe_file));
    let inode = file.follow(offset!(file_inode));
    let dentry = file.follow(offset!(file_dentry));
    record.exe_ino = inode.get(offset!(inode_ino));
    record.exe_dev = inode.follow(offset!(inode_sb)).get(offset!(sb_dev));
    record.tty = terminal(task);
    record.flags = exec_flag::EXE_TRUNCATED | exec_flag::CWD_TRUNCATED | kind_of_file(inode, dentry);
    let mount = mount_of(file.get(offset!(file_mnt)));
    record.exe_mnt_ns = mount_ns(mount);
    // The path is that of the dentry, so a name that the process gave itself does not matter.
    let exe_end = path::<EXE_TEXT>(record, dentry, mount, 0, exec_flag::EXE_TRUNCATED);
    record.exe_len = exe_end as u32;
    let fs = task.follow(offset!(task_fs));
    let (dentry, mount) = (fs.follow(offset!(fs_dentry)), mount_of(fs.get(offset!(fs_mnt))));
    let cwd_end = path::<CWD_TEXT>(record, dentry, mount, exe_end, exec_flag::CWD_TRUNCATED);
    record.cwd_len = (cwd_end - exe_end) as u32;
    let (start, end) = (mm.get(offset!(mm_arg_start)), mm.get(offset!(mm_arg_end)));
    user::command_line(start, end, cwd_end, record)
}

/// The controlling terminal's device number (`tty_devnum`, drivers/tty/tty_io.c); 0 without one.
#[inline(always)]
fn terminal(task: Ptr) -> u32 {
    if offset!(signal_tty) == MISSING {
        return 0;
    }
    let tty = task.follow(offset!(task_signal)).follow(offset!(signal_tty));
    let driver = tty.follow(offset!(tty_driver));
    let major: u32 = driver.get(offset!(tty_driver_major));
    let minor: u32 = driver.get(offset!(tty_driver_minor));
    let index: u32 = tty.get(offset!(tty_index));
    major << 20 | (minor.wrapping_add(index) & 0xf_ffff)
}

/// Bits of `exec_flag` that tell where the executable's content comes from.
#[inline(always)]
fn kind_of_file(inode: Ptr, dentry: Ptr) -> u32 {
    let magic: u64 = inode.follow(offset!(inode_sb)).get(offset!(sb_magic));
    // `struct ovl_inode` (fs/overlayfs/ovl_entry.h) embeds the inode, and `__upperdentry` comes right behind it.
    let upper: u64 = inode.get(offset!(inode_size));
    // Only what lies in no directory is its own parent; so is a file system's root, but that has another name.
    let parent = dentry.follow(offset!(dentry_parent));
    let name: u64 = dentry.follow(offset!(dentry_name)).get(0);
    let mut flags = 0;
    if magic == OVERLAYFS_SUPER_MAGIC && upper != 0 {
        flags |= exec_flag::UPPER_LAYER;
    }
    if magic == TMPFS_MAGIC && parent.0 == dentry.0 && name & MEMFD_PREFIX_MASK == MEMFD_PREFIX {
        flags |= exec_flag::MEMFD;
    }
    flags
}

/// A vfsmount is the member `mnt` of its mount.
#[inline(always)]
fn mount_of(vfsmount: u64) -> Ptr {
    Ptr(vfsmount.wrapping_sub(u64::from(offset!(mount_mnt))))
}

/// Appends a path to the record's text, as components from the leaf up, none of which begins at `LIMIT` or behind
/// it (a power of two). Gives where the text ends; takes `cut` from the record's flags if the path is whole.
#[inline(always)]
fn path<const LIMIT: usize>(
    record: &mut ExecRecord,
    mut dentry: Ptr,
    mut mount: Ptr,
    start: usize,
    cut: u32,
) -> usize {
    let mut len = start;
    for _ in 0..MAX_COMPONENTS {
        let root: u64 = mount.get(offset!(mount_mnt) + offset!(vfsmount_root));
        let parent = dentry.follow(offset!(dentry_parent));
        // It lies in no directory, as a memfd: it has a name, and that is all.
        let alone = dentry.0 == parent.0 && dentry.0 != root;
        if dentry.0 == root {
            let above = mount.follow(offset!(mount_parent));
            if above.0 == mount.0 || above.0 == 0 {
                record.flags &= !cut;
                break;
            }
            dentry = mount.follow(offset!(mount_mountpoint));
            mount = above;
            continue;
        }
        if len >= LIMIT {
            break;
        }
        let name: u64 = dentry.get(offset!(dentry_name));
        let mut at = len;
        // SAFETY: arithmetic on a register, and no change of value, as was just checked. The compiler knows that
        // too and would drop a plain `&`; but older verifiers lose track of the comparison and need the mask.
        unsafe { asm!("{0} &= {1}", inout(reg) at, const LIMIT - 1) };
        // SAFETY: `at` leaves room for COMPONENT bytes in the array; the helper checks the source.
        let copied = unsafe {
            bpf_probe_read_kernel_str(
                record.text.as_mut_ptr().add(at).cast(),
                COMPONENT as u32,
                name as *const _,
            )
        };
        if copied <= 0 {
            break;
        }
        len = at + (copied as usize & (COMPONENT * 2 - 1));
        if alone {
            record.flags &= !cut;
            break;
        }
        dentry = parent;
    }
    len
}

/// Inode of the mount namespace that a mount belongs to; 0 for the kernel's internal mounts (memfd, pipes),
/// whose namespace pointer is an error value (`MNT_NS_INTERNAL`).
#[inline(always)]
fn mount_ns(mount: Ptr) -> u32 {
    mount.follow(offset!(mount_ns)).get(offset!(mnt_ns_inum))
}
