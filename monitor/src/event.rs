//! An enriched event: a watched call with everything that is known about its caller, as fields.

mod capability;
mod process;

pub use capability::CapFacts;

use std::borrow::Cow;

use monitor_common::call::Call;
use monitor_common::caps;
use monitor_common::ids::Uid;
use monitor_common::verdict::{Evidence, Verdict};
use monitor_common::wire::call_flag;

use crate::args;
use crate::decode::RawCall;
use crate::enrich::Host;
use crate::enrich::container::{Cgroup, Container, HostUnit};
use crate::enrich::device::Device;
use crate::enrich::lineage::Ancestors;
use crate::enrich::names::Named;
use crate::enrich::namespaces::Facts;
use crate::enrich::process::Process;
use crate::enrich::users::Users;
use crate::errno;
use crate::event_type::EventType;
use crate::fields::{
    ARG_NAMES, Enumerate, Field, FieldArg, FieldKey, FieldRef, FieldSource, KeyArg, NS_KINDS, Value,
    closed_keys,
};
use crate::text::{escape, until_nul};

/// A watched call, or another event, and what surrounds it. Borrows nearly everything: making one costs little.
pub struct Event<'e> {
    /// What it is.
    pub ty: EventType,
    /// The call as the kernel told it. For what is no call: who, when and in which namespaces; the rest means
    /// nothing there ([`RawCall::of_state`]).
    pub raw: &'e RawCall<'e>,
    /// How it ended.
    pub verdict: Verdict,
    /// The caller, if the process table knows it.
    pub process: Option<&'e Process>,
    /// Its ancestors.
    pub ancestors: Ancestors<'e>,
    /// The caller's cgroup, if it is known.
    pub cgroup: Option<&'e Cgroup>,
    /// What the runtime wrote about the caller's container.
    pub named: Named<'e>,
    /// What was opened, for opens.
    pub device: Option<Device>,
    /// Whose namespaces these are, and where it led.
    pub namespaces: Facts,
    /// What it tells of capabilities, if that is what it is about.
    pub caps: Option<CapFacts>,
    /// The host's namespaces.
    pub host: &'e Host,
    /// The host's users.
    pub users: &'e Users,
}

/// Judges a call by what the probes saw.
pub fn verdict(raw: &RawCall<'_>) -> Verdict {
    Evidence {
        call: raw.call,
        ret: raw.ret,
        seccomp_refused: raw.has(call_flag::SECCOMP_REFUSED),
        seccomp_possible: raw.has(call_flag::SECCOMP_POSSIBLE),
        caps_visible: raw.has(call_flag::CAPS_VISIBLE),
        nr: raw.nr,
        reached: raw.has(call_flag::BEFORE_KNOWN) || raw.has(call_flag::CHILD),
        caps_denied: raw.caps_denied,
        caps_granted: raw.caps_granted,
        device_asked: raw.has(call_flag::DEVICE_ASKED),
        foreign_pid: raw.call == Call::Capset && names_another(raw),
    }
    .verdict()
}

/// For a capset that was refused: whether it was because the caller named another process. The kernel looks at that
/// before it makes any check (`cap_capset` asks for CAP_SETPCAP each time).
fn names_another(raw: &RawCall<'_>) -> bool {
    if raw.has(call_flag::BEFORE_KNOWN) {
        return false;
    }
    // Nobody else could have refused it before the check.
    if raw.has(call_flag::CAPS_VISIBLE) && !raw.has(call_flag::SECCOMP_POSSIBLE) {
        return true;
    }
    // A filter could have. Only the claim is left to tell.
    let target = raw.claimed[0] as u32;
    let leads = raw.task.tid.0 == raw.task.process.tgid.0;
    // The kernel compares with the thread's number in its own pid namespace, which for other threads than the
    // leader is known only if it is also the host's.
    let own = target == 0 || if leads { target == raw.task.ns_tgid } else { target == raw.task.tid.0 };
    raw.has(call_flag::CLAIMED) && !own
}

/// What an event is about.
pub const fn category(ty: EventType) -> &'static str {
    let call = match ty {
        EventType::Call(call) => call,
        EventType::Entered | EventType::Escaped => return "namespace",
        EventType::Capability | EventType::Gained | EventType::GainedUnseen => return "capability",
    };
    match call {
        Call::Capset => "capability",
        Call::Setns | Call::Unshare | Call::Clone | Call::Clone3 => "namespace",
        Call::Settimeofday | Call::ClockSettime | Call::Stime | Call::Adjtimex | Call::ClockAdjtime => {
            "clock"
        }
        Call::Syslog => "kernel-log",
        Call::Iopl | Call::Ioperm => "raw-io",
        Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt => "raw-io",
    }
}

/// The kernel's "no user" (`INVALID_UID`): stands where nobody knows the user.
pub const NO_USER: Uid = Uid(u32::MAX);

impl<'e> Event<'e> {
    /// The caller's container; `None` on the host and where the cgroup is not known.
    pub fn container(&self) -> Option<&'e Container> {
        self.cgroup.and_then(|cgroup| cgroup.container()).map(|container| &**container)
    }

    /// The unit of the host's systemd that the caller, or its container, lies in.
    fn host_unit(&self) -> Option<&'e HostUnit> {
        self.cgroup.and_then(|cgroup| cgroup.unit.as_ref())
    }

    /// What stands for a container where there is none. A cgroup that is not known may be a container's.
    const fn no_container(&self) -> &'static str {
        if self.cgroup.is_some() { "host" } else { "unknown" }
    }

    /// The fields that only calls have, for an event that is none.
    fn of_no_call(&self, field: FieldRef) -> Option<Value<'_>> {
        match field.field {
            _ if !field.types().has(self.ty) => Some(Value::Absent),
            field => self.caps.and_then(|caps| caps.value(field)),
        }
    }

    fn caps(mask: u64) -> Value<'e> {
        if mask == 0 { Value::Absent } else { Value::list(caps::names(mask)) }
    }

    /// Kinds of namespace that fit; absent if none does.
    fn ns_kinds(fits: impl Fn(usize) -> bool) -> Value<'e> {
        let mut kinds =
            NS_KINDS.iter().enumerate().filter(|(i, _)| fits(*i)).map(|(_, kind)| *kind).peekable();
        if kinds.peek().is_none() { Value::Absent } else { Value::list(kinds) }
    }

    /// True if the call moved the caller, or for clone made the child, from one namespace into another.
    fn ns_changed(&self, kind: usize) -> bool {
        let (before, after) = (self.raw.ns_before[kind], self.raw.ns_after[kind]);
        before.0 != 0 && after.0 != 0 && before != after
    }

    fn in_host_ns(&self, kind: usize) -> bool {
        let own = self.raw.ns_after[kind];
        own.0 != 0 && own == self.host.namespaces[kind]
    }

    /// `true` if the state before the call is known: taken during it, or unchanged because it failed.
    fn before_known(&self) -> bool {
        self.raw.ret < 0 || self.raw.has(call_flag::BEFORE_KNOWN) || !self.changes_state()
    }

    fn changes_state(&self) -> bool {
        matches!(self.raw.call, Call::Capset | Call::Setns | Call::Unshare)
    }

    fn caps_before(&self) -> Option<u64> {
        self.before_known().then_some(self.raw.caps_before)
    }

    fn ancestor(&self, generation: u16) -> Option<&'e Process> {
        match generation {
            0 => self.process,
            // The record itself names the parent, so a missing caller does not hide it.
            _ => self.ancestors.get(self.raw.task.parent, generation),
        }
    }
}

/// Generation that an ancestor field asks for; without an argument the parent.
fn generation(arg: FieldArg) -> u16 {
    match arg {
        FieldArg::Index(generation) => generation,
        FieldArg::None | FieldArg::Key(_) | FieldArg::Name(_) => 1,
    }
}

/// Position of a key argument.
fn key(arg: FieldArg) -> usize {
    match arg {
        FieldArg::Key(position) | FieldArg::Index(position) => usize::from(position),
        FieldArg::None | FieldArg::Name(_) => 0,
    }
}

/// A number that fits or is shown as the largest.
fn number(value: impl TryInto<i64>) -> Value<'static> {
    Value::Number(value.try_into().unwrap_or(i64::MAX))
}

fn some<'e, T>(value: Option<T>, show: impl FnOnce(T) -> Value<'e>) -> Value<'e> {
    value.map_or(Value::Absent, show)
}

fn text_unless_empty(text: &str) -> Value<'_> {
    if text.is_empty() { Value::Absent } else { Value::text(text) }
}

/// `major:minor` of the kernel's `dev_t`.
fn dev_text(dev: u32) -> Value<'static> {
    Value::Text(Cow::Owned(format!("{}:{}", dev >> 20, dev & 0xf_ffff)))
}

impl FieldSource for Event<'_> {
    fn value(&self, field: FieldRef) -> Value<'_> {
        let raw = self.raw;
        let task = &raw.task;
        let arg = field.arg;
        if self.ty.call().is_none()
            && let Some(value) = self.of_no_call(field)
        {
            return value;
        }
        let program = self.process.map(|process| &*process.program);
        let arguments = program.and_then(|program| program.arguments.as_ref());
        match field.field {
            Field::EvtType => Value::text(self.ty.name()),
            Field::EvtCategory => Value::text(match self.device {
                Some(device) if device.name.ends_with("kmsg") => "kernel-log",
                _ => category(self.ty),
            }),
            Field::EvtVerdict => Value::text(self.verdict.name()),
            Field::EvtRefusedBy => some(self.verdict.refused_by(), |by| Value::text(by.name())),
            // A filter that trapped or killed leaves no error; what the caller gets is the signal.
            Field::EvtRes if self.verdict != Verdict::Allowed && raw.ret >= 0 => Value::text("SIGSYS"),
            Field::EvtRes => Value::text(errno::name(raw.ret)),
            Field::EvtRawRes => Value::Number(raw.ret),
            Field::EvtFailed => Value::Bool(self.verdict != Verdict::Allowed),
            Field::EvtAbi => Value::text(raw.abi.name()),
            Field::EvtNr => number(raw.nr),
            Field::EvtArg => {
                match args::argument(raw, ARG_NAMES.get(key(arg)).copied().unwrap_or_default()) {
                    // One type per field: with another key the same field holds flags by name.
                    Value::Number(number) => Value::Text(Cow::Owned(number.to_string())),
                    value => value,
                }
            }
            Field::EvtFlags => {
                let mut names = args::namespace_flag_names(raw).peekable();
                if names.peek().is_none() { Value::Absent } else { Value::list(names) }
            }
            Field::EvtArgs => Value::Text(Cow::Owned(args::all(raw))),
            Field::EvtArgsClaimed => Value::Bool(args::are_claimed(raw)),
            Field::EvtBootNs => number(raw.boot.0),
            Field::EvtPhase => some(self.container(), |_| {
                Value::text(if self.is_starting() { "starting" } else { "running" })
            }),
            Field::ContainerId => {
                Value::text(self.container().map_or(self.no_container(), Container::short_id))
            }
            Field::ContainerFullId => some(self.container(), |container| Value::text(&container.id)),
            Field::ContainerRuntime | Field::ContainerType => {
                let runtime = self.container().map(|container| container.runtime.name());
                Value::text(runtime.unwrap_or(self.no_container()))
            }
            Field::ContainerChain => {
                let chain = self.cgroup.filter(|cgroup| !cgroup.containers.is_empty());
                some(chain, |cgroup| {
                    Value::list(cgroup.containers.iter().map(|container| container.short_id()))
                })
            }
            Field::K8sPodQos => {
                some(self.container().and_then(|container| container.qos), |qos| Value::text(qos.name()))
            }
            Field::HostUnit => some(self.host_unit(), |unit| Value::text(&unit.name)),
            Field::HostSession => {
                some(self.host_unit().and_then(|unit| unit.session.as_deref()), Value::text)
            }
            Field::ContainerMetadata
            | Field::ContainerName
            | Field::ContainerImage
            | Field::ContainerImageRepository
            | Field::ContainerImageTag
            | Field::ContainerImageId
            | Field::ContainerImageDigest
            | Field::ContainerLabel
            | Field::ContainerPrivileged
            | Field::K8sPodName
            | Field::K8sNsName
            | Field::K8sContainerName => self.named.value(field.field, arg),
            Field::K8sPodUid => {
                some(self.container().and_then(|container| container.pod_uid.as_deref()), Value::text)
            }
            Field::CgroupId => some((task.cgroup.0 != 0).then_some(task.cgroup.0), number),
            Field::CgroupPath => some(self.cgroup, |cgroup| Value::text(&cgroup.path)),
            Field::ProcName => Value::Text(escape(until_nul(&task.comm))),
            Field::ProcExepath => some(program, |program| text_unless_empty(&program.exe)),
            Field::ProcExeIno => some(program.filter(|p| p.exe_ino != 0), |p| number(p.exe_ino)),
            Field::ProcExeDev => some(program.filter(|p| p.exe_ino != 0), |p| dev_text(p.exe_dev)),
            Field::ProcIsExeUpperLayer => some(program.and_then(|p| p.upper_layer), Value::Bool),
            Field::ProcIsExeFromMemfd => some(program.and_then(|p| p.memfd), Value::Bool),
            Field::ProcCmdline => some(self.process, process::command_line),
            Field::ProcArgs => some(arguments, |arguments| Value::text(&arguments.rest)),
            Field::ProcExe => some(arguments, |arguments| Value::text(&arguments.first)),
            Field::ProcCwd => some(program, |program| text_unless_empty(&program.cwd)),
            Field::ProcTty => some(program.and_then(|p| p.tty), number),
            Field::ProcSid => some((task.session != 0).then_some(task.session), number),
            Field::ProcPid => number(task.process.tgid.0),
            Field::ProcVpid => some((task.ns_tgid != 0).then_some(task.ns_tgid), number),
            Field::ProcPpid => number(task.parent.tgid.0),
            Field::ProcPname => some(self.ancestor(1), |parent| Value::text(&parent.comm)),
            Field::ProcPexepath => some(self.ancestor(1), |parent| text_unless_empty(&parent.program.exe)),
            Field::ProcPcmdline => some(self.ancestor(1), process::command_line),
            Field::ProcAcmdline => some(self.ancestor(generation(arg)), process::command_line),
            Field::ProcId => process::stable_id(self.host, task.process),
            Field::ProcParentId => process::stable_id(self.host, task.parent),
            Field::ProcAname => match generation(arg) {
                0 => Value::Text(escape(until_nul(&task.comm))),
                generation => some(self.ancestor(generation), |process| Value::text(&process.comm)),
            },
            Field::ProcApid => match generation(arg) {
                0 => number(task.process.tgid.0),
                1 => number(task.parent.tgid.0),
                generation => some(self.ancestor(generation), |process| number(process.key.tgid.0)),
            },
            Field::ProcAexepath => {
                some(self.ancestor(generation(arg)), |process| text_unless_empty(&process.program.exe))
            }
            Field::ProcStart => number(task.process.start.0),
            Field::ProcEntry => some(self.namespaces.entry, |entry| Value::text(entry.name())),
            Field::ProcEscaped => Self::ns_kinds(|kind| self.namespaces.escaped.has(kind)),
            Field::ThreadTid => some((task.tid.0 != 0).then_some(task.tid.0), number),
            Field::UserUid => some((task.euid != NO_USER).then_some(task.euid.0), number),
            Field::UserName => some(self.users.name(task.euid), Value::text),
            // The kernel's "no login" is the highest id; Falco shows it as -1.
            Field::UserLoginuid => {
                Value::Number(if task.loginuid.0 == u32::MAX { -1 } else { task.loginuid.0.into() })
            }
            Field::UserLoginname => {
                // The highest id is nobody's, whatever a file of users says.
                some(self.users.name(task.loginuid).filter(|_| task.loginuid.0 != u32::MAX), Value::text)
            }
            Field::GroupGid => some((task.euid != NO_USER).then_some(task.egid.0), number),
            Field::GroupName => some(self.users.group(task.egid), Value::text),
            Field::CapBefore => some(self.caps_before(), Self::caps),
            Field::CapAfter | Field::ThreadCapEffective => Self::caps(raw.caps_after),
            Field::CapGained => some(self.caps_before(), |before| Self::caps(raw.caps_after & !before)),
            Field::CapDropped => some(self.caps_before(), |before| Self::caps(before & !raw.caps_after)),
            Field::CapDenied => Self::caps(raw.caps_denied),
            Field::CapUsed => Self::caps(raw.caps_granted),
            // Only events that are no calls have these, and their facts were asked before.
            Field::CapName
            | Field::CapAudited
            | Field::CapCall
            | Field::CapUserNs
            | Field::CapDoor
            | Field::CapGainedPermitted
            | Field::CapPermitted
            | Field::CapPermittedBefore
            | Field::CapInheritable
            | Field::CapInheritableBefore
            | Field::CapBounding
            | Field::CapBoundingBefore
            | Field::CapAmbient
            | Field::CapAmbientBefore => Value::Absent,
            Field::NsBefore if !(self.before_known() || raw.has(call_flag::NS_BEFORE_KNOWN)) => Value::Absent,
            Field::NsBefore | Field::NsAfter => {
                let set = if field.field == Field::NsBefore { &raw.ns_before } else { &raw.ns_after };
                some(set.get(key(arg)).filter(|inum| inum.0 != 0), |inum| number(inum.0))
            }
            Field::NsChanged => Self::ns_kinds(|kind| self.ns_changed(kind)),
            Field::NsHost => Self::ns_kinds(|kind| self.in_host_ns(kind)),
            Field::NsEnteredHost => Self::ns_kinds(|kind| self.ns_changed(kind) && self.in_host_ns(kind)),
            Field::NsDirection => {
                some(self.namespaces.direction(), |direction| Value::text(direction.name()))
            }
            Field::NsFrom => some(self.namespaces.from(), |party| Value::text(party.name())),
            Field::NsTo => some(self.namespaces.to(), |party| Value::text(party.name())),
            Field::NsOwner => some(self.namespaces.owner(key(arg)), |owner| Value::text(owner.exactly())),
            Field::ClockId => some(args::clock(raw), Value::Text),
            Field::SyslogAction => some(args::syslog_action(raw), Value::text),
            Field::DeviceName => some(self.device, |device| Value::text(device.name)),
            Field::DeviceMajor => {
                some(self.device.and_then(|device| device.number), |(major, _)| number(major))
            }
            Field::DeviceMinor => {
                some(self.device.and_then(|device| device.number), |(_, minor)| number(minor))
            }
            Field::DeviceBy => {
                some(self.device, |device| Value::text(if device.by_kernel { "kernel" } else { "claimed" }))
            }
            Field::FdName if raw.path.is_empty() => Value::Absent,
            Field::FdName => Value::Text(escape(raw.path)),
        }
    }
}

impl Enumerate for Event<'_> {
    fn each(&self, put: &mut dyn FnMut(FieldKey<'_>, Value<'_>)) {
        for key in closed_keys() {
            let value = key.reference().map_or(Value::Absent, |field| self.value(field));
            if !matches!(value, Value::Absent) {
                put(*key, value);
            }
        }
        if let Named::Complete(metadata) = self.named {
            for (name, label) in metadata.labels.iter() {
                put(FieldKey { field: Field::ContainerLabel, arg: KeyArg::Name(name) }, Value::text(label));
            }
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
