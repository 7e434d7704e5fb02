//! The process table: life cycles, pid reuse, the starting phase, bounds.

use monitor_common::ids::Tid;

use super::*;

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
        mnt_ns: own,
        components: b"sh\0bin\0",
        truncated: false,
    }
}

#[test]
fn a_child_runs_what_its_parent_runs_until_it_execs() {
    let mut table = Processes::new(10, HOST);
    let (parent, child) = (key(1, 11), key(2, 22));
    table.execed(&exec(parent, key(0, 0), HOST, HOST));
    table.forked(&task(child, parent), parent, false);
    assert_eq!(&*table.get(child).unwrap().exe, "/bin/sh");
    assert_eq!(table.ancestor(child, 1).unwrap().key, parent);
    assert!(table.ancestor(child, 2).is_none());
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut table = Processes::new(10, HOST);
    table.forked(&task(key(5, 51), key(1, 1)), key(1, 1), false);
    assert!(table.get(key(5, 52)).is_none());
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
    table.attached(init, CgroupId(9), true);
    table.forked(&task(child, init), init, false);
    assert!(table.get(child).unwrap().starting, "children of the runtime's helper");
    table.execed(&exec(child, init, NsInum(0), HOST));
    assert!(table.get(child).unwrap().starting, "a sealed copy in memory is the runtime's own");
    table.execed(&exec(child, init, HOST, INNER));
    assert!(table.get(child).unwrap().starting, "the host's file, seen from the container");
    table.execed(&exec(child, init, INNER, INNER));
    assert!(!table.get(child).unwrap().starting);
    // From here on nothing that happens inside makes it starting again.
    table.execed(&exec(child, init, HOST, INNER));
    assert!(!table.get(child).unwrap().starting);
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
    for start in 1..=100 {
        table.forked(&task(key(7, start), key(0, 0)), key(0, 0), false);
        table.exited(key(7, start), BootNs(start));
    }
    assert!(table.dead.len() <= 3, "{}", table.dead.len());
    assert!(table.get(key(7, 100)).is_some(), "the last one is still remembered");
}

#[test]
fn seeding_finds_this_process_and_its_cgroup() {
    let root = kernel_files::cgroup2_root();
    let mut table = Processes::new(1 << 20, HOST);
    table.seed(root.as_deref());
    let own = table.table.get(&Tgid(std::process::id())).unwrap();
    let meta = fs::metadata(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(own.exe_ino, std::os::unix::fs::MetadataExt::ino(&meta));
    let cgroup = root.and_then(|root| kernel_files::cgroup2_of(std::process::id(), &root)).unwrap_or(0);
    assert_eq!(own.cgroup, CgroupId(cgroup));
}

#[test]
fn stat_is_read_whatever_the_name_holds() {
    let tail = "S 41 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0";
    let (name, parent, start) = parse_stat(format!("42 (a) b (c) {tail}").as_bytes()).unwrap();
    assert_eq!((&*name, parent, start), ("a) b (c", Tgid(41), BootNs(777 * TICK_NS)));
    let (own, _, _) = stat(Tgid(std::process::id())).unwrap();
    assert!(!own.is_empty());
    for broken in ["", "1", "1 (", "1 (x", "1 (x)", "1 (x) S", "1 (x) S y", ") 1 ("] {
        assert!(parse_stat(broken.as_bytes()).is_none(), "{broken}");
    }
}
