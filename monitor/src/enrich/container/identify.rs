//! Which containers a cgroup lies in, and which of systemd's units: read from its path.
//!
//! Runtimes name the directories, so their names are recognised by form. To make such a directory takes root on
//! the host, or a subtree of the hierarchy that root has delegated: to a user's service manager, or to a container.
//! What a delegated subtree says is kept apart ([`Container::user`], [`Container::nested`]).

use std::sync::Arc;

use crate::enrich::container::{Container, HostUnit, PodQos, Runtime};
use crate::text::escape;

/// What directories are called that belong to a container: `PREFIX-ID.scope` (systemd driver), `PREFIX-ID`
/// (cgroupfs driver), or `SLICE:PREFIX:ID` (a path of the first form, given to the second driver).
const PREFIXES: [(&[u8], Runtime); 6] = [
    (b"docker", Runtime::Docker),
    (b"cri-containerd", Runtime::Containerd),
    (b"nerdctl", Runtime::Containerd),
    (b"crio", Runtime::CriO),
    (b"libpod", Runtime::Podman),
    // Of a service that runs Podman with `--cgroups=split`.
    (b"libpod-payload", Runtime::Podman),
];

/// What `container.id` says where there is no container, or none is known.
const RESERVED: [&str; 2] = ["host", "unknown"];

/// How libvirt names the machines of its drivers, `DRIVER-ID-NAME` as systemd escapes it. They are no
/// systemd-nspawn containers, though their scopes look alike.
const LIBVIRT: [&[u8]; 5] = [b"qemu\\x2d", b"lxc\\x2d", b"ch\\x2d", b"xen\\x2d", b"bhyve\\x2d"];

/// Finds the containers in a cgroup's path (below the root of the hierarchy, as bytes), the deepest first.
///
/// Recognised: Docker with the systemd driver (`docker-ID.scope`) and the cgroupfs driver (`docker/ID`, with
/// `--cgroup-parent` any path that is no systemd unit's; steps of a build, `docker/buildkit/ID`), containerd through CRI
/// (`cri-containerd-ID.scope`) and nerdctl (`nerdctl-ID.scope`, `NAMESPACE/ID`), CRI-O (`crio-ID.scope`, `crio-ID`),
/// Podman (`libpod-ID.scope`, `libpod-ID`, `libpod-payload-ID`; also below `user@UID.service` and in pods), Kubernetes
/// pods with the cgroupfs driver (`podUID/ID`), LXC (`lxc.payload.NAME`, `lxc.payload/NAME`, `lxc/NAME`) and
/// systemd-nspawn (`machine-NAME.scope/payload`, `systemd-nspawn@NAME.service/payload`; in a version 1 hierarchy, which
/// is assumed here, also `machine-NAME.scope` alone).
pub fn identify(path: &[u8]) -> Vec<Arc<Container>> {
    locate(path, false).containers
}

/// What a path says.
pub(super) struct Located {
    /// The containers, as [`identify`] finds them.
    pub(super) containers: Vec<Arc<Container>>,
    /// The unit of the host's systemd that it lies in; for a container's cgroup the one which the outermost container
    /// lies in.
    pub(super) unit: Option<HostUnit>,
    /// It lies in a user's slice or below a container's own directory.
    pub(super) delegated: bool,
}

/// Takes a path of a hierarchy of version 2 or 1 apart.
pub(super) fn locate(path: &[u8], v2: bool) -> Located {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let mut found: Vec<Arc<Container>> = Vec::new();
    // Inside a container its runtimes see its directory as their root.
    let mut root = 0;
    // What the host itself named.
    let mut host = parts.as_slice();
    let mut delegated = false;
    for (i, part) in parts.iter().enumerate() {
        let above = parts.get(root..i).unwrap_or_default();
        let Some(name) = by_name(part).or_else(|| by_place(part, above, parts.get(i + 1).copied(), v2))
        else {
            continue;
        };
        if found.is_empty() {
            host = above;
            delegated = i + 1 < parts.len();
        }
        // The pod may be named by the directory itself, in the form with colons.
        let upto = parts.get(..=i).unwrap_or_default();
        let pod_uid = upto.iter().rev().find_map(|part| pod_uid(part));
        found.push(Arc::new(Container {
            id: name.id,
            runtime: name.runtime,
            qos: pod_uid.is_some().then(|| qos(upto)),
            pod_uid,
            namespace: name.namespace,
            user: user_of(host),
            nested: !found.is_empty(),
        }));
        root = i + 1;
    }
    found.reverse();
    Located { containers: found, unit: host_unit(host), delegated: delegated || user_of(host).is_some() }
}

/// The user other than root in whose slice the directories lie.
fn user_of(host: &[&[u8]]) -> Option<u32> {
    host.iter().find_map(|part| user(part)).filter(|uid| *uid != 0)
}

/// The unit among the directories that the host itself named. The outermost: what is below may be delegated, and
/// then anybody's choice.
fn host_unit(host: &[&[u8]]) -> Option<HostUnit> {
    let unit = host.iter().find(|part| is_unit(part) && !part.ends_with(b".slice"))?;
    let session = unit.strip_prefix(b"session-").and_then(|unit| unit.strip_suffix(b".scope"));
    Some(HostUnit { name: text(unit), session: session.map(text) })
}

/// What a directory's name says.
struct Named {
    id: String,
    runtime: Runtime,
    namespace: Option<String>,
}

impl Named {
    fn new(id: &[u8], runtime: Runtime) -> Self {
        let id = match text(id) {
            // A name that somebody chose must not pass for the words that events have where there is no container.
            id if RESERVED.contains(&id.as_str()) => format!("{}/{id}", runtime.name()),
            id => id,
        };
        Named { id, runtime, namespace: None }
    }
}

fn text(bytes: &[u8]) -> String {
    escape(bytes).into_owned()
}

/// Directories that name their runtime.
fn by_name(part: &[u8]) -> Option<Named> {
    let scope = part.strip_suffix(b".scope").unwrap_or(part);
    let mut by_colon = scope.split(|byte| *byte == b':');
    let with_colons = match (by_colon.next(), by_colon.next(), by_colon.next(), by_colon.next()) {
        (Some(slice), Some(prefix), Some(id), None) if slice.ends_with(b".slice") => Some((prefix, id)),
        _ => None,
    };
    let with_dash = || {
        let dash = scope.iter().rposition(|byte| *byte == b'-')?;
        Some((scope.get(..dash)?, scope.get(dash + 1..)?))
    };
    if let Some((prefix, id)) = with_colons.or_else(with_dash)
        && let Some((_, runtime)) = PREFIXES.iter().find(|(known, _)| *known == prefix)
        && (is_id(id) || *runtime == Runtime::Docker && is_build_id(id))
    {
        return Some(Named::new(id, *runtime));
    }
    let name = part.strip_prefix(b"lxc.payload.").filter(|name| !name.is_empty())?;
    Some(Named::new(name, Runtime::Lxc))
}

/// Directories that are told by where they lie: `above` are those between the root that the runtime sees and it.
fn by_place(part: &[u8], above: &[&[u8]], next: Option<&[u8]>, v2: bool) -> Option<Named> {
    let parent = *above.last().unwrap_or(&&b""[..]);
    if matches!(parent, b"lxc" | b"lxc.payload") {
        return Some(Named::new(part, Runtime::Lxc));
    }
    if let Some(name) = nspawn(part, parent, next, v2) {
        return Some(Named::new(&unit_name(name), Runtime::Nspawn));
    }
    if matches!(above, [.., b"docker", b"buildkit"]) && is_build_id(part) {
        return Some(Named::new(part, Runtime::Docker));
    }
    if !is_id(part) {
        return None;
    }
    if parent == b"docker" {
        return Some(Named::new(part, Runtime::Docker));
    }
    if pod_uid(parent).is_some() {
        return Some(Named::new(part, Runtime::Kubernetes));
    }
    // In systemd's slices lie units. Podman's pods are named like containers.
    if above.iter().any(|above| is_unit(above) || *above == b"libpod_parent") {
        return None;
    }
    match above {
        [] => None,
        [namespace] => {
            let namespace = Some(text(namespace));
            Some(Named { namespace, ..Named::new(part, Runtime::Containerd) })
        }
        _ => Some(Named::new(part, Runtime::Docker)),
    }
}

/// The escaped name of a systemd-nspawn container. It puts the container below `payload`; where it makes a scope, in
/// version 1 hierarchies other than systemd's own the container stays in the scope itself. In version 2 a scope without
/// `payload` is some virtual machine's.
fn nspawn<'p>(part: &'p [u8], parent: &[u8], next: Option<&[u8]>, v2: bool) -> Option<&'p [u8]> {
    let has_payload = next == Some(b"payload");
    if let Some(instance) = part.strip_prefix(b"systemd-nspawn@") {
        return instance.strip_suffix(b".service").filter(|_| has_payload);
    }
    let scope = part.strip_suffix(b".scope")?;
    match scope.strip_prefix(b"machine-") {
        Some(name) if has_payload => Some(name),
        Some(name) => {
            let libvirt = LIBVIRT.iter().any(|driver| name.starts_with(driver));
            (!v2 && !libvirt && next != Some(b"supervisor")).then_some(name)
        }
        // Without systemd-machined it names the scope itself.
        None => (has_payload && parent == b"machine.slice").then_some(scope),
    }
    .filter(|name| !name.is_empty())
}

/// A name from a unit's: systemd writes other bytes than letters, digits, `:`, `_` and `.` as `\xHH`, `/` as `-`.
fn unit_name(escaped: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, tail)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        if let [b'\\', b'x', high, low, tail @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            name.push((high * 16 + low) as u8);
            rest = tail;
        } else {
            name.push(*first);
            rest = tail;
        }
    }
    name
}

fn is_unit(part: &[u8]) -> bool {
    const ENDS: [&[u8]; 6] = [b".slice", b".service", b".scope", b".socket", b".mount", b".swap"];
    ENDS.iter().any(|end| part.ends_with(end))
}

/// Container ids are 64 lower-case hexadecimal digits.
pub(crate) fn is_id(id: &[u8]) -> bool {
    id.len() == 64 && id.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// Steps of a build (BuildKit) have ids of 25 digits to the base of 36.
fn is_build_id(id: &[u8]) -> bool {
    id.len() == 25 && id.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// The pod's UID in `podUID` (cgroupfs driver) or `kubepods-…-podU_I_D.slice` (systemd driver).
fn pod_uid(part: &[u8]) -> Option<String> {
    let part = std::str::from_utf8(part.split(|byte| *byte == b':').next()?).ok()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    // A UID, or the hash that the kubelet uses for static pods.
    let is_hex = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (is_hex && (uid.len() == 36 || uid.len() == 32)).then_some(uid)
}

/// The class of a pod: pods that are guaranteed their resources lie beside the classes of the others.
fn qos(parts: &[&[u8]]) -> PodQos {
    let mut words = parts.iter().flat_map(|part| part.split(|byte| matches!(byte, b'-' | b'.' | b':')));
    words
        .find_map(|word| match word {
            b"burstable" => Some(PodQos::Burstable),
            b"besteffort" => Some(PodQos::BestEffort),
            _ => None,
        })
        .unwrap_or(PodQos::Guaranteed)
}

/// The user whose slice a directory is.
fn user(part: &[u8]) -> Option<u32> {
    let uid = part.strip_prefix(b"user-")?.strip_suffix(b".slice")?;
    std::str::from_utf8(uid).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
