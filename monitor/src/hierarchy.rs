//! Which cgroup hierarchy tells containers apart, and which directory of it a process is in.
//!
//! A kernel has one hierarchy of version 2 and any number of version 1, and every process has a directory in
//! each. Directories are known by their kernfs id, which is also their inode number. Each hierarchy counts its
//! own: the root of each is 1. So one is chosen at start, and nothing of any other is looked at.

mod namespace;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Mode, OFlags, open};
use rustix::io;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A controller of cgroup version 1 by which a hierarchy can be named.
#[derive(Debug, PartialEq, Eq)]
pub struct Controller {
    /// The name in mount options and in `/proc/PID/cgroup`.
    pub name: &'static str,
    /// Its member of the kernel's `enum cgroup_subsys_id`, whose value is its place in `css_set.subsys`.
    pub enumerator: &'static str,
}

/// The controllers, the best first.
///
/// `devices` leads: the OCI specification has every runtime set device rules, so every container has a directory
/// there, and it never had a version 2 that could take it away. Then those for which managers exist: limits of
/// processes, memory, processor, and the freezer. The rest follow for hosts that mount nothing else.
pub static CONTROLLERS: [Controller; 11] = [
    Controller { name: "devices", enumerator: "devices_cgrp_id" },
    Controller { name: "pids", enumerator: "pids_cgrp_id" },
    Controller { name: "memory", enumerator: "memory_cgrp_id" },
    Controller { name: "cpu", enumerator: "cpu_cgrp_id" },
    Controller { name: "freezer", enumerator: "freezer_cgrp_id" },
    Controller { name: "cpuacct", enumerator: "cpuacct_cgrp_id" },
    Controller { name: "blkio", enumerator: "io_cgrp_id" },
    Controller { name: "perf_event", enumerator: "perf_event_cgrp_id" },
    Controller { name: "net_cls", enumerator: "net_cls_cgrp_id" },
    Controller { name: "hugetlb", enumerator: "hugetlb_cgrp_id" },
    Controller { name: "cpuset", enumerator: "cpuset_cgrp_id" },
];

/// What version 2 is called.
pub const V2: &str = "v2";

/// Where every manager expects cgroups. systemd, runc and crun decide by the type of this mount whether they
/// use version 2 or version 1.
const USUAL_PLACE: &str = "/sys/fs/cgroup";

/// Which hierarchy is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HierarchyChoice {
    /// The one in which container managers put containers.
    #[default]
    Auto,
    /// Version 2.
    V2,
    /// That of a version 1 controller.
    V1(&'static Controller),
}

impl FromStr for HierarchyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(HierarchyChoice::Auto),
            V2 => Ok(HierarchyChoice::V2),
            _ => CONTROLLERS
                .iter()
                .find(|controller| controller.name == text)
                .map(HierarchyChoice::V1)
                .ok_or_else(|| {
                    let names: Vec<&str> = CONTROLLERS.iter().map(|controller| controller.name).collect();
                    format!("`{text}` is no cgroup hierarchy: one of auto, {V2}, {}", names.join(", "))
                }),
        }
    }
}

impl fmt::Display for HierarchyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HierarchyChoice::Auto => "auto",
            HierarchyChoice::V2 => V2,
            HierarchyChoice::V1(controller) => controller.name,
        })
    }
}

/// The hierarchy that was demanded is not mounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cgroup hierarchy `{wanted}` is not mounted here; --cgroup-hierarchy can be auto{}", .mounted.iter().map(|name| format!(", {name}")).collect::<String>())]
pub struct NotMounted {
    wanted: String,
    mounted: Vec<&'static str>,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The kernel's number of it (`cgroup_root.hierarchy_id`): 0 is version 2, version 1 counts from 1.
    pub number: u32,
    /// The version 1 controller that names it; `None` for version 2.
    pub controller: Option<&'static Controller>,
    /// Where it is mounted.
    pub root: PathBuf,
    /// Where below that the paths in `/proc/PID/cgroup` begin: nowhere below it for the host's processes, at the container's
    /// directory for one that has a cgroup namespace of its own. `None` if that is not found.
    pub namespace_root: Option<PathBuf>,
}

impl Hierarchy {
    /// Finds the hierarchy to go by on this machine; `None` if `auto` finds none mounted.
    ///
    /// # Errors
    /// [`NotMounted`], for any other choice.
    pub fn find(choice: HierarchyChoice) -> Result<Option<Self>, NotMounted> {
        let found = Self::mounted(choice)?;
        Ok(found.map(|mut found| {
            if !namespace::is_hosts() {
                found.namespace_root = namespace::root(&found);
            }
            found
        }))
    }

    /// The same without a look at where paths begin.
    fn mounted(choice: HierarchyChoice) -> Result<Option<Self>, NotMounted> {
        let read = |path| fs::read(path).unwrap_or_default();
        Self::choose(choice, &read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// The choice, from the contents of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// With `auto`: version 2 if that is what is mounted in the usual place, because then all managers use it.
    /// Otherwise they put containers into the directories of version 1, also on hybrid hosts, where version 2 is
    /// mounted elsewhere and has no controllers: there new runtimes make a directory in it too, but old ones
    /// leave every container in its root. Version 2 is the last resort where no controller is mounted.
    fn choose(choice: HierarchyChoice, mountinfo: &[u8], own: &[u8]) -> Result<Option<Self>, NotMounted> {
        let mounts: Vec<Mount<'_>> =
            mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect();
        let v2 = || {
            let root = find_mount(&mounts, |mount| mount.kind == b"cgroup2")?.point.clone();
            Some(Hierarchy { number: 0, controller: None, root, namespace_root: Some(PathBuf::new()) })
        };
        let v1 = |controller: &'static Controller| {
            let name = controller.name.as_bytes();
            let root = find_mount(&mounts, |mount| mount.has_controller(name))?.point.clone();
            let number = lines(own).find(|line| line.has_controller(name))?.number;
            let namespace_root = Some(PathBuf::new());
            Some(Hierarchy { number, controller: Some(controller), root, namespace_root })
        };
        let found = match choice {
            HierarchyChoice::Auto => {
                let usual = mounts.iter().rfind(|mount| mount.point == Path::new(USUAL_PLACE));
                let is_v2 = usual.is_some_and(|mount| mount.kind == b"cgroup2");
                let first_v1 = || CONTROLLERS.iter().find_map(v1);
                return Ok(if is_v2 { v2() } else { first_v1().or_else(v2) });
            }
            HierarchyChoice::V2 => v2(),
            HierarchyChoice::V1(controller) => v1(controller),
        };
        found.map(Some).ok_or_else(|| NotMounted {
            wanted: choice.to_string(),
            mounted: v2()
                .iter()
                .chain(&CONTROLLERS.iter().filter_map(v1).collect::<Vec<_>>())
                .map(Self::name)
                .collect(),
        })
    }

    /// Every name that a hierarchy may have.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once(V2).chain(CONTROLLERS.iter().map(|controller| controller.name))
    }

    /// `v2`, or the controller's name.
    pub fn name(&self) -> &'static str {
        self.controller.map_or(V2, |controller| controller.name)
    }

    /// Id of the directory that a process is in; `None` if the process is gone or outside of what is mounted.
    pub fn directory_of(&self, tgid: u32) -> Option<u64> {
        Some(fs::symlink_metadata(self.path_of(&tgid.to_string())?).ok()?.ino())
    }

    /// The directory that this process is in; `None` if it is outside of what is mounted.
    pub fn own_directory(&self) -> Option<PathBuf> {
        self.path_of("self")
    }

    fn path_of(&self, process: &str) -> Option<PathBuf> {
        let cgroups = fs::read(format!("/proc/{process}/cgroup")).ok()?;
        let line = lines(&cgroups).find(|line| line.number == self.number)?;
        Some(self.root.join(line.below_root(self.namespace_root.as_deref()?)?))
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.controller {
            None => write!(f, "version 2")?,
            Some(controller) => write!(f, "version 1, controller {}", controller.name)?,
        }
        write!(f, ", on {}", self.root.display())
    }
}

/// The root of the version 2 hierarchy, for attaching programs to it.
///
/// The hierarchy exists in every kernel and holds every process, mounted or not. Where it is not, it is reached
/// through a mount of our own that is in nobody's mount table (`fsopen` and `fsmount`, since 5.2) and goes when
/// the descriptor is closed. One trace stays then: `/proc/PID/cgroup` has a line for version 2, `0::/`.
///
/// # Errors
/// The kernel's; `EPERM` without `CAP_SYS_ADMIN` where it is not mounted.
pub fn v2_root() -> io::Result<OwnedFd> {
    if let Ok(Some(mounted)) = Hierarchy::mounted(HierarchyChoice::V2) {
        return open(&mounted.root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    }
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The first mount that fits, preferably of a whole hierarchy: others show a part of it as if it were the root.
fn find_mount<'m, 'b>(mounts: &'m [Mount<'b>], fits: impl Fn(&Mount<'b>) -> bool) -> Option<&'m Mount<'b>> {
    let whole = mounts.iter().find(|mount| mount.whole && fits(mount));
    whole.or_else(|| mounts.iter().find(|mount| fits(mount)))
}

/// A line of `/proc/PID/mountinfo`, as far as it matters here.
struct Mount<'b> {
    /// Its root is the root of the file system.
    whole: bool,
    point: PathBuf,
    kind: &'b [u8],
    /// Options of the file system, for version 1 its controllers among them.
    options: &'b [u8],
}

impl<'b> Mount<'b> {
    /// `ID PARENT DEVICE ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS`; see proc(5).
    fn parse(line: &'b [u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let root = words.nth(3)?;
        let point = PathBuf::from(OsString::from_vec(unescape(words.next()?)));
        let mut words = words.skip_while(|word| *word != b"-").skip(1);
        let kind = words.next()?;
        Some(Mount { whole: root == b"/", point, kind, options: words.nth(1).unwrap_or_default() })
    }

    fn has_controller(&self, name: &[u8]) -> bool {
        self.kind == b"cgroup" && self.options.split(|byte| *byte == b',').any(|option| option == name)
    }
}

/// Blanks, tabs, line feeds and backslashes in paths are written as a backslash and three octal digits.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', Some((digits, behind))) = (first, after.split_at_checked(3))
            && let Some(byte) =
                std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        {
            plain.push(byte);
            rest = behind;
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

/// A line of `/proc/PID/cgroup`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'b> {
    number: u32,
    controllers: &'b [u8],
    path: &'b [u8],
}

/// The lines of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`. A path can hold colons, but no line feed:
/// `cgroup_mkdir` refuses it.
fn lines(cgroups: &[u8]) -> impl Iterator<Item = Line<'_>> {
    cgroups.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let number = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        Some(Line { number, controllers: parts.next()?, path: parts.next()? })
    })
}

impl<'b> Line<'b> {
    fn has_controller(&self, name: &[u8]) -> bool {
        self.controllers.split(|byte| *byte == b',').any(|controller| controller == name)
    }

    /// The path below the root of the hierarchy, if paths begin at `from`: one to a directory outside our cgroup namespace
    /// begins with `/..` for each step up. `None` for one that leads higher than the root.
    fn below_root(&self, from: &Path) -> Option<PathBuf> {
        let path = Path::new(std::ffi::OsStr::from_bytes(self.path.strip_prefix(b"/")?));
        let mut below = from.to_owned();
        let mut up = true;
        for part in path.components() {
            match part {
                Component::Normal(name) => {
                    below.push(name);
                    up = false;
                }
                Component::ParentDir if up && below.pop() => {}
                _ => return None,
            }
        }
        Some(below)
    }
}

#[cfg(test)]
#[path = "hierarchy_tests.rs"]
mod tests;
