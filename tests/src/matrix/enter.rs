//! Doors into namespaces that exist.

use monitor_common::call::Call;

use super::Behaviour::EnterNamespace;
use super::{Door, Entry, NO_DEVICE, door, program, refusable};

/// Each enters the namespace that it is in: no one else's.
const ENTERED: &str = "Namespace entered in container";
const REFUSED: &str = "Namespace entry refused in container";
const RULES: [&str; 2] = [ENTERED, REFUSED];

pub(super) const DOORS: &[Door] = &[
    door(EnterNamespace, "setns", Call::Setns).entries(refusable(
        ["setns-uts", "setns-badfd", "setns-nocap"],
        RULES,
        Entry::Never(NO_DEVICE),
    )),
    door(EnterNamespace, "setns-pidfd", Call::Setns).entries(refusable(
        ["setns-pidfd", "setns-pidfd-nokind", "setns-pidfd-nocap"],
        RULES,
        Entry::Never(NO_DEVICE),
    )),
    program(EnterNamespace, "nsenter", Call::Setns).entries([
        Entry::Program(&["nsenter", "--uts=/proc/self/ns/uts", "true"], ENTERED),
        Entry::Program(&["nsenter", "--uts=/proc/self/ns/ipc", "true"], REFUSED),
        Entry::Program(&["nsenter", "--uts=/proc/self/ns/uts", "true"], REFUSED),
        Entry::Program(&["nsenter", "--uts=/proc/self/ns/uts", "true"], REFUSED),
        Entry::Program(&["nsenter", "--uts=/proc/self/ns/uts", "true"], REFUSED),
        Entry::Never(NO_DEVICE),
    ]),
];
