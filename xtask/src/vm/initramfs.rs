//! Writes the guest's root: a cpio archive of the `newc` form, which the kernel unpacks into memory.
//!
//! Our own writer, because the form is one header per file, and a guest's root then needs no root here.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;

/// Where a guest's loader finds libraries without a cache of them.
const LIBRARIES: &str = "/lib";
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Files of a guest, by path without the leading slash. A path that comes twice keeps the later contents.
#[derive(Default)]
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    contents: Vec<u8>,
}

impl Archive {
    /// Adds a directory and those above it.
    pub(super) fn directory(&mut self, path: &str) {
        let mut end = 0;
        while let Some(length) = path[end..].find('/') {
            self.insert_directory(&path[..end + length]);
            end += length + 1;
        }
        self.insert_directory(path);
    }

    fn insert_directory(&mut self, path: &str) {
        if !path.is_empty() {
            self.entries
                .entry(path.to_owned())
                .or_insert(Entry { mode: S_IFDIR | 0o755, contents: Vec::new() });
        }
    }

    /// Adds a file with these contents.
    pub(super) fn contents(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries.insert(path.to_owned(), Entry { mode: S_IFREG | mode, contents });
    }

    /// Adds a symbolic link to `target`.
    pub(super) fn link(&mut self, target: &str, path: &str) {
        let contents = target.as_bytes().to_vec();
        self.entries.insert(path.to_owned(), Entry { mode: S_IFLNK | 0o777, contents });
    }

    /// Adds a copy of a file; links are followed.
    pub(super) fn file(&mut self, source: &Path, path: &str, mode: u32) -> Result<()> {
        let contents = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.contents(path, mode, contents);
        Ok(())
    }

    /// Adds a program, its loader at its own path, and the shared libraries that it loads.
    ///
    /// # Errors
    /// A library that this machine lacks is one: the program would not start.
    pub(super) fn program(&mut self, source: &Path, path: &str) -> Result<()> {
        self.file(source, path, 0o755)?;
        for (name, library) in libraries(source)? {
            // The loader goes by its path; the libraries are looked for by name, wherever they lie here.
            let inner = if name.starts_with('/') { name } else { format!("{LIBRARIES}/{name}") };
            self.file(&library, inner.trim_start_matches('/'), 0o755)?;
        }
        Ok(())
    }

    /// Adds the files of a directory, in the same order below `path`.
    pub(super) fn tree(&mut self, source: &Path, path: &str) -> Result<()> {
        self.directory(path);
        for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
            let entry = entry?;
            let inner = format!("{path}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.tree(&entry.path(), &inner)?;
            } else {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                self.file(&entry.path(), &inner, mode)?;
            }
        }
        Ok(())
    }

    /// The archive's bytes. Directories come before what they hold, because the map is sorted.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            append(&mut bytes, inode, path, entry);
        }
        append(&mut bytes, 0, "TRAILER!!!", &Entry { mode: 0, contents: Vec::new() });
        bytes
    }
}

/// One header, name and contents, each padded to four bytes.
fn append(bytes: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let size = entry.contents.len();
    let name_size = path.len() + 1;
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
    let header = format!(
        "070701{inode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
        entry.mode, 0, 0, 1, 0, 0, 0, 0, 0, 0
    );
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&entry.contents);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The shared libraries of a program and its loader, by the names that the program uses; none for a static one.
fn libraries(program: &Path) -> Result<Vec<(String, PathBuf)>> {
    let own = env::join_paths(setup::unpacked_libraries()?)?;
    let result =
        Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", own).output().context("cannot start ldd")?;
    // For a static program ldd exits with 1 and says so.
    parse_ldd(&String::from_utf8_lossy(&result.stdout))
        .with_context(|| format!("cannot put {} into a guest", program.display()))
}

/// Names and paths in ldd's lines: `name => /path (0x…)` and, for the loader, `/path (0x…)`.
fn parse_ldd(text: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("=> not found") {
            bail!("it needs {line}");
        }
        let Some((line, _)) = line.split_once(" (0x") else { continue };
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        // The kernel's own library has no path.
        if path.starts_with('/') {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_aligned_entries_with_parents_first_and_a_trailer() {
        let mut archive = Archive::default();
        archive.contents("a/b/file", 0o644, b"12345".to_vec());
        let bytes = archive.finish();
        let mut offset = 0;
        let mut names = Vec::new();
        let field = |at: usize| {
            let text = std::str::from_utf8(&bytes[at..at + 8]).expect("hexadecimal");
            usize::from_str_radix(text, 16).expect("hexadecimal")
        };
        while offset < bytes.len() {
            assert_eq!(&bytes[offset..offset + 6], b"070701");
            let (size, name_size) = (field(offset + 6 + 6 * 8), field(offset + 6 + 11 * 8));
            let name = offset + 110;
            names.push(String::from_utf8_lossy(&bytes[name..name + name_size - 1]).into_owned());
            let contents = (name + name_size).next_multiple_of(4);
            if size > 0 {
                assert_eq!(&bytes[contents..contents + size], b"12345");
            }
            offset = (contents + size).next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/file", "TRAILER!!!"]);
    }

    #[test]
    fn libraries_and_the_loader_are_found_and_the_vdso_is_not() -> Result<()> {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /opt/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        let loader = ("/lib64/ld.so.2".to_owned(), PathBuf::from("/lib64/ld.so.2"));
        assert_eq!(parse_ldd(text)?, [("libc.so.6".to_owned(), PathBuf::from("/opt/x/libc.so.6")), loader]);
        assert_eq!(parse_ldd("\tnot a dynamic executable\n")?, []);
        assert!(parse_ldd("\tlibyajl.so.2 => not found\n").is_err());
        Ok(())
    }
}
