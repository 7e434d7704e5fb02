//! A tree of files as it will lie on a machine: what is in it, with which rights, and how it becomes an archive.
//!
//! Archives depend on names, rights, contents and the time of the release only: neither on who builds, nor on where,
//! with which umask, time zone or locale.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process;

/// What a file is made from.
enum Content {
    Directory,
    Bytes(Vec<u8>),
    /// A file of this machine.
    Copy(PathBuf),
}

/// Files and directories by their path without the leading `/`.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<String, (u32, Content)>);

impl Tree {
    /// Puts a directory in. Those above a file need not be put in: they get the mode 0755.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.0.insert(path.to_owned(), (mode, Content::Directory));
    }

    /// Puts a file with this content in, readable by all and writable by its owner.
    pub(crate) fn text(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), (0o644, Content::Bytes(bytes.into())));
    }

    /// Puts a copy of a file in.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: impl Into<PathBuf>) {
        self.0.insert(path.to_owned(), (mode, Content::Copy(from.into())));
    }

    /// Puts copies of those files of a directory in whose names have one of these extensions; `below` ends in `/` or is
    /// empty.
    pub(crate) fn copy_all(&mut self, below: &str, from: &Path, extensions: &[&str]) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if path.is_file() && extensions.contains(&extension) {
                self.copy(&format!("{below}{name}"), 0o644, path.clone());
            }
        }
        Ok(())
    }

    /// The paths of files, without directories.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(_, (_, content))| !matches!(content, Content::Directory))
            .map(|(p, _)| p.as_str())
    }

    /// Bytes of all files together.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let size = |content: &Content| match content {
            Content::Directory => Ok(0),
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
            Content::Copy(from) => fs::metadata(from)
                .map(|data| data.len())
                .with_context(|| format!("cannot read {}", from.display())),
        };
        self.0.values().map(|(_, content)| size(content)).sum()
    }

    /// Writes the tree into an empty directory, which becomes its root.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        create_directory(root)?;
        for (path, (mode, content)) in &self.0 {
            let mut above = root.to_owned();
            for part in Path::new(path).parent().into_iter().flatten() {
                above.push(part);
                if !above.is_dir() {
                    create_directory(&above)?;
                }
            }
            let to = root.join(path);
            match content {
                Content::Directory if to.is_dir() => Ok(()),
                Content::Directory => fs::create_dir(&to),
                Content::Bytes(bytes) => fs::write(&to, bytes),
                Content::Copy(from) => fs::copy(from, &to).map(drop),
            }
            .with_context(|| format!("cannot write {}", to.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
}

/// Makes a directory with the mode 0755, whatever the umask is.
fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Packs what lies in `root` (or, with a name, that part of it) into a tar archive: sorted, root's, of one time.
pub(crate) fn tar(root: &Path, part: Option<&str>, time: u64, archive: &Path) -> Result<()> {
    let names = match part {
        Some(name) => vec![name.to_owned()],
        None => {
            let entries = fs::read_dir(root)?.collect::<std::io::Result<Vec<_>>>()?;
            let mut names: Vec<_> =
                entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    };
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--sort=name", "--owner=root:0", "--group=root:0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{time}"))
        .arg("--directory")
        .arg(root)
        .arg("--file")
        .arg(archive)
        .arg("--create");
    process::run(tar.arg("--").args(names).env("LC_ALL", "C"))
}

/// Compresses a file, without its name and time.
pub(crate) fn gzip(from: &Path, to: &Path) -> Result<()> {
    let input = fs::File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let output = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    process::run(Command::new("gzip").args(["-n", "-c"]).stdin(Stdio::from(input)).stdout(output))
}

/// A file's SHA-256 in hex.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    digest("sha256sum", file)
}

/// A file's MD5 in hex, which Debian's packages list.
pub(crate) fn md5(file: &Path) -> Result<String> {
    digest("md5sum", file)
}

fn digest(program: &str, file: &Path) -> Result<String> {
    let input = fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    // From standard input: a name with odd characters would be escaped.
    let text = process::output(Command::new(program).stdin(input))?;
    text.split(' ').next().map(str::to_owned).context("there is no checksum")
}

/// Makes a directory anew, without what an earlier run left there.
pub(crate) fn fresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot clear {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_and_parents_do_not_depend_on_the_umask() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("ringfence-tree-{}", std::process::id()));
        fresh(&dir)?;
        let mut tree = Tree::default();
        tree.text("a/b/c", "text");
        tree.directory("var/private", 0o700);
        let root = dir.join("root");
        tree.write(&root)?;
        let mode = |path: &str| fs::metadata(root.join(path)).map(|data| data.permissions().mode() & 0o7777);
        assert_eq!([mode("a")?, mode("a/b")?, mode("a/b/c")?], [0o755, 0o755, 0o644]);
        assert_eq!((mode("var/private")?, tree.bytes()?), (0o700, 4));
        assert_eq!(tree.files().collect::<Vec<_>>(), ["a/b/c"]);

        // The same tree, written a second later, gives the same archive.
        tar(&root, None, 1_000_000_000, &dir.join("1.tar"))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        fs::File::open(root.join("a/b/c"))?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
        tar(&root, None, 1_000_000_000, &dir.join("2.tar"))?;
        assert_eq!(sha256(&dir.join("1.tar"))?, sha256(&dir.join("2.tar"))?);
        // And another content another one.
        fs::write(root.join("a/b/c"), "texT")?;
        tar(&root, None, 1_000_000_000, &dir.join("2.tar"))?;
        assert_ne!(sha256(&dir.join("1.tar"))?, sha256(&dir.join("2.tar"))?);
        fs::remove_dir_all(&dir)?;
        Ok(())
    }
}
