//! What a guest has besides to be a host that runs Ringfence as systemd's service: the machine's own systemd, the shipped
//! units where a package has them, and a service that runs the suite.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::initramfs::Archive;
use crate::environment::{Unfit, repository};

/// systemd's own programs, in its own directory here and in the guest.
const PROGRAMS: &[&str] = &["systemd", "systemd-executor", "systemd-journald"];
/// One of [`PROGRAMS`] that no version before 255 has.
const SINCE_255: &str = "systemd-executor";

/// Units of systemd's that a boot to `multi-user.target` needs, and no others: no terminals, no devices, no network.
const UNITS: &[&str] = &[
    "basic.target",
    "local-fs.target",
    "local-fs-pre.target",
    "multi-user.target",
    "paths.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-tmpfiles-setup.service",
    "timers.target",
    "umount.target",
];

/// Links by which units are started, as their packages make them.
const WANTED: &[(&str, &str)] = &[
    ("sysinit.target", "systemd-journald.service"),
    ("sysinit.target", "systemd-tmpfiles-setup.service"),
    ("sockets.target", "systemd-journald.socket"),
    ("sockets.target", "systemd-journald-dev-log.socket"),
    ("sockets.target", "ringfence.socket"),
    ("multi-user.target", "ringfence.service"),
    ("multi-user.target", "suite.service"),
];

/// The suite, which is the machine's own work here: no container, no limit, and the machine ends with it.
const SUITE: &str = "[Unit]
Description=The live suite
After=ringfence.service ringfence.socket

[Service]
Type=exec
ExecStart=/init --suite
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TasksMax=infinity
LimitNOFILE=65536
LimitMEMLOCK=infinity
";

/// Puts all of it in.
pub(super) fn put(archive: &mut Archive) -> Result<()> {
    // The guest's programs and libraries lie at the root.
    for (target, path) in
        [("../bin", "usr/bin"), ("../bin", "usr/sbin"), ("../lib", "usr/lib"), ("bin", "sbin")]
    {
        archive.link(target, path);
    }
    for name in PROGRAMS {
        match machine_file(name) {
            Ok(program) => archive.program(&program, &format!("lib/systemd/{name}"))?,
            Err(_) if *name == SINCE_255 => {}
            Err(error) => return Err(error),
        }
    }
    for name in UNITS {
        archive.file(
            &machine_file(&format!("system/{name}"))?,
            &format!("lib/systemd/system/{name}"),
            0o644,
        )?;
    }
    let shipped = repository().join("deploy/systemd");
    for entry in fs::read_dir(&shipped).with_context(|| format!("cannot read {}", shipped.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = match name.as_str() {
            "ringfence.sysusers.conf" => "lib/sysusers.d/ringfence.conf".to_owned(),
            "ringfence.tmpfiles.conf" => "lib/tmpfiles.d/ringfence.conf".to_owned(),
            _ => format!("lib/systemd/system/{name}"),
        };
        archive.file(&path, &place, 0o644)?;
    }
    archive.tree(&repository().join("rules"), "usr/share/ringfence/rules")?;
    let text = |text: &str| text.as_bytes().to_vec();
    archive.contents("etc/systemd/system/suite.service", 0o644, text(SUITE));
    archive.link("/lib/systemd/system/multi-user.target", "etc/systemd/system/default.target");
    for (target, unit) in WANTED {
        archive.directory(&format!("etc/systemd/system/{target}.wants"));
        let path = if *unit == "suite.service" { "/etc/systemd/system" } else { "/lib/systemd/system" };
        archive.link(&format!("{path}/{unit}"), &format!("etc/systemd/system/{target}.wants/{unit}"));
    }
    archive.contents("etc/group", 0o644, text("root:x:0:\nadm:x:4:\n"));
    archive.contents("etc/machine-id", 0o444, text("0123456789abcdef0123456789abcdef\n"));
    archive.contents("lib/os-release", 0o644, text("ID=guest\nNAME=Guest\n"));
    Ok(())
}

/// A file of the machine's systemd.
fn machine_file(name: &str) -> Result<PathBuf> {
    let places = ["/usr/lib/systemd", "/lib/systemd"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Unfit(format!("there is no {name} of systemd: run `cargo xtask setup`")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_that_is_wanted_is_there() {
        for (target, unit) in WANTED {
            let is_ours =
                repository().join("deploy/systemd").join(unit).is_file() || *unit == "suite.service";
            assert!(is_ours || UNITS.contains(unit), "{unit}");
            assert!(UNITS.contains(target), "{target}");
        }
    }
}
