//! A seccomp filter that refuses what Docker's default profile refuses, for places without Docker.
//!
//! It covers both system call tables of an x86 machine: the kernel names the table in
//! `seccomp_data.arch`, and numbers mean different calls in each.

use std::io;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
    sock_fprog,
};
use monitor_common::call::{Call, I386_CALLS, X32_SYSCALL_BIT, X86_64_CALLS};

/// `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
const ARCH_I386: u32 = 0x4000_0003;
/// Offset of the number in `seccomp_data`.
const NR: u32 = 0;
/// Offset of the architecture.
const ARCH: u32 = 4;
/// Offset of the low half of the first argument.
const ARG0: u32 = 16;
/// The namespace flags of clone, as Docker's profile masks them (`0x7E020000`).
const NEW_FLAGS: u32 = 0x7e02_0000;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What a filter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// What Docker's default profile refuses.
    Docker,
    /// Every watched call, with `EPERM`; clone by its flags.
    Watched,
    /// As `Watched`, but files may be opened: programs that load libraries run under it.
    WatchedButOpens,
}

impl Filter {
    /// What it does with a watched call; `None` for clone, which is judged by its flags, and for what is let through.
    fn answer(self, call: Call) -> Option<u32> {
        let opens =
            matches!(call, Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt);
        match self {
            Filter::Docker => docker(call),
            _ if call == Call::Clone || opens && self == Filter::WatchedButOpens => None,
            // Docker's answer: the C library then falls back to clone.
            _ if call == Call::Clone3 => Some(ENOSYS),
            _ => Some(EPERM),
        }
    }
}

/// What Docker's default profile does with a watched call.
fn docker(call: Call) -> Option<u32> {
    match call {
        Call::Setns
        | Call::Unshare
        | Call::Settimeofday
        | Call::ClockSettime
        | Call::Stime
        | Call::Syslog
        | Call::Iopl
        | Call::Ioperm
        | Call::OpenByHandleAt => Some(EPERM),
        Call::Clone3 => Some(ENOSYS),
        // Clone depends on its flags; for the others the kernel asks for the capability itself.
        Call::Clone | Call::Capset | Call::Adjtimex | Call::ClockAdjtime => None,
        Call::Open | Call::Creat | Call::Openat | Call::Openat2 => None,
    }
}

fn stmt(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

/// The rules for one table: each refused number is compared and answered on the spot.
fn table(filter: Filter, calls: &[(u16, Call)]) -> Vec<sock_filter> {
    // The x32 view has the numbers of the 64-bit table; in the other table the bit stands for nothing.
    let mut program =
        vec![stmt(BPF_LD | BPF_W | BPF_ABS, NR), stmt(BPF_ALU | BPF_AND | BPF_K, !X32_SYSCALL_BIT)];
    for (nr, call) in calls {
        if let Some(answer) = filter.answer(*call) {
            program.push(jump(BPF_JEQ, u32::from(*nr), 0, 1));
            program.push(stmt(BPF_RET | BPF_K, answer));
        } else if *call == Call::Clone {
            program.push(jump(BPF_JEQ, u32::from(*nr), 0, 5));
            program.push(stmt(BPF_LD | BPF_W | BPF_ABS, ARG0));
            program.push(stmt(BPF_ALU | BPF_AND | BPF_K, NEW_FLAGS));
            program.push(jump(BPF_JSET, NEW_FLAGS, 0, 1));
            program.push(stmt(BPF_RET | BPF_K, EPERM));
            program.push(stmt(BPF_RET | BPF_K, ALLOW));
        }
    }
    program.push(stmt(BPF_RET | BPF_K, ALLOW));
    program
}

/// The whole program.
fn program(filter: Filter) -> Vec<sock_filter> {
    let x86_64 = table(filter, X86_64_CALLS);
    let i386 = table(filter, I386_CALLS);
    let mut program = vec![
        stmt(BPF_LD | BPF_W | BPF_ABS, ARCH),
        // A conditional jump reaches 255 instructions, enough for either table.
        jump(BPF_JEQ, ARCH_X86_64, 0, x86_64.len() as u8),
    ];
    program.extend(x86_64);
    program.push(jump(BPF_JEQ, ARCH_I386, 0, i386.len() as u8));
    program.extend(i386);
    program.push(stmt(BPF_RET | BPF_K, ENOSYS));
    program
}

/// Puts the filter in force for the calling thread and its children, for ever.
///
/// `no_new_privs` is not set: the caller must have CAP_SYS_ADMIN, and keeps its other capabilities.
///
/// # Errors
/// The kernel's, `EACCES` without CAP_SYS_ADMIN.
pub fn put_in_force(filter: Filter) -> io::Result<()> {
    install(&mut program(filter))
}

/// Makes the kernel answer `ENOMEM` to each attempt of this thread and its children to make a BPF map.
///
/// # Errors
/// As [`put_in_force`].
pub fn no_memory_for_maps() -> io::Result<()> {
    /// The first command of bpf(2).
    const BPF_MAP_CREATE: u32 = 0;
    let no_memory = libc::SECCOMP_RET_ERRNO | libc::ENOMEM as u32;
    install(&mut [
        stmt(BPF_LD | BPF_W | BPF_ABS, NR),
        jump(BPF_JEQ, libc::SYS_bpf as u32, 0, 3),
        stmt(BPF_LD | BPF_W | BPF_ABS, ARG0),
        jump(BPF_JEQ, BPF_MAP_CREATE, 0, 1),
        stmt(BPF_RET | BPF_K, no_memory),
        stmt(BPF_RET | BPF_K, ALLOW),
    ])
}

/// Makes the filter kill the calling thread, and no other, when it calls `unshare`.
///
/// # Errors
/// As [`put_in_force`].
pub fn death_of_unshare() -> io::Result<()> {
    install(&mut [
        stmt(BPF_LD | BPF_W | BPF_ABS, NR),
        jump(BPF_JEQ, libc::SYS_unshare as u32, 0, 1),
        stmt(BPF_RET | BPF_K, libc::SECCOMP_RET_KILL_THREAD),
        stmt(BPF_RET | BPF_K, ALLOW),
    ])
}

fn install(program: &mut [sock_filter]) -> io::Result<()> {
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives until the call returns; the kernel copies and checks it.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would (only the instructions that it uses).
    fn judge(arch: u32, nr: u32, arg0: u32) -> u32 {
        judge_by(Filter::Docker, arch, nr, arg0)
    }

    fn judge_by(filter: Filter, arch: u32, nr: u32, arg0: u32) -> u32 {
        let program = program(filter);
        let (mut pc, mut acc) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[pc];
            pc += 1;
            match u32::from(code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    acc = match k {
                        NR => nr,
                        ARCH => arch,
                        ARG0 => arg0,
                        _ => panic!("load from {k}"),
                    };
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => acc &= k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => pc += usize::from(if acc == k { jt } else { jf }),
                c if c == BPF_JMP | BPF_JSET | BPF_K => pc += usize::from(if acc & k != 0 { jt } else { jf }),
                c if c == BPF_RET | BPF_K => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn both_tables_are_judged_by_their_own_numbers() {
        assert!([X86_64_CALLS, I386_CALLS].iter().all(|calls| table(Filter::Watched, calls).len() < 256));
        assert_eq!(judge(ARCH_X86_64, 272, 0), EPERM);
        assert_eq!(judge(ARCH_I386, 310, 0), EPERM);
        // 310 is process_vm_readv in the 64-bit table, 272 fadvise64_64 in the other.
        assert_eq!(judge(ARCH_X86_64, 310, 0), ALLOW);
        assert_eq!(judge(ARCH_I386, 272, 0), ALLOW);
        assert_eq!(judge(ARCH_X86_64, 435, 0), ENOSYS);
        assert_eq!(judge(0, 1, 0), ENOSYS);
    }

    #[test]
    fn the_strict_filters_refuse_every_watched_call() {
        for (arch, calls) in [(ARCH_X86_64, X86_64_CALLS), (ARCH_I386, I386_CALLS)] {
            for (nr, call) in calls {
                let flags = libc::CLONE_NEWUTS as u32;
                let wanted = if *call == Call::Clone3 { ENOSYS } else { EPERM };
                assert_eq!(judge_by(Filter::Watched, arch, u32::from(*nr), flags), wanted, "{}", call.name());
            }
        }
        assert_eq!(judge_by(Filter::WatchedButOpens, ARCH_X86_64, 257, 0), ALLOW);
        assert_eq!(judge_by(Filter::WatchedButOpens, ARCH_X86_64, 126, 0), EPERM);
        assert_eq!(judge(ARCH_X86_64, 272 | X32_SYSCALL_BIT, 0), EPERM);
    }

    #[test]
    fn clone_is_judged_by_its_flags() {
        for (arch, nr) in [(ARCH_X86_64, 56), (ARCH_I386, 120)] {
            assert_eq!(judge(arch, nr, libc::SIGCHLD as u32), ALLOW);
            assert_eq!(judge(arch, nr, libc::CLONE_NEWUSER as u32), EPERM);
            assert_eq!(judge(arch, nr, (libc::CLONE_NEWNS | libc::SIGCHLD) as u32), EPERM);
        }
    }
}
