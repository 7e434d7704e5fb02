//! Files that no runtime writes: none of them stalls the reader or is believed.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, mkfifoat};
use tempfile::TempDir;

use super::*;

/// `fcntl`'s command that chooses the signal (`linux/fcntl.h`), which the libc crate does not have.
const F_SETSIG: libc::c_int = 10;

/// A host's root with a state directory `/state` and a file `/state/a/file` in it.
fn host() -> (TempDir, PathBuf) {
    let host = tempfile::tempdir().unwrap();
    let state = host.path().join("state");
    fs::create_dir_all(state.join("a")).unwrap();
    fs::write(state.join("a/file"), "text").unwrap();
    (host, state)
}

fn system(host: &TempDir) -> StateDir {
    StateDir::of_system(host.path(), Path::new("/state")).unwrap()
}

/// Reads, and sees that nothing was waited for.
fn read(dir: &StateDir, path: &str) -> Result<Vec<u8>, Miss> {
    let start = Instant::now();
    let read = dir.read(path);
    assert!(start.elapsed() < Duration::from_secs(1), "{path}: waited {:?}", start.elapsed());
    read
}

#[test]
fn only_small_regular_files_are_read() {
    let (host, state) = host();
    let dir = system(&host);
    mkfifoat(CWD, state.join("pipe"), Mode::from(0o600)).unwrap();
    let _socket = UnixListener::bind(state.join("socket")).unwrap();
    File::create(state.join("giant")).unwrap().set_len(100 << 20).unwrap();
    File::create(state.join("largest")).unwrap().set_len(MAX_BYTES).unwrap();
    File::create(state.join("larger")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert_eq!(read(&dir, "a/file"), Ok(b"text".to_vec()));
    assert_eq!(read(&dir, "largest").map(|bytes| bytes.len() as u64), Ok(MAX_BYTES));
    for (path, miss) in [
        ("none", Miss::NotFound),
        ("none/file", Miss::NotFound),
        ("pipe", Miss::NotRegular),
        ("socket", Miss::NotRegular),
        ("a", Miss::NotRegular),
        ("a/file/file", Miss::NotRegular),
        ("giant", Miss::TooLarge),
        ("larger", Miss::TooLarge),
    ] {
        assert_eq!(read(&dir, path), Err(miss), "{path}");
    }
}

#[test]
fn links_below_the_state_directory_are_not_followed() {
    let (host, state) = host();
    symlink("a/file", state.join("link")).unwrap();
    symlink("a", state.join("dir")).unwrap();
    symlink("/etc/passwd", state.join("out")).unwrap();
    symlink("self", state.join("self")).unwrap();
    let dir = system(&host);
    for path in ["link", "dir/file", "out", "self"] {
        assert_eq!(read(&dir, path), Err(Miss::Symlink), "{path}");
    }
    fs::write(host.path().join("secret"), "x").unwrap();
    assert_eq!(read(&dir, "../secret"), Err(Miss::Io));
    assert_eq!(read(&dir, "/etc/passwd"), Err(Miss::Io));
}

#[test]
fn the_state_directory_may_be_reached_by_links_inside_the_host() {
    let (host, _) = host();
    symlink("/state", host.path().join("absolute")).unwrap();
    symlink("../../../state", host.path().join("dots")).unwrap();
    for name in ["/absolute", "/dots", "state"] {
        let dir = StateDir::of_system(host.path(), Path::new(name)).unwrap();
        assert_eq!(read(&dir, "a/file"), Ok(b"text".to_vec()), "{name}");
    }
    // What the link means on this machine lies outside of that host.
    symlink("/etc", host.path().join("outside")).unwrap();
    let gone = |name| StateDir::of_system(host.path(), Path::new(name)).map(drop);
    assert_eq!(gone("/outside"), Err(Miss::NotFound));
    assert_eq!(gone("/none"), Err(Miss::NotFound));
    assert_eq!(gone("/state/a/file"), Err(Miss::NotFound));
}

#[test]
fn files_of_somebody_else_are_not_read() {
    let (host, _) = host();
    let us = rustix::process::geteuid().as_raw();
    let own = StateDir::of_user(host.path(), Path::new("/state"), us).unwrap();
    assert_eq!(read(&own, "a/file"), Ok(b"text".to_vec()));
    let other = StateDir::of_user(host.path(), Path::new("/state"), us + 1).unwrap();
    assert_eq!(read(&other, "a/file"), Err(Miss::WrongOwner));
}

#[test]
fn what_is_mounted_in_a_users_directory_is_not_entered() {
    let us = rustix::process::geteuid().as_raw();
    let dir = StateDir::of_user(Path::new("/"), Path::new("/"), us).unwrap();
    assert_eq!(read(&dir, "proc/self/status"), Err(Miss::Io));
}

#[test]
fn a_file_with_a_lease_is_not_waited_for() {
    let (host, state) = host();
    let file = File::options().write(true).open(state.join("a/file")).unwrap();
    // The holder is asked to give it back by a signal, which we take for one that is ignored.
    for (command, value) in [(libc::F_SETLEASE, libc::F_WRLCK), (F_SETSIG, libc::SIGURG)] {
        // SAFETY: a call without pointers.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
    assert_eq!(read(&system(&host), "a/file"), Err(Miss::Io));
}

#[test]
fn directories_are_listed_up_to_a_bound() {
    let (host, state) = host();
    let dir = system(&host);
    assert_eq!(dir.entries("a"), ["file"]);
    assert_eq!(dir.entries("none"), Vec::<String>::new());
    for i in 0..MAX_ENTRIES + 10 {
        File::create(state.join(format!("a/{i}"))).unwrap();
    }
    assert_eq!(dir.entries("a").len(), MAX_ENTRIES);
}
