//! Who may have written a file: whoever can write configuration or rules decides what is watched.
//!
//! A file is trusted if nobody but root and the user of this process could have put it there: by writing it, by
//! replacing it in its directory, or by turning a symbolic link on the way to it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Permission bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a directory of this mode bit, names belong to their owners, whoever else may write to it.
const STICKY: u32 = 0o1000;

/// How many symbolic links a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whose files are trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The effective user's own files in whatever mode, unless that user is root: for commands that a developer
    /// runs on files at hand. Otherwise as [`Trust::Strict`].
    #[default]
    OwnFiles,
    /// Files of root and of the effective user, if nobody else can write them: for the daemon.
    Strict,
}

/// Why a file cannot be trusted, in words that continue "NAME is not trusted: ".
pub type Reason = String;

impl Trust {
    fn takes_own(self, us: u32) -> bool {
        self == Trust::OwnFiles && us != 0
    }

    /// Checks an open file or directory by its metadata.
    ///
    /// # Errors
    /// [`Reason`]: its owner or its mode.
    pub fn check(self, meta: &Metadata) -> Result<(), Reason> {
        let us = rustix::process::geteuid().as_raw();
        self.judge(us, meta.uid(), meta.mode(), WRITABLE_BY_OTHERS)
    }

    fn judge(self, us: u32, owner: u32, mode: u32, bits: u32) -> Result<(), Reason> {
        if owner == us && self.takes_own(us) {
            return Ok(());
        }
        if owner != 0 && owner != us {
            return Err(match us {
                0 => format!("it belongs to uid {owner}, and not to root"),
                _ => format!("it belongs to uid {owner}, which is neither root nor uid {us}"),
            });
        }
        if mode & bits != 0 {
            return Err(format!("its mode {:04o} lets others than its owner write", mode & 0o7777));
        }
        Ok(())
    }

    /// Checks a directory all of whose files are taken: nobody else may add one, sticky bit or not.
    ///
    /// # Errors
    /// [`Reason`]: its owner or its mode. What cannot be looked at is left to whoever reads it.
    pub fn check_dir(self, dir: &Path) -> Result<(), Reason> {
        let Ok(meta) = fs::metadata(dir) else { return Ok(()) };
        self.check(&meta).or_else(|reason| if is_read_only(dir) { Ok(()) } else { Err(reason) })
    }

    /// Checks every directory in which the name of this file, or of a symbolic link on the way to it, stands. A
    /// directory with the sticky bit may be written by others if the name in it is trusted, and one on a file system
    /// that is mounted read-only in any case: that is how Kubernetes mounts ConfigMaps.
    ///
    /// # Errors
    /// The directory and the [`Reason`]; what cannot be looked at is left to whoever opens the file.
    pub fn check_way(self, path: &Path) -> Result<(), (PathBuf, Reason)> {
        // What cannot be found now cannot be opened later either, and that error says it better.
        let Ok(names) = way(path) else { return Ok(()) };
        let us = rustix::process::geteuid().as_raw();
        for (dir, name) in names {
            let Ok(meta) = fs::metadata(&dir) else { continue };
            let sticky = meta.mode() & STICKY != 0;
            let bits = if sticky { 0 } else { WRITABLE_BY_OTHERS };
            let judged = self.judge(us, meta.uid(), meta.mode(), bits);
            if let Err(reason) = judged
                && !is_read_only(&dir)
            {
                return Err((dir, reason));
            }
            let link = fs::symlink_metadata(dir.join(&name));
            if let Ok(link) = link
                && link.is_symlink()
                // Links have no mode of their own.
                && let Err(reason) = self.judge(us, link.uid(), 0, 0)
            {
                return Err((dir.join(name), reason));
            }
        }
        Ok(())
    }
}

fn is_read_only(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The directories, each with the name in it, that decide what a path leads to: that of the file itself, and those
/// of all symbolic links on the way.
fn way(path: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut names = Vec::new();
    let mut here = if path.is_absolute() { PathBuf::from("/") } else { std::env::current_dir()? };
    let mut ahead: Vec<PathBuf> = parts(path);
    ahead.reverse();
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part.as_os_str() == ".." {
            here.pop();
            continue;
        }
        let full = here.join(&part);
        if fs::symlink_metadata(&full)?.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            let target = fs::read_link(&full)?;
            names.push((here.clone(), part));
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            ahead.extend(parts(&target).into_iter().rev());
            continue;
        }
        if ahead.is_empty() {
            names.push((here.clone(), part.clone()));
        }
        here = full;
    }
    Ok(names)
}

/// The names of a path, without those that say nothing.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const US: u32 = 1000;

    #[test]
    fn owners_and_modes_are_judged() {
        let strict = |us, owner, mode| Trust::Strict.judge(us, owner, mode, WRITABLE_BY_OTHERS).is_ok();
        let own = |us, owner, mode| Trust::OwnFiles.judge(us, owner, mode, WRITABLE_BY_OTHERS).is_ok();
        for (us, owner, mode, expected_strict, expected_own) in [
            (0, 0, 0o644, true, true),
            (0, 0, 0o664, false, false),
            (0, 0, 0o646, false, false),
            (0, US, 0o600, false, false),
            (US, 0, 0o644, true, true),
            (US, 0, 0o666, false, false),
            (US, US, 0o644, true, true),
            (US, US, 0o664, false, true),
            (US, US + 1, 0o600, false, false),
        ] {
            assert_eq!(strict(us, owner, mode), expected_strict, "{us} {owner} {mode:o}");
            assert_eq!(own(us, owner, mode), expected_own, "{us} {owner} {mode:o}");
        }
    }

    #[test]
    fn every_directory_that_decides_is_on_the_way() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        // As Kubernetes lays out a ConfigMap.
        let volume = root.join("volume");
        fs::create_dir_all(volume.join("..2026_11_26")).unwrap();
        fs::write(volume.join("..2026_11_26/rules.yaml"), "").unwrap();
        symlink("..2026_11_26", volume.join("..data")).unwrap();
        symlink("..data/rules.yaml", volume.join("rules.yaml")).unwrap();
        let found = way(&volume.join("rules.yaml")).unwrap();
        let expected = [
            (volume.clone(), "rules.yaml"),
            (volume.clone(), "..data"),
            (volume.join("..2026_11_26"), "rules.yaml"),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(dir, name)| (dir, PathBuf::from(name))).collect();
        assert_eq!(found, expected);
        assert!(Trust::Strict.check_way(&volume.join("rules.yaml")).is_ok());

        for dir in [&volume, &volume.join("..2026_11_26")] {
            let mode = |mode| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
            mode(0o777);
            let (named, reason) = Trust::Strict.check_way(&volume.join("rules.yaml")).unwrap_err();
            assert_eq!(&named, dir);
            assert!(reason.contains("0777"), "{reason}");
            mode(0o1777);
            assert!(Trust::Strict.check_way(&volume.join("rules.yaml")).is_ok());
            mode(0o755);
        }
        symlink("loop", root.join("loop")).unwrap();
        assert!(way(&root.join("loop")).is_err());
        assert!(Trust::Strict.check_way(&root.join("loop/x")).is_ok(), "opening it says what is wrong");
    }

    #[test]
    fn read_only_mounts_are_told() {
        assert!(!is_read_only(Path::new("/proc")));
        assert!(!is_read_only(Path::new("/no/such/directory")));
    }
}
