//! The container image, as an archive that both kinds of tools read: an OCI image layout, with the `manifest.json` of
//! Docker's own archives beside it, which names the same blobs.
//!
//! Docker Engine before 25 reads only the latter, containerd and newer engines the former.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::tree::{self, Tree};
use super::{Release, contents};
use crate::environment::Unfit;
use crate::process;

/// What the image is called where nobody gives it another name; deploy/kubernetes has the same.
const NAME: &str = "ringfence";

/// Makes the archive `to` from a program that is built already. `work` is for files on the way.
///
/// # Errors
/// [`Unfit`] if the program is linked dynamically: there is no loader in the image.
pub(crate) fn make(release: &Release, ringfence: &Path, work: &Path, to: &Path) -> Result<()> {
    require_static(ringfence)?;
    tree::fresh(work)?;
    let root = work.join("root");
    contents_of(ringfence)?.write(&root)?;
    let layer = work.join("layer.tar");
    tree::tar(&root, None, release.time, &layer)?;
    let compressed = work.join("layer.tar.gz");
    tree::gzip(&layer, &compressed)?;

    let layout = work.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer_blob = add_blob(&blobs, &fs::read(&compressed)?)?;
    let config = config(release, &tree::sha256(&layer)?)?;
    let config_blob = add_blob(&blobs, config.to_string().as_bytes())?;
    let descriptor = |kind: &str, (digest, size): &(String, usize)| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": size,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config_blob),
        "layers": [descriptor("layer.v1.tar+gzip", &layer_blob)],
        "annotations": labels(release),
    });
    let manifest_blob = add_blob(&blobs, manifest.to_string().as_bytes())?;
    let mut named = descriptor("manifest.v1+json", &manifest_blob);
    named["platform"] = json!({"architecture": "amd64", "os": "linux"});
    named["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{NAME}:{}", release.version),
        "org.opencontainers.image.ref.name": release.version,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    });
    let docker = json!([{
        "Config": format!("blobs/sha256/{}", config_blob.0),
        "RepoTags": [format!("{NAME}:{}", release.version)],
        "Layers": [format!("blobs/sha256/{}", layer_blob.0)],
    }]);
    let mut files = Tree::default();
    files.text("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string());
    files.text("index.json", index.to_string());
    files.text("manifest.json", docker.to_string());
    for entry in fs::read_dir(&blobs)? {
        let entry = entry?;
        files.copy(&format!("blobs/sha256/{}", entry.file_name().to_string_lossy()), 0o644, entry.path());
    }
    let packed = work.join("packed");
    files.write(&packed)?;
    tree::tar(&packed, None, release.time, to)
}

/// Files of the image: the program, its rules, and the directories that it or a mount needs where the root is read-only.
fn contents_of(ringfence: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    contents::program_and_rules(&mut tree, ringfence)?;
    contents::licences(&mut tree);
    for directory in ["etc/ringfence/config.d", "etc/ringfence/rules.d", "proc", "sys", "dev", "host", "run"]
    {
        tree.directory(directory, 0o755);
    }
    for private in ["var/lib/ringfence", "var/log/ringfence"] {
        tree.directory(private, 0o750);
    }
    tree.directory("tmp", 0o1777);
    Ok(tree)
}

fn labels(release: &Release) -> Value {
    json!({
        "org.opencontainers.image.title": "Ringfence",
        "org.opencontainers.image.description": super::DESCRIPTION,
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.revision": release.revision,
        "org.opencontainers.image.created": rfc3339(release.time),
        "org.opencontainers.image.licenses": super::LICENCE,
    })
}

fn config(release: &Release, layer: &str) -> Result<Value> {
    let created = rfc3339(release.time);
    Ok(json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            // Root, with the capabilities that whoever starts it leaves: a container's capabilities are in force for
            // root only, as deploy/kubernetes says.
            "User": "0:0",
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/ringfence"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "ExposedPorts": {"9477/tcp": {}},
            "StopSignal": "SIGTERM",
            "Labels": labels(release),
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": created, "created_by": "cargo xtask dist"}],
    }))
}

/// Seconds since 1970 in the form of RFC 3339.
pub(crate) fn rfc3339(time: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time)).to_string()
}

/// Puts a blob in by its digest; gives that and its size.
fn add_blob(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let new = blobs.join("new");
    fs::write(&new, bytes)?;
    let digest = tree::sha256(&new)?;
    fs::rename(&new, blobs.join(&digest))?;
    Ok((digest, bytes.len()))
}

/// Refuses a program that asks for a loader.
pub(crate) fn require_static(program: &Path) -> Result<()> {
    let headers = process::output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(program))
        .context("readelf (package binutils) cannot read the program")?;
    if headers.contains("INTERP") {
        return Err(Unfit(format!(
            "{} is linked dynamically, so it would not start without a C library beside it; build it by\n  \
             cargo rustc --package monitor --bin ringfence -- -C target-feature=+crt-static",
            program.display()
        ))
        .into());
    }
    Ok(())
}
