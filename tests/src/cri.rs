//! Containers as containerd makes them for Kubernetes, without either: bundles where containerd would have them, with
//! the annotations that its CRI plug-in writes, run by `crun`, which must be in `PATH`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::cgroup::{self, POD_UID};
use crate::docker::make_root;
use crate::many::Made;
use crate::oci::{self, Profile};

/// Where containerd's runtime has the bundles of Kubernetes, below its state directory.
const BUNDLES: &str = "io.containerd.runtime.v2.task/k8s.io";

/// Names of the one image: an alert with another's would pass unseen if all had the same.
const IMAGES: [&str; 2] = ["registry.example/suite/a:1", "registry.example/suite/b:2"];

/// Directories of a containerd that is not there.
#[derive(Debug)]
pub struct Host {
    dir: TempDir,
    root: PathBuf,
    state: PathBuf,
}

impl Host {
    /// Makes them, and the root that all containers share.
    ///
    /// # Errors
    /// The kernel's, or that a program of the image is missing.
    pub fn new(attempt: &Path) -> io::Result<Host> {
        let dir = tempfile::tempdir()?;
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        make_root(&root, attempt)?;
        // Where the runtime mounts things: it could not make them in a root that is read only.
        for directory in ["proc", "dev", "sys"] {
            fs::create_dir(root.join(directory))?;
        }
        fs::create_dir_all(state.join(BUNDLES))?;
        Ok(Host { dir, root, state })
    }

    /// The state directory of that containerd.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Runs a container to its end that makes the mark with this number; its bundle goes with it.
    ///
    /// # Errors
    /// The kernel's, or the runtime's words.
    pub fn run(&self, number: u32) -> io::Result<Made> {
        let id = cgroup::container_id(&format!("cri {number}"));
        let (name, pod) = (format!("c-{number}"), format!("pod-{}", number / 7));
        let image = IMAGES[number as usize % IMAGES.len()];
        let program = ["/attempt", "mark", &number.to_string()];
        let mut config = oci::filled(Profile::Default, &self.root, &id, &program)?;
        config["root"]["readonly"] = json!(true);
        // Kubernetes asks for no filter by itself. To build one takes an emulated processor as long as all the rest.
        config["linux"]["seccomp"].take();
        config["linux"]["cgroupsPath"] = json!(format!("/kubepods/burstable/pod{POD_UID}/{id}"));
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.image-name": image,
            "io.kubernetes.cri.sandbox-id": cgroup::container_id("sandbox"),
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": "suite",
            "io.kubernetes.cri.sandbox-uid": POD_UID,
        });
        let bundle = self.state.join(BUNDLES).join(&id);
        fs::create_dir(&bundle)?;
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
        let mut runtime = Command::new("crun");
        runtime.arg("--root").arg(self.dir.path().join("crun")).arg("run").arg("--bundle").arg(&bundle);
        // A guest's root is the kernel's own, which pivot_root does not leave.
        let ran = runtime.args(["--no-pivot", &id]).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        fs::remove_dir_all(&bundle)?;
        if !ran.status.success() {
            let words = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            return Err(io::Error::other(format!("crun run {name}: {}: {words}", ran.status)));
        }
        let named = vec![
            ("container.name", name),
            ("container.image", image.to_owned()),
            ("k8s.pod.name", pod),
            ("k8s.ns.name", "suite".to_owned()),
        ];
        Ok(Made { id, named })
    }
}
