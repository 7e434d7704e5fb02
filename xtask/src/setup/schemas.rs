//! CycloneDX' published schemas, by which the tests judge the bill of materials. They come with its library for Python,
//! which is only unpacked: nothing of it runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment::work_dir;
use crate::process;

const PACKAGE: (&str, &str) = ("cyclonedx-python-lib", "11.12.0");

/// As [`super::Missing::list`] shows them.
pub(super) const SCHEMAS: (&str, &str) = ("cyclonedx-python-lib (PyPI)", "has the schemas of CycloneDX");

/// The directory with the schemas.
pub(crate) fn directory() -> Result<PathBuf> {
    Ok(package_dir()?.join("cyclonedx/schema/_res"))
}

fn package_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask/pieces")?.join(format!("{}-{}", PACKAGE.0, PACKAGE.1)))
}

pub(super) fn are_there() -> Result<bool> {
    Ok(directory()?.join("bom-1.5.SNAPSHOT.schema.json").is_file())
}

/// Downloads and unpacks the package.
pub(super) fn install() -> Result<()> {
    let download = work_dir("xtask/pieces")?.join("schemas.download");
    let _ = fs::remove_dir_all(&download);
    let wanted = format!("{}=={}", PACKAGE.0, PACKAGE.1);
    let mut pip = Command::new("pip3");
    pip.args([
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
    ]);
    process::run(pip.arg(&download).arg(&wanted))
        .with_context(|| format!("pip could not download {wanted}"))?;
    let wheel = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
    process::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(package_dir()?))?;
    fs::remove_dir_all(&download)?;
    Ok(())
}
