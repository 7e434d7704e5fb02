//! Whose losses are whose.

use monitor_common::ids::{BootNs, CgroupId};

use super::super::containers_tests::World;
use super::*;
use crate::control::tests::ID;

/// A container that floods the ring, ends and is forgotten leaves its losses to nobody, least of all to the host.
#[test]
fn losses_of_what_is_not_known_are_not_the_hosts() {
    let mut world = World::new();
    world.cgroups.made(CgroupId(2), b"/system.slice");
    world.cgroups.made(CgroupId(3), format!("/docker/{ID}").as_bytes());
    world.cgroups.made(CgroupId(5), b"/user.slice");
    world.cgroups.removed(CgroupId(5), BootNs(1));
    let lost =
        [(CgroupId(2), 1), (CgroupId(3), 20), (CgroupId(4), 300), (CgroupId(0), 4000), (CgroupId(5), 50_000)];
    let rows = |wanted: Option<&str>, lost: &[(CgroupId, u64)]| -> Vec<(String, u64)> {
        let parts = world.with_tables(|tables| top(tables, &Tallies::default()));
        parts.listing(wanted, lost).containers.into_iter().map(|row| (row.id, row.lost)).collect()
    };
    let (host, unknown) = (("host".to_owned(), 50_001), ("unknown".to_owned(), 4300));
    assert_eq!(rows(None, &lost), [(ID.to_owned(), 20), host.clone(), unknown.clone()]);
    assert_eq!(rows(Some("unknown"), &lost), [unknown]);
    assert_eq!(rows(Some("host"), &lost), [host]);
    // Where there is nothing to tell, there is no such row.
    assert_eq!(rows(None, &lost[..1]), [(ID.to_owned(), 0), ("host".to_owned(), 1)]);
}
