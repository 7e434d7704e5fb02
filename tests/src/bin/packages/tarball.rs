//! The tarball, and that the checksums are those of the files.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::{Settings, debian, output};

/// What only Debian's tools look for.
const DEBIANS: &[&str] =
    &["usr/share/doc/ringfence/changelog.gz", "usr/share/doc/ringfence/copyright", "usr/share/lintian/"];

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let (sums_of, works_of) = (settings.clone(), settings.clone());
    vec![
        Trial::test("tarball::checksums_are_right", move || {
            let mut check = Command::new("sha256sum");
            check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&sums_of.dist);
            let told = output(&mut check)?;
            // Each file but the list itself.
            let files = std::fs::read_dir(&sums_of.dist).map_err(|error| error.to_string())?.count();
            if told.lines().count() != files - 1 {
                return Err(Failed::from(format!("{files} files, and checked were\n{told}")));
            }
            Ok(())
        }),
        Trial::test("tarball::holds_what_the_package_holds_and_works", move || {
            works(&works_of).map_err(Failed::from)
        }),
    ]
}

fn works(settings: &Settings) -> Result<(), String> {
    let tarball = settings.file(".tar.gz")?;
    let list = output(Command::new("tar").arg("--list").arg("--file").arg(&tarball))?;
    let inside: BTreeSet<String> = list
        .lines()
        .filter(|path| !path.ends_with('/'))
        .filter_map(|path| path.split_once('/').map(|(_, path)| path.to_owned()))
        .filter(|path| path != "INSTALL.md")
        .collect();
    let package: BTreeSet<String> = debian::contents(&settings.file(".deb")?)?
        .into_iter()
        .filter(|path| !DEBIANS.iter().any(|debians| path.starts_with(debians)))
        .collect();
    if inside != package {
        let differ: Vec<_> = inside.symmetric_difference(&package).collect();
        return Err(format!("only one of the two has {differ:?}"));
    }
    // Without a C library in reach the program still starts.
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    output(
        Command::new("tar")
            .args(["--strip-components=1", "--extract", "--file"])
            .arg(&tarball)
            .current_dir(dir.path()),
    )?;
    let told = output(Command::new("chroot").arg(dir.path()).args([
        "/usr/bin/ringfence",
        "check",
        "/usr/share/ringfence/rules",
    ]))?;
    if told.contains("rules") { Ok(()) } else { Err(format!("ringfence check: {told}")) }
}
