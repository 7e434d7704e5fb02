//! Making the control socket under test: permissions, what stands in its place, who else could write there.

use std::os::unix::fs::symlink;

use super::*;

/// Somebody without rights.
const NOBODY: u32 = 65_534;

fn at(path: &Path) -> ControlSocket {
    ControlSocket::At(path.to_owned())
}

#[tokio::test]
async fn the_socket_and_its_directory_have_these_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, path) = (dir.path().join("made"), dir.path().join("made/x.sock"));
    let bound = bind(&at(&path)).unwrap().unwrap();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&inner), mode(&path), mode(&inner.join("x.sock.lock"))), (0o755, 0o660, 0o600));
    drop(bound);
    assert!(!path.exists(), "a daemon that ends takes its socket along");
    assert!(bind(&ControlSocket::Off).unwrap().is_none());
}

#[tokio::test]
async fn a_socket_is_replaced_only_if_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let other = StdListener::bind(&path).unwrap();
    let error = bind(&at(&path)).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--control-socket"), "{error}");
    // The look above is in its backlog, which thereby is full: it is there all the same.
    rustix::net::listen(&other, 0).unwrap();
    assert!(matches!(bind(&at(&path)), Err(ControlError::InUse { .. })));
    drop(other);
    assert!(path.exists(), "what a killed daemon leaves");
    let first = bind(&at(&path)).unwrap().unwrap();
    assert!(matches!(bind(&at(&path)), Err(ControlError::InUse { .. })), "a second daemon");
    // Even if somebody removed its name.
    fs::remove_file(&path).unwrap();
    assert!(matches!(bind(&at(&path)), Err(ControlError::InUse { .. })));
    let another = StdListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists(), "another's name is left alone");
    drop(another);
    bind(&at(&path)).unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for path in [&file, &link] {
        assert!(matches!(bind(&at(path)), Err(ControlError::NotASocket { .. })), "{path:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    // Nor is a lock followed to where somebody else wants a file made.
    symlink(dir.path().join("victim"), dir.path().join("x.sock.lock")).unwrap();
    assert!(matches!(bind(&at(&dir.path().join("x.sock"))), Err(ControlError::Io { .. })));
    assert!(!dir.path().join("victim").exists());
}

#[tokio::test]
async fn a_directory_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    for mode in [0o777, 0o775] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        let error = bind(&at(&path)).unwrap_err();
        assert!(matches!(error, ControlError::Untrusted { .. }), "{mode:o}: {error}");
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(bind(&at(&path)).unwrap().is_some());
    let missing = dir.path().join("a/b/x.sock");
    let error = bind(&at(&missing)).unwrap_err().to_string();
    assert!(error.contains("a/b/x.sock") && error.contains("directory"), "{error}");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), None).unwrap();
        assert!(matches!(bind(&at(&path)), Err(ControlError::Untrusted { .. })));
    }
}
