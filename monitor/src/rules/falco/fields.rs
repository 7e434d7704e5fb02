//! The fields of Falco's documentation for system calls that Ringfence has, too: what ours is for each.

use crate::fields::FieldType::{self, Bool, Number, Text};

use super::derived::Derived;

/// A field of Falco's that Ringfence has or can make up for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Falco's name.
    pub(super) name: &'static str,
    /// The type of its values here.
    pub(super) ty: FieldType,
    /// What ours is.
    pub(super) ours: Ours,
}

/// What Ringfence has for a field of Falco's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ours {
    /// The field of the same name means the same.
    Same,
    /// The field of the same name means nearly the same: how it differs.
    Like(&'static str),
    /// Something else stands for it; how that differs, if it does.
    As(Stand, Option<&'static str>),
}

/// What stands for a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stand {
    /// A field of ours, with its argument.
    Field(&'static str, Option<&'static str>),
    /// A field of ours that takes the same argument.
    Ancestor(&'static str),
    /// A text that never changes.
    Text(&'static str),
    /// A number that never changes.
    Number(i64),
    /// A truth value that never changes.
    Bool(bool),
    /// A text that every watched open has.
    OfOpens(&'static str),
    /// Worked out from other fields.
    Derived(Derived),
}

const fn row(name: &'static str, ty: FieldType, ours: Ours) -> Row {
    Row { name, ty, ours }
}

use Ours::{As, Like, Same};

const OPENS: Option<&str> = Some("of watched opens only");
const CLAIM: Option<&str> = Some("the path as the caller gave it, of watched opens only");
const AS_EXECED: &str = "name and arguments as the program was exec'ed, at most 1,024 bytes of the arguments";
const EIGHT: &str = "the nearest 8 ancestors";
const HOSTS: &str = "the name on the host";

/// Every such field, in the order of Falco's documentation.
pub(super) const ROWS: &[Row] = &[
    row(
        "evt.num",
        Number,
        As(Stand::Number(1), Some("always 1: serves the idioms `evt.num = 0` and `evt.num >= 0`")),
    ),
    row("evt.source", Text, As(Stand::Text("syscall"), None)),
    row("evt.is_async", Bool, As(Stand::Bool(false), None)),
    row("evt.dir", Text, As(Stand::Text("<"), Some("every event is told when the call has returned"))),
    row("evt.type", Text, Same),
    row("syscall.type", Text, As(Stand::Field("evt.type", None), Some("also set for what is no call"))),
    row("evt.args", Text, Like("the arguments that Ringfence decodes, by its own names")),
    row(
        "evt.info",
        Text,
        As(Stand::Field("evt.args", None), Some("the arguments that Ringfence decodes, by its own names")),
    ),
    row("evt.res", Text, Same),
    row("evt.rawres", Number, Same),
    row("evt.failed", Bool, Same),
    row("evt.count", Number, As(Stand::Number(1), None)),
    row("evt.abspath", Text, As(Stand::Field("fd.name", None), CLAIM)),
    row("evt.is_open_read", Bool, As(Stand::Derived(Derived::OpenRead), OPENS)),
    row("evt.is_open_write", Bool, As(Stand::Derived(Derived::OpenWrite), OPENS)),
    row(
        "evt.is_open_create",
        Bool,
        As(Stand::Derived(Derived::OpenCreate), Some("whether O_CREAT was asked for, of watched opens only")),
    ),
    row("proc.exe", Text, Same),
    row(
        "proc.pexe",
        Text,
        As(Stand::Field("proc.pexepath", None), Some("the path of the executable, not argv[0]")),
    ),
    row(
        "proc.aexe",
        Text,
        As(
            Stand::Ancestor("proc.aexepath"),
            Some("the path of the executable, not argv[0]; the nearest 8 ancestors"),
        ),
    ),
    row("proc.exepath", Text, Same),
    row("proc.pexepath", Text, Same),
    row("proc.aexepath", Text, Like(EIGHT)),
    row("proc.name", Text, Same),
    row("proc.pname", Text, Same),
    row("proc.aname", Text, Like(EIGHT)),
    row("proc.args", Text, Like("at most 1,024 bytes of the arguments")),
    row("proc.cmdline", Text, Like(AS_EXECED)),
    row("proc.pcmdline", Text, Like(AS_EXECED)),
    row("proc.acmdline", Text, Like(EIGHT)),
    row(
        "proc.cmdlenargs",
        Number,
        As(
            Stand::Derived(Derived::ArgsLength),
            Some("at most 1,024 bytes are counted, blanks between arguments included"),
        ),
    ),
    row(
        "proc.exeline",
        Text,
        As(
            Stand::Derived(Derived::Exeline),
            Some("argv[0] and at most 1,024 bytes of the arguments, as the program was exec'ed"),
        ),
    ),
    row(
        "proc.cwd",
        Text,
        Like("the directory in which the program was exec'ed; a later chdir is not followed"),
    ),
    row("proc.tty", Number, Like("the terminal that the program had when it was exec'ed")),
    row("proc.pid", Number, Same),
    row("proc.ppid", Number, Same),
    row("proc.apid", Number, Like(EIGHT)),
    row("proc.vpid", Number, Same),
    row("proc.sid", Number, Same),
    row(
        "proc.duration",
        Number,
        As(Stand::Derived(Derived::Age), Some("since the process was made; to a hundredth of a second")),
    ),
    row("proc.is_exe_upper_layer", Bool, Same),
    row("proc.is_exe_from_memfd", Bool, Same),
    row(
        "proc.is_sid_leader",
        Bool,
        As(Stand::Derived(Derived::LeadsSession), Some("by the ids that the host sees")),
    ),
    row("proc.exe_ino", Number, Same),
    row("thread.cap_effective", Text, Like("a list of names, where Falco has one text")),
    row("thread.tid", Number, Same),
    row("thread.ismain", Bool, As(Stand::Derived(Derived::IsMain), None)),
    row("thread.cgroups", Text, As(Stand::Field("cgroup.path", None), Some("the path in one hierarchy"))),
    row("user.uid", Number, Same),
    row("user.name", Text, Like(HOSTS)),
    row("user.loginuid", Number, Same),
    row("user.loginname", Text, Like(HOSTS)),
    row("group.gid", Number, Same),
    row("group.name", Text, Like(HOSTS)),
    row(
        "fd.num",
        Number,
        As(
            Stand::Derived(Derived::FdNumber),
            Some("what the open returned, -1 if it failed; of watched opens only"),
        ),
    ),
    row("fd.type", Text, As(Stand::OfOpens("file"), OPENS)),
    row("fd.typechar", Text, As(Stand::OfOpens("f"), OPENS)),
    row("fd.name", Text, Like("the path as the caller gave it, of watched opens only")),
    row(
        "fd.directory",
        Text,
        As(
            Stand::Derived(Derived::Directory),
            Some("from the path as the caller gave it, of watched opens only"),
        ),
    ),
    row(
        "fd.filename",
        Text,
        As(
            Stand::Derived(Derived::FileName),
            Some("from the path as the caller gave it, of watched opens only"),
        ),
    ),
    row("fd.dev.major", Number, As(Stand::Field("device.major", None), Some("of watched device nodes only"))),
    row("fd.dev.minor", Number, As(Stand::Field("device.minor", None), Some("of watched device nodes only"))),
    row("fd.nameraw", Text, As(Stand::Field("evt.arg", Some("path")), OPENS)),
    row("fs.path.name", Text, As(Stand::Field("fd.name", None), CLAIM)),
    row("fs.path.nameraw", Text, As(Stand::Field("evt.arg", Some("path")), OPENS)),
    row("container.id", Text, Same),
    row("container.full_id", Text, Same),
    row("container.name", Text, Same),
    row("container.image", Text, Same),
    row("container.image.id", Text, Like("the whole digest, of which Falco shows 12 digits")),
    row("container.type", Text, Same),
    row("container.privileged", Bool, Like("only where the runtime wrote it down")),
    row("container.image.repository", Text, Same),
    row("container.image.tag", Text, Same),
    row("container.image.digest", Text, Same),
    row("container.label", Text, Same),
    row("k8s.pod.name", Text, Same),
    row("k8s.ns.name", Text, Same),
    row("k8s.pod.id", Text, As(Stand::Field("k8s.pod.uid", None), None)),
    row("k8s.pod.uid", Text, Same),
];
