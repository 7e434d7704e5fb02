//! Real containers without an engine: a runtime starts them from the configuration that Docker Engine gave it.
//!
//! The configurations in `fixtures/oci/` were written by Docker Engine 20.10.24 (Debian 12) on a kernel 6.18 for
//! `docker create --interactive --network none` and the same with `--privileged`, and recorded from its bundles
//! with `RINGFENCE_BLESS=1` and the trials `oci-fixture`. Without that variable these trials hold what today's
//! Engine writes against the record. [`recorded`] says what was replaced.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::cgroup;
use crate::docker::{Ran, make_root};

/// Stands in records for the engine's own directory.
const ENGINE: &str = "ENGINE";
/// Stands in records for the container's id, as no other word does: capabilities have names like `CAP_SETUID`.
const ID: &str = "@ID@";

/// What a container is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Docker's default: its seccomp profile, fourteen capabilities, a few devices.
    Default,
    /// `--privileged`: everything.
    Privileged,
}

impl Profile {
    /// Both.
    pub const ALL: [Profile; 2] = [Profile::Default, Profile::Privileged];

    /// For the names of tests and of the record.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Privileged => "privileged",
        }
    }

    /// The client's options.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Profile::Default => &[],
            Profile::Privileged => &["--privileged"],
        }
    }

    /// The record's text.
    const fn text(self) -> &'static str {
        match self {
            Profile::Default => include_str!("../fixtures/oci/default.json"),
            Profile::Privileged => include_str!("../fixtures/oci/privileged.json"),
        }
    }

    /// Where the record lies in the sources.
    pub fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/oci/{}.json", self.name()))
    }

    /// The record.
    ///
    /// # Errors
    /// If it is no JSON.
    pub fn record(self) -> io::Result<Value> {
        Ok(serde_json::from_str(self.text())?)
    }
}

/// A configuration without what is one machine's, one engine's or one container's own: paths below the engine's
/// directory and the container's id are replaced by words (the root's path whole); hooks, which name the engine's process, and the device
/// nodes, which a privileged container has from its host, are left out.
pub fn recorded(mut config: Value, engine: &Path, id: &str) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.remove("hooks");
    }
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("devices");
    }
    config["root"]["path"] = json!(ENGINE);
    let engine = engine.display().to_string();
    replace(&mut config, &|text| text.replace(&engine, ENGINE).replace(id, ID).replace(&id[..12], ID));
    config
}

fn replace(value: &mut Value, with: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = with(text),
        Value::Array(members) => members.iter_mut().for_each(|member| replace(member, with)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, with)),
        _ => {}
    }
}

/// The part of a configuration that decides what a container is refused.
pub fn walls(config: &Value) -> Value {
    let linux = &config["linux"];
    json!({
        "capabilities": config["process"]["capabilities"],
        "no_new_privileges": config["process"]["noNewPrivileges"],
        "seccomp": linux["seccomp"],
        "devices": linux["resources"]["devices"],
        "masked": linux["maskedPaths"],
        "readonly": linux["readonlyPaths"],
        "namespaces": linux["namespaces"],
    })
}

/// Runs a program in a new container by `crun`, which must be in `PATH`: creates it, looks at its cgroup, starts it,
/// reads it to its end and deletes it, as an engine does.
///
/// # Errors
/// The kernel's, what the runtime did not like, or that the program did not end well.
pub fn run(attempt: &Path, profile: Profile, program: &[&str]) -> io::Result<Ran> {
    run_with(attempt, profile, program, &|_| ())
}

/// The same from a configuration that `change` has changed.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    attempt: &Path,
    profile: Profile,
    program: &[&str],
    change: &dyn Fn(&mut Value),
) -> io::Result<Ran> {
    let bundle = tempfile::tempdir()?;
    let root = bundle.path().join("root");
    make_root(&root, attempt)?;
    // An engine gives no id twice: what comes late of one container is no other's.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = cgroup::container_id(&format!("{} {number}", profile.name()));
    let mut config = filled(profile, &root, &id, program)?;
    change(&mut config);
    fs::write(bundle.path().join("config.json"), serde_json::to_vec(&config)?)?;
    let crun = |verb: &str| {
        let mut runtime = Command::new("crun");
        runtime.arg("--root").arg(bundle.path().join("state")).arg(verb).stdin(Stdio::null());
        runtime
    };
    // The runtime leaves the container's first process behind, and whoever starts containers adopts it.
    // SAFETY: a call without pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let pid_file = bundle.path().join("pid");
    // A guest's root is the kernel's own, which pivot_root does not leave.
    let mut create = crun("create");
    create.args(["--no-pivot", "--bundle"]).arg(bundle.path()).arg("--pid-file").arg(&pid_file).arg(&id);
    let mut created = create.stdout(Stdio::piped()).spawn()?;
    let stdout = created.stdout.take();
    succeeded("create", created.wait()?)?;
    let pid = fs::read_to_string(&pid_file)?.trim().to_owned();
    let looked = cgroup::of_process(&pid);
    let started = crun("start").arg(&id).status().and_then(|status| succeeded("start", status));
    let lines = match (&started, stdout) {
        (Ok(()), Some(stdout)) => BufReader::new(stdout).lines().collect(),
        _ => Ok(Vec::new()),
    };
    succeeded("delete", crun("delete").args(["--force", &id]).status()?)?;
    started?;
    let lines: Vec<String> = lines?;
    let status = pid.parse().map_err(io::Error::other).and_then(wait)?;
    if status != 0 {
        let shown = lines.join("\n");
        return Err(io::Error::other(format!("{program:?} ended with wait status {status:#x}\n{shown}")));
    }
    let (cgroup_path, cgroup_id) = looked?;
    Ok(Ran { id, cgroup_id, cgroup_path, lines })
}

fn succeeded(verb: &str, status: ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("crun {verb}: {status}"))) }
}

/// The wait status of a child.
fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
        return Ok(status);
    }
    Err(io::Error::last_os_error())
}

/// The record, filled in for a container of our own.
pub(crate) fn filled(profile: Profile, root: &Path, id: &str, program: &[&str]) -> io::Result<Value> {
    let mut config = profile.record()?;
    let id = id.to_owned();
    replace(&mut config, &|text| text.replace(ID, &id));
    config["root"]["path"] = json!(root);
    config["process"]["args"] = json!(program);
    // Files for the names of hosts, and shared memory: they come from the engine's directory.
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["source"].as_str().is_some_and(|source| source.starts_with(ENGINE)));
    }
    // Docker limits nothing by default, but a runtime may look even then for controllers that a host lacks.
    let devices = config["linux"]["resources"]["devices"].take();
    config["linux"]["resources"] = json!({"devices": devices});
    // On hosts with version 2 alone, Docker gives each container a cgroup namespace; the record is from another.
    let v2 = cgroup::hierarchy()?.name == "v2";
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut()
        && v2
    {
        namespaces.push(json!({"type": "cgroup"}));
    }
    if profile == Profile::Privileged {
        config["linux"]["devices"] = host_devices()?;
    }
    Ok(config)
}

/// The character devices of our own `/dev`, which Docker makes in a privileged container.
fn host_devices() -> io::Result<Value> {
    /// The runtime makes these itself.
    const USUAL: &[&str] = &["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"];
    let mut devices = Vec::new();
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let (name, meta) = (entry.file_name(), entry.metadata()?);
        if meta.file_type().is_char_device() && !USUAL.iter().any(|usual| name == *usual) {
            devices.push(json!({
                "path": entry.path(), "type": "c", "fileMode": meta.mode() & 0o777,
                "major": libc::major(meta.rdev()), "minor": libc::minor(meta.rdev()), "uid": 0, "gid": 0,
            }));
        }
    }
    Ok(Value::Array(devices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_nothing_of_the_machine_that_made_them() {
        let config = json!({
            "hooks": {"prestart": [{"path": "/proc/7/exe"}]},
            "hostname": "0123456789ab",
            "root": {"path": "/tmp/rfd/data/overlay2/f00d/merged"},
            "mounts": [{"source": "/tmp/rfd/data/containers/0123456789abcdef/hosts"}],
            "linux": {"devices": [{}], "cgroupsPath": "/docker/0123456789abcdef"},
        });
        let expected = json!({
            "hostname": "@ID@",
            "root": {"path": "ENGINE"},
            "mounts": [{"source": "ENGINE/data/containers/@ID@/hosts"}],
            "linux": {"cgroupsPath": "/docker/@ID@"},
        });
        assert_eq!(recorded(config, Path::new("/tmp/rfd"), "0123456789abcdef"), expected);
    }

    #[test]
    fn a_container_is_given_what_the_record_says() {
        for profile in Profile::ALL {
            let config =
                filled(profile, Path::new("/root"), "0123456789abcdef", &["/bin/sh"]).expect("filled");
            let record = profile.record().expect("JSON");
            assert_eq!(config["process"]["capabilities"], record["process"]["capabilities"]);
            assert_eq!(config["hostname"], "0123456789abcdef");
        }
    }

    #[test]
    fn the_records_differ_in_what_they_allow() {
        let [default, privileged] = Profile::ALL.map(|profile| profile.record().expect("JSON"));
        for record in [&default, &privileged] {
            assert_eq!(record["linux"]["cgroupsPath"], "/docker/@ID@");
            assert!(record.get("hooks").is_none() && record["linux"].get("devices").is_none());
        }
        let count =
            |record: &Value, list: &str| record["process"]["capabilities"][list].as_array().map(Vec::len);
        assert_eq!(count(&default, "bounding"), Some(14));
        assert!(count(&privileged, "bounding") >= Some(38));
        let walls = [walls(&default), walls(&privileged)];
        assert_eq!(walls[0]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert!(walls[1]["seccomp"].is_null());
        // The first rule refuses all devices; the others allow some.
        assert_eq!(walls[0]["devices"][0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(walls[1]["devices"][0], json!({"allow": true, "access": "rwm"}));
    }
}
