//! What Docker Engine writes: `containers/ID/config.v2.json` and `hostconfig.json` below its data directory, and
//! which image has which names in `image/DRIVER/repositories.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::enrich::container::Runtime;
use crate::enrich::metadata::open::StateDir;
use crate::enrich::metadata::{Metadata, Miss, image, json, text};

/// `config.v2.json`, as far as it is of use.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    /// The image's id: the digest of its configuration, or with containerd's image store of its manifest.
    #[serde(default)]
    image: String,
    #[serde(default)]
    driver: String,
    config: Option<Settings>,
    image_manifest: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    /// The image as it was asked for.
    #[serde(default)]
    image: String,
    labels: Option<BTreeMap<String, String>>,
}

/// Written since Docker 28 where images are kept by containerd.
#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    digest: String,
}

/// `hostconfig.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    privileged: bool,
}

/// `repositories.json`: by repository the names and digests of images, with the images' ids.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    #[serde(default)]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// Reads what an engine with this data directory (whose path below `dir` is `data`, empty or with a slash at its end)
/// wrote about a container.
pub(super) fn read(dir: &StateDir, data: &str, id: &str) -> Result<Metadata, Miss> {
    let at = format!("{data}containers/{id}");
    let config: Config = json(&dir.read(&format!("{at}/config.v2.json"))?)?;
    if config.id != id {
        return Err(Miss::WrongId);
    }
    let mut metadata = Metadata {
        runtime: Some(Runtime::Docker),
        name: text(config.name.strip_prefix('/').unwrap_or(&config.name)),
        image_id: image::id(&config.image).map(str::to_owned),
        created: text(&config.created),
        ..Metadata::default()
    };
    if let Some(settings) = config.config {
        image::set(&mut metadata, &settings.image);
        metadata.labels = settings.labels.unwrap_or_default().into_iter().collect();
    }
    // The rest is good to have, and its absence no reason to do without the name.
    let host_config = dir.read(&format!("{at}/hostconfig.json")).and_then(|bytes| json::<HostConfig>(&bytes));
    metadata.privileged = host_config.ok().map(|host_config| host_config.privileged);
    if let Some(manifest) = config.image_manifest {
        metadata.image_digest = image::digest(&manifest.digest).or(metadata.image_digest);
    }
    let is_driver = !config.driver.is_empty() && config.driver.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_driver {
        let path = format!("{data}image/{}/repositories.json", config.driver);
        if let Ok(known) = dir.read(&path).and_then(|bytes| json::<Repositories>(&bytes)) {
            complete(&mut metadata, &known);
        }
    }
    Ok(metadata)
}

/// Adds the tag that was meant where none was given, and the digest under which the image was pulled.
fn complete(metadata: &mut Metadata, known: &Repositories) {
    let (Some(id), Some(repository)) = (&metadata.image_id, &metadata.image_repository) else { return };
    let Some(names) = known.repositories.get(repository) else { return };
    let of_image = names.iter().filter(|(_, of)| image::id(of) == Some(id.as_str())).map(|(name, _)| name);
    let given = metadata.image_tag.is_some() || metadata.image_digest.is_some();
    for name in of_image {
        let mut parts = Metadata::default();
        image::set(&mut parts, name);
        metadata.image_digest = metadata.image_digest.take().or(parts.image_digest);
        if !given && parts.image_tag.as_deref() == Some("latest") {
            metadata.image_tag = parts.image_tag;
        }
    }
}
