//! The field catalogue: every name that a condition or an output template may use, its type and its meaning.
//!
//! `docs/fields.md` and `ringfence fields` are printed from here. Names are Falco's where the meaning is
//! Falco's. Rules see events only through [`FieldSource`], so the engine needs neither a kernel nor a daemon.

use std::borrow::Cow;

use arrayvec::ArrayVec;

mod key;
mod name;
mod presence;
mod values;
mod words;

pub use key::{Enumerate, FieldKey, KeyArg, closed_keys};
pub use name::{MAX_NAME_BYTES, Name};
pub use values::{FieldValues, WrongType, owned_list};

/// Type of a field's value; one per field, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Text. Bytes that are not UTF-8 stand as `\xHH`, a backslash as `\\`, so the bytes can be had back.
    Text,
    /// Several texts; `=` and friends are true if any member fits, `in` and `intersects` as Falco has them.
    TextList,
    /// A whole number.
    Number,
    /// True or false.
    Bool,
}

impl FieldType {
    /// The word in documents and messages.
    pub const fn name(self) -> &'static str {
        match self {
            FieldType::Text => "text",
            FieldType::TextList => "list of texts",
            FieldType::Number => "number",
            FieldType::Bool => "bool",
        }
    }
}

/// What may stand in brackets after a field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgSpec {
    /// Nothing.
    None,
    /// A number up to the limit, as in `proc.aname[2]`. Without it a comparison is true if it is for any index from 1;
    /// elsewhere it has the meaning of index 1.
    Index {
        /// Highest index.
        max: u16,
    },
    /// One of these words, as in `evt.arg[flags]`; it may not be left out.
    Key(&'static [&'static str]),
    /// Any text, as in `container.label[app]`; it may not be left out.
    Name,
}

/// The argument of a field as written, checked against its [`ArgSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldArg {
    /// None was given.
    None,
    /// A number.
    Index(u16),
    /// Position in the list of [`ArgSpec::Key`].
    Key(u16),
    /// The text for [`ArgSpec::Name`].
    Name(Name),
}

/// A field together with its argument: what a compiled rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    /// Which field.
    pub field: Field,
    /// Its argument.
    pub arg: FieldArg,
}

/// What a catalogue row says.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// The field.
    pub field: Field,
    /// Its dotted name.
    pub name: &'static str,
    /// Its type.
    pub ty: FieldType,
    /// Its argument.
    pub arg: ArgSpec,
    /// Its meaning, for people.
    pub doc: &'static str,
}

/// At most this many members has a [`Value::List`] (the capabilities are the longest list).
pub const MAX_LIST: usize = 64;

/// The members of a list-valued field.
pub type TextList<'e> = ArrayVec<Cow<'e, str>, MAX_LIST>;

/// A field's value for one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'e> {
    /// The event does not have it: every comparison is false, `exists` too.
    Absent,
    /// See [`FieldType::Text`].
    Text(Cow<'e, str>),
    /// See [`FieldType::TextList`]. Boxed, so that a plain value stays small.
    List(Box<TextList<'e>>),
    /// See [`FieldType::Number`].
    Number(i64),
    /// See [`FieldType::Bool`].
    Bool(bool),
}

impl<'e> Value<'e> {
    /// A text that lives as long as the event.
    pub fn text(text: &'e str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }

    /// A list of static or borrowed texts; members beyond [`MAX_LIST`] are left out.
    pub fn list(members: impl IntoIterator<Item = &'e str>) -> Self {
        Value::List(Box::new(members.into_iter().take(MAX_LIST).map(Cow::Borrowed).collect()))
    }
}

impl Value<'_> {
    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Absent => Value::Absent,
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::List(members) => owned_list(members.into_iter().map(Cow::into_owned)),
            Value::Number(number) => Value::Number(number),
            Value::Bool(flag) => Value::Bool(flag),
        }
    }
}

impl std::fmt::Display for Value<'_> {
    /// As templates print it; an absent value as `<NA>`, list members separated by blanks.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Absent => f.write_str("<NA>"),
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => write!(f, "{number}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::List(members) => {
                for (i, member) in members.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" ")?;
                    }
                    f.write_str(member)?;
                }
                Ok(())
            }
        }
    }
}

/// Something that has fields: a live event, a recorded one, a test's.
pub trait FieldSource {
    /// The value of the field for this event. Pure: the same answer however often it is asked.
    fn value(&self, field: FieldRef) -> Value<'_>;
}

/// Why a field reference is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No field of that name.
    #[error("unknown field `{name}`")]
    Unknown {
        /// As written.
        name: String,
    },
    /// Brackets after a field that takes none.
    #[error("field `{name}` takes no argument")]
    NoArg {
        /// The field.
        name: &'static str,
    },
    /// No brackets after a field that needs them.
    #[error("field `{name}` needs an argument in brackets{}{}", if keys.is_empty() { "" } else { ": one of " }, keys.join(", "))]
    ArgNeeded {
        /// The field.
        name: &'static str,
        /// What it accepts; empty if it takes any text.
        keys: &'static [&'static str],
    },
    /// An argument that the field does not accept.
    #[error("field `{name}` does not accept the argument `{arg}`: {expected}")]
    BadArg {
        /// The field.
        name: &'static str,
        /// As written.
        arg: String,
        /// What it accepts.
        expected: String,
    },
}

/// Finds a field by name and checks its argument.
///
/// # Errors
/// [`FieldError`] says whether the name or the argument is wrong.
pub fn resolve(name: &str, arg: Option<&str>) -> Result<FieldRef, FieldError> {
    let spec = CATALOGUE
        .iter()
        .find(|spec| spec.name == name)
        .ok_or_else(|| FieldError::Unknown { name: name.to_owned() })?;
    let arg = match (spec.arg, arg) {
        (ArgSpec::None, None) | (ArgSpec::Index { .. }, None) => FieldArg::None,
        (ArgSpec::None, Some(_)) => return Err(FieldError::NoArg { name: spec.name }),
        (ArgSpec::Key(keys), None) => return Err(FieldError::ArgNeeded { name: spec.name, keys }),
        (ArgSpec::Name, None) => return Err(FieldError::ArgNeeded { name: spec.name, keys: &[] }),
        (ArgSpec::Name, Some(arg)) => FieldArg::Name(Name::new(arg).ok_or_else(|| FieldError::BadArg {
            name: spec.name,
            arg: arg.to_owned(),
            expected: format!("a text of at most {MAX_NAME_BYTES} bytes"),
        })?),
        (ArgSpec::Index { max }, Some(arg)) => match arg.parse::<u16>() {
            Ok(index) if index <= max => FieldArg::Index(index),
            _ => {
                return Err(FieldError::BadArg {
                    name: spec.name,
                    arg: arg.to_owned(),
                    expected: format!("a number from 0 to {max}"),
                });
            }
        },
        (ArgSpec::Key(keys), Some(arg)) => match keys.iter().position(|key| *key == arg) {
            Some(position) => FieldArg::Key(position as u16),
            None => {
                return Err(FieldError::BadArg {
                    name: spec.name,
                    arg: arg.to_owned(),
                    expected: format!("one of {}", keys.join(", ")),
                });
            }
        },
    };
    Ok(FieldRef { field: spec.field, arg })
}

impl Field {
    /// The catalogue row of this field.
    pub fn spec(self) -> &'static FieldSpec {
        &CATALOGUE[self as usize]
    }
}

/// The kinds of namespace, as `ns.*` fields take them in brackets; the order is that of the wire.
pub const NS_KINDS: &[&str] = &["mnt", "pid", "user", "net", "uts", "ipc", "cgroup", "time"];

/// The arguments of calls, as `evt.arg` takes them in brackets.
pub const ARG_NAMES: &[&str] = &[
    "flags",
    "fd",
    "nstype",
    "type",
    "len",
    "level",
    "from",
    "num",
    "turn_on",
    "clockid",
    "modes",
    "sec",
    "nsec",
    "effective",
    "permitted",
    "inheritable",
    "target_pid",
    "path",
    "dirfd",
];

/// Makes [`Field`] and [`CATALOGUE`] from one list, so that they are always in step.
macro_rules! fields {
    ($($variant:ident $name:literal $ty:ident $arg:expr, $doc:literal;)*) => {
        /// A field of the catalogue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Field {
            // As HTML: in Markdown, brackets in a meaning would be taken for links.
            $(#[doc = concat!("<p><code>", $name, "</code>: ", $doc, "</p>")] $variant,)*
        }

        /// Every field, in the order of [`Field`]'s discriminants.
        pub const CATALOGUE: &[FieldSpec] = &[
            $(FieldSpec { field: Field::$variant, name: $name, ty: FieldType::$ty, arg: $arg, doc: $doc },)*
        ];
    };
}

fields! {
    EvtType "evt.type" Text ArgSpec::None, "The watched call: capset, setns, unshare, clone, clone3, settimeofday, clock_settime, stime, adjtimex, clock_adjtime, syslog, iopl, ioperm, open, creat, openat, openat2 or open_by_handle_at. Or what no single call tells: entered (a process from outside began its first program in a container that already ran, as docker exec does), escaped (a process was found in namespaces that are not those of its container), capability (the kernel checked a capability for the first time in this way: one event per cgroup, capability, outcome, kind of user namespace and group of calls), gained (capabilities grew by a call or an exec that may do so), gained_unseen (they were found to have grown, and nothing that may do so was seen: what an exploit of the kernel leaves).";
    EvtCategory "evt.category" Text ArgSpec::None, "What the call is about: capability, namespace, clock, kernel-log or raw-io.";
    EvtVerdict "evt.verdict" Text ArgSpec::None, "allowed, refused, or failed (a plain error such as EINVAL). A capability check that found nothing is refused. Whatever else is no call has happened, so it is allowed.";
    EvtRefusedBy "evt.refused_by" Text ArgSpec::None, "Who refused: seccomp, capability, lsm, device-cgroup or other; absent unless refused.";
    EvtRes "evt.res" Text ArgSpec::None, "SUCCESS, or the name of the error, such as EPERM; absent if the event is no call.";
    EvtRawRes "evt.rawres" Number ArgSpec::None, "The call's return value; an error is negative.";
    EvtFailed "evt.failed" Bool ArgSpec::None, "True if the call returned an error.";
    EvtAbi "evt.abi" Text ArgSpec::None, "The system call table used: x86_64, i386 or x32.";
    EvtNr "evt.nr" Number ArgSpec::None, "The system call's number in that table.";
    EvtArg "evt.arg" Text ArgSpec::Key(ARG_NAMES), "An argument of the call by name, decoded (flags by their names, joined by `|`). What stands in user memory is a claim: see evt.args_claimed.";
    EvtFlags "evt.flags" TextList ArgSpec::None, "The flags of unshare, setns, clone and clone3 by name.";
    EvtArgs "evt.args" Text ArgSpec::None, "All arguments of the call, decoded, as `name=value` separated by blanks.";
    EvtArgsClaimed "evt.args_claimed" Bool ArgSpec::None, "True if some argument was read from user memory, which the caller can rewrite at any time.";
    EvtBootNs "evt.boot_ns" Number ArgSpec::None, "When the call returned: nanoseconds since boot.";
    EvtPhase "evt.phase" Text ArgSpec::None, "running or starting: whether the caller's container was still being set up by its runtime; absent on the host. Of capability and gained also starting if the process came from another cgroup and has begun no program of its own since, as a runtime that enters the container.";
    ContainerId "container.id" Text ArgSpec::None, "The container's id as its runtime knows it, first 12 digits (for lxc and systemd-nspawn its name); `host`, or `unknown` if the cgroup is not known.";
    ContainerFullId "container.full_id" Text ArgSpec::None, "The container's whole id; absent on the host.";
    ContainerRuntime "container.runtime" Text ArgSpec::None, "docker, containerd, cri-o, podman, kubernetes (runtime not known), lxc, systemd-nspawn, `host`, or `unknown` as in container.id.";
    ContainerType "container.type" Text ArgSpec::None, "Falco's name for container.runtime.";
    ContainerChain "container.chain" TextList ArgSpec::None, "The ids of the container and of those that it lies in, deepest first, each as in container.id; absent on the host.";
    ContainerMetadata "container.metadata" Text ArgSpec::None, "What is known of what the runtime wrote about the container: complete, pending (not read in the time that an alert waits), or missing (nothing was found, or nothing that could be believed); absent on the host.";
    ContainerName "container.name" Text ArgSpec::None, "The container's name, as its runtime wrote it; in a Kubernetes pod that of the container, for the pod's sandbox the pod's. This field and all others that need what the runtime wrote are absent unless container.metadata is complete.";
    ContainerImage "container.image" Text ArgSpec::None, "The image as it was asked for, such as docker.io/library/nginx:1.27.";
    ContainerImageRepository "container.image.repository" Text ArgSpec::None, "The image's name without tag and digest.";
    ContainerImageTag "container.image.tag" Text ArgSpec::None, "The image's tag; absent if it was named by its digest or id.";
    ContainerImageId "container.image.id" Text ArgSpec::None, "The image's id as the runtime has it: the digest of its configuration, without `sha256:`.";
    ContainerImageDigest "container.image.digest" Text ArgSpec::None, "Digest of the image's manifest.";
    ContainerLabel "container.label" Text ArgSpec::Name, "A label of the container by its key, such as container.label[app] or container.label[com.example/team]; a key with blanks, quotes or brackets stands in quotes. At most 64 labels are kept.";
    ContainerPrivileged "container.privileged" Bool ArgSpec::None, "Whether the runtime was told to start the container with everything allowed; absent if it did not say.";
    K8sPodName "k8s.pod.name" Text ArgSpec::None, "Name of the Kubernetes pod; absent elsewhere.";
    K8sNsName "k8s.ns.name" Text ArgSpec::None, "The pod's Kubernetes namespace.";
    K8sContainerName "k8s.container.name" Text ArgSpec::None, "The container's name in its pod; absent for the pod's sandbox.";
    K8sPodUid "k8s.pod.uid" Text ArgSpec::None, "UID of the Kubernetes pod, from the cgroup's path; absent elsewhere.";
    K8sPodQos "k8s.pod.qos" Text ArgSpec::None, "The pod's class, from the cgroup's path: Guaranteed, Burstable or BestEffort; absent elsewhere.";
    HostUnit "host.unit" Text ArgSpec::None, "Unit of the host's systemd that the caller, or its outermost container, lies in, such as ssh.service; what a user's own manager runs is in user@UID.service.";
    HostSession "host.session" Text ArgSpec::None, "Id of the login session that the caller is in, from the cgroup's path; absent elsewhere.";
    CgroupId "cgroup.id" Number ArgSpec::None, "The kernel's id (inode number) of the caller's directory in the cgroup hierarchy that Ringfence goes by: v2, or that of a v1 controller; absent if none is mounted.";
    CgroupPath "cgroup.path" Text ArgSpec::None, "Path of that directory below the cgroup mount; absent if it was gone before it could be read.";
    ProcName "proc.name" Text ArgSpec::None, "The thread's name (comm): at most 15 bytes, chosen by the process, so only for display.";
    ProcExepath "proc.exepath" Text ArgSpec::None, "Path of the running executable in its mount namespace.";
    ProcExeIno "proc.exe_ino" Number ArgSpec::None, "Inode number of the executable.";
    ProcExeDev "proc.exe_dev" Text ArgSpec::None, "Device of the executable's file system, as major:minor.";
    ProcIsExeUpperLayer "proc.is_exe_upper_layer" Bool ArgSpec::None, "True if the executable lies on an overlayfs and has a file of its own in the upper layer: it was made or changed after the container's start (a changed owner or mode suffices). Absent for programs that ran before Ringfence started.";
    ProcIsExeFromMemfd "proc.is_exe_from_memfd" Bool ArgSpec::None, "True if the executable is what memfd_create(2) makes: a file in memory that lies in no directory.";
    ProcCmdline "proc.cmdline" Text ArgSpec::None, "proc.name and proc.args as they were when the program was exec'ed, separated by a blank.";
    ProcArgs "proc.args" Text ArgSpec::None, "The program's arguments without the first, joined by blanks, as the exec was given them; of more than 1,024 bytes the rest is shown as `...`. For programs that ran before Ringfence started it is a claim.";
    ProcExe "proc.exe" Text ArgSpec::None, "The first argument of the program, argv[0]: by custom its name, but whoever starts it chooses it.";
    ProcCwd "proc.cwd" Text ArgSpec::None, "The working directory when the program was exec'ed, or for programs that ran before, when Ringfence started; a later chdir(2) is not followed.";
    ProcTty "proc.tty" Number ArgSpec::None, "Device number of the controlling terminal when the program was exec'ed, as proc(5) has it (34816 is /dev/pts/0); 0 without one.";
    ProcSid "proc.sid" Number ArgSpec::None, "Session id as the host sees it: the process id of the session's leader.";
    ProcPid "proc.pid" Number ArgSpec::None, "Process id (TGID) as the host sees it.";
    ProcVpid "proc.vpid" Number ArgSpec::None, "Process id inside the process's own pid namespace.";
    ProcPpid "proc.ppid" Number ArgSpec::None, "The parent's process id as the host sees it.";
    ProcPname "proc.pname" Text ArgSpec::None, "The parent's name.";
    ProcPexepath "proc.pexepath" Text ArgSpec::None, "The parent's executable.";
    ProcPcmdline "proc.pcmdline" Text ArgSpec::None, "The parent's proc.cmdline.";
    ProcAname "proc.aname" Text ArgSpec::Index { max: 8 }, "Name of an ancestor: [0] is the process, [1] its parent, and so on. A comparison without a number is true if it is for any ancestor; in an output that is the parent.";
    ProcApid "proc.apid" Number ArgSpec::Index { max: 8 }, "Process id of an ancestor, counted as in proc.aname.";
    ProcAexepath "proc.aexepath" Text ArgSpec::Index { max: 8 }, "Executable of an ancestor, counted as in proc.aname.";
    ProcAcmdline "proc.acmdline" Text ArgSpec::Index { max: 8 }, "proc.cmdline of an ancestor, counted as in proc.aname.";
    ProcId "proc.id" Text ArgSpec::None, "The process's id for ever, also when its number is reused: the first 8 digits of the boot's id, its start in clock ticks since boot, and proc.pid, as in `1f0c2a4b-123456-4242`.";
    ProcParentId "proc.parent_id" Text ArgSpec::None, "The parent's proc.id.";
    ProcStart "proc.start" Number ArgSpec::None, "When the process started: nanoseconds since boot. With proc.pid it names a process for ever.";
    ProcEntry "proc.entry" Text ArgSpec::None, "How the process came into its container: main (it descends from the container's first program) or exec (from a program that somebody outside started in it later, as docker exec does). Absent on the host and where nobody saw it.";
    ProcEscaped "proc.escaped" TextList ArgSpec::None, "Kinds of namespace in which the process is in the host's or another container's, though its container has its own. For a process that left its container's cgroup: the kinds of which the container has its own.";
    ThreadTid "thread.tid" Number ArgSpec::None, "Thread id as the host sees it.";
    UserUid "user.uid" Number ArgSpec::None, "Effective user id, in the initial user namespace.";
    UserName "user.name" Text ArgSpec::None, "The host's name for that id; absent if it has none.";
    UserLoginuid "user.loginuid" Number ArgSpec::None, "User id of the login session; -1 if there was no login.";
    UserLoginname "user.loginname" Text ArgSpec::None, "The host's name for user.loginuid; absent if it has none, and without a login.";
    GroupGid "group.gid" Number ArgSpec::None, "Effective group id, in the initial user namespace.";
    GroupName "group.name" Text ArgSpec::None, "The host's name for that id; absent if it has none.";
    CapBefore "cap.before" TextList ArgSpec::None, "Effective capabilities before the call; absent where nobody could see them. Of gained and gained_unseen the last that were known.";
    CapAfter "cap.after" TextList ArgSpec::None, "Effective capabilities after the call; of capability, gained and gained_unseen at that moment.";
    CapGained "cap.gained" TextList ArgSpec::None, "Effective capabilities that the call added. If gained or gained_unseen led into another user namespace, all of them: there the process had none.";
    CapDropped "cap.dropped" TextList ArgSpec::None, "Effective capabilities that the call took away.";
    CapDenied "cap.denied" TextList ArgSpec::None, "Capabilities that the kernel asked for during the call, or in the check that a capability event tells of, and did not find.";
    CapUsed "cap.used" TextList ArgSpec::None, "Capabilities that the kernel asked for during the call, or in the check that a capability event tells of, and found.";
    CapName "cap.name" Text ArgSpec::None, "The capability that a capability event is about, such as CAP_SYS_TIME.";
    CapAudited "cap.audited" Bool ArgSpec::None, "Of a capability event: false if the kernel only looked, so that a denial refused nothing that was asked for; absent where that cannot be told (from 6.14 on in the tracepoint mode).";
    CapCall "cap.call" Text ArgSpec::None, "The system call that made the check of a capability event, by name; absent outside of one, as in a page fault.";
    CapUserNs "cap.user_ns" Text ArgSpec::None, "initial or child: the user namespace whose rights a check was about (child also for whoever made a child namespace and is asked for a right there), or in which the capabilities of gained and gained_unseen count. Those of a child lead to nothing that belongs to the host itself.";
    CapDoor "cap.door" Text ArgSpec::None, "By what the capabilities of a gained event grew: capset, exec, setuid, setreuid, setresuid, setfsuid, prctl (an ambient raise), or a user namespace by unshare, setns or clone (clone3 too). Of gained_unseen what the process did when it was noticed, if that was one of these.";
    CapGainedPermitted "cap.gained_permitted" TextList ArgSpec::None, "Permitted capabilities that were added, as in cap.gained.";
    CapPermitted "cap.permitted" TextList ArgSpec::None, "Permitted capabilities after a gain: what the process can make effective.";
    CapPermittedBefore "cap.permitted_before" TextList ArgSpec::None, "Permitted capabilities before it.";
    CapInheritable "cap.inheritable" TextList ArgSpec::None, "Inheritable capabilities after a gain.";
    CapInheritableBefore "cap.inheritable_before" TextList ArgSpec::None, "Inheritable capabilities before it.";
    CapBounding "cap.bounding" TextList ArgSpec::None, "Bounding capabilities after a gain: what an exec can give at most.";
    CapBoundingBefore "cap.bounding_before" TextList ArgSpec::None, "Bounding capabilities before it.";
    CapAmbient "cap.ambient" TextList ArgSpec::None, "Ambient capabilities after a gain: what every program that the process execs keeps.";
    CapAmbientBefore "cap.ambient_before" TextList ArgSpec::None, "Ambient capabilities before it.";
    ThreadCapEffective "thread.cap_effective" TextList ArgSpec::None, "Falco's name for cap.after.";
    NsBefore "ns.before" Number ArgSpec::Key(NS_KINDS), "Inode of the caller's namespace of a kind before the call.";
    NsAfter "ns.after" Number ArgSpec::Key(NS_KINDS), "Inode after the call; for clone the child's. The pid namespace is the one that children get.";
    NsChanged "ns.changed" TextList ArgSpec::None, "Kinds of namespace that the call changed: mnt, pid, user, net, uts, ipc, cgroup, time.";
    NsHost "ns.host" TextList ArgSpec::None, "Kinds of namespace in which the caller (for clone the child) is, after the call, in the host's own.";
    NsEnteredHost "ns.entered_host" TextList ArgSpec::None, "Kinds of namespace in which the call moved the caller into the host's own.";
    NsDirection "ns.direction" Text ArgSpec::None, "From whose namespaces into whose a setns, unshare, clone or clone3 that succeeded led: host_to_container, container_to_host, container_to_container, own (such as it belongs to), or new (made by the call). If several kinds changed, the worst of them. Absent for other calls, and if nobody knows whose the namespace is. Of entered and escaped the same for the process as a whole.";
    NsFrom "ns.from" Text ArgSpec::None, "Where the caller belongs, if ns.direction was judged: host, a container (as in container.id), or unknown.";
    NsTo "ns.to" Text ArgSpec::None, "Whose the namespace is that ns.direction speaks of: host, a container, or unknown.";
    NsOwner "ns.owner" Text ArgSpec::Key(NS_KINDS), "Whose the namespace of a kind is in which the caller (for clone the child) is after the call: host, host-made (made by a process of the host, as services and `ip netns` do), a container, or unknown. What a container shares belongs to the one that had it first.";
    ClockId "clock.id" Text ArgSpec::None, "The clock that was to be changed, by name.";
    SyslogAction "syslog.action" Text ArgSpec::None, "What syslog(2) was asked for: READ, READ_ALL, READ_CLEAR, CLEAR, CONSOLE_OFF, CONSOLE_ON, CONSOLE_LEVEL, SIZE_UNREAD, SIZE_BUFFER, OPEN or CLOSE.";
    DeviceName "device.name" Text ArgSpec::None, "The watched device or file that was opened: mem, kmem, port, kmsg, msr, proc_kmsg or proc_kcore.";
    DeviceMajor "device.major" Number ArgSpec::None, "Its major number; absent for files in /proc.";
    DeviceMinor "device.minor" Number ArgSpec::None, "Its minor number; absent for files in /proc.";
    DeviceBy "device.by" Text ArgSpec::None, "How the device was told: kernel (the inode itself), or claimed (from the path that the caller gave).";
    FdName "fd.name" Text ArgSpec::None, "The path as the caller gave it: a claim.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_is_in_the_order_of_the_enum_and_names_are_unique() {
        for (i, spec) in CATALOGUE.iter().enumerate() {
            assert_eq!(spec.field as usize, i, "{}", spec.name);
            assert_eq!(CATALOGUE.iter().filter(|other| other.name == spec.name).count(), 1, "{}", spec.name);
            assert!(spec.doc.ends_with('.'), "{}: a description is a sentence", spec.name);
        }
    }

    #[test]
    fn arguments_are_checked() {
        assert_eq!(resolve("evt.type", None).unwrap().field, Field::EvtType);
        assert_eq!(resolve("proc.aname", Some("2")).unwrap().arg, FieldArg::Index(2));
        assert_eq!(resolve("proc.aname", None).unwrap().arg, FieldArg::None);
        assert!(matches!(resolve("proc.aname", Some("9")), Err(FieldError::BadArg { .. })));
        assert!(matches!(resolve("evt.type", Some("x")), Err(FieldError::NoArg { .. })));
        assert!(matches!(resolve("evt.arg", None), Err(FieldError::ArgNeeded { .. })));
        assert!(matches!(resolve("evt.arg", Some("nope")), Err(FieldError::BadArg { .. })));
        let FieldArg::Name(key) = resolve("container.label", Some("a.b/c")).unwrap().arg else { panic!() };
        assert_eq!(key.as_str(), "a.b/c");
        assert!(matches!(resolve("container.label", None), Err(FieldError::ArgNeeded { .. })));
        assert!(matches!(resolve("container.label", Some(&"x".repeat(300))), Err(FieldError::BadArg { .. })));
        assert!(matches!(resolve("evt.typ", None), Err(FieldError::Unknown { .. })));
    }
}
