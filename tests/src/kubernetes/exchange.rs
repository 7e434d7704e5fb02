//! Capabilities that an engine has no name for: Docker Engine 20.10, which Debian 12 has, knows none later than 2014's, but
//! its runtime does.
//!
//! The container is given stand-ins, and a runtime of our own exchanges them in the bundle before it calls the real one.
//! What the container then has, a test reads from the kernel.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::docker::Engine;

/// The name of that runtime.
pub const RUNTIME: &str = "exchange";

/// The capability, and what stands for it, without the prefix. No pod of ours has the latter.
const STAND_INS: [(&str, &str); 2] = [("BPF", "WAKE_ALARM"), ("PERFMON", "BLOCK_SUSPEND")];

/// Writes the runtime.
///
/// # Errors
/// The kernel's.
pub fn write(path: &Path) -> io::Result<()> {
    let exchanges: String =
        STAND_INS.iter().map(|(cap, stand_in)| format!("s/CAP_{stand_in}\"/CAP_{cap}\"/g;")).collect();
    let script = format!(
        "#!/bin/sh\nbundle=; next=\nfor word; do\n  [ -n \"$next\" ] && bundle=$word\n  next=\n  \
         [ \"$word\" = --bundle ] && next=1\ndone\n\
         [ -n \"$bundle\" ] && sed -i '{exchanges}' \"$bundle/config.json\"\nexec runc \"$@\"\n"
    );
    fs::write(path, script)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Whether the engine needs stand-ins for what a container is to be given.
///
/// # Errors
/// The client's, for another reason than an unknown name.
pub fn is_needed(engine: &Engine) -> io::Result<bool> {
    let options: Vec<String> = STAND_INS.iter().map(|(cap, _)| format!("--cap-add={cap}")).collect();
    match engine.create(&options.iter().map(String::as_str).collect::<Vec<_>>(), &["/bin/true"]) {
        Ok(id) => engine.client(&["rm", &id]).map(|_| false),
        Err(error) if error.to_string().contains("unknown capability") => Ok(true),
        Err(error) => Err(error),
    }
}

/// What stands for a capability; itself, if nothing does.
pub fn stand_in(cap: &str) -> &str {
    STAND_INS.iter().find(|(own, _)| *own == cap).map_or(cap, |(_, stand_in)| stand_in)
}
