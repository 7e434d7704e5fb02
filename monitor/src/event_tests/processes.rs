//! Fields that tell of the caller, its program and its ancestors.

use monitor_common::ids::{CgroupId, Gid, Uid};

use super::world::*;
use super::*;
use crate::decode::{ProcessKey, RawExec};

#[test]
fn users_and_groups_have_the_hosts_names() {
    let world = World { users: Users::read("/".as_ref()), ..World::container() };
    let mut raw = raw(Call::Syslog, 103);
    (raw.task.loginuid, raw.task.egid) = (Uid(0), Gid(0));
    let fields = present(&world.event(&raw));
    for (name, value) in [("user.name", "root"), ("user.loginname", "root"), ("group.name", "root")] {
        assert_eq!(fields[name], value, "{name}");
    }
    raw.task.euid = Uid(4_123_456_789);
    (raw.task.loginuid, raw.task.egid) = (Uid(u32::MAX), Gid(4_123_456_789));
    let fields = present(&world.event(&raw));
    for absent in ["user.name", "user.loginname", "group.name"] {
        assert_eq!(fields.get(absent), None, "{absent}");
    }
}

#[test]
fn what_a_program_is_by_the_kernel() {
    let mut world = World::container();
    let mut raw = raw(Call::Setns, 308);
    let fields = |world: &World, raw: &RawCall<'_>| {
        [
            "proc.is_exe_upper_layer",
            "proc.is_exe_from_memfd",
            "proc.cmdline",
            "proc.exe",
            "proc.args",
            "proc.cwd",
        ]
        .map(|name| present(&world.event(raw)).remove(name))
    };
    let exec = RawExec {
        task: raw.task,
        upper_layer: true,
        memfd: true,
        args: b"sh\0-c\0\xff\\\n",
        args_total: 4096,
        cwd_truncated: true,
        cwd_components: b"deep\0",
        ..RawExec::default()
    };
    world.processes.execed(&exec);
    let known = ["true", "true", "probe -c \\xff\\\\\n...", "sh", "-c \\xff\\\\\n...", ".../deep"];
    assert_eq!(fields(&world, &raw), known.map(|value| Some(value.to_owned())));
    // A name that the process takes later is not that of its command line.
    raw.task.comm = padded(b"innocent");
    assert_eq!(fields(&world, &raw)[2].as_deref(), Some(known[2]));
    // No argument is known; and none was given.
    world.processes.execed(&RawExec { args: b"", ..exec });
    assert_eq!(fields(&world, &raw)[2..5], [None, None, None]);
    world.processes.execed(&RawExec { args: b"sh\0", args_total: 3, ..exec });
    let alone = [Some("probe".to_owned()), Some("sh".to_owned()), Some(String::new())];
    assert_eq!(fields(&world, &raw)[2..5], alone);
}

#[test]
fn an_id_for_ever_needs_a_boot_and_a_process() {
    let mut world = World::container();
    let mut raw = raw(Call::Setns, 308);
    // The kernel itself is nobody's parent with a number.
    raw.task.parent = ProcessKey::default();
    let fields = present(&world.event(&raw));
    assert_eq!(fields["proc.id"], "0000b007-500-4242");
    assert_eq!(fields.get("proc.parent_id"), None);
    world.host.boot_id = None;
    assert_eq!(present(&world.event(&raw)).get("proc.id"), None);
}

#[test]
fn a_hostile_name_is_escaped() {
    let world = World::container();
    let mut raw = raw(Call::Syslog, 103);
    raw.task.comm = padded(b"a\xff\\\xc3\xa9b\0hidden");
    let fields = present(&world.event(&raw));
    for field in ["proc.name", "proc.aname[0]"] {
        assert_eq!(fields[field], "a\\xff\\\\\u{e9}b", "{field}");
    }
}

#[test]
fn a_process_that_came_from_outside_is_starting_until_it_execs() {
    let mut world = World::container();
    let raw = raw(Call::Setns, 308);
    world.processes.attached(SELF, CgroupId(77), true, BootNs(1));
    assert_eq!(present(&world.event(&raw))["evt.phase"], "starting");
    let exec = RawExec {
        task: raw.task,
        exe_ino: 1,
        exe_dev: 1,
        exe_mnt_ns: CONTAINER_NS[0],
        ns: CONTAINER_NS,
        components: b"sh\0",
        ..RawExec::default()
    };
    world.processes.execed(&exec);
    assert_eq!(present(&world.event(&raw))["evt.phase"], "running");
}
