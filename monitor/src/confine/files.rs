//! Which files and ports threads may reach once the daemon runs: a Landlock ruleset.
//!
//! A ruleset also keeps a thread from what `/proc` tells of processes outside of it, whatever its capabilities
//! (`hook_ptrace_access_check`). So the threads that ask there, by their work, have none: see [`LOOKS_AT_OTHERS`]. All
//! threads share their memory, so this holds back a thread that is misled, by a path in a request or a file's name, and
//! not one that runs somebody else's code; what holds that back is the filter and the lack of capabilities.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError,
};

/// Threads that read about other processes below `/proc`: by name.
pub(super) const LOOKS_AT_OTHERS: &[&str] = &["reader", "names", "capabilities", "file-caps", "cmdlines"];

/// The newest rights that are asked for; an older kernel holds what it knows of them. Ioctls on devices, since 6.10.
const RIGHTS: ABI = ABI::V5;

/// What is read besides what settings name: what the C library reads for names and time zones, and what the kernel tells
/// of the daemon and of the machine.
const READ: &[&str] =
    &["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys", "/run/systemd/resolve", "/dev/urandom"];

/// What the C library reads for names, and where certificates of authorities are in the distributions: often links into
/// directories that belong to whoever manages networks, or to a package store.
const LINKS: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];
/// Variables that name such places.
const VARIABLES: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The directories that links of the machine lead to, as they do now, and those that the environment names.
fn led_to() -> Vec<PathBuf> {
    let named = VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    behind(LINKS.iter().map(PathBuf::from).chain(named))
}

fn behind(places: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let real = places.filter_map(|place| place.canonicalize().ok());
    let mut found: Vec<PathBuf> = real
        .map(|real| match real.parent() {
            // Files are replaced by others, so their directory counts, unless that is everything.
            Some(parent) if real.is_file() && parent != Path::new("/") => parent.to_owned(),
            _ => real,
        })
        .filter(|place| !READ.iter().any(|read| place.starts_with(read)))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What the threads may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Files and directories that are read.
    pub(super) read: Vec<PathBuf>,
    /// Directories in which files are made, written and removed.
    pub(super) write: Vec<PathBuf>,
    /// Files that are written, and neither made nor removed.
    pub(super) write_files: Vec<PathBuf>,
    /// Connections are made; to which ports may only be known from a secret.
    pub(super) any_port: bool,
}

/// The ruleset; `None` on a kernel that has none.
///
/// # Errors
/// The kernel's. A place that does not exist is none: of what will be made, the directory above counts.
pub(super) fn ruleset(places: &Places) -> Result<Option<OwnedFd>, RulesetError> {
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let writes = reads
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(if places.any_port { AccessNet::BindTcp.into() } else { AccessNet::from_all(RIGHTS) })?
        .create()?;
    let led_to = led_to();
    let read = READ.iter().map(Path::new).chain(led_to.iter().chain(&places.read).map(PathBuf::as_path));
    for path in read {
        ruleset = allow(ruleset, path, reads)?;
    }
    for path in &places.write {
        ruleset = allow(ruleset, path, writes)?;
    }
    for path in &places.write_files {
        ruleset = allow(ruleset, path, AccessFs::WriteFile | AccessFs::Truncate)?;
    }
    Ok(ruleset.into())
}

/// Allows the rights below the path, or what of them a file has.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // A rule holds for the file itself, by whatever name it is reached, so links are followed here.
    let Ok(place) = PathFd::new(path) else { return Ok(ruleset) };
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(RIGHTS) };
    ruleset.add_rule(PathBeneath::new(place, rights))
}

/// The directory that a file is in; if it does not exist yet, the nearest one above that does.
pub(super) fn directory_of(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    existing(parent)
}

/// The path, or the nearest directory above it that exists.
pub(super) fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::confine::threads::Order;

    #[test]
    fn where_links_lead_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(at("run/manager")).unwrap();
        fs::create_dir_all(at("store/certs")).unwrap();
        fs::write(at("run/manager/resolv.conf"), "").unwrap();
        std::os::unix::fs::symlink(at("run/manager/resolv.conf"), at("resolv.conf")).unwrap();
        std::os::unix::fs::symlink(at("store/certs"), at("certs")).unwrap();
        let asked = [at("resolv.conf"), at("certs"), at("none"), "/etc/passwd".into()];
        assert_eq!(behind(asked.into_iter()), [at("run/manager"), at("store/certs")]);
    }

    /// Runs in a thread of its own, which keeps the ruleset to its end.
    fn held<T: Send + 'static>(places: Places, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        std::thread::spawn(move || {
            let ruleset = ruleset(&places).unwrap()?;
            let order = Order { ruleset: Some(ruleset.as_raw_fd()), ..Order::default() };
            assert_eq!(order.carry_out(), 0);
            Some(work())
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_thread_writes_where_it_may_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, others) = (dir.path().join("mine"), dir.path().join("others"));
        for path in [&mine, &others] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("old"), "x").unwrap();
        }
        let places = Places { write: vec![mine.clone()], ..Places::default() };
        let done = held(places, move || {
            let own = fs::write(mine.join("new"), "y")
                .and_then(|()| fs::rename(mine.join("new"), mine.join("old")));
            let foreign = [
                File::open(others.join("old")).map(drop),
                fs::write(others.join("new"), "y"),
                fs::remove_file(others.join("old")),
            ];
            let other_process = fs::read_link("/proc/1/ns/mnt").map(drop);
            (
                own.map_err(|error| error.kind()),
                foreign.map(|result| result.map_err(|error| error.kind())),
                other_process.is_ok(),
            )
        });
        // A kernel without Landlock, before 5.13 or built so.
        let Some((own, foreign, other_process)) = done else {
            let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
            return assert!(!modules.contains("landlock"), "{modules}");
        };
        assert_eq!(own, Ok(()));
        assert_eq!(foreign, [Err(std::io::ErrorKind::PermissionDenied); 3]);
        assert!(!other_process, "the reason why some threads have no ruleset is gone");
    }

    #[test]
    fn what_does_not_exist_yet_counts_by_what_is_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")), dir.path());
        assert_eq!(directory_of(&dir.path().join("alerts")), dir.path());
        assert_eq!(directory_of(Path::new("alerts")), Path::new("."));
    }
}
