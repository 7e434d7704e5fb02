//! One harmless attempt of each kind, from a cgroup that looks like a Docker container's.

use std::io;
use std::process::Command;

use super::{Attempt, Way, all, errno_name, run};
use crate::cgroup::{Cgroup, DEMO_ID};

/// The attempts of the demonstration: the refused, the failed and the allowed, one row for each call.
const SHOWN: &[&str] = &[
    "capset-gain",
    "setns-uts",
    "unshare-user",
    "clone-uts",
    "clone3-uts",
    "settimeofday-nocap",
    "clock_settime-nocap",
    "stime-nocap",
    "adjtimex-freq-nocap",
    "clock_adjtime-nocap",
    "syslog-read",
    "iopl-3",
    "ioperm-on",
    "open-kmsg",
    "creat-kmsg",
    "openat-kmsg",
    "openat2-kmsg",
    "open_by_handle_at-node",
];

/// Makes them, with a readable line for each, and removes the cgroup.
///
/// # Errors
/// If the cgroup cannot be made (not root, no cgroups) or a child fails.
pub fn demo() -> io::Result<()> {
    let cgroup = Cgroup::make(&format!("docker/{DEMO_ID}"))?;
    println!("Ringfence's demonstration: one harmless attempt of each kind, from the cgroup");
    println!("  {}", cgroup.path().display());
    println!("which has the form of a Docker container's, so that the rules for containers fire.\n");
    let mut child = Command::new(std::env::current_exe()?);
    child.arg("demo").arg("--inside");
    cgroup.contain(&mut child);
    let status = child.status()?;
    cgroup.remove()?;
    if !status.success() {
        return Err(io::Error::other(format!("the program inside the cgroup ended with {status}")));
    }
    println!(
        "\nThe cgroup is removed again. Each line above is at least one event; the rules decide on alerts."
    );
    Ok(())
}

/// Makes the attempts where the process is: the part of the demonstration that runs in the cgroup.
///
/// # Errors
/// If a child of an attempt fails.
pub fn inside() -> io::Result<()> {
    for attempt in all().filter(|attempt| SHOWN.contains(&attempt.name)) {
        let way = if Way::X86_64.takes(attempt) { Way::X86_64 } else { Way::Int80 };
        show(attempt, way)?;
    }
    Ok(())
}

fn show(attempt: &Attempt, way: Way) -> io::Result<()> {
    let outcome = run(attempt, way, 1)?;
    let answer = match outcome.ret {
        0.. => "allowed".to_owned(),
        error => errno_name(-error as i32).to_owned(),
    };
    println!("  {:<17} {:<7} {:<8} {}", attempt.call.name(), way.abi().name(), answer, attempt.what);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demonstration_shows_every_call_once_and_never_touches_the_clock() {
        for call in monitor_common::call::Call::ALL {
            let of_call: Vec<&str> =
                all().filter(|a| a.call == *call && SHOWN.contains(&a.name)).map(|a| a.name).collect();
            assert_eq!(of_call.len(), 1, "{}: {of_call:?}", call.name());
        }
        assert!(all().all(|attempt| !attempt.guest_only || !SHOWN.contains(&attempt.name)));
        assert!(SHOWN.iter().all(|name| super::super::by_name(name).is_some()));
    }
}
