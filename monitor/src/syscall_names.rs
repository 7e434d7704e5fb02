//! Names of system calls: a number and the table it belongs to, and back.
//!
//! Not only of the watched ones ([`monitor_common::call::Call`]): of all. Names are those of the kernel's tables
//! (`arch/x86/entry/syscalls/*.tbl`), which are also those that seccomp profiles use.

use std::borrow::Cow;

use monitor_common::call::Abi;
use syscalls::{x86, x86_64};

/// Calls that are newer than the crate's tables. From 424 on, a call has the same number in each table.
const NEWER: &[(u32, &str)] = &[
    (470, "listns"),           // since 6.19
    (471, "rseq_slice_yield"), // since 7.0
];

/// Calls with which x32 has its own numbers, from [`X32_OWN_FROM`] on; those of the 64-bit table are not its.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const X32_OWN_FROM: u32 = 512;

/// Calls that x32 does not have.
const NOT_X32: [&str; 11] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
];

/// No table has a number as high as this.
pub const NUMBERS: u32 = X32_OWN_FROM + X32_OWN.len() as u32;

/// The name of the call with this number, without the x32 bit; `None` if the table has no such call.
pub fn name(abi: Abi, nr: u32) -> Option<&'static str> {
    let known = match abi {
        Abi::X86_64 => x86_64::Sysno::new(nr as usize).map(|call| call.name()),
        Abi::I386 => x86::Sysno::new(nr as usize).map(|call| call.name()),
        Abi::X32 => match nr.checked_sub(X32_OWN_FROM) {
            Some(own) => X32_OWN.get(own as usize).copied(),
            None => name(Abi::X86_64, nr).filter(|name| !X32_OWN.contains(name) && !NOT_X32.contains(name)),
        },
    };
    // The crate makes names of identifiers, and one is a word of the language: `break` of the 32-bit table.
    let known = known.map(|name| name.trim_start_matches("r#"));
    known.or_else(|| NEWER.iter().find(|(newer, _)| *newer == nr).map(|(_, name)| *name))
}

/// As [`name`]; a call without a name is shown by its number.
pub fn shown(abi: Abi, nr: u32) -> Cow<'static, str> {
    name(abi, nr).map_or_else(|| Cow::Owned(nr.to_string()), Cow::Borrowed)
}

/// The number of the call with this name, without the x32 bit; `None` if the table has no such call. Looks at
/// one number after the other: nothing for a path that is taken often.
pub fn number(abi: Abi, wanted: &str) -> Option<u32> {
    all(abi).find(|(_, name)| *name == wanted).map(|(nr, _)| nr)
}

/// Every call of a table with its number, in the order of the numbers.
pub fn all(abi: Abi) -> impl Iterator<Item = (u32, &'static str)> {
    (0..NUMBERS).filter_map(move |nr| Some((nr, name(abi, nr)?)))
}

#[cfg(test)]
#[path = "syscall_names_tests.rs"]
mod tests;
