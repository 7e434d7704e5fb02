//! The record of an exec, whose parts are of variable length.

use monitor_common::capability::CapSets;
use monitor_common::ids::NsInum;
use monitor_common::wire::exec_flag;

use super::{DecodeError, NsSet, RawTask, Reader};

/// A process began to run another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawExec<'r> {
    /// The process after the exec.
    pub task: RawTask,
    /// Inode of the executable.
    pub exe_ino: u64,
    /// Device of its file system, `major << 20 | minor`.
    pub exe_dev: u32,
    /// Mount namespace of the executable's mount; 0 for internal mounts such as memfd's.
    pub exe_mnt_ns: NsInum,
    /// Namespaces of the process.
    pub ns: NsSet,
    /// Credentials of the thread after the exec.
    pub caps: CapSets,
    /// The executable has a file of its own in an overlayfs's upper layer.
    pub upper_layer: bool,
    /// The executable is a memfd.
    pub memfd: bool,
    /// Device number of the controlling terminal, `major << 20 | minor`; 0 without one.
    pub tty: u32,
    /// Components of the executable's path from the leaf to the root, each ended by a NUL.
    pub components: &'r [u8],
    /// That path had more components than fit.
    pub truncated: bool,
    /// Components of the working directory's path, in the same form.
    pub cwd_components: &'r [u8],
    /// That path had more components than fit.
    pub cwd_truncated: bool,
    /// The beginning of the command line: arguments, each ended by a NUL.
    pub args: &'r [u8],
    /// Bytes of the whole command line.
    pub args_total: u32,
}

impl<'r> Reader<'r> {
    pub(super) fn exec(&mut self) -> Result<RawExec<'r>, DecodeError> {
        let task = self.task()?;
        let (exe_ino, exe_dev) = (self.u64()?, self.u32()?);
        let (exe_mnt_ns, ns) = (NsInum(self.u32()?), self.ns_set()?);
        let caps = self.cap_sets()?;
        let (flags, tty) = (self.u32()?, self.u32()?);
        let (exe_len, cwd_len) = (self.u32()?, self.u32()?);
        let (args_len, args_total) = (self.u32()?, self.u32()?);
        // The record ends with its parts, so a length that is too large is one that the record has no room for.
        let mut part = |len: u32| self.take(len as usize).map_err(|_| DecodeError::Length);
        Ok(RawExec {
            task,
            exe_ino,
            exe_dev,
            exe_mnt_ns,
            ns,
            caps,
            upper_layer: flags & exec_flag::UPPER_LAYER != 0,
            memfd: flags & exec_flag::MEMFD != 0,
            tty,
            components: part(exe_len)?,
            truncated: flags & exec_flag::EXE_TRUNCATED != 0,
            cwd_components: part(cwd_len)?,
            cwd_truncated: flags & exec_flag::CWD_TRUNCATED != 0,
            args: part(args_len)?,
            args_total,
        })
    }
}

impl RawExec<'_> {
    /// The executable's path; bytes, because names need not be UTF-8. One that was cut begins with `...`.
    pub fn path(&self) -> Vec<u8> {
        join(self.components, self.truncated)
    }

    /// The working directory's path, in the same form. The root has no components.
    pub fn cwd(&self) -> Vec<u8> {
        let path = join(self.cwd_components, self.cwd_truncated);
        if path.is_empty() { b"/".to_vec() } else { path }
    }
}

/// Puts a path together from its components, which come from the leaf to the root.
fn join(components: &[u8], truncated: bool) -> Vec<u8> {
    let mut path = Vec::with_capacity(components.len() + 4);
    if truncated {
        path.extend_from_slice(b"...");
    }
    // The root of a file system that was reached past its mount is a component, too.
    let names = components.split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"/");
    for name in names.rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}
