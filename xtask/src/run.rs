//! `cargo xtask run` and `cargo xtask demo`: what a newcomer types in two terminals.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::environment::{Privilege, release_program, repository, suite_program, work_dir};
use crate::{check, process, setup};

/// Builds the daemon and becomes it, with the shipped rules and the arguments given.
pub(crate) fn daemon(args: &[String]) -> Result<bool> {
    setup::install(setup::Group::Build)?;
    check::build_release()?;
    let privilege = Privilege::detect();
    let rules = roots_rules(privilege)?;
    let mut command = privilege.command(&release_program("ringfence"), "to load the BPF programs")?;
    let error = command.args(["run", "--rules"]).arg(rules).args(args).exec();
    Err(error).with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// A copy of the shipped rules that belongs to root: the daemon takes none that somebody else may change, and a checkout
/// is mostly somebody else's.
fn roots_rules(privilege: Privilege) -> Result<PathBuf> {
    let directory = work_dir("run")?.join("rules");
    let command = |program: &str| privilege.command(Path::new(program), "to lay rules down that are root's");
    process::run(command("/bin/rm")?.arg("-rf").arg(&directory))?;
    let mut install = command("/usr/bin/install")?;
    install.args(["-D", "--mode=0644", "--owner=root", "--group=root", "--target-directory"]).arg(&directory);
    for entry in std::fs::read_dir(repository().join("rules"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            install.arg(path);
        }
    }
    process::run(&mut install)?;
    Ok(directory)
}

/// Makes one harmless attempt of each kind, in a cgroup of its own.
pub(crate) fn demo() -> Result<bool> {
    setup::install(setup::Group::Build)?;
    check::build_attempt()?;
    let mut attempt =
        Privilege::detect().command(&suite_program("attempt"), "to make attempts that count")?;
    let status = attempt.arg("demo").status().context("cannot start the attempt program")?;
    println!("\nThe alerts are in the terminal where `cargo xtask run` runs.");
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn rules_are_laid_down_as_roots_whoevers_the_checkout_is() -> Result<()> {
        let Privilege::Root = Privilege::detect() else { return Ok(()) };
        let directory = roots_rules(Privilege::Root)?;
        let count = |directory: &Path| -> Result<usize> {
            let entries = std::fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
            Ok(entries.iter().filter(|entry| entry.path().extension().is_some_and(|e| e == "yaml")).count())
        };
        assert_eq!(count(&directory)?, count(&repository().join("rules"))?);
        for entry in std::fs::read_dir(&directory)? {
            let data = entry?.metadata()?;
            assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (0, 0, 0o644));
        }
        Ok(())
    }
}
