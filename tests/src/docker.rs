//! A Docker Engine of our own: started for the suite, with a socket and directories of its own, and no network.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cgroup;
use crate::engine_api::Api;
use crate::harness::PATIENCE;
use crate::kubernetes::exchange;

/// The image that every container is made from: busybox and the program that makes attempts.
pub const IMAGE: &str = "ringfence-suite";

/// Commands of busybox that tests use.
const APPLETS: &[&str] = &["sh", "cat", "ls", "true", "sleep", "mknod", "nsenter", "unshare", "mkfifo"];

/// A runtime that starts nothing: see [`Engine::bundle_config`].
const RECORDER: &str = "recorder";
/// Where it leaves the configuration, below the engine's directory.
const RECORD: &str = "record.json";

/// A running engine; stopped and cleared away when dropped.
#[derive(Debug)]
pub struct Engine {
    daemon: Child,
    dir: TempDir,
}

/// What a container did.
#[derive(Debug)]
pub struct Ran {
    /// The container's id, 64 hex digits.
    pub id: String,
    /// The kernel's id of its directory in [`cgroup::hierarchy`].
    pub cgroup_id: u64,
    /// Path of that directory below the mount.
    pub cgroup_path: String,
    /// What it printed on standard output.
    pub lines: Vec<String>,
}

/// Makes the files of a container: busybox and `attempt` (both linked statically).
///
/// # Errors
/// The kernel's, or that busybox is missing (Debian: `busybox-static`).
pub fn make_root(root: &Path, attempt: &Path) -> io::Result<()> {
    for directory in ["bin", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).map_err(|error| {
        io::Error::new(error.kind(), format!("/bin/busybox (package busybox-static): {error}"))
    })?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::copy(attempt, root.join("attempt")).map(drop)
}

/// Writes [`RECORDER`]: it copies the configuration of the bundle that it is asked to create, and fails.
fn write_recorder(directory: &Path) -> io::Result<()> {
    let (path, record) = (directory.join(RECORDER), directory.join(RECORD));
    let script = format!(
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = --bundle ] && cp \"$2/config.json\" '{}'; shift; done\nexit 1\n",
        record.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}

fn fail(what: &str, output: &Output) -> io::Error {
    io::Error::other(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

impl Engine {
    /// Starts an engine and makes the image from busybox and `attempt` (linked statically).
    ///
    /// # Errors
    /// If programs are missing (Debian: `docker.io`, `busybox-static`) or the engine does not come up; the
    /// end of its log is part of the message.
    pub fn start(attempt: &Path) -> io::Result<Engine> {
        // A short path: socket names have at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("rfd").tempdir()?;
        let log = fs::File::create(dir.path().join("log"))?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        write_recorder(dir.path())?;
        exchange::write(&dir.path().join(exchange::RUNTIME))?;
        let daemon = Command::new("/usr/sbin/dockerd")
            .args(["--add-runtime", &format!("{RECORDER}={}", at(RECORDER))])
            .args(["--add-runtime", &format!("{0}={1}", exchange::RUNTIME, at(exchange::RUNTIME))])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("dockerd (package docker.io): {error}")))?;
        let mut engine = Engine { daemon, dir };
        engine.wait_until_up()?;
        engine.make_image(attempt)?;
        Ok(engine)
    }

    fn wait_until_up(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let up = self.dir.path().join("docker.sock").exists() && self.client(&["version"]).is_ok();
            if up {
                return Ok(());
            }
            if self.daemon.try_wait()?.is_some() || Instant::now() > end {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let from = log.len().saturating_sub(2000);
                let tail = String::from_utf8_lossy(&log.as_bytes()[from..]).into_owned();
                return Err(io::Error::other(format!("dockerd did not come up; its log ends:\n{tail}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn make_image(&self, attempt: &Path) -> io::Result<()> {
        let root = self.dir.path().join("root");
        make_root(&root, attempt)?;
        let tar = self.dir.path().join("root.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").output()?;
        if !made.status.success() {
            return Err(fail("tar", &made));
        }
        self.client(&["import", &tar.display().to_string(), IMAGE]).map(drop)
    }

    /// The client's command line so far.
    pub(crate) fn command(&self) -> Command {
        let packaged = "/usr/bin/docker";
        let mut command = Command::new(if Path::new(packaged).exists() { packaged } else { "docker" });
        command.envs(self.environment()).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Variables by which any `docker` asks this engine, and any `ctr` its containerd.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        [
            ("DOCKER_HOST", format!("unix://{}", at("docker.sock"))),
            // The user's own settings may name another engine or plug-ins.
            ("DOCKER_CONFIG", at("config")),
            // The other builder is a plug-in, which may not be there.
            ("DOCKER_BUILDKIT", "0".to_owned()),
            ("CONTAINERD_ADDRESS", at("exec/containerd/containerd.sock")),
        ]
    }

    /// Runs a client command and gives its standard output.
    ///
    /// # Errors
    /// If it cannot be started or does not succeed; its standard error is in the message.
    pub fn client(&self, arguments: &[&str]) -> io::Result<String> {
        let output = self.command().args(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(fail(&format!("docker {}", arguments.join(" ")), &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Makes a container with further options (such as `--cap-add`), without starting it; gives its id.
    ///
    /// # Errors
    /// The client's.
    pub fn create(&self, options: &[&str], command: &[&str]) -> io::Result<String> {
        let mut arguments = vec!["create", "--interactive", "--network", "none"];
        arguments.extend(options);
        arguments.push(IMAGE);
        arguments.extend(command);
        self.client(&arguments)
    }

    /// Runs a shell command in a new container. The container first waits for us, so that its cgroup can
    /// be looked at; afterwards it is removed.
    ///
    /// # Errors
    /// The client's, or a text if the container does not start or its command fails.
    pub fn run(&self, options: &[&str], command: &str) -> io::Result<Ran> {
        let script = format!("echo started; read go; exec {command}");
        let id = self.create(options, &["/bin/sh", "-c", &script])?;
        let mut client = self
            .command()
            .args(["start", "--attach", "--interactive", &id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (Some(mut stdin), Some(stdout)) = (client.stdin.take(), client.stdout.take()) else {
            return Err(io::Error::other("the client has no pipes"));
        };
        let mut lines = BufReader::new(stdout).lines();
        match lines.next() {
            Some(Ok(line)) if line == "started" => {}
            other => return Err(io::Error::other(format!("container {id} does not start: {other:?}"))),
        }
        let pid = self.client(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        let (cgroup_path, cgroup_id) = cgroup::of_process(&pid)?;
        stdin.write_all(b"go\n")?;
        drop(stdin);
        let lines = lines.collect::<io::Result<Vec<String>>>()?;
        let status = client.wait()?;
        self.client(&["rm", "--force", &id])?;
        if !status.success() {
            let shown = lines.join("\n");
            return Err(io::Error::other(format!("container {id}: {command}: {status}\n{shown}")));
        }
        Ok(Ran { id, cgroup_id, cgroup_path, lines })
    }

    /// The configuration that the engine writes for the runtime of a container with these options, and the
    /// container's id. The runtime in question only keeps the configuration, so that it can be had where the
    /// container itself could not run.
    ///
    /// # Errors
    /// The client's, if the engine does not get as far as to ask the runtime.
    pub fn bundle_config(&self, options: &[&str]) -> io::Result<(String, serde_json::Value)> {
        let id = self.create(&[&["--runtime", RECORDER], options].concat(), &["/bin/true"])?;
        // The recorder never starts anything, so this fails.
        let started = self.client(&["start", &id]);
        self.client(&["rm", "--force", &id])?;
        let path = self.dir.path().join(RECORD);
        match fs::read(&path) {
            Ok(text) => {
                fs::remove_file(&path)?;
                Ok((id, serde_json::from_slice(&text)?))
            }
            Err(error) => Err(started.err().unwrap_or(error)),
        }
    }

    /// Its HTTP API.
    pub fn api(&self) -> Api {
        Api::new(self.dir.path().join("docker.sock"))
    }

    /// The directory of its state, which Ringfence must be told of.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The directory that holds all that is the engine's.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the engine and its containerd, and unmounts what is left below its directory.
    fn stop(&mut self) {
        let pid = self.daemon.id() as i32;
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        // A failure to end is answered by SIGKILL inside.
        if crate::harness::wait(&mut self.daemon).is_err() {
            self.kill_containerd();
        }
        unmount_below(self.dir.path());
    }

    /// Ends the containerd that this dockerd started and left behind.
    fn kill_containerd(&self) {
        let file = self.dir.path().join("exec/containerd/containerd.pid");
        let Some(pid) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok()) else {
            return;
        };
        let ours = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            String::from_utf8_lossy(&line).contains(&self.dir.path().display().to_string())
        });
        if ours {
            // SAFETY: the command line names our directory, so it is the one that our dockerd started.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Unmounts what is left below a directory.
pub(crate) fn unmount_below(directory: &Path) {
    for mount in mounts_below(directory) {
        let Ok(path) = std::ffi::CString::new(mount.into_os_string().into_encoded_bytes()) else {
            continue;
        };
        // SAFETY: a path that ends in NUL.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Mount points below a directory, the deepest first. Octal escapes do not occur in our names.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|path| path.starts_with(directory) && path != directory)
        .collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    below
}

/// Whether a program can be run; the suite names the package if not.
pub fn is_program(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}
