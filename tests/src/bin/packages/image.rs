//! The image, in the engines that sites run.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tests::book;
use tests::docker::Engine;
use tests::podman::Podman;

use crate::{Settings, output};

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let (works_of, written_of) = (settings.clone(), settings.clone());
    vec![
        Trial::test("image::loads_and_runs", move || works(&works_of).map_err(Failed::from)),
        Trial::test(book::LOADS, move || is_loaded(&written_of).map_err(Failed::from)),
    ]
}

/// By the commands of the documents, each with an engine of the suite's own.
fn is_loaded(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let archive = settings.file(".oci.tar")?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let version = name.strip_prefix("ringfence-").and_then(|rest| rest.strip_suffix("-amd64.oci.tar"));
    let version = version.ok_or(format!("an image called {name}"))?;
    let engine = Engine::start(&settings.attempt).map_err(text)?;
    let podman = Podman::start(&settings.attempt).map_err(text)?;
    for block in book::blocks_of(&settings.repository, book::LOADS)? {
        let mut bash = Command::new("bash");
        bash.args(["-euc", &block.commands.replace("VERSION", version)]).current_dir(&settings.dist);
        bash.envs(engine.environment()).envs(podman.environment());
        output(&mut bash).map_err(|error| format!("{}: {error}", block.place))?;
    }
    let image = format!("ringfence:{version}");
    engine.client(&["image", "inspect", &image]).map_err(text)?;
    let mut ctr = Command::new("ctr");
    let in_containerd =
        output(ctr.envs(engine.environment()).args(["--namespace", "k8s.io", "images", "list", "--quiet"]))?;
    let in_podman = podman.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).map_err(text)?;
    // Containerd's name is whole by the archive's other index.
    let whole = format!("docker.io/library/{image}");
    let is_in = |list: &str, name: &str| list.lines().any(|line| line.ends_with(name));
    if is_in(&in_containerd, &whole) && is_in(&in_podman, &format!("/{image}")) {
        Ok(())
    } else {
        Err(format!("containerd has {in_containerd}\nPodman has {in_podman}"))
    }
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
    Ok(())
}
