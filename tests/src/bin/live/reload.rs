//! New rules while the daemon runs: by every way in which files change, and without losing an event.

mod storm;
mod tally;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use tests::harness::alerts::{Alert, Expectation};
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::cases::cases;

/// Rules that do not even parse.
const BROKEN: &str =
    "- rule: Broken\n  desc: d\n  condition: evt.type = (\n  output: o\n  priority: notice\n";
/// A test that cannot come out, to be put behind [`rule`].
const FAILING_TEST: &str =
    "  tests:\n  - name: it matches\n    event: {evt.type: unshare}\n    match: true\n";
/// Longer than a change takes to be noticed and obeyed.
const A_WHILE: Duration = Duration::from_secs(2);

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(
        settings,
        &[
            ("reload::a_thousand_under_load", storm::storm),
            ("reload::by_every_way", by_every_way),
            ("reload::by_sighup_alone", by_sighup_alone),
        ],
    )
}

/// A rule for the marker.
fn rule(id: &str) -> String {
    format!(
        "- rule: Reload {id}\n  id: {id}\n  desc: Matches the marker.\n  condition: evt.type = setns\n  \
         output: \"%evt.type by %proc.vpid\"\n  priority: notice\n"
    )
}

/// Writes a file as an editor does: another one, renamed.
fn replace(file: &Path, text: &str) -> Result<(), String> {
    let other = file.with_extension("new");
    fs::write(&other, text)
        .and_then(|()| fs::rename(&other, file))
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// A daemon whose generations are counted.
struct Watched<'s> {
    settings: &'s Settings,
    daemon: Daemon,
    generation: u64,
}

impl Watched<'_> {
    /// Waits for the next generation.
    fn next(&mut self) -> Result<(), String> {
        self.generation += 1;
        let in_force = format!("generation={} ", self.generation);
        self.daemon.await_log(|line| line.contains("rules reloaded") && line.contains(&in_force)).map(drop)
    }

    /// A call must raise alerts of exactly these rules, in order, all of the generation in force.
    fn judged_by(&self, ids: &[&str]) -> Result<(), String> {
        let output = Command::new(&self.settings.attempt)
            .args(["run", "setns-badfd", "--abi", "x86_64"])
            .output()
            .map_err(|error| format!("attempt: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let of_call = Expectation::new().is("evt.type", "setns").is("proc.vpid", &json["pid"]);
        let last = of_call.clone().is("rule_id", ids.last().copied().unwrap_or_default());
        self.daemon.expect(&last)?;
        let found: Vec<_> = self
            .daemon
            .inbox()
            .fitting(&of_call)
            .iter()
            .map(|alert| (alert.json["rule_id"].clone(), alert.json["rules_generation"].clone()))
            .collect();
        let wanted: Vec<_> = ids.iter().map(|id| (Value::from(*id), Value::from(self.generation))).collect();
        if found == wanted { Ok(()) } else { Err(format!("alerts of {found:?} instead of {wanted:?}")) }
    }

    /// Waits until a metric has this value.
    fn await_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.daemon.metrics()?.sum(name, labels);
            if found == Some(value) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!(
                    "{name}{labels:?} is {found:?} instead of {value}; {}",
                    self.daemon.log()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until Ringfence has told so many times of its rules; the last time in the generation in force.
    fn told(&self, id: &str, times: usize) -> Result<Vec<Alert>, String> {
        let (every, end) =
            (Expectation::new().is("rule_id", id).is("source", "internal"), Instant::now() + PATIENCE);
        while self.daemon.inbox().count(&every) < times && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let alerts = self.daemon.inbox().fitting(&every);
        let generation = alerts.last().map(|alert| alert.json["rules_generation"].clone());
        if alerts.len() == times && generation == Some(self.generation.into()) {
            return Ok(alerts);
        }
        Err(format!("{id} was told {} times instead of {times}, the last in {generation:?}", alerts.len()))
    }

    /// `ringfence status`: exit code and what it prints.
    fn status(&self, options: &[&str]) -> Result<(Option<i32>, String), String> {
        status(self.settings, &self.daemon.control_socket(), options)
    }

    /// New rules were refused: what was in force stays, and everybody is told. `words` stand in the diagnostics.
    fn refused(&self, failed: usize, words: &[&str]) -> Result<(), String> {
        self.await_metric("ringfence_rules_reloads_total", &[("outcome", "failed")], failed as f64)?;
        self.await_metric("ringfence_config_last_reload_successful", &[], 0.0)?;
        self.await_metric("ringfence_rules_generation", &[], self.generation as f64)?;
        let alerts = self.told("ringfence-rules-refused", failed)?;
        let diagnostics =
            alerts.last().and_then(|alert| alert.get("ringfence.diagnostics")).unwrap_or_default();
        let (code, text) = self.status(&[])?;
        let (ready, readiness) = self.daemon.get("/readyz")?;
        for word in words {
            if [&diagnostics, &text, &readiness].iter().any(|said| !said.contains(word)) {
                return Err(format!("not all say `{word}`: {diagnostics}\n{text}\n{readiness}"));
            }
        }
        if code != Some(1)
            || !text.contains("stay in force")
            || ready != 200
            || !readiness.contains("degraded")
        {
            return Err(format!("status ends with {code:?}, /readyz with {ready}:\n{text}\n{readiness}"));
        }
        Ok(())
    }
}

/// Asks the daemon at a socket how it is.
fn status(settings: &Settings, socket: &Path, options: &[&str]) -> Result<(Option<i32>, String), String> {
    let mut command = Command::new(&settings.ringfence);
    command.arg("status").arg("--socket").arg(socket).args(options);
    let output = command.output().map_err(|error| format!("ringfence status: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// A Kubernetes volume with a link `..data`, and a file beside it.
fn by_every_way(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let dir = tempfile::tempdir().map_err(text)?;
    let (volume, file) = (dir.path().join("volume"), dir.path().join("file.yaml"));
    let version = |number: u32, text: &str| {
        let name = format!("..version_{number}");
        fs::create_dir(volume.join(&name))?;
        fs::write(volume.join(&name).join("rules.yaml"), text)?;
        symlink(&name, volume.join("..data_tmp"))?;
        fs::rename(volume.join("..data_tmp"), volume.join("..data"))
    };
    fs::create_dir(&volume).map_err(text)?;
    version(1, &rule("volume-1")).map_err(text)?;
    symlink("..data/rules.yaml", volume.join("rules.yaml")).map_err(text)?;
    replace(&file, &rule("file-1"))?;
    let paths = [volume.display().to_string(), file.display().to_string()];
    // A machine without time to spare makes test calls come late, and this is not about them.
    let options = ["--canary-interval-ms", "off", "--rules", &paths[0], "--rules", &paths[1]];
    let daemon = Daemon::start(settings, &options)?;
    let fine = daemon.get("/readyz")?.1;
    let mut watched = Watched { settings, daemon, generation: 1 };
    watched.judged_by(&["volume-1", "file-1"])?;

    version(2, &rule("volume-2")).map_err(text)?;
    watched.next()?;
    watched.judged_by(&["volume-2", "file-1"])?;
    fs::remove_dir_all(volume.join("..version_1")).map_err(text)?;
    version(3, &rule("volume-3")).map_err(text)?;
    watched.next()?;
    watched.judged_by(&["volume-3", "file-1"])?;

    replace(&file, &rule("file-2"))?;
    watched.next()?;
    watched.judged_by(&["volume-3", "file-2"])?;
    fs::write(&file, rule("file-3")).map_err(text)?;
    watched.next()?;
    watched.judged_by(&["volume-3", "file-3"])?;

    replace(&file, BROKEN)?;
    watched.refused(1, &["file.yaml:3:"])?;
    watched.judged_by(&["volume-3", "file-3"])?;
    // Proper rules, but they do not do what their own tests say.
    replace(&file, &(rule("file-3") + FAILING_TEST))?;
    watched.refused(2, &["file.yaml:", "it matches"])?;
    watched.judged_by(&["volume-3", "file-3"])?;
    replace(&file, &rule("file-4"))?;
    watched.next()?;
    watched.judged_by(&["volume-3", "file-4"])?;
    good_again(&watched, 1, &fine)?;

    // It goes, and comes back as it was: that is no new generation.
    fs::remove_file(&file).map_err(text)?;
    watched.refused(3, &["file.yaml"])?;
    let unchanged = reloads(&watched, "unchanged")?;
    fs::write(&file, rule("file-4")).map_err(text)?;
    good_again(&watched, 2, &fine)?;
    if reloads(&watched, "unchanged")? <= unchanged {
        return Err("the file that came back as it was is not counted as unchanged".to_owned());
    }
    watched.judged_by(&["volume-3", "file-4"])?;

    let unchanged = reloads(&watched, "unchanged")?;
    watched.daemon.signal(libc::SIGHUP)?;
    watched.await_metric("ringfence_rules_reloads_total", &[("outcome", "unchanged")], unchanged + 1.0)?;
    watched.await_metric("ringfence_rules_generation", &[], watched.generation as f64)?;

    let socket = watched.daemon.control_socket();
    watched.daemon.stop()?.check()?;
    match status(settings, &socket, &[])? {
        (Some(2), text) if text.contains("no daemon answers") => Ok(()),
        (code, text) => Err(format!("status without a daemon ends with {code:?}: {text}")),
    }
}

fn reloads(watched: &Watched<'_>, outcome: &str) -> Result<f64, String> {
    let name = "ringfence_rules_reloads_total";
    watched.daemon.metrics()?.sum(name, &[("outcome", outcome)]).ok_or(format!("no {name} of {outcome}"))
}

/// The files are right again, for the `times`th time: everybody is told.
fn good_again(watched: &Watched<'_>, times: usize, fine: &str) -> Result<(), String> {
    watched.await_metric("ringfence_config_last_reload_successful", &[], 1.0)?;
    watched.told("ringfence-rules-accepted", times)?;
    let (_, readiness) = watched.daemon.get("/readyz")?;
    let (code, json) = watched.status(&["-o", "json"])?;
    let status: Value = serde_json::from_str(&json).map_err(|error| format!("{error}: {json}"))?;
    let wanted_code = if fine == "ready\n" { 0 } else { 1 };
    let stands = &status["rules"]["refused"]["stands"];
    if readiness != fine || code != Some(wanted_code) || *stands != false {
        return Err(format!("/readyz says {readiness}, status ends with {code:?}: {json}"));
    }
    let rules = &status["rules"];
    if rules["generation"] != watched.generation || rules["enabled"] != 2 || rules["files"][1].is_null() {
        return Err(format!("generation {} is told wrongly: {json}", watched.generation));
    }
    Ok(())
}

/// Where files are not watched, nothing happens until SIGHUP comes; it is obeyed also before anything changed.
fn by_sighup_alone(settings: &Settings) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("rules.yaml");
    replace(&file, &rule("before"))?;
    let path = file.display().to_string();
    let options = ["--canary-interval-ms", "off", "--watch-rules", "false", "--rules", &path];
    let daemon = Daemon::start(settings, &options)?;
    let mut watched = Watched { settings, daemon, generation: 1 };
    replace(&file, &rule("after"))?;
    std::thread::sleep(A_WHILE);
    watched.judged_by(&["before"])?;
    let (_, text) = watched.status(&[])?;
    if !text.contains("watch_rules: false") {
        return Err(format!("status does not say that files are not watched:\n{text}"));
    }
    watched.daemon.signal(libc::SIGHUP)?;
    watched.next()?;
    watched.judged_by(&["after"])?;
    replace(&file, BROKEN)?;
    watched.daemon.signal(libc::SIGHUP)?;
    watched.refused(1, &["rules.yaml:3:"])?;
    watched.judged_by(&["after"])?;
    watched.daemon.stop()?.check()
}
