//! The DaemonSet's pod as a container of Docker Engine, beside the containers that it watches.
//!
//! The image is the shipped one; rights, mounts, limits and arguments are those of the rendered manifest ([`Pod`]). What differs from a pod, and cannot
//! be otherwise: directories of containerd and Docker are those of the suite's own engine; there is no network but the
//! loopback of the container's own namespace, where the suite fetches metrics; and a cgroup namespace of its own is asked
//! for also where version 1 is mounted, which is the harder case.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};

use serde_json::Value;

use super::pod::{Mount, Pod, Seccomp, Source, files_of};
use super::volume::{ConfigMapVolume, Files};
use super::{Manifests, exchange, named, objects, only};
use crate::docker::Engine;
use crate::harness::http;

/// Where the image has the shipped rules.
const SHIPPED_RULES: &str = "/usr/share/ringfence/rules";
/// Where the pod has the rules of the ConfigMap.
const OWN_RULES: &str = "/etc/ringfence/rules.d";
/// The ConfigMap with those.
const RULES_MAP: &str = "ringfence-rules";
/// The daemon's control socket in the pod.
const SOCKET: &str = "run/ringfence/ringfence.sock";

/// Runs pods.
#[derive(Debug)]
pub struct Runner {
    manifests: Manifests,
    components: Vec<String>,
    image: PathBuf,
    attempt: PathBuf,
    rules: PathBuf,
    ready: OnceLock<Result<Ready, String>>,
    started: AtomicU32,
}

/// The engine with the image, and the rendered manifest.
#[derive(Debug)]
struct Ready {
    engine: Engine,
    objects: Vec<Value>,
    pod: Pod,
    /// The engine has no names for some capabilities.
    exchanges: bool,
}

/// What a test changes of the pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// A capability that it is not given.
    pub without: Option<&'a str>,
    /// The runtime's own seccomp profile in place of ours.
    pub default_seccomp: bool,
}

/// A container that is about to start, and what it has of the suite.
#[derive(Debug)]
pub struct Placed {
    name: String,
    port: u64,
    volumes: Vec<(String, ConfigMapVolume)>,
    /// What fetches pages in its network namespace, once it runs.
    inside: Option<Inside>,
    /// Its process in the host's pid namespace, once it runs.
    pid: i32,
}

impl Runner {
    /// A runner of the base with these components, of the archive of an image as `cargo xtask dist` makes it. Nothing is
    /// started yet.
    pub fn new(
        manifests: Manifests,
        components: &[&str],
        image: PathBuf,
        attempt: &Path,
        rules: &Path,
    ) -> Runner {
        Runner {
            manifests,
            components: components.iter().map(|name| (*name).to_owned()).collect(),
            image,
            attempt: attempt.to_owned(),
            rules: rules.to_owned(),
            ready: OnceLock::new(),
            started: AtomicU32::new(0),
        }
    }

    fn ready(&self) -> Result<&Ready, String> {
        let start = || {
            let objects = objects(&self.manifests.render_with(&self.components)?)?;
            let pod = Pod::of(only(&objects, "DaemonSet")?)?;
            let engine = Engine::start(&self.attempt).map_err(|error| error.to_string())?;
            self.load_image(&engine, &pod)?;
            let exchanges = exchange::is_needed(&engine).map_err(|error| error.to_string())?;
            Ok(Ready { engine, objects, pod, exchanges })
        };
        self.ready.get_or_init(start).as_ref().map_err(String::clone)
    }

    /// The engine, whose other containers are the siblings.
    ///
    /// # Errors
    /// It does not start, or the manifest or the image cannot be made.
    pub fn engine(&self) -> Result<&Engine, String> {
        self.ready().map(|ready| &ready.engine)
    }

    /// What the manifest asks for.
    ///
    /// # Errors
    /// As [`Runner::engine`].
    pub fn pod(&self) -> Result<&Pod, String> {
        self.ready().map(|ready| &ready.pod)
    }

    /// Gives the engine the image, under the name that the manifest has. What the manifest says in the image's place must
    /// be what the image says: whoever runs it by hand has the same.
    fn load_image(&self, engine: &Engine, pod: &Pod) -> Result<(), String> {
        let docker = |arguments: &[&str]| engine.client(arguments).map_err(|error| error.to_string());
        let loaded = docker(&["load", "--quiet", "--input", &self.image.display().to_string()])?;
        if loaded.trim().strip_prefix("Loaded image: ") != Some(&pod.image) {
            return Err(format!(
                "the manifest wants the image {}, and docker load says: {loaded}",
                pod.image
            ));
        }
        let config = docker(&["image", "inspect", "--format", "{{json .Config}}", &pod.image])?;
        let config: Value = serde_json::from_str(&config).map_err(|error| format!("{config}: {error}"))?;
        let fits = config["Entrypoint"] == Value::from(pod.command.clone())
            && config["Cmd"] == Value::from(&pod.args[..pod.args.len().min(1)])
            && config["User"] == format!("{}:{}", pod.user.0, pod.user.1)
            && config["ExposedPorts"][format!("{}/tcp", pod.port)].is_object();
        if fits { Ok(()) } else { Err(format!("the manifest does not fit the image: {config}")) }
    }

    /// The command that runs the pod with these further arguments of the daemon, of which `--rules` is made the
    /// ConfigMap's content.
    ///
    /// # Errors
    /// As [`Runner::engine`]; an argument that a pod cannot have.
    pub fn command(
        &self,
        attach: &str,
        arguments: &[&str],
        change: Change<'_>,
    ) -> Result<(Command, Placed), String> {
        let Ready { engine, objects, pod, exchanges } = self.ready()?;
        let Arguments { rules, rest } = self.arguments(arguments)?;
        let name = format!("ringfence-{}", self.started.fetch_add(1, Ordering::Relaxed));
        let mut placed =
            Placed { name: name.clone(), port: pod.port, volumes: Vec::new(), inside: None, pid: 0 };
        let mut docker = engine.command();
        docker.args(["run", "--rm", "--name", &name, "--pull", "never", "--log-driver", "none"]);
        docker.args(["--network", "none", "--cgroupns", "private", "--read-only", "--cap-drop", "ALL"]);
        docker.args(["--security-opt", "no-new-privileges", "--security-opt", "apparmor=unconfined"]);
        docker.arg("--user").arg(format!("{}:{}", pod.user.0, pod.user.1));
        docker.arg("--memory").arg(pod.memory.0.to_string());
        for cap in pod.add.iter().filter(|cap| change.without != Some(cap.as_str())) {
            docker.args(["--cap-add", if *exchanges { exchange::stand_in(cap) } else { cap }]);
        }
        if *exchanges {
            docker.args(["--runtime", exchange::RUNTIME]);
        }
        match &pod.seccomp {
            Seccomp::Localhost(file) if !change.default_seccomp => {
                let profile = self.manifests.directory().join("seccomp").join(file);
                docker.arg("--security-opt").arg(format!("seccomp={}", profile.display()));
            }
            Seccomp::Localhost(_) | Seccomp::RuntimeDefault => {}
        }
        if let Some(kind) = &pod.selinux_type {
            docker.arg("--security-opt").arg(format!("label=type:{kind}"));
        }
        if pod.host_pids {
            docker.args(["--pid", "host"]);
        }
        for (variable, value) in &pod.env {
            docker.arg("--env").arg(format!("{variable}={value}"));
        }
        for mount in &pod.mounts {
            docker.arg("--mount").arg(option_of(mount, engine, objects, &rules, &mut placed)?);
        }
        let (program, before) = pod.command.split_first().ok_or("the pod names no program")?;
        docker.args(["--entrypoint", program, &pod.image]).args(before).args(&pod.args);
        docker.args(["--attach", attach, "--no-color"]).args(rest);
        docker.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok((docker, placed))
    }

    fn arguments<'a>(&self, arguments: &[&'a str]) -> Result<Arguments<'a>, String> {
        let mut found = Arguments { rules: None, rest: Vec::new() };
        let (mut own, mut shipped) = (false, false);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--rules" => {
                    let path = PathBuf::from(arguments.next().ok_or("--rules needs a value")?);
                    if path == self.rules {
                        shipped = true;
                    } else if !own {
                        own = true;
                        found.rules = Some(rule_files(&path)?);
                    } else {
                        return Err("a pod has one ConfigMap of rules".to_owned());
                    }
                }
                // Nothing of a pod outlives it.
                "--set" => match arguments.next() {
                    Some(value) if value.starts_with("state_dir=") => {}
                    value => found.rest.extend(["--set"].into_iter().chain(value.copied())),
                },
                "--config" | "--alert-file" | "--record-dir" => {
                    return Err(format!("{argument} names a file of the host, which a pod has not"));
                }
                other => found.rest.push(other),
            }
        }
        // Without any the daemon takes both directories.
        match (own, shipped) {
            (true, false) => found.rest.extend(["--rules", OWN_RULES]),
            (false, true) => found.rest.extend(["--rules", SHIPPED_RULES]),
            _ => {}
        }
        Ok(found)
    }
}

struct Arguments<'a> {
    /// What the ConfigMap of rules is to hold.
    rules: Option<Files>,
    rest: Vec<&'a str>,
}

/// A file of rules, or those in a directory, by name.
fn rule_files(path: &Path) -> Result<Files, String> {
    let say = |error: io::Error| format!("{}: {error}", path.display());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if path.is_file() {
        return Ok([(name(path), fs::read_to_string(path).map_err(say)?)].into());
    }
    let mut files = Files::new();
    for entry in fs::read_dir(path).map_err(say)?.flatten() {
        files.insert(name(&entry.path()), fs::read_to_string(entry.path()).map_err(say)?);
    }
    Ok(files)
}

/// The value of Docker's `--mount`.
fn option_of(
    mount: &Mount,
    engine: &Engine,
    objects: &[Value],
    rules: &Option<Files>,
    placed: &mut Placed,
) -> Result<String, String> {
    let target = &mount.target;
    let read_only = if mount.read_only { ",readonly" } else { "" };
    let bind = |source: &Path| format!("type=bind,source={},target={target}{read_only}", source.display());
    match &mount.source {
        // As with the kubelet, everybody may write to it.
        Source::Memory(bytes) => Ok(format!("type=tmpfs,target={target},tmpfs-size={bytes},tmpfs-mode=1777")),
        Source::Secret(name) => Err(format!("the suite has no Secret called {name}")),
        Source::Host(path) => Ok(bind(&of_engine(engine, Path::new(path)))),
        Source::ConfigMap { name, mode } => {
            let files = match rules {
                Some(rules) if name == RULES_MAP => rules.clone(),
                _ => files_of(named(objects, "ConfigMap", name)?),
            };
            let volume = ConfigMapVolume::new(&files, *mode).map_err(|error| error.to_string())?;
            // A file of a volume is found when the container starts, and stays what it was then.
            let source = match &mount.sub_path {
                Some(file) => {
                    fs::canonicalize(volume.file(file)).map_err(|error| format!("{file}: {error}"))?
                }
                None => volume.path().to_owned(),
            };
            placed.volumes.push((name.clone(), volume));
            Ok(bind(&source))
        }
    }
}

/// A path of the node, or for those of containerd and Docker where the suite's engine has the same.
fn of_engine(engine: &Engine, path: &Path) -> PathBuf {
    if let Ok(below) = path.strip_prefix("/var/lib/docker") {
        return engine.state().join(below);
    }
    match path.strip_prefix("/run/containerd") {
        Ok(below) => engine.directory().join("exec/containerd/daemon").join(below),
        Err(_) => path.to_owned(),
    }
}

impl Placed {
    /// Finds the container's process and enters its network, once it runs.
    ///
    /// # Errors
    /// The engine does not know it, or the kernel does not let us in.
    pub fn enter(&mut self, runner: &Runner) -> Result<(), String> {
        let engine = runner.engine()?;
        let pid = engine.client(&["inspect", "--format", "{{.State.Pid}}", &self.name]);
        let pid = pid.map_err(|error| error.to_string())?;
        self.pid = pid.parse().map_err(|error| format!("{pid}: {error}"))?;
        self.inside = Some(Inside::new(self.pid).map_err(|error| format!("the pod's network: {error}"))?);
        Ok(())
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The daemon's process id in the host's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The daemon's control socket, by a way that is open to the host.
    pub fn control_socket(&self) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(SOCKET)
    }

    /// Fetches a page of the daemon's.
    ///
    /// # Errors
    /// The connection's.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let inside = self.inside.as_ref().ok_or_else(|| io::Error::other("the pod does not run yet"))?;
        inside.get(&format!("127.0.0.1:{}", self.port), path)
    }

    /// Gives a mounted ConfigMap another content, as the kubelet does.
    ///
    /// # Errors
    /// It is not mounted, or the kernel's.
    pub fn update(&mut self, config_map: &str, files: &Files) -> io::Result<()> {
        let volume = self.volumes.iter_mut().find(|(name, _)| name == config_map);
        volume.ok_or_else(|| io::Error::other("there is no such volume"))?.1.update(files)
    }
}

type Answer = io::Result<(u16, String)>;

/// A thread in the container's network namespace, which it enters once: each time would be one more event.
#[derive(Debug)]
struct Inside {
    asked: mpsc::Sender<(String, String, mpsc::Sender<Answer>)>,
}

impl Inside {
    fn new(pid: i32) -> io::Result<Inside> {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
        let (asked, questions) = mpsc::channel::<(String, String, mpsc::Sender<Answer>)>();
        let (entered, has_entered) = mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: no pointers; it concerns this thread only.
            let entering = match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            };
            let may_go_on = entering.is_ok();
            if entered.send(entering).is_err() || !may_go_on {
                return;
            }
            for (address, path, answer) in questions {
                // Who asked may have given up.
                let _ = answer.send(http::get(&address, &path));
            }
        });
        has_entered.recv().map_err(io::Error::other)??;
        Ok(Inside { asked })
    }

    fn get(&self, address: &str, path: &str) -> Answer {
        let (answer, answered) = mpsc::channel();
        self.asked.send((address.to_owned(), path.to_owned(), answer)).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)?
    }
}
