//! Restarts: of the daemon, of containers, of the machine.

use super::*;
use monitor_common::capability::cap_flag::DENIED;

const SETUID: u16 = 7;

#[test]
fn a_restarted_daemon_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.make(7, &path(7));
    world.grant(7, 1 << SETUID, 1 << SETUID);
    world.check(7, SETUID, 0, 3);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 100);
    world.check(7, SETUID, 0, 4);
    keeper.finish();
    let first = cap(&told(&keeper, &id(7)), "CAP_SETUID").used.unwrap().first;
    drop(keeper);

    // The map of the next daemon's programs is empty.
    world.machine().rows.clear();
    world.wait(1000);
    world.place(7, |place| (place.before, place.grant) = (true, None));
    world.check(7, SETUID, 0, 5);
    world.check(7, SETUID, DENIED, 1);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 50);
    let info = told(&keeper, &id(7));
    let setuid = cap(&info, "CAP_SETUID");
    assert_eq!((setuid.used.as_ref().unwrap().count, setuid.refused.unwrap().count), (12, 1));
    assert_eq!(setuid.used.unwrap().first, first);
    assert_eq!((info.gaps, info.restarts, info.start_seen, info.running), (1, 0, true, true));
    assert_eq!(
        info.observed_seconds,
        100 + 40,
        "the time between does not count, nor what is before the first look"
    );
    assert_eq!(setuid.granted.as_deref(), Some("permitted"), "what it was granted is still known");

    // It ends while nobody watches, and is told of.
    keeper.finish();
    drop(keeper);
    world.machine().rows.clear();
    world.machine().places.clear();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    let info = told(&keeper, &id(7));
    assert!(!info.running);
    assert_eq!(cap(&info, "CAP_SETUID").used.unwrap().count, 12);
}

#[test]
fn rows_that_stay_are_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.make(7, &path(7));
    world.check(7, SETUID, 0, 3);
    // Nobody knows yet whose these are.
    world.check(8, SETUID, 0, 6);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    keeper.finish();
    drop(keeper);
    // Nobody reads, and the programs go on counting.
    world.check(7, SETUID, 0, 4);
    world.check(7, SETUID, DENIED, 2);
    world.make(8, &path(8));
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    let info = told(&keeper, &id(7));
    let setuid = cap(&info, "CAP_SETUID");
    assert_eq!((setuid.used.unwrap().count, setuid.refused.unwrap().count), (7, 2));
    assert_eq!(cap(&told(&keeper, &id(8)), "CAP_SETUID").used.unwrap().count, 6);
    assert_eq!(checks_told(&keeper), 15);
}

#[test]
fn a_killed_daemon_loses_what_it_did_not_write_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.make(7, &path(7));
    world.check(7, SETUID, 0, 3);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    // Rows that changed are written each minute.
    world.pass(&mut keeper, 70);
    world.check(7, SETUID, 0, 4);
    drop(keeper);
    world.machine().rows.clear();
    world.check(7, SETUID, 0, 5);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    assert_eq!(checks_told(&keeper), 8);
    assert_eq!(told(&keeper, &id(7)).gaps, 1);
}

#[test]
fn a_container_that_is_started_again_goes_on_if_its_id_is_its_own() {
    let world = World::new();
    world.make(7, &path(7));
    world.place(7, |place| place.before = true);
    world.make(8, "/lxc.payload.web");
    for cgroup in [7, 8] {
        world.check(cgroup, SETUID, 0, 1);
    }
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    assert!(!told(&keeper, &id(7)).start_seen);
    // After the last look, and before the next one there is another container of that name.
    world.check(8, SETUID, 0, 100);
    world.remove(7);
    world.remove(8);
    // Once while it is still known, once when it was put away.
    for (old, new, lxc) in [(7, 17, 18), (17, 27, 28)] {
        world.make(new, &path(7));
        world.make(lxc, "/lxc.payload.web");
        for cgroup in [new, lxc] {
            world.check(cgroup, SETUID, 0, 10);
        }
        world.pass(&mut keeper, 10);
        let info = told(&keeper, &id(7));
        assert!(info.running && info.start_seen, "it is seen from this start on: {old}");
        world.remove(new);
        world.remove(lxc);
        world.pass(&mut keeper, 150);
        world.forget_removed();
        world.pass(&mut keeper, 10);
    }
    let info = told(&keeper, &id(7));
    assert_eq!((info.restarts, cap(&info, "CAP_SETUID").used.unwrap().count), (2, 21));
    let counts: Vec<u64> = keeper
        .listing()
        .containers
        .iter()
        .filter(|info| info.id == "web")
        .map(|info| cap(info, "CAP_SETUID").used.unwrap().count)
        .collect();
    assert_eq!(counts, [10, 10, 101], "a name may be given to another container");
}

#[test]
fn what_another_boot_left_has_its_own_times() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.make(7, &path(7));
    world.make(8, "/lxc.payload.web");
    for cgroup in [7, 8] {
        world.check(cgroup, SETUID, 0, 2);
    }
    let mut keeper = world.keeper(OTHER_BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 10);
    keeper.finish();
    let before = told(&keeper, &id(7));
    drop(keeper);

    // The machine boots anew a day later; ids of cgroups begin again.
    let world = World::new();
    world.machine().offset += 86_400 * SECOND as i64;
    world.make(7, "/system.slice/x.service");
    world.make(30, &path(7));
    world.check(30, SETUID, 0, 3);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut keeper, 20);
    let info = told(&keeper, &id(7));
    let setuid = cap(&info, "CAP_SETUID").used.unwrap();
    assert_eq!((setuid.count, info.running, info.restarts), (5, true, 1));
    assert_eq!((setuid.first, info.since), (cap(&before, "CAP_SETUID").used.unwrap().first, before.since));
    assert!(setuid.last.starts_with("2026-11-27T12:16:40"), "{}", setuid.last);
    let web = told(&keeper, "web");
    assert!(!web.running && web.until.starts_with("2026-11-26T12:16"), "{web:?}");
}

#[test]
fn thousands_of_running_containers_survive_a_restart() {
    const CONTAINERS: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    for number in 1..=CONTAINERS {
        world.make(number, &path(number));
        world.check(number, SETUID, 0, number);
    }
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    keeper.round();
    keeper.finish();
    let before = checks_told(&keeper);
    drop(keeper);
    world.machine().rows.clear();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    keeper.round();
    assert_eq!((checks_told(&keeper), keeper.table().runs().count() as u64), (before, CONTAINERS));
    assert_eq!(keeper.table().shortage().forgotten, 0, "more than are kept of the ended");
}
