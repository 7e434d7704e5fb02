//! A seccomp profile of what was seen of a container's system calls: in the form of the OCI's runtime specification, as
//! `docker run --security-opt seccomp=FILE` takes it.

use std::collections::BTreeSet;

use monitor_common::call::NEW_NAMESPACES;
use monitor_common::syscall_set::{AF_VSOCK, PERSONALITIES};
use serde::Serialize;

use super::calls::{CallNames, CallsInfo};

/// What a runtime calls between installing the filter and the first program. That is noted while a container has a filter;
/// a profile of one that had none needs these. The first group was measured with runc 1.1.5: without any one of them
/// no container starts. The second is what its Go runtime calls when threads, memory or signals ask for it, which no
/// single start shows; the third what crun (1.8.1, traced) and newer runc call in place of some of the first.
pub const RUNTIME_NEEDS: &[&str] = &[
    "capget",
    "capset",
    "chdir",
    "close",
    "execve",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getppid",
    "newfstatat",
    "openat",
    "prctl",
    "read",
    "rt_sigreturn",
    "setgid",
    "setgroups",
    "setuid",
    "write",
    // Go.
    "clone",
    "epoll_ctl",
    "epoll_pwait",
    "exit_group",
    "fcntl",
    "getpid",
    "gettid",
    "madvise",
    "mmap",
    "munmap",
    "nanosleep",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_yield",
    "sigaltstack",
    "tgkill",
    // Others.
    "close_range",
    "faccessat2",
    "fchown",
    "pselect6",
    "setresgid",
    "setresuid",
];

/// What programs come to call without a line of theirs that says so, perhaps only after months, so that no observation shows
/// it. A sleeping call that is stopped and continued (SIGSTOP and SIGCONT, a debugger, a frozen cgroup) is entered again as
/// `restart_syscall`. The others are answered by the vDSO without a call, until the kernel changes to a clock source that
/// cannot be read there (a virtual machine that was moved, a TSC that is found unstable).
pub const PROGRAMS_NEED: &[&str] =
    &["clock_getres", "clock_gettime", "getcpu", "gettimeofday", "restart_syscall", "time"];

/// The same, which only the 32-bit table has. `sigreturn` ends a signal's handler that was not set with `SA_SIGINFO`.
pub const PROGRAMS_NEED_I386: &[&str] = &["clock_getres_time64", "clock_gettime64", "sigreturn"];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: &'static str,
    /// ENOSYS and not EPERM: a program that was updated, or its C library, takes it for an old kernel and does what it did
    /// before, while EPERM makes it fail.
    default_errno_ret: u32,
    architectures: Vec<&'static str>,
    syscalls: Vec<Entry>,
}

/// Calls that get one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Condition>,
}

/// What the first argument must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u32,
    value: u64,
    value_two: u64,
    op: &'static str,
}

/// The conditions under which Docker's default profile allows a call; more than one are alternatives. It is the first
/// argument that they are about.
fn conditions(name: &str) -> Vec<Condition> {
    let condition = |value: u64, op| Condition { index: 0, value, value_two: 0, op };
    match name {
        "clone" => vec![condition(NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")],
        "personality" => PERSONALITIES.iter().map(|per| condition(u64::from(*per), "SCMP_CMP_EQ")).collect(),
        "socket" => vec![condition(u64::from(AF_VSOCK), "SCMP_CMP_NE")],
        _ => Vec::new(),
    }
}

/// The profile, and the calls that are not in it because they have no name here.
///
/// What a filter refused while the container was watched stays refused, with the answer that it gave: the programs
/// lived with it. All else that was never seen is refused, too. Calls that Docker's default profile allows with some
/// arguments alone are allowed with these alone, unless others were seen to pass.
pub fn profile(info: &CallsInfo) -> (Profile, Vec<String>) {
    let tables = [&info.x86_64, &info.i386];
    let of = |list: fn(&CallNames) -> &Vec<String>| -> BTreeSet<&str> {
        tables.iter().flat_map(|table| list(table)).map(String::as_str).collect()
    };
    let has_i386 = info.i386 != CallNames::default();
    let in_i386: &[&str] = if has_i386 { PROGRAMS_NEED_I386 } else { &[] };
    let mut allowed: BTreeSet<&str> =
        [RUNTIME_NEEDS, PROGRAMS_NEED, in_i386].into_iter().flatten().copied().collect();
    allowed.extend(of(|names| &names.called));
    allowed.extend(of(|names| &names.runtime));
    let (mut refused, mut refused_enosys) = (of(|names| &names.refused), of(|names| &names.refused_enosys));
    // A profile knows names and no tables: what one table's programs need is allowed in both.
    refused.retain(|name| !allowed.contains(name));
    refused_enosys.retain(|name| !allowed.contains(name) && !refused.contains(name));
    let is_nameless = |name: &&str| name.bytes().all(|b| b.is_ascii_digit());
    let nameless: BTreeSet<&str> =
        [&allowed, &refused, &refused_enosys].into_iter().flatten().copied().filter(is_nameless).collect();
    let entry = |names: &BTreeSet<&str>, action, errno_ret| {
        let names: Vec<String> =
            names.iter().filter(|name| !nameless.contains(*name)).map(|name| (*name).to_owned()).collect();
        (!names.is_empty()).then_some(Entry { names, action, errno_ret, args: Vec::new() })
    };
    let unusual = of(|names| &names.unusual);
    let is_conditional = |name: &&str| !conditions(name).is_empty() && !unusual.contains(name);
    let (conditional, whole): (BTreeSet<&str>, BTreeSet<&str>) =
        allowed.iter().copied().partition(is_conditional);
    let under = |(name, condition): (&str, Condition)| Entry {
        names: vec![name.to_owned()],
        action: "SCMP_ACT_ALLOW",
        errno_ret: None,
        args: vec![condition],
    };
    let conditional =
        conditional.into_iter().flat_map(|name| conditions(name).into_iter().map(move |is| (name, is)));
    let syscalls = [
        entry(&whole, "SCMP_ACT_ALLOW", None),
        entry(&refused, "SCMP_ACT_ERRNO", Some(EPERM)),
        entry(&refused_enosys, "SCMP_ACT_ERRNO", Some(ENOSYS)),
    ];
    let mut architectures = vec!["SCMP_ARCH_X86_64"];
    if has_i386 {
        architectures.push("SCMP_ARCH_X86");
    }
    if info.x32 {
        architectures.push("SCMP_ARCH_X32");
    }
    let profile = Profile {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: ENOSYS,
        architectures,
        syscalls: syscalls.into_iter().flatten().chain(conditional.map(under)).collect(),
    };
    (profile, nameless.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shown(info: &CallsInfo) -> Value {
        serde_json::to_value(profile(info).0).unwrap()
    }

    #[test]
    fn what_was_called_is_allowed_and_what_was_refused_stays_so() {
        let x86_64 = CallNames {
            called: names(&["write", "mkdir", "475"]),
            runtime: names(&["execve", "capset"]),
            refused: names(&["unshare"]),
            refused_enosys: names(&["clone3"]),
            ..CallNames::default()
        };
        let info = CallsInfo { x86_64, ..CallsInfo::default() };
        let shown = shown(&info);
        assert_eq!(shown["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(shown["defaultErrnoRet"], 38);
        assert_eq!(shown["architectures"], json!(["SCMP_ARCH_X86_64"]));
        let allowed = &shown["syscalls"][0];
        assert_eq!(allowed["action"], "SCMP_ACT_ALLOW");
        let mut expected: BTreeSet<&str> = ["write", "mkdir", "execve", "capset"].into();
        expected.extend(RUNTIME_NEEDS);
        expected.extend(PROGRAMS_NEED);
        expected.remove("clone");
        assert_eq!(allowed["names"], json!(expected));
        assert_eq!(
            shown["syscalls"][1],
            json!({"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1})
        );
        assert_eq!(
            shown["syscalls"][2],
            json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
        );
        assert_eq!(profile(&info).1, ["475"]);
    }

    #[test]
    fn what_programs_call_unawares_is_allowed_though_nobody_saw_it() {
        let seen = CallNames { called: names(&["nanosleep"]), ..CallNames::default() };
        let refused = CallNames { refused: names(&["clock_gettime"]), ..CallNames::default() };
        let info = CallsInfo { x86_64: seen, ..CallsInfo::default() };
        let allowed = |info: &CallsInfo| shown(info)["syscalls"][0]["names"].as_array().unwrap().clone();
        for name in ["restart_syscall", "clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu"] {
            assert!(allowed(&info).contains(&json!(name)), "{name}");
        }
        let only_i386 = json!("clock_gettime64");
        assert!(!allowed(&info).contains(&only_i386), "the 64-bit table has no such call");
        let info = CallsInfo { i386: refused, ..info };
        assert!(allowed(&info).contains(&only_i386));
        let answers = shown(&info)["syscalls"].as_array().unwrap().clone();
        assert!(
            answers.iter().all(|entry| entry["action"] == "SCMP_ACT_ALLOW"),
            "none of them stays refused"
        );
    }

    #[test]
    fn arguments_that_dockers_profile_refuses_pass_only_if_they_did() {
        let entries = |unusual: &[&str]| {
            let called = names(&["personality", "socket", "read"]);
            let x86_64 = CallNames { called, unusual: names(unusual), ..CallNames::default() };
            shown(&CallsInfo { x86_64, ..CallsInfo::default() })["syscalls"].as_array().unwrap().clone()
        };
        let of = |entries: &[Value], name: &str| -> Vec<Value> {
            entries
                .iter()
                .filter(|entry| entry["names"].as_array().unwrap().contains(&json!(name)))
                .cloned()
                .collect()
        };
        let all = entries(&[]);
        let clone = json!([{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        assert_eq!(of(&all, "clone").len(), 1);
        assert_eq!(of(&all, "clone")[0]["args"], clone);
        assert_eq!(of(&all, "personality").len(), 5);
        assert_eq!(of(&all, "socket")[0]["args"][0]["op"], "SCMP_CMP_NE");
        assert!(of(&all, "read")[0]["args"].is_null());
        let all = entries(&["clone", "socket"]);
        assert!(of(&all, "clone")[0]["args"].is_null() && of(&all, "socket")[0]["args"].is_null());
        assert_eq!(of(&all, "personality").len(), 5);
    }

    #[test]
    fn each_table_that_was_used_is_an_architecture() {
        let i386 = CallNames { called: names(&["socketcall"]), ..CallNames::default() };
        let x86_64 = CallNames { refused: names(&["socketcall", "ptrace"]), ..CallNames::default() };
        let shown = shown(&CallsInfo { i386, x86_64, x32: true, ..CallsInfo::default() });
        assert_eq!(shown["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
        assert!(shown["syscalls"][0]["names"].as_array().unwrap().contains(&json!("socketcall")));
        assert_eq!(shown["syscalls"][1]["names"], json!(["ptrace"]), "it is needed in the other table");
    }
}
