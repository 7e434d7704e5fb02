//! The programs and maps that note which system calls each cgroup makes; nothing of them is loaded unless it is asked for.

use aya::maps::{HashMap, MapData, PerCpuArray};
use monitor_common::syscall_set::SyscallSet;

use super::{Attached, Hook, Loader, Plan, preemptible_tracepoints};

/// The sets of system calls by cgroup: a [`monitor_common::syscall_set::SyscallSet`] each, as words.
pub type SyscallSetMap = HashMap<MapData, u64, [u64; SET_WORDS]>;
/// Words of a set.
pub const SET_WORDS: usize = size_of::<SyscallSet>() / size_of::<u64>();
/// Calls that no set had room for.
pub type UnnotedMap = PerCpuArray<MapData, u64>;

impl Loader {
    /// What notes the calls of each cgroup.
    pub(super) fn put_syscall_sets(&self, attached: &mut Attached) {
        let perf = preemptible_tracepoints();
        let probes = [("syscall_entered", "sys_enter"), ("syscall_refused", "sys_exit")];
        for (program, tracepoint) in probes {
            let (program, hook) = if perf {
                (format!("{program}_perf"), Hook::Perf("raw_syscalls", tracepoint))
            } else {
                (program.to_owned(), Hook::Tracepoint(tracepoint))
            };
            self.put(attached, Plan { program, hook });
        }
    }
}

impl Attached {
    /// Takes the sets of system calls, and the counter of calls that no set had room for.
    pub fn take_syscall_sets(&mut self) -> Option<(SyscallSetMap, UnnotedMap)> {
        let sets = HashMap::try_from(self.take_map("SYSCALL_SETS")?).ok()?;
        Some((sets, PerCpuArray::try_from(self.take_map("SYSCALLS_UNNOTED")?).ok()?))
    }
}
