//! Fields that tell of a process and of what it runs.

use std::borrow::Cow;

use crate::decode::ProcessKey;
use crate::enrich::Host;
use crate::enrich::process::{Process, StableId};
use crate::fields::Value;

/// Name and arguments, as `proc.cmdline` has them: the name at the exec, so that the process cannot change it later.
pub(super) fn command_line(process: &Process) -> Value<'_> {
    match &process.program.arguments {
        None => Value::Absent,
        Some(arguments) if arguments.rest.is_empty() => Value::text(&process.comm),
        Some(arguments) => Value::Text(Cow::Owned(format!("{} {}", process.comm, arguments.rest))),
    }
}

/// A process's id for ever; absent for the kernel, and if the boot's id is not known.
pub(super) fn stable_id(host: &Host, key: ProcessKey) -> Value<'static> {
    let Some(boot) = host.boot_id.filter(|_| key.tgid.0 != 0) else { return Value::Absent };
    let StableId { tgid, ticks } = key.into();
    Value::Text(Cow::Owned(format!("{boot:08x}-{ticks}-{}", tgid.0)))
}
