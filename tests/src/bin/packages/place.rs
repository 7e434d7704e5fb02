//! What must hold wherever Ringfence came from.

use crate::root::Root;

/// The links by which systemd starts the units.
pub(crate) const LINKS: [&str; 2] = [
    "/etc/systemd/system/multi-user.target.wants/ringfence.service",
    "/etc/systemd/system/sockets.target.wants/ringfence.socket",
];

/// Where the BPF file system with the pins is mounted.
pub(crate) const PINS: &str = "/run/ringfence/bpf";

pub(crate) fn expect(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Whatever brought it: the user, its directories, the units, and a program that finds its rules.
pub(crate) fn is_in_place(root: &Root, unit: &str) -> Result<(), String> {
    let user = root.run(&["id", "--user", "ringfence"])?;
    let owner = |path: &str| root.run(&["stat", "--format", "%u %a", path]);
    let user = user.trim();
    expect(owner("/run/ringfence")?.trim() == format!("{user} 755"), "the control socket's directory")?;
    expect(owner("/var/log/ringfence")?.trim() == format!("{user} 2750"), "the directory of alert files")?;
    for link in LINKS {
        expect(root.has(link)?, format!("{link} is missing: not enabled"))?;
    }
    // Whether there are manual pages is for the package to see to.
    root.run(&["systemd-analyze", "verify", "--man=no", unit])?;
    // More than this, in tenths, and it fails.
    root.run(&["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", unit])?;
    // As the user that it runs as.
    let as_user = ["setpriv", "--reuid=ringfence", "--regid=ringfence", "--clear-groups"];
    let check = root.run(&[&as_user[..], &["ringfence", "check"]].concat())?;
    expect(check.contains("rules"), format!("ringfence check: {check}"))
}
