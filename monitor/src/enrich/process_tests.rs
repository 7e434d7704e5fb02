//! The process table: life cycles, pid reuse, the starting phase, bounds.

use monitor_common::ids::Tid;

use super::*;
use crate::hierarchy::HierarchyChoice;

const HOST: NsInum = NsInum(100);
const INNER: NsInum = NsInum(200);

fn key(tgid: u32, start: u64) -> ProcessKey {
    ProcessKey { tgid: Tgid(tgid), start: BootNs(start) }
}

fn task(process: ProcessKey, parent: ProcessKey) -> RawTask {
    RawTask {
        process,
        parent,
        tid: Tid(process.tgid.0),
        comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0",
        ..RawTask::default()
    }
}

fn exec(process: ProcessKey, parent: ProcessKey, file: NsInum, own: NsInum) -> RawExec<'static> {
    RawExec {
        task: task(process, parent),
        exe_ino: 5,
        exe_dev: 6,
        exe_mnt_ns: file,
        ns: [own; 8],
        components: b"sh\0bin\0",
        ..RawExec::default()
    }
}

#[test]
fn a_child_runs_what_its_parent_runs_until_it_execs() {
    let mut table = Processes::new(10, HOST);
    let (parent, child) = (key(1, 11), key(2, 22));
    table.execed(&exec(parent, key(0, 0), HOST, HOST));
    table.forked(&task(child, parent), parent, false);
    assert_eq!(&*table.get(child).unwrap().program.exe, "/bin/sh");
    assert_eq!(table.ancestor(child, 1).unwrap().key, parent);
    assert!(table.ancestor(child, 2).is_none());
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut table = Processes::new(10, HOST);
    table.forked(&task(key(5, TICK_NS + 1), key(1, 1)), key(1, 1), false);
    assert!(table.get(key(5, 2 * TICK_NS + 1)).is_none());
    // Seeded from /proc: known to the tick.
    table.forked(&task(key(6, 3 * TICK_NS), key(1, 1)), key(1, 1), false);
    assert!(table.get(key(6, 3 * TICK_NS + 17)).is_some());
    assert!(table.get(key(6, 4 * TICK_NS + 17)).is_none());
}

#[test]
fn the_starting_phase_ends_with_a_program_of_the_container() {
    let mut table = Processes::new(10, HOST);
    let (init, child) = (key(7, 71), key(8, 81));
    table.execed(&exec(init, key(1, 1), HOST, HOST));
    assert!(!table.get(init).unwrap().starting);
    table.attached(init, CgroupId(9), true, BootNs(1));
    table.forked(&task(child, init), init, false);
    assert!(table.get(child).unwrap().starting, "children of the runtime's helper");
    table.execed(&exec(child, init, NsInum(0), HOST));
    assert!(table.get(child).unwrap().starting, "a sealed copy in memory is the runtime's own");
    table.execed(&exec(child, init, HOST, INNER));
    assert!(!table.get(child).unwrap().starting, "an entrypoint that points back at the runtime");
    // From here on nothing that happens inside makes it starting again.
    table.execed(&exec(child, init, HOST, INNER));
    assert!(!table.get(child).unwrap().starting);
}

#[test]
fn a_runtime_may_have_a_mount_namespace_of_its_own() {
    const RUNTIMES: NsInum = NsInum(4_026_532_400);
    let mut table = Processes::new(10, HOST);
    let (runtime, init) = (key(7, 71), key(8, 81));
    table.execed(&exec(runtime, key(1, 1), RUNTIMES, RUNTIMES));
    table.forked(&task(init, runtime), runtime, true);
    table.execed(&exec(init, runtime, NsInum(0), RUNTIMES));
    assert!(table.get(init).unwrap().starting, "a sealed copy, not inside yet");
    table.execed(&exec(init, runtime, NsInum(0), INNER));
    assert!(!table.get(init).unwrap().starting);
}

#[test]
fn of_an_unknown_maker_only_the_containers_own_file_counts() {
    let mut table = Processes::new(10, HOST);
    let init = key(8, 81);
    table.forked(&task(init, key(1, 1)), key(1, 1), true);
    table.execed(&exec(init, key(1, 1), NsInum(0), INNER));
    assert!(table.get(init).unwrap().starting);
}

#[test]
fn the_table_is_bounded_and_dead_ones_go_first() {
    let mut table = Processes::new(3, HOST);
    for pid in 1..=3 {
        table.forked(&task(key(pid, u64::from(pid)), key(0, 0)), key(0, 0), false);
    }
    table.exited(key(2, 2), BootNs(5));
    table.forked(&task(key(4, 4), key(0, 0)), key(0, 0), false);
    assert_eq!((table.len(), table.evicted), (3, 0));
    assert!(table.get(key(2, 2)).is_none() && table.get(key(1, 1)).is_some());
    table.forked(&task(key(5, 5), key(0, 0)), key(0, 0), false);
    assert_eq!((table.len(), table.evicted), (3, 1));
}

#[test]
fn dead_processes_are_remembered_for_a_minute() {
    let mut table = Processes::new(10, HOST);
    let (a, b) = (key(1, 1), key(2, 2));
    table.forked(&task(a, key(0, 0)), key(0, 0), false);
    table.forked(&task(b, a), a, false);
    table.exited(a, BootNs(10));
    assert!(table.ancestor(b, 1).is_some());
    table.exited(b, BootNs(10 + KEEP_DEAD_NS));
    assert!(table.get(a).is_none() && table.get(b).is_some());
}

#[test]
fn a_thread_that_execs_takes_the_place_of_its_dead_leader() {
    let mut table = Processes::new(10, HOST);
    let process = key(1, 1);
    table.forked(&task(process, key(0, 0)), key(0, 0), false);
    table.exited(process, BootNs(10));
    table.execed(&exec(process, key(0, 0), HOST, HOST));
    table.exited(key(9, 9), BootNs(10 + KEEP_DEAD_NS));
    assert!(table.get(process).is_some(), "it exec'ed after its leader's end");
    table.exited(process, BootNs(11 + KEEP_DEAD_NS));
    table.exited(key(9, 9), BootNs(11 + 2 * KEEP_DEAD_NS));
    assert!(table.get(process).is_none());
}

#[test]
fn the_queue_of_dead_ones_is_bounded_when_ids_are_reused() {
    let mut table = Processes::new(3, HOST);
    for start in (1..=100).map(|tick| tick * TICK_NS) {
        table.forked(&task(key(7, start), key(0, 0)), key(0, 0), false);
        table.exited(key(7, start), BootNs(start));
    }
    assert!(table.dead.len() <= 3, "{}", table.dead.len());
    assert_eq!((table.len(), table.evicted), (3, 0));
    assert!(table.get(key(7, 100 * TICK_NS)).is_some(), "the last one is still remembered");
}

#[test]
fn seeding_finds_this_process_and_its_cgroup() {
    let hierarchy = Hierarchy::find(HierarchyChoice::Auto).unwrap();
    let mut table = Processes::new(1 << 20, HOST);
    table.seed(hierarchy.as_ref());
    let own = table.table.values().find(|process| process.key.tgid.0 == std::process::id()).unwrap();
    let meta = fs::metadata(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(own.program.exe_ino, std::os::unix::fs::MetadataExt::ino(&meta));
    assert_eq!(&*own.program.arguments.as_ref().unwrap().first, &*std::env::args().next().unwrap());
    let cgroup = hierarchy.and_then(|hierarchy| hierarchy.directory_of(std::process::id())).unwrap_or(0);
    assert_eq!(own.cgroup, CgroupId(cgroup));
}

#[test]
fn an_ancestor_whose_id_is_reused_stays_who_it_was() {
    let at = |tgid, tick: u64| key(tgid, tick * TICK_NS + 3);
    let mut table = Processes::new(100, HOST);
    let (shell, child) = (at(50, 1), at(60, 2));
    table.execed(&exec(shell, key(0, 0), HOST, HOST));
    table.forked(&task(child, shell), shell, false);
    table.exited(shell, BootNs(3 * TICK_NS));
    // Somebody else gets the dead shell's number, and makes a child of its own.
    let (other, others) = (at(50, 4), at(61, 5));
    let dd = RawExec { components: b"dd\0bin\0", ..exec(other, key(0, 0), HOST, HOST) };
    table.execed(&dd);
    table.forked(&task(others, other), other, false);
    assert_eq!(&*table.ancestor(child, 1).unwrap().program.exe, "/bin/sh");
    assert_eq!(&*table.ancestor(others, 1).unwrap().program.exe, "/bin/dd");
    // When the shell is forgotten, the child's parent is nobody, and not the other.
    table.exited(key(9, 9), BootNs(3 * TICK_NS + KEEP_DEAD_NS));
    assert!(table.ancestor(child, 1).is_none());
    assert_eq!(table.lineage(child).len(), 1);
    assert_eq!(&*table.ancestor(others, 1).unwrap().program.exe, "/bin/dd");
}

#[test]
fn churn_with_few_ids_never_gives_a_wrong_parent() {
    // 50,000 processes share 100 numbers; each is made by the last one but two and lives until the next but five.
    const NUMBERS: u64 = 100;
    let at = |n: u64| key(1000 + (n % NUMBERS) as u32, (n + 1) * TICK_NS + n % 7);
    let mut table = Processes::new(1024, HOST);
    for n in 0..50_000u64 {
        let parent = if n < 3 { key(1, 1) } else { at(n - 3) };
        table.forked(&task(at(n), parent), parent, false);
        if n >= 5 {
            table.exited(at(n - 5), BootNs((n + 1) * TICK_NS));
        }
        for (generation, process) in table.lineage(at(n)).iter().enumerate() {
            assert_eq!(process.key, at(n - 3 * generation as u64), "ancestor {generation} of {n}");
        }
    }
    assert!(table.len() <= 1024 && table.evicted == 0, "{} {}", table.len(), table.evicted);
}

#[test]
fn who_remembers_a_process_keeps_it_as_it_was() {
    let mut table = Processes::new(10, HOST);
    let (parent, child) = (key(1, 11), key(2, 22));
    table.execed(&exec(parent, key(0, 0), HOST, HOST));
    table.forked(&task(child, parent), parent, false);
    let remembered = table.lineage(child);
    assert_eq!(remembered.iter().map(|process| process.key).collect::<Vec<_>>(), [child, parent]);
    assert!(Arc::ptr_eq(&remembered[0].program, &remembered[1].program), "a fork shares");
    table.execed(&RawExec { components: b"dd\0bin\0", ..exec(child, parent, HOST, HOST) });
    table.attached(parent, CgroupId(9), false, BootNs(1));
    table.exited(parent, BootNs(5));
    assert_eq!((&*remembered[0].program.exe, remembered[1].cgroup), ("/bin/sh", CgroupId(0)));
    assert_eq!(remembered[1].ended, None);
    assert_eq!(table.get(parent).unwrap().cgroup, CgroupId(9));
    assert!(table.lineage(key(3, 33)).is_empty());
}

#[test]
fn a_lineage_ends_after_eight_ancestors() {
    let mut table = Processes::new(100, HOST);
    for tgid in 1..=20 {
        let parent = key(tgid - 1, u64::from(tgid - 1));
        table.forked(&task(key(tgid, u64::from(tgid)), parent), parent, false);
    }
    let lineage = table.lineage(key(20, 20));
    assert_eq!(lineage.iter().map(|p| p.key.tgid.0).collect::<Vec<_>>(), (12..=20).rev().collect::<Vec<_>>());
}

#[test]
fn texts_are_bounded_and_nobody_is_forgotten_for_them() {
    let args = [b'\xff'; 1000];
    let long = |process| RawExec { args: &args, args_total: 1000, ..exec(process, key(0, 0), HOST, HOST) };
    let mut table = Processes::new(1000, HOST);
    table.max_texts = 20_000;
    let one = |tgid: u32| key(tgid, u64::from(tgid));
    for tgid in 1..=4 {
        table.execed(&long(one(tgid)));
        table.exited(one(tgid), BootNs(5));
    }
    assert!(table.text_bytes() > 16_000 && table.text_bytes() <= 20_000, "{}", table.text_bytes());
    let remembered = table.lineage(one(2));
    for tgid in 11..=30 {
        table.execed(&long(one(tgid)));
    }
    // Those that came last have no texts, but are known; and so are the dead.
    assert!((1..=4).all(|tgid| table.get(one(tgid)).is_some_and(|dead| dead.program.arguments.is_some())));
    assert!(table.text_bytes() <= 20_000, "{}", table.text_bytes());
    assert_eq!((table.texts_left_out, table.len()), (20, 24));
    let last = &table.get(one(30)).unwrap().program;
    assert_eq!((last.arguments.is_none(), &*last.exe, last.exe_ino), (true, "", 5));
    // A minute later they have made room.
    table.exited(one(0), BootNs(5 + KEEP_DEAD_NS));
    table.execed(&long(one(31)));
    assert!(table.get(one(31)).unwrap().program.arguments.is_some());
    // Whoever remembers a process holds its texts, and no longer.
    let before = table.text_bytes();
    drop(remembered);
    assert_eq!(before - table.text_bytes(), "\\xff".len() * 1000 + "/bin/sh/".len());
    drop(table.table.drain());
    assert_eq!(table.text_bytes(), 0);
}
