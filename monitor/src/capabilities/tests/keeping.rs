//! Counting: by container, through removals, without room, in numbers.

use std::collections::HashMap;

use monitor_common::capability::cap_flag::{CHILD_NS, DENIED, MAYBE_SILENT, SILENT, VISITOR};

use super::*;
use crate::capabilities::table::{RESULTS, Table};
use crate::capabilities::{Capabilities, GRACE_NS};

const NET_RAW: u16 = 13;
const SYS_ADMIN: u16 = 21;
const SYS_TIME: u16 = 25;

#[test]
fn rows_add_up_by_container_and_kinds_stay_apart() {
    let world = World::new();
    world.make(1, "/system.slice/ssh.service");
    world.make(7, &path(7));
    world.make(8, &format!("{}/init.scope", path(7)));
    world.grant(7, 1 << NET_RAW | 1 << SYS_TIME, 1 << NET_RAW | 1 << SYS_TIME | 1);
    for cgroup in [1, 7, 8] {
        for (flags, times) in [
            (0, 2),
            (DENIED, 3),
            (CHILD_NS, 5),
            (CHILD_NS | DENIED, 7),
            (SILENT, 11),
            (SILENT | DENIED, 13),
            (VISITOR, 17),
            (VISITOR | DENIED | SILENT, 19),
            (MAYBE_SILENT, 23),
        ] {
            world.check(cgroup, NET_RAW, flags, times);
        }
    }
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    let info = told(&keeper, &id(7));
    assert_eq!(info.name.as_deref(), Some("name-7"));
    let raw = cap(&info, "CAP_NET_RAW");
    let count = |count: &Option<crate::capabilities::Count>| count.as_ref().map_or(0, |count| count.count);
    let counts = [&raw.used, &raw.refused, &raw.used_in_child, &raw.refused_in_child].map(count);
    assert_eq!(counts, [2 * 25, 6, 10, 14], "two cgroups of one container");
    assert_eq!([&raw.silent_allowed, &raw.silent_denied, &raw.runtime].map(count), [22, 26, 72]);
    let used = raw.used.unwrap();
    assert_eq!((used.perhaps_silent, used.last_call.as_deref()), (46, Some("capset")));
    assert_eq!(raw.granted.as_deref(), Some("permitted"));
    assert_eq!(cap(&info, "CAP_SYS_TIME").used, None, "granted and never used");
    assert_eq!(cap(&info, "CAP_CHOWN").granted.as_deref(), Some("bounding"));
    assert_eq!(keeper.listing().containers.len(), 1, "the host is no container");
    let totals = keeper.table().totals()[usize::from(NET_RAW)];
    assert_eq!((totals.iter().sum::<u64>(), RESULTS.len()), (world.machine().made, 4));
    assert_eq!(totals, [3 * 47, 3 * 10, 3 * 11, 3 * 32]);
}

/// As systemd does: PID 1 begins in the container's directory, moves itself below, and never begins a program there.
#[test]
fn visitors_below_the_first_programs_cgroup_may_be_the_containers_own() {
    let world = World::new();
    world.make(7, &path(7));
    world.make(8, &format!("{}/init.scope", path(7)));
    world.grant(7, 1 << NET_RAW | 1 << SYS_TIME, 1 << NET_RAW | 1 << SYS_TIME);
    world.check(7, NET_RAW, VISITOR, 1);
    for flags in [VISITOR | DENIED, VISITOR | SILENT, VISITOR | CHILD_NS] {
        world.check(8, NET_RAW, flags, 1);
    }
    world.check(8, SYS_TIME, VISITOR, 1);
    // crun begins the first program in a directory that it makes below the container's.
    world.make(17, &path(17));
    world.make(18, &format!("{}/container", path(17)));
    world.check(18, NET_RAW, VISITOR, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = world.keeper(BOOT, Some(state(dir.path())));
    keeper.round();
    world.grant(18, 1 << NET_RAW, 1 << NET_RAW);
    world.check(18, SYS_TIME, VISITOR, 1);
    world.pass(&mut keeper, 10);
    keeper.finish();
    let stored = crate::capabilities::stored(dir.path()).unwrap().0;
    for containers in [keeper.listing().containers, stored.containers] {
        let below = |number: u64, name: &str| {
            let info = containers.iter().find(|info| info.id == id(number)).unwrap();
            cap(info, name).runtime_below
        };
        assert_eq!((below(7, "CAP_NET_RAW"), below(7, "CAP_SYS_TIME")), (false, true));
        assert_eq!((below(17, "CAP_NET_RAW"), below(17, "CAP_SYS_TIME")), (false, false));
    }
    // Of one that ran already it is not known where its first program began.
    world.make(27, &path(27));
    world.make(28, &format!("{}/container", path(27)));
    for cgroup in [27, 28] {
        world.place(cgroup, |place| place.before = true);
    }
    world.check(28, SYS_TIME, VISITOR, 1);
    world.pass(&mut keeper, 10);
    assert!(cap(&told(&keeper, &id(27)), "CAP_SYS_TIME").runtime_below);
}

#[test]
fn a_removed_cgroups_rows_leave_the_map_when_all_was_read() {
    let world = World::new();
    world.make(7, &path(7));
    world.check(7, NET_RAW, 0, 1);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    world.check(7, NET_RAW, 0, 10);
    world.check(7, SYS_TIME, DENIED, 1);
    world.remove(7);
    keeper.round();
    // What its last tasks did counts, though it was seen to be gone.
    world.check(7, NET_RAW, 0, 100);
    world.pass(&mut keeper, GRACE_NS / SECOND - 10);
    assert_eq!(world.machine().rows.len(), 2, "too early");
    world.pass(&mut keeper, 10);
    assert_eq!((world.machine().rows.len(), checks_told(&keeper)), (0, 112));
    // A row that appears again adds up, as long as it is known whose it is.
    world.check(7, NET_RAW, 0, 1000);
    world.pass(&mut keeper, 10);
    assert_eq!(checks_told(&keeper), 1112);
    world.forget_removed();
    world.pass(&mut keeper, 200);
    assert_eq!((world.machine().rows.len(), keeper.table().runs().count()), (0, 0));
    let info = told(&keeper, &id(7));
    assert!(!info.running);
    assert_eq!(cap(&info, "CAP_NET_RAW").used.unwrap().count, 1111);
    assert_eq!(keeper.table().shortage(), Default::default());
}

#[test]
fn a_container_that_lives_between_two_looks_is_counted() {
    let world = World::new();
    let mut keeper = world.keeper(BOOT, None);
    keeper.round();
    world.make(7, &path(7));
    world.grant(7, 1 << NET_RAW, 1 << NET_RAW);
    world.check(7, NET_RAW, 0, 4);
    world.remove(7);
    world.pass(&mut keeper, 10);
    let info = told(&keeper, &id(7));
    assert_eq!((cap(&info, "CAP_NET_RAW").used.unwrap().count, info.running), (4, false));
    assert_eq!((info.observed_seconds, info.start_seen), (0, true), "how long is not known, so not claimed");
}

#[test]
fn a_full_map_is_exact_or_counted_as_lost() {
    let world = World::with_room(3);
    for cgroup in [7, 8] {
        world.make(cgroup, &path(cgroup));
    }
    let mut keeper = world.keeper(BOOT, None);
    world.check(7, NET_RAW, 0, 5);
    world.check(7, SYS_TIME, DENIED, 5);
    world.check(8, NET_RAW, 0, 5);
    world.pass(&mut keeper, 10);
    // No room: neither for an allowed one of one capability, nor for a denied one of another.
    world.check(8, SYS_ADMIN, 0, 2);
    world.check(8, SYS_TIME, DENIED, 3);
    world.check(8, NET_RAW, 0, 1);
    // Began after the loss, and is told with it: nobody knows when in that time it was.
    world.make(9, &path(9));
    world.pass(&mut keeper, 10);
    let uncounted: u64 = keeper.table().uncounted().iter().sum();
    assert_eq!((checks_told(&keeper) + uncounted, uncounted), (world.machine().made, 5));
    for number in [7, 8, 9] {
        let lost = told(&keeper, &id(number)).lost;
        assert_eq!((lost.no_room, lost.capabilities), (5, vec!["CAP_SYS_ADMIN".to_owned()]), "{number}");
    }
    // Who comes later lost nothing.
    world.wait(1);
    world.make(10, &path(10));
    world.grant(10, 0, 0);
    world.pass(&mut keeper, 10);
    assert_eq!(told(&keeper, &id(10)).lost.no_room, 0);
    // When a cgroup goes there is room again.
    world.remove(7);
    world.pass(&mut keeper, 60);
    world.check(8, SYS_ADMIN, 0, 2);
    world.pass(&mut keeper, 10);
    assert_eq!(cap(&told(&keeper, &id(8)), "CAP_SYS_ADMIN").used.unwrap().count, 2);
    assert_eq!(told(&keeper, &id(8)).lost.no_room, 5);
}

#[test]
fn churn_leaves_no_row_behind_and_forgets_by_number() {
    let world = World::with_room(4000);
    let mut keeper = world.keeper(BOOT, None);
    let table = Table::bounded(Arc::from(BOOT), 100_000, 100);
    *keeper.table_mut() = table;
    const WAVES: u64 = 60;
    for wave in 0..WAVES {
        for number in 0..20 {
            let cgroup = 1000 + wave * 20 + number;
            world.make(cgroup, &path(cgroup));
            for cap in 0..30 {
                world.check(cgroup, cap, (cap & 1) * DENIED, 3);
            }
            world.remove(cgroup);
        }
        world.pass(&mut keeper, 10);
        // The pipeline remembers for a minute.
        let first = 1000 + (wave + 1).saturating_sub(6) * 20;
        world.machine().places.retain(|place| place.id.0 >= first);
    }
    world.machine().places.clear();
    world.pass(&mut keeper, 200);
    let uncounted: u64 = keeper.table().uncounted().iter().sum();
    let totals: u64 = keeper.table().totals().iter().flatten().sum();
    let shortage = keeper.table().shortage();
    assert_eq!(world.machine().rows.len(), 0);
    assert_eq!((totals + uncounted, uncounted), (world.machine().made, 0));
    assert_eq!((keeper.table().archived().count() as u64, shortage.forgotten), (100, WAVES * 20 - 100));
    assert_eq!(checks_told(&keeper), 100 * 30 * 3);
    assert_eq!((shortage.refused, shortage.unattributed), (0, 0));
}

#[test]
fn ten_thousand_cgroups_are_exact() {
    const CONTAINERS: u64 = 10_000;
    let world = World::new();
    let mut keeper = world.keeper(BOOT, None);
    for number in 1..=CONTAINERS {
        world.make(number, &path(number));
        for cap in 0..6 {
            world.check(number, cap, 0, number);
        }
    }
    world.pass(&mut keeper, 10);
    for number in 1..=CONTAINERS {
        world.check(number, 0, 0, 1);
    }
    world.pass(&mut keeper, 10);
    assert_eq!(checks_told(&keeper), world.machine().made);
    assert_eq!(
        (keeper.table().row_count() as u64, keeper.table().runs().count() as u64),
        (60_000, CONTAINERS)
    );
    for number in [1, 5000, CONTAINERS] {
        let used = keeper.table().runs().find(|(run, _)| run.cgroup == number).map(|(run, _)| run.checks());
        assert_eq!(used, Some(6 * number + 1));
    }
    for number in 1..=CONTAINERS {
        world.machine().places[number as usize - 1].removed = true;
    }
    world.pass(&mut keeper, 200);
    assert_eq!(world.machine().rows.len(), 0);
    let shortage = keeper.table().shortage();
    assert_eq!(shortage.forgotten + keeper.table().archived().count() as u64, CONTAINERS);
}

#[test]
fn too_many_containers_are_counted_and_the_ended_make_room() {
    let world = World::new();
    let mut keeper = world.keeper(BOOT, None);
    *keeper.table_mut() = Table::bounded(Arc::from(BOOT), 2, 10);
    for number in [1, 2] {
        world.make(number, &path(number));
    }
    world.pass(&mut keeper, 10);
    world.make(3, &path(3));
    world.check(3, NET_RAW, 0, 4);
    world.pass(&mut keeper, 10);
    assert_eq!((keeper.table().shortage().refused, checks_told(&keeper)), (1, 0));
    world.remove(1);
    world.pass(&mut keeper, 20);
    assert_eq!(
        cap(&told(&keeper, &id(3)), "CAP_NET_RAW").used.unwrap().count,
        4,
        "it was not lost meanwhile"
    );
    assert!(!told(&keeper, &id(1)).running);
}

#[test]
fn a_directory_whose_end_nobody_told_is_found_to_be_gone() {
    let world = World::new();
    world.make(7, &path(7));
    world.check(7, NET_RAW, 0, 1);
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 10);
    world.machine().lost.insert(7);
    world.pass(&mut keeper, 200);
    assert!(!told(&keeper, &id(7)).running);
    assert_eq!((world.machine().rows.len(), checks_told(&keeper)), (0, 1));
}

/// In a cgroup namespace of its own a daemon sees a part of the tree only.
#[test]
fn a_walk_without_the_root_says_of_nothing_that_it_is_gone() {
    let world = World::new();
    world.machine().lost.insert(1);
    world.make(7, &path(7));
    for cgroup in [7, 50] {
        world.check(cgroup, NET_RAW, 0, 2);
    }
    let mut keeper = world.keeper(BOOT, None);
    world.machine().lost.insert(7);
    world.pass(&mut keeper, 200);
    assert_eq!((world.machine().rows.len(), keeper.table().shortage().unattributed), (2, 0));
    assert!(told(&keeper, &id(7)).running);
}

#[test]
fn who_nobody_can_name_is_counted_only_when_gone() {
    let world = World::new();
    world.machine().directories.insert(50);
    for cgroup in [0, 50, 51] {
        world.check(cgroup, NET_RAW, 0, 2);
    }
    let mut keeper = world.keeper(BOOT, None);
    world.pass(&mut keeper, 120);
    assert_eq!((world.machine().rows.len(), keeper.table().shortage().unattributed), (2, 2));
    // It is told at last whose it is.
    world.make(50, &path(5));
    world.pass(&mut keeper, 10);
    assert_eq!(checks_told(&keeper), 2);
}

#[test]
fn a_refusal_by_kernel_or_pipeline_loses_nothing() {
    let world = World::new();
    world.make(7, &path(7));
    let mut keeper = world.keeper(BOOT, None);
    keeper.round();
    world.machine().kernel_refuses = true;
    world.check(7, NET_RAW, 0, 3);
    world.pass(&mut keeper, 30);
    assert_eq!(checks_told(&keeper), 0);
    world.machine().kernel_refuses = false;
    world.machine().pipeline_is_busy = true;
    world.pass(&mut keeper, 30);
    assert_eq!(checks_told(&keeper), 3);
}

#[test]
fn rows_that_somebody_else_removes_are_not_counted_twice() {
    let world = World::new();
    world.make(7, &path(7));
    let mut keeper = world.keeper(BOOT, None);
    world.check(7, NET_RAW, 0, 9);
    world.pass(&mut keeper, 10);
    world.machine().rows.clear();
    world.check(7, NET_RAW, 0, 4);
    world.pass(&mut keeper, 10);
    assert_eq!(checks_told(&keeper), 13);
}

#[test]
fn sets_of_who_ran_before_come_from_proc() {
    let world = World::new();
    world.make(7, &path(7));
    world.place(7, |place| place.before = true);
    let sets = Sets { permitted: 1 << NET_RAW, bounding: 1 << NET_RAW, ambient: 0 };
    let mut keeper = world.keeper_with(BOOT, None, HashMap::from([(7, sets)]), 0);
    world.pass(&mut keeper, 10);
    let info = told(&keeper, &id(7));
    assert!(!info.start_seen);
    assert_eq!(info.granted.as_ref().unwrap().from, "proc");
    assert_eq!(cap(&info, "CAP_NET_RAW").granted.as_deref(), Some("permitted"));
    world.grant(7, 1 << SYS_TIME, 1 << SYS_TIME);
    world.pass(&mut keeper, 10);
    let granted = told(&keeper, &id(7)).granted.unwrap();
    assert_eq!((granted.from.as_str(), granted.permitted.len()), ("exec", 2), "a union");
}

#[test]
fn times_follow_the_wall_clock_and_observation_does_not() {
    let world = World::new();
    world.make(7, &path(7));
    let mut keeper = world.keeper(BOOT, None);
    world.check(7, NET_RAW, 0, 1);
    keeper.round();
    world.pass(&mut keeper, 100);
    let before = told(&keeper, &id(7));
    assert_eq!((before.observed_seconds, before.since.as_str()), (100, "2026-11-26T12:16:40.000000000Z"));
    // The wall clock is set back an hour, and the machine sleeps for a day.
    world.machine().offset -= 3600 * SECOND as i64;
    world.machine().now.boot += 86_400 * SECOND;
    world.pass(&mut keeper, 20);
    let after = told(&keeper, &id(7));
    assert_eq!((after.observed_seconds, after.since.as_str()), (120, "2026-11-26T11:16:40.000000000Z"));
    assert_eq!(cap(&after, "CAP_NET_RAW").used.unwrap().first, after.since);
    // A clock that is set before 1970 is no reason to panic.
    world.machine().offset = i64::MIN;
    assert_eq!(told(&keeper, &id(7)).since, "1970-01-01T00:00:00.000000000Z");
}

#[test]
fn series_of_unused_capabilities_are_bounded() {
    let world = World::new();
    for number in [1, 2, 3] {
        world.make(number, &path(number));
        world.grant(number, 1 << NET_RAW | 1 << SYS_TIME, 1 << NET_RAW | 1 << SYS_TIME);
    }
    world.check(1, NET_RAW, 0, 1);
    world.check(2, NET_RAW, DENIED, 1);
    let mut keeper = world.keeper_with(BOOT, None, HashMap::new(), 4);
    world.pass(&mut keeper, 10);
    let metrics = crate::enrich::names::tests::metrics();
    metrics.add_source(keeper.metrics().clone()).unwrap();
    let text = metrics.encode().unwrap();
    let series: Vec<&str> =
        text.lines().filter(|line| line.starts_with("ringfence_capability_unused_info")).collect();
    assert_eq!(series.len(), 4, "{series:?}");
    assert!(text.contains("\nringfence_capability_unused_series_dropped 1\n"), "{text}");
    let first = format!(
        "ringfence_capability_unused_info{{container_id=\"{}\",container_name=\"name-1\",capability=\"CAP_SYS_TIME\"}} 1",
        id(1)
    );
    assert!(series.contains(&first.as_str()), "{series:?}");
    for line in [
        "ringfence_capability_checks_total{capability=\"CAP_NET_RAW\",result=\"denied\"} 1",
        "ringfence_capability_ledger 1",
        "ringfence_capability_rows 2",
        "ringfence_capability_containers{state=\"running\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_thread_answers_and_ends() {
    let world = World::new();
    world.make(7, &path(7));
    world.check(7, NET_RAW, 0, 1);
    let dir = tempfile::tempdir().unwrap();
    let (machine, at) = (world.clone(), dir.path().to_owned());
    let capabilities =
        Capabilities::start(move || machine.keeper(BOOT, Some(State::open(&at).unwrap()))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listing = capabilities.ask().await.unwrap();
        assert_eq!(listing.containers.len(), 1);
        let other = capabilities.clone();
        capabilities.finish().await;
        assert_eq!(other.ask().await.unwrap_err(), crate::capabilities::AskError::Gone);
    });
    let (listing, refused) = crate::capabilities::stored(dir.path()).unwrap();
    assert_eq!((listing.containers.len(), refused.len()), (1, 0));
}
