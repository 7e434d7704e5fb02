//! Secrets: read from a file, again whenever it changes, or once from the environment.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{setting as wrong, unusable};
use crate::sink::OutputError;

/// A secret has at most so many bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What a file's metadata must all be for it to count as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i64; 5]);

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self([meta.dev() as i64, meta.ino() as i64, meta.len() as i64, meta.mtime(), meta.mtime_nsec()])
    }
}

/// A secret and where it is from. Its `Debug` shows the place alone.
#[derive(Clone)]
pub(super) struct Secret {
    place: Place,
    value: String,
}

#[derive(Clone)]
enum Place {
    File { path: PathBuf, read: Option<Stamp> },
    Environment(String),
}

impl Secret {
    /// The secret that a pair of settings names, if one of them is set: `names` are the two settings.
    ///
    /// # Errors
    /// Both are set, or it cannot be read.
    pub(super) fn find(
        names: [&'static str; 2],
        file: Option<&Path>,
        variable: Option<&str>,
    ) -> Result<Option<Self>, OutputError> {
        match (file, variable) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(wrong(names[0], format!("give this or `{}`, not both", names[1]))),
            (Some(path), None) => Self::from_file(names[0], path).map(Some),
            (None, Some(variable)) => Self::from_environment(names[1], variable).map(Some),
        }
    }

    /// Reads it from a file.
    pub(super) fn from_file(setting: &'static str, path: &Path) -> Result<Self, OutputError> {
        let mut secret =
            Self { place: Place::File { path: path.to_owned(), read: None }, value: String::new() };
        let outcome = secret.get().map(drop);
        outcome.map_err(|reason| unusable(setting, path, reason))?;
        Ok(secret)
    }

    /// Reads it from an environment variable.
    pub(super) fn from_environment(setting: &'static str, variable: &str) -> Result<Self, OutputError> {
        let value = std::env::var(variable).ok().filter(|value| is_text(value));
        let missing = || {
            wrong(
                setting,
                format!("the environment variable {variable} is not set, or not to one line of text"),
            )
        };
        Ok(Self { place: Place::Environment(variable.to_owned()), value: value.ok_or_else(missing)? })
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// What is wrong with the file, for use behind its path.
    pub(super) fn get(&mut self) -> Result<&str, String> {
        let Place::File { path, read } = &mut self.place else { return Ok(&self.value) };
        // Opening a pipe would block, hence the look before.
        let meta = std::fs::metadata(&*path).map_err(|error| format!("cannot be read: {error}"))?;
        if !meta.is_file() {
            return Err("is not a regular file".to_owned());
        }
        if *read != Some(Stamp::of(&meta)) {
            let (value, stamp) = read_text(path)?;
            self.value = value;
            *read = Some(stamp);
        }
        Ok(&self.value)
    }

    /// The secret as it was read last.
    pub(super) fn known(&self) -> &str {
        &self.value
    }

    /// Whether a text repeats it.
    pub(super) fn is_in(&self, text: &str) -> bool {
        text.contains(&self.value)
    }

    /// As [`Secret::get`], with the place in the message.
    pub(super) fn current(&mut self) -> Result<&str, String> {
        let place = format!("{self:?}");
        self.get().map_err(|reason| format!("{place} {reason}"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, .. } => write!(f, "{}", path.display()),
            Place::Environment(variable) => write!(f, "${variable}"),
        }
    }
}

fn read_text(path: &Path) -> Result<(String, Stamp), String> {
    let fail = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(fail)?;
    let stamp = Stamp::of(&file.metadata().map_err(fail)?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    // Editors and `echo` end a file with a line feed.
    let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    let text = text.filter(|text| is_text(text)).ok_or("does not hold one line of text")?;
    Ok((text, stamp))
}

/// What can stand in a header: one line with something in it.
fn is_text(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let mut secret = Secret::from_file("token_file", &path).unwrap();
        assert_eq!(secret.get(), Ok("first"));
        // As Kubernetes and careful people do it.
        std::fs::write(dir.path().join("next"), "second\r\n").unwrap();
        std::fs::rename(dir.path().join("next"), &path).unwrap();
        assert_eq!(secret.get(), Ok("second"));
        for (content, reason) in
            [("", "one line"), ("a\nb", "one line"), (&"x".repeat(70_000), "more than 65536")]
        {
            std::fs::write(&path, content).unwrap();
            assert!(secret.get().unwrap_err().contains(reason), "{content:.9}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(secret.current().unwrap_err().starts_with(&path.display().to_string()));
        assert!(Secret::from_file("token_file", dir.path()).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn what_is_shown_is_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret").unwrap();
        let secret = Secret::from_file("token_file", &path).unwrap();
        assert_eq!(format!("{secret:?}"), path.display().to_string());
        // PATH is set wherever tests run.
        let secret = Secret::from_environment("token_env", "PATH").unwrap();
        assert_eq!(format!("{secret:?}"), "$PATH");
        let missing = Secret::from_environment("token_env", "RINGFENCE_NOT_THERE").unwrap_err();
        assert!(missing.to_string().contains("RINGFENCE_NOT_THERE"), "{missing}");
        let both = Secret::find(["token_file", "token_env"], Some(&path), Some("PATH")).unwrap_err();
        assert_eq!(both.to_string(), "`token_file`: give this or `token_env`, not both");
    }
}
