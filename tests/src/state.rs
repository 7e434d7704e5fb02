//! Configurations of Ringfence: where runtimes of the suite keep their state, which is nowhere that it would look by
//! itself; and settings that are no options.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// A configuration file.
#[derive(Debug)]
pub struct Config {
    dir: TempDir,
}

impl Config {
    /// Writes one with these keys, such as `docker_roots`, and the directories of each.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(keys: &[(&str, &[&Path])]) -> io::Result<Config> {
        let lists = keys.iter().map(|(key, directories)| {
            let items =
                directories.iter().map(|directory| format!("  - {:?}\n", directory.display().to_string()));
            format!("{key}:\n{}", items.collect::<String>())
        });
        Self::of_text(&lists.collect::<String>())
    }

    /// Writes one with this text.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of_text(text: &str) -> io::Result<Config> {
        let config = Config { dir: tempfile::tempdir()? };
        fs::write(config.path(), text)?;
        Ok(config)
    }

    /// That of a Docker Engine's data directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn docker(directory: &Path) -> io::Result<Config> {
        Self::new(&[("docker_roots", &[directory])])
    }

    /// For `--config`.
    pub fn path(&self) -> String {
        self.dir.path().join("config.yaml").display().to_string()
    }
}
