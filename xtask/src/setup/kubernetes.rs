//! What checks the manifests: a Kustomize and a validator with Kubernetes' schemas.
//!
//! Kustomize is kubectl's where the machine has one that is new enough. Otherwise it is Debian's program of that name, of
//! the first release that has it: one file that needs nothing, only unpacked. The validator is Python's, in an environment of
//! its own below the target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{APT_SCRIPT, unpack_package};
use crate::apt::Apt;
use crate::environment::{Privilege, repository, work_dir};
use crate::process;

/// The oldest Kustomize that knows what the manifests use: `labels` with `includeSelectors`, and components.
const OLDEST: u64 = 5;
const PACKAGE: &str = "kustomize";
/// The first release of Debian that has it.
const SUITE: &str = "trixie";
/// The validator, whose version is that of the newest schemas in it.
const VALIDATOR: (&str, &str) = ("kubernetes-validate", "1.37.0");
/// What it needs, in the versions that it was tried with; for pip.
const NEEDED: &str = "xtask/src/setup/kubernetes-validate.txt";

/// As [`super::Missing::list`] shows them.
pub(super) const KUSTOMIZE: (&str, &str) =
    ("kubectl or kustomize (5 or later)", "renders the manifests for Kubernetes");
pub(super) const VALIDATE: (&str, &str) = ("kubernetes-validate (PyPI)", "has the schemas of Kubernetes");

/// Directories with programs of these two, for `PATH`.
pub(crate) fn programs() -> Result<Vec<PathBuf>> {
    let all = [kustomize_dir()?.join("usr/bin"), validator_dir()?.join("bin")];
    Ok(all.into_iter().filter(|dir| dir.is_dir()).collect())
}

fn kustomize_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask/pieces")?.join(PACKAGE))
}

fn validator_dir() -> Result<PathBuf> {
    Ok(work_dir("xtask")?.join(VALIDATOR.0))
}

/// Whether there is a Kustomize that will do.
pub(super) fn has_kustomize() -> Result<bool> {
    let kubectl = process::output(Command::new("kubectl").args(["version", "--client"]));
    let kustomize = process::output(Command::new(PACKAGE).arg("version"));
    let is_new = |major: Option<u64>| major.is_some_and(|major| major >= OLDEST);
    Ok(kubectl.is_ok_and(|text| is_new(of_kubectl(&text)))
        || kustomize.is_ok_and(|text| is_new(major(&text)))
        || kustomize_dir()?.join("usr/bin").join(PACKAGE).is_file())
}

/// The number in `Kustomize Version: v5.5.0`, as kubectl says it.
fn of_kubectl(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Kustomize Version: ")).and_then(major)
}

/// The first number of a version: `v5.5.0`, `{Version:kustomize/v4.5.7 …}`. Some builds do not know their own.
fn major(text: &str) -> Option<u64> {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split('v').skip(1).find_map(|rest| digits(rest).parse().ok())
}

/// Unpacks Debian's.
pub(super) fn install_kustomize() -> Result<()> {
    let apt = Apt::for_suite(SUITE)?;
    unpack_package(PACKAGE, &apt.options, &work_dir("xtask/pieces")?, &kustomize_dir()?)
}

/// Whether the validator is there in this version.
pub(super) fn has_validator() -> Result<bool> {
    let program = validator_dir()?.join("bin").join(VALIDATOR.0);
    Ok(process::output(Command::new(program).arg("--version")).is_ok_and(|text| text.contains(VALIDATOR.1)))
}

/// Makes the validator's environment.
pub(super) fn install_validator() -> Result<()> {
    let python = || Command::new("python3");
    if process::output(python().args(["-c", "import venv, ensurepip"])).is_err() {
        let mut shell = Privilege::detect().command(Path::new("/bin/sh"), "to install packages")?;
        process::run(shell.args(["-c", APT_SCRIPT, "setup", "-y", "python3-venv"]))
            .context("apt-get could not install python3-venv; its reasons are above")?;
    }
    let dir = validator_dir()?;
    process::run(python().args(["-m", "venv", "--clear"]).arg(&dir))?;
    let wanted = format!("{}=={}", VALIDATOR.0, VALIDATOR.1);
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--constraint"])
        .arg(repository().join(NEEDED));
    process::run(pip.arg(&wanted))
        .with_context(|| format!("pip could not install {wanted}; its reasons are above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_kustomize_is_read_as_kubectl_says_it() {
        assert_eq!(of_kubectl("Client Version: v1.32.4\nKustomize Version: v5.5.0\n"), Some(5));
        assert_eq!(of_kubectl("Client Version: v1.20.2\n"), None);
    }

    #[test]
    fn and_as_it_says_it_itself() {
        assert_eq!(major("v5.6.0\n"), Some(5));
        assert_eq!(major("{Version:kustomize/v4.5.7 GitCommit:56d8 BuildDate:2022 GoOs:linux}\n"), Some(4));
        assert_eq!(major("(devel)\n"), None);
    }

    #[test]
    fn what_the_validator_needs_is_pinned() -> Result<()> {
        let pins = std::fs::read_to_string(repository().join(NEEDED))?;
        let lines: Vec<_> = pins.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.iter().all(|line| line.contains("==")), "{lines:?}");
        for needed in ["jsonschema", "PyYAML", "referencing", "packaging"] {
            assert!(lines.iter().any(|line| line.starts_with(&format!("{needed}=="))), "{needed}");
        }
        Ok(())
    }
}
