//! Cgroups of our own, named as container runtimes name theirs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The container id of `attempt demo`: a constant that spells what it is.
pub const DEMO_ID: &str = "de30de30de30de30de30de30de30de30de30de30de30de30de30de30de30de30";

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts.
///
/// # Errors
/// If `/proc/self/mountinfo` cannot be read or names no cgroup v2 mount.
pub fn mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 hierarchy is mounted"))
}

/// A cgroup that we made, with the parents that we had to make for it; removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup `name` (a path below the mount) and its missing parents.
    ///
    /// # Errors
    /// The kernel's; nothing is left behind then.
    pub fn make(name: &str) -> io::Result<Cgroup> {
        let mut path = mount()?;
        let mut cgroup = Cgroup { path: path.join(name), made: Vec::new() };
        for part in Path::new(name) {
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

    /// Makes the command run as a container's own program does: in this cgroup, and exec'ed in a mount namespace
    /// of its own. Without the latter it would pass for a runtime that is still building the container.
    pub fn contain(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        let enter = move || {
            fs::write(&procs, "0")?;
            // SAFETY: a call without pointers.
            if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        // SAFETY: between fork and exec the child writes to one file and makes one call; our programs are
        // single-threaded when they start others, or take no lock here.
        unsafe { command.pre_exec(enter) };
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

/// The cgroup of a process, from the line of the v2 hierarchy in `/proc/PID/cgroup`, and its kernel id.
///
/// # Errors
/// If the process is gone, or the path is not below our mount.
pub fn of_process(pid: &str) -> io::Result<(String, u64)> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has no cgroup v2"))?;
    let directory = mount()?.join(path.trim_start_matches('/'));
    Ok((path.to_owned(), fs::metadata(directory)?.ino()))
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
