//! A call's arguments by name: numbers as they were passed, flags and constants by their names.

use std::borrow::Cow;
use std::fmt::Write;

use monitor_common::call::Call;
use monitor_common::caps;
use monitor_common::wire::call_flag;

use crate::decode::RawCall;
use crate::enrich::device::open_flags;
use crate::fields::{ARG_NAMES, Value};
use crate::text::escape;

/// Flags of clone, unshare, setns and clone3 (include/uapi/linux/sched.h).
const CLONE_FLAGS: &[(u64, &str)] = &[
    (0x0000_0080, "CLONE_NEWTIME"),
    (0x0000_0100, "CLONE_VM"),
    (0x0000_0200, "CLONE_FS"),
    (0x0000_0400, "CLONE_FILES"),
    (0x0000_0800, "CLONE_SIGHAND"),
    (0x0000_1000, "CLONE_PIDFD"),
    (0x0000_2000, "CLONE_PTRACE"),
    (0x0000_4000, "CLONE_VFORK"),
    (0x0000_8000, "CLONE_PARENT"),
    (0x0001_0000, "CLONE_THREAD"),
    (0x0002_0000, "CLONE_NEWNS"),
    (0x0004_0000, "CLONE_SYSVSEM"),
    (0x0008_0000, "CLONE_SETTLS"),
    (0x0010_0000, "CLONE_PARENT_SETTID"),
    (0x0020_0000, "CLONE_CHILD_CLEARTID"),
    (0x0080_0000, "CLONE_UNTRACED"),
    (0x0100_0000, "CLONE_CHILD_SETTID"),
    (0x0200_0000, "CLONE_NEWCGROUP"),
    (0x0400_0000, "CLONE_NEWUTS"),
    (0x0800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
    (0x1_0000_0000, "CLONE_CLEAR_SIGHAND"),
    (0x2_0000_0000, "CLONE_INTO_CGROUP"),
];

/// Bits of `timex.modes` (include/uapi/linux/timex.h).
const ADJ_MODES: &[(u64, &str)] = &[
    (0x0001, "ADJ_OFFSET"),
    (0x0002, "ADJ_FREQUENCY"),
    (0x0004, "ADJ_MAXERROR"),
    (0x0008, "ADJ_ESTERROR"),
    (0x0010, "ADJ_STATUS"),
    (0x0020, "ADJ_TIMECONST"),
    (0x0080, "ADJ_TAI"),
    (0x0100, "ADJ_SETOFFSET"),
    (0x1000, "ADJ_MICRO"),
    (0x2000, "ADJ_NANO"),
    (0x4000, "ADJ_TICK"),
    (0x8000, "ADJ_OFFSET_SINGLESHOT"),
];

/// Flags of open beyond the access mode (include/uapi/asm-generic/fcntl.h).
const OPEN_FLAGS: &[(u64, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10000, "O_DSYNC"),
    (0o40000, "O_DIRECT"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
];

const CLOCKS: &[&str] = &[
    "CLOCK_REALTIME",
    "CLOCK_MONOTONIC",
    "CLOCK_PROCESS_CPUTIME_ID",
    "CLOCK_THREAD_CPUTIME_ID",
    "CLOCK_MONOTONIC_RAW",
    "CLOCK_REALTIME_COARSE",
    "CLOCK_MONOTONIC_COARSE",
    "CLOCK_BOOTTIME",
    "CLOCK_REALTIME_ALARM",
    "CLOCK_BOOTTIME_ALARM",
    "CLOCK_SGI_CYCLE",
    "CLOCK_TAI",
];

/// Actions of syslog(2) (include/linux/syslog.h).
pub(crate) const SYSLOG_ACTIONS: &[&str] = &[
    "CLOSE",
    "OPEN",
    "READ",
    "READ_ALL",
    "READ_CLEAR",
    "CLEAR",
    "CONSOLE_OFF",
    "CONSOLE_ON",
    "CONSOLE_LEVEL",
    "SIZE_UNREAD",
    "SIZE_BUFFER",
];

/// The names of set bits, joined by `|`; bits without a name as one hexadecimal number, none as `0`.
fn flags(value: u64, names: &[(u64, &str)]) -> String {
    let mut text = String::new();
    let mut rest = value;
    for (bit, name) in names.iter().filter(|(bit, _)| value & bit != 0) {
        rest &= !bit;
        join(&mut text, name);
    }
    if rest != 0 || text.is_empty() {
        let rest = if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") };
        join(&mut text, &rest);
    }
    text
}

fn join(text: &mut String, part: &str) {
    if !text.is_empty() {
        text.push('|');
    }
    text.push_str(part);
}

/// The flags of calls that make or enter namespaces; `None` for other calls and where they could not be read.
pub fn namespace_flags(call: &RawCall<'_>) -> Option<u64> {
    match call.call {
        Call::Unshare => Some(call.args[0]),
        // The lowest byte of clone's flags is the signal that the parent gets.
        Call::Clone => Some(call.args[0] & !0xff),
        Call::Clone3 => call.has(call_flag::CLAIMED).then_some(call.claimed[0]),
        Call::Setns => Some(call.args[1]),
        _ => None,
    }
}

/// Names of the set namespace flags.
pub fn namespace_flag_names(call: &RawCall<'_>) -> impl Iterator<Item = &'static str> {
    let value = namespace_flags(call).unwrap_or(0);
    CLONE_FLAGS.iter().filter(move |(bit, _)| value & bit != 0).map(|(_, name)| *name)
}

/// Name of the clock that a call would change; the wall clock for calls that know no other.
pub fn clock(call: &RawCall<'_>) -> Option<Cow<'static, str>> {
    let id = match call.call {
        Call::ClockSettime | Call::ClockAdjtime => call.args[0] as u32 as usize,
        Call::Settimeofday | Call::Stime | Call::Adjtimex => 0,
        _ => return None,
    };
    // A negative id stands for a clock device or another process's CPU time.
    Some(
        CLOCKS
            .get(id)
            .map_or_else(|| Cow::Owned((id as u32 as i32).to_string()), |name| Cow::Borrowed(*name)),
    )
}

/// Name of the action that syslog(2) was asked for.
pub fn syslog_action(call: &RawCall<'_>) -> Option<&'static str> {
    match call.call {
        Call::Syslog => Some(SYSLOG_ACTIONS.get(call.args[0] as u32 as usize).copied().unwrap_or("UNKNOWN")),
        _ => None,
    }
}

/// Signed 32-bit argument, as file descriptors and pids are.
fn int(value: u64) -> Value<'static> {
    Value::Number(i64::from(value as u32 as i32))
}

/// A count or an address-sized number; what does not fit into `i64` is shown as the largest.
fn long(value: u64) -> Value<'static> {
    Value::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn owned(text: String) -> Value<'static> {
    Value::Text(Cow::Owned(text))
}

/// The argument with this name of [`ARG_NAMES`]; absent if the call has none of that name.
pub fn argument<'e>(call: &'e RawCall<'_>, name: &str) -> Value<'e> {
    use Call::{
        Adjtimex, Capset, ClockAdjtime, ClockSettime, Clone, Clone3, Creat, Ioperm, Iopl, Open,
        OpenByHandleAt, Openat, Openat2, Setns, Settimeofday, Stime, Syslog, Unshare,
    };
    let args = &call.args;
    let claimed = |i: usize| if call.has(call_flag::CLAIMED) { Some(call.claimed[i]) } else { None };
    let claim = |i: usize, show: fn(u64) -> Value<'static>| claimed(i).map_or(Value::Absent, show);
    let caps = |i: usize| claim(i, |mask| owned(caps::names(mask).collect::<Vec<_>>().join("|")));
    let seconds = |value: u64| Value::Number(value.cast_signed());
    match (call.call, name) {
        (Unshare | Clone | Clone3, "flags") => {
            namespace_flags(call).map_or(Value::Absent, |value| owned(flags(value, CLONE_FLAGS)))
        }
        (Open | Openat | Openat2 | Creat | OpenByHandleAt, "flags") => {
            open_flags(call).map_or(Value::Absent, |value| owned(open_flag_names(value)))
        }
        (Setns, "fd") => int(args[0]),
        (Setns, "nstype") => owned(flags(args[1] & 0xffff_ffff, CLONE_FLAGS)),
        (Syslog, "type") => syslog_action(call).map_or(Value::Absent, Value::text),
        (Syslog, "len") => int(args[2]),
        (Iopl, "level") => int(args[0]),
        (Ioperm, "from") => long(args[0]),
        (Ioperm, "num") => long(args[1]),
        (Ioperm, "turn_on") => int(args[2]),
        (ClockSettime | ClockAdjtime, "clockid") => clock(call).map_or(Value::Absent, Value::Text),
        (Adjtimex | ClockAdjtime, "modes") => claim(0, |modes| owned(flags(modes, ADJ_MODES))),
        (Settimeofday | ClockSettime | Stime, "sec") => claimed(0).map_or(Value::Absent, seconds),
        (Settimeofday, "nsec") => {
            claimed(1).map_or(Value::Absent, |usec| Value::Number(usec.cast_signed().saturating_mul(1000)))
        }
        (ClockSettime, "nsec") => claimed(1).map_or(Value::Absent, seconds),
        (Capset, "target_pid") => claim(0, int),
        (Capset, "effective") => caps(1),
        (Capset, "permitted") => caps(2),
        (Capset, "inheritable") => caps(3),
        (Open | Openat | Openat2 | Creat, "path") if !call.path.is_empty() => Value::Text(escape(call.path)),
        (Openat | Openat2 | OpenByHandleAt, "dirfd") => int(args[0]),
        _ => Value::Absent,
    }
}

fn open_flag_names(value: u64) -> String {
    let access = match value & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    let rest = value & !3;
    // Bit 0o100000 (O_LARGEFILE) is set by every 64-bit libc and says nothing.
    let rest = rest & !0o100_000;
    if rest == 0 { access.to_owned() } else { format!("{access}|{}", flags(rest, OPEN_FLAGS)) }
}

/// All arguments as `name=value`, separated by blanks.
pub fn all(call: &RawCall<'_>) -> String {
    let mut text = String::new();
    for name in ARG_NAMES {
        let value = argument(call, name);
        if value != Value::Absent {
            let blank = if text.is_empty() { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{blank}{name}={value}");
        }
    }
    text
}

/// True if some argument was read from user memory.
pub fn are_claimed(call: &RawCall<'_>) -> bool {
    call.has(call_flag::CLAIMED) || !call.path.is_empty()
}
