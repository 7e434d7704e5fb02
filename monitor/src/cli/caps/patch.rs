//! The change that leaves a container only the capabilities that it used, with all that speaks against it.

use std::time::Duration;

use monitor_common::caps::Cap;

use super::table::observation;
use super::{PatchFormat, span, whose};
use crate::capabilities::{CapInfo, CapsInfo};
use crate::cli::rules::visible;

/// What to change, and what to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// The capabilities to keep, with `CAP_`, by number.
    keep: Vec<String>,
    /// Sentences for whoever applies it.
    notes: Vec<String>,
}

/// Works the change out.
///
/// # Errors
/// Why there is no advice, and what to do about it.
pub(super) fn advise(info: &CapsInfo, least: Duration, accept_losses: bool) -> Result<Advice, String> {
    if info.observed_seconds < least.as_secs() {
        return Err(format!(
            "no advice: {} was watched for {}, and advice rests on at least {} (--min-observation)",
            info.id,
            span(info.observed_seconds),
            span(least.as_secs())
        ));
    }
    // What may be use is kept: to keep too much breaks nothing.
    let is_use = |cap: &CapInfo| {
        info.used(cap).is_some() || cap.runtime_below || cap.needed_by_file || is_opening_look(cap)
    };
    let keeps = |cap: &&CapInfo| is_use(cap) && cap.granted.as_deref() != Some("no");
    let keep = names(info, &|cap| keeps(&cap));
    if !accept_losses {
        if !info.start_seen {
            return Err(format!(
                "no advice: the start of {} was not seen, and without what entrypoints need for a moment (CAP_CHOWN, CAP_SETUID, \
                 CAP_SETGID) it could not start again; restart it under watch first, or use --accept-losses",
                info.id
            ));
        }
        lost(info, &keep)?;
    }
    Ok(Advice { notes: notes(info, &keep), keep })
}

/// A silent look without which files do not open: sysctls below `/proc/sys/net` are root's of the host, and of who has
/// CAP_NET_ADMIN in the network namespace (`net_ctl_permissions`, net/sysctl_net.c, silent since 3.12).
fn is_opening_look(cap: &CapInfo) -> bool {
    cap.capability == Cap::NetAdmin.name() && cap.silent_allowed.is_some()
}

/// Refuses if a use of what would be dropped may have gone uncounted.
fn lost(info: &CapsInfo, keep: &[String]) -> Result<(), String> {
    // What was lost stays with the container's record, through restarts of both.
    let remedy = "make it anew, so that it is another container to watch, or use --accept-losses";
    if info.lost.skipped > 0 {
        return Err(format!(
            "no advice: while {} ran the kernel skipped the counting of checks {} times, perhaps of its own; {remedy}",
            info.id, info.lost.skipped
        ));
    }
    let dropped = |name: &&String| {
        let cap = info.capabilities.iter().find(|cap| cap.capability == **name);
        !keep.contains(name) && (info.granted.is_none() || cap.is_some_and(CapInfo::is_granted))
    };
    let doubtful: Vec<&str> = info.lost.capabilities.iter().filter(dropped).map(String::as_str).collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    Err(format!(
        "no advice: while {} ran, passed checks of {} found no room in the kernel's map, perhaps its own; {remedy}",
        info.id,
        doubtful.join(" ")
    ))
}

fn names(info: &CapsInfo, is: &dyn Fn(&CapInfo) -> bool) -> Vec<String> {
    info.capabilities.iter().filter(|cap| is(cap)).map(|cap| cap.capability.clone()).collect()
}

/// Everything that whoever applies it should know, whatever the format.
fn notes(info: &CapsInfo, keep: &[String]) -> Vec<String> {
    let kept = |cap: &CapInfo| keep.contains(&cap.capability);
    let mut notes = vec![format!("Rests on: {}.", observation(info))];
    let mut list = |is: &dyn Fn(&CapInfo) -> bool, tell: &dyn Fn(String) -> String| {
        let found = names(info, is);
        if !found.is_empty() {
            notes.push(tell(found.join(" ")));
        }
    };
    list(&|cap| cap.is_granted() && !kept(cap) && !info.may_be_uncounted(cap), &|names| {
        format!("Taken away, for it was never used: {names}.")
    });
    list(&|cap| cap.is_granted() && !kept(cap) && info.may_be_uncounted(cap), &|names| {
        format!("CAUTION: taken away, though it may have been used without being counted: {names}.")
    });
    list(&|cap| cap.refused.is_some() && !kept(cap), &|names| {
        format!(
            "Refused, and so not added: {names}. If something does not work because of that, it did not before."
        )
    });
    list(&|cap| info.used(cap).is_some() && !kept(cap), &|names| {
        format!(
            "Used, but no program began with a right to it, so not added: {names}. Find out how it was gained before you grant it."
        )
    });
    let silent = |cap: &CapInfo| cap.silent_allowed.is_some() && !kept(cap) && cap.is_granted();
    list(&silent, &|names| {
        format!(
            "Only looked at by the kernel, and not kept: {names}. Without it reserves of memory or disk may be closed; such \
             looks choose and hardly ever refuse, but test it."
        )
    });
    list(&|cap| kept(cap) && info.used(cap).is_none() && is_opening_look(cap), &|names| {
        format!("Kept, though the kernel only looked: {names}. It opens the sysctls of the network.")
    });
    let by_capset = |cap: &CapInfo| {
        let last = info.used(cap).and_then(|used| used.last_call.as_deref());
        cap.capability == Cap::Setpcap.name() && kept(cap) && last == Some("capset")
    };
    list(&by_capset, &|names| {
        format!(
            "Kept, though perhaps not needed: {names}. Every capset(2) asks for it, also of programs that only put \
             capabilities away; without it such calls work, and show as refused."
        )
    });
    list(
        &|cap| kept(cap) && info.used(cap).is_some_and(|used| used.count == used.perhaps_silent),
        &|names| format!("Kept, though this kernel does not say whether it only looked: {names}."),
    );
    list(&|cap| kept(cap) && info.used(cap).is_none() && cap.runtime_below, &|names| {
        format!(
            "Kept, though it may be the runtime's use and not its own: {names}. It was used in cgroups below its own by tasks \
             that had come from another one and begun no program there, as the children of a systemd in it do."
        )
    });
    list(&|cap| kept(cap) && info.used(cap).is_none() && cap.needed_by_file, &|names| {
        format!(
            "Kept, for a program has it as a file capability with the effective bit and does not begin without: {names}. \
             Nothing checks it, so it does not show as used; `setcap -r` in the image makes it dispensable."
        )
    });
    let in_child = |cap: &CapInfo| cap.used_in_child.is_some() && !kept(cap) && cap.is_granted();
    list(&in_child, &|names| match info.own_user_namespace {
        Some(_) => format!(
            "Used only in other user namespaces than the initial one, and so not added: {names}. That was by rights in such \
             a namespace, or as its maker, which no grant to the container gives."
        ),
        None => format!(
            "CAUTION: used only in other user namespaces than the initial one, and so not added: {names}. Whether the \
             container has one of its own was not seen; if it has, add them."
        ),
    });
    list(&|cap| cap.runtime.is_some() && !kept(cap) && cap.is_granted(), &|names| {
        format!(
            "Asked for by the runtime at the start (or by `exec` into it), with rights of its own, and so not added: {names}."
        )
    });
    let takes_away =
        info.granted.is_none() || info.capabilities.iter().any(|cap| cap.is_granted() && !kept(cap));
    if info.files_unseen && takes_away {
        notes.push(
            "CAUTION: the files of some programs were not looked at, for these ended soon or were too many. One that has file \
             capabilities with the effective bit does not begin without them, which shows as EPERM: compare with `getcap -r /` \
             in the image."
                .to_owned(),
        );
    }
    if !info.start_seen {
        notes.push(
            "CAUTION: its start was not seen. Entrypoints often change owners and users (CAP_CHOWN, CAP_DAC_OVERRIDE, \
             CAP_FOWNER, CAP_SETUID, CAP_SETGID, CAP_SETPCAP). Restart it under watch first, or the next start may fail."
                .to_owned(),
        );
    }
    if info.gaps > 0 {
        notes.push("What it did while no daemon watched is not in it.".to_owned());
    }
    if info.lost.no_room > 0 || info.lost.skipped > 0 {
        notes.push(format!(
            "CAUTION: checks may have gone uncounted: {} found no room, {} were skipped.",
            info.lost.no_room, info.lost.skipped
        ));
    }
    match &info.granted {
        None => notes.push("What it was granted is not known; that what it used was granted follows from its use.".to_owned()),
        Some(granted) if granted.permitted.is_empty() => notes.push(
            "Its programs begin without any (not root): what is kept counts only for set-uid programs and files with \
             capabilities; `no-new-privileges` ends that, too."
                .to_owned(),
        ),
        Some(granted) if granted.bounding.len() >= Cap::ALL.len() => notes.push(
            "It was granted everything, as by `privileged`: that overrides such lists, so remove it. Devices, seccomp \
             and AppArmor change with it, which this ledger does not tell."
                .to_owned(),
        ),
        Some(_) => {}
    }
    if info.own_user_namespace == Some(true) {
        notes.push(
            "It has a user namespace of its own; what it used in namespaces that it made itself is kept, too, for it \
             cannot be told apart."
                .to_owned(),
        );
    }
    notes.push(
        "Rare work (rotation, backup, failover, updates) counts only if it happened; what somebody did by `exec` counts \
         as the container's."
            .to_owned(),
    );
    notes
}

/// The change, as a text that is valid where it belongs; the notes are its comments.
pub(super) fn render(format: PatchFormat, info: &CapsInfo, advice: &Advice) -> String {
    let mut out = String::new();
    let id = visible(&info.id);
    let name = info.name.as_deref().map(|name| format!(" ({})", visible(name))).unwrap_or_default();
    let mut notes = vec![format!("Capabilities of container {id}{name}{}.", whose(info))];
    notes.extend(advice.notes.iter().cloned());
    notes.extend(own_notes(format, advice));
    for note in notes {
        out.push_str(&format!("# {}\n", visible(&note)));
    }
    let short: Vec<&str> = advice.keep.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name)).collect();
    out.push_str(&match format {
        PatchFormat::Docker => docker(&short),
        PatchFormat::Compose => compose(info, &short),
        PatchFormat::Kubernetes => kubernetes(info, &short),
        PatchFormat::Systemd => systemd(info, &advice.keep),
    });
    out
}

/// What to know of a format.
fn own_notes(format: PatchFormat, advice: &Advice) -> Vec<String> {
    let mut notes: Vec<&str> = match format {
        PatchFormat::Docker => vec![
            "In place of all --cap-add, --cap-drop and --privileged of `docker run`; a container that exists must be made \
             anew. Names go with and without CAP_.",
        ],
        PatchFormat::Compose => vec![
            "In place of cap_add, cap_drop and privileged of the service; Compose joins the lists of several files, so \
             remove them there. Then `docker compose up -d`.",
        ],
        PatchFormat::Kubernetes => vec![
            "In place of capabilities and privileged of the container; in a Deployment and the like below spec.template. \
             Kubernetes' names have no CAP_.",
            "Only a container's own securityContext has capabilities, not the pod's. They count for root; other users get \
             none of them but by set-uid programs and files with capabilities.",
        ],
        PatchFormat::Systemd => vec![
            "For a unit that runs the same programs itself: `systemctl edit UNIT`. Names need CAP_. The manager's own work \
             before the program begins (User=, namespaces) needs none of them.",
        ],
    };
    let elsewhere = matches!(format, PatchFormat::Kubernetes | PatchFormat::Systemd);
    if elsewhere && !advice.keep.iter().any(|name| name == Cap::NetBindService.name()) {
        notes.push(
            "If it listens below port 1024: Docker's containers need no CAP_NET_BIND_SERVICE for that \
             (net.ipv4.ip_unprivileged_port_start is 0 there), others may.",
        );
    }
    notes.into_iter().map(str::to_owned).collect()
}

fn docker(keep: &[&str]) -> String {
    let adds: String = keep.iter().map(|name| format!(" --cap-add={name}")).collect();
    format!("--cap-drop=ALL{adds}\n")
}

/// A text as YAML: JSON's strings are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(visible(text)).to_string()
}

/// A list below a key, of words that need no quotes; nothing if it is empty.
fn yaml_list(indent: usize, key: &str, words: &[&str]) -> String {
    if words.is_empty() {
        return String::new();
    }
    let items: String = words.iter().map(|word| format!("{:indent$}  - {word}\n", "")).collect();
    format!("{:indent$}{key}:\n{items}", "")
}

fn compose(info: &CapsInfo, keep: &[&str]) -> String {
    let service = info.compose_service.as_deref().or(info.name.as_deref()).unwrap_or("SERVICE");
    let (drop, add) = (yaml_list(4, "cap_drop", &["ALL"]), yaml_list(4, "cap_add", keep));
    format!("services:\n  {}:\n{drop}{add}", quoted(service))
}

fn kubernetes(info: &CapsInfo, keep: &[&str]) -> String {
    let in_pod = info.pod.as_ref().and_then(|pod| pod.container_name.as_deref());
    let name = in_pod.or(info.name.as_deref()).unwrap_or("CONTAINER");
    let (drop, add) = (yaml_list(10, "drop", &["ALL"]), yaml_list(10, "add", keep));
    let name = quoted(name);
    format!(
        "spec:\n  containers:\n    - name: {name}\n      securityContext:\n        capabilities:\n{drop}{add}"
    )
}

fn systemd(info: &CapsInfo, keep: &[String]) -> String {
    let granted = info.granted.as_ref();
    let ambient: Vec<&str> = keep
        .iter()
        .filter(|name| granted.is_some_and(|granted| granted.ambient.contains(name)))
        .map(String::as_str)
        .collect();
    let all = keep.join(" ");
    // An empty assignment resets the set: what other files say of it no longer counts.
    let mut out = String::from("[Service]\nCapabilityBoundingSet=\n");
    if !keep.is_empty() {
        out.push_str(&format!("CapabilityBoundingSet={all}\n"));
    }
    out.push_str("AmbientCapabilities=\n");
    if !ambient.is_empty() {
        out.push_str(&format!("AmbientCapabilities={}\n", ambient.join(" ")));
    } else if !keep.is_empty() {
        out.push_str(&format!("# With a User= other than root:\n# AmbientCapabilities={all}\n"));
    }
    out
}
