//! A file of alerts that is exchanged for a new one when it is large or old, and opened anew when asked to.
//!
//! A file that is done with is renamed to its name with a number of six digits behind it (`alerts.jsonl.000007`), which
//! grows with each and does not depend on any clock; of these the newest are kept, and no other files are touched. Renaming loses nothing: if it fails, writing goes on
//! where it is. Files change between two lines only. If one has to be given up in the middle of a line, because others
//! renamed it while its disk was full, it is cut to its last whole line, and the line begins anew in the next one.
//! Compressing is done by a thread of its own, from file to file, and the original goes when its copy is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Deserializer};

use super::file::{FileError, open_alert_file};
use crate::alert::Shape;
use crate::append;

/// What `rotate.bytes` may be.
const ROTATE_BYTES: RangeInclusive<u64> = 4096..=1 << 40;

/// What `rotate.seconds` may be.
const ROTATE_SECONDS: RangeInclusive<u64> = 1..=366 * 24 * 3600;

/// What `rotate.keep` may be.
const KEEP: RangeInclusive<u32> = 1..=10_000;

/// A rotation that failed is tried again after this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Digits of a number; whatever has more or less, such as a date, is not ours.
const DIGITS: usize = 6;

/// The last number. Behind it nothing is put aside until somebody has moved what has it away.
const LAST: u64 = 999_999;

/// A file of alerts, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOutput {
    /// The file, an absolute path.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// The shape of its lines.
    #[serde(default)]
    pub shape: Shape,
    /// When it is exchanged for a new one; unset: never.
    #[serde(default)]
    pub rotate: Option<Rotation>,
}

/// When a file is exchanged for a new one, and what becomes of the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "RotationKeys")]
pub struct Rotation {
    /// Before it would have more bytes than that, unless a single line has.
    pub bytes: Option<u64>,
    /// When the next line comes so many seconds after it was made.
    pub seconds: Option<u64>,
    /// So many old ones are kept.
    pub keep: u32,
    /// Old ones are compressed (gzip).
    pub compress: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { bytes: None, seconds: None, keep: 7, compress: false }
    }
}

/// [`Rotation`] before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationKeys {
    bytes: Option<u64>,
    seconds: Option<u64>,
    keep: Option<u32>,
    compress: Option<bool>,
}

impl TryFrom<RotationKeys> for Rotation {
    type Error = String;

    fn try_from(keys: RotationKeys) -> Result<Self, String> {
        let RotationKeys { bytes, seconds, keep, compress } = keys;
        let Rotation { keep: usual, .. } = Rotation::default();
        let keep = keep.unwrap_or(usual);
        let within = |value: Option<u64>, bounds: &RangeInclusive<u64>, key: &str| match value {
            Some(value) if !bounds.contains(&value) => Err(format!(
                "`rotate.{key}` is {value}: it may be from {} to {}",
                bounds.start(),
                bounds.end()
            )),
            _ => Ok(()),
        };
        within(bytes, &ROTATE_BYTES, "bytes")?;
        within(seconds, &ROTATE_SECONDS, "seconds")?;
        within(Some(keep.into()), &(u64::from(*KEEP.start())..=u64::from(*KEEP.end())), "keep")?;
        if bytes.is_none() && seconds.is_none() {
            return Err("`rotate` says neither `bytes` nor `seconds`: give one of them, or both".to_owned());
        }
        Ok(Rotation { bytes, seconds, keep, compress: compress.unwrap_or(false) })
    }
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(deserializer)?;
    crate::config::check_root(&path).map_err(serde::de::Error::custom)
}

/// The file that is written to.
#[derive(Debug)]
pub struct AlertFile {
    path: PathBuf,
    rotation: Option<Rotation>,
    file: File,
    /// Bytes that are whole lines.
    whole: u64,
    /// What the file has of a line that is not whole yet.
    partial: Vec<u8>,
    /// What has to go into the file before anything else: the begin of a line that an earlier file had.
    pending: Vec<u8>,
    age: Age,
    /// Not before this time rotation is tried again.
    rests_until: Option<Duration>,
    /// The number of the last one that was put aside.
    last: u64,
    compressing: Arc<AtomicBool>,
}

impl AlertFile {
    /// Opens the file, with rotation if wanted.
    ///
    /// # Errors
    /// [`FileError`] names cause and remedy.
    pub fn open(path: &Path, rotation: Option<Rotation>) -> Result<Self, FileError> {
        let file = open_alert_file(path)?;
        if rotation.is_some() && !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(FileError::NotAFile { path: path.to_owned() });
        }
        let mut opened = AlertFile {
            path: path.to_owned(),
            rotation,
            file,
            whole: 0,
            partial: Vec::new(),
            pending: Vec::new(),
            age: Age::default(),
            rests_until: None,
            last: 0,
            compressing: Arc::default(),
        };
        opened.look();
        opened.last = opened.aside().last().map_or(0, |aside| aside.number);
        opened.tidy();
        Ok(opened)
    }

    /// Notes how large and how old the file is.
    fn look(&mut self) {
        let meta = self.file.metadata().ok();
        self.whole = meta.as_ref().map_or(0, MetadataExt::size);
        self.partial.clear();
        let made = meta.filter(|_| self.whole > 0).and_then(|meta| meta.created().ok());
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        self.age = Age { then: age.unwrap_or_default(), seen: boot_now() };
    }

    /// Whether the file at the path is another one by now, or none.
    fn is_replaced(&self) -> bool {
        let id = |meta: io::Result<fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
        id(fs::symlink_metadata(&self.path)) != id(self.file.metadata())
    }

    /// Opens the file at the path, if it is another one by now.
    fn reopen(&mut self) -> io::Result<()> {
        if !self.is_replaced() {
            return Ok(());
        }
        let file = open_alert_file(&self.path).map_err(io::Error::other)?;
        let mut partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() && self.file.metadata().is_ok_and(|meta| meta.size() > self.whole) {
            // Nobody shall read half a line there; it is written whole to the new one.
            let _ = self.file.set_len(self.whole);
        }
        partial.append(&mut self.pending);
        self.pending = partial;
        self.file = file;
        self.look();
        tracing::info!(path = %self.path.display(), "the alert file was opened anew");
        Ok(())
    }

    /// Writes, and notes what of it is whole lines.
    fn write_here(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        let written = bytes.get(..taken).unwrap_or_default();
        match written.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                self.whole += (self.partial.len() + at + 1) as u64;
                self.partial.clear();
                self.partial.extend_from_slice(written.get(at + 1..).unwrap_or_default());
            }
            None => self.partial.extend_from_slice(written),
        }
        Ok(taken)
    }

    /// Whether the next line shall go into a new file.
    fn is_due(&self, next: &[u8]) -> bool {
        let Some(rotation) = self.rotation else { return false };
        if self.whole == 0 || self.rests_until.is_some_and(|until| boot_now() < until) {
            return false;
        }
        let line = next.iter().position(|byte| *byte == b'\n').map_or(next.len(), |at| at + 1) as u64;
        let large = rotation.bytes.is_some_and(|bytes| self.whole + line > bytes);
        let age = || self.age.at(boot_now());
        large || rotation.seconds.is_some_and(|seconds| age() >= Duration::from_secs(seconds))
    }

    /// Puts the file aside and begins a new one. If that fails, writing goes on in the old one.
    fn rotate(&mut self) {
        if let Err(error) = self.try_rotate() {
            self.rests_until = Some(boot_now() + PAUSE);
            tracing::error!(
                path = %self.path.display(),
                cause = %error,
                "the alert file cannot be rotated; it grows until that is possible"
            );
        } else {
            self.rests_until = None;
            self.tidy();
        }
    }

    fn try_rotate(&mut self) -> io::Result<()> {
        // Somebody else's file is not renamed; ours is gone from the path already.
        if self.is_replaced() {
            return self.reopen();
        }
        if self.last >= LAST {
            // They may have been moved away.
            self.last = self.aside().last().map_or(0, |aside| aside.number);
        }
        if self.last >= LAST {
            return Err(io::Error::other(format!(
                "{} has the last number there is: move the numbered files elsewhere, and numbers begin anew",
                self.aside_path(LAST).display()
            )));
        }
        let aside = self.aside_path(self.last + 1);
        if fs::symlink_metadata(&aside).is_ok() {
            self.last += 1;
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                format!("{} is there already", aside.display()),
            ));
        }
        fs::rename(&self.path, &aside)?;
        match open_alert_file(&self.path) {
            Ok(file) => {
                self.file = file;
                self.last += 1;
                self.look();
                Ok(())
            }
            Err(error) => {
                fs::rename(&aside, &self.path)?;
                Err(io::Error::other(error))
            }
        }
    }

    fn aside_path(&self, number: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number:0DIGITS$}"));
        name.into()
    }

    /// The files that were put aside, the oldest first.
    fn aside(&self) -> Vec<Aside> {
        asides(&self.path)
    }

    /// Removes the oldest files, and has others compressed.
    fn tidy(&self) {
        let Some(rotation) = self.rotation else { return };
        let aside = self.aside();
        for old in aside.iter().take(aside.len().saturating_sub(rotation.keep as usize)) {
            if let Err(error) = fs::remove_file(&old.path) {
                tracing::error!(path = %old.path.display(), cause = %error, "an old alert file cannot be removed");
            }
        }
        if !rotation.compress || self.compressing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (path, flag) = (self.path.clone(), Arc::clone(&self.compressing));
        let started = thread::Builder::new().name("gzip".to_owned()).spawn(move || {
            compress_all(&path);
            flag.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            self.compressing.store(false, Ordering::Release);
            tracing::error!(cause = %error, "old alert files are not compressed: no thread can be started");
        }
    }
}

impl Write for AlertFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let outcome = self.write_here(&pending);
            let taken = *outcome.as_ref().unwrap_or(&0);
            self.pending = pending.get(taken..).unwrap_or_default().to_vec();
            if outcome? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        if self.partial.is_empty() && self.is_due(bytes) {
            self.rotate();
        }
        let limit = self.rotation.and_then(|rotation| rotation.bytes);
        let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.whole) as usize);
        // Up to the last line that fits; the first goes in any case.
        let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let fits = bytes.get(..room).map_or(bytes.len(), |fits| {
            fits.iter().rposition(|byte| *byte == b'\n').map_or(first, |at| at + 1)
        });
        let fits = if self.rests_until.is_some() { bytes.len() } else { fits.max(first) };
        self.write_here(bytes.get(..fits).unwrap_or(bytes))
    }

    /// Looks whether the file is still the one at its path.
    fn flush(&mut self) -> io::Result<()> {
        self.reopen()
    }
}

/// How old a file is. What it was when it was opened is what the wall clock makes of it, and may be more than the time
/// since boot; from there on the boot clock counts, which nobody can set.
#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// How old it was then.
    then: Duration,
    /// When that was, by the boot clock.
    seen: Duration,
}

impl Age {
    fn at(self, boot: Duration) -> Duration {
        self.then + boot.saturating_sub(self.seen)
    }
}

/// A file that was put aside.
#[derive(Debug, PartialEq, Eq)]
struct Aside {
    number: u64,
    compressed: bool,
    path: PathBuf,
}

/// The files that were put aside for this path, the oldest first. A copy that is being made is none.
fn asides(path: &Path) -> Vec<Aside> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<Aside> = entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name();
            let tail = file.to_str()?.strip_prefix(name)?.strip_prefix('.')?;
            let (digits, compressed) =
                tail.strip_suffix(".gz").map_or((tail, false), |digits| (digits, true));
            let ours = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| ours)?;
            Some(Aside { number, compressed, path: entry.path() })
        })
        .collect();
    found.sort_by_key(|aside| (aside.number, aside.compressed));
    found
}

/// Compresses all files that were put aside and are not compressed yet, the oldest first.
fn compress_all(path: &Path) {
    while let Some(next) = asides(path).into_iter().find(|aside| !aside.compressed) {
        match compress(&next.path) {
            Ok(()) => {}
            // It was the oldest, and went.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let path = next.path.display();
                tracing::error!(%path, cause = %error, "an old alert file cannot be compressed; it stays as it is");
                return;
            }
        }
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (made, done) = (with(".gz.new"), with(".gz"));
    let mut from = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let to = append::open(&made, 0)?;
    to.set_len(0)?;
    let outcome = (|| {
        let mut encoder = GzEncoder::new(&to, Compression::default());
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?;
        // The original goes: the copy must be there.
        to.sync_all()?;
        fs::rename(&made, &done)?;
        fs::remove_file(path)
    })();
    if outcome.is_err() {
        let _ = fs::remove_file(&made);
    }
    outcome
}

/// Time since boot, the time in suspend included.
fn boot_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
