//! `cargo xtask run` and `cargo xtask demo`: what a newcomer types in two terminals.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::environment::{Privilege, release_program, suite_program};
use crate::{check, setup};

/// Builds the daemon and becomes it, with the shipped rules and the arguments given.
pub(crate) fn daemon(args: &[String]) -> Result<bool> {
    setup::install(setup::Group::Build)?;
    check::build_release()?;
    let privilege = Privilege::detect();
    let mut command = privilege.command(&release_program("ringfence"), "to load the BPF programs")?;
    let error = command.args(["run", "--rules", "rules"]).args(args).exec();
    Err(error).with_context(|| format!("cannot start {:?}", command.get_program()))
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
