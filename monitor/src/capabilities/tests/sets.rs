//! Sets of system calls: by container, through removals and restarts, and what could not be noted.

use std::sync::{Arc, Mutex};

use monitor_common::syscall_set::{SyscallSet, TABLE_64, seen};

use super::*;
use crate::capabilities::calls::tests::set;
use crate::capabilities::{CallsInfo, GRACE_NS, SetSource};

/// A kernel that notes calls.
#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<(HashMap<u64, SyscallSet>, u64)>>, bool);

impl Kernel {
    fn calls(&self, cgroup: u64, numbers: &[usize]) {
        let calls: Vec<_> = numbers.iter().map(|nr| (TABLE_64, *nr, seen::OWN)).collect();
        self.0.lock().unwrap().0.insert(cgroup, set(&calls, 5));
    }

    fn cgroups(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.0.lock().unwrap().0.keys().copied().collect();
        all.sort();
        all
    }
}

impl SetSource for Kernel {
    fn sets(&mut self) -> Result<Vec<(u64, SyscallSet)>, SourceError> {
        Ok(self.0.lock().unwrap().0.iter().map(|(cgroup, set)| (*cgroup, *set)).collect())
    }

    fn remove(&mut self, cgroups: &[u64]) -> Result<(), SourceError> {
        self.0.lock().unwrap().0.retain(|cgroup, _| !cgroups.contains(cgroup));
        Ok(())
    }

    fn lost(&mut self) -> Result<u64, SourceError> {
        Ok(self.0.lock().unwrap().1)
    }

    fn sees_refusals(&self) -> bool {
        !self.1
    }
}

fn keeper(world: &World, kernel: &Kernel, state: Option<State>) -> Keeper {
    world.keeper(BOOT, state).with_sets(Some(Box::new(kernel.clone())))
}

fn calls(keeper: &Keeper, number: u64) -> CallsInfo {
    told(keeper, &id(number)).calls.expect("calls are noted")
}

#[test]
fn that_refused_calls_could_not_be_seen_stays_with_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let (world, seeing) = (World::new(), Kernel::default());
    let blind = Kernel(Arc::clone(&seeing.0), true);
    world.make(7, &path(7));
    let mut first = keeper(&world, &blind, Some(state(dir.path())));
    first.round();
    assert!(calls(&first, 7).refusals_unseen);
    first.finish();
    drop(first);
    let mut second = keeper(&world, &seeing, Some(state(dir.path())));
    world.make(8, &path(8));
    second.round();
    assert_eq!((calls(&second, 7).refusals_unseen, calls(&second, 8).refusals_unseen), (true, false));
}

#[test]
fn sets_add_up_by_container_and_leave_the_map_with_the_cgroup() {
    let (world, kernel) = (World::new(), Kernel::default());
    let mut keeper = keeper(&world, &kernel, None);
    keeper.round();
    world.make(1, "/system.slice/ssh.service");
    world.make(7, &path(7));
    world.make(8, &format!("{}/init.scope", path(7)));
    kernel.calls(1, &[3]);
    kernel.calls(7, &[0, 1]);
    kernel.calls(8, &[2]);
    world.pass(&mut keeper, 20);
    assert_eq!(calls(&keeper, 7).x86_64.called, ["read", "write", "open"], "two cgroups of one container");
    assert_eq!((calls(&keeper, 7).observed_seconds, calls(&keeper, 7).start_seen), (10, true));
    world.remove(7);
    world.remove(8);
    keeper.round();
    kernel.calls(7, &[0, 1, 83]);
    world.pass(&mut keeper, GRACE_NS / SECOND - 10);
    assert_eq!(kernel.cgroups(), [1, 7, 8], "too early");
    world.pass(&mut keeper, 10);
    assert_eq!(kernel.cgroups(), [1], "the host's stay with it");
    world.forget_removed();
    world.pass(&mut keeper, 200);
    assert_eq!(calls(&keeper, 7).x86_64.called, ["read", "write", "open", "mkdir"]);
}

#[test]
fn a_container_that_ran_already_has_no_start() {
    let (world, kernel) = (World::new(), Kernel::default());
    world.make(7, &path(7));
    world.place(7, |place| place.before = true);
    let mut keeper = keeper(&world, &kernel, None);
    kernel.calls(7, &[0]);
    world.pass(&mut keeper, 20);
    // A directory of its own below it is no start.
    world.make(8, &format!("{}/init.scope", path(7)));
    kernel.calls(8, &[1]);
    world.pass(&mut keeper, 10);
    assert_eq!((calls(&keeper, 7).start_seen, calls(&keeper, 7).observed_seconds), (false, 20));
}

#[test]
fn sets_go_through_a_restart_and_the_time_without_them_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (world, kernel) = (World::new(), Kernel::default());
    let mut first = keeper(&world, &kernel, Some(state(dir.path())));
    first.round();
    world.make(7, &path(7));
    kernel.calls(7, &[0, 83]);
    world.pass(&mut first, 30);
    first.finish();
    drop(first);
    world.place(7, |place| place.before = true);
    // One without the setting keeps what there is.
    let mut without = world.keeper(BOOT, Some(state(dir.path())));
    world.pass(&mut without, 100);
    without.finish();
    drop(without);
    let other = Kernel::default();
    other.calls(7, &[1]);
    let mut third = keeper(&world, &other, Some(state(dir.path())));
    world.pass(&mut third, 20);
    let calls = calls(&third, 7);
    assert_eq!(calls.x86_64.called, ["read", "write", "mkdir"]);
    assert_eq!((calls.observed_seconds, calls.start_seen), (30, true));
}

#[test]
fn what_could_not_be_noted_counts_against_whoever_ran() {
    let (world, kernel) = (World::new(), Kernel::default());
    let mut keeper = keeper(&world, &kernel, None);
    world.make(7, &path(7));
    world.pass(&mut keeper, 10);
    kernel.0.lock().unwrap().1 = 3;
    world.pass(&mut keeper, 20);
    world.wait(1);
    world.make(8, &path(8));
    world.grant(8, 0, 0);
    world.pass(&mut keeper, 10);
    assert_eq!((calls(&keeper, 7).lost, calls(&keeper, 8).lost), (3, 0));
    assert_eq!(keeper.table().sets_noted(), (0, 3));
}

#[test]
fn a_loss_while_the_pipeline_is_busy_reaches_who_began_meanwhile() {
    let (world, kernel) = (World::new(), Kernel::default());
    let mut keeper = keeper(&world, &kernel, None);
    keeper.round();
    world.machine().pipeline_is_busy = true;
    world.make(7, &path(7));
    kernel.0.lock().unwrap().1 = 3;
    world.pass(&mut keeper, 20);
    world.machine().pipeline_is_busy = false;
    world.pass(&mut keeper, 10);
    assert_eq!(calls(&keeper, 7).lost, 3);
}

#[test]
fn what_could_not_be_noted_reaches_whose_beginning_is_learnt_later() {
    let (world, kernel) = (World::new(), Kernel::default());
    let mut keeper = keeper(&world, &kernel, None);
    world.make(7, &path(7));
    world.grant(7, 0, 0);
    world.pass(&mut keeper, 10);
    world.remove(7);
    world.pass(&mut keeper, 20);
    // Both have begun, one of them again, and their records are on their way.
    let first = world.machine().now.boot;
    world.wait(1);
    kernel.0.lock().unwrap().1 = 3;
    keeper.round();
    for (cgroup, container) in [(17, 7), (8, 8)] {
        world.make(cgroup, &path(container));
        world.grant(cgroup, 0, 0);
        world.place(cgroup, |place| place.grant.as_mut().unwrap().first.0 = first);
    }
    world.pass(&mut keeper, 20);
    assert_eq!((calls(&keeper, 7).lost, calls(&keeper, 8).lost), (3, 3));
}

#[test]
fn without_the_setting_nothing_is_told() {
    let world = World::new();
    let mut keeper = world.keeper(BOOT, None);
    world.make(7, &path(7));
    world.pass(&mut keeper, 10);
    assert_eq!(told(&keeper, &id(7)).calls, None);
}
