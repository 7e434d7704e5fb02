//! What a support bundle tells of the machine: facts by name, none that could hold a secret.

use std::fs;
use std::io::Read as _;

use flate2::read::GzDecoder;

/// Files that are shown whole; each holds a line or a few.
const FILES: &[&str] = &[
    "/proc/version",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/kernel/perf_event_paranoid",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/kernel/ftrace_enabled",
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/net/core/bpf_jit_enable",
    "/sys/kernel/security/lsm",
    "/sys/kernel/security/lockdown",
    "/sys/fs/cgroup/cgroup.controllers",
];
/// Beginnings of options of the kernel's configuration that matter.
const OPTIONS: &[&str] = &[
    "CONFIG_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_FTRACE",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_DYNAMIC_FTRACE",
    "CONFIG_FPROBE",
    "CONFIG_KPROBES",
    "CONFIG_CGROUP",
    "CONFIG_PREEMPT",
    "CONFIG_SECCOMP",
    "CONFIG_X86_X32",
    "CONFIG_IA32_EMULATION",
    "CONFIG_LSM",
    "CONFIG_SECURITY_LOCKDOWN",
];
/// Words of the kernel's command line that matter. All others are left out: credentials are handed over there.
const WORDS: &[&str] = &[
    "lsm",
    "lockdown",
    "security",
    "apparmor",
    "selinux",
    "cgroup_no_v1",
    "cgroup_disable",
    "ftrace",
    "mitigations",
    "preempt",
    "systemd.unified_cgroup_hierarchy",
    "systemd.legacy_systemd_cgroup_controller",
    "isolcpus",
    "nohz_full",
];
/// File systems whose mounts are shown.
const FILE_SYSTEMS: &[&str] = &["cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "securityfs"];
/// Bytes of a file, at most.
const MOST: u64 = 1 << 20;

/// All of them.
pub(super) fn text() -> String {
    let mut out = String::new();
    let uname = rustix::system::uname();
    let word = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    out.push_str(&format!("kernel: {} {}\n", word(uname.release()), word(uname.machine())));
    let release = read("/etc/os-release").unwrap_or_default();
    for line in release
        .lines()
        .filter(|line| ["ID=", "VERSION_ID=", "PRETTY_NAME="].iter().any(|key| line.starts_with(key)))
    {
        out.push_str(&format!("/etc/os-release: {line}\n"));
    }
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    out.push_str(&format!("processors: {processors}\n"));
    let memory = read("/proc/meminfo").unwrap_or_default();
    for line in memory.lines().filter(|line| line.starts_with("MemTotal") || line.starts_with("MemAvailable"))
    {
        out.push_str(&format!("/proc/meminfo: {line}\n"));
    }
    for file in FILES {
        let text = read(file).unwrap_or_else(|error| format!("({error})"));
        out.push_str(&format!("{file}: {}\n", text.trim_end()));
    }
    let words: Vec<String> = command_line(&read("/proc/cmdline").unwrap_or_default());
    out.push_str(&format!("/proc/cmdline, what matters of it: {}\n", words.join(" ")));
    for line in mounts(&read("/proc/self/mountinfo").unwrap_or_default()) {
        out.push_str(&format!("mount: {line}\n"));
    }
    for line in options(&word(uname.release())) {
        out.push_str(&format!("{line}\n"));
    }
    out
}

fn read(path: &str) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Words of the kernel's command line that are known to matter.
pub(super) fn command_line(text: &str) -> Vec<String> {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    text.split_whitespace().filter(|word| WORDS.contains(&name(word).as_str())).map(str::to_owned).collect()
}

/// Where file systems of the kernel's are mounted, and how; what a network's are mounted with may be a secret.
pub(super) fn mounts(text: &str) -> Vec<String> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let fs = kind.next().filter(|fs| FILE_SYSTEMS.contains(fs))?;
        let (place, options) = (place.split(' ').nth(4)?, kind.nth(1).unwrap_or_default());
        Some(format!("{fs} at {place} ({options})"))
    };
    text.lines().filter_map(mount).collect()
}

/// Options that the kernel was built with, as far as it or its package says.
fn options(release: &str) -> Vec<String> {
    let mut text = String::new();
    let packed = fs::File::open("/proc/config.gz");
    let unpacked = packed.and_then(|file| GzDecoder::new(file).take(MOST).read_to_string(&mut text));
    if unpacked.is_err() {
        text = read(&format!("/boot/config-{release}")).unwrap_or_default();
    }
    let matters = |line: &&str| OPTIONS.iter().any(|option| line.starts_with(option));
    let found: Vec<String> = text.lines().filter(matters).map(str::to_owned).collect();
    if found.is_empty() { vec!["the kernel's configuration is not to be had".to_owned()] } else { found }
}
