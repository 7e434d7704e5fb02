//! The program as it is shipped: one file that needs no other, the same byte by byte wherever it is built.
//!
//! It is linked statically against the GNU C library, so that it runs on every distribution and in an empty image. Not
//! against musl: rustup's standard library for it would be one more download for everybody who builds, and its allocator
//! is slow with threads. What static linking takes away, loading modules for names of users and hosts, the daemon does
//! not use: `monitor/src/host_names.rs`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use crate::environment::{cargo, repository, work_dir};
use crate::process;

/// The one target. It is named to cargo, so that flags are for it and not for build scripts and macros.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_END: &str = "\x1f";

/// Builds the program in a target directory of its own, whose path is returned. The BPF programs are built along.
pub(crate) fn program(release: &Release) -> Result<PathBuf> {
    let target_dir = work_dir("dist/target")?;
    // The prefixes below are those of sources that are there already.
    process::run(cargo().args(["fetch", "--locked", "--target", TARGET]))?;
    let prefixes = prefixes(&target_dir)?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(prefixes.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    // The C parts of dependencies.
    let c_flags: Vec<_> =
        prefixes.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect();

    let mut build = cargo();
    for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
        build.env_remove(variable);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_END)).env("CFLAGS", c_flags.join(" "));
    build.env("CARGO_INCREMENTAL", "0").env("SOURCE_DATE_EPOCH", release.time.to_string());
    build.env("RINGFENCE_REVISION", &release.revision).env_remove("RINGFENCE_SKIP_BPF");
    build.args(["build", "--locked", "--profile", "dist", "--package", "monitor", "--bin", "ringfence"]);
    build.args(["--target", TARGET, "--target-dir"]).arg(&target_dir);
    process::run(&mut build)?;
    Ok(target_dir.join(TARGET).join("dist/ringfence"))
}

/// Directories of this machine and what stands in the program instead; of two that match, the later one counts.
fn prefixes(target_dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut prefixes = Vec::new();
    // One directory for each registry, named by its address.
    for entry in fs::read_dir(cargo_home()?.join("registry/src")).into_iter().flatten() {
        prefixes.push((entry?.path(), "/usr/src/crates".to_owned()));
    }
    prefixes.sort();
    // With the component rust-src the compiler looks the standard library's sources up there.
    let rustc = |arguments: &[&str]| process::output(Command::new("rustc").args(arguments));
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = rustc(&["--version", "--verbose"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    let commit = commit.context("rustc does not say of which commit it is")?;
    prefixes.push((Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")));
    prefixes.push((repository(), "/usr/src/ringfence".to_owned()));
    prefixes.push((target_dir.to_owned(), "/usr/src/target".to_owned()));
    Ok(prefixes)
}

fn cargo_home() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").filter(|home: &OsString| !home.is_empty());
    let home =
        named.map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.context("neither CARGO_HOME nor HOME is set")
}
