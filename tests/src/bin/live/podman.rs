//! Containers of a real Podman: each alert names the right one.

use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use tests::harness::{Daemon, Settings};
use tests::many::{self, Made};
use tests::podman::{self, IMAGE, Podman};
use tests::state::Config;

use crate::many::judge;

/// Containers; each takes Podman more than half a second.
const CONTAINERS: usize = 20;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    // Guests have none.
    if settings.guest {
        return Vec::new();
    }
    if let Some(reason) = podman::missing() {
        // `cargo xtask setup` brings it, so that is no reason to pass.
        return vec![Trial::test("podman::names_each_container", move || Err(Failed::from(reason)))];
    }
    let settings = settings.clone();
    vec![Trial::test("podman::names_each_container", move || names(&settings).map_err(Failed::from))]
}

fn names(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let podman = Podman::start(&settings.attempt).map_err(text)?;
    let [root, run_root] = podman.storage();
    let config = Config::new(&[("podman_roots", &[&root, &run_root])]).map_err(text)?;
    let shipped = settings.rules.display().to_string();
    let daemon = Daemon::start(settings, &["--rules", &shipped, "--config", &config.path()])?;
    // In a pod of its own the container's cgroup lies one deeper.
    podman.run(&["pod", "create", "--infra=false", "--name", "suite-pod"]).map_err(text)?;
    let since = Instant::now();
    let made = many::make(CONTAINERS, |number| {
        let name = format!("podman-{number}");
        let pod: &[&str] = if number % 2 == 0 { &["--pod", "suite-pod"] } else { &[] };
        let mark = number.to_string();
        let create = ["create", "--network", "none", "--name", &name];
        let id = podman.run(&[&create[..], pod, &[IMAGE, "/attempt", "mark", &mark]].concat())?;
        podman.run(&["start", &name])?;
        let code = podman.run(&["wait", &name])?;
        podman.run(&["rm", "--force", &name])?;
        if code != "0" {
            return Err(std::io::Error::other(format!("{name} ended with {code}")));
        }
        let named = vec![
            ("container.name", name),
            ("container.image", IMAGE.to_owned()),
            ("container.runtime", "podman".to_owned()),
        ];
        Ok(Made { id, named })
    });
    judge(daemon, &made.map_err(text)?, since)
}
