//! Which container a cgroup belongs to.
//!
//! The table is keyed by cgroup id and fed by the cgroup tracepoints, so that a container is known before its
//! first process runs; at start it is seeded from the cgroup tree.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId};
use monitor_common::wire::CGROUP_PATH;

use crate::text::escape;

/// Who runs a container, as its cgroup's name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// containerd, through CRI.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// A Kubernetes pod's container whose cgroup does not name the runtime (cgroupfs driver).
    Kubernetes,
}

impl Runtime {
    /// The word in events (`container.runtime`).
    pub const fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Kubernetes => "kubernetes",
        }
    }
}

/// A container, as far as its cgroup's path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id: 64 hexadecimal digits.
    pub id: String,
    /// Who runs it.
    pub runtime: Runtime,
    /// UID of its Kubernetes pod.
    pub pod_uid: Option<String>,
}

impl Container {
    /// The id's first twelve digits, as the runtimes' own tools print it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// Finds the innermost container in a cgroup's path (below the root of the hierarchy).
///
/// Recognised: Docker with the cgroupfs driver (`docker/ID`) and the systemd driver (`docker-ID.scope`),
/// containerd through CRI (`cri-containerd-ID.scope`), CRI-O (`crio-ID.scope`), Podman (`libpod-ID.scope`,
/// `libpod_parent/libpod-ID`), and Kubernetes pods with the cgroupfs driver (`kubepods/…/podUID/ID`). To
/// make such a directory takes root on the host, or a subtree of the hierarchy that root has delegated.
pub fn identify(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for (i, part) in parts.iter().enumerate().rev() {
        let above = &parts[..i];
        let scope = part.strip_suffix(".scope").unwrap_or(part);
        let named = [
            ("docker-", Runtime::Docker),
            ("cri-containerd-", Runtime::Containerd),
            ("crio-", Runtime::CriO),
            ("libpod-", Runtime::Podman),
        ];
        let by_name =
            named.iter().find_map(|(prefix, runtime)| Some((scope.strip_prefix(prefix)?, *runtime)));
        let by_place = || {
            let runtime = if above.last() == Some(&"docker") {
                Runtime::Docker
            } else if above.last().is_some_and(|parent| pod_uid(parent).is_some()) {
                Runtime::Kubernetes
            } else {
                return None;
            };
            Some((scope, runtime))
        };
        if let Some((id, runtime)) = by_name.or_else(by_place)
            && is_id(id)
        {
            let pod_uid = above.iter().rev().find_map(|part| pod_uid(part));
            return Some(Container { id: id.to_owned(), runtime, pod_uid });
        }
    }
    None
}

/// Container ids are 64 lower-case hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The pod's UID in `podUID` (cgroupfs driver) or `kubepods-…-podU_I_D.slice` (systemd driver).
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    // A UID, or the hash that the kubelet uses for static pods.
    let is_hex = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (is_hex && (uid.len() == 36 || uid.len() == 32)).then_some(uid)
}

/// A cgroup v2 directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path below the root of the hierarchy, escaped.
    pub path: String,
    /// The innermost container that it belongs to.
    pub container: Option<Container>,
}

/// Bound of the table: more directories than any one machine runs containers.
pub const MAX_CGROUPS: usize = 32_768;
/// How long a removed directory is remembered: records of its last processes may still be on their way.
const KEEP_REMOVED_NS: u64 = 60_000_000_000;
/// After a failed look in the tree, the next unknown id waits this long: a walk is not free.
const WALK_PAUSE_NS: u64 = 1_000_000_000;

/// The known cgroups by id.
#[derive(Debug, Default)]
pub struct Cgroups {
    table: HashMap<CgroupId, Arc<Cgroup>>,
    /// Removed directories, oldest first.
    removed: VecDeque<(BootNs, CgroupId)>,
    root: Option<PathBuf>,
    last_walk: BootNs,
    /// Directories that found no room since the number was last taken.
    pub refused: u64,
}

impl Cgroups {
    /// An empty table over the hierarchy mounted at `root`.
    pub fn new(root: Option<PathBuf>) -> Self {
        Cgroups { root, ..Self::default() }
    }

    /// Number of known directories.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if none is known.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Learns every directory that exists.
    pub fn walk(&mut self) {
        let Some(root) = self.root.clone() else { return };
        let mut pending = vec![root.clone()];
        while let Some(dir) = pending.pop() {
            if let Ok(meta) = fs::symlink_metadata(&dir) {
                let below = dir.strip_prefix(&root).unwrap_or(Path::new(""));
                let path = [b"/", below.as_os_str().as_encoded_bytes()].concat();
                self.insert(CgroupId(meta.ino()), &path);
            }
            // A directory may vanish while it is read: then it has no children.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|ty| ty.is_dir()) {
                    pending.push(entry.path());
                }
            }
        }
    }

    /// A directory was made.
    pub fn made(&mut self, id: CgroupId, path: &[u8]) {
        // A path that fills its room was cut, perhaps before the container's name. The tree knows it whole.
        if path.len() + 1 < CGROUP_PATH {
            self.insert(id, path);
        }
    }

    fn insert(&mut self, id: CgroupId, path: &[u8]) {
        if self.table.len() >= MAX_CGROUPS && !self.table.contains_key(&id) {
            match self.removed.pop_front() {
                Some((_, oldest)) => {
                    self.table.remove(&oldest);
                }
                None => {
                    self.refused += 1;
                    return;
                }
            }
        }
        let path = escape(path).into_owned();
        let container = identify(&path);
        self.table.insert(id, Arc::new(Cgroup { path, container }));
    }

    /// A directory was removed; it is forgotten a minute later.
    pub fn removed(&mut self, id: CgroupId, now: BootNs) {
        // What is not in the table needs no forgetting; so the queue is never longer than the table.
        if self.table.contains_key(&id) {
            self.removed.push_back((now, id));
        }
        while let Some((when, id)) = self.removed.front().copied() {
            if now.0.saturating_sub(when.0) < KEEP_REMOVED_NS {
                break;
            }
            self.removed.pop_front();
            self.table.remove(&id);
        }
    }

    /// Where the hierarchy is mounted.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// True if `to` lies in a container and `from` is known to lie in none: a runtime puts a process into its
    /// container. A move inside a container proves nothing, for a container that may make cgroups may call
    /// one of them a container; nor does a place that is not known.
    pub fn enters_container(&self, from: Option<CgroupId>, to: CgroupId) -> bool {
        let from = from.and_then(|id| self.known(id));
        from.is_some_and(|from| from.container.is_none())
            && self.known(to).is_some_and(|to| to.container.is_some())
    }

    /// The directory with this id, if it is known.
    pub fn known(&self, id: CgroupId) -> Option<&Arc<Cgroup>> {
        self.table.get(&id)
    }

    /// The directory with this id. An unknown one is looked for in the tree, at most once a second.
    pub fn get(&mut self, id: CgroupId, now: BootNs) -> Option<Arc<Cgroup>> {
        if let Some(cgroup) = self.table.get(&id) {
            return Some(Arc::clone(cgroup));
        }
        if self.last_walk.0 != 0 && now.0.saturating_sub(self.last_walk.0) < WALK_PAUSE_NS {
            return None;
        }
        self.last_walk = now;
        self.walk();
        self.table.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
    const UID: &str = "6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f";

    #[test]
    fn containers_are_recognised_by_their_cgroup() {
        let under = UID.replace('-', "_");
        let table = [
            (format!("/docker/{ID}"), Runtime::Docker, false),
            (format!("/system.slice/docker-{ID}.scope"), Runtime::Docker, false),
            (format!("/system.slice/docker-{ID}.scope/init.scope"), Runtime::Docker, false),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
                ),
                Runtime::Containerd,
                true,
            ),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"), Runtime::CriO, true),
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), Runtime::Kubernetes, true),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Runtime::Podman, false),
            (format!("/libpod_parent/libpod-{ID}"), Runtime::Podman, false),
        ];
        for (path, runtime, pod) in table {
            let container = identify(&path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((container.id.as_str(), container.runtime), (ID, runtime), "{path}");
            assert_eq!(container.pod_uid.as_deref(), pod.then_some(UID), "{path}");
            assert_eq!(container.short_id(), &ID[..12]);
        }
    }

    #[test]
    fn the_innermost_container_counts() {
        let inner = ID.replace('4', "5");
        let path = format!("/docker/{ID}/docker/{inner}");
        assert_eq!(identify(&path).map(|container| container.id), Some(inner));
    }

    #[test]
    fn other_cgroups_are_the_hosts() {
        let conmon = format!("/machine.slice/libpod-conmon-{ID}.scope");
        let upper = format!("/docker/{}", ID.to_uppercase());
        let bare = format!("/user.slice/{ID}");
        for path in ["/", "", "/system.slice/docker.service", "/docker/abc", &conmon, &upper, &bare] {
            assert_eq!(identify(path), None, "{path}");
        }
    }

    #[test]
    fn only_who_comes_from_outside_enters_a_container() {
        let mut cgroups = Cgroups::new(None);
        let (host, outer, inner, lost) = (CgroupId(1), CgroupId(2), CgroupId(3), CgroupId(4));
        cgroups.made(host, b"/system.slice/containerd.service");
        cgroups.made(outer, format!("/docker/{ID}").as_bytes());
        cgroups.made(inner, format!("/docker/{ID}/docker-{}.scope", ID.replace('4', "5")).as_bytes());
        assert!(cgroups.enters_container(Some(host), outer));
        assert!(!cgroups.enters_container(Some(host), host));
        assert!(!cgroups.enters_container(Some(outer), inner), "a container can name its own cgroups");
        for unknown in [None, Some(lost), Some(CgroupId(0))] {
            assert!(!cgroups.enters_container(unknown, outer), "{unknown:?}");
        }
        assert!(!cgroups.enters_container(Some(host), lost));
    }

    #[test]
    fn removals_of_unknown_cgroups_take_no_room() {
        let mut cgroups = Cgroups::new(None);
        for id in 0..1000 {
            cgroups.removed(CgroupId(id), BootNs(1));
        }
        assert_eq!(cgroups.removed.len(), 0);
    }

    #[test]
    fn a_removed_cgroup_is_remembered_for_a_minute() {
        let mut cgroups = Cgroups::new(None);
        cgroups.made(CgroupId(7), format!("/docker/{ID}").as_bytes());
        cgroups.removed(CgroupId(7), BootNs(1));
        assert!(cgroups.get(CgroupId(7), BootNs(2)).is_some_and(|cgroup| cgroup.container.is_some()));
        cgroups.made(CgroupId(8), b"/x");
        cgroups.removed(CgroupId(8), BootNs(KEEP_REMOVED_NS + 1));
        assert!(cgroups.get(CgroupId(7), BootNs(KEEP_REMOVED_NS + 2)).is_none());
        assert!(cgroups.get(CgroupId(8), BootNs(KEEP_REMOVED_NS + 2)).is_some());
    }
}
