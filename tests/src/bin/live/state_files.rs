//! State files that somebody spoilt while containers run: alerts come in time, without a wrong name, and are counted.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::attempt::mark;
use tests::cgroup::{Cgroup, POD_UID, container_id};
use tests::harness::alerts::{Expectation, Must};
use tests::harness::{Daemon, Settings, wait};
use tests::state::Config;

use crate::cases::cases;

/// The daemon's own bound, in milliseconds.
const WAIT_MS: u32 = 250;
/// What the machine may take besides, from the start of the attempt's program to the alert in our hands.
const SLACK: Duration = Duration::from_secs(5);
/// What the daemon may take in memory for files of [`HUGE`] bytes, in KiB.
const MORE_KIB: u64 = 32 * 1024;
/// Size of a file that is larger than any runtime writes.
const HUGE: u64 = 100 << 20;

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    cases(settings, &[("state-files::spoilt_ones_cost_no_alert", spoilt)])
}

/// A runtime's way to keep what it knows.
struct Keeper {
    name: &'static str,
    /// Path of a container's cgroup.
    cgroup: fn(&str) -> String,
    /// Path of its state file below the directory of all.
    file: fn(&str) -> PathBuf,
    /// A good one.
    good: fn(&str, &str) -> Value,
}

const KEEPERS: [Keeper; 2] = [
    Keeper {
        name: "docker",
        cgroup: |id| format!("docker/{id}"),
        file: |id| Path::new("docker/containers").join(id).join("config.v2.json"),
        good: |id, name| {
            json!({
                "ID": id, "Name": format!("/{name}"), "Created": "2026-11-25T17:00:00.000000001Z",
                "Image": format!("sha256:{}", container_id("image")), "Config": {"Image": "suite:1", "Labels": {}},
            })
        },
    },
    Keeper {
        name: "containerd",
        cgroup: |id| format!("kubepods/burstable/pod{POD_UID}/{id}"),
        file: |id| Path::new("containerd/io.containerd.runtime.v2.task/k8s.io").join(id).join("config.json"),
        good: |id, name| {
            json!({
                "ociVersion": "1.0.2", "process": {"args": ["/x"]}, "root": {"path": "rootfs"},
                "linux": {"cgroupsPath": format!("/kubepods/burstable/pod{POD_UID}/{id}")},
                "annotations": {
                    "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name,
                    "io.kubernetes.cri.image-name": "suite:1", "io.kubernetes.cri.sandbox-name": "pod",
                    "io.kubernetes.cri.sandbox-namespace": "suite", "io.kubernetes.cri.sandbox-uid": POD_UID,
                    "io.kubernetes.cri.sandbox-id": container_id("sandbox"),
                },
            })
        },
    },
];

/// A way to spoil a file: its name, the word by which the daemon counts it, and how.
type Spoil = (&'static str, &'static str, fn(&Path, &Value) -> std::io::Result<()>);

const SPOILS: [Spoil; 6] = [
    ("truncated", "not_json", |path, good| {
        let text = good.to_string();
        fs::write(path, &text[..text.len() - 9])
    }),
    ("huge", "too_large", |path, good| {
        // A good one, with blanks behind it that would have to be read.
        fs::write(path, good.to_string())?;
        File::options().write(true).open(path)?.set_len(HUGE)
    }),
    ("pipe", "not_regular", |path, _| {
        let status = Command::new("/bin/busybox").arg("mkfifo").arg(path).status()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("mkfifo: {status}"))) }
    }),
    ("link", "symlink", |path, good| {
        let other = path.with_extension("elsewhere");
        fs::write(&other, good.to_string())?;
        symlink(other, path)
    }),
    ("not-json", "not_json", |path, _| fs::write(path, "Name=evil\n")),
    ("of-another", "wrong_id", |path, good| {
        let other = container_id("another");
        let own = path.parent().and_then(Path::file_name).map(|id| id.to_string_lossy().into_owned());
        fs::write(path, good.to_string().replace(&own.unwrap_or_default(), &other))
    }),
];

fn spoilt(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let dir = tempfile::tempdir().map_err(text)?;
    let [docker, containerd] = ["docker", "containerd"].map(|name| dir.path().join(name));
    for keeper in [&docker, &containerd] {
        fs::create_dir_all(keeper).map_err(text)?;
    }
    let config =
        Config::new(&[("docker_roots", &[&docker]), ("containerd_roots", &[&containerd])]).map_err(text)?;
    let shipped = settings.rules.display().to_string();
    let wait_ms = WAIT_MS.to_string();
    let options = ["--rules", &shipped, "--config", &config.path(), "--metadata-wait-ms", &wait_ms];
    let daemon = Daemon::start(settings, &options)?;
    let memory = peak_kib(&daemon)?;
    let mut faults = Vec::new();
    let mut number = mark::FIRST;
    let mut running = Vec::new();
    for keeper in &KEEPERS {
        for (way, counted, spoil) in SPOILS {
            let before = misses(&daemon, counted)?;
            let container = Container::make(settings, dir.path(), keeper, way, spoil).map_err(text)?;
            let told = container.attempt(
                &daemon,
                number,
                Must::BeOneOf(vec!["pending".into(), "missing".into()]),
                None,
            );
            let fault = told.err().or_else(|| await_miss(&daemon, counted, before).err());
            faults.extend(fault.map(|fault| format!("{} {way}: {fault}", keeper.name)));
            number += 1;
            running.push(container);
        }
        // All of them are there when a proper one comes, and it must not suffer.
        let spoil = |path: &Path, good: &Value| fs::write(path, good.to_string());
        let container = Container::make(settings, dir.path(), keeper, "good", spoil).map_err(text)?;
        let told =
            container.attempt(&daemon, number, Must::Be("complete".into()), Some(("name-good", "suite:1")));
        faults.extend(told.err().map(|fault| format!("{} good: {fault}", keeper.name)));
        number += 1;
        running.push(container);
    }
    let more = peak_kib(&daemon)?.saturating_sub(memory);
    if more > MORE_KIB {
        faults.push(format!("{more} KiB more memory at the peak"));
    }
    drop(running);
    let ended = daemon.stop()?;
    ended.check()?;
    // Not later either: a file that is looked at again is no better.
    let named = |name: &str| {
        ended.alerts.iter().filter(|alert| alert.get("container.name").as_deref() == Some(name)).count()
    };
    for (way, ..) in SPOILS {
        let count = named(&format!("name-{way}"));
        if count > 0 {
            faults.push(format!("{count} alerts with the name in a file that is {way}"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// A container of which only the cgroup and the state file are there; somebody runs programs in it.
struct Container<'s> {
    settings: &'s Settings,
    id: String,
    cgroup: Cgroup,
}

impl<'s> Container<'s> {
    /// The file first, as runtimes do.
    fn make(
        settings: &'s Settings,
        state: &Path,
        keeper: &Keeper,
        way: &str,
        spoil: fn(&Path, &Value) -> std::io::Result<()>,
    ) -> std::io::Result<Container<'s>> {
        let id = container_id(&format!("state {} {way}", keeper.name));
        let path = state.join((keeper.file)(&id));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        spoil(&path, &(keeper.good)(&id, &format!("name-{way}")))?;
        let cgroup = Cgroup::make(&(keeper.cgroup)(&id))?;
        Ok(Container { settings, id, cgroup })
    }

    /// Makes an attempt in it. The alert must come in time, with this metadata and this name and image.
    fn attempt(
        &self,
        daemon: &Daemon,
        number: u32,
        metadata: Must,
        named: Option<(&str, &str)>,
    ) -> Result<(), String> {
        let mut command = Command::new(&self.settings.attempt);
        self.cgroup.contain(command.args(["mark", &number.to_string()]).stdout(Stdio::null()));
        let began = Instant::now();
        let status = wait(&mut command.spawn().map_err(|error| format!("attempt: {error}"))?)?;
        if !status.success() {
            return Err(format!("attempt: {status}"));
        }
        let (name, image) = named.unzip();
        let must = |text: Option<&str>| text.map_or(Must::BeAbsent, |text| Must::Be(text.to_owned()));
        let wanted = Expectation::new()
            .is("evt.args", mark::arguments(number))
            .is("container.id", &self.id[..12])
            .must("container.metadata", metadata)
            .must("container.name", must(name))
            .must("container.image", must(image));
        let alert = daemon.expect(&wanted)?;
        let took = alert.arrived.saturating_duration_since(began);
        let bound = Duration::from_millis(u64::from(WAIT_MS)) + SLACK;
        if took > bound { Err(format!("the alert took {took:?}, more than {bound:?}")) } else { Ok(()) }
    }
}

/// Looks that ended so, so far.
fn misses(daemon: &Daemon, reason: &str) -> Result<f64, String> {
    let metrics = daemon.metrics()?;
    let count = metrics.sum("ringfence_metadata_reads_total", &[("result", reason)]);
    count.ok_or_else(|| format!("no counter for {reason}\n{}", metrics.lines("ringfence_metadata")))
}

/// Waits until there are more of them than before: metrics are a second old at most.
fn await_miss(daemon: &Daemon, reason: &str, before: f64) -> Result<(), String> {
    let end = Instant::now() + tests::harness::PATIENCE;
    while misses(daemon, reason)? <= before {
        if Instant::now() > end {
            return Err(format!("the counter of {reason} does not move from {before}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The most that the daemon had in memory so far.
fn peak_kib(daemon: &Daemon) -> Result<u64, String> {
    let status =
        fs::read_to_string(format!("/proc/{}/status", daemon.pid())).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.ok_or_else(|| format!("no VmHWM in {status}"))
}
