//! Doors to new namespaces.

use monitor_common::call::Call;

use super::Behaviour::CreateNamespace;
use super::{Door, Entry, NO_DEVICE, WELL_FORMED, door, program, refusable, unwatched};

const CREATED: &str = "Namespace created in container";
const USER_CREATED: &str = "User namespace created in container";
const REFUSED: &str = "Namespace creation refused in container";
const RULES: [&str; 2] = [CREATED, REFUSED];
const NEEDS_NONE: &str = "a user namespace can be made without any capability";
const NO_TIME: &str = "this kernel is built without time namespaces";

pub(super) const DOORS: &[Door] = &[
    door(CreateNamespace, "unshare", Call::Unshare).entries(refusable(
        ["unshare-uts", "unshare-badflags", "unshare-nocap"],
        RULES,
        Entry::Never(NO_DEVICE),
    )),
    // Every mount is copied, and user namespaces nest 32 deep at most.
    door(CreateNamespace, "unshare-user", Call::Unshare)
        .entries([
            Entry::Attempt("unshare-user", USER_CREATED),
            Entry::Attempt("unshare-badflags", REFUSED),
            Entry::Attempt("unshare-user", REFUSED),
            Entry::Never(NEEDS_NONE),
            Entry::Never(
                "not made: the suite's module refuses capabilities, and a user namespace needs none. What another module refuses (`userns_create`, since 6.1) is reported as `other`, and in the tracepoint mode under a filter as `seccomp`",
            ),
            Entry::Never(NO_DEVICE),
        ])
        .costly(),
    door(CreateNamespace, "unshare-time", Call::Unshare)
        .entries([
            Entry::Attempt("unshare-time", CREATED),
            Entry::Attempt("unshare-badflags", REFUSED),
            Entry::Attempt("unshare-time", REFUSED),
            Entry::Attempt("unshare-time", REFUSED),
            Entry::Attempt("unshare-time", REFUSED),
            Entry::Never(NO_DEVICE),
        ])
        .costly()
        .lacks(libc::EINVAL, NO_TIME),
    door(CreateNamespace, "clone", Call::Clone).entries(refusable(
        ["clone-uts", "clone-conflict", "clone-nocap"],
        RULES,
        Entry::Never(NO_DEVICE),
    )),
    door(CreateNamespace, "clone3", Call::Clone3).entries(refusable(
        ["clone3-uts", "clone3-badsignal", "clone3-nocap"],
        RULES,
        Entry::Never(NO_DEVICE),
    )),
    door(CreateNamespace, "clone3-into-cgroup", Call::Clone3)
        .entries([
            Entry::Attempt("clone3-into-cgroup", CREATED),
            Entry::Attempt("clone3-badsignal", REFUSED),
            Entry::Attempt("clone3-into-cgroup", REFUSED),
            Entry::Attempt("clone3-into-cgroup", REFUSED),
            Entry::Attempt("clone3-into-cgroup", REFUSED),
            Entry::Never(NO_DEVICE),
        ])
        .costly(),
    door(CreateNamespace, "clone3-time", Call::Clone3)
        .entries([
            Entry::Attempt("clone3-time", CREATED),
            Entry::Attempt("clone3-badsignal", REFUSED),
            Entry::Attempt("clone3-time", REFUSED),
            Entry::Attempt("clone3-time", REFUSED),
            Entry::Attempt("clone3-time", REFUSED),
            Entry::Never(NO_DEVICE),
        ])
        .costly()
        .lacks(libc::EINVAL, NO_TIME),
    unwatched(
        CreateNamespace,
        "fork",
        Call::Clone,
        "not watched: fork and vfork take no flags. Their child is in the namespaces that its maker chose for it, by a call that is watched",
    ),
    program(CreateNamespace, "unshare-program", Call::Unshare).entries([
        Entry::Program(&["unshare", "--uts", "true"], CREATED),
        Entry::Never(WELL_FORMED),
        Entry::Program(&["unshare", "--uts", "true"], REFUSED),
        Entry::Program(&["unshare", "--uts", "true"], REFUSED),
        Entry::Program(&["unshare", "--uts", "true"], REFUSED),
        Entry::Never(NO_DEVICE),
    ]),
];
