//! What a container's runtime wrote about it: name, image, labels, pod.
//!
//! It is read from the runtimes' own state files, never through a socket, and never on an event's path: a
//! thread aside calls [`read`]. Those files may be anything by the time we look (some lie in users' homes), so
//! each is opened without following links, must be a small regular file of its owner, and must name the very
//! container that was asked for. Otherwise there is no name, and a [`Miss`] that says why: no name is better
//! than a wrong one.

mod docker;
mod image;
mod oci;
mod open;
mod roots;
mod storage;

pub use roots::Roots;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::enrich::container::{Container, Runtime};
use crate::text::escape;
use open::StateDir;
use storage::Place;

/// Labels that are kept of one container, at most.
pub const MAX_LABELS: usize = 64;
/// Bytes of a label's key or value, at most. A longer one is left out whole: half a value could match a rule.
pub const MAX_LABEL_BYTES: usize = 1024;
/// Bytes of all labels of a container together, as they are kept.
pub const MAX_LABELS_BYTES: usize = 16 << 10;
/// Bytes of any other text, at most. A longer one is left out.
const MAX_TEXT_BYTES: usize = 1024;

/// What a runtime wrote about a container. Each text was chosen by whoever made the container; it is escaped as
/// every text is ([`crate::text::escape`]) and at most a kibibyte long. What the runtime did not write is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Whose files tell it. The cgroup's path does not always say who runs a container.
    pub runtime: Option<Runtime>,
    /// The container's name. In a Kubernetes pod that of the container; for the pod's sandbox the pod's.
    pub name: Option<String>,
    /// The image as it was asked for, such as `docker.io/library/nginx:1.27`.
    pub image: Option<String>,
    /// The image's name without tag and digest.
    pub image_repository: Option<String>,
    /// Its tag; `None` if it was named by its digest or id.
    pub image_tag: Option<String>,
    /// The image's id as its runtime has it: the digest of its configuration, without `sha256:`.
    pub image_id: Option<String>,
    /// Digest of its manifest, as `sha256:` and 64 digits.
    pub image_digest: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The Kubernetes pod that it is part of.
    pub pod: Option<PodInfo>,
    /// Whether it was started with everything allowed (`--privileged`). Where the runtime has no word for it, the
    /// specification of the container tells: all devices, the strongest capabilities, nothing of `/proc` hidden.
    pub privileged: Option<bool>,
    /// When it was made: RFC 3339, as the runtime wrote it.
    pub created: Option<String>,
}

/// A Kubernetes pod, as the runtime was told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// The pod's name.
    pub name: Option<String>,
    /// Its Kubernetes namespace.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: Option<String>,
    /// The container's name in the pod; `None` for the pod's sandbox.
    pub container_name: Option<String>,
}

/// A container's labels: at most [`MAX_LABELS`], each part at most [`MAX_LABEL_BYTES`] long, all together at most
/// [`MAX_LABELS_BYTES`]: thousands of containers' labels are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// In the order of the keys.
    pairs: Vec<(String, String)>,
    /// How many did not fit.
    left_out: usize,
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        self.pairs.get(at).map(|(_, value)| value.as_str())
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// True if none is kept.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// How many were left out: too many, or too long.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Keeps what fits; of two with one key the first.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut labels = Labels::default();
        let mut bytes = 0;
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            let escaped = |text: &str| escape(text.as_bytes()).into_owned();
            let short = key.len().max(value.len()) <= MAX_LABEL_BYTES && labels.pairs.len() < MAX_LABELS;
            let pair = short.then(|| (escaped(key), escaped(value)));
            match pair.filter(|(key, value)| bytes + key.len() + value.len() <= MAX_LABELS_BYTES) {
                Some(pair) => {
                    bytes += pair.0.len() + pair.1.len();
                    labels.pairs.push(pair);
                }
                None => labels.left_out += 1,
            }
        }
        labels.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        labels.pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        labels
    }
}

/// Why there is no metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Miss {
    /// No file where the runtime would have it: not yet, no longer, or its state directory is elsewhere.
    #[error("the runtime has no state file of this container where it was looked for")]
    NotFound,
    /// The file has more bytes than is sensible.
    #[error("the runtime's state file is too large")]
    TooLarge,
    /// It is a pipe, a device, a socket or a directory, or a part of its path is no directory.
    #[error("the runtime's state file is not a regular file")]
    NotRegular,
    /// It is a symbolic link, or a link stands in its path below the state directory.
    #[error("a symbolic link stands in the path of the runtime's state file")]
    Symlink,
    /// It belongs neither to root nor to the user whose container it is.
    #[error("the runtime's state file belongs to somebody else")]
    WrongOwner,
    /// It is not the JSON that the runtime writes; perhaps it is being written.
    #[error("the runtime's state file is not the JSON that was expected")]
    NotJson,
    /// It is about another container.
    #[error("the runtime's state file is about another container")]
    WrongId,
    /// The container lies in another: its runtime's files are that one's, and say what it likes.
    #[error("the container lies inside another one, whose files are not believed")]
    Nested,
    /// The kernel did not let us read it.
    #[error("the runtime's state file cannot be read")]
    Io,
}

impl Miss {
    /// All of them.
    pub const ALL: [Miss; 9] = [
        Miss::NotFound,
        Miss::TooLarge,
        Miss::NotRegular,
        Miss::Symlink,
        Miss::WrongOwner,
        Miss::NotJson,
        Miss::WrongId,
        Miss::Nested,
        Miss::Io,
    ];

    /// The word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Miss::NotFound => "not_found",
            Miss::TooLarge => "too_large",
            Miss::NotRegular => "not_regular",
            Miss::Symlink => "symlink",
            Miss::WrongOwner => "wrong_owner",
            Miss::NotJson => "not_json",
            Miss::WrongId => "wrong_id",
            Miss::Nested => "nested",
            Miss::Io => "io",
        }
    }

    /// True if another look in a moment may find more: the runtime may be about to write.
    pub const fn may_pass(self) -> bool {
        matches!(self, Miss::NotFound | Miss::NotJson | Miss::Io)
    }

    /// Of two misses the one that says more: a file that is wrong, rather than a place where there is none.
    fn or(self, other: Miss) -> Miss {
        if self == Miss::NotFound { other } else { self }
    }
}

/// Where rootless Docker keeps its data, below the user's home.
const USER_DOCKER: &str = ".local/share/docker/";
/// Where rootless Podman keeps its storage, below the user's home.
const USER_PODMAN: &str = ".local/share/containers/storage/";
/// Its run root, below the user's run-time directory.
const USER_PODMAN_RUN: &str = "containers/";

/// Reads what the container's runtime wrote about it.
///
/// It reads local files and may wait for their disk, so it must not be called on an event's path. It opens no socket
/// and waits for no other process.
///
/// # Errors
/// [`Miss`] says why there is no answer. [`Miss::may_pass`] tells whether it is worth asking again.
pub fn read(container: &Container, roots: &Roots) -> Result<Metadata, Miss> {
    // What lies inside a container, and what a user's own slice says, is somebody else's word: it must not lead to
    // the names of the system's containers.
    if container.nested {
        return Err(Miss::Nested);
    }
    let id = container.id.as_str();
    if matches!(container.runtime, Runtime::Lxc | Runtime::Nspawn) {
        // The name is all there is, and the cgroup has it. In a user's slice it is anybody's choice.
        if container.user.is_some() {
            return Err(Miss::NotFound);
        }
        let (runtime, name) = (Some(container.runtime), Some(id.to_owned()));
        return Ok(Metadata { runtime, name, ..Metadata::default() });
    }
    if !container.has_long_id() {
        return Err(Miss::NotFound);
    }
    if let Some(uid) = container.user {
        return read_user(container, roots, uid);
    }
    let Roots { docker, containerd, crio, podman, .. } = roots;
    let docker = || among(roots, docker, |dir| docker::read(dir, "", id));
    let containerd = |namespace| among(roots, containerd, |dir| oci::read_containerd(dir, id, namespace));
    let crio = || storage::read_crio(&places(roots, crio)?, id);
    match container.runtime {
        Runtime::Docker => docker(),
        Runtime::Containerd => containerd(container.namespace.as_deref()).or_else(|miss| {
            // A cgroup `NAME/ID` may also be one of Docker's with a parent of that name.
            if container.namespace.is_some() { docker().map_err(|other| miss.or(other)) } else { Err(miss) }
        }),
        Runtime::Kubernetes => containerd(None)
            .or_else(|miss| crio().map_err(|other| miss.or(other)))
            .or_else(|miss| docker().map_err(|other| miss.or(other))),
        Runtime::CriO => crio(),
        Runtime::Podman => storage::read_podman(&places(roots, podman)?, id),
        Runtime::Lxc | Runtime::Nspawn => Err(Miss::NotFound),
    }
}

/// Reads what a user's own runtime wrote, from that user's files only.
fn read_user(container: &Container, roots: &Roots, uid: u32) -> Result<Metadata, Miss> {
    let home = || {
        let home = roots::home(&roots.host, uid).ok_or(Miss::NotFound)?;
        StateDir::of_user(&roots.host, &home, uid)
    };
    match container.runtime {
        Runtime::Docker => docker::read(&home()?, USER_DOCKER, &container.id),
        Runtime::Podman => {
            let run = StateDir::of_user(&roots.host, Path::new(&format!("/run/user/{uid}")), uid);
            let opened = [home().map(|dir| (dir, USER_PODMAN)), run.map(|dir| (dir, USER_PODMAN_RUN))];
            let places = opened.map(|opened| opened.map(|(dir, root)| Place { dir, root }));
            storage::read_podman(&usable(places)?, &container.id)
        }
        _ => Err(Miss::NotFound),
    }
}

/// The first answer among a runtime's directories, or what stood in its way.
fn among(
    roots: &Roots,
    dirs: &[PathBuf],
    read: impl Fn(&StateDir) -> Result<Metadata, Miss>,
) -> Result<Metadata, Miss> {
    let mut miss = Miss::NotFound;
    for dir in dirs {
        match StateDir::of_system(&roots.host, dir).and_then(|dir| read(&dir)) {
            Ok(found) => return Ok(found),
            Err(other) => miss = miss.or(other),
        }
    }
    Err(miss)
}

/// The directories of a storage of the system's.
fn places(roots: &Roots, dirs: &[PathBuf]) -> Result<Vec<Place>, Miss> {
    let open = |dir: &PathBuf| Ok(Place { dir: StateDir::of_system(&roots.host, dir)?, root: "" });
    usable(dirs.iter().map(open))
}

/// Those that could be opened; if none could, why.
fn usable(places: impl IntoIterator<Item = Result<Place, Miss>>) -> Result<Vec<Place>, Miss> {
    let (mut usable, mut miss) = (Vec::new(), Miss::NotFound);
    for place in places {
        match place {
            Ok(place) => usable.push(place),
            Err(other) => miss = miss.or(other),
        }
    }
    if usable.is_empty() { Err(miss) } else { Ok(usable) }
}

/// Reads a regular file of the host's that only root writes, such as `/etc/passwd`, below the host's root.
///
/// # Errors
/// [`Miss`], as for the runtimes' files.
pub fn read_host_file(host: &Path, path: &Path) -> Result<Vec<u8>, Miss> {
    open::read_host(host, path)
}

/// Reads JSON of a runtime's.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Miss> {
    serde_json::from_slice(bytes).map_err(|_| Miss::NotJson)
}

/// A text of a runtime's; `None` if it is empty or too long.
fn text(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_TEXT_BYTES).then(|| escape(text.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_found_by_key() {
        let labels = Labels::from_iter([("b", "2"), ("a", "\\"), ("b", "3")]);
        assert_eq!((labels.get("a"), labels.get("b"), labels.get("c")), (Some("\\\\"), Some("2"), None));
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        let many = (0..MAX_LABELS + 5).map(|i| (format!("{i}"), "v")).chain([("long".into(), &*long)]);
        let labels = Labels::from_iter(many);
        assert_eq!((labels.len(), labels.left_out()), (MAX_LABELS, 6));
        let large = (0..MAX_LABELS).map(|i| (format!("{i}"), "v".repeat(1000)));
        let labels = Labels::from_iter(large);
        assert_eq!((labels.len(), labels.left_out()), (16, MAX_LABELS - 16), "together they are too much");
    }

    #[test]
    fn misses_have_labels_of_their_own() {
        let mut labels = Miss::ALL.map(Miss::label).to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Miss::ALL.len());
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(text(""), None);
        assert_eq!(text("a\\b").as_deref(), Some("a\\\\b"));
        assert_eq!(text(&"x".repeat(MAX_TEXT_BYTES + 1)), None);
    }
}

#[cfg(test)]
mod read_tests;
