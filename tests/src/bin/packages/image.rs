//! The image, in the engine that sites run.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tests::docker::Engine;

use crate::{Settings, output};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let settings = settings.clone();
    vec![Trial::test("image::loads_and_runs", move || works(&settings).map_err(Failed::from))]
}

fn works(settings: &Settings) -> Result<(), String> {
    let archive = settings.file(".oci.tar")?;
    let path = archive.display().to_string();
    let engine = Engine::start(&settings.attempt).map_err(|error| error.to_string())?;
    let docker = |arguments: &[&str]| engine.client(arguments).map_err(|error| error.to_string());

    let loaded = docker(&["load", "--quiet", "--input", &path])?;
    let name =
        loaded.trim().strip_prefix("Loaded image: ").ok_or(format!("docker load: {loaded}"))?.to_owned();
    // What the manifests of deploy/kubernetes call it.
    let (repository, version) = name.rsplit_once(':').ok_or(format!("no tag: {name}"))?;
    if repository != "ringfence" {
        return Err(format!("the image is called {name}"));
    }
    let inspected: Value =
        serde_json::from_str(&docker(&["image", "inspect", &name])?).map_err(|error| error.to_string())?;
    let labels = &inspected[0]["Config"]["Labels"];
    if labels["org.opencontainers.image.version"] != version
        || !labels["org.opencontainers.image.revision"].is_string()
    {
        return Err(format!("labels: {labels}"));
    }

    // As little as a container can have: no capability, nothing to write to, no network, a user that it does not know.
    let least = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ];
    let said = docker(&[&least[..], &[&name, "--version"]].concat())?;
    if !said.contains(version) {
        return Err(format!("ringfence --version: {said}"));
    }
    for user in ["--user=0:0", "--user=65534:65534"] {
        let said = docker(&[&least[..], &[user, &name, "check"]].concat())?;
        if !said.contains("rules") {
            return Err(format!("ringfence check {user}: {said}"));
        }
    }
    // Without arguments it runs, and without capabilities says what it lacks.
    match docker(&[&least[..], &[&name]].concat()) {
        Err(refused) if refused.contains("CAP_BPF") || refused.contains("capabilit") => {}
        other => return Err(format!("run without capabilities: {other:?}")),
    }
    // The layer is what the archive's layout says: a program, rules, places for mounts, and no shell.
    let id = docker(&["create", &name])?;
    let root = engine.directory().join("exported.tar");
    docker(&["export", "--output", &root.display().to_string(), id.trim()])?;
    let list = output(Command::new("tar").arg("--list").arg("--file").arg(&root))?;
    for wanted in
        ["usr/bin/ringfence", "usr/share/ringfence/rules/00-macros.yaml", "etc/ringfence/rules.d/", "host/"]
    {
        if !list.lines().any(|line| line == wanted) {
            return Err(format!("{wanted} is missing:\n{list}"));
        }
    }
    let programs = list.lines().filter(|line| line.contains("bin/") && !line.ends_with('/')).count();
    if programs != 1 {
        return Err(format!("{programs} programs:\n{list}"));
    }
    containerd(&engine, &path, version)
}

/// The same archive by its other index, in the containerd that the engine started.
fn containerd(engine: &Engine, archive: &str, version: &str) -> Result<(), String> {
    let socket = engine.directory().join("exec/containerd/containerd.sock");
    if !fs::exists(&socket).unwrap_or(false) {
        return Err(format!("{} is missing", socket.display()));
    }
    let ctr = |arguments: &[&str]| {
        output(
            Command::new("ctr").arg("--address").arg(&socket).args(["--namespace", "k8s.io"]).args(arguments),
        )
    };
    ctr(&["images", "import", "--no-unpack", archive]).or_else(|_| ctr(&["images", "import", archive]))?;
    let listed = ctr(&["images", "list", "--quiet"])?;
    let wanted = format!("docker.io/library/ringfence:{version}");
    if listed.lines().any(|line| line == wanted) { Ok(()) } else { Err(format!("containerd has {listed}")) }
}
