//! Where the runtimes keep their state.

use std::path::{Path, PathBuf};

use crate::enrich::metadata::open::read_host;

/// Where the host's files are, and below them the state of each runtime.
///
/// Directories of runtimes are named as the host names them; they are looked for below [`Roots::host`]. Those of
/// users without root's help (rootless Podman and Docker) are found by their homes in the host's `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Where the host's root is: `/`, or where a container has it mounted.
    pub host: PathBuf,
    /// Data directories of Docker Engine (`data-root`).
    pub docker: Vec<PathBuf>,
    /// State directories of containerd (`state`).
    pub containerd: Vec<PathBuf>,
    /// Storage of CRI-O: its root and its run root.
    pub crio: Vec<PathBuf>,
    /// Storage of Podman: its root (`graphroot`) and its run root.
    pub podman: Vec<PathBuf>,
}

impl Default for Roots {
    /// As the runtimes have them unless told otherwise, and k3s, which brings its own containerd.
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let storage = paths(&["/var/lib/containers/storage", "/run/containers/storage"]);
        Roots {
            host: PathBuf::from("/"),
            docker: paths(&["/var/lib/docker"]),
            containerd: paths(&["/run/containerd", "/run/k3s/containerd"]),
            crio: storage.clone(),
            podman: storage,
        }
    }
}

/// A user's home directory in the host's `/etc/passwd`. Users of directory services have none here.
pub(super) fn home(host: &Path, uid: u32) -> Option<PathBuf> {
    let passwd = read_host(host, Path::new("/etc/passwd")).ok()?;
    let passwd = String::from_utf8_lossy(&passwd);
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (known, home) = (parts.nth(2)?, parts.nth(2)?);
        (known.parse() == Ok(uid) && home.starts_with('/')).then(|| PathBuf::from(home))
    })
}
