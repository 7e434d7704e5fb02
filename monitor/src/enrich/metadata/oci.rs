//! The specification that a runtime is given of each container (OCI `config.json`), and what containerd and CRI-O
//! put into its annotations.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::enrich::container::Runtime;
use crate::enrich::metadata::open::StateDir;
use crate::enrich::metadata::{Metadata, Miss, PodInfo, image, json, text};

/// Where containerd keeps the bundles of running containers, below its state directory; by namespace and id.
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// Capabilities that only a container with everything allowed has together.
const ALL_CAPABILITIES: [&str; 4] = ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO"];

/// `config.json`, as far as it is of use.
#[derive(Deserialize)]
pub(super) struct Spec {
    annotations: Option<BTreeMap<String, String>>,
    process: Option<Process>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Process {
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
struct Capabilities {
    bounding: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    cgroups_path: String,
    masked_paths: Option<Vec<String>>,
    resources: Option<Resources>,
}

#[derive(Deserialize)]
struct Resources {
    devices: Option<Vec<Device>>,
}

/// A rule of the device controller.
#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    allow: bool,
    #[serde(default, rename = "type")]
    kind: String,
    major: Option<i64>,
    minor: Option<i64>,
    #[serde(default)]
    access: String,
}

impl Spec {
    /// Reads one, which must be about this container.
    pub(super) fn read(dir: &StateDir, path: &str, id: &str) -> Result<Self, Miss> {
        let spec: Spec = json(&dir.read(path)?)?;
        if spec.is_of(id) { Ok(spec) } else { Err(Miss::WrongId) }
    }

    /// The specification has no id of its own, but the container's directory in the cgroup tree is named after it:
    /// `…/ID`, `…/PREFIX-ID`, or `SLICE:PREFIX:ID`.
    fn is_of(&self, id: &str) -> bool {
        let path = self.linux.as_ref().map_or("", |linux| &linux.cgroups_path);
        path.strip_suffix(id).is_some_and(|before| before.ends_with(['/', ':', '-']))
    }

    /// An annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether everything is allowed: all devices, the capabilities that matter, and nothing of `/proc` hidden. The
    /// specification has no word for it.
    pub(super) fn privileged(&self) -> Option<bool> {
        let linux = self.linux.as_ref()?;
        let devices = linux.resources.as_ref().and_then(|resources| resources.devices.as_deref());
        let capabilities = self.process.as_ref().and_then(|process| process.capabilities.as_ref());
        let bounding = capabilities.and_then(|capabilities| capabilities.bounding.as_deref());
        let has_all = bounding.is_some_and(|bounding| {
            ALL_CAPABILITIES.iter().all(|capability| bounding.iter().any(|has| has == capability))
        });
        let hides_nothing = linux.masked_paths.as_ref().is_none_or(Vec::is_empty);
        Some(
            devices.is_some_and(|devices| devices.iter().any(Device::allows_all)) && has_all && hides_nothing,
        )
    }
}

impl Device {
    fn allows_all(&self) -> bool {
        let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
        let all_kinds = matches!(self.kind.as_str(), "" | "a");
        self.allow && all_kinds && any(self.major) && any(self.minor) && self.access == "rwm"
    }
}

/// Reads what a containerd with this state directory wrote: for the kubelet, for nerdctl or for another client.
pub(super) fn read_containerd(dir: &StateDir, id: &str, namespace: Option<&str>) -> Result<Metadata, Miss> {
    let namespaces = match namespace {
        Some(namespace) => vec![namespace.to_owned()],
        None => dir.entries(BUNDLES),
    };
    let mut miss = Miss::NotFound;
    for namespace in namespaces {
        match Spec::read(dir, &format!("{BUNDLES}/{namespace}/{id}/config.json"), id) {
            Ok(spec) => return Ok(of_containerd(&spec)),
            Err(other) => miss = miss.or(other),
        }
    }
    Err(miss)
}

fn of_containerd(spec: &Spec) -> Metadata {
    let mut metadata =
        Metadata { runtime: Some(Runtime::Containerd), privileged: spec.privileged(), ..Metadata::default() };
    let cri = |key: &str| spec.annotation(&format!("io.kubernetes.cri.{key}"));
    if let Some(kind) = cri("container-type") {
        let pod = PodInfo {
            name: cri("sandbox-name").and_then(text),
            namespace: cri("sandbox-namespace").and_then(text),
            uid: cri("sandbox-uid").and_then(text),
            container_name: cri("container-name").and_then(text).filter(|_| kind != "sandbox"),
        };
        metadata.name = pod.container_name.clone().or_else(|| pod.name.clone());
        metadata.pod = Some(pod);
        if let Some(name) = cri("image-name").or_else(|| cri("podsandbox.image-name")) {
            image::set(&mut metadata, name);
        }
        return metadata;
    }
    metadata.name = spec.annotation("nerdctl/name").and_then(text);
    // nerdctl hands all labels on as annotations, those for itself and for containerd among them.
    let own = ["nerdctl/", "io.containerd."];
    let labels = spec.annotations.iter().flatten();
    metadata.labels = labels.filter(|(key, _)| !own.iter().any(|own| key.starts_with(own))).collect();
    metadata
}

/// What CRI-O put into the annotations.
///
/// # Errors
/// [`Miss::WrongId`] if they are about another container.
pub(super) fn of_crio(spec: &Spec, id: &str) -> Result<Metadata, Miss> {
    let crio = |key: &str| spec.annotation(&format!("io.kubernetes.cri-o.{key}"));
    if crio("ContainerID") != Some(id) {
        return Err(Miss::WrongId);
    }
    // The kubelet's labels, those of the pod among them.
    let labels: BTreeMap<String, String> =
        crio("Labels").and_then(|labels| json(labels.as_bytes()).ok()).unwrap_or_default();
    let label = |key: &str| labels.get(&format!("io.kubernetes.{key}")).map(String::as_str);
    let own: CrioMetadata = crio("Metadata").and_then(|own| json(own.as_bytes()).ok()).unwrap_or_default();
    let is_sandbox = crio("ContainerType") == Some("sandbox");
    let pod = PodInfo {
        name: label("pod.name").or_else(|| crio("KubeName")).and_then(text),
        namespace: label("pod.namespace").or_else(|| crio("Namespace")).and_then(text),
        uid: label("pod.uid").or(Some(&*own.uid)).and_then(text),
        container_name: text(&own.name).filter(|_| !is_sandbox),
    };
    let mut metadata = Metadata {
        runtime: Some(Runtime::CriO),
        name: pod.container_name.clone().or_else(|| pod.name.clone()),
        privileged: spec.privileged(),
        created: crio("Created").and_then(text),
        ..Metadata::default()
    };
    // The image's own name; CRI-O calls what was asked for `Image`, which for the kubelet is an id or a digest.
    if let Some(name) = crio("ImageName").or_else(|| crio("Image")) {
        image::set(&mut metadata, name);
    }
    let reference = crio("ImageRef").unwrap_or_default();
    if let Some(id) = image::id(reference) {
        metadata.image_id.get_or_insert_with(|| id.to_owned());
    } else if let Some((_, digest)) = reference.split_once('@') {
        metadata.image_digest = image::digest(digest).or(metadata.image_digest);
    }
    metadata.labels = labels.into_iter().collect();
    metadata.pod = Some(pod);
    Ok(metadata)
}

/// What CRI-O was told about a container or, with a UID, about a sandbox.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CrioMetadata {
    name: String,
    uid: String,
}
