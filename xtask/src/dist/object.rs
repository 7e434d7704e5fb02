//! Whether the BPF object is the same when it is built in another directory.
//!
//! The object of the suite's own build is the one that was tested; the second one is made by the same build script, told
//! that the package lies elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{check, tree};
use crate::environment::{cargo, work_dir};
use crate::process;

/// A second build under way.
pub(crate) struct Again {
    build: Child,
    log: PathBuf,
    first: PathBuf,
    second: PathBuf,
}

impl Again {
    /// Starts it. `build` and `rustc` are the arguments of the first build, which is done.
    pub(crate) fn start(build: &[&str], rustc: &[&str]) -> Result<Again> {
        let mut first = cargo();
        let messages = process::output(first.args(build).args(["--message-format", "json"]).args(rustc))?;
        let (script, first) = of_monitor(&messages)?;

        let dir = work_dir("dist")?.join("check-object");
        tree::fresh(&dir)?;
        let sources = dir.join("of another/name and depth");
        check::copy_sources(&sources)?;
        let out = dir.join("out");
        fs::create_dir(&out)?;
        let log = dir.join("log");
        let mut build = Command::new(script);
        build
            .env("CARGO_MANIFEST_DIR", sources.join("monitor"))
            .env("OUT_DIR", &out)
            .env("PROFILE", "release");
        build.env("CARGO", cargo().get_program()).env("TZ", "Asia/Tokyo").env("LC_ALL", "C");
        build.env_remove("RINGFENCE_SKIP_BPF").current_dir(sources.join("monitor"));
        let build =
            build.stdin(Stdio::null()).stdout(fs::File::create(&log)?).stderr(fs::File::create(&log)?);
        let build = build.spawn().context("cannot start the build script")?;
        let second = out.join("bpf/bpfel-unknown-none/release/ringfence-ebpf");
        Ok(Again { build, log, first, second })
    }

    /// Waits for its end; true if both are the same byte by byte.
    pub(crate) fn finish(mut self) -> Result<bool> {
        let status = self.build.wait()?;
        if !status.success() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the BPF programs did not build in another directory: {status}\n{log}");
        }
        let (first, second) = (read(&self.first)?, read(&self.second)?);
        Ok(!first.is_empty() && first == second)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The build script of the daemon and the object that it made, from cargo's messages.
fn of_monitor(messages: &str) -> Result<(PathBuf, PathBuf)> {
    let (mut script, mut object) = (None, None);
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if message["reason"] == "compiler-artifact"
            && message["target"]["kind"][0] == "custom-build"
            && message["manifest_path"].as_str().is_some_and(|path| path.ends_with("/monitor/Cargo.toml"))
        {
            script = message["filenames"][0].as_str().map(PathBuf::from);
        }
        for pair in message["env"].as_array().into_iter().flatten() {
            if pair[0] == "RINGFENCE_BPF_OBJECT" {
                object = pair[1].as_str().map(PathBuf::from);
            }
        }
    }
    match (script, object) {
        (Some(script), Some(object)) => Ok((script, object)),
        found => bail!("cargo names no build script and no BPF object: {found:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_and_its_object_are_found_among_cargos_messages() -> Result<()> {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/a/other/Cargo.toml","target":{"kind":["custom-build"]},"filenames":["/t/other"]}
{"reason":"compiler-artifact","manifest_path":"/a/monitor/Cargo.toml","target":{"kind":["custom-build"]},"filenames":["/t/script"]}
{"reason":"build-script-executed","env":[["A","b"],["RINGFENCE_BPF_OBJECT","/t/o"]]}
{"reason":"compiler-artifact","manifest_path":"/a/monitor/Cargo.toml","target":{"kind":["lib"]},"filenames":["/t/lib"]}"#;
        assert_eq!(of_monitor(messages)?, ("/t/script".into(), "/t/o".into()));
        assert!(of_monitor("warning: x").is_err());
        Ok(())
    }
}
