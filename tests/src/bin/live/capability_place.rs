//! The daemon under the shipped rules that tests of capabilities share, since it takes guests long to start one, and the
//! containers that it watches: by Docker Engine, or in a guest by crun of Docker's configuration.

use std::sync::{Arc, Mutex, PoisonError};

use monitor_common::caps::Cap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::attempt::needs::POLICY;
use tests::cgroup;
use tests::docker::Ran;
use tests::harness::Daemon;
use tests::harness::alerts::{Alert, Expectation, Must};
use tests::oci::{self, Profile};

use crate::places::Suite;
use crate::probing::knock;

/// AppArmor's directory of securityfs, which is there where it is in force.
pub(crate) const APPARMOR: &str = "/sys/kernel/security/apparmor";

/// The types of events that tell of capabilities without a call of their own.
pub(crate) const TYPES: &[&str] = &["capability", "gained", "gained_unseen"];

/// What a container is given besides, or instead of, Docker's default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given<'a> {
    pub(crate) add: &'a [Cap],
    pub(crate) drop: Option<Cap>,
    /// No seccomp profile: what the default one hides reaches the kernel.
    pub(crate) unconfined: bool,
}

pub(crate) const PLAIN: Given<'static> = Given { add: &[], drop: None, unconfined: false };

/// The daemon, and whoever makes containers.
pub(crate) struct Place {
    pub(crate) suite: Arc<Suite>,
    daemon: Mutex<Option<Daemon>>,
    /// Where the daemons, one after the other, keep what they know.
    state: TempDir,
}

impl Place {
    /// A place whose daemon is yet to start.
    ///
    /// # Errors
    /// There is no room for the state directory.
    pub(crate) fn new(suite: &Arc<Suite>) -> std::io::Result<Place> {
        Ok(Place { suite: suite.clone(), daemon: Mutex::new(None), state: tempfile::tempdir()? })
    }

    /// Lends the daemon, which is started when it is first needed, and anew after a case that failed.
    pub(crate) fn with<T>(&self, case: impl FnOnce(&Daemon) -> Result<T, String>) -> Result<T, String> {
        let mut held = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = match held.take() {
            Some(daemon) => daemon,
            None => {
                let shipped = self.suite.settings().rules.display().to_string();
                let state = format!("state_dir={}", self.state.path().join("state").display());
                let options = ["--rules", &shipped, "--canary-interval-ms", "off", "--metadata-wait-ms", "0"];
                Daemon::start(self.suite.settings(), &[&options[..], &["--set", &state]].concat())?
            }
        };
        let done = case(&daemon)?;
        *held = Some(daemon);
        Ok(done)
    }

    /// Ends the daemon, if there is one, and holds it to the law.
    pub(crate) fn end(&self) -> Result<(), String> {
        match self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(daemon) => daemon.stop()?.check(),
            None => Ok(()),
        }
    }

    /// Runs a shell command in a new container.
    pub(crate) fn run(&self, given: Given<'_>, command: &str) -> Result<Ran, String> {
        contain(&self.suite, given, command)
    }

    /// The alerts of these types that came of a container, once all have come.
    pub(crate) fn alerts(&self, daemon: &Daemon, ran: &Ran, types: &[&str]) -> Result<Vec<Alert>, String> {
        let marker = cgroup::container_id(&format!("nine {}", ran.id));
        knock(self.suite.settings(), &marker, &["setns-badfd"])?;
        daemon.expect(&Expectation::new().is("container.id", &marker[..12]).is("evt.type", "setns"))?;
        let types = types.iter().map(|ty| (*ty).to_owned()).collect();
        let own = Expectation::new().is("container.id", &ran.id[..12]).must("evt.type", Must::BeOneOf(types));
        let mut alerts = daemon.inbox().fitting(&own);
        // The runtime's own calls.
        alerts.retain(|alert| alert.get("evt.phase").as_deref() != Some("starting"));
        Ok(alerts)
    }
}

/// Runs a shell command in a new container: by Docker Engine, or in a guest by crun.
pub(crate) fn contain(suite: &Suite, given: Given<'_>, command: &str) -> Result<Ran, String> {
    if suite.settings().guest {
        let script = format!("exec {command}");
        let change = |config: &mut Value| change(config, given);
        let words = ["/bin/sh", "-c", &script];
        let ran = oci::run_with(&suite.settings().attempt, Profile::Default, &words, &change);
        return ran.map_err(|error| error.to_string());
    }
    let mut options = Vec::new();
    let short = |cap: Cap| cap.name().trim_start_matches("CAP_");
    for cap in given.add {
        options.extend(["--cap-add", short(*cap)]);
    }
    if let Some(cap) = given.drop {
        options.extend(["--cap-drop", short(cap)]);
    }
    if given.unconfined {
        options.extend(["--security-opt", "seccomp=unconfined"]);
    }
    suite.engine()?.run(&options, command).map_err(|error| error.to_string())
}

/// The same in the configuration of a bundle. A profile knows nothing of what was added, so it goes then, too.
fn change(config: &mut Value, given: Given<'_>) {
    for set in ["bounding", "effective", "permitted", "inheritable"] {
        if let Some(caps) = config["process"]["capabilities"][set].as_array_mut() {
            caps.extend(given.add.iter().map(|cap| json!(cap.name())));
            caps.retain(|cap| given.drop.is_none_or(|drop| *cap != drop.name()));
        }
    }
    if std::fs::exists(APPARMOR).is_ok_and(|is| is)
        && let Some(mounts) = config["mounts"].as_array_mut()
    {
        let options = ["bind", "rw"];
        mounts.push(json!({"destination": POLICY, "type": "bind", "source": APPARMOR, "options": options}));
    }
    if (given.unconfined || !given.add.is_empty())
        && let Some(linux) = config["linux"].as_object_mut()
    {
        linux.remove("seccomp");
    }
}
