//! Rule files: found, judged by who may write them, read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use crate::trust::Trust;

/// A rule file may have this many bytes: as many as a ConfigMap of Kubernetes.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// A file itself, or the rule files of a directory in the order of their names.
pub(super) fn find(path: &Path, trust: Trust, diagnostics: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let listed = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut files = match listed {
        Ok(files) => files,
        Err(error) => {
            diagnostics.push(cannot_read(path, &error));
            return Vec::new();
        }
    };
    files.retain(|file| {
        let rule_file = file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        rule_file && !hidden && !file.is_dir()
    });
    files.sort();
    if files.is_empty() {
        let help = "name a directory with `.yaml` files, or a rule file";
        let empty = Diagnostic::file(path.display().to_string(), "no rule file in this directory");
        diagnostics.push(empty.help(help));
    }
    let of_dir = trust.check_dir(path).map_err(|reason| (path.to_owned(), reason));
    // A link that leads to this directory is not on the way from it to the files.
    match of_dir.and_then(|()| trust.check_way(path)) {
        Ok(()) => files,
        Err((culprit, reason)) => {
            diagnostics.push(untrusted(&culprit, &reason));
            Vec::new()
        }
    }
}

fn untrusted(path: &Path, reason: &str) -> Diagnostic {
    let name = path.display();
    let message = format!("rules from here are not trusted: {reason}");
    let help =
        format!("whoever writes rules decides what is watched: `chown root {name}` and `chmod go-w {name}`");
    Diagnostic::file(name.to_string(), message).help(help)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Diagnostic {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => Some("check the path"),
        std::io::ErrorKind::PermissionDenied => Some("the daemon's user needs the right to read it"),
        _ => None,
    };
    let wrong = Diagnostic::file(path.display().to_string(), format!("cannot read the rules: {error}"));
    wrong.maybe_help(help.map(str::to_owned))
}

/// The text of a rule file; `None` if something is wrong with it, which is then reported.
pub(super) fn read(path: &Path, trust: Trust, diagnostics: &mut Vec<Diagnostic>) -> Option<String> {
    match bytes(path, trust) {
        Ok(bytes) => text(path, bytes).map_err(|wrong| diagnostics.push(wrong)).ok(),
        Err(wrong) => {
            diagnostics.push(wrong);
            None
        }
    }
}

fn bytes(path: &Path, trust: Trust) -> Result<Vec<u8>, Diagnostic> {
    let fail = |error: std::io::Error| cannot_read(path, &error);
    // Not blocking: a FIFO without a writer would hold the start for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() {
        return Err(fail(std::io::Error::other("it is not a regular file")));
    }
    trust.check(&meta).map_err(|reason| untrusted(path, &reason))?;
    trust.check_way(path).map_err(|(culprit, reason)| untrusted(&culprit, &reason))?;
    // One byte more than allowed tells a file that is too large, whatever its metadata says.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(MAX_FILE)).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    let name = path.display().to_string();
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("larger than {} MiB, which no rule file needs", MAX_FILE >> 20);
        return Err(Diagnostic::file(name, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let valid = error.as_bytes().get(..at).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let message = format!("not UTF-8 in line {line}, byte {column}");
        Diagnostic::file(name, message).help("save the file as UTF-8")
    })
}
