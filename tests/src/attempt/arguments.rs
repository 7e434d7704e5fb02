//! What the event of each attempt must show as the call's arguments (`evt.args`).

use super::Attempt;

/// Name of the attempt, what stands in the call's registers, and what stands in memory. `*` is anything: a descriptor,
/// the time, a process, or a file of the process's own.
#[rustfmt::skip]
const ARGUMENTS: &[(&str, &str, &str)] = &[
    ("adjtimex-freq", "", "modes=ADJ_FREQUENCY"),
    ("adjtimex-freq-nocap", "", "modes=ADJ_FREQUENCY"),
    ("adjtimex-offset", "", "modes=ADJ_SETOFFSET"),
    ("adjtimex-offset-invalid", "", "modes=ADJ_SETOFFSET"),
    ("adjtimex-offset-nocap", "", "modes=ADJ_SETOFFSET"),
    ("adjtimex-tick", "", "modes=ADJ_TICK"),
    ("capset-drop", "", "effective=* permitted=* inheritable=* target_pid=0"),
    ("capset-gain", "", "effective=* permitted=* inheritable=* target_pid=0"),
    ("capset-other", "", "effective=* permitted=* inheritable=* target_pid=*"),
    ("capset-same", "", "effective=* permitted=* inheritable=* target_pid=0"),
    ("capset-version", "", "effective=* permitted=* inheritable=* target_pid=0"),
    ("clock_adjtime-nocap", "clockid=CLOCK_REALTIME", "modes=ADJ_SETOFFSET"),
    ("clock_adjtime-offset", "clockid=CLOCK_REALTIME", "modes=ADJ_SETOFFSET"),
    ("clock_adjtime-offset-invalid", "clockid=CLOCK_REALTIME", "modes=ADJ_SETOFFSET"),
    ("clock_adjtime-tick", "clockid=CLOCK_REALTIME", "modes=ADJ_TICK"),
    ("clock_adjtime64-nocap", "clockid=CLOCK_REALTIME", "modes=ADJ_SETOFFSET"),
    ("clock_adjtime64-offset", "clockid=CLOCK_REALTIME", "modes=ADJ_SETOFFSET"),
    ("clock_adjtime64-tick", "clockid=CLOCK_REALTIME", "modes=ADJ_TICK"),
    ("clock_settime-invalid", "clockid=CLOCK_REALTIME", "sec=0 nsec=2000000000"),
    ("clock_settime-monotonic", "clockid=CLOCK_MONOTONIC", "sec=0 nsec=0"),
    ("clock_settime-nocap", "clockid=CLOCK_REALTIME", "sec=* nsec=*"),
    ("clock_settime-now", "clockid=CLOCK_REALTIME", "sec=* nsec=*"),
    ("clock_settime64-invalid", "clockid=CLOCK_REALTIME", "sec=0 nsec=2000000000"),
    ("clock_settime64-nocap", "clockid=CLOCK_REALTIME", "sec=* nsec=*"),
    ("clock_settime64-now", "clockid=CLOCK_REALTIME", "sec=* nsec=*"),
    ("clone-conflict", "flags=CLONE_FS|CLONE_NEWNS", ""),
    ("clone-nocap", "flags=CLONE_NEWUTS", ""),
    ("clone-user", "flags=CLONE_NEWUSER", ""),
    ("clone-uts", "flags=CLONE_NEWUTS", ""),
    ("clone3-badsignal", "", "flags=CLONE_NEWUTS"),
    ("clone3-into-cgroup", "", "flags=CLONE_NEWUTS|CLONE_INTO_CGROUP"),
    ("clone3-nocap", "", "flags=CLONE_NEWUTS"),
    ("clone3-time", "", "flags=CLONE_NEWTIME"),
    ("clone3-uts", "", "flags=CLONE_NEWUTS"),
    ("creat-kmsg", "flags=O_WRONLY|O_CREAT|O_TRUNC path=/dev/kmsg", ""),
    ("creat-node-mem", "flags=O_WRONLY|O_CREAT|O_TRUNC path=*ringfence-attempt-node-*", ""),
    ("ioperm-badport", "from=65536 num=1 turn_on=1", ""),
    ("ioperm-nocap", "from=128 num=1 turn_on=1", ""),
    ("ioperm-off", "from=128 num=1 turn_on=0", ""),
    ("ioperm-on", "from=128 num=1 turn_on=1", ""),
    ("iopl-0", "level=0", ""),
    ("iopl-3", "level=3", ""),
    ("iopl-4", "level=4", ""),
    ("iopl-nocap", "level=3", ""),
    ("open-kmem", "flags=O_RDONLY|O_NONBLOCK path=/dev/kmem", ""),
    ("open-kmsg", "flags=O_RDONLY|O_NONBLOCK path=/dev/kmsg", ""),
    ("open-node-mem", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-*", ""),
    ("open-proc-kmsg", "flags=O_RDONLY|O_NONBLOCK path=/proc/kmsg", ""),
    ("open_by_handle_at-mem", "flags=O_RDONLY|O_NONBLOCK dirfd=*", ""),
    ("open_by_handle_at-node", "flags=O_RDONLY|O_NONBLOCK dirfd=*", ""),
    ("openat-bound-kmsg", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-bound-kmsg-* dirfd=-100", ""),
    ("openat-bound-mem", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-bound-mem-* dirfd=-100", ""),
    ("openat-kcore", "flags=O_RDONLY|O_NONBLOCK path=/proc/kcore dirfd=-100", ""),
    ("openat-kmsg", "flags=O_RDONLY|O_NONBLOCK path=/dev/kmsg dirfd=-100", ""),
    ("openat-mem", "flags=O_RDONLY|O_NONBLOCK path=/dev/mem dirfd=-100", ""),
    ("openat-msr", "flags=O_RDONLY|O_NONBLOCK path=/dev/cpu/0/msr dirfd=-100", ""),
    ("openat-node-kmem", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-node-kmsg", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-node-mem", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-node-msr", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-node-msr-none", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-node-port", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("openat-port", "flags=O_RDONLY|O_NONBLOCK path=/dev/port dirfd=-100", ""),
    ("openat-proc-kmsg-nocap", "flags=O_RDONLY|O_NONBLOCK path=/proc/kmsg dirfd=-100", ""),
    ("openat-relative", "flags=O_RDONLY|O_NONBLOCK path=./kmsg dirfd=*", ""),
    ("openat-symlink", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-link-* dirfd=-100", ""),
    ("openat2-kmsg", "flags=O_RDONLY|O_NONBLOCK path=/dev/kmsg dirfd=-100", ""),
    ("openat2-node-mem", "flags=O_RDONLY|O_NONBLOCK path=*ringfence-attempt-node-* dirfd=-100", ""),
    ("setns-badfd", "fd=-1 nstype=0", ""),
    ("setns-init", "fd=* nstype=0", ""),
    ("setns-mnt", "fd=* nstype=CLONE_NEWNS", ""),
    ("setns-nocap", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-pidfd", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-pidfd-init", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-pidfd-nocap", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-pidfd-nokind", "fd=* nstype=0", ""),
    ("setns-pidfd-parent-nocap", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-uts", "fd=* nstype=CLONE_NEWUTS", ""),
    ("setns-wrong-type", "fd=* nstype=CLONE_NEWNS", ""),
    ("settimeofday-invalid", "", "sec=0 nsec=2000000000000"),
    ("settimeofday-nocap", "", "sec=* nsec=*"),
    ("settimeofday-now", "", "sec=* nsec=*"),
    ("stime-nocap", "", "sec=*"),
    ("stime-now", "", "sec=*"),
    ("syslog-badtype", "type=UNKNOWN len=0", ""),
    ("syslog-clear", "type=CLEAR len=0", ""),
    ("syslog-clear-nocap", "type=CLEAR len=0", ""),
    ("syslog-nocap", "type=SIZE_UNREAD len=0", ""),
    ("syslog-read", "type=READ_ALL len=4096", ""),
    ("syslog-read-nocap", "type=READ len=1", ""),
    ("syslog-size", "type=SIZE_BUFFER len=0", ""),
    ("syslog-unread", "type=SIZE_UNREAD len=0", ""),
    ("unshare-badflags", "flags=0x1", ""),
    ("unshare-mnt", "flags=CLONE_NEWNS", ""),
    ("unshare-nocap", "flags=CLONE_NEWUTS", ""),
    ("unshare-time", "flags=CLONE_NEWTIME", ""),
    ("unshare-user", "flags=CLONE_NEWUSER", ""),
    ("unshare-uts", "flags=CLONE_NEWUTS", ""),
];

/// Patterns of `evt.args`, one of which must fit. `untouched`: the memory was never touched before a filter refused the
/// call, so nobody could read it. Attempts with a bad pointer, and those that are no event, have no row.
pub fn arguments(attempt: &Attempt, untouched: bool) -> Vec<String> {
    let row = ARGUMENTS.iter().find(|(name, ..)| *name == attempt.name);
    let (_, registers, memory) = row.copied().unwrap_or_default();
    let whole = [registers, memory].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if untouched && !memory.is_empty() { vec![whole, registers.to_owned()] } else { vec![whole] }
}

/// Whether a text fits a pattern in which `*` stands for any characters, or none.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(behind) = text.strip_prefix(before) else { return false };
    (0..=behind.len()).any(|at| behind.is_char_boundary(at) && fits(rest, &behind[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Want, all};

    #[test]
    fn every_attempt_that_is_an_event_says_its_arguments() {
        let without = all().filter(|attempt| {
            let has_row = ARGUMENTS.iter().any(|(name, ..)| *name == attempt.name);
            let silent = attempt.native == Want::NoEvent && attempt.contained == Want::NoEvent;
            let unreadable = attempt.name.ends_with("-badpointer");
            !has_row && !silent && !unreadable
        });
        assert_eq!(without.map(|attempt| attempt.name).collect::<Vec<_>>(), Vec::<&str>::new());
        for (name, registers, memory) in ARGUMENTS {
            assert!(all().any(|attempt| attempt.name == *name), "{name}");
            assert!(!registers.is_empty() || !memory.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_star_is_anything() {
        for (pattern, text) in [("a*c", "abbc"), ("a*", "a"), ("*b*", "abc"), ("fd=* x", "fd=4 x"), ("", "")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abcd"), ("a", "ab"), ("fd=* x", "fd=4"), ("", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
