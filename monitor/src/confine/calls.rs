//! Which system calls the daemon makes once it has attached: everything else is refused.
//!
//! Found by reading and by `strace -f` under the live suite. Two answers to what is not here. What nothing in the daemon
//! could ever ask for, and whoever has taken it over would ask for first (a program, another process's memory, a probe, a
//! mount, a module, a namespace), ends the process: that is loud, and the service manager starts a new one. Anything else
//! is refused with `EPERM`, counted and logged: it may be a gap in this list, and a gap must not end the watch.

use super::program::{Answer, Rule, Rules, Test};
use super::threads;

/// Calls that are made with any arguments.
const ALLOWED: &[i64] = &[
    // Often made: the kernel before 5.11 goes through the list each time.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_futex,
    libc::SYS_epoll_wait,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    // Files.
    libc::SYS_open,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pwritev2,
    libc::SYS_preadv2,
    libc::SYS_copy_file_range,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_close_range,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Connections that are there, and to the service manager.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_socketpair,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_arch_prctl,
    // Questions about itself and the machine.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgrp,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getrlimit,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_capget,
];

/// Calls that end the process: nothing in the daemon makes them.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // Privileges, and the clock.
    libc::SYS_capset,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_mknod,
    libc::SYS_mknodat,
];

/// Commands of bpf(2) on maps and programs that are held already: look up, update, delete, next key, information, and
/// the batches of the first three.
const BPF_COMMANDS: &[u32] = &[1, 2, 3, 4, 15, 24, 25, 26, 27];

/// Requests of ioctl(2): is it a terminal, how large, bytes that wait to be read, bytes that a peer has not acknowledged,
/// not to block; and to switch an event of perf off.
const IOCTLS: &[u64] =
    &[libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::TIOCOUTQ, libc::FIONBIO, 0x2401];

/// Options of prctl(2): names of threads and of memory, and what one has.
const PRCTLS: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    0x5356_4d41, // PR_SET_VMA
    libc::PR_CAPBSET_READ,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_DUMPABLE,
    // These two only take away; the second comes before a ruleset.
    libc::PR_CAPBSET_DROP,
    libc::PR_SET_NO_NEW_PRIVS,
];

/// Flags of clone(2) that make namespaces, and those of a tracer.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// What the rules depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Some output goes over a network: sockets are made, and names looked up, for which the C library may load
    /// libraries.
    pub(super) network: bool,
}

/// What every thread may call but the canaries' own.
pub(super) fn rules(wanted: Wanted) -> Rules {
    let mut rules: Vec<Rule> = ALLOWED.iter().map(|nr| Rule::new(*nr as u32, &[], Answer::Allow)).collect();
    let mut add = |nr: i64, tests: &[(u32, Test)], answer| rules.push(Rule::new(nr as u32, tests, answer));
    for command in BPF_COMMANDS {
        add(libc::SYS_bpf, &[(0, Test::Word(*command))], Answer::Allow);
    }
    add(libc::SYS_bpf, &[], Answer::Kill);
    for request in IOCTLS {
        add(libc::SYS_ioctl, &[(1, Test::Word(*request as u32))], Answer::Allow);
    }
    for option in PRCTLS {
        add(libc::SYS_prctl, &[(0, Test::Word(*option as u32))], Answer::Allow);
    }
    // Threads, and the child of the canaries.
    add(libc::SYS_clone, &[(0, Test::Without(NEW_NAMESPACES | libc::CLONE_PTRACE as u32))], Answer::Allow);
    add(libc::SYS_clone, &[], Answer::Kill);
    // Its flags cannot be seen here; the C library then takes clone.
    add(libc::SYS_clone3, &[], Answer::Error(libc::ENOSYS));
    // No memory becomes a program.
    let data_only = [(2, Test::Without(libc::PROT_EXEC as u32))];
    add(libc::SYS_mprotect, &data_only, Answer::Allow);
    if wanted.network {
        add(libc::SYS_mmap, &[], Answer::Allow);
    } else {
        add(libc::SYS_mmap, &data_only, Answer::Allow);
    }
    // Memory for journald, which takes it only sealed.
    let sealable = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    add(libc::SYS_memfd_create, &[(1, Test::Word(sealable))], Answer::Allow);
    // Limits are read, not set.
    add(libc::SYS_prlimit64, &[(2, Test::Exactly(0))], Answer::Allow);
    // abort(), and what takes turns at its rulesets; to threads of this process only.
    let own = Test::Word(std::process::id());
    for signal in [libc::SIGABRT, threads::signal()] {
        add(libc::SYS_tgkill, &[(0, own), (2, Test::Word(signal as u32))], Answer::Allow);
    }
    // Only restricts further; its turn comes when all threads run.
    add(libc::SYS_landlock_restrict_self, &[], Answer::Allow);
    add(libc::SYS_socket, &[(0, Test::Word(libc::AF_UNIX as u32))], Answer::Allow);
    if wanted.network {
        for family in [libc::AF_INET, libc::AF_INET6] {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                let kind = kind as u32;
                let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u32;
                for kind in
                    [kind, kind | libc::SOCK_CLOEXEC as u32, kind | libc::SOCK_NONBLOCK as u32, kind | flags]
                {
                    add(
                        libc::SYS_socket,
                        &[(0, Test::Word(family as u32)), (1, Test::Word(kind))],
                        Answer::Allow,
                    );
                }
            }
        }
        // Which addresses this host has decides which of a name's are tried first.
        let route = [(0, Test::Word(libc::AF_NETLINK as u32)), (2, Test::Word(libc::NETLINK_ROUTE as u32))];
        add(libc::SYS_socket, &route, Answer::Allow);
        // The port of a question to a name server.
        add(libc::SYS_bind, &[], Answer::Allow);
    }
    for nr in DEADLY {
        add(*nr, &[], Answer::Kill);
    }
    Rules { x86_64: rules, i386: Vec::new() }
}

/// What the canary thread may call: its own calls, each in exactly its form, and what all may.
pub(super) fn canary_rules(own: Rules, wanted: Wanted) -> Rules {
    let mut rules = own;
    rules.x86_64.extend(self::rules(wanted).x86_64);
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::program::tests::{i386, run, x86_64};
    use super::*;

    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const TRAP: u32 = libc::SECCOMP_RET_TRAP;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn no_call_is_both_made_and_deadly() {
        let allowed: HashSet<_> = ALLOWED.iter().collect();
        assert_eq!(allowed.len(), ALLOWED.len(), "one stands there twice");
        for deadly in DEADLY {
            assert!(!allowed.contains(deadly), "{deadly}");
        }
    }

    #[test]
    fn what_the_daemon_never_does_ends_it_or_is_refused() {
        let program = rules(Wanted::default()).program().unwrap();
        let answer = |nr, args| run(&program, x86_64(nr, args));
        for (nr, args) in [
            (libc::SYS_execve, [1, 2, 3, 0]),
            (libc::SYS_ptrace, [0; 4]),
            (libc::SYS_mount, [0; 4]),
            (libc::SYS_finit_module, [0; 4]),
            (libc::SYS_setns, [u64::from(u32::MAX), 0, 0, 0]),
            (libc::SYS_unshare, [1, 0, 0, 0]),
            // BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_LINK_CREATE; the kernel looks at the lower half only.
            (libc::SYS_bpf, [0; 4]),
            (libc::SYS_bpf, [5, 0, 0, 0]),
            (libc::SYS_bpf, [28, 0, 0, 0]),
            (libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0]),
        ] {
            assert_eq!(answer(nr, args), KILL, "{nr} {args:?}");
        }
        for (nr, args) in [
            (libc::SYS_memfd_create, [0; 4]),
            (libc::SYS_kill, [1, 9, 0, 0]),
            (libc::SYS_seccomp, [1, 0, 0, 0]),
            (libc::SYS_mprotect, [0, 4096, 7, 0]),
            (libc::SYS_mmap, [0, 4096, 5, 0]),
            (libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0]),
            (libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0]),
            (libc::SYS_prlimit64, [0, 7, 1, 0]),
            (libc::SYS_tgkill, [1, 1, 9, 0]),
        ] {
            assert_eq!(answer(nr, args), TRAP, "{nr} {args:?}");
        }
        for (nr, args) in [
            (libc::SYS_read, [0; 4]),
            (libc::SYS_bpf, [1, 0, 0, 0]),
            (libc::SYS_mmap, [0, 4096, 3, 34]),
            (libc::SYS_clone, [0x3d_0f00, 0, 0, 0]),
            (libc::SYS_socket, [libc::AF_UNIX as u64, 2, 0, 0]),
            // What outputs ask for: what a syslog server has not acknowledged, memory for journald.
            (libc::SYS_ioctl, [0, libc::TIOCOUTQ, 0, 0]),
            (libc::SYS_memfd_create, [0, 3, 0, 0]),
        ] {
            assert_eq!(answer(nr, args), ALLOW, "{nr} {args:?}");
        }
        assert_eq!(answer(libc::SYS_clone3, [0; 4]), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        assert_eq!(
            run(&program, i386(3, [0; 4])),
            KILL,
            "nothing but canaries calls through the other table"
        );
    }

    #[test]
    fn an_output_over_a_network_gets_sockets_and_no_more() {
        let program = rules(Wanted { network: true }).program().unwrap();
        let socket = |family: i32, kind: i32| {
            run(&program, x86_64(libc::SYS_socket, [family as u64, kind as u64, 0, 0]))
        };
        assert_eq!(socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC), ALLOW);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_RAW), TRAP);
        assert_eq!(socket(libc::AF_PACKET, libc::SOCK_DGRAM), TRAP);
        assert_eq!(run(&program, x86_64(libc::SYS_listen, [0; 4])), TRAP);
    }
}
