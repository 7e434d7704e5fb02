//! What the DaemonSet asks for its pod, as options of `docker run`.
//!
//! Nothing is left out in silence: a field that is not known here is an error, so that the container that the suite runs
//! cannot have other rights than the pod.

use serde_json::Value;

use super::volume::Files;

/// What the node is called in tests.
pub const NODE: &str = "node-7.suite";

/// One mount of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is in the container.
    pub target: String,
    /// What is mounted.
    pub source: Source,
    /// Only the named file of it.
    pub sub_path: Option<String>,
    /// It cannot be written to there.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file or directory of the node.
    Host(String),
    /// These files.
    ConfigMap {
        /// Its name.
        name: String,
        /// Mode of the files.
        mode: u32,
    },
    /// The files of a Secret of this name.
    Secret(String),
    /// Memory of at most so many bytes.
    Memory(u64),
}

/// A container with all that decides about its rights.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The image's name.
    pub image: String,
    /// The program.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// User and group.
    pub user: (u64, u64),
    /// Capabilities that it is given, without the prefix.
    pub add: Vec<String>,
    /// `RuntimeDefault`, or the file of a profile below the node's directory of profiles.
    pub seccomp: Seccomp,
    /// Its type with SELinux, if it has not that of all containers.
    pub selinux_type: Option<String>,
    /// It sees the node's processes.
    pub host_pids: bool,
    /// Bytes of memory, the limit and what is asked for.
    pub memory: (u64, u64),
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// Port of the metrics.
    pub port: u64,
    /// Paths that the kubelet asks for: startup, liveness, readiness.
    pub probes: Vec<(&'static str, String)>,
}

/// The seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's own.
    RuntimeDefault,
    /// A file below the node's directory of profiles.
    Localhost(String),
}

/// Every field that the DaemonSet may have, by the place where it stands. Those behind the bar say nothing about what the
/// container may do.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "/spec/template/spec",
        &[
            "automountServiceAccountToken",
            "containers",
            "hostPID",
            "securityContext",
            "volumes",
            "enableServiceLinks",
            "nodeSelector",
            "priorityClassName",
            "serviceAccountName",
            "terminationGracePeriodSeconds",
            "tolerations",
        ],
    ),
    (
        "/spec/template/spec/securityContext",
        &["appArmorProfile", "runAsGroup", "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile"],
    ),
    (
        "/spec/template/spec/containers/0",
        &[
            "args",
            "command",
            "env",
            "image",
            "imagePullPolicy",
            "livenessProbe",
            "name",
            "ports",
            "readinessProbe",
            "resources",
            "securityContext",
            "startupProbe",
            "volumeMounts",
        ],
    ),
    (
        "/spec/template/spec/containers/0/securityContext",
        &["allowPrivilegeEscalation", "capabilities", "privileged", "readOnlyRootFilesystem"],
    ),
    ("/spec/template/spec/containers/0/securityContext/capabilities", &["add", "drop"]),
    ("/spec/template/spec/containers/0/resources", &["limits", "requests"]),
    ("/spec/template/spec/containers/0/resources/limits", &["memory"]),
];

fn text(value: &Value, what: &str) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{what} is no text: {value}"))
}

fn must(value: &Value, wanted: &Value, what: &str) -> Result<(), String> {
    if value == wanted { Ok(()) } else { Err(format!("{what} is {value}, not {wanted}")) }
}

fn members(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A quantity of memory in bytes: `64Mi`.
fn bytes(value: &Value) -> Result<u64, String> {
    let text = text(value, "a quantity")?;
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => return Err(format!("{other} is a unit that is not known here")),
    };
    digits.parse::<u64>().map(|number| number * unit).map_err(|error| format!("{text}: {error}"))
}

impl Pod {
    /// Reads a DaemonSet.
    ///
    /// # Errors
    /// Something that is not known here, or that no pod of Ringfence's may have.
    pub fn of(daemon_set: &Value) -> Result<Pod, String> {
        for (place, known) in KNOWN {
            let found = daemon_set.pointer(place).and_then(Value::as_object);
            let found = found.ok_or_else(|| format!("{place} is missing"))?;
            if let Some(unknown) = found.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(format!(
                    "{place}/{unknown} is not known here: say what it is in a container of Docker"
                ));
            }
        }
        let spec = &daemon_set["spec"]["template"]["spec"];
        let of_pod = &spec["securityContext"];
        let container = &spec["containers"][0];
        let security = &container["securityContext"];
        must(&Value::from(members(&spec["containers"]).len()), &Value::from(1), "the number of containers")?;
        must(&spec["automountServiceAccountToken"], &false.into(), "automountServiceAccountToken")?;
        must(&security["privileged"], &false.into(), "privileged")?;
        must(&security["allowPrivilegeEscalation"], &false.into(), "allowPrivilegeEscalation")?;
        must(&security["readOnlyRootFilesystem"], &true.into(), "readOnlyRootFilesystem")?;
        must(&security["capabilities"]["drop"], &serde_json::json!(["ALL"]), "drop")?;
        must(&of_pod["appArmorProfile"]["type"], &"Unconfined".into(), "appArmorProfile")?;
        let profile = &of_pod["seccompProfile"];
        let seccomp = match profile["type"].as_str() {
            Some("RuntimeDefault") => Seccomp::RuntimeDefault,
            Some("Localhost") => Seccomp::Localhost(text(&profile["localhostProfile"], "localhostProfile")?),
            _ => return Err(format!("the seccomp profile is {profile}")),
        };
        let selinux = &of_pod["seLinuxOptions"];
        if let Some(other) = selinux.as_object().and_then(|all| all.keys().find(|key| *key != "type")) {
            return Err(format!("seLinuxOptions/{other} is not known here"));
        }
        let number = |value: &Value| value.as_u64().ok_or_else(|| format!("{value} is no number"));
        let texts = |value: &Value| -> Result<Vec<String>, String> {
            members(value).iter().map(|one| text(one, "a member")).collect()
        };
        let env = members(&container["env"]).iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        let args: Vec<String> = texts(&container["args"])?;
        let probes = [
            ("startup", &container["startupProbe"]),
            ("liveness", &container["livenessProbe"]),
            ("readiness", &container["readinessProbe"]),
        ];
        let ports = members(&container["ports"]);
        let port = ports.iter().find(|port| port["name"] == "metrics").ok_or("no port is called metrics")?;
        Ok(Pod {
            image: text(&container["image"], "image")?,
            command: texts(&container["command"])?,
            args: args.iter().map(|arg| expand(arg, &env)).collect(),
            env,
            user: (number(&of_pod["runAsUser"])?, number(&of_pod["runAsGroup"])?),
            add: texts(&security["capabilities"]["add"])?,
            seccomp,
            selinux_type: selinux["type"].as_str().map(str::to_owned),
            host_pids: spec["hostPID"] == true,
            memory: (
                bytes(&container["resources"]["limits"]["memory"])?,
                bytes(&container["resources"]["requests"]["memory"])?,
            ),
            mounts: mounts(spec, container)?,
            port: number(&port["containerPort"])?,
            probes: probes
                .into_iter()
                .map(|(name, probe)| {
                    must(&probe["httpGet"]["port"], &"metrics".into(), name)?;
                    Ok((name, text(&probe["httpGet"]["path"], name)?))
                })
                .collect::<Result<_, String>>()?,
        })
    }
}

/// A variable of the environment, as the kubelet resolves it.
fn variable(env: &Value) -> Result<(String, String), String> {
    let name = text(&env["name"], "a variable's name")?;
    let field = &env["valueFrom"]["fieldRef"]["fieldPath"];
    let value = match (env["value"].as_str(), field.as_str()) {
        (Some(value), None) => value.to_owned(),
        (None, Some("spec.nodeName")) => NODE.to_owned(),
        _ => return Err(format!("the variable {name} is {env}")),
    };
    Ok((name, value))
}

/// `$(NAME)` stands for a variable.
fn expand(arg: &str, env: &[(String, String)]) -> String {
    env.iter().fold(arg.to_owned(), |arg, (name, value)| arg.replace(&format!("$({name})"), value))
}

fn mounts(spec: &Value, container: &Value) -> Result<Vec<Mount>, String> {
    let volumes = members(&spec["volumes"]);
    let mount = |mount: &Value| {
        let name = text(&mount["name"], "a mount's name")?;
        let volume = volumes.iter().find(|volume| volume["name"] == name.as_str());
        let volume = volume.ok_or_else(|| format!("no volume is called {name}"))?;
        let source = if let Some(path) = volume["hostPath"]["path"].as_str() {
            Source::Host(path.to_owned())
        } else if let Some(config) = volume["configMap"]["name"].as_str() {
            let mode =
                volume["configMap"]["defaultMode"].as_u64().ok_or("a ConfigMap without defaultMode")?;
            Source::ConfigMap { name: config.to_owned(), mode: mode as u32 }
        } else if let Some(secret) = volume["secret"]["secretName"].as_str() {
            Source::Secret(secret.to_owned())
        } else if volume["emptyDir"]["medium"] == "Memory" {
            Source::Memory(bytes(&volume["emptyDir"]["sizeLimit"])?)
        } else {
            return Err(format!("the volume {name} is {volume}"));
        };
        Ok(Mount {
            target: text(&mount["mountPath"], "mountPath")?,
            source,
            sub_path: mount["subPath"].as_str().map(str::to_owned),
            read_only: mount["readOnly"] == true,
        })
    };
    members(&container["volumeMounts"]).iter().map(mount).collect()
}

/// The files of a rendered ConfigMap.
pub fn files_of(config_map: &Value) -> Files {
    let data = config_map["data"].as_object();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    data.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_and_variables_are_read() {
        assert_eq!(bytes(&json!("64Mi")), Ok(64 << 20));
        assert_eq!(bytes(&json!("1Gi")), Ok(1 << 30));
        assert!(bytes(&json!("1.5Gi")).is_err() && bytes(&json!("5M")).is_err() && bytes(&json!(5)).is_err());
        let env = [("NODE".to_owned(), "n1".to_owned())];
        assert_eq!(expand("--set=hostname=$(NODE)", &env), "--set=hostname=n1");
        assert_eq!(expand("$(OTHER)", &env), "$(OTHER)");
    }
}
