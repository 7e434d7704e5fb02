//! Programs that cargo builds from their sources: Debian has none of them.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Group, LLVM_PREFIX};
use crate::environment::cargo;
use crate::process;

/// A program of that kind.
pub(super) struct Tool {
    /// Its package, and what it calls itself.
    pub(super) name: &'static str,
    /// The version that is installed. One that is there may differ from it in the last number.
    version: &'static str,
    pub(super) group: Group,
    pub(super) why: &'static str,
    /// What makes it print its name and version.
    ask: &'static [&'static str],
    /// Further arguments of `cargo install`.
    options: &'static [&'static str],
}

/// The BPF programs' linker, whose own parts come from Debian.
pub(super) const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    group: Group::Build,
    why: "links the BPF programs",
    ask: &["--version"],
    options: &["--no-default-features", "--features", "llvm-22"],
};

/// All of them.
pub(super) const TOOLS: &[Tool] = &[
    BPF_LINKER,
    Tool {
        name: "cargo-fuzz",
        version: "0.13.2",
        group: Group::Test,
        why: "builds the fuzz targets",
        ask: &["fuzz", "--version"],
        options: &[],
    },
];

impl Tool {
    /// As setup shows it.
    pub(super) fn title(&self) -> String {
        format!("{} {} (cargo)", self.name, self.series())
    }

    /// Whether the program is there in this version.
    pub(super) fn fits(&self) -> bool {
        process::output(Command::new(self.name).args(self.ask)).is_ok_and(|text| {
            let version = text.trim().strip_prefix(self.name).map(str::trim_start);
            version.is_some_and(|version| version.starts_with(self.series()))
        })
    }

    /// The version without its last number.
    fn series(&self) -> &str {
        self.version.rsplit_once('.').map_or(self.version, |(series, _)| series)
    }

    /// Builds and installs it where cargo puts programs.
    pub(super) fn install(&self) -> Result<()> {
        let mut cargo = cargo();
        // Not in the repository, whose configuration is about the repository.
        cargo.current_dir("/").env("LLVM_PREFIX", LLVM_PREFIX);
        cargo.args(["install", self.name, "--version", self.version, "--locked", "--force"]);
        process::run(cargo.args(self.options))
            .with_context(|| format!("cargo could not install {}", self.name))
    }
}
