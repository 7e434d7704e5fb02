//! The list of containers under test: from real tables over a real socket; names, order, bounds.

use std::sync::Arc;

use monitor_common::ids::{BootNs, CgroupId, NsInum, Tgid};

use super::containers::{Row, Tables, containers};
use super::tests::{ID, REQUEST, Served};
use super::*;
use crate::decode::{ProcessKey, RawTask};
use crate::enrich::Host;
use crate::enrich::container::{Cgroup, Cgroups};
use crate::enrich::metadata::{Metadata, Miss, PodInfo};
use crate::enrich::names::{Names, State};
use crate::enrich::namespaces::Residents;
use crate::enrich::process::Processes;
use crate::pipeline;

fn key(tgid: u32, start: u64) -> ProcessKey {
    ProcessKey { tgid: Tgid(tgid), start: BootNs(start) }
}

fn task(process: ProcessKey, cgroup: u64) -> RawTask {
    RawTask { process, cgroup: CgroupId(cgroup), ..RawTask::default() }
}

/// Tables, empty unless a test fills them.
pub(super) struct World {
    pub(super) cgroups: Cgroups,
    processes: Processes,
    residents: Residents,
    host: Host,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            cgroups: Cgroups::new(None),
            processes: Processes::new(100, NsInum(100)),
            residents: Residents::new(10),
            host: Host { namespaces: [NsInum(100); 8], ..Host::default() },
        }
    }

    /// A container that runs, one inside it that starts, one without processes, one that is gone; and the host.
    fn full() -> Self {
        let mut world = World::new();
        let World { cgroups, processes, residents, .. } = &mut world;
        let inner = ID.replace('4', "5");
        let pod = "6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f";
        let own = format!("/docker/{ID}");
        cgroups.made(CgroupId(2), b"/system.slice");
        cgroups.made(CgroupId(4), format!("{own}/init.scope").as_bytes());
        cgroups.made(CgroupId(3), own.as_bytes());
        cgroups.made(CgroupId(5), format!("{own}/a\x1b[2J/docker/{inner}").as_bytes());
        cgroups.made(CgroupId(6), format!("/kubepods/pod{pod}/{}", ID.replace('4', "6")).as_bytes());
        cgroups.made(CgroupId(7), format!("/machine.slice/libpod-{}.scope", ID.replace('4', "7")).as_bytes());
        cgroups.removed(CgroupId(7), BootNs(1));
        let (runtime, init, helper, inside, dead) =
            (key(10, 1), key(11, 2), key(12, 3), key(13, 4), key(14, 5));
        processes.forked(&task(runtime, 2), key(1, 1), false);
        for (process, cgroup) in [(init, 3), (helper, 4), (inside, 5), (dead, 3)] {
            processes.forked(&task(process, cgroup), runtime, cgroup == 5);
        }
        processes.exited(dead, BootNs(6));
        let mut base = [NsInum(200); 8];
        // The network is the host's, and of the last kind nothing is known.
        (base[3], base[7]) = (NsInum(100), NsInum(0));
        residents.began(&Cgroup::new(own.as_bytes()).key.unwrap(), init, base);
        world
    }

    /// As the pipeline makes them.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.with_tables(containers)
    }

    pub(super) fn with_tables<T>(&self, make: impl FnOnce(Tables<'_>) -> T) -> T {
        make(Tables {
            cgroups: &self.cgroups,
            processes: &self.processes,
            names: &Names::off(Arc::new(pipeline::metrics().unwrap())),
            residents: &self.residents,
            host: &self.host,
        })
    }
}

#[test]
fn containers_are_told_as_the_tables_know_them() {
    let world = World::full();
    let served = Served::new(move || world.rows());
    let Reply::Containers(Listing { known, omitted: 0 }) = ask(&served.path, Request::Containers {}).unwrap()
    else {
        panic!()
    };
    let brief: Vec<_> = known
        .iter()
        .map(|info| {
            (info.id.get(..1).unwrap(), info.runtime.as_str(), info.phase, info.processes, info.cgroup_id)
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("4", "docker", Phase::Running, 2, 3),
            ("5", "docker", Phase::Starting, 1, 5),
            ("6", "kubernetes", Phase::Empty, 0, 6),
            ("7", "podman", Phase::Ended, 0, 7),
        ]
    );
    let namespaces = &known[0].namespaces;
    assert_eq!((namespaces.get("mnt"), namespaces.get("net"), namespaces.len()), (Some(&200), Some(&100), 7));
    assert_eq!(known[0].host_namespaces, ["net"]);
    assert!(known[1].namespaces.is_empty(), "its first program did not begin yet");
    assert_eq!(known[0].cgroup_path, format!("/docker/{ID}"));
    assert_eq!(known[1].chain, [ID.replace('4', "5"), ID.to_owned()]);
    assert_eq!(
        known[2].pod.as_ref().and_then(|pod| pod.uid.as_deref()),
        Some("6b3a0b0e-7c1d-4a5e-9f0a-2f6f0c1d2e3f")
    );
    let line = served.send(REQUEST);
    assert!(
        line.starts_with("{\"containers\":{\"known\":[{\"id\":\"4d5c")
            && line.ends_with("],\"omitted\":0}}\n"),
        "{line}"
    );
    assert!(!line.trim_end().chars().any(char::is_control), "{line}");
    served.await_count(Outcome::Answered, 2);
}

#[test]
fn containers_of_the_same_id_in_different_places_are_different() {
    let mut world = World::new();
    let cgroups = &mut world.cgroups;
    let user = format!("/user.slice/user-1000.slice/user@1000.service/libpod-{ID}.scope");
    cgroups.made(CgroupId(1), user.as_bytes());
    cgroups.made(CgroupId(2), format!("{user}/container").as_bytes());
    cgroups.made(CgroupId(3), format!("/zone.slice/libpod-{ID}.scope").as_bytes());
    cgroups.made(CgroupId(4), b"/zone.slice/lxc.payload.web");
    cgroups.made(CgroupId(5), format!("/zone.slice/libpod-{ID}.scope/lxc.payload.web").as_bytes());
    // Started again: the directory that is there counts, not the one that was.
    cgroups.made(CgroupId(6), b"/zone.slice/lxc.payload.web");
    cgroups.removed(CgroupId(4), BootNs(1));
    let told: Vec<_> = world.rows().iter().map(Row::info).map(|info| (info.cgroup_id, info.phase)).collect();
    // What a user makes comes last.
    assert_eq!(told, [3, 5, 6, 1].map(|id| (id, Phase::Empty)));
}

#[test]
fn names_are_told_as_far_as_they_are_known() {
    let with = |name| {
        let mut row = World::full().rows().swap_remove(0);
        row.name = name;
        row.info()
    };
    let pod =
        PodInfo { name: Some("web-0".to_owned()), namespace: Some("shop".to_owned()), ..PodInfo::default() };
    let metadata = Metadata {
        name: Some("é".repeat(4000)),
        image: Some("nginx:1".to_owned()),
        pod: Some(pod),
        ..Metadata::default()
    };
    let known = with(Some(State::Known(Arc::new(metadata))));
    let name = known.name.unwrap();
    assert!(name.ends_with("é…") && name.len() < 300, "{name}");
    assert_eq!((known.image.as_deref(), known.metadata.as_str()), (Some("nginx:1"), "complete"));
    let pod = known.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("shop")));
    for (name, word, miss) in [
        (Some(State::Missing(Miss::NotFound)), "missing", Some("not_found")),
        (Some(State::Pending), "pending", None),
        (Some(State::Unasked), "pending", None),
        (None, "missing", None),
    ] {
        let info = with(name);
        assert_eq!((info.metadata.as_str(), info.metadata_miss.as_deref()), (word, miss));
        assert_eq!((info.name, info.image, info.pod), (None, None, None));
    }
}

#[test]
fn an_answer_is_bounded_and_says_what_it_leaves_out() {
    let mut world = World::new();
    for id in 0..30_000 {
        // Each of the controls takes six bytes in JSON.
        let path = format!("/{}/docker/{id:064x}", "\x07".repeat(100));
        world.cgroups.made(CgroupId(id), path.as_bytes());
    }
    let rows = world.rows();
    let served = Served::new(move || rows.clone());
    let Reply::Containers(all) = ask(&served.path, Request::Containers {}).unwrap() else { panic!() };
    assert!(all.omitted > 0);
    assert_eq!(all.known.len() as u64 + all.omitted, 30_000);
}
