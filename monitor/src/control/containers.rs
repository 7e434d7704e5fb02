//! `containers`: every container that the tables know.
//!
//! Made by the owner of the tables between two records, so it copies numbers and shares the rest. The text is made
//! by whoever asked, on another thread.

use std::collections::HashMap;
use std::sync::Arc;

use monitor_common::ids::CgroupId;

use crate::control::protocol::{ContainerInfo, Phase, Pod};
use crate::decode::NsSet;
use crate::enrich::Host;
use crate::enrich::container::{Cgroup, Cgroups};
use crate::enrich::metadata::{Metadata, PodInfo};
use crate::enrich::names::{Names, State};
use crate::enrich::namespaces::Residents;
use crate::enrich::process::Processes;
use crate::fields::NS_KINDS;

/// Bytes of a name in an answer; longer ones are cut. Kubernetes' may have 253, images' about as many.
const MAX_TEXT: usize = 256;

/// A container, as parts of the tables.
#[derive(Clone, Debug)]
pub struct Row {
    /// The directory that its runtime made for it.
    cgroup: Arc<Cgroup>,
    id: CgroupId,
    removed: bool,
    processes: u32,
    /// One of its processes runs a program of the container's.
    running: bool,
    /// Namespaces of its first program, 0 where unknown.
    namespaces: NsSet,
    host: NsSet,
    pub(super) name: Option<State>,
}

/// What a list is made from.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'t> {
    /// Which containers there are.
    pub cgroups: &'t Cgroups,
    /// What runs in them.
    pub processes: &'t Processes,
    /// What they are called.
    pub names: &'t Names,
    /// In which namespaces their first programs began.
    pub residents: &'t Residents,
    /// Which namespaces are the host's.
    pub host: &'t Host,
}

/// The containers in the cgroup table, with what the other tables say about them, in the order of their paths;
/// those come last that lie in a user's own slice, since such a user may make as many as it likes.
///
/// Takes one walk over the cgroups and one over the processes.
pub fn containers(tables: Tables<'_>) -> Vec<Row> {
    let (mut rows, _) = collect(tables);
    rows.sort_by(|a, b| (a.is_users(), &a.cgroup.path).cmp(&(b.is_users(), &b.cgroup.path)));
    rows
}

/// The containers in no order, and the number of each cgroup's.
pub(super) fn collect(tables: Tables<'_>) -> (Vec<Row>, HashMap<CgroupId, usize>) {
    let mut rows: Vec<Row> = Vec::new();
    let mut by_container = HashMap::new();
    let mut by_cgroup = HashMap::new();
    for (id, cgroup, removed) in tables.cgroups.iter() {
        let (Some(container), Some(key)) = (cgroup.container(), cgroup.key.as_deref()) else { continue };
        let row = Row {
            cgroup: Arc::clone(cgroup),
            id,
            removed,
            processes: 0,
            running: false,
            namespaces: tables.residents.get(key).map_or(NsSet::default(), |resident| resident.base),
            host: tables.host.namespaces,
            name: tables.names.state(container).cloned(),
        };
        let number = *by_container.entry(key).or_insert(rows.len());
        by_cgroup.insert(id, number);
        match rows.get_mut(number) {
            // A directory that is there counts before one that was, and the container's own before those below it.
            Some(known) if row.place() < known.place() => *known = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    for process in tables.processes.iter().filter(|process| process.ended.is_none()) {
        let number = by_cgroup.get(&process.cgroup).copied();
        if let Some(row) = number.and_then(|number| rows.get_mut(number)) {
            row.processes = row.processes.saturating_add(1);
            row.running |= !process.starting;
        }
    }
    (rows, by_cgroup)
}

impl Row {
    /// The container's whole id.
    pub(super) fn id(&self) -> &str {
        self.cgroup.container().map_or("", |container| &container.id)
    }

    /// Least for the directory that stands for the container.
    fn place(&self) -> (bool, usize) {
        (self.removed, self.cgroup.path.len())
    }

    fn is_users(&self) -> bool {
        self.cgroup.container().is_some_and(|container| container.user.is_some())
    }

    fn phase(&self) -> Phase {
        match (self.removed, self.running, self.processes) {
            (true, ..) => Phase::Ended,
            (false, true, _) => Phase::Running,
            (false, false, 0) => Phase::Empty,
            (false, false, _) => Phase::Starting,
        }
    }

    /// What is said about it.
    pub fn info(&self) -> ContainerInfo {
        let own = self.cgroup.container();
        let known =
            || NS_KINDS.iter().zip(&self.namespaces).zip(&self.host).filter(|((_, inum), _)| inum.0 != 0);
        let (metadata, miss) = match &self.name {
            Some(State::Known(metadata)) => (Some(&**metadata), None),
            Some(State::Missing(miss)) => (None, Some(miss.label())),
            Some(State::Pending | State::Unasked) | None => (None, None),
        };
        let text = |get: fn(&Metadata) -> Option<&String>| metadata.and_then(get).map(|text| bounded(text));
        let pod = metadata.and_then(|metadata| metadata.pod.as_ref());
        let pod_uid = own.and_then(|container| container.pod_uid.as_ref());
        let of_pod = |get: fn(&PodInfo) -> Option<&String>| pod.and_then(get).map(|text| bounded(text));
        ContainerInfo {
            id: own.map(|container| container.id.clone()).unwrap_or_default(),
            name: text(|metadata| metadata.name.as_ref()),
            image: text(|metadata| metadata.image.as_ref()),
            metadata: self.metadata_word().to_owned(),
            metadata_miss: miss.map(str::to_owned),
            runtime: own.map(|container| container.runtime.name().to_owned()).unwrap_or_default(),
            pod: (pod.is_some() || pod_uid.is_some()).then(|| Pod {
                // The cgroup's path is the host's own word.
                uid: pod_uid.cloned().or_else(|| of_pod(|pod| pod.uid.as_ref())),
                name: of_pod(|pod| pod.name.as_ref()),
                namespace: of_pod(|pod| pod.namespace.as_ref()),
                container_name: of_pod(|pod| pod.container_name.as_ref()),
            }),
            phase: self.phase(),
            processes: self.processes,
            namespaces: known().map(|((kind, inum), _)| ((*kind).to_owned(), inum.0)).collect(),
            host_namespaces: known()
                .filter(|((_, inum), host)| inum == host)
                .map(|((kind, _), _)| (*kind).to_owned())
                .collect(),
            cgroup_id: self.id.0,
            cgroup_path: self.cgroup.path.clone(),
            chain: self.cgroup.containers.iter().map(|container| container.id.clone()).collect(),
        }
    }

    /// As `container.metadata` has it.
    fn metadata_word(&self) -> &'static str {
        match self.name {
            Some(State::Known(_)) => "complete",
            Some(State::Pending | State::Unasked) => "pending",
            Some(State::Missing(_)) | None => "missing",
        }
    }
}

/// A text that somebody may have made long, so that one container does not take the room of many.
fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{}…", text.get(..end).unwrap_or_default())
}
