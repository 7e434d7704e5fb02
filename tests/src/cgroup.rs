//! Cgroups of our own, named as container runtimes name theirs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The container id of `attempt demo`: a constant that spells what it is.
pub const DEMO_ID: &str = "de30de30de30de30de30de30de30de30de30de30de30de30de30de30de30de30";

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// `v2`, or the controller of version 1 by which Ringfence's option names it.
    pub name: &'static str,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// Controllers of version 1 whose directories a process can enter as they are made, the one first that Ringfence
/// must choose.
const CONTROLLERS: &[&str] = &["devices", "pids", "memory", "cpu", "freezer", "blkio", "perf_event"];

/// Every mounted hierarchy that the suite can use.
///
/// # Errors
/// If `/proc/self/mountinfo` cannot be read.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(hierarchies_in(&fs::read_to_string("/proc/self/mountinfo")?))
}

fn hierarchies_in(mountinfo: &str) -> Vec<Hierarchy> {
    let find = |fits: &dyn Fn(&str, &str) -> bool| {
        mountinfo.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            fits(kind, options).then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
        })
    };
    let v2 = find(&|kind, _| kind == "cgroup2").map(|mount| Hierarchy { name: "v2", mount });
    let v1 = CONTROLLERS.iter().filter_map(|name| {
        let mount =
            find(&|kind, options| kind == "cgroup" && options.split(',').any(|option| option == *name))?;
        Some(Hierarchy { name, mount })
    });
    v2.into_iter().chain(v1).collect()
}

/// The hierarchy that Ringfence must choose by itself: version 2 if it stands in `/sys/fs/cgroup`, else that of
/// the first controller.
///
/// # Errors
/// If none is mounted.
pub fn hierarchy() -> io::Result<Hierarchy> {
    let all = hierarchies()?;
    let usual = all.iter().find(|one| one.name == "v2" && one.mount == Path::new("/sys/fs/cgroup"));
    usual
        .or_else(|| all.iter().find(|one| one.name != "v2"))
        .or(all.first())
        .cloned()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"))
}

impl Hierarchy {
    /// The cgroup of a process, from the hierarchy's line in `/proc/PID/cgroup`, and its kernel id.
    ///
    /// # Errors
    /// If the process is gone, or the path is not below our mount.
    pub fn of_process(&self, pid: &str) -> io::Result<(String, u64)> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = lines.lines().find_map(|line| self.path_in(line)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the process has no cgroup in {}", self.name))
        })?;
        let directory = self.mount.join(path.trim_start_matches('/'));
        Ok((path.to_owned(), fs::metadata(directory)?.ino()))
    }

    /// The path in a line of `/proc/PID/cgroup`, if it is this hierarchy's.
    fn path_in<'l>(&self, line: &'l str) -> Option<&'l str> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = if self.name == "v2" {
            number == "0"
        } else {
            controllers.split(',').any(|one| one == self.name)
        };
        ours.then_some(path)
    }
}

/// A cgroup that we made, with the parents that we had to make for it; removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup `name` (a path below the mount) in [`hierarchy`], and its missing parents.
    ///
    /// # Errors
    /// The kernel's; nothing is left behind then.
    pub fn make(name: &(impl AsRef<Path> + ?Sized)) -> io::Result<Cgroup> {
        Self::make_in(&hierarchy()?, name)
    }

    /// The same in another hierarchy.
    ///
    /// # Errors
    /// The kernel's; nothing is left behind then.
    pub fn make_in(hierarchy: &Hierarchy, name: &(impl AsRef<Path> + ?Sized)) -> io::Result<Cgroup> {
        let mut path = hierarchy.mount.clone();
        let mut cgroup = Cgroup { path: path.join(name), made: Vec::new() };
        for part in name.as_ref() {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => cgroup.made.push(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("cannot make cgroup {}: {error}", path.display()),
                    ));
                }
            }
        }
        Ok(cgroup)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of it: the directory's inode number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn id(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Makes the command run in this cgroup.
    pub fn enter(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        // SAFETY: between fork and exec the child writes to one file; our programs are single-threaded when they
        // start others, or take no lock here.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    }

    /// Makes the command run as a container's own program does: in this cgroup, and exec'ed in a mount namespace
    /// of its own. Without the latter it would pass for a runtime that is still building the container.
    pub fn contain(&self, command: &mut Command) {
        self.enter(command);
        let part = || {
            // SAFETY: a call without pointers.
            let ret = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(part) };
    }

    /// Removes it and the parents that were made for it.
    ///
    /// # Errors
    /// The kernel's, such as `EBUSY` while a process is inside.
    pub fn remove(mut self) -> io::Result<()> {
        while let Some(path) = self.made.pop() {
            remove_dir(&path)?;
        }
        Ok(())
    }
}

/// Removes a cgroup. A process that ended leaves it a moment after its parent has seen it end, so `EBUSY`
/// is asked again for at most two seconds.
fn remove_dir(path: &Path) -> io::Result<()> {
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other,
        }
    }
    fs::remove_dir(path)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        while let Some(path) = self.made.pop() {
            // A test that failed has said so already; parents shared with another test stay until it ends.
            let _ = remove_dir(&path);
        }
    }
}

/// The cgroup of a process in [`hierarchy`], and its kernel id.
///
/// # Errors
/// As [`Hierarchy::of_process`].
pub fn of_process(pid: &str) -> io::Result<(String, u64)> {
    hierarchy()?.of_process(pid)
}

/// The version 2 directory that a process is in.
///
/// # Errors
/// If version 2 is not mounted, or as [`Hierarchy::of_process`].
pub fn version2_directory(pid: &str) -> io::Result<PathBuf> {
    let v2 = hierarchies()?.into_iter().find(|hierarchy| hierarchy.name == "v2");
    let v2 = v2.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cgroup version 2 is not mounted"))?;
    let (path, _) = v2.of_process(pid)?;
    Ok(v2.mount.join(path.trim_start_matches('/')))
}

/// A container runtime's way to name the cgroup of a container.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// For the names of tests.
    pub name: &'static str,
    /// Path below the mount; `ID` stands for the container's id, `UID` for the pod's, `U_ID` for the
    /// pod's with underscores.
    pub pattern: &'static str,
    /// What `container.runtime` must say.
    pub runtimes: &'static [&'static str],
    /// Whether the path names a pod.
    pub pod: bool,
}

/// A pod's UID, for namings that have one.
pub const POD_UID: &str = "1f0b2d6e-8f3a-4c55-9d21-6a7b8c9d0e1f";

/// The namings that Ringfence knows.
pub const NAMINGS: &[Naming] = &[
    Naming { name: "docker-cgroupfs", pattern: "docker/ID", runtimes: &["docker"], pod: false },
    Naming {
        name: "docker-systemd",
        pattern: "system.slice/docker-ID.scope",
        runtimes: &["docker"],
        pod: false,
    },
    Naming {
        name: "cri-cgroupfs",
        pattern: "kubepods/burstable/podUID/ID",
        runtimes: &["kubernetes", "containerd"],
        pod: true,
    },
    Naming {
        name: "containerd-systemd",
        pattern: "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice/cri-containerd-ID.scope",
        runtimes: &["containerd"],
        pod: true,
    },
    Naming {
        name: "crio-systemd",
        pattern: "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_ID.slice/crio-ID.scope",
        runtimes: &["cri-o"],
        pod: true,
    },
    Naming {
        name: "podman-systemd",
        pattern: "machine.slice/libpod-ID.scope",
        runtimes: &["podman"],
        pod: false,
    },
];

impl Naming {
    /// The cgroup's path for a container.
    pub fn path(&self, id: &str) -> String {
        self.pattern.replace("U_ID", &POD_UID.replace('-', "_")).replace("UID", POD_UID).replace("ID", id)
    }
}

/// A container id for a test: 64 hex digits made from its name and our process id, so that two runs differ.
pub fn container_id(seed: &str) -> String {
    // FNV-1a, four times with different starts: not secret, only spread.
    (0..4_u64)
        .map(|round| {
            let start = 0xcbf2_9ce4_8422_2325 ^ (round << 32) ^ u64::from(std::process::id());
            let hash = seed
                .bytes()
                .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
            format!("{hash:016x}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_told_by_type_and_controller() {
        let v1 = Hierarchy { name: "cpu", mount: "/c/cpu".into() };
        let v2 = Hierarchy { name: "v2", mount: "/c/unified".into() };
        let mountinfo = "31 23 0:28 / /c rw - tmpfs tmpfs rw\n32 31 0:29 / /c/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                         33 31 0:30 / /c/systemd rw - cgroup cgroup rw,name=systemd\n41 31 0:38 / /c/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies_in(mountinfo), [v2.clone(), v1.clone()]);
        assert_eq!(v1.path_in("3:cpu,cpuacct:/a:b"), Some("/a:b"));
        assert_eq!((v1.path_in("0::/x"), v1.path_in("3:cpuacct:/x")), (None, None));
        assert_eq!((v2.path_in("0::/x"), v2.path_in("3:cpu:/x")), (Some("/x"), None));
    }

    #[test]
    fn names_are_filled_in() {
        let id = container_id("x");
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, container_id("y"));
        for naming in NAMINGS {
            let path = naming.path(&id);
            assert_eq!(path.matches(&id).count(), 1, "{path}");
            assert!(!path.contains("ID") && naming.pod == (path.contains("1f0b2d6e")), "{path}");
        }
        assert_eq!(NAMINGS[2].path(&id), format!("kubepods/burstable/pod{POD_UID}/{id}"));
    }
}
