//! Where things are and what this process may do: directories, root, the programs of the machine.

use std::env;
use std::fmt;
use std::fs;
use std::io::{IsTerminal, stdin};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The machine lacks something that the user can provide; ends the program with exit code 2.
#[derive(Debug)]
pub(crate) struct Unfit(pub(crate) String);

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// The repository's root directory.
pub(crate) fn repository() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Cargo's output directory, absolute.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => repository().join(dir),
        None => repository().join("target"),
    }
}

/// A directory of ours in cargo's output directory; created when it is missing.
pub(crate) fn work_dir(name: &str) -> Result<PathBuf> {
    let dir = target_dir().join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// A program of this workspace in the release profile. It need not exist yet.
pub(crate) fn release_program(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// A program as the live suites run it, in the profile of theirs. It need not exist yet.
pub(crate) fn suite_program(name: &str) -> PathBuf {
    target_dir().join("suite").join(name)
}

/// The cargo that started us, run in the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo sets for us is about xtask; it must not reach build scripts, which would run again each time.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    // A CI builds once: what would make the next build faster makes this one slower.
    if in_ci() {
        cargo.env("CARGO_INCREMENTAL", "0");
    }
    cargo.current_dir(repository());
    cargo
}

/// Whether nobody can answer, and nothing is left for a next time.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Where the shell would find a program; the system's own directories count even if PATH lacks them.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

/// How this process comes to root's rights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// It has them.
    Root,
    /// By sudo, which may ask for a password.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// Looks at the user id, then for a sudo that either asks nothing or can ask.
    pub(crate) fn detect() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        let silent = || {
            let status = Command::new("sudo")
                .args(["-n", "true"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        if find_program("sudo").is_some() && (silent() || stdin().is_terminal()) {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// A command that runs `program` as root in the repository, with our PATH.
    ///
    /// # Errors
    /// [`Unfit`] when there is no way to root; `purpose` says what for ("to install packages").
    pub(crate) fn command(self, program: &Path, purpose: &str) -> Result<Command> {
        let mut command = match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                let mut path = std::ffi::OsString::from("PATH=");
                path.push(env::var_os("PATH").unwrap_or_default());
                sudo.arg("env").arg(path).arg(program);
                sudo
            }
            Self::None => {
                return Err(
                    Unfit(format!("root is needed {purpose}: run this as root, or install sudo")).into()
                );
            }
        };
        command.current_dir(repository());
        Ok(command)
    }
}
