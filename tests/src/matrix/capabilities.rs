//! Doors to other capabilities.

use monitor_common::call::Call;

use super::Behaviour::Capabilities;
use super::{Door, Entry, NO_DEVICE, WELL_FORMED, door, program, unwatched};

const DROPPED: &str = "Capabilities dropped in container";
const REFUSED: &str = "Capability change refused in container";

const COMPARED: &str = "not made: such a refusal is seen and put down to the capabilities, because nothing tells a module's no (SELinux's or a BPF program's) from the kernel's own comparison of the sets";

pub(super) const DOORS: &[Door] = &[
    door(Capabilities, "capset", Call::Capset).entries([
        Entry::Attempt("capset-drop", DROPPED),
        Entry::Attempt("capset-badpointer", REFUSED),
        Entry::Attempt("capset-drop", REFUSED),
        Entry::Attempt("capset-gain", REFUSED),
        Entry::Never(COMPARED),
        Entry::Never(NO_DEVICE),
    ]),
    program(Capabilities, "capsh", Call::Capset).entries([
        Entry::Program(&["capsh", "--caps=cap_setpcap+ep"], DROPPED),
        Entry::Never(WELL_FORMED),
        Entry::Program(&["capsh", "--caps=cap_setpcap+ep"], REFUSED),
        Entry::Program(&["capsh", "--caps=cap_sys_admin+ep"], REFUSED),
        Entry::Never(COMPARED),
        Entry::Never(NO_DEVICE),
    ]),
    program(Capabilities, "setpriv", Call::Capset).entries([
        Entry::Program(&["setpriv", "--inh-caps=+kill", "true"], DROPPED),
        Entry::Never(WELL_FORMED),
        Entry::Program(&["setpriv", "--inh-caps=+kill", "true"], REFUSED),
        Entry::Never(
            "setpriv itself compares the sets that it is asked for, and gives up before it makes the call",
        ),
        Entry::Never(COMPARED),
        Entry::Never(NO_DEVICE),
    ]),
    unwatched(
        Capabilities,
        "prctl",
        Call::Capset,
        "not watched: prctl takes from the bounding set and moves what is permitted into the ambient one; it gains nothing",
    ),
    unwatched(
        Capabilities,
        "setuid",
        Call::Capset,
        "not watched: a change of user changes capabilities as a consequence, on each login and each start of a service",
    ),
    unwatched(
        Capabilities,
        "execve",
        Call::Capset,
        "not watched: a program with file capabilities or a set-user-ID bit is exec'ed; events of exec raise no alert",
    ),
];
