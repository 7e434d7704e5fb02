//! The Debian package: the tree, what dpkg asks of it, and the scripts of deploy/debian.
//!
//! dpkg-deb packs it, which is reproducible with `SOURCE_DATE_EPOCH` and one thread.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{self, Tree};
use super::{Release, contents};
use crate::environment::repository;
use crate::process;

/// As Debian writes people. There is no address that could be written to.
const MAINTAINER: &str = "The Ringfence developers <maintainers@ringfence.invalid>";

/// Makes the package `to` of a tree. `work` is for files on the way.
pub(crate) fn make(release: &Release, mut tree: Tree, work: &Path, to: &Path) -> Result<()> {
    tree::fresh(work)?;
    let deploy = repository().join("deploy/debian");
    // Debian's names for what the tree has under ours.
    let (changes, compressed) = (work.join("changelog"), work.join("changelog.gz"));
    fs::write(&changes, changelog(release)?)?;
    tree::gzip(&changes, &compressed)?;
    tree.copy(&format!("{}/changelog.gz", contents::DOCS), 0o644, compressed);
    tree.copy(&format!("{}/copyright", contents::DOCS), 0o644, deploy.join("copyright"));
    tree.copy("usr/share/lintian/overrides/ringfence", 0o644, deploy.join("lintian-overrides"));

    let root = work.join("root");
    tree.write(&root)?;
    let mut sums = String::new();
    for path in tree.files().filter(|path| !path.starts_with("etc/")) {
        sums.push_str(&format!("{}  {path}\n", tree::md5(&root.join(path))?));
    }
    let mut control = Tree::default();
    control.text("DEBIAN/control", control_file(release, tree.bytes()?));
    control.text("DEBIAN/md5sums", sums);
    let conffiles = tree.files().filter(|path| path.starts_with("etc/"));
    control.text("DEBIAN/conffiles", conffiles.map(|path| format!("/{path}\n")).collect::<String>());
    for script in ["postinst", "prerm", "postrm"] {
        control.copy(&format!("DEBIAN/{script}"), 0o755, deploy.join(script));
    }
    let staged = work.join("control");
    control.write(&staged)?;
    fs::rename(staged.join("DEBIAN"), root.join("DEBIAN"))?;

    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"]).arg(&root).arg(to);
    pack.env("SOURCE_DATE_EPOCH", release.time.to_string())
        .env("LC_ALL", "C")
        .stdout(std::process::Stdio::null());
    process::run(&mut pack).context("dpkg-deb cannot pack the package")
}

/// The changelog in Debian's form. Ours, for people, lies beside it.
fn changelog(release: &Release) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", &format!("--date=@{}", release.time)]).env("LC_ALL", "C");
    Ok(format!(
        "ringfence ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER}  {}",
        release.version,
        process::output(&mut date)?
    ))
}

fn control_file(release: &Release, bytes: u64) -> String {
    // The program is linked statically: it depends on no library. systemd makes its user and directories and runs it.
    format!(
        "Package: ringfence\n\
         Version: {}\n\
         Architecture: amd64\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {}\n\
         Depends: systemd (>= 247)\n\
         Pre-Depends: init-system-helpers (>= 1.54~)\n\
         Suggests: bash-completion, ca-certificates\n\
         Section: admin\n\
         Priority: optional\n\
         Description: {}\n \
         Ringfence sees each attempt of a container to pass one of its walls, by system\n \
         call or capability, allowed or refused, and says who refused. It loads BPF\n \
         programs into the kernel (5.10 or later, with BTF) and raises alerts by rules\n \
         in Falco's format.\n",
        release.version,
        bytes.div_ceil(1024),
        super::DESCRIPTION,
    )
}
