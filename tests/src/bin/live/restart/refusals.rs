//! What is not Ringfence's own is not taken over, and what is of another version is replaced.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Trial;
use tests::harness::Settings;

use super::process::{BpfFs, Place};
use crate::cases::cases;
use crate::starts::refused;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(
        settings,
        &[
            ("restart::pins_of_others_are_refused", of_others),
            ("restart::one_directory_is_for_one_process", in_use),
        ],
    )
}

/// A start that must end with a message of these words, and `unpin` with it.
fn must_refuse(place: &Place, fs: &BpfFs, words: &[&str]) -> Result<(), String> {
    refused(&mut place.command(), 2, words)?;
    place.unpin(fs, false).map(drop)
}

fn of_others(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let fs = BpfFs::mount()?;
    let root = fs.path();
    let place = Place::new(settings, &["--pin-dir", &root])?;
    place.start()?.stop(libc::SIGTERM)?;
    let set = fs.names().pop().ok_or("nothing is pinned")?;
    // Somebody else's, as a whole and in part.
    for owned in [Path::new(&root), &set, &set.join("EVENTS")] {
        chown(owned, Some(65534), None).map_err(text)?;
        must_refuse(&place, &fs, &["user 65534"])?;
        chown(owned, Some(0), None).map_err(text)?;
    }
    // Others can get at it.
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o711)).map_err(text)?;
    must_refuse(&place, &fs, &["mode 0711"])?;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).map_err(text)?;
    // Not made by Ringfence.
    let foreign = Path::new(&root).join("somebody");
    std::fs::DirBuilder::new().mode(0o700).create(&foreign).map_err(text)?;
    must_refuse(&place, &fs, &["is not Ringfence's"])?;
    std::fs::remove_dir(&foreign).map_err(text)?;
    let link = Path::new(&root).join("link");
    std::os::unix::fs::symlink(&set, &link).map_err(text)?;
    must_refuse(&place, &fs, &["is not Ringfence's"])?;
    std::fs::remove_file(&link).map_err(text)?;
    // No BPF file system; and one that is reached by a link.
    let dir = tempfile::tempdir().map_err(text)?;
    let plain = dir.path().display().to_string();
    refused(&mut Place::new(settings, &["--pin-dir", &plain])?.command(), 2, &["no BPF file system"])?;
    let by_link = dir.path().join("link");
    std::os::unix::fs::symlink(&root, &by_link).map_err(text)?;
    let by_link = by_link.display().to_string();
    refused(&mut Place::new(settings, &["--pin-dir", &by_link])?.command(), 2, &[&by_link])?;
    // As it was, it is taken over.
    let process = place.start()?;
    process.stop(libc::SIGINT)?;
    fs.must_be_empty()
}

fn in_use(settings: &Settings) -> Result<(), String> {
    let fs = BpfFs::mount()?;
    let place = Place::new(settings, &["--pin-dir", &fs.path()])?;
    let process = place.start()?;
    let other = Place::new(settings, &["--pin-dir", &fs.path()])?;
    must_refuse(&other, &fs, &["another Ringfence uses"])?;
    process.stop(libc::SIGINT)?;
    fs.must_be_empty()
}
