//! Fields of made-up events: for one event of each family, the value of every field of the catalogue.

use monitor_common::call::Abi;
use monitor_common::ids::{BootNs, CgroupId, NsInum, Tid, Uid};
use monitor_common::verdict::RefusedBy;

use super::*;
use crate::decode::NsSet;
use crate::enrich::device::ProcFiles;

#[path = "event_tests/state.rs"]
mod state;
#[path = "event_tests/capability.rs"]
mod capability;
#[path = "event_tests/held.rs"]
mod held;
#[path = "event_tests/unknown.rs"]
mod unknown;
#[path = "event_tests/processes.rs"]
mod processes;
#[path = "event_tests/world.rs"]
mod world;

use world::*;

#[test]
fn capset_gains_and_drops() {
    let raw = RawCall {
        flags: call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN | call_flag::CLAIMED,
        claimed: [0, SYS_TIME, CHOWN | SYS_TIME, SYS_ADMIN],
        caps_after: SYS_TIME,
        caps_granted: 1 << 8,
        ..raw(Call::Capset, 126)
    };
    let world = World::container();
    let own = "
        evt.type: capset
        evt.category: capability
        evt.nr: 126
        evt.arg[effective]: CAP_SYS_TIME
        evt.arg[permitted]: CAP_CHOWN|CAP_SYS_TIME
        evt.arg[inheritable]: CAP_SYS_ADMIN
        evt.arg[target_pid]: 0
        evt.args: effective=CAP_SYS_TIME permitted=CAP_CHOWN|CAP_SYS_TIME inheritable=CAP_SYS_ADMIN target_pid=0
        evt.args_claimed: true
        cap.after: CAP_SYS_TIME
        thread.cap_effective: CAP_SYS_TIME
        cap.gained: CAP_SYS_TIME
        cap.dropped: CAP_CHOWN
        cap.used: CAP_SETPCAP
    ";
    assert_fields(&world.event(&raw), &[COMMON, own]);
    // Nobody saw the state before: what was gained cannot be told from what was there.
    let unseen = RawCall { flags: raw.flags & !call_flag::BEFORE_KNOWN, ..raw };
    let unknown = "
        cap.before: -
        cap.gained: -
        cap.dropped: -
        ns.before[mnt]: -
        ns.before[pid]: -
        ns.before[user]: -
    ";
    assert_fields(&world.event(&unseen), &[COMMON, own, unknown]);
}

#[test]
fn capset_for_another_process_is_not_refused_by_capability() {
    let refused = |leads: bool, target: u64| {
        let mut call = RawCall {
            ret: -1,
            flags: call_flag::CAPS_VISIBLE | call_flag::SECCOMP_POSSIBLE | call_flag::CLAIMED,
            claimed: [target, 0, 0, 0],
            ..raw(Call::Capset, 126)
        };
        if leads {
            call.task.tid = Tid(call.task.process.tgid.0);
        }
        verdict(&call)
    };
    // Itself, as itself and as its own pid namespace numbers it; nothing asked, so the filter answered.
    assert_eq!(refused(true, 0), Verdict::Refused(RefusedBy::Seccomp));
    assert_eq!(refused(true, 7), Verdict::Refused(RefusedBy::Seccomp));
    assert_eq!(refused(true, 1), Verdict::Refused(RefusedBy::Other));
    // To another thread the process's number is its leader's, and so another task's.
    assert_eq!(refused(false, 0), Verdict::Refused(RefusedBy::Seccomp));
    assert_eq!(refused(false, 7), Verdict::Refused(RefusedBy::Other));
}

#[test]
fn setns_into_the_hosts_namespaces() {
    let after = with(with(CONTAINER_NS, "mnt", 100), "pid", 301);
    let raw = RawCall {
        flags: call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN,
        args: [5, 0x2002_0000, 0, 0],
        caps_before: SYS_ADMIN,
        caps_after: SYS_ADMIN,
        caps_granted: SYS_ADMIN,
        ns_before: CONTAINER_NS,
        ns_after: after,
        ..raw(Call::Setns, 308)
    };
    let own = "
        evt.type: setns
        evt.category: namespace
        evt.nr: 308
        evt.arg[fd]: 5
        evt.arg[nstype]: CLONE_NEWNS|CLONE_NEWPID
        evt.args: fd=5 nstype=CLONE_NEWNS|CLONE_NEWPID
        evt.flags: CLONE_NEWNS CLONE_NEWPID
        cap.before: CAP_SYS_ADMIN
        cap.after: CAP_SYS_ADMIN
        thread.cap_effective: CAP_SYS_ADMIN
        cap.used: CAP_SYS_ADMIN
        ns.after[mnt]: 100
        ns.after[pid]: 301
        ns.changed: mnt pid
        ns.host: mnt user time
        ns.entered_host: mnt
    ";
    let world = World::container();
    assert_fields(&world.event(&raw), &[COMMON, ALL_NAMESPACES, own]);
}

#[test]
fn unshare_of_a_user_namespace_alone() {
    const ALL_CAPS: u64 = (1 << 41) - 1;
    let raw = RawCall {
        flags: call_flag::CAPS_VISIBLE | call_flag::NS_BEFORE_KNOWN,
        args: [0x1000_0000, 0, 0, 0],
        caps_before: ALL_CAPS,
        caps_after: ALL_CAPS,
        ns_before: CONTAINER_NS,
        ns_after: with(CONTAINER_NS, "user", 302),
        ..raw(Call::Unshare, 272)
    };
    let caps = caps::names(ALL_CAPS).collect::<Vec<_>>().join(" ");
    let own = format!(
        "
        evt.type: unshare
        evt.category: namespace
        evt.nr: 272
        evt.arg[flags]: CLONE_NEWUSER
        evt.args: flags=CLONE_NEWUSER
        evt.flags: CLONE_NEWUSER
        cap.before: -
        cap.after: {caps}
        thread.cap_effective: {caps}
        ns.after[user]: 302
        ns.changed: user
        ns.host: time
    "
    );
    let world = World::container();
    assert_fields(&world.event(&raw), &[COMMON, ALL_NAMESPACES, &own]);
}

#[test]
fn clone_speaks_of_the_child() {
    let raw = RawCall {
        flags: call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN | call_flag::CHILD,
        ret: 4300,
        // The lowest byte is SIGCHLD, no flag.
        args: [0x2000_0011, 0, 0, 0],
        caps_before: SYS_ADMIN,
        caps_after: SYS_ADMIN | SYS_TIME,
        caps_granted: SYS_ADMIN,
        ns_before: CONTAINER_NS,
        ns_after: with(CONTAINER_NS, "pid", 301),
        ..raw(Call::Clone, 56)
    };
    let own = "
        evt.type: clone
        evt.category: namespace
        evt.nr: 56
        evt.rawres: 4300
        evt.arg[flags]: CLONE_NEWPID
        evt.args: flags=CLONE_NEWPID
        evt.flags: CLONE_NEWPID
        cap.before: CAP_SYS_ADMIN
        cap.after: CAP_SYS_ADMIN CAP_SYS_TIME
        cap.gained: CAP_SYS_TIME
        thread.cap_effective: CAP_SYS_ADMIN CAP_SYS_TIME
        cap.used: CAP_SYS_ADMIN
        ns.after[pid]: 301
        ns.changed: pid
    ";
    let world = World::container();
    assert_fields(&world.event(&raw), &[COMMON, ALL_NAMESPACES, own]);
    // clone3's flags stand in user memory; where they could not be read there are none to show.
    let unread = RawCall { call: Call::Clone3, nr: 435, ..raw };
    let no_flags = "
        evt.type: clone3
        evt.nr: 435
        evt.arg[flags]: -
        evt.args: -
        evt.flags: -
    ";
    let mut blocks = [COMMON, ALL_NAMESPACES, own, no_flags, "evt.args:"];
    assert_fields(&world.event(&unread), &blocks);
    let read = RawCall { flags: raw.flags | call_flag::CLAIMED, claimed: [0x2000_0000, 0, 0, 0], ..unread };
    blocks[3] = "
        evt.type: clone3
        evt.nr: 435
        evt.args_claimed: true
    ";
    blocks[4] = "";
    assert_fields(&world.event(&read), &blocks);
}

#[test]
fn a_clock_set_through_the_32_bit_table_and_refused_by_seccomp() {
    let raw = RawCall {
        abi: Abi::I386,
        flags: call_flag::CAPS_VISIBLE | call_flag::SECCOMP_REFUSED | call_flag::CLAIMED,
        ret: -1,
        claimed: [1_000_000_000, 5, 0, 0],
        ..raw(Call::ClockSettime, 264)
    };
    let own = "
        evt.type: clock_settime
        evt.category: clock
        evt.nr: 264
        evt.abi: i386
        evt.verdict: refused
        evt.refused_by: seccomp
        evt.res: EPERM
        evt.rawres: -1
        evt.failed: true
        evt.arg[clockid]: CLOCK_REALTIME
        evt.arg[sec]: 1000000000
        evt.arg[nsec]: 5
        evt.args: clockid=CLOCK_REALTIME sec=1000000000 nsec=5
        evt.args_claimed: true
        clock.id: CLOCK_REALTIME
    ";
    let world = World::container();
    assert_fields(&world.event(&raw), &[COMMON, own]);
}

#[test]
fn arguments_of_clock_calls() {
    let world = World::container();
    let args = |call, args: [u64; 4], claimed: Option<[u64; 4]>| {
        let flags = if claimed.is_some() { call_flag::CLAIMED } else { 0 };
        let raw = RawCall { flags, args, claimed: claimed.unwrap_or_default(), ..raw(call, 1) };
        let fields = present(&world.event(&raw));
        (fields["evt.args"].clone(), fields.get("clock.id").cloned().unwrap_or_default())
    };
    let texts = |args: &str, clock: &str| (args.to_owned(), clock.to_owned());
    // Microseconds are shown as nanoseconds; a time before 1970 is negative, and a hostile one has no place to wrap to.
    assert_eq!(
        args(Call::Settimeofday, [1; 4], Some([(-2i64).cast_unsigned(), 3, 0, 0])),
        texts("sec=-2 nsec=3000", "CLOCK_REALTIME")
    );
    assert_eq!(
        args(Call::Settimeofday, [1; 4], Some([0, i64::MAX as u64, 0, 0])),
        texts(&format!("sec=0 nsec={}", i64::MAX), "CLOCK_REALTIME")
    );
    assert_eq!(args(Call::Settimeofday, [0, 1, 0, 0], None), texts("", "CLOCK_REALTIME"));
    assert_eq!(args(Call::Stime, [1; 4], Some([12, 0, 0, 0])), texts("sec=12", "CLOCK_REALTIME"));
    assert_eq!(
        args(Call::Adjtimex, [1; 4], Some([0x4001, 0, 0, 0])),
        texts("modes=ADJ_OFFSET|ADJ_TICK", "CLOCK_REALTIME")
    );
    // A negative id is a clock device's; a bit without a name stays visible.
    assert_eq!(
        args(Call::ClockAdjtime, [(-29i64).cast_unsigned(), 1, 0, 0], Some([0x1_0002, 0, 0, 0])),
        texts("clockid=-29 modes=ADJ_FREQUENCY|0x10000", "-29")
    );
    assert_eq!(args(Call::ClockSettime, [11, 1, 0, 0], None), texts("clockid=CLOCK_TAI", "CLOCK_TAI"));
}

#[test]
fn syslog_and_io_ports() {
    let world = World::container();
    let log = RawCall { args: [5, 0x1000, 4096, 0], ..raw(Call::Syslog, 103) };
    let own = "
        evt.type: syslog
        evt.category: kernel-log
        evt.nr: 103
        evt.arg[type]: CLEAR
        evt.arg[len]: 4096
        evt.args: type=CLEAR len=4096
        syslog.action: CLEAR
    ";
    assert_fields(&world.event(&log), &[COMMON, own]);
    for action in [11, u64::from(u32::MAX)] {
        let unknown = RawCall { args: [action, 0, 0, 0], ..log };
        assert_eq!(present(&world.event(&unknown))["syslog.action"], "UNKNOWN");
    }
    let ports = RawCall {
        ret: -1,
        args: [0x3f8, u64::MAX, 1, 0],
        flags: call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN,
        caps_denied: 1 << 17,
        ..raw(Call::Ioperm, 173)
    };
    let own = "
        evt.type: ioperm
        evt.category: raw-io
        evt.nr: 173
        evt.verdict: refused
        evt.refused_by: capability
        evt.res: EPERM
        evt.rawres: -1
        evt.failed: true
        evt.arg[from]: 1016
        evt.arg[num]: 9223372036854775807
        evt.arg[turn_on]: 1
        evt.args: from=1016 num=9223372036854775807 turn_on=1
        cap.denied: CAP_SYS_RAWIO
    ";
    assert_fields(&world.event(&ports), &[COMMON, own]);
    let level = RawCall { args: [3, 0, 0, 0], ret: -38, ..raw(Call::Iopl, 172) };
    let fields = present(&world.event(&level));
    assert_eq!((&*fields["evt.args"], &*fields["evt.verdict"]), ("level=3", "failed"));
}

#[test]
fn an_open_told_by_the_inode() {
    let raw = RawCall {
        ret: 3,
        flags: call_flag::CAPS_VISIBLE | call_flag::FILE_KNOWN,
        args: [0xffff_ff9c, 0x1000, 0o2, 0],
        major: 1,
        minor: 1,
        path: b"/tmp/innocent",
        ..raw(Call::Openat, 257)
    };
    let world = World::container();
    let event = Event { device: ProcFiles::default().of(&raw).ok(), ..world.event(&raw) };
    let own = "
        evt.type: openat
        evt.category: raw-io
        evt.nr: 257
        evt.rawres: 3
        evt.arg[flags]: O_RDWR
        evt.arg[path]: /tmp/innocent
        evt.arg[dirfd]: -100
        evt.args: flags=O_RDWR path=/tmp/innocent dirfd=-100
        evt.args_claimed: true
        device.name: mem
        device.major: 1
        device.minor: 1
        device.by: kernel
        fd.name: /tmp/innocent
    ";
    assert_fields(&event, &[COMMON, own]);
}

#[test]
fn an_open_told_by_the_path_is_marked_so() {
    let raw = RawCall {
        ret: -13,
        flags: call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN,
        args: [0x1000, 0o2_000_000, 0, 0],
        caps_denied: 1 << 1,
        path: b"/proc/\xfe\\kcore",
        ..raw(Call::Open, 2)
    };
    let world = World::container();
    let device = Device { name: "proc_kmsg", number: None, by_kernel: false };
    let own = "
        evt.type: open
        evt.category: kernel-log
        evt.nr: 2
        evt.verdict: refused
        evt.refused_by: capability
        evt.res: EACCES
        evt.rawres: -13
        evt.failed: true
        evt.arg[flags]: O_RDONLY|O_CLOEXEC
        evt.arg[path]: /proc/\\xfe\\\\kcore
        evt.args: flags=O_RDONLY|O_CLOEXEC path=/proc/\\xfe\\\\kcore
        evt.args_claimed: true
        cap.denied: CAP_DAC_OVERRIDE
        device.name: proc_kmsg
        device.by: claimed
        fd.name: /proc/\\xfe\\\\kcore
    ";
    assert_fields(&Event { device: Some(device), ..world.event(&raw) }, &[COMMON, own]);
}

#[test]
fn a_process_on_the_host() {
    let mut raw = raw(Call::Syslog, 103);
    (raw.ns_before, raw.ns_after) = (three(HOST_NS), three(HOST_NS));
    raw.args[0] = 10;
    raw.task.loginuid = Uid(u32::MAX);
    raw.task.ns_tgid = 4242;
    (raw.caps_before, raw.caps_after) = (0, 0);
    let world = World::new("/system.slice/ssh.service");
    let own = "
        evt.type: syslog
        evt.category: kernel-log
        evt.nr: 103
        evt.arg[type]: SIZE_BUFFER
        evt.arg[len]: 0
        evt.args: type=SIZE_BUFFER len=0
        syslog.action: SIZE_BUFFER
        evt.phase: -
        container.id: host
        container.full_id: -
        container.runtime: host
        container.type: host
        container.chain: -
        container.metadata: -
        k8s.pod.uid: -
        k8s.pod.qos: -
        host.unit: ssh.service
        cgroup.path: /system.slice/ssh.service
        proc.vpid: 4242
        user.loginuid: -1
        cap.before: -
        cap.after: -
        thread.cap_effective: -
        ns.before[mnt]: 100
        ns.before[pid]: 101
        ns.after[mnt]: 100
        ns.after[pid]: 101
        ns.host: mnt pid user
    ";
    assert_fields(&world.event(&raw), &[COMMON, own]);
}

#[test]
fn sessions_of_the_host_and_containers_in_containers() {
    let raw = raw(Call::Syslog, 103);
    let session = World::new("/user.slice/user-1000.slice/session-3.scope");
    let fields = present(&session.event(&raw));
    assert_eq!((&*fields["host.unit"], &*fields["host.session"]), ("session-3.scope", "3"));
    let inner = CONTAINER.replace('4', "5");
    let nested = World::new(&format!("/system.slice/lxc.service/lxc.payload.web/docker/{inner}"));
    let fields = present(&nested.event(&raw));
    assert_eq!(fields["container.id"], inner[..12]);
    assert_eq!(fields["container.chain"], format!("{} web", &inner[..12]));
    assert_eq!(fields["host.unit"], "lxc.service");
}
