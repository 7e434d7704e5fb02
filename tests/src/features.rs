//! What Ringfence uses that not every kernel has, each with the kernels that have it.
//!
//! The live suite holds this table against what the daemon attached and resolved on the running kernel, in both
//! directions: a feature that is missing where it should be fails, and so does one that appears where it should not.

use std::fmt;

use Modes::{Both, LongerByTrampoline, Tracepoint, Trampoline};
use Sign::{Log, Probe, ProgramInfo};

/// A kernel's version: `(6, 1)` is 6.1.
pub type Version = (u32, u32);

/// The attach modes in which a feature is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// In each.
    Both,
    /// In the trampoline mode only.
    Trampoline,
    /// In the tracepoint mode only.
    Tracepoint,
    /// In the trampoline mode on every kernel before 7.0, in the tracepoint mode on those that have it.
    LongerByTrampoline,
}

/// How the running daemon shows that it uses a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The probe of this name is attached (`ringfence_probe_attached`); without the feature it is not planned at all.
    Probe(&'static str),
    /// The line of the log on what BTF says has this key, `true`; without the feature `false`.
    Log(&'static str),
    /// The kernel's description of each program (`/proc/PID/fdinfo`) has this key.
    ProgramInfo(&'static str),
}

/// A feature of some kernels.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Its name in tests.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The first kernel that has it; `None`: the oldest that works.
    pub since: Option<Version>,
    /// The first kernel that has it no more.
    pub until: Option<Version>,
    /// Where it is used.
    pub modes: Modes,
    /// How to see it.
    pub sign: Sign,
}

/// The first kernel whose `kernel.ftrace_enabled` can be switched off while trampolines are attached. Before, the one
/// `ftrace_ops` behind all of them was marked `FTRACE_OPS_FL_PERMANENT`, which keeps the switch where it is (`EBUSY`).
pub const FTRACE_CAN_BE_SWITCHED_OFF: Version = (6, 0);

/// The hook on every change of a task's namespaces.
pub const NAMESPACE_SWITCH: &str = "fentry/switch_task_namespaces";
/// Kernels whose compiler drew that function into `exit_task_namespaces`, by which its hook is tested. A matter of
/// the compiler: of Debian's kernels it is this one.
pub const SWITCH_IS_UNTESTED: &[Version] = &[(6, 12)];

/// Every feature that depends on the kernel. What is not here is there on every kernel from 5.10 on.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "tracepoint_cap_capable",
        what: "capability checks have a tracepoint, so they are seen where trampolines are refused, too",
        since: Some((6, 14)),
        until: Some((7, 0)),
        modes: Tracepoint,
        sign: Probe("cap_capable_tp"),
    },
    Feature {
        name: "perf_cap_capable",
        what: "programs run preemptible: capability checks are hooked by perf's tracepoint, whose do not",
        since: Some((7, 0)),
        until: None,
        modes: Both,
        sign: Probe("cap_capable_perf"),
    },
    Feature {
        name: "fexit_cap_capable",
        what: "capability checks have no tracepoint: the function is hooked",
        since: None,
        until: Some((6, 14)),
        modes: LongerByTrampoline,
        sign: Probe("cap_capable"),
    },
    Feature {
        name: "fexit_security_capset",
        what: "the check of capset has no tracepoint and may be drawn into capset: the next function is hooked",
        since: None,
        until: Some((6, 14)),
        modes: LongerByTrampoline,
        sign: Probe("security_capset"),
    },
    Feature {
        name: "seccomp_filter_with_data",
        what: "__seccomp_filter takes seccomp_data: its answer is the hook's fourth argument",
        since: None,
        until: Some((6, 15)),
        modes: Trampoline,
        sign: Probe("seccomp_filter_3"),
    },
    Feature {
        name: "seccomp_filter_without_data",
        what: "__seccomp_filter takes no seccomp_data: its answer is the hook's third argument",
        since: Some((6, 15)),
        until: None,
        modes: Trampoline,
        sign: Probe("seccomp_filter_2"),
    },
    Feature {
        name: "tp_btf_sys_exit",
        what: "BTF tracepoints run with preemption off, so none is skipped for a preempted task's sake",
        since: None,
        until: Some((7, 0)),
        modes: Tracepoint,
        sign: Probe("sys_exit"),
    },
    Feature {
        name: "perf_sys_exit",
        what: "BTF tracepoints run preemptible: the exit of calls is hooked by perf's tracepoint",
        since: Some((7, 0)),
        until: None,
        modes: Tracepoint,
        sign: Probe("sys_exit_perf"),
    },
    Feature {
        name: "task_pt_regs",
        what: "the helper bpf_task_pt_regs finds a task's registers; before, they are found from its stack",
        since: Some((5, 15)),
        until: None,
        modes: Both,
        sign: Log("task_pt_regs"),
    },
    Feature {
        name: "typed_wrappers",
        // A matter of the tool that made the BTF. Of Debian's kernels 5.10 lacks it and 6.1 has it.
        what: "every wrapper's BTF knows struct pt_regs, so its argument is read directly",
        since: Some((6, 1)),
        until: None,
        modes: Both,
        sign: Log("typed_wrappers"),
    },
    Feature {
        name: "skipped_runs",
        what: "the kernel skips a program that is under way on that CPU, and counts it",
        since: Some((5, 12)),
        until: None,
        modes: Both,
        sign: ProgramInfo("recursion_misses"),
    },
];

impl Feature {
    /// True if the kernel of this version is to have it.
    pub fn is_in(&self, kernel: Version) -> bool {
        self.since.is_none_or(|since| kernel >= since) && self.until.is_none_or(|until| kernel < until)
    }

    /// True if a daemon in this attach mode uses it on the kernel of this version.
    pub fn is_used(&self, kernel: Version, mode: &str) -> bool {
        match self.modes {
            Both => self.is_in(kernel),
            Trampoline => mode == "trampoline" && self.is_in(kernel),
            Tracepoint => mode == "tracepoint" && self.is_in(kernel),
            LongerByTrampoline => self.is_in(kernel) || mode == "trampoline" && kernel < (7, 0),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some((major, minor)) = self.since {
            write!(f, ", since {major}.{minor}")?;
        }
        if let Some((major, minor)) = self.until {
            write!(f, ", before {major}.{minor}")?;
        }
        write!(f, " ({})", self.what)
    }
}

/// The running kernel's version; `None` if it does not tell.
pub fn running() -> Option<Version> {
    version_of(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

/// The version at the start of `uname -r`.
pub fn version_of(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version_of("6.12.117+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(version_of("unknown"), None);
        assert!((6, 9) < (6, 14) && (6, 14) < (7, 0));
    }

    #[test]
    fn a_feature_is_in_from_its_first_kernel_on_and_out_from_its_last() {
        let between = Feature { since: Some((5, 15)), until: Some((7, 0)), ..FEATURES[0] };
        let found = [(5, 10), (5, 15), (6, 18), (7, 0)].map(|kernel| between.is_in(kernel));
        assert_eq!(found, [false, true, true, false]);
    }

    #[test]
    fn each_feature_differs_between_kernels_and_has_its_own_sign() {
        for feature in FEATURES {
            assert!(feature.since.is_some() || feature.until.is_some(), "{feature}");
            assert_eq!(FEATURES.iter().filter(|other| other.sign == feature.sign).count(), 1, "{feature}");
        }
    }
}
