//! Numbers of capability checks: those that a program said it made, those in the kernel's map, and those that the daemon tells
//! of, held against each other.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use monitor_common::capability::{CapKey, cap_flag};
use monitor_common::caps::Cap;
use serde_json::Value;
use tests::cgroup::{self, Cgroup};
use tests::harness::{Daemon, PATIENCE, Settings};

use crate::capability::Told;

/// Capabilities that nothing else on a machine asks for while the suite runs.
pub(crate) const QUIET: [Cap; 3] = [Cap::NetBroadcast, Cap::IpcOwner, Cap::Lease];
/// Checks that were made in a cgroup for one capability.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) denied: bool,
    pub(crate) count: u64,
}

/// Numbers of checks by capability and by whether they were denied.
pub(crate) type Sides = BTreeMap<(u16, bool), u64>;

pub(crate) fn started(settings: &Settings, rules: &str) -> Result<Told, String> {
    let quiet = ["--canary-interval-ms", "off", "--metadata-wait-ms", "0", "--ring-bytes", "67108864"];
    Told::start_with(settings, rules, &quiet)
}

pub(crate) fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// A container's cgroup, as Docker names it.
pub(crate) fn container(seed: &str) -> Result<(String, Cgroup), String> {
    let id = cgroup::container_id(&format!("limits {seed}"));
    let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(text)?;
    Ok((id, cgroup))
}

/// Sends a program of a container on a tour.
pub(crate) fn begin(settings: &Settings, cgroup: &Cgroup, arguments: &[&str]) -> Result<Child, String> {
    let mut command = Command::new(&settings.attempt);
    command.arg("tour").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    cgroup.contain(&mut command);
    command.spawn().map_err(|error| format!("attempt: {error}"))
}

/// What it said.
pub(crate) fn end(child: Child) -> Result<Value, String> {
    let output = child.wait_with_output().map_err(|error| format!("attempt: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(&text).map_err(|fault| format!("{fault}: {text}{error}"))
}

pub(crate) fn tour(settings: &Settings, cgroup: &Cgroup, arguments: &[&str]) -> Result<Value, String> {
    end(begin(settings, cgroup, arguments)?)
}

/// Numbers that a program said.
pub(crate) fn sides(said: &Value) -> Result<Sides, String> {
    let mut sides = Sides::new();
    for (denied, side) in [(false, "allowed"), (true, "denied")] {
        for (name, count) in said[side].as_object().ok_or(format!("no {side}: {said}"))? {
            let cap =
                Cap::ALL.iter().find(|cap| cap.name() == name).ok_or(format!("no capability {name}"))?;
            sides.insert((*cap as u16, denied), count.as_u64().ok_or("no number")?);
        }
    }
    Ok(sides)
}

pub(crate) fn add(all: &mut Sides, more: &Sides, times: u64) {
    more.iter().for_each(|(key, count)| *all.entry(*key).or_default() += count * times);
}

/// A look for CAP_SYS_ADMIN in a call that is not about it: for memory, which is no part of a tour.
pub(crate) fn is_look(key: &CapKey) -> bool {
    key.cap == Cap::SysAdmin as u16 && key.flags & cap_flag::GROUP == 0
}

/// What stands in these cgroups' rows of their own programs' checks.
pub(crate) fn counted(rows: &[(CapKey, u64)], belongs: impl Fn(u64) -> bool) -> Result<Sides, String> {
    let mut sides = Sides::new();
    for (key, count) in rows.iter().filter(|(key, _)| belongs(key.cgroup_id) && !is_look(key)) {
        let CapKey { cap, flags, .. } = *key;
        if flags & cap_flag::VISITOR != 0 && cap == Cap::SysAdmin as u16 {
            // Before its exec: it makes its mount namespace.
            continue;
        }
        if flags & (cap_flag::VISITOR | cap_flag::CHILD_NS | cap_flag::SILENT) != 0 {
            return Err(format!("{count} checks for capability {cap} with flags {flags:#x}"));
        }
        *sides.entry((cap, flags & cap_flag::DENIED != 0)).or_default() += count;
    }
    Ok(sides)
}

/// Nothing is there that was not made, and no more is missing than the kernel `skipped` runs of probes, which is none as a
/// rule.
pub(crate) fn hold(what: &str, found: &Sides, made: &Sides, skipped: u64) -> Result<(), String> {
    let mut missing = 0;
    for key in made.keys().chain(found.keys().filter(|key| !made.contains_key(key))) {
        let of = |sides: &Sides| sides.get(key).copied().unwrap_or(0);
        let wrong = format!("{what}: capability and denied {key:?}: {} instead of {}", of(found), of(made));
        missing += of(made).checked_sub(of(found)).ok_or(wrong.clone())?;
        if missing > skipped {
            return Err(format!("{wrong}; {skipped} runs of probes were skipped"));
        }
    }
    Ok(())
}

/// The daemon's numbers for the whole machine.
pub(crate) struct Numbers {
    pub(crate) counted: Sides,
    pub(crate) uncounted: Sides,
    pub(crate) skipped: u64,
}

impl Numbers {
    /// As of now: to ask makes the daemon look.
    pub(crate) fn of(settings: &Settings, told: &Told) -> Result<Numbers, String> {
        ask(settings, &told.daemon, &["-o", "json"])?.0?;
        let metrics = told.daemon.metrics()?;
        let all = |name: &str| {
            let mut sides = Sides::new();
            for cap in Cap::ALL {
                for (denied, result) in [(false, "allowed"), (true, "denied")] {
                    let value = metrics.sum(name, &[("capability", cap.name()), ("result", result)]);
                    sides.insert((*cap as u16, denied), value.ok_or(format!("no series {name}"))? as u64);
                }
            }
            Ok::<Sides, String>(sides)
        };
        Ok(Numbers {
            counted: all("ringfence_capability_checks_total")?,
            uncounted: all("ringfence_capability_checks_uncounted_total")?,
            skipped: told.daemon.skipped()?,
        })
    }

    pub(crate) fn since(&self, before: &Numbers) -> Numbers {
        let less = |now: &Sides, then: &Sides| {
            now.iter().map(|(key, count)| (*key, count - then.get(key).copied().unwrap_or(0))).collect()
        };
        Numbers {
            counted: less(&self.counted, &before.counted),
            uncounted: less(&self.uncounted, &before.uncounted),
            skipped: self.skipped - before.skipped,
        }
    }
}

/// Of the capabilities that only we ask for.
pub(crate) fn quiet(sides: &Sides) -> Sides {
    let is_quiet = |cap: u16| QUIET.iter().any(|quiet| *quiet as u16 == cap);
    sides
        .iter()
        .filter(|((cap, _), count)| is_quiet(*cap) && **count > 0)
        .map(|(key, count)| (*key, *count))
        .collect()
}

/// What `ringfence caps` printed, or why not; and its exit status.
pub(crate) type Answer = (Result<String, String>, Option<i32>);

/// Asks `ringfence caps`, again if the daemon says that it is busy.
pub(crate) fn ask(settings: &Settings, daemon: &Daemon, arguments: &[&str]) -> Result<Answer, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new(&settings.ringfence);
        command.arg("caps").arg("--socket").arg(daemon.control_socket()).args(arguments);
        let output = command.output().map_err(|error| format!("ringfence caps: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) };
        let busy = said.as_ref().is_err_and(|why| why.contains("busy"));
        if !busy || Instant::now() > end {
            return Ok((said, output.status.code()));
        }
    }
}

/// Waits until what is said of a container holds: the pipeline may have much to read before it knows of it.
pub(crate) fn await_told(
    settings: &Settings,
    daemon: &Daemon,
    id: &str,
    holds: impl Fn(&Value) -> Result<(), String>,
) -> Result<Value, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let judged = ask(settings, daemon, &[id, "-o", "json"])?.0.and_then(|text| {
            let said: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            holds(&said).map(|()| said)
        });
        match judged {
            Ok(said) => return Ok(said),
            Err(fault) if Instant::now() > end => return Err(fault),
            // The daemon takes its time between two looks.
            Err(_) => {}
        }
    }
}

/// What is said of a container's own checks.
pub(crate) fn said_of(said: &Value) -> Sides {
    let mut sides = Sides::new();
    for told in said["capabilities"].as_array().into_iter().flatten() {
        let Some(cap) = Cap::ALL.iter().find(|cap| told["capability"] == cap.name()) else { continue };
        for (denied, kind) in [(false, "used"), (true, "refused")] {
            if let Some(count) = told[kind]["count"].as_u64() {
                sides.insert((*cap as u16, denied), count);
            }
        }
    }
    // Of this one a kernel that does not tell looks apart counts those, too.
    sides.retain(|(cap, _), _| *cap != Cap::SysAdmin as u16);
    sides
}

/// Holds what is said of a container, and in no other kind of row, against what was made in it.
pub(crate) fn await_said(
    settings: &Settings,
    told: &Told,
    id: &str,
    made: &Sides,
    skipped: u64,
) -> Result<Value, String> {
    let made: Sides =
        made.iter().filter(|((cap, _), _)| *cap != Cap::SysAdmin as u16).map(|(k, v)| (*k, *v)).collect();
    await_told(settings, &told.daemon, id, |said| hold("caps", &said_of(said), &made, skipped))
}

/// The cgroups that a tour made in a container, by id, with what was asked in each; they go with it.
pub(crate) struct Below<'c> {
    pub(crate) cgroups: HashMap<u64, Asked>,
    container: &'c Cgroup,
    count: u64,
}

impl Below<'_> {
    /// Goes on a tour of so many cgroups; gives also what the program said.
    pub(crate) fn tour<'c>(
        settings: &Settings,
        container: &'c Cgroup,
        count: u64,
        only: &[&str],
    ) -> Result<(Below<'c>, Value), String> {
        // From here on, whatever fails leaves nothing behind.
        let mut below = Below { cgroups: HashMap::new(), container, count };
        let (path, number) = (container.path().display().to_string(), count.to_string());
        let said = tour(settings, container, &[&["--below", &path, "--count", &number][..], only].concat())?;
        for number in 0..count {
            let directory = fs::metadata(below.path(number)).map_err(text)?;
            let asked = Asked { denied: number >= count / 2, count: 1 + number % 3 };
            below.cgroups.insert(directory.ino(), asked);
        }
        Ok((below, said))
    }

    fn path(&self, number: u64) -> std::path::PathBuf {
        self.container.path().join(format!("t{number}"))
    }
}

impl Drop for Below<'_> {
    fn drop(&mut self) {
        for number in 0..self.count {
            // What stays shows as a cgroup that cannot be removed.
            let _ = fs::remove_dir(self.path(number));
        }
    }
}
