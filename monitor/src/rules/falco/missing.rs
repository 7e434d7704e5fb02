//! The fields of Falco's documentation for system calls that Ringfence has nothing for, and why.

use crate::fields::FieldType::{self, Bool, Number, Text, TextList};

const NOT_TRACKED: &str = "sockets and descriptors are not watched";
const NOT_WATCHED: &str = "calls of this kind are not watched";
const NOT_READ: &str = "Ringfence does not read it";
const TIME: &str = "alerts carry the time themselves; conditions cannot ask for it";
const NO_PLUGINS: &str = "there are no plugins";
const NOT_KEPT: &str = "Ringfence does not keep it";
const OTHER_WORDS: &str = "Ringfence's categories are others";

/// Fields that are missing for the same reason and have the same type.
pub(super) struct Group {
    /// Why.
    pub(super) why: &'static str,
    /// Their type.
    pub(super) ty: FieldType,
    /// Their names, separated by blanks.
    pub(super) names: &'static str,
}

/// All of them.
pub(super) const GROUPS: &[Group] = &[
    Group { why: TIME, ty: Text, names: "evt.time evt.time.s evt.time.iso8601 evt.datetime evt.datetime.s" },
    Group {
        why: TIME,
        ty: Number,
        names: "evt.rawtime evt.rawtime.s evt.rawtime.ns evt.reltime evt.reltime.s evt.reltime.ns \
                evt.deltatime evt.deltatime.s evt.deltatime.ns",
    },
    Group { why: NO_PLUGINS, ty: Text, names: "evt.pluginname evt.plugininfo evt.asynctype" },
    Group {
        why: NOT_KEPT,
        ty: Text,
        names: "evt.hostname proc.aargs proc.env proc.aenv proc.sname proc.sid.exe proc.sid.exepath \
                proc.vpgid.name proc.vpgid.exe proc.vpgid.exepath proc.pgid.name proc.pgid.exe \
                proc.pgid.exepath thread.cap_permitted thread.cap_inheritable thread.cgroup proc.stdin.type \
                proc.stdout.type proc.stderr.type proc.stdin.name proc.stdout.name proc.stderr.name \
                user.homedir user.shell",
    },
    Group { why: OTHER_WORDS, ty: Text, names: "evt.category" },
    Group {
        why: NOT_KEPT,
        ty: Number,
        names: "evt.cpu evt.count.error evt.count.error.file evt.count.error.net evt.count.error.memory \
                evt.count.error.other evt.count.exit evt.around proc.cmdnargs proc.loginshellid proc.pvpid \
                proc.vpgid proc.pgid proc.ppid.duration proc.pid.ts proc.ppid.ts proc.exe_ino.ctime \
                proc.exe_ino.mtime proc.exe_ino.ctime_duration_proc_start \
                proc.exe_ino.ctime_duration_pidns_start proc.pidns_init_start_ts proc.fdopencount \
                proc.fdlimit proc.fdusage proc.vmsize proc.vmrss proc.vmswap thread.pfmajor thread.pfminor \
                thread.vtid thread.exectime thread.totexectime proc.nthreads proc.nchilds thread.cpu \
                thread.cpu.user thread.cpu.system thread.vmsize thread.vmrss",
    },
    Group {
        why: NOT_WATCHED,
        ty: Text,
        names: "evt.buffer evt.io_dir fs.path.source fs.path.sourceraw fs.path.target fs.path.targetraw",
    },
    Group { why: NOT_WATCHED, ty: Number, names: "evt.buflen" },
    Group {
        why: NOT_WATCHED,
        ty: Bool,
        names: "evt.is_io evt.is_io_read evt.is_io_write evt.is_wait evt.is_syslog",
    },
    Group {
        why: NOT_KEPT,
        ty: Bool,
        names: "evt.is_open_exec proc.is_exe_writable proc.is_vpgid_leader proc.is_pgid_leader \
                proc.is_container_healthcheck proc.is_container_liveness_probe \
                proc.is_container_readiness_probe",
    },
    Group { why: "only whether the upper layer has it", ty: Bool, names: "proc.is_exe_lower_layer" },
    Group {
        why: NOT_TRACKED,
        ty: Text,
        names: "fd.ip fd.cip fd.sip fd.lip fd.rip fd.l4proto fd.sockfamily fd.uid fd.containername \
                fd.containerdirectory fd.cproto fd.sproto fd.lproto fd.rproto fd.net fd.cnet fd.snet fd.lnet \
                fd.rnet fd.cip.name fd.sip.name fd.lip.name fd.rip.name fdlist.nums fdlist.names fdlist.cips \
                fdlist.sips fdlist.cports fdlist.sports",
    },
    Group {
        why: NOT_TRACKED,
        ty: Number,
        names: "fd.port fd.cport fd.sport fd.lport fd.rport fd.proto fd.dev fd.ino",
    },
    Group {
        why: NOT_TRACKED,
        ty: Bool,
        names: "fd.is_server fd.connected fd.name_changed fd.is_upper_layer fd.is_lower_layer",
    },
    Group { why: "descriptors are not tracked", ty: TextList, names: "fd.types" },
    Group {
        why: NOT_READ,
        ty: Text,
        names: "container.mounts container.mount container.mount.source container.mount.dest \
                container.mount.mode container.mount.rdwr container.mount.propagation container.healthcheck \
                container.liveness_probe container.readiness_probe container.ip container.cni.json \
                container.labels k8s.pod.sandbox_id k8s.pod.full_sandbox_id k8s.pod.label k8s.pod.labels \
                k8s.pod.ip k8s.pod.cni.json k8s.rc.name k8s.rc.id k8s.rc.label k8s.rc.labels k8s.svc.name \
                k8s.svc.id k8s.svc.label k8s.svc.labels k8s.ns.id k8s.ns.label k8s.ns.labels k8s.rs.name \
                k8s.rs.id k8s.rs.label k8s.rs.labels k8s.deployment.name k8s.deployment.id \
                k8s.deployment.label k8s.deployment.labels",
    },
    Group { why: NOT_READ, ty: Number, names: "container.start_ts container.duration" },
    Group { why: NOT_READ, ty: Bool, names: "container.host_pid container.host_network container.host_ipc" },
];
