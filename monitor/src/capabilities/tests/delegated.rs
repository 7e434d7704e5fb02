//! Containers that others than root on the host may make and name at will: in users' slices and inside other containers.

use super::*;
use crate::capabilities::table::Table;

#[test]
fn users_and_nested_containers_have_a_quarter_of_the_room() {
    let world = World::new();
    let mut keeper = world.keeper(BOOT, None);
    *keeper.table_mut() = Table::bounded(Arc::from(BOOT), 8, 10);
    world.make(7, &path(7));
    for number in 10..20 {
        world.make(number, &format!("{}/docker/{}", path(7), id(number)));
    }
    world.pass(&mut keeper, 10);
    assert_eq!((keeper.table().runs().count(), keeper.table().shortage().refused), (3, 8));
    // The system's still have room, and a nested one gives its place to another one only.
    for number in 20..25 {
        world.make(number, &path(number));
    }
    world.pass(&mut keeper, 10);
    assert_eq!(keeper.table().runs().count(), 8);
    let first = keeper.table().runs().map(|(run, _)| run.cgroup).filter(|id| (10..20).contains(id)).min();
    world.remove(first.unwrap());
    world.pass(&mut keeper, 20);
    let nested = keeper.table().runs().filter(|(run, _)| (10..20).contains(&run.cgroup)).count();
    assert_eq!((nested, keeper.table().archived().count()), (2, 1));
}

/// Whoever may make cgroups in a part of the tree can make and remove as many containers as it likes.
#[test]
fn users_and_nested_containers_push_no_others_out_of_what_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    *keeper.table_mut() = Table::bounded(Arc::from(BOOT), 8, 8);
    let end = |keeper: &mut Keeper, path: &str, number: u64| {
        world.make(number, path);
        world.pass(keeper, 10);
        world.remove(number);
        world.pass(keeper, 10);
        world.forget_removed();
    };
    for number in 1..=4 {
        end(&mut keeper, &path(number), number);
    }
    world.make(7, &path(7));
    for number in 100..120 {
        let user = format!("/user.slice/user-1000.slice/user@1000.service/libpod-{}.scope", id(number));
        let nested = format!("{}/docker-{}.scope", path(7), id(number));
        end(&mut keeper, if number % 2 == 0 { &user } else { &nested }, number);
    }
    world.pass(&mut keeper, 200);
    let remembered = |containers: &[CapsInfo]| {
        let has = |number: &u64| containers.iter().any(|info| info.id == id(*number));
        ((1..=4).filter(has).count(), (100..120).filter(has).count())
    };
    assert_eq!(remembered(&keeper.listing().containers), (4, 2), "a quarter of the room is theirs");
    keeper.finish();
    assert_eq!(remembered(&crate::capabilities::stored(dir.path()).unwrap().0.containers), (4, 2));
    // Where all places are taken theirs go first.
    for number in 201..=207 {
        end(&mut keeper, &path(number), number);
    }
    world.pass(&mut keeper, 200);
    assert_eq!(remembered(&keeper.listing().containers), (1, 0));
    // The next daemon holds to it.
    drop(keeper);
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    keeper.round();
    assert_eq!(remembered(&keeper.listing().containers), (1, 0));
}

#[test]
fn users_and_nested_containers_are_told_as_such_and_last() {
    let world = World::new();
    world.make(1, &path(1));
    world.remove(1);
    // The same id, and a name that is a beginning of it.
    let user = format!("/user.slice/user-1000.slice/user@1000.service/docker-{}.scope", id(1));
    world.make(2, &user);
    world.make(7, &path(7));
    world.make(8, &format!("{}/lxc.payload.000", path(7)));
    world.make(9, &format!("{}/docker-{}.scope", path(7), id(1)));
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    keeper.round();
    keeper.finish();
    for containers in
        [keeper.listing().containers, crate::capabilities::stored(dir.path()).unwrap().0.containers]
    {
        let whose: Vec<_> = containers.iter().map(|info| (info.user, info.inside.len())).collect();
        assert_eq!(whose[..2], [(None, 0), (None, 0)], "{whose:?}");
        assert_eq!(containers.len(), 5);
        let found = crate::capabilities::select(&containers, &id(1));
        assert_eq!((found.len(), found[0].user, found[0].inside.len()), (1, None, 0));
        let inside: Vec<&str> = containers.iter().flat_map(|info| &info.inside).map(String::as_str).collect();
        assert_eq!(inside, [id(7), id(7)]);
    }
}
