//! What a guest's root holds: one table, a row per program, file or directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::initramfs::Archive;
use super::{kernel, service};
use crate::environment::{Unfit, find_program, repository, suite_program};
use crate::setup;

/// Where something in a guest comes from.
enum From {
    /// A program of this workspace, of the release profile.
    Built(&'static str),
    /// A program of the machine, found as the shell would, or of a package that setup unpacked.
    Machine(&'static str),
    /// A file of the repository.
    File(&'static str),
    /// A directory of the repository with all that it holds.
    Tree(&'static str),
}
use From::{Built, File, Machine, Tree};

/// What goes in, and its path in the guest. Shared libraries come along by themselves, at `/lib/…`.
const CONTENTS: &[(From, &str)] = &[
    (Built("guest-init"), "init"),
    (Built("live"), "bin/live"),
    (Built("ringfence"), "bin/ringfence"),
    (Built("attempt"), "bin/attempt"),
    (File("docs/alert.schema.json"), "alert.schema.json"),
    (Tree("rules"), "rules"),
    // The user land, and what images of containers are made from.
    (Machine("busybox"), "bin/busybox"),
    // Starts containers from bundles, as Docker and Podman do.
    (Machine("crun"), "bin/crun"),
    // The everyday programs that lead to watched calls.
    (Machine("capsh"), "bin/capsh"),
    (Machine("date"), "bin/date"),
    (Machine("dmesg"), "bin/dmesg"),
    (Machine("hwclock"), "bin/hwclock"),
    (Machine("nsenter"), "bin/nsenter"),
    (Machine("setpriv"), "bin/setpriv"),
    (Machine("unshare"), "bin/unshare"),
];

/// Commands of the guest that busybox stands in for.
const APPLETS: &[&str] = &["cat", "ls", "mknod", "sh", "sleep", "true"];

/// Directories that are there, empty, for what is mounted or written.
const DIRECTORIES: &[&str] = &["bin", "dev", "etc", "lib", "proc", "root", "run", "sys", "tmp", "usr", "var"];

/// What is in there besides where systemd is the first process.
const OF_SERVICE: &[&str] =
    &["journalctl", "mount", "systemctl", "systemd-sysusers", "systemd-tmpfiles", "umount"];
/// And what busybox stands in for.
const APPLETS_OF_SERVICE: &[&str] = &["chown", "kill"];

/// Writes the root of a guest with this kernel's modules, and with systemd if it `is_host`.
pub(super) fn write(path: &Path, kernel: &kernel::Files, is_host: bool) -> Result<()> {
    let mut archive = Archive::default();
    for dir in DIRECTORIES {
        archive.directory(dir);
    }
    archive.contents("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec());
    for (from, guest) in CONTENTS {
        match from {
            Built(name) => archive.program(&suite_program(name), guest)?,
            Machine(name) => archive.program(&machine_program(name)?, guest)?,
            File(name) => archive.file(&repository().join(name), guest, 0o644)?,
            Tree(name) => {
                archive
                    .tree(&repository().join(name), guest)
                    .with_context(|| format!("cannot read {name}"))?;
            }
        }
    }
    for applet in APPLETS {
        archive.link("busybox", &format!("bin/{applet}"));
    }
    if is_host {
        service::put(&mut archive)?;
        for name in OF_SERVICE {
            archive.program(&machine_program(name)?, &format!("bin/{name}"))?;
        }
        for applet in APPLETS_OF_SERVICE {
            archive.link("busybox", &format!("bin/{applet}"));
        }
    }
    for module in &kernel.modules {
        if let Some(name) = module.file_name().and_then(|name| name.to_str()) {
            let bare = name.trim_end_matches(".xz");
            let contents = if bare == name { fs::read(module)? } else { unpacked(module)? };
            archive.contents(&format!("lib/modules/{bare}"), 0o644, contents);
        }
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

/// The contents of a file that was packed by xz. Busybox does it everywhere; not every kernel unpacks modules.
fn unpacked(file: &Path) -> Result<Vec<u8>> {
    let output = Command::new(machine_program("busybox")?).arg("xzcat").arg(file).output()?;
    if !output.status.success() {
        bail!("busybox xzcat {}: {}", file.display(), output.status);
    }
    Ok(output.stdout)
}

fn machine_program(name: &str) -> Result<PathBuf> {
    let unpacked = setup::unpacked_programs()?.into_iter().map(|dir| dir.join(name));
    find_program(name)
        .or_else(|| unpacked.into_iter().find(|file| file.is_file()))
        .ok_or_else(|| Unfit(format!("there is no {name}: run `cargo xtask setup`")).into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_path_of_a_guest_is_filled_once() {
        let applets =
            APPLETS.iter().chain(APPLETS_OF_SERVICE).chain(OF_SERVICE).map(|applet| format!("bin/{applet}"));
        let paths: Vec<_> = CONTENTS.iter().map(|(_, path)| (*path).to_owned()).chain(applets).collect();
        let distinct: HashSet<_> = paths.iter().collect();
        assert_eq!(distinct.len(), paths.len(), "{paths:?}");
    }
}
