//! What the documents say to whoever installs without a package, word for word.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tests::book::{self, USED_OF_REPOSITORY};

use crate::place::{PINS, expect, is_in_place};
use crate::root::Root;
use crate::{Settings, output};

/// Where the repository lies in the copy.
const REPOSITORY: &str = "/tmp/repository";
/// Where a tarball is unpacked there.
const TARBALL: &str = "/tmp/tarball";
/// What systemd is asked in the end.
const ASKED: [&str; 2] = ["daemon-reload", "enable --now ringfence.socket ringfence.service"];

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&Settings) -> Result<(), String>| {
        let settings = settings.clone();
        Trial::test(name, move || test(&settings).map_err(Failed::from))
    };
    vec![trial(book::INSTALLS, installed), trial(book::UNPACKS, unpacked), trial(book::MOUNTS, mounted)]
}

/// Runs the blocks of a test inside, in this directory.
fn run(settings: &Settings, root: &Root, test: &str, directory: &str) -> Result<(), String> {
    for block in book::blocks_of(&settings.repository, test)? {
        let script = format!("cd {directory}\n{}", block.commands);
        root.run(&["bash", "-euo", "pipefail", "-c", &script])
            .map_err(|error| format!("{}: {error}", block.place))?;
    }
    Ok(())
}

/// A root with the tarball unpacked in it.
fn with_tarball(settings: &Settings) -> Result<Root, String> {
    let root = Root::new()?;
    root.put(&settings.file(".tar.gz")?, "/tmp/tarball.tar.gz")?;
    let script = format!("mkdir {TARBALL}; tar -xzf /tmp/tarball.tar.gz --strip-components=1 -C {TARBALL}");
    root.run(&["sh", "-ec", &script])?;
    Ok(root)
}

/// The service is there, and systemd was asked to start it.
fn is_running(root: &Root, unit: &str) -> Result<(), String> {
    is_in_place(root, unit)?;
    let asked = root.asked_of_systemd()?;
    expect(asked == ASKED, format!("systemd was asked {asked:?}"))
}

/// From the repository, with a program that was built.
fn installed(settings: &Settings) -> Result<(), String> {
    let root = with_tarball(settings)?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let archive = dir.path().join("repository.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&settings.repository).arg("-cf").arg(&archive).args(USED_OF_REPOSITORY);
    output(&mut tar)?;
    root.put(&archive, "/tmp/repository.tar")?;
    let script = format!(
        "mkdir -p {REPOSITORY}/target/release; tar -xf /tmp/repository.tar -C {REPOSITORY}; \
         cp {TARBALL}/usr/bin/ringfence {REPOSITORY}/target/release"
    );
    root.run(&["sh", "-ec", &script])?;
    run(settings, &root, book::INSTALLS, REPOSITORY)?;
    is_running(&root, "/usr/local/lib/systemd/system/ringfence.service")
}

fn unpacked(settings: &Settings) -> Result<(), String> {
    let root = with_tarball(settings)?;
    run(settings, &root, book::UNPACKS, TARBALL)?;
    is_running(&root, "/usr/lib/systemd/system/ringfence.service")
}

/// What probes are pinned in, on a machine that has nothing of Ringfence.
fn mounted(settings: &Settings) -> Result<(), String> {
    let root = Root::new()?;
    run(settings, &root, book::MOUNTS, "/")?;
    let kind = root.run(&["stat", "--file-system", "--format", "%T", PINS])?;
    let mode = root.run(&["stat", "--format", "%u %a", PINS])?;
    // The kernel sets the sticky bit.
    expect((kind.trim(), mode.trim()) == ("bpf_fs", "0 1700"), format!("{PINS}: {kind}{mode}"))
}
