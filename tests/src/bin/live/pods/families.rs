//! Which families of the suite are run against a daemon in a pod, and why the others are not.

use libtest_mimic::Trial;

use crate::cases::family;

/// Families of the suite that run against a daemon in a pod.
const AS_POD: &[&str] = &[
    "pods",
    "docker",
    "docker+SYS_ADMIN",
    "docker+SYSLOG",
    "docker+SYS_RAWIO",
    "docker+SYS_TIME",
    "docker-unconfined",
    "docker-cgroupfs",
    "docker-systemd",
    "containerd-systemd",
    "cri-cgroupfs",
    "crio-systemd",
    "podman-systemd",
    "evasions",
    "matrix",
    "law",
];

/// Those that do not, and why.
const NOT_AS_POD: &[(&str, &str)] = &[
    ("restart", "probes are pinned in a BPF file system, which a pod does not mount"),
    ("sinks", "outputs to servers on the host's loopback, which a pod's network has not"),
    ("outputs", "as `sinks`"),
    ("prometheus", "Prometheus runs on the host's loopback, as with `sinks`"),
    ("docs", "commands of the documents, on the host"),
    ("host", "the host's own attempts, which no container makes; the process runs them"),
    ("seccomp", "as `host`, under a filter"),
    (
        "identity",
        "it changes which hierarchies the daemon finds mounted, or asks `doctor` of the host; a pod's mounts are given",
    ),
    (
        "reload",
        "it writes rule files in place, which a mounted ConfigMap does not allow; `pods::` exchanges the ConfigMap",
    ),
    ("recording", "recordings are files, and a pod writes none"),
    ("state-files", "a pod keeps no state unless the component keep-state is taken, a directory of the node"),
    ("nine", "it restarts the daemon over its state directory, which a pod has not"),
    ("advice", "as `nine`"),
    (
        "capability",
        "it reads the daemon's maps by its links, which hold in any mount namespace, and takes a minute",
    ),
    ("capability-limits", "as `capability`"),
    ("syscalls", "it needs `syscall_sets`, and so a daemon of its own for each case"),
    (
        "blind",
        "it harms the daemon through its links, maps and threads, from the host, in the same way as a process's",
    ),
    ("races", "it is about the kernel's side, which is the same for all"),
    ("starts", "the command line, terminals and files of the host"),
    ("confined", "each case steers a daemon of its own by ptrace; what a pod gives up is read in `pods::`"),
    ("service", "systemd's protocol; the kubelet's probes are asked in `pods::`"),
    ("process", "as `races`"),
    ("faults", "outputs to files and pipes of the host"),
    ("many", "as `races`, with a thousand containers"),
    ("podman", "Podman's directories lie in a temporary directory that no manifest mounts"),
    ("churn", "as `races`"),
    ("whose", "the daemon's own start is part of what is judged"),
    ("outside", "as `races`"),
    ("listing", "as `races`"),
    ("hostile", "as `races`"),
    ("probing", "the command line"),
    ("oci-fixture", "no daemon is started"),
    ("quiet", "what a quiet host does, which another container on it changes"),
    ("features", "no daemon of its own"),
    ("manifests", "no daemon is started"),
];

/// Leaves the trials that a daemon in a pod can be held against.
///
/// # Errors
/// A family that nobody has decided about.
pub(crate) fn choose(trials: &mut Vec<Trial>) -> Result<(), String> {
    let is_run = |family: &str| AS_POD.contains(&family);
    let is_known = |family: &str| is_run(family) != NOT_AS_POD.iter().any(|(name, _)| *name == family);
    if let Some(unknown) = trials.iter().map(family).find(|family| !is_known(family)) {
        return Err(format!("pods/families.rs does not say whether `{unknown}` is run against a pod"));
    }
    trials.retain(|trial| is_run(&family(trial)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The family that is there only with `--pod`.
    const WITH_POD: &str = "pods";

    #[test]
    fn every_family_is_in_one_list_and_every_list_names_families() {
        let mut gathered = crate::gather_nowhere().expect("the trials are gathered");
        let found: BTreeSet<String> = gathered.trials.iter().map(family).collect();
        assert_eq!(choose(&mut gathered.trials), Ok(()));
        let reasons = NOT_AS_POD.iter().map(|(name, _)| name);
        for name in AS_POD.iter().chain(reasons) {
            assert!(found.contains(*name) || *name == WITH_POD, "no family is called {name}");
        }
    }
}
