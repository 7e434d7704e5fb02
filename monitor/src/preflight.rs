//! What the machine must offer before probes can be loaded, checked one by one.
//!
//! Each check names cause and remedy. `run` stops at the failures; `doctor` shows them all.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use monitor_common::caps::Cap;

use crate::hierarchy::{Hierarchy, HierarchyChoice};
use crate::kernel_files;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckState {
    /// Fine.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Ringfence cannot run like this.
    Fail,
}

impl CheckState {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warn => "warn",
            CheckState::Fail => "FAIL",
        }
    }
}

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

impl Check {
    /// A check that passed.
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: CheckState::Ok, detail: detail.into(), remedy: String::new() }
    }

    /// A check that did not.
    pub fn bad(
        name: &'static str,
        state: CheckState,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, state, detail: detail.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Check {
    /// One line: what, what was found, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All checks, in the order in which people would make them.
pub fn checks() -> Vec<Check> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // With `auto`, finding none is no error.
    let hierarchy = Hierarchy::find(HierarchyChoice::Auto).ok().flatten();
    let kernel = KernelVersion::parse(&release);
    vec![
        check_kernel(&release, kernel),
        check_architecture(&uname.machine().to_string_lossy()),
        check_capabilities(
            parse_cap_eff(&status),
            kernel,
            rustix::process::geteuid().as_raw(),
            memlock_limit(),
        ),
        check_btf(Path::new("/sys/kernel/btf/vmlinux")),
        check_first_process(kernel_files::first_namespace("mnt")),
        check_cgroups(hierarchy.as_ref()),
    ]
}

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `6` of 6.1.
    pub major: u32,
    /// `1` of 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest kernel that works.
    pub const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 10 };
    /// The first with CAP_BPF and CAP_PERFMON.
    const CAP_BPF: KernelVersion = KernelVersion { major: 5, minor: 8 };
    /// The first that accounts BPF memory to the cgroup instead of RLIMIT_MEMLOCK.
    const NO_MEMLOCK: KernelVersion = KernelVersion { major: 5, minor: 11 };

    /// That of the running kernel; `None` if its name does not begin with one.
    pub fn running() -> Option<Self> {
        Self::parse(&rustix::system::uname().release().to_string_lossy())
    }

    /// Reads the start of `uname -r`, such as `6.1.0-13-cloud-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        let mut number = || parts.next()?.parse().ok();
        Some(Self { major: number()?, minor: number()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn check_kernel(release: &str, version: Option<KernelVersion>) -> Check {
    const NAME: &str = "kernel";
    let oldest = KernelVersion::OLDEST;
    match version {
        Some(version) if version >= oldest => Check::ok(NAME, release),
        Some(_) => Check::bad(
            NAME,
            CheckState::Fail,
            format!("{release} is too old: {oldest} is the oldest that has the hooks"),
            format!("boot a kernel of version {oldest} or newer"),
        ),
        None => Check::bad(
            NAME,
            CheckState::Warn,
            format!("the version `{release}` cannot be read"),
            format!("make sure that it is {oldest} or newer"),
        ),
    }
}

fn check_architecture(machine: &str) -> Check {
    const NAME: &str = "architecture";
    if machine == "x86_64" && cfg!(target_arch = "x86_64") {
        return Check::ok(NAME, machine);
    }
    Check::bad(
        NAME,
        CheckState::Fail,
        format!("{machine}: only x86_64 is supported so far"),
        "run Ringfence on an x86_64 machine",
    )
}

/// Reads `CapEff` of `/proc/PID/status`: a mask by capability number.
fn parse_cap_eff(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// The capabilities that loading and attaching takes on that kernel, each with its purpose. An unknown
/// kernel counts as a new one.
fn needed_capabilities(kernel: Option<KernelVersion>) -> Vec<(Cap, &'static str)> {
    let older_than = |version| kernel.is_some_and(|kernel| kernel < version);
    let mut needed = if older_than(KernelVersion::CAP_BPF) {
        vec![(Cap::SysAdmin, "to load and attach probes")]
    } else {
        vec![(Cap::Bpf, "to load probes"), (Cap::Perfmon, "to attach them and to read kernel memory")]
    };
    if older_than(KernelVersion::NO_MEMLOCK) {
        needed.push((Cap::SysResource, "to lift the limit of locked memory"));
    }
    needed
}

/// The limit of locked memory in bytes; `None` if there is none.
fn memlock_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

fn check_capabilities(
    effective: Option<u64>,
    kernel: Option<KernelVersion>,
    euid: u32,
    memlock: Option<u64>,
) -> Check {
    const NAME: &str = "privileges";
    let Some(effective) = effective else {
        return Check::bad(
            NAME,
            CheckState::Warn,
            "/proc/self/status does not tell the capabilities",
            "mount /proc, and run as root",
        );
    };
    let has = |cap: Cap| effective & cap.mask() != 0;
    // CAP_SYS_ADMIN stands for the two newer ones.
    let implied = |cap: Cap| matches!(cap, Cap::Bpf | Cap::Perfmon) && has(Cap::SysAdmin);
    let mut needed = needed_capabilities(kernel);
    if memlock.is_none() {
        needed.retain(|(cap, _)| *cap != Cap::SysResource);
    }
    let missing: Vec<_> = needed.iter().filter(|(cap, _)| !has(*cap) && !implied(*cap)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = needed.iter().map(|(cap, _)| cap.name()).collect();
        return Check::ok(NAME, format!("uid {euid} with {}", names.join(", ")));
    }
    let purposes: Vec<String> =
        missing.iter().map(|(cap, purpose)| format!("{} ({purpose})", cap.name())).collect();
    let names: Vec<&str> = missing.iter().map(|(cap, _)| cap.name()).collect();
    // Without the limit lifted, loading may still succeed.
    let only_memlock = missing.iter().all(|(cap, _)| *cap == Cap::SysResource);
    Check::bad(
        NAME,
        if only_memlock { CheckState::Warn } else { CheckState::Fail },
        format!("uid {euid} lacks {}", purposes.join(", ")),
        if only_memlock {
            "raise the limit with `ulimit -l unlimited`, or run as root".to_owned()
        } else {
            format!("run as root (`sudo`), or grant {}", names.join(" and "))
        },
    )
}

fn check_btf(path: &Path) -> Check {
    const NAME: &str = "BTF";
    /// First two bytes of every BTF blob, little endian.
    const MAGIC: [u8; 2] = [0x9f, 0xeb];
    let bad = |detail: String, remedy: &str| Check::bad(NAME, CheckState::Fail, detail, remedy);
    let mut magic = [0; 2];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if magic == MAGIC => Check::ok(NAME, path.display().to_string()),
        Ok(()) => bad(format!("{} is not BTF", path.display()), "boot the distribution's own kernel"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bad(
            format!("{} is missing: the kernel does not describe its types", path.display()),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys",
        ),
        Err(error) => bad(format!("{} cannot be read: {error}", path.display()), "run as root"),
    }
}

/// What is known of the first process: whose namespaces are the host's rests on it. `None`: it may not be looked at.
fn check_first_process(namespace: Option<u32>) -> Check {
    const NAME: &str = "processes";
    if namespace.is_some() {
        return Check::ok(NAME, "what others run, and in which namespaces, can be read");
    }
    Check::bad(
        NAME,
        CheckState::Warn,
        "/proc/1/ns cannot be read: Ringfence's own namespaces count as the host's, and who ran before is not known well",
        "grant CAP_SYS_PTRACE; in a container also the host's pid namespace, and no AppArmor profile",
    )
}

/// `None`: nothing is mounted.
fn check_cgroups(hierarchy: Option<&Hierarchy>) -> Check {
    const NAME: &str = "cgroups";
    match hierarchy {
        Some(hierarchy) => Check::ok(NAME, format!("containers are known by {hierarchy}")),
        None => Check::bad(
            NAME,
            CheckState::Warn,
            "no cgroup hierarchy is mounted: containers cannot be told from the host",
            "mount one: `mount -t cgroup2 none /sys/fs/cgroup`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Option<KernelVersion> = Some(KernelVersion { major: 6, minor: 1 });

    #[test]
    fn versions() {
        let parse = |release| KernelVersion::parse(release).map(|v| (v.major, v.minor));
        assert_eq!(parse("6.1.0-13-cloud-amd64"), Some((6, 1)));
        assert_eq!(parse("5.10.0"), Some((5, 10)));
        assert_eq!(parse("7.2-rc1"), Some((7, 2)));
        for bad in ["", "6", "six.one", ".1", "99999999999.1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(check_kernel("5.9.16", KernelVersion::parse("5.9.16")).state, CheckState::Fail);
        assert_eq!(check_kernel("5.10.0", KernelVersion::parse("5.10.0")).state, CheckState::Ok);
        assert_eq!(check_kernel("?", None).state, CheckState::Warn);
    }

    #[test]
    fn effective_capabilities() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(parse_cap_eff(status), Some(0x1ff_ffff_ffff));
        assert_eq!(parse_cap_eff("CapEff:\tzz\n"), None);
        assert_eq!(parse_cap_eff(""), None);
    }

    #[test]
    fn privileges_depend_on_the_kernel() {
        let limited = Some(8 << 20);
        let state = |mask, kernel| check_capabilities(Some(mask), kernel, 1000, limited).state;
        let (bpf, perfmon) = (Cap::Bpf.mask(), Cap::Perfmon.mask());
        let (admin, resource) = (Cap::SysAdmin.mask(), Cap::SysResource.mask());
        let (k5_7, k5_10) = (KernelVersion::parse("5.7"), KernelVersion::parse("5.10"));
        assert_eq!(state(bpf | perfmon, NEW), CheckState::Ok);
        assert_eq!(state(admin, NEW), CheckState::Ok);
        assert_eq!(state(bpf, NEW), CheckState::Fail);
        assert_eq!(state(bpf | perfmon, k5_10), CheckState::Warn);
        assert_eq!(state(bpf | perfmon | resource, k5_10), CheckState::Ok);
        assert_eq!(state(bpf | perfmon | resource, k5_7), CheckState::Fail);
        assert_eq!(state(admin | resource, k5_7), CheckState::Ok);
        let unlimited = check_capabilities(Some(bpf | perfmon), k5_10, 1000, None);
        assert_eq!(unlimited.state, CheckState::Ok, "there is no limit to lift: {unlimited}");
        let message = check_capabilities(Some(0), NEW, 1000, limited).to_string();
        assert!(message.contains("CAP_BPF") && message.contains("CAP_PERFMON"), "{message}");
        assert!(message.contains("uid 1000") && message.contains("root"), "{message}");
    }

    #[test]
    fn a_first_process_that_may_not_be_looked_at_is_a_warning() {
        assert_eq!(check_first_process(Some(1)).state, CheckState::Ok);
        let warned = check_first_process(None);
        assert!(warned.state == CheckState::Warn && warned.remedy.contains("CAP_SYS_PTRACE"), "{warned}");
    }

    #[test]
    fn btf_is_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        let missing = check_btf(&path);
        assert_eq!(missing.state, CheckState::Fail);
        assert!(missing.remedy.contains("CONFIG_DEBUG_INFO_BTF"), "{missing}");
        fs::write(&path, [0x9f, 0xeb, 1, 0]).unwrap();
        assert_eq!(check_btf(&path).state, CheckState::Ok);
        fs::write(&path, "no").unwrap();
        assert_eq!(check_btf(&path).state, CheckState::Fail);
    }

    #[test]
    fn what_fails_names_a_remedy() {
        for check in checks() {
            assert_eq!(check.state == CheckState::Ok, check.remedy.is_empty(), "{check}");
            assert!(!check.to_string().contains('\n'), "{check}");
        }
    }
}
