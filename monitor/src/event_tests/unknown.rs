//! Events of which much is not known: a missing fact is absent, no default.

use super::*;

#[test]
fn what_is_not_known_is_absent() {
    let world = World::container();
    let mut raw = raw(Call::Setns, 308);
    raw.task.process.start = BootNs(1);
    raw.task.parent.start = BootNs(1);
    raw.ns_after[0] = NsInum(0);
    raw.task.cgroup = CgroupId(0);
    let event = Event { cgroup: None, ..world.event(&raw) };
    let fields = present(&event);
    for absent in [
        "cgroup.id",
        "cgroup.path",
        "container.full_id",
        "evt.phase",
        "evt.refused_by",
        "proc.exepath",
        "proc.exe_ino",
        "proc.exe_dev",
        "proc.is_exe_upper_layer",
        "proc.is_exe_from_memfd",
        "proc.cmdline",
        "proc.args",
        "proc.exe",
        "proc.cwd",
        "proc.tty",
        "proc.pname",
        "proc.pexepath",
        "proc.pcmdline",
        "proc.acmdline[1]",
        "proc.aname[1]",
        "proc.apid[2]",
        "proc.aexepath",
        "ns.after[mnt]",
        "ns.before[mnt]",
        "ns.changed",
        "ns.entered_host",
        "fd.name",
        "device.name",
        "clock.id",
    ] {
        assert_eq!(fields.get(absent), None, "{absent}");
    }
    // Nor is an unknown namespace of the caller the unknown one of the host.
    let blind = World { host: Host::default(), ..World::container() };
    raw.ns_after = NsSet::default();
    assert_eq!(present(&blind.event(&raw)).get("ns.host"), None);
    // The record itself names the caller and its parent.
    for (name, value) in [("proc.name", "probe"), ("proc.apid[1]", "4200"), ("proc.ppid", "4200")] {
        assert_eq!(fields[name], value, "{name}");
    }
}
