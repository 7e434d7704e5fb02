//! Settings: cgroups named as containers', with what refuses in them; and what was made there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use monitor_common::caps::Cap;
use tests::attempt::{self, Way};
use tests::bpf;
use tests::cgroup::{self, Cgroup};
use tests::harness::{Daemon, Settings};
use tests::matrix::{Entry, Outcome, cells};

use crate::law::await_marker;
use crate::places::{self, Suite, Visit, read_made};

/// The naming of the matrix's cgroups.
const RUNTIMES: &[&str] = &["docker"];
/// What the suite's security module refuses.
const REFUSED_CAPS: &[Cap] = &[Cap::SysAdmin, Cap::SysTime, Cap::Syslog, Cap::SysRawio, Cap::DacReadSearch];

/// Where attempts are made. Every setting is a container by its cgroup's name and its mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Setting {
    /// With every capability, and nothing in the way.
    Plain,
    /// Under a seccomp filter that refuses every watched call.
    Filtered,
    /// Without the capabilities that walls ask for.
    Bare,
    /// Under a security module that refuses those capabilities.
    Module,
    /// Under a device controller that refuses the watched devices.
    Devices,
}

impl Setting {
    pub(super) fn of(outcome: Outcome) -> Setting {
        match outcome {
            Outcome::Allowed | Outcome::Failed => Setting::Plain,
            Outcome::Seccomp => Setting::Filtered,
            Outcome::Capability => Setting::Bare,
            Outcome::Lsm => Setting::Module,
            Outcome::DeviceCgroup => Setting::Devices,
        }
    }

    /// Why it cannot be had on this machine, or not by this way; each reason is asked of the kernel.
    pub(super) fn missing(self, way: Way) -> Option<&'static str> {
        if way == Way::X32 && !attempt::raw::has_x32() {
            return Some("this kernel has no x32: it is not built in or not switched on");
        }
        let has = |name| cgroup::hierarchies().is_ok_and(|all| all.iter().any(|one| one.name == name));
        if self == Setting::Devices && !has("v2") {
            return Some("without cgroup v2 no witness is asked about opens of devices");
        }
        if self == Setting::Module && cgroup::hierarchy().is_ok_and(|one| one.name != "v2") {
            return Some("the suite's security module knows its container by a cgroup of version 2");
        }
        if self == Setting::Module && !bpf::has_lsm() {
            return Some("this kernel runs no BPF program as a security module");
        }
        None
    }

    fn name(self) -> &'static str {
        match self {
            Setting::Plain => "plain",
            Setting::Filtered => "filtered",
            Setting::Bare => "bare",
            Setting::Module => "module",
            Setting::Devices => "devices",
        }
    }

    /// Options of the program that makes attempts. A program that loads libraries has to open files.
    pub(super) fn options(self, program: bool) -> &'static [&'static str] {
        match self {
            // Without the capabilities, too: no slip of the filter can let anything through.
            Setting::Filtered if program => &["--bare", "--seccomp=watched-but-opens"],
            Setting::Filtered => &["--bare", "--seccomp=watched"],
            Setting::Bare => &["--bare"],
            Setting::Plain | Setting::Module | Setting::Devices => &[],
        }
    }
}

/// A command that was run in a setting.
pub(super) struct Ran {
    /// The container's id and the kernel's id of its cgroup.
    pub(super) id: String,
    pub(super) cgroup_id: u64,
    /// Process id of the command.
    pub(super) pid: u32,
    pub(super) output: std::process::Output,
}

/// Runs the program that makes attempts in a setting. `seed` names the container.
pub(super) fn run(
    settings: &Settings,
    setting: Setting,
    seed: &str,
    arguments: &[&str],
) -> Result<Ran, String> {
    let id = cgroup::container_id(&format!("matrix {} {seed}", setting.name()));
    let text = |error: io::Error| error.to_string();
    let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(text)?;
    let cgroup_id = cgroup.id().map_err(text)?;
    if setting == Setting::Devices {
        refuse_devices(cgroup.path()).map_err(text)?;
    }
    // A shell that waits, so that what refuses is put in force when the process is in its place.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read go && exec \"$@\"", "sh"]).arg(&settings.attempt).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    cgroup.contain(&mut command);
    let mut child: Child = command.spawn().map_err(|error| format!("/bin/sh: {error}"))?;
    let pid = child.id();
    let module = match setting {
        Setting::Module => Some(bpf::refuse_capabilities(cgroup_id, REFUSED_CAPS).map_err(text)?),
        _ => None,
    };
    if let Some(mut stdin) = child.stdin.take() {
        io::Write::write_all(&mut stdin, b"go\n").map_err(text)?;
    }
    let output = child.wait_with_output().map_err(text)?;
    drop(module);
    cgroup.remove().map_err(text)?;
    Ok(Ran { id, cgroup_id, pid, output })
}

/// Refuses the watched devices to a cgroup, by the controller of its version.
fn refuse_devices(cgroup: &Path) -> io::Result<()> {
    let deny = cgroup.join("devices.deny");
    if !deny.exists() {
        return bpf::refuse_devices(cgroup);
    }
    ["c 1:1 rw", "c 1:2 rw", "c 1:4 rw", "c 1:11 rw", "c 202:* rw"]
        .iter()
        .try_for_each(|device| fs::write(&deny, device))
}

/// Makes attempts in a setting by one way, `count` times each.
pub(super) fn make(
    settings: &Settings,
    setting: Setting,
    way: Way,
    names: &[&str],
    count: u32,
) -> Result<Visit, String> {
    let count = count.to_string();
    let mut arguments = vec!["run", "--abi", way.name(), "--count", &count];
    arguments.extend(setting.options(false));
    if settings.guest {
        arguments.push("--allow-clock");
    }
    arguments.extend(names);
    let Ran { id, cgroup_id, output, .. } =
        run(settings, setting, &format!("{} {count}", way.name()), &arguments)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("attempt: {}\n{said}", output.status));
    }
    Ok(Visit {
        cgroup_id,
        container: Some((id, RUNTIMES)),
        pod: false,
        host_pids: places::in_first_pid_namespace(),
        made: read_made(String::from_utf8_lossy(&output.stdout).lines())?,
    })
}

/// Names of the attempts of a setting and a way, each once.
pub(super) fn names(
    setting: Setting,
    way: Way,
    guest: bool,
    wanted: impl Fn(&tests::matrix::Cell) -> bool,
) -> Vec<&'static str> {
    let mut names = Vec::new();
    for cell in cells().filter(|cell| cell.way == way && Setting::of(cell.outcome) == setting && wanted(cell))
    {
        if let Entry::Attempt(name, _) | Entry::Blind(name, _) | Entry::Silent(name, _) = cell.entry
            && !names.contains(&name)
            && attempt::by_name(name).is_some_and(|attempt| guest || !attempt.guest_only)
        {
            names.push(name);
        }
    }
    names
}

/// Waits until everything that was made so far has arrived.
pub(super) fn settle(settings: &Settings, daemon: &Daemon) -> Result<(), String> {
    await_marker(settings, daemon)
}

/// What was found out once for each setting and way, or why it was not.
pub(super) type Once<T> = Mutex<HashMap<(Setting, Way), Arc<Result<T, String>>>>;

/// The visits so far.
#[derive(Default)]
pub(super) struct Visits {
    made: Once<Vec<Visit>>,
}

impl Visits {
    /// The visits to a setting by one way, each with attempts of its own; made when first asked for.
    pub(super) fn get(&self, suite: &Suite, setting: Setting, way: Way) -> places::Visits {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let visit = || {
            let daemon = suite.daemon()?;
            let names = names(setting, way, suite.settings().guest, |_| true);
            daemon.undisturbed_parts(&names, &mut |names| {
                let visit = make(suite.settings(), setting, way, names, 1)?;
                settle(suite.settings(), daemon).map(|()| visit)
            })
        };
        made.entry((setting, way)).or_insert_with(|| Arc::new(visit())).clone()
    }
}
