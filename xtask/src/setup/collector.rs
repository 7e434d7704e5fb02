//! An OpenTelemetry collector for the tests of the OTLP output. Debian has none; PyPI has rotel, a program of its own in a
//! wheel, which is only unpacked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::unpack_package;
use crate::apt::Apt;
use crate::environment::work_dir;
use crate::process;

/// Its wheels differ in the version of Python whose library they link. This one's starts no Python of its own accord, so the
/// library will do alone.
const PACKAGE: (&str, &str) = ("rotel", "0.0.1a15");
/// That library: its package, the release of Debian that has it, its file. Other releases take it from there as well.
const LIBRARY: (&str, &str, &str) = ("libpython3.11", "bookworm", "libpython3.11.so.1.0");
/// Where Debian keeps libraries, in its root and in an unpacked package.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// As [`super::Missing::list`] shows it.
pub(super) const COLLECTOR: (&str, &str) = ("rotel (PyPI)", "an OpenTelemetry collector");

/// The directory with the program.
pub(super) fn directory() -> Result<PathBuf> {
    Ok(package_dir()?.join("rotel"))
}

fn package_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask/pieces")?.join(format!("{}-{}", PACKAGE.0, PACKAGE.1)))
}

fn library_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask/pieces")?.join(LIBRARY.0))
}

/// The directory with its library, if the machine has none.
pub(super) fn libraries() -> Result<Option<PathBuf>> {
    Ok(Some(library_dir()?.join(LIBRARIES)).filter(|dir| dir.is_dir()))
}

pub(super) fn is_there() -> Result<bool> {
    Ok(directory()?.join("rotel-agent").is_file() && has_library()?)
}

fn has_library() -> Result<bool> {
    let roots = [PathBuf::from("/"), library_dir()?];
    Ok(roots.iter().any(|root| root.join(LIBRARIES).join(LIBRARY.2).is_file()))
}

/// Downloads and unpacks what of it is missing.
pub(super) fn install() -> Result<()> {
    if !has_library()? {
        let apt = Apt::for_suite(LIBRARY.1)?;
        unpack_package(LIBRARY.0, &apt.options, &work_dir("xtask/pieces")?, &library_dir()?)?;
    }
    if directory()?.join("rotel-agent").is_file() {
        return Ok(());
    }
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
