//! A ConfigMap as the kubelet lays it out: the files in a directory of their own, to which a symbolic link called `..data`
//! leads, and for each a link through that. An update makes a new directory and exchanges the link
//! (`pkg/volume/util/atomic_writer.go` of Kubernetes).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The link that is exchanged.
const DATA: &str = "..data";

/// The files of a ConfigMap, by name.
pub type Files = BTreeMap<String, String>;

/// A mounted ConfigMap.
#[derive(Debug)]
pub struct ConfigMapVolume {
    directory: TempDir,
    /// How often it was written.
    writes: u32,
    mode: u32,
}

impl ConfigMapVolume {
    /// A volume with these files of this mode.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(files: &Files, mode: u32) -> io::Result<ConfigMapVolume> {
        let directory = tempfile::tempdir()?;
        // As the kubelet makes it, for it is an emptyDir below; what keeps others out is the way to it, and that the
        // container has it read-only.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777))?;
        let mut volume = ConfigMapVolume { directory, writes: 0, mode };
        volume.update(files)?;
        Ok(volume)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where a file of it is, whose path stays as it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes these files in place of those before, as one change.
    ///
    /// # Errors
    /// The kernel's.
    pub fn update(&mut self, files: &Files) -> io::Result<()> {
        self.writes += 1;
        let root = self.path().to_owned();
        let name = format!("..2026_11_27_04_26_00.{}", self.writes);
        let fresh = root.join(&name);
        fs::create_dir(&fresh)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
        for (file, text) in files {
            fs::write(fresh.join(file), text)?;
            fs::set_permissions(fresh.join(file), Permissions::from_mode(self.mode))?;
        }
        let old = fs::read_link(root.join(DATA)).ok();
        symlink(&name, root.join("..data_tmp"))?;
        fs::rename(root.join("..data_tmp"), root.join(DATA))?;
        for file in files.keys().filter(|file| fs::symlink_metadata(root.join(file)).is_err()) {
            symlink(Path::new(DATA).join(file), root.join(file))?;
        }
        for entry in fs::read_dir(&root)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !files.contains_key(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        old.map_or(Ok(()), |old| fs::remove_dir_all(root.join(old)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_exchanges_all_files_at_once() {
        let files =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
        let mut volume = ConfigMapVolume::new(&files(&["a.yaml", "b.yaml"]), 0o444).unwrap();
        let first = fs::read_link(volume.file(DATA)).unwrap();
        assert_eq!(fs::read_to_string(volume.file("b.yaml")).unwrap(), "b.yaml");
        volume.update(&files(&["b.yaml", "c.yaml"])).unwrap();
        assert_ne!(fs::read_link(volume.file(DATA)).unwrap(), first);
        assert!(!volume.path().join(first).exists());
        let mut names: Vec<String> = fs::read_dir(volume.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        assert_eq!(names, ["b.yaml", "c.yaml"]);
        assert_eq!(fs::read_to_string(volume.file("c.yaml")).unwrap(), "c.yaml");
    }
}
