//! The emulator that boots guests, new enough.
//!
//! Before 8.1 QEMU's translator could run a kernel's code as it stood a moment before another processor rewrote it: a
//! kernel that switches a static key then meets a breakpoint that is gone and panics ("Oops: int3"). Under a stress of
//! switched trace events 7.2 panicked in each of six boots, within a few switches; 10.0 made 1,700 before it did.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::APT_SCRIPT;
use crate::apt::{Apt, os_codename};
use crate::environment::{Privilege, Unfit};
use crate::process;

const PACKAGE: &str = "qemu-system-x86";
/// The oldest that will do.
const OLDEST: (u64, u64) = (8, 1);
/// As [`super::Missing::list`] shows it.
pub(super) const NAME: &str = "qemu-system-x86 (8.1 or later)";
pub(super) const WHY: &str = "boots other kernels";

/// Whether the machine has an emulator that will do, whatever package brought it.
pub(super) fn fits() -> bool {
    process::output(Command::new("qemu-system-x86_64").arg("--version"))
        .ok()
        .and_then(|text| version(text.trim_start_matches("QEMU emulator version ")))
        .is_some_and(|version| version >= OLDEST)
}

/// Installs the machine's own suite's, or where that is too old the backport for it.
pub(super) fn install() -> Result<()> {
    let policy = process::output(Command::new("apt-cache").args(["policy", PACKAGE]))?;
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    let mut options = Vec::new();
    if candidate.and_then(version).is_none_or(|version| version < OLDEST) {
        let codename = os_codename().ok_or_else(|| {
            Unfit("/etc/os-release names no codename; please install QEMU 8.1 or later".to_owned())
        })?;
        let suite = format!("{codename}-backports");
        options = Apt::beside(&suite)?.options;
        options.extend(["-t".to_owned(), suite]);
    }
    let mut shell = Privilege::detect().command(Path::new("/bin/sh"), "to install packages")?;
    shell.args(["-c", APT_SCRIPT, "setup", "-y"]).args(options).arg(PACKAGE);
    process::run(&mut shell).context("apt-get could not install the emulator; its reasons are above")
}

/// Major and minor number of a version, an epoch before it left out.
fn version(text: &str) -> Option<(u64, u64)> {
    let text = text.split_once(':').map_or(text, |(_, version)| version);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_as_programs_and_as_packages_write_them() {
        assert_eq!(version("10.0.2 (Debian 1:10.0.2+ds-2)"), Some((10, 0)));
        assert_eq!(version("1:7.2+dfsg-7+deb12u18"), Some((7, 2)));
        assert_eq!(version("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some((10, 0)));
        assert_eq!(version("(none)"), None);
    }
}
