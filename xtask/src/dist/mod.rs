//! `cargo xtask dist`: what is shipped, all of it the same byte by byte wherever and by whomever it is built.
//!
//! docs/packaging.md says what the parts are and what they promise.

mod build;
mod check;
mod contents;
mod deb;
mod image;
mod manual;
mod object;
mod sbom;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment::{Unfit, repository, target_dir, work_dir};
use crate::{process, setup};

pub(crate) use object::Again;

/// In a line.
const DESCRIPTION: &str = "runtime threat monitor that watches the walls of Linux containers";
/// In SPDX's words.
const LICENCE: &str = "Apache-2.0 OR MIT";

/// What all parts of a release say of it.
pub(crate) struct Release {
    version: String,
    /// The time of everything in it, in seconds since 1970: the last commit's, or `SOURCE_DATE_EPOCH`.
    time: u64,
    /// The commit, with `-dirty` behind it if there are changes, or what `RINGFENCE_REVISION` says.
    revision: String,
}

impl Release {
    /// # Errors
    /// [`Unfit`] outside of a git repository if the environment does not say either.
    fn find() -> Result<Self> {
        let git = |arguments: &[&str]| {
            let text = process::output(Command::new("git").args(arguments).current_dir(repository()))
                .map_err(|error| {
                    Unfit(format!(
                        "set SOURCE_DATE_EPOCH and RINGFENCE_REVISION, for git does not know: {error:#}"
                    ))
                })?;
            Ok::<_, Unfit>(text.trim().to_owned())
        };
        let time = match env::var("SOURCE_DATE_EPOCH") {
            Ok(time) => time,
            Err(_) => git(&["log", "-1", "--format=%ct"])?,
        };
        let revision = match env::var("RINGFENCE_REVISION") {
            Ok(revision) => revision,
            Err(_) => {
                let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
                let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
                if dirty { format!("{commit}-dirty") } else { commit }
            }
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: time.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is {time:?}"))?,
            revision,
        })
    }
}

/// Builds the program, unless one is given, and makes everything of it.
pub(crate) fn command(out: Option<&Path>, ringfence: Option<&Path>) -> Result<bool> {
    setup::install(setup::Group::Build)?;
    let release = Release::find()?;
    let built = match ringfence {
        Some(program) => program.to_owned(),
        None => build::program(&release)?,
    };
    let out = out.map_or_else(default_out, Path::to_path_buf);
    for file in package(&release, &built, &out)? {
        println!("{}", file.display());
    }
    Ok(true)
}

/// Makes everything twice, as differently as it can, and compares; with a program that is built already, only the rest.
pub(crate) fn check(ringfence: Option<&Path>) -> Result<bool> {
    setup::install(setup::Group::Build)?;
    let (same, _) = check::twice(ringfence)?;
    Ok(same)
}

/// Packages a program twice, as differently as it can; gives whether that made a difference, and where the first lies.
pub(crate) fn package_twice(ringfence: &Path) -> Result<(bool, PathBuf)> {
    check::twice(Some(ringfence))
}

/// Makes only the image, of a program that is built already.
pub(crate) fn image(ringfence: &Path, out: Option<&Path>) -> Result<bool> {
    let release = Release::find()?;
    let out = out.map_or_else(|| default_out().join(image_name(&release)), Path::to_path_buf);
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent)?;
    }
    image::make(&release, ringfence, &work_dir("dist/image")?, &out)?;
    println!("{}", out.display());
    Ok(true)
}

/// Where everything lies unless told otherwise.
pub(crate) fn default_out() -> PathBuf {
    target_dir().join("dist/out")
}

fn image_name(release: &Release) -> String {
    format!("ringfence-{}-amd64.oci.tar", release.version)
}

/// Makes everything of a program, in an empty directory; gives the paths.
fn package(release: &Release, ringfence: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    image::require_static(ringfence)?;
    tree::fresh(out)?;
    // Beside the output, so that two runs at once do not share it.
    let work = out.with_extension("work");
    tree::fresh(&work)?;
    let materials = sbom::Materials::find()?;
    let third_party = materials.licence_texts()?;
    let version = &release.version;
    let whole = || contents::whole(release, ringfence, &third_party, &work.join("contents"));

    let deb = out.join(format!("ringfence_{version}_amd64.deb"));
    deb::make(release, whole()?, &work.join("deb"), &deb)?;

    let name = format!("ringfence-{version}-x86_64");
    let mut tree = whole()?;
    tree.copy("INSTALL.md", 0o644, repository().join("deploy/INSTALL.md"));
    let unpacked = work.join("tarball");
    fs::create_dir(&unpacked)?;
    tree.write(&unpacked.join(&name))?;
    let tarball = work.join("tarball.tar");
    tree::tar(&unpacked, Some(&name), release.time, &tarball)?;
    let compressed = out.join(format!("{name}.tar.gz"));
    tree::gzip(&tarball, &compressed)?;

    let image = out.join(image_name(release));
    image::make(release, ringfence, &work.join("image"), &image)?;

    let bill = out.join(format!("ringfence-{version}.cdx.json"));
    let document = materials.document(release, ringfence)?;
    fs::write(&bill, serde_json::to_string_pretty(&document)? + "\n")?;

    let mut files = vec![deb, compressed, image, bill];
    files.sort();
    let mut sums = String::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        sums.push_str(&format!("{}  {name}\n", tree::sha256(file)?));
    }
    let list = out.join("SHA256SUMS");
    fs::write(&list, sums)?;
    files.push(list);
    fs::remove_dir_all(&work)?;
    Ok(files)
}
