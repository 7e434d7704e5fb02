//! What the documents say to whoever wants something of a pod, word for word. There is no cluster here: what `kubectl` would
//! have the kubelet do is done by the engine that runs the pod.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tests::book;
use tests::harness::{Daemon, Settings};

use super::runner_of;
use crate::docs::{said, text, unpacked};
use crate::docs_commands::{Scratch, await_name, one_by_one};

/// Stands in for `kubectl`: knows the two commands that are for a pod, and one namespace. It ends with 1 only if the command
/// in the pod does.
const KUBECTL: &str = r#"#!/bin/bash
words=() input=
while [ $# -gt 0 ]; do
    case $1 in
    -n) [ "$2" = ringfence ] || exit 64; shift ;;
    -i) input=--interactive ;;
    --) shift; break ;;
    *) words+=("$1") ;;
    esac
    shift
done
docker inspect "$POD" > /dev/null || exit 64
case ${words[0]} in
exec) exec docker exec $input "$POD" "$@" ;;
logs) cat "$POD_LOG" || exit 64; exit 0 ;;
esac
echo "kubectl ${words[*]}: not here" >&2
exit 64
"#;

/// As the documents call a container of which something is asked.
const CONTAINER: &str = "CONTAINER";

pub(super) fn answer_as_written(settings: &Settings) -> Result<(), String> {
    let mut daemon = Daemon::start(settings, &["--rules", &settings.rules.display().to_string()])?;
    let pod = daemon.placed().ok_or("it is no pod")?.name().to_owned();
    let engine = runner_of(settings)?.engine()?;
    let docker = |arguments: &[&str]| engine.client(arguments).map_err(text);
    let id = engine.create(&["--name", CONTAINER], &["/bin/sleep", "600"]).map_err(text)?;
    docker(&["start", &id])?;
    await_name(&id, CONTAINER, || docker(&["exec", &pod, "ringfence", "containers"]))?;
    let mut scratch = Scratch::new(settings)?;
    let kubectl = scratch.bin().join("kubectl");
    fs::write(&kubectl, KUBECTL).map_err(text)?;
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).map_err(text)?;
    let files = tempfile::tempdir().map_err(text)?;
    let log = files.path().join("log");
    fs::write(&log, daemon.log()).map_err(text)?;
    let mut printed = String::new();
    for block in book::blocks_of(&settings.repository()?, book::ASKS_A_POD)? {
        let mut bash = scratch.bash(&one_by_one(&block.commands))?;
        bash.envs(engine.environment()).env("POD", &pod).env("POD_LOG", &log);
        let output = bash.output().map_err(text)?;
        if !output.status.success() {
            return Err(format!("{}: {}\n{}", block.place, said(&output), block.commands));
        }
        printed.push_str(&said(&output));
        let left = bash.get_current_dir().unwrap_or(Path::new("")).join("support.tar.gz");
        if left.exists() {
            printed.push_str(&unpacked(&fs::read(left).map_err(text)?)?);
        }
    }
    // Of status, of containers, why it is too early for advice, and of the bundle: metrics, and the log that it was given.
    let short = &id[..12];
    for part in ["attached (tracepoint)", short, "--min-observation", "ringfence_build_info", "listening"] {
        if !printed.contains(part) {
            return Err(format!("nothing says `{part}`:\n{printed}"));
        }
    }
    docker(&["rm", "--force", &id])?;
    daemon.stop()?.check()
}
