//! What a release consists of, file by file.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{self, Tree};
use super::{Release, manual};
use crate::environment::repository;
use crate::process;

/// Where documents lie on the machine.
pub(crate) const DOCS: &str = "usr/share/doc/ringfence";

/// The program and the shipped rules.
pub(crate) fn program_and_rules(tree: &mut Tree, ringfence: &Path) -> Result<()> {
    tree.copy("usr/bin/ringfence", 0o755, ringfence);
    tree.copy_all("usr/share/ringfence/rules/", &repository().join("rules"), &["yaml"])
}

/// Our own licences. Those of what is linked in are in a file of their own.
pub(crate) fn licences(tree: &mut Tree) {
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(&format!("{DOCS}/{name}"), 0o644, repository().join(name));
    }
}

/// All that is installed on a machine. `work` is for files on the way; `third_party` are the licences of what is
/// linked into the program.
pub(crate) fn whole(release: &Release, ringfence: &Path, third_party: &str, work: &Path) -> Result<Tree> {
    tree::fresh(work)?;
    let root = repository();
    let mut tree = Tree::default();
    program_and_rules(&mut tree, ringfence)?;
    licences(&mut tree);

    let defaults = manual::defaults(&root)?;
    tree.text("etc/ringfence/config.yaml", manual::config_file(&defaults));
    for directory in ["etc/ringfence/config.d", "etc/ringfence/rules.d"] {
        tree.directory(directory, 0o755);
    }

    let units = root.join("deploy/systemd");
    tree.copy_all("usr/lib/systemd/system/", &units, &["service", "socket", "mount"])?;
    for kind in ["sysusers", "tmpfiles"] {
        let from = units.join(format!("ringfence.{kind}.conf"));
        tree.copy(&format!("usr/lib/{kind}.d/ringfence.conf"), 0o644, from);
    }

    let pages = work.join("man");
    fs::create_dir(&pages)?;
    process::run(Command::new(ringfence).arg("man").arg(&pages))
        .context("it cannot write its manual pages")?;
    fs::write(pages.join("ringfence.yaml.5"), manual::config_page(&defaults, &release.version))?;
    for entry in fs::read_dir(&pages)? {
        let page = entry?.path();
        let (Some(name), Some(section)) = (page.file_name(), page.extension()) else { continue };
        let (name, section) = (name.to_string_lossy(), section.to_string_lossy());
        let compressed = work.join(format!("{name}.gz"));
        tree::gzip(&page, &compressed)?;
        tree.copy(&format!("usr/share/man/man{section}/{name}.gz"), 0o644, compressed);
    }

    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/ringfence"),
        ("zsh", "usr/share/zsh/vendor-completions/_ringfence"),
        ("fish", "usr/share/fish/vendor_completions.d/ringfence.fish"),
    ] {
        let script = process::output(Command::new(ringfence).args(["completions", shell]))
            .context("it cannot write its completions")?;
        tree.text(path, script);
    }

    documents(&mut tree, &root)?;
    let texts = work.join("third-party");
    fs::write(&texts, third_party)?;
    let compressed = work.join("third-party-licences.gz");
    tree::gzip(&texts, &compressed)?;
    tree.copy(&format!("{DOCS}/third-party-licences.gz"), 0o644, compressed);
    Ok(tree)
}

/// What can be read, and what is there to be adapted: alert rules, dashboard, manifests.
fn documents(tree: &mut Tree, root: &Path) -> Result<()> {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        tree.copy(&format!("{DOCS}/{name}"), 0o644, root.join(name));
    }
    // What the README leads to.
    tree.copy(&format!("{DOCS}/CONTRIBUTING.md"), 0o644, root.join("CONTRIBUTING.md"));
    tree.copy(&format!("{DOCS}/rules/README.md"), 0o644, root.join("rules/README.md"));
    copy_below(tree, &format!("{DOCS}/docs"), &root.join("docs"), &["md"])?;
    for name in ["alert.schema.json", "rules.schema.json"] {
        tree.copy(&format!("{DOCS}/docs/{name}"), 0o644, root.join("docs").join(name));
    }
    for name in ["prometheus", "grafana", "kubernetes"] {
        copy_below(
            tree,
            &format!("{DOCS}/deploy/{name}"),
            &root.join("deploy").join(name),
            &["yaml", "json"],
        )?;
    }
    Ok(())
}

/// A directory with all below it that has one of these extensions.
fn copy_below(tree: &mut Tree, to: &str, from: &Path, extensions: &[&str]) -> Result<()> {
    tree.copy_all(&format!("{to}/"), from, extensions)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if path.is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            copy_below(tree, &format!("{to}/{name}"), &path, extensions)?;
        }
    }
    Ok(())
}
