//! Who is told of what was lost: everybody whose it may be, however late the pipeline learns of them, and nobody twice.

use super::*;

const NET_RAW: u16 = 13;

/// A container is told of, whose first program began then.
fn make_since(world: &World, cgroup: u64, container: u64, first: u64) {
    world.make(cgroup, &path(container));
    world.grant(cgroup, 0, 0);
    world.place(cgroup, |place| place.grant.as_mut().unwrap().first.0 = first);
}

fn lost(keeper: &Keeper, number: u64) -> u64 {
    told(keeper, &id(number)).lost.no_room
}

/// A map without room, and a keeper that has looked once.
fn full() -> (World, Keeper) {
    let world = World::with_room(0);
    let mut keeper = world.keeper(BOOT, None);
    keeper.round();
    (world, keeper)
}

#[test]
fn a_loss_while_the_pipeline_is_busy_reaches_who_began_meanwhile() {
    let (world, mut keeper) = full();
    world.machine().pipeline_is_busy = true;
    world.make(7, &path(7));
    world.check(7, NET_RAW, 0, 1);
    world.pass(&mut keeper, 20);
    world.machine().pipeline_is_busy = false;
    world.pass(&mut keeper, 10);
    assert_eq!(lost(&keeper, 7), 1);
}

#[test]
fn a_loss_reaches_who_is_met_only_later() {
    let (world, mut keeper) = full();
    let first = world.machine().now.boot;
    world.check(7, NET_RAW, 0, 2);
    world.pass(&mut keeper, 10);
    // The records of its beginning were still on their way.
    make_since(&world, 7, 7, first);
    world.wait(1);
    let later = world.machine().now.boot;
    make_since(&world, 8, 8, later);
    world.pass(&mut keeper, 10);
    assert_eq!((lost(&keeper, 7), lost(&keeper, 8)), (2, 0));
}

#[test]
fn a_loss_reaches_who_began_while_it_was_read() {
    let (world, mut keeper) = full();
    world.wait(10);
    let begun = world.machine().now.boot;
    world.machine().slow = 5;
    world.check(7, NET_RAW, 0, 2);
    keeper.round();
    // After the places were asked for, and before the loss was read.
    make_since(&world, 7, 7, begun + 2 * SECOND);
    make_since(&world, 8, 8, begun + 6 * SECOND);
    world.pass(&mut keeper, 10);
    assert_eq!((lost(&keeper, 7), lost(&keeper, 8)), (2, 0));
}

#[test]
fn a_loss_reaches_who_began_again_and_none_twice() {
    let (world, mut keeper) = full();
    let first = world.machine().now.boot;
    make_since(&world, 7, 7, first);
    world.pass(&mut keeper, 10);
    world.check(7, NET_RAW, 0, 1);
    world.pass(&mut keeper, 10);
    assert_eq!(lost(&keeper, 7), 1);
    let mut expected = 1;
    // Once while it is still known, once when it was put away.
    for (old, new, rest) in [(7, 17, 20), (17, 27, 300)] {
        world.remove(old);
        world.pass(&mut keeper, rest);
        world.forget_removed();
        // Nobody has told yet that it runs.
        world.check(7, NET_RAW, 0, 100);
        world.pass(&mut keeper, 10);
        let first = world.machine().now.boot + 1;
        world.wait(1);
        world.check(7, NET_RAW, 0, 10);
        world.pass(&mut keeper, 10);
        assert_eq!(lost(&keeper, 7), expected, "it had ended");
        make_since(&world, new, 7, first);
        world.pass(&mut keeper, 20);
        expected += 10;
        assert_eq!(lost(&keeper, 7), expected, "{new}");
    }
    assert_eq!(told(&keeper, &id(7)).restarts, 2);
}

#[test]
fn who_went_on_under_a_new_daemon_is_told_what_that_lost() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::with_room(0);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.make(7, &path(7));
    world.pass(&mut keeper, 10);
    keeper.finish();
    drop(keeper);
    let places = std::mem::take(&mut world.machine().places);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    world.check(7, NET_RAW, 0, 1);
    world.pass(&mut keeper, 10);
    world.machine().places = places;
    world.place(7, |place| place.before = true);
    world.pass(&mut keeper, 20);
    assert_eq!(lost(&keeper, 7), 1);
}

#[test]
fn until_its_beginning_is_known_a_container_is_told_of_everything() {
    let (world, mut keeper) = full();
    world.check(5, NET_RAW, 0, 4);
    world.pass(&mut keeper, 10);
    world.wait(1);
    // One whose first program begins later than it is met, one of whose first program nothing is ever told.
    world.make(7, &path(7));
    world.make(8, &path(8));
    keeper.round();
    assert_eq!((lost(&keeper, 7), lost(&keeper, 8)), (4, 4));
    world.check(5, NET_RAW, 0, 2);
    world.pass(&mut keeper, 10);
    assert_eq!((lost(&keeper, 7), lost(&keeper, 8)), (6, 6));
    world.grant(7, 0, 0);
    world.pass(&mut keeper, 20);
    assert_eq!((lost(&keeper, 7), lost(&keeper, 8)), (2, 6), "the last loss was read as it began");
}

#[test]
fn a_failed_look_leaves_nobody_out_who_ended_meanwhile() {
    let (world, mut keeper) = full();
    world.make(7, &path(7));
    world.pass(&mut keeper, 10);
    world.check(7, NET_RAW, 0, 3);
    world.remove(7);
    world.machine().counters_refused = true;
    world.pass(&mut keeper, 30);
    world.machine().counters_refused = false;
    world.pass(&mut keeper, 10);
    assert_eq!(lost(&keeper, 7), 3);
}

#[test]
fn no_loss_is_forgotten_for_newer_ones() {
    let (world, mut keeper) = full();
    let first = world.machine().now.boot;
    for _ in 0..100 {
        world.check(7, NET_RAW, 0, 1);
        world.pass(&mut keeper, 10);
    }
    make_since(&world, 7, 7, first);
    world.pass(&mut keeper, 10);
    assert_eq!(lost(&keeper, 7), 100);
}

#[test]
fn skipped_runs_of_the_probe_are_told_and_nothing_is_called_unused_then() {
    let world = World::new();
    world.make(7, &path(7));
    world.grant(7, 1 << NET_RAW, 1 << NET_RAW);
    let mut keeper = world.keeper_with(BOOT, None, HashMap::new(), 4);
    let series = |keeper: &Keeper| {
        let metrics = crate::enrich::names::tests::metrics();
        metrics.add_source(keeper.metrics().clone()).unwrap();
        let text = metrics.encode().unwrap();
        text.lines().filter(|line| line.starts_with("ringfence_capability_unused_info")).count()
    };
    keeper.round();
    assert_eq!((series(&keeper), told(&keeper, &id(7)).summary().unused), (1, Some(1)));
    world.machine().skipped = 3;
    world.pass(&mut keeper, 20);
    let info = told(&keeper, &id(7));
    assert_eq!((info.lost.skipped, series(&keeper), info.summary().unused), (3, 0, Some(0)));
}
