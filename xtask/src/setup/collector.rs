//! An OpenTelemetry collector for the tests of the OTLP output. Debian has none; PyPI has rotel, a program of its own in a
//! wheel, which is only unpacked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment::work_dir;
use crate::process;

/// Of the wheels of this version, the one for Python 3.11 links the library that Debian 12 has.
const PACKAGE: (&str, &str) = ("rotel", "0.0.1a15");

/// As [`super::Missing::list`] shows it.
pub(super) const COLLECTOR: (&str, &str) = ("rotel (PyPI)", "an OpenTelemetry collector");

/// The directory with the program.
pub(super) fn directory() -> Result<PathBuf> {
    Ok(package_dir()?.join("rotel"))
}

fn package_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask/pieces")?.join(format!("{}-{}", PACKAGE.0, PACKAGE.1)))
}

pub(super) fn is_there() -> Result<bool> {
    Ok(directory()?.join("rotel-agent").is_file())
}

/// Downloads and unpacks it.
pub(super) fn install() -> Result<()> {
    let download = work_dir("xtask/pieces")?.join("collector.download");
    let _ = fs::remove_dir_all(&download);
    let wanted = format!("{}=={}", PACKAGE.0, PACKAGE.1);
    let mut pip = Command::new("pip3");
    pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    pip.args(["--python-version", "3.11", "--platform", "manylinux_2_34_x86_64", "--dest"]);
    process::run(pip.arg(&download).arg(&wanted))
        .with_context(|| format!("pip could not download {wanted}"))?;
    let wheel = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
    process::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(package_dir()?))?;
    // That leaves out who may run it.
    let program = directory()?.join("rotel-agent");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{wanted} has no {}", program.display()))?;
    fs::remove_dir_all(&download)?;
    Ok(())
}
