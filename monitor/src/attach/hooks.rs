//! Which functions and tracepoints the programs sit on.

use monitor_common::call::Call;

/// How one program is attached.
pub(super) enum Hook {
    /// `tp_btf`, by the tracepoint's name.
    Tracepoint(&'static str),
    /// `fexit`, by the function's name.
    Return(String),
    /// `fentry`, by the function's name.
    Entry(&'static str),
    /// A tracepoint of perf: its category and its name.
    Perf(&'static str, &'static str),
    /// A cgroup device program at the root of the v2 hierarchy, which holds every process also where it is not
    /// mounted.
    DeviceCgroup,
}

/// Tracepoints that keep the tables true: program, tracepoint, and what is lost without it.
pub(super) const LIFE_CYCLE: &[(&str, &str, &str)] = &[
    (
        "process_exec",
        "sched_process_exec",
        "executables of short processes are read from /proc, if they still run",
    ),
    (
        "process_fork",
        "sched_process_fork",
        "ancestors of short processes are unknown, and clones that make namespaces are not seen",
    ),
    ("process_exit", "sched_process_exit", "the process table keeps dead processes until it is full"),
    ("cgroup_mkdir", "cgroup_mkdir", "containers that live shorter than a second may have no id"),
    ("cgroup_rmdir", "cgroup_rmdir", "the container table keeps removed containers until it is full"),
    (
        "cgroup_attach",
        "cgroup_attach_task",
        "a runtime's set-up of a container counts as the container's own doing",
    ),
];

/// Takes what was known of an ended thread out of the kernel's table; as in [`LIFE_CYCLE`].
pub(super) const FREED: (&str, &str, &str) = (
    "process_freed",
    "sched_process_free",
    "what is known of ended threads stays until its place is needed, and may push out living ones",
);

/// Programs of the trampoline mode with their calls; the function's name is the program's with `__` for `on_`.
pub(super) const RETURNS: &[(&str, Call)] = &[
    ("on_x64_sys_capset", Call::Capset),
    ("on_x64_sys_setns", Call::Setns),
    ("on_x64_sys_unshare", Call::Unshare),
    ("on_x64_sys_clone", Call::Clone),
    ("on_x64_sys_clone3", Call::Clone3),
    ("on_x64_sys_settimeofday", Call::Settimeofday),
    ("on_x64_sys_clock_settime", Call::ClockSettime),
    ("on_x64_sys_adjtimex", Call::Adjtimex),
    ("on_x64_sys_clock_adjtime", Call::ClockAdjtime),
    ("on_x64_sys_syslog", Call::Syslog),
    ("on_x64_sys_iopl", Call::Iopl),
    ("on_x64_sys_ioperm", Call::Ioperm),
    ("on_x64_sys_open", Call::Open),
    ("on_x64_sys_creat", Call::Creat),
    ("on_x64_sys_openat", Call::Openat),
    ("on_x64_sys_openat2", Call::Openat2),
    ("on_x64_sys_open_by_handle_at", Call::OpenByHandleAt),
    ("on_ia32_sys_capset", Call::Capset),
    ("on_ia32_sys_setns", Call::Setns),
    ("on_ia32_sys_unshare", Call::Unshare),
    ("on_ia32_compat_sys_ia32_clone", Call::Clone),
    ("on_ia32_sys_clone3", Call::Clone3),
    ("on_ia32_compat_sys_settimeofday", Call::Settimeofday),
    ("on_ia32_sys_stime32", Call::Stime),
    ("on_ia32_sys_clock_settime32", Call::ClockSettime),
    ("on_ia32_sys_clock_settime", Call::ClockSettime),
    ("on_ia32_sys_adjtimex_time32", Call::Adjtimex),
    ("on_ia32_sys_clock_adjtime32", Call::ClockAdjtime),
    ("on_ia32_sys_clock_adjtime", Call::ClockAdjtime),
    ("on_ia32_sys_syslog", Call::Syslog),
    ("on_ia32_sys_iopl", Call::Iopl),
    ("on_ia32_sys_ioperm", Call::Ioperm),
    ("on_ia32_compat_sys_open", Call::Open),
    ("on_ia32_sys_creat", Call::Creat),
    ("on_ia32_compat_sys_openat", Call::Openat),
    ("on_ia32_sys_openat2", Call::Openat2),
    ("on_ia32_compat_sys_open_by_handle_at", Call::OpenByHandleAt),
];

/// Names of the functions that the trampoline mode hooks, those included that are no call's wrapper.
pub fn hooked_functions() -> impl Iterator<Item = String> {
    let others =
        ["__seccomp_filter", "cap_capable", "security_capset", "commit_creds", "switch_task_namespaces"];
    hooked_wrappers().chain(others.map(str::to_owned))
}

/// Names of the watched calls' wrappers, whose argument is `const struct pt_regs *`.
pub fn hooked_wrappers() -> impl Iterator<Item = String> {
    RETURNS.iter().map(|(program, _)| function_of(program))
}

/// Names of the tracepoints that every mode hooks.
pub fn hooked_tracepoints() -> impl Iterator<Item = &'static str> {
    LIFE_CYCLE.iter().map(|(_, tracepoint, _)| *tracepoint).chain(["sched_process_free", "sys_exit"])
}

/// The call that a program of the trampoline mode watches, and whether in the 32-bit table.
pub fn watched_by(program: &str) -> Option<(Call, bool)> {
    let (_, call) = RETURNS.iter().find(|(name, _)| *name == program)?;
    Some((*call, program.starts_with("on_ia32_")))
}

/// The function that a program of the trampoline mode sits on.
pub(super) fn function_of(program: &str) -> String {
    program.replacen("on_", "__", 1)
}

/// What cannot be seen without a program.
pub(super) fn cost_of(program: &str) -> &'static str {
    let by_life = LIFE_CYCLE.iter().chain(&[FREED]).find(|(name, _, _)| *name == program);
    match (by_life, program) {
        (Some((_, _, cost)), _) => cost,
        (None, "credentials_committed") => {
            "capabilities that grow otherwise than by an exec or a clone are not seen"
        }
        (None, "nsproxy_switched") => {
            "namespaces that change otherwise than by a watched call show with the process's next record"
        }
        (None, "device_asked") => "refused opens of devices are told by the path that the caller claims",
        (None, "security_capset") => CHECKS_UNSEEN,
        (None, name) if name.starts_with("cap_capable") => CHECKS_UNSEEN,
        (None, name) if name.starts_with("seccomp_filter") => {
            "attempts that a seccomp filter refuses are not seen"
        }
        (None, name) if name.starts_with("sys_exit") => "no watched call is seen",
        (None, name) if name.starts_with("syscall_entered") => {
            "no system call is noted: there are no seccomp profiles"
        }
        (None, name) if name.starts_with("syscall_refused") => {
            "calls that a seccomp filter refuses are not noted"
        }
        (None, _) => "this call is not seen in this ABI",
    }
}

const CHECKS_UNSEEN: &str = "capability checks are not counted, and who refused is not told apart: seccomp, capability and others are reported as `other`";
