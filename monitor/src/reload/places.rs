//! Where to look for changes of rule files: every directory in which a part of a path is looked up, links included.
//!
//! A path is followed by hand, part by part, so that each directory is watched before a name is looked up in it: what
//! changes after the look is reported. That covers a link that is exchanged (`..data` of a Kubernetes volume), a file
//! or directory that is renamed into place, and one that does not exist yet. The file itself is watched, too: it may
//! be written under another name.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Links that are followed on the way to a file, as many as the kernel does.
const MOST_LINKS: usize = 40;
/// Parts of a path that are followed.
const MOST_PARTS: usize = 4096;
/// Entries of a directory that are looked at.
const MOST_ENTRIES: usize = 4096;

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// One name in a directory: whether it comes, goes or is replaced.
    Name(PathBuf, OsString),
    /// All names in a directory that rule files have.
    Names(PathBuf),
    /// What is written to a file.
    File(PathBuf),
}

/// Calls `watch` for everything that decides what the rule files at these paths are.
pub(super) fn visit(paths: &[PathBuf], watch: &mut impl FnMut(Place)) {
    for path in paths {
        let Some(found) = follow(path, watch) else { continue };
        if !found.is_dir() {
            watch(Place::File(found));
            continue;
        }
        watch(Place::Names(found.clone()));
        let entries = fs::read_dir(&found).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| is_rule_file(&entry.file_name())).take(MOST_ENTRIES) {
            match follow(&entry.path(), watch) {
                Some(file) if !file.is_dir() => watch(Place::File(file)),
                _ => {}
            }
        }
    }
}

/// Whether a file of this name in a directory of rules is read. Editors, and whatever else writes there, use others.
pub(super) fn is_rule_file(name: &OsStr) -> bool {
    let ext = Path::new(name).extension();
    !name.as_bytes().starts_with(b".") && ext.is_some_and(|ext| ext == "yaml" || ext == "yml")
}

/// Follows a path to where it leads, and watches each directory on the way before it is looked into. `None` if
/// nothing is there.
fn follow(path: &Path, watch: &mut impl FnMut(Place)) -> Option<PathBuf> {
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = parts(&std::path::absolute(path).ok()?).collect();
    let (mut links, mut looked) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        looked += 1;
        if looked > MOST_PARTS {
            return None;
        }
        watch(Place::Name(at.clone(), name.clone()));
        let next = at.join(&name);
        if !fs::symlink_metadata(&next).ok()?.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return None;
        }
        let target = fs::read_link(&next).ok()?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(part);
        }
    }
    Some(at)
}

/// The names in a path, and `..`.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is watched below `dir`, as `name in directory`, `* in directory` and `file`.
    fn watched(dir: &Path, paths: &[&str]) -> BTreeSet<String> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| dir.join(path)).collect();
        let mut all = BTreeSet::new();
        let shown = |path: &Path| path.strip_prefix(dir).ok().map(|path| path.display().to_string());
        visit(&paths, &mut |place| {
            all.extend(match &place {
                Place::Name(at, name) => shown(at).map(|at| format!("{} in {at}", name.display())),
                Place::Names(at) => shown(at).map(|at| format!("* in {at}")),
                Place::File(file) => shown(file),
            });
        });
        all
    }

    fn texts<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
        texts.map(str::to_owned).into()
    }

    /// Of a name below a temporary directory, which itself may be reached by a link.
    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        (dir, real)
    }

    #[test]
    fn what_does_not_exist_is_awaited_where_it_would_be() {
        let (_dir, at) = scratch();
        assert_eq!(watched(&at, &["etc/rules.d"]), texts(["etc in "]));
        fs::create_dir(at.join("etc")).unwrap();
        assert_eq!(watched(&at, &["etc/rules.d"]), texts(["etc in ", "rules.d in etc"]));
        fs::create_dir(at.join("etc/rules.d")).unwrap();
        assert_eq!(watched(&at, &["etc/rules.d"]), texts(["etc in ", "rules.d in etc", "* in etc/rules.d"]));
    }

    #[test]
    fn a_kubernetes_volume() {
        let (_dir, at) = scratch();
        fs::create_dir_all(at.join("v/..2024_1")).unwrap();
        fs::write(at.join("v/..2024_1/r.yaml"), "").unwrap();
        symlink("..2024_1", at.join("v/..data")).unwrap();
        symlink("..data/r.yaml", at.join("v/r.yaml")).unwrap();
        assert_eq!(
            watched(&at, &["v"]),
            texts([
                "v in ",
                "* in v",
                "r.yaml in v",
                "..data in v",
                "..2024_1 in v",
                "r.yaml in v/..2024_1",
                "v/..2024_1/r.yaml"
            ])
        );
    }

    #[test]
    fn links_are_followed_to_their_ends() {
        let (_dir, at) = scratch();
        fs::create_dir_all(at.join("real/deep")).unwrap();
        fs::write(at.join("real/r.yaml"), "").unwrap();
        symlink(at.join("real/deep"), at.join("absolute")).unwrap();
        symlink("absolute/../r.yaml", at.join("link.yaml")).unwrap();
        assert_eq!(
            watched(&at, &["link.yaml"]),
            texts([
                "link.yaml in ",
                "absolute in ",
                "real in ",
                "deep in real",
                "r.yaml in real",
                "real/r.yaml"
            ])
        );
        symlink("round", at.join("round")).unwrap();
        assert_eq!(watched(&at, &["round"]), texts(["round in "]));
        symlink("nowhere/x", at.join("dangling")).unwrap();
        assert_eq!(watched(&at, &["dangling"]), texts(["dangling in ", "nowhere in "]));
    }

    #[test]
    fn editors_files_are_none_of_ours() {
        let (_dir, at) = scratch();
        fs::create_dir_all(at.join("d/sub.yaml")).unwrap();
        fs::create_dir_all(at.join("d/sub")).unwrap();
        for name in [".r.yaml.swp", ".r.yaml", "r.yaml", "r.yaml~", "alerts.jsonl"] {
            fs::write(at.join("d").join(name), "").unwrap();
        }
        assert_eq!(
            watched(&at, &["d"]),
            texts(["d in ", "* in d", "r.yaml in d", "d/r.yaml", "sub.yaml in d"])
        );
    }
}
