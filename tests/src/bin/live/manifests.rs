//! The manifests of `deploy/kubernetes`: each overlay, and the base with each component, is rendered, held against the
//! schemas of Kubernetes, and against what is promised of it in docs/kubernetes.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tests::harness::Settings;
use tests::kubernetes::pod::{Pod, Source, files_of};
use tests::kubernetes::{Manifests, named, objects, only};

/// The version of Kubernetes whose schemas are taken, and the oldest that the manifests want.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
/// Kinds of the Prometheus operator, for which Kubernetes has no schema.
const OPERATORS: [&str; 2] = ["PrometheusRule", "ServiceMonitor"];
/// What every pod is given, without the prefix.
const CAPABILITIES: [&str; 4] = ["BPF", "NET_ADMIN", "PERFMON", "SYS_PTRACE"];
/// What it is given on kernels before 5.11.
const OLD_KERNELS: (&str, &str) = ("kernel-5.10", "SYS_RESOURCE");
/// The only component that may write to the node.
const KEEPS_STATE: &str = "keep-state";
/// The component for nodes with SELinux, and the type that it gives.
const SELINUX: (&str, &str) = ("selinux", "spc_t");
/// The component that opens ways out, and by which ports: names, OTLP, Alertmanager.
const LETS_OUT: &str = "outputs";
const OUTPUT_PORTS: [u64; 4] = [53, 4317, 4318, 9093];
/// The field's usual limit of memory; ours must be far under it.
const USUAL_LIMIT: u64 = 512 << 20;
/// Where sockets of runtimes lie: neither they nor a directory with them may be mounted.
const SOCKETS: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/var/lib/kubelet/device-plugins/kubelet.sock",
];

type Case = fn(&Settings, &Manifests) -> Result<(), String>;

const CASES: [(&str, Case); 8] = [
    ("follow_the_schemas", follow_the_schemas),
    ("a_misspelt_field_is_found", a_misspelt_field_is_found),
    ("ask_for_what_is_promised_and_no_more", ask_for_what_is_promised),
    ("name_what_there_is", name_what_there_is),
    ("have_a_configuration_that_loads", have_a_configuration_that_loads),
    ("have_the_alert_rules_and_the_dashboard", have_the_alert_rules_and_the_dashboard),
    ("mount_what_the_components_say", mount_what_the_components_say),
    ("replace_pods_when_the_configuration_changes", replace_pods_when_the_configuration_changes),
];

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.manifests.is_none() || settings.guest || settings.pod.is_some() {
        return Vec::new();
    }
    let trial = |(name, case): (&str, Case)| {
        let settings = settings.clone();
        Trial::test(format!("manifests::{name}"), move || {
            let manifests = settings.manifests.as_ref().ok_or("no manifests")?;
            case(&settings, manifests).map_err(Failed::from)
        })
    };
    CASES.map(trial).into()
}

/// Every rendering: its name, the components in it, its text.
fn renderings(manifests: &Manifests) -> Result<Vec<(String, Vec<String>, String)>, String> {
    let mut all = vec![("base".to_owned(), Vec::new(), manifests.render("base")?)];
    for overlay in manifests.names("overlays")? {
        let directory = format!("overlays/{overlay}");
        // An overlay is called like its component.
        all.push((directory.clone(), vec![overlay], manifests.render(&directory)?));
    }
    for component in manifests.names("components")? {
        let text = manifests.render_with(&[&component])?;
        all.push((format!("components/{component}"), vec![component], text));
    }
    // Those that leave each other's volumes alone, together.
    let together = [
        "monitoring",
        "docker",
        "own-seccomp",
        "keep-state",
        "kernel-5.10",
        "kernel-7",
        "outputs",
        "selinux",
    ];
    all.push((
        "together".to_owned(),
        together.map(str::to_owned).to_vec(),
        manifests.render_with(&together)?,
    ));
    Ok(all)
}

/// Runs kubernetes-validate over these texts; the answer is its status and what it said.
fn validate(texts: &[(String, String)], version: &str) -> Result<(bool, String), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = Command::new("kubernetes-validate");
    command.args(["--strict", "-k", version]);
    for (name, text) in texts {
        let path = directory.path().join(format!("{}.yaml", name.replace('/', "-")));
        fs::write(&path, text).map_err(|error| error.to_string())?;
        command.arg(path);
    }
    let output = command.output().map_err(|error| format!("kubernetes-validate: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The text without objects of the operator's kinds.
fn plain(text: &str) -> String {
    let is_plain = |part: &&str| !OPERATORS.iter().any(|kind| part.contains(&format!("\nkind: {kind}\n")));
    text.split("---\n").filter(is_plain).collect::<Vec<_>>().join("---\n")
}

fn follow_the_schemas(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    let all = renderings(manifests)?;
    let texts: Vec<(String, String)> =
        all.iter().map(|(name, _, text)| (name.clone(), plain(text))).collect();
    for version in VERSIONS {
        let (valid, said) = validate(&texts, version)?;
        let count =
            texts.iter().map(|(_, text)| objects(text).map(|all| all.len())).sum::<Result<usize, _>>()?;
        let passed = said.matches(" passed for resource ").count();
        if !valid || passed != count {
            return Err(format!("of {count} objects {passed} pass for {version}:\n{said}"));
        }
    }
    Ok(())
}

/// Otherwise the test above could not fail.
fn a_misspelt_field_is_found(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    let text = manifests.render("base")?;
    for (right, wrong) in [
        ("hostPID:", "hostPid:"),
        ("readOnlyRootFilesystem:", "readonlyRootFilesystem:"),
        ("drop:", "dropped:"),
        ("policyTypes:", "policyType:"),
        ("terminationGracePeriodSeconds: 20", "terminationGracePeriodSeconds: '20'"),
    ] {
        if !text.contains(right) {
            return Err(format!("the base has no `{right}`"));
        }
        let (valid, said) = validate(&[("misspelt".to_owned(), text.replace(right, wrong))], VERSIONS[1])?;
        if valid {
            return Err(format!("`{wrong}` passes for `{right}`:\n{said}"));
        }
    }
    Ok(())
}

fn ask_for_what_is_promised(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    for (name, components, text) in renderings(manifests)? {
        let all = objects(&text)?;
        check_pod(&all, &components).map_err(|fault| format!("{name}: {fault}"))?;
    }
    Ok(())
}

fn check_pod(all: &[Value], components: &[String]) -> Result<(), String> {
    let has = |component: &str| components.iter().any(|one| one == component);
    let pod = Pod::of(only(all, "DaemonSet")?)?;
    let mut expected: BTreeSet<&str> = CAPABILITIES.into();
    if has(OLD_KERNELS.0) {
        expected.insert(OLD_KERNELS.1);
    }
    let added: BTreeSet<&str> = pod.add.iter().map(String::as_str).collect();
    if added != expected || pod.add.len() != expected.len() {
        return Err(format!("the capabilities are {:?}, not {expected:?}", pod.add));
    }
    let selinux = has(SELINUX.0).then_some(SELINUX.1);
    if pod.selinux_type.as_deref() != selinux {
        return Err(format!("its type with SELinux is {:?}, not {selinux:?}", pod.selinux_type));
    }
    let policy = only(all, "NetworkPolicy")?;
    check_ways_out(&policy["spec"]["egress"], has(LETS_OUT))?;
    let (limit, request) = pod.memory;
    if limit > USUAL_LIMIT / 2 || request > limit {
        return Err(format!("{request} bytes of memory are asked for, and {limit} allowed"));
    }
    for mount in &pod.mounts {
        let Source::Host(path) = &mount.source else { continue };
        let is_way = |socket: &&&str| Path::new(socket).starts_with(path);
        if let Some(socket) = SOCKETS.iter().find(is_way) {
            return Err(format!("{path} holds {socket}"));
        }
        let keeps_state = has(KEEPS_STATE) && path == "/var/lib/ringfence";
        if !(mount.read_only || keeps_state) {
            return Err(format!("{path} can be written to"));
        }
    }
    if let Some(kind) = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret"]
        .iter()
        .find(|kind| all.iter().any(|object| object["kind"] == **kind))
    {
        return Err(format!("there is a {kind}"));
    }
    let account = only(all, "ServiceAccount")?;
    if account["automountServiceAccountToken"] != false {
        return Err(format!("the account has a token: {account}"));
    }
    Ok(())
}

/// Nothing goes out, or with the component what outputs need: never to everybody, never by every port.
fn check_ways_out(egress: &Value, has_outputs: bool) -> Result<(), String> {
    let ways: Vec<&Value> = egress.as_array().ok_or("the policy has no list of ways out")?.iter().collect();
    let members = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_narrow = |way: &&Value| {
        let (to, ports) = (members(&way["to"]), members(&way["ports"]));
        let named = |peer: &Value| {
            peer["namespaceSelector"]["matchLabels"].as_object().is_some_and(|labels| !labels.is_empty())
        };
        !to.is_empty() && to.iter().all(named) && !ports.is_empty()
    };
    let ports: BTreeSet<u64> =
        ways.iter().flat_map(|way| members(&way["ports"])).filter_map(|port| port["port"].as_u64()).collect();
    let expected = if has_outputs { BTreeSet::from(OUTPUT_PORTS) } else { BTreeSet::new() };
    if ports != expected || !ways.iter().all(is_narrow) {
        return Err(format!("the ways out are {egress}"));
    }
    Ok(())
}

/// Objects name each other by labels, names and ports: where one is misspelt nothing fails, and nothing works.
fn name_what_there_is(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    let all = objects(&manifests.render("overlays/monitoring")?)?;
    let set = only(&all, "DaemonSet")?;
    let pod = &set["spec"]["template"];
    let service = only(&all, "Service")?;
    let monitor = only(&all, "ServiceMonitor")?;
    let policy = only(&all, "NetworkPolicy")?;
    let within = |selector: &Value, labels: &Value| {
        let chosen = selector.as_object().into_iter().flatten();
        chosen.clone().count() > 0 && chosen.into_iter().all(|(key, value)| labels[key] == *value)
    };
    let namespace = only(&all, "Namespace")?;
    let checks = [
        (
            "the DaemonSet's selector",
            within(&set["spec"]["selector"]["matchLabels"], &pod["metadata"]["labels"]),
        ),
        ("the Service's selector", within(&service["spec"]["selector"], &pod["metadata"]["labels"])),
        (
            "the ServiceMonitor's selector",
            within(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]),
        ),
        (
            "the port of the ServiceMonitor",
            monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"],
        ),
        (
            "the port of the Service",
            service["spec"]["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"],
        ),
        ("the job's name", service["metadata"]["labels"]["app.kubernetes.io/name"] == "ringfence"),
        ("the job's label", monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"),
        (
            "the policy's pods",
            policy["spec"]["podSelector"] == json!({})
                || within(&policy["spec"]["podSelector"]["matchLabels"], &pod["metadata"]["labels"]),
        ),
        ("the policy's ways out", policy["spec"]["egress"] == json!([])),
        ("the policy's types", policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"])),
        ("the policy's ways in", policy["spec"]["ingress"].as_array().is_some_and(|all| all.len() == 1)),
        ("the tolerations", pod["spec"]["tolerations"] == json!([{"operator": "Exists"}])),
        ("one pod at most on a node", set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0),
        (
            "Pod Security's level",
            namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged",
        ),
    ];
    if let Some((what, _)) = checks.iter().find(|(_, holds)| !holds) {
        return Err(format!("{what} does not fit"));
    }
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    named(&all, "PriorityClass", &name(&pod["spec"]["priorityClassName"]))?;
    named(&all, "ServiceAccount", &name(&pod["spec"]["serviceAccountName"]))?;
    for object in &all {
        let is_global = ["Namespace", "PriorityClass"].iter().any(|kind| object["kind"] == *kind);
        if !is_global && object["metadata"]["namespace"] != namespace["metadata"]["name"] {
            return Err(format!("{} {} is in another namespace", object["kind"], object["metadata"]["name"]));
        }
    }
    for mount in &Pod::of(set)?.mounts {
        if let Source::ConfigMap { name, .. } = &mount.source {
            let files = files_of(named(&all, "ConfigMap", name)?);
            if let Some(file) = mount.sub_path.as_ref().filter(|file| !files.contains_key(*file)) {
                return Err(format!("the ConfigMap {name} has no {file}"));
            }
        }
    }
    Ok(())
}

/// The configuration and the rules in the ConfigMaps are such that the daemon starts with them.
fn have_a_configuration_that_loads(settings: &Settings, manifests: &Manifests) -> Result<(), String> {
    let mut checked = BTreeSet::new();
    for (name, _, text) in renderings(manifests)? {
        let all = objects(&text)?;
        let pod = Pod::of(only(&all, "DaemonSet")?)?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let at = |file: &str| directory.path().join(file).display().to_string();
        let mut contents = Vec::new();
        for mount in &pod.mounts {
            let Source::ConfigMap { name, .. } = &mount.source else { continue };
            let files = files_of(named(&all, "ConfigMap", name)?);
            for (file, text) in &files {
                fs::write(at(file), text).map_err(|error| error.to_string())?;
            }
            contents.push(files);
        }
        if contents.len() != 2 {
            return Err(format!("{name}: {} ConfigMaps are mounted, not two", contents.len()));
        }
        // Most renderings have the same.
        if !checked.insert((contents, pod.args.clone())) {
            continue;
        }
        let set: Vec<&String> = pod.args.iter().filter(|arg| arg.starts_with("--set=")).collect();
        let mut command = Command::new(&settings.ringfence);
        command.args(["check", "--no-color", "--config", &at("config.yaml")]).args(&set);
        let rules = [at("local.yaml"), settings.rules.display().to_string()];
        command.args(["--set", &format!("rules={}", json!(rules))]);
        let output = command.output().map_err(|error| format!("ringfence check: {error}"))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(format!("{name}: {}", String::from_utf8_lossy(&said)));
        }
    }
    Ok(())
}

fn have_the_alert_rules_and_the_dashboard(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let rules = read(&manifests.deploy().join("prometheus/ringfence.rules.yaml"))?;
    let component = read(&manifests.directory().join("components/monitoring/prometheusrule.yaml"))?;
    let indented: String = rules
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    let (_, spec) = component.split_once("\nspec:\n").ok_or("the PrometheusRule has no `spec:`")?;
    if spec != indented {
        return Err(
            "prometheusrule.yaml is not ringfence.rules.yaml, two columns to the right below `spec:`"
                .to_owned(),
        );
    }
    let all = objects(&manifests.render("overlays/monitoring")?)?;
    let plain = objects(&rules)?;
    if only(&all, "PrometheusRule")?["spec"]["groups"] != plain[0]["groups"] {
        return Err("the rendered rules are others".to_owned());
    }
    let dashboard: Value = serde_json::from_str(&read(&manifests.deploy().join("grafana/ringfence.json"))?)
        .map_err(|error| error.to_string())?;
    let is_dashboard = |object: &&Value| object["metadata"]["labels"]["grafana_dashboard"].is_string();
    let map = all.iter().find(is_dashboard).ok_or("no ConfigMap has the label grafana_dashboard")?;
    let files = files_of(map);
    match files.values().map(|text| serde_json::from_str::<Value>(text)).collect::<Vec<_>>().as_slice() {
        [Ok(found)] if *found == dashboard => Ok(()),
        _ => Err("the ConfigMap's dashboard is another".to_owned()),
    }
}

/// Components that replace a mount do, and those that add one add it.
fn mount_what_the_components_say(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    const CONTAINERD: &str = "/host/run/containerd/io.containerd.runtime.v2.task";
    for (component, there, gone) in [
        ("k3s", "/host/run/k3s/containerd/io.containerd.runtime.v2.task", Some(CONTAINERD)),
        ("crio", "/host/var/lib/containers/storage/overlay-containers", Some(CONTAINERD)),
        ("docker", "/host/var/lib/docker/containers", None),
        ("keep-state", "/var/lib/ringfence", None),
        ("kernel-7", "/sys/kernel/tracing", None),
        ("outputs", "/etc/ringfence/outputs", None),
        ("monitoring", CONTAINERD, None),
    ] {
        let all = objects(&manifests.render_with(&[component])?)?;
        let pod = Pod::of(only(&all, "DaemonSet")?)?;
        let has = |target: &str| pod.mounts.iter().any(|mount| mount.target == target);
        if !has(there) || gone.is_some_and(has) {
            let targets: Vec<&str> = pod.mounts.iter().map(|mount| mount.target.as_str()).collect();
            return Err(format!("{component}: {targets:?}"));
        }
    }
    Ok(())
}

/// The configuration is read at the start only, so another one must be another name; rules are read anew, so theirs stays.
fn replace_pods_when_the_configuration_changes(_: &Settings, manifests: &Manifests) -> Result<(), String> {
    let all = objects(&manifests.render("base")?)?;
    let maps: Vec<&str> = all
        .iter()
        .filter(|object| object["kind"] == "ConfigMap")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    let hashed = |name: &&&str| name.strip_prefix("ringfence-config-").is_some_and(|hash| hash.len() == 10);
    if maps.len() == 2 && maps.contains(&"ringfence-rules") && maps.iter().filter(hashed).count() == 1 {
        return Ok(());
    }
    Err(format!("the ConfigMaps are called {maps:?}"))
}
