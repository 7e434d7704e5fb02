//! A Podman of our own: its storage, its settings and its temporary files in a directory of the suite's, no network.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cgroup;
use crate::docker::make_root;

/// The image that every container is made from.
pub const IMAGE: &str = "localhost/ringfence-suite:7";

/// Podman's programs and directories.
#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
    program: PathBuf,
}

/// A program in `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Why Podman cannot be had here, if it cannot.
pub fn missing() -> Option<String> {
    let lacks = |name: &&str| find(name).is_none();
    let missing: Vec<&str> = ["podman", "conmon", runtime()].into_iter().filter(lacks).collect();
    if missing.is_empty() { None } else { Some(format!("no {} in PATH", missing.join(", "))) }
}

/// What runs the containers: crun, but it refuses hybrid hierarchies ("cgroups in hybrid mode not supported, drop all
/// controllers from cgroupv2").
fn runtime() -> &'static str {
    let all = cgroup::hierarchies().unwrap_or_default();
    let has = |v2: bool| all.iter().any(|one| (one.name == "v2") == v2);
    if has(true) && has(false) || find("crun").is_none() { "runc" } else { "crun" }
}

impl Podman {
    /// Makes the directories and the image from busybox and `attempt` (linked statically).
    ///
    /// # Errors
    /// The kernel's, or Podman's words.
    pub fn start(attempt: &Path) -> io::Result<Podman> {
        let find = |name: &str| find(name).ok_or_else(|| io::Error::other(format!("no {name} in PATH")));
        let podman = Podman { dir: tempfile::tempdir()?, program: find("podman")? };
        let at = |name: &str| podman.dir.path().join(name).display().to_string();
        let containers = format!(
            // Podman wants higher limits than a machine may allow; its locks would be those of the machine's own.
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nlog_driver = \"none\"\n\
             netns = \"none\"\n[network]\nnetwork_config_dir = {:?}\n\
             [engine]\nlock_type = \"file\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             runtime = {:?}\nconmon_path = [{:?}]\ntmp_dir = {:?}\nstatic_dir = {:?}\nvolume_path = {:?}\n",
            at("networks"),
            find(runtime())?.display().to_string(),
            find("conmon")?.display().to_string(),
            at("tmp"),
            at("root/libpod"),
            at("root/volumes"),
        );
        fs::write(at("containers.conf"), containers)?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            at("root"),
            at("run")
        );
        fs::write(at("storage.conf"), storage)?;
        // Which images may be had is a file of the user's.
        let user = podman.dir.path().join("home/.config/containers");
        fs::create_dir_all(&user)?;
        fs::write(user.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let image = podman.dir.path().join("image");
        make_root(&image, attempt)?;
        let packed =
            Command::new("tar").arg("-C").arg(&image).args(["-cf", &at("image.tar"), "."]).status()?;
        if !packed.success() {
            return Err(io::Error::other(format!("tar: {packed}")));
        }
        podman.run(&["import", &at("image.tar"), IMAGE])?;
        Ok(podman)
    }

    /// Its storage: the root and the run root.
    pub fn storage(&self) -> [PathBuf; 2] {
        ["root", "run"].map(|name| self.dir.path().join(name))
    }

    /// Variables by which any `podman` is this one. The user's own settings may name other directories.
    pub fn environment(&self) -> [(&'static str, PathBuf); 4] {
        let at = |name: &str| self.dir.path().join(name);
        [
            ("HOME", at("home")),
            ("XDG_CONFIG_HOME", at("home/.config")),
            ("CONTAINERS_CONF", at("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", at("storage.conf")),
        ]
    }

    /// Runs Podman and gives its standard output.
    ///
    /// # Errors
    /// If it cannot be started or does not succeed; its standard error is in the message.
    pub fn run(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        let output = command.envs(self.environment()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(format!("podman {}: {}\n{words}", arguments.join(" "), output.status)))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The storage may have mounts of its own below our directory.
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]);
        crate::docker::unmount_below(self.dir.path());
    }
}
