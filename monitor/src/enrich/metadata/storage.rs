//! What CRI-O and Podman write into the storage that they share: `DRIVER-containers/containers.json` with the
//! containers' names and images, and each container's specification in `ID/userdata/config.json` beside it.

use serde::Deserialize;

use crate::enrich::container::Runtime;
use crate::enrich::metadata::oci::{Spec, of_crio};
use crate::enrich::metadata::open::StateDir;
use crate::enrich::metadata::{Metadata, Miss, image, json, text};

/// Drivers of the storage.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
/// Lists of containers. Those that need not outlive the machine are in the second, below the run root.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// An entry of a list.
#[derive(Deserialize)]
struct Entry {
    id: String,
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    metadata: String,
    #[serde(default)]
    created: String,
}

/// What stands as JSON in an entry's `metadata`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct EntryMetadata {
    image_name: String,
    name: String,
}

/// An entry of the list of images.
#[derive(Deserialize)]
struct Image {
    id: String,
    #[serde(default)]
    digest: String,
}

/// One of a storage's directories.
pub(super) struct Place {
    /// The directory that was opened.
    pub(super) dir: StateDir,
    /// The storage's path below it: empty, or with a slash at its end.
    pub(super) root: &'static str,
}

/// Reads what CRI-O wrote into its storage.
pub(super) fn read_crio(places: &[Place], id: &str) -> Result<Metadata, Miss> {
    of_crio(&read_spec(places, id)?, id)
}

/// Reads what Podman wrote into its storage.
pub(super) fn read_podman(places: &[Place], id: &str) -> Result<Metadata, Miss> {
    let mut metadata = first(places, |dir, storage| {
        let mut miss = Miss::NotFound;
        for list in LISTS {
            match dir
                .read(&format!("{storage}-containers/{list}"))
                .and_then(|bytes| json::<Vec<Entry>>(&bytes))
            {
                Ok(entries) => match entries.iter().find(|entry| entry.id == id) {
                    Some(entry) => return Ok(of_entry(entry)),
                    None => continue,
                },
                Err(other) => miss = miss.or(other),
            }
        }
        Err(miss)
    })?;
    // The rest is good to have, and its absence no reason to do without the name.
    if let Some(id) = &metadata.image_id {
        let digest = first(places, |dir, storage| {
            let images: Vec<Image> = json(&dir.read(&format!("{storage}-images/images.json"))?)?;
            let image = images.iter().find(|image| image.id == *id).ok_or(Miss::NotFound)?;
            image::digest(&image.digest).ok_or(Miss::NotFound)
        });
        metadata.image_digest = digest.ok().or(metadata.image_digest);
    }
    if let Ok(spec) = read_spec(places, id) {
        metadata.privileged = match spec.annotation("io.podman.annotations.privileged") {
            Some("TRUE") => Some(true),
            Some("FALSE") => Some(false),
            _ => spec.privileged(),
        };
    }
    Ok(metadata)
}

fn read_spec(places: &[Place], id: &str) -> Result<Spec, Miss> {
    first(places, |dir, storage| {
        Spec::read(dir, &format!("{storage}-containers/{id}/userdata/config.json"), id)
    })
}

fn of_entry(entry: &Entry) -> Metadata {
    let more: EntryMetadata = json(entry.metadata.as_bytes()).unwrap_or_default();
    let name = entry.names.iter().flatten().next().map_or(&*more.name, |name| name);
    let mut metadata = Metadata {
        runtime: Some(Runtime::Podman),
        name: text(name),
        image_id: image::id(&entry.image).map(str::to_owned),
        created: text(&entry.created),
        ..Metadata::default()
    };
    image::set(&mut metadata, &more.image_name);
    metadata
}

/// The first answer among the places and drivers, or what stood in its way. `read` is given the directory and what
/// names of the driver begin with in it.
fn first<T>(places: &[Place], read: impl Fn(&StateDir, &str) -> Result<T, Miss>) -> Result<T, Miss> {
    let mut miss = Miss::NotFound;
    for Place { dir, root } in places {
        for driver in DRIVERS {
            match read(dir, &format!("{root}{driver}")) {
                Ok(found) => return Ok(found),
                Err(other) => miss = miss.or(other),
            }
        }
    }
    Err(miss)
}
