//! Which containers a cgroup belongs to, or which of the host's units.
//!
//! The table is keyed by cgroup id and fed by the cgroup tracepoints, so that a container is known before its
//! first process runs; at start it is seeded from the cgroup tree.

mod identify;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId};
use monitor_common::wire::CGROUP_PATH;

pub use identify::identify;
pub(crate) use identify::is_id;

use identify::{Located, locate};

use crate::enrich::namespaces::container_key;
use crate::hierarchy::Hierarchy;
use crate::text::escape;

/// Who runs a container, as its cgroup's name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// containerd, through CRI, nerdctl or another client.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// A Kubernetes pod's container whose cgroup does not name the runtime (cgroupfs driver).
    Kubernetes,
    /// LXC, LXD or Incus.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
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
            Runtime::Lxc => "lxc",
            Runtime::Nspawn => "systemd-nspawn",
        }
    }
}

/// What a Kubernetes pod is promised of the node's resources: its quality-of-service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodQos {
    /// All that it asked for.
    Guaranteed,
    /// Some.
    Burstable,
    /// Nothing.
    BestEffort,
}

impl PodQos {
    /// Kubernetes' word for it (`k8s.pod.qos`).
    pub const fn name(self) -> &'static str {
        match self {
            PodQos::Guaranteed => "Guaranteed",
            PodQos::Burstable => "Burstable",
            PodQos::BestEffort => "BestEffort",
        }
    }
}

/// A container, as far as its cgroup's path names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// The runtime's id: 64 hexadecimal digits, 25 digits of base 36 for a step of a build; for LXC and
    /// systemd-nspawn the container's name, escaped.
    pub id: String,
    /// Who runs it.
    pub runtime: Runtime,
    /// UID of its Kubernetes pod.
    pub pod_uid: Option<String>,
    /// Class of that pod.
    pub qos: Option<PodQos>,
    /// containerd's namespace that it is in, where the path says so.
    pub namespace: Option<String>,
    /// The user without root's help in whose slice of the host it lies; `None` if it is the system's. Such a user
    /// may name its cgroups as it likes.
    pub user: Option<u32>,
    /// It lies inside another container, which may name its cgroups as it likes.
    pub nested: bool,
}

impl Container {
    /// The id's first twelve digits, as the runtimes' own tools print it; a name whole.
    pub fn short_id(&self) -> &str {
        if self.has_long_id() { self.id.get(..12).unwrap_or(&self.id) } else { &self.id }
    }

    /// True if the id is one of 64 digits, and not a name.
    pub fn has_long_id(&self) -> bool {
        is_id(self.id.as_bytes())
    }
}

/// A unit of the host's systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUnit {
    /// Its name, such as `ssh.service`, escaped. For what a user's own manager runs, that manager (`user@UID.service`).
    pub name: String,
    /// Id of the login session that it is, as `loginctl` shows it.
    pub session: Option<String>,
}

/// A directory of the chosen cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path below the root of the hierarchy, escaped.
    pub path: String,
    /// The containers that it lies in, the deepest first.
    pub containers: Vec<Arc<Container>>,
    /// The unit of the host's systemd that it, or the outermost container, lies in.
    pub unit: Option<HostUnit>,
    /// Names the innermost container for ever, see [`container_key`].
    pub key: Option<Arc<str>>,
    /// It lies in a user's slice or inside a container: others than root on the host may make such directories.
    delegated: bool,
}

impl Cgroup {
    /// The directory with a path below the root of the hierarchy, as the kernel has it. Where version 1 and 2 differ
    /// it is read as one of version 1, whose layouts are more.
    pub fn new(path: &[u8]) -> Self {
        Cgroup::of(path, false)
    }

    fn of(path: &[u8], v2: bool) -> Self {
        let Located { containers, unit, delegated } = locate(path, v2);
        let key = container_key(&containers);
        Cgroup { path: escape(path).into_owned(), containers, unit, key, delegated }
    }

    /// The innermost container that it lies in.
    pub fn container(&self) -> Option<&Arc<Container>> {
        self.containers.first()
    }
}

/// Bound of the table: more directories than any one machine runs containers.
pub const MAX_CGROUPS: usize = 32_768;
/// Of these at most so many lie in users' slices or inside containers.
const MAX_DELEGATED: usize = MAX_CGROUPS / 2;
/// How long a removed directory is remembered: records of its last processes may still be on their way.
const KEEP_REMOVED_NS: u64 = 60_000_000_000;
/// After a failed look in the tree, the next unknown id waits this long: a walk is not free.
const WALK_PAUSE_NS: u64 = 1_000_000_000;

/// The known cgroups by id.
#[derive(Debug, Default)]
pub struct Cgroups {
    table: HashMap<CgroupId, Arc<Cgroup>>,
    /// How many of them are delegated.
    delegated: usize,
    /// Removed directories, oldest first; those that are delegated in the second queue.
    removed: [VecDeque<(BootNs, CgroupId)>; 2],
    hierarchy: Option<Hierarchy>,
    last_walk: BootNs,
    /// Directories of containers that were found since this was last taken; no longer than the table.
    pub found: Vec<Arc<Cgroup>>,
    /// Directories that found no room since the number was last taken.
    pub refused: u64,
}

impl Cgroups {
    /// An empty table over a hierarchy.
    pub fn new(hierarchy: Option<Hierarchy>) -> Self {
        Cgroups { hierarchy, ..Self::default() }
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
        let Some(root) = self.hierarchy.as_ref().map(|hierarchy| hierarchy.root.clone()) else { return };
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
        if path.len() + 1 < CGROUP_PATH {
            return self.insert(id, path);
        }
        // A path that fills its room was cut, in its last part. Those before may name the container; else the tree
        // knows it whole.
        let whole = path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
        if !locate(whole, self.is_v2()).containers.is_empty() {
            self.insert(id, whole);
        }
    }

    fn is_v2(&self) -> bool {
        self.hierarchy.as_ref().is_some_and(|hierarchy| hierarchy.controller.is_none())
    }

    fn insert(&mut self, id: CgroupId, path: &[u8]) {
        let cgroup = Arc::new(Cgroup::of(path, self.is_v2()));
        let known = self.table.contains_key(&id);
        if !known && !self.make_room(cgroup.delegated) {
            self.refused += 1;
            return;
        }
        self.forget(id);
        self.delegated += usize::from(cgroup.delegated);
        self.table.insert(id, Arc::clone(&cgroup));
        if !known && cgroup.container().is_some() {
            self.found.push(cgroup);
        }
    }

    /// Makes room for one more, in the place of a removed one. What is delegated takes only places of its own.
    fn make_room(&mut self, delegated: bool) -> bool {
        let [host, others] = &mut self.removed;
        let oldest = match (delegated, self.table.len() >= MAX_CGROUPS) {
            (true, full) if full || self.delegated >= MAX_DELEGATED => others.pop_front(),
            (false, true) => others.pop_front().or_else(|| host.pop_front()),
            _ => return true,
        };
        let Some((_, oldest)) = oldest else { return false };
        self.forget(oldest);
        true
    }

    fn forget(&mut self, id: CgroupId) {
        if self.table.remove(&id).is_some_and(|cgroup| cgroup.delegated) {
            self.delegated -= 1;
        }
    }

    /// A directory was removed; it is forgotten a minute later.
    pub fn removed(&mut self, id: CgroupId, now: BootNs) {
        // What is not in the table needs no forgetting; so the queues are never longer than the table.
        let [host, others] = &mut self.removed;
        if let Some(cgroup) = self.table.get(&id) {
            if cgroup.delegated { others } else { host }.push_back((now, id));
        }
        self.expire(now);
    }

    /// Forgets the directories that were removed a minute ago. True if there were any.
    pub fn expire(&mut self, now: BootNs) -> bool {
        let is_old = |(when, _): &mut (BootNs, CgroupId)| now.0.saturating_sub(when.0) >= KEEP_REMOVED_NS;
        let mut any = false;
        while let [host, others] = &mut self.removed
            && let Some((_, id)) = host.pop_front_if(is_old).or_else(|| others.pop_front_if(is_old))
        {
            self.forget(id);
            any = true;
        }
        any
    }

    /// Every known directory, and whether it was removed.
    pub fn iter(&self) -> impl Iterator<Item = (CgroupId, &Arc<Cgroup>, bool)> {
        let removed: HashSet<CgroupId> = self.removed.iter().flatten().map(|(_, id)| *id).collect();
        self.table.iter().map(move |(id, cgroup)| (*id, cgroup, removed.contains(id)))
    }

    /// The hierarchy whose directories these are.
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// True if `to` lies in a container and `from` is known to lie in none: a runtime puts a process into its
    /// container. A move inside a container proves nothing, for a container that may make cgroups may call
    /// one of them a container; nor does a place that is not known.
    pub fn enters_container(&self, from: Option<CgroupId>, to: CgroupId) -> bool {
        let from = from.and_then(|id| self.known(id));
        from.is_some_and(|from| from.containers.is_empty())
            && self.known(to).is_some_and(|to| !to.containers.is_empty())
    }

    /// The directory with this id, if it is known.
    pub fn known(&self, id: CgroupId) -> Option<&Arc<Cgroup>> {
        self.table.get(&id)
    }

    /// The directory with this id. An unknown one is looked for in the tree, at most once a second; 0, which
    /// stands for no id, is never found there.
    pub fn get(&mut self, id: CgroupId, now: BootNs) -> Option<Arc<Cgroup>> {
        if let Some(cgroup) = self.table.get(&id) {
            return Some(Arc::clone(cgroup));
        }
        if id == CgroupId(0)
            || self.last_walk.0 != 0 && now.0.saturating_sub(self.last_walk.0) < WALK_PAUSE_NS
        {
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
    fn a_machine_without_payload_is_a_container_in_version_1_only() {
        let v2 = Hierarchy {
            number: 0,
            controller: None,
            root: "/nowhere".into(),
            namespace_root: Some("".into()),
        };
        let v1 = Hierarchy { controller: crate::hierarchy::CONTROLLERS.first(), number: 1, ..v2.clone() };
        for (hierarchy, alone) in [(v1, true), (v2, false)] {
            let mut cgroups = Cgroups::new(Some(hierarchy));
            cgroups.made(CgroupId(1), b"/machine.slice/machine-box.scope");
            cgroups.made(CgroupId(2), b"/machine.slice/machine-box.scope/payload");
            let found = [1, 2].map(|id| cgroups.known(CgroupId(id)).unwrap().container().is_some());
            assert_eq!(found, [alone, true]);
        }
    }

    #[test]
    fn a_path_that_was_cut_still_names_its_container() {
        let mut cgroups = Cgroups::new(None);
        let cut = |start: &str| {
            let mut path = start.as_bytes().to_vec();
            path.resize(CGROUP_PATH - 1, b'x');
            path
        };
        cgroups.made(CgroupId(1), &cut(&format!("/docker/{ID}/a/")));
        let found = cgroups.known(CgroupId(1)).unwrap();
        assert_eq!(found.container().map(|container| container.id.as_str()), Some(ID));
        assert_eq!(found.path, format!("/docker/{ID}/a"), "what was cut is left out");
        // What is left of a name is none.
        cgroups.made(CgroupId(2), &cut("/lxc.payload."));
        cgroups.made(CgroupId(3), &cut("/system.slice/"));
        assert!(cgroups.known(CgroupId(2)).is_none() && cgroups.known(CgroupId(3)).is_none());
    }

    #[test]
    fn removals_of_unknown_cgroups_take_no_room() {
        let mut cgroups = Cgroups::new(None);
        for id in 0..1000 {
            cgroups.removed(CgroupId(id), BootNs(1));
        }
        assert!(cgroups.removed.iter().all(VecDeque::is_empty));
    }

    #[test]
    fn what_others_may_make_takes_half_of_the_table() {
        let mut cgroups = Cgroups::new(None);
        let id = |number: usize| CgroupId(number as u64 + 1);
        let slice = "/user.slice/user-1000.slice/user@1000.service";
        for number in 0..MAX_DELEGATED {
            let path = match number % 2 {
                0 => format!("{slice}/{number}"),
                _ => format!("/docker/{ID}/{number}"),
            };
            cgroups.made(id(number), path.as_bytes());
        }
        assert_eq!((cgroups.len(), cgroups.refused), (MAX_DELEGATED, 0));
        cgroups.made(id(MAX_CGROUPS), format!("{slice}/x").as_bytes());
        cgroups.made(id(MAX_CGROUPS + 1), format!("/docker/{ID}/x").as_bytes());
        assert_eq!((cgroups.len(), cgroups.refused), (MAX_DELEGATED, 2));
        // A removed one makes room for another, as it does for the host's.
        cgroups.removed(id(0), BootNs(1));
        cgroups.made(id(MAX_CGROUPS), format!("{slice}/x").as_bytes());
        assert!(cgroups.known(id(0)).is_none() && cgroups.known(id(MAX_CGROUPS)).is_some());
        for number in MAX_DELEGATED..MAX_CGROUPS {
            cgroups.made(id(number), format!("/docker/{number:064x}").as_bytes());
        }
        assert_eq!((cgroups.len(), cgroups.refused), (MAX_CGROUPS, 2), "containers' own are the host's");
        cgroups.removed(id(1), BootNs(1));
        cgroups.removed(id(MAX_DELEGATED), BootNs(1));
        cgroups.made(id(MAX_CGROUPS + 1), b"/system.slice/docker.service");
        assert!(cgroups.known(id(1)).is_none() && cgroups.known(id(MAX_DELEGATED)).is_some());
        assert_eq!(cgroups.delegated, MAX_DELEGATED - 1);
        cgroups.made(id(MAX_CGROUPS + 2), format!("{slice}/y").as_bytes());
        assert_eq!(cgroups.refused, 3, "the host's place is not theirs");
    }

    #[test]
    fn a_removed_cgroup_is_remembered_for_a_minute() {
        let mut cgroups = Cgroups::new(None);
        cgroups.made(CgroupId(7), format!("/docker/{ID}").as_bytes());
        cgroups.removed(CgroupId(7), BootNs(1));
        assert!(cgroups.get(CgroupId(7), BootNs(2)).is_some_and(|cgroup| cgroup.container().is_some()));
        cgroups.made(CgroupId(8), b"/x");
        cgroups.removed(CgroupId(8), BootNs(KEEP_REMOVED_NS + 1));
        assert!(cgroups.get(CgroupId(7), BootNs(KEEP_REMOVED_NS + 2)).is_none());
        assert!(cgroups.get(CgroupId(8), BootNs(KEEP_REMOVED_NS + 2)).is_some());
        // Also if nothing is removed any more.
        cgroups.expire(BootNs(2 * KEEP_REMOVED_NS));
        assert_eq!(cgroups.len(), 1);
        cgroups.expire(BootNs(2 * KEEP_REMOVED_NS + 1));
        assert!(cgroups.is_empty());
    }
}
