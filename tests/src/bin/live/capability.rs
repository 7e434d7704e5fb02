//! The ledger of capability checks and the events of credentials that grow, against known scripts: of checks by number,
//! and of each door.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Trial;
use monitor_common::capability::{CAP_LEDGER_ENTRIES, CapKey, cap_flag};
use monitor_common::caps::Cap;
use tests::attempt::grow::{self, CHECKS};
use tests::bpf_objects::FdInfo;
use tests::cgroup::Cgroup;
use tests::harness::alerts::{Expectation, Must};
use tests::harness::{Daemon, Settings};
use tests::tamper::Map;

use crate::shared::{self, Case, Life};

/// Every event about capabilities that is no call.
const RULES: &str = "\
- rule: Check
  id: suite-check
  desc: The first check of its kind.
  condition: evt.type = capability
  output: >
    %cap.name %cap.call %cap.user_ns %cap.audited %cap.used %cap.denied %evt.verdict %evt.phase %evt.refused_by
    %cgroup.id %proc.vpid
  priority: NOTICE
- rule: Gain
  id: suite-gain
  desc: Credentials grew.
  condition: evt.type in (gained, gained_unseen)
  output: >
    %evt.type %cap.door %cap.user_ns %cap.gained %cap.gained_permitted %cap.before %cap.after %cap.permitted
    %cap.inheritable %cap.bounding %cap.ambient %cap.ambient_before %cap.permitted_before %proc.vpid %proc.pid
    %cgroup.id %evt.phase
  priority: WARNING
";

/// A daemon under these rules, which all cases share.
const SHARED: Life<Told> =
    Life { start: Told::start, last: "capability::the_end", end: |_, told| told.daemon.stop()?.check() };

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    let all: [(&str, Case<Told>); 4] = [
        ("capability::rows", rows),
        ("capability::first_checks", first_checks),
        ("capability::doors", doors),
        ("capability::unseen", unseen),
    ];
    shared::trials(settings, SHARED, &all)
}

/// A daemon whose maps are looked into.
pub(crate) struct Told {
    pub(crate) daemon: Daemon,
    _rules: tempfile::TempDir,
}

impl Told {
    fn start(settings: &Settings) -> Result<Told, String> {
        Told::start_with(settings, RULES, &[])
    }

    /// One under these rules, with these further arguments.
    pub(crate) fn start_with(settings: &Settings, text: &str, arguments: &[&str]) -> Result<Told, String> {
        let rules = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::write(rules.path().join("capability.yaml"), text).map_err(|error| error.to_string())?;
        let path = rules.path().display().to_string();
        let daemon = Daemon::start(settings, &[&["--rules", path.as_str()][..], arguments].concat())?;
        Ok(Told { daemon, _rules: rules })
    }

    fn map(&self, kind: &str, entries: u32) -> Result<Map, String> {
        let all = FdInfo::all(self.daemon.pid()).map_err(|error| error.to_string())?;
        let fits = |info: &&FdInfo| {
            info.get("map_type") == Some(kind) && info.number("max_entries") == Some(entries)
        };
        let info = all.iter().find(fits).ok_or(format!("the daemon has no map of type {kind}, {entries}"))?;
        Map::open(info).map_err(|error| error.to_string())
    }

    /// The kernel's map of rows.
    pub(crate) fn ledger(&self) -> Result<Map, String> {
        self.map("1", CAP_LEDGER_ENTRIES)
    }

    /// Every row: its key and its count.
    pub(crate) fn every_row(&self) -> Result<Vec<(CapKey, u64)>, String> {
        let map = self.ledger()?;
        let mut rows = Vec::new();
        // The daemon may take rows away meanwhile: then the kernel lists from the beginning again.
        let keys: HashSet<Vec<u8>> = map.keys().map_err(|error| error.to_string())?.into_iter().collect();
        for key in keys {
            let value = match map.read(&key) {
                Ok(value) => value,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(error.to_string()),
            };
            let [cgroup_id, rest, ..] = words(&key);
            let (cap, flags) = (rest as u16, (rest >> 16) as u16);
            let [count, first, last, _] = words(&value);
            if first == 0 || first > last {
                return Err(format!("row {cap} {flags:#x}: first {first}, last {last}"));
            }
            rows.push((CapKey { cgroup_id, cap, flags, pad: 0 }, count));
        }
        Ok(rows)
    }

    /// Counts of a cgroup's rows, by capability and flags; without those that are certain to be silent.
    fn rows(&self, cgroup: u64) -> Result<BTreeMap<(u16, u16), u64>, String> {
        let mut rows = BTreeMap::new();
        let own = |(key, _): &(CapKey, u64)| key.cgroup_id == cgroup && key.flags & cap_flag::SILENT == 0;
        for (key, count) in self.every_row()?.into_iter().filter(own) {
            let flags = key.flags & !(cap_flag::MAYBE_SILENT | cap_flag::GROUP);
            *rows.entry((key.cap, flags)).or_default() += count;
        }
        Ok(rows)
    }
}

fn words(bytes: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

const _: () = assert!(size_of::<CapKey>() == 16);

/// Makes the known checks in a cgroup of its own.
fn make_checks(settings: &Settings, cgroup: &Cgroup) -> Result<(), String> {
    let mut command = Command::new(&settings.attempt);
    command.arg("checks");
    cgroup.enter(&mut command);
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the checks: {status}")) }
}

fn rows(settings: &Settings, told: &Told) -> Result<(), String> {
    let cgroup = Cgroup::make(&format!("ringfence-caps-{}", std::process::id()));
    let cgroup = cgroup.map_err(|error| error.to_string())?;
    let id = cgroup.id().map_err(|error| error.to_string())?;
    for round in 1..=2 {
        make_checks(settings, &cgroup)?;
        let rows = told.rows(id)?;
        let expected = [
            (Cap::SysBoot, 0, CHECKS),
            (Cap::SysBoot, cap_flag::DENIED, CHECKS),
            (Cap::SysChroot, 0, CHECKS),
            (Cap::SysChroot, cap_flag::DENIED, CHECKS),
            (Cap::SysAdmin, cap_flag::CHILD_NS, CHECKS + 1),
        ];
        for (cap, flags, count) in expected {
            let found = rows.get(&(cap as u16, flags)).copied().unwrap_or(0);
            if found != round * count {
                return Err(format!(
                    "{} {flags:#x}: {found} instead of {}: {rows:?}",
                    cap.name(),
                    round * count
                ));
            }
        }
        // What the child asked for before its exec was a visitor's.
        if rows.keys().any(|(cap, flags)| flags & cap_flag::VISITOR != 0 && *cap == Cap::SysBoot as u16) {
            return Err(format!("the program passed for a visitor: {rows:?}"));
        }
    }
    Ok(())
}

/// Each row makes one event.
fn first_checks(settings: &Settings, told: &Told) -> Result<(), String> {
    let cgroup = Cgroup::make(&format!("ringfence-caps-{}", std::process::id()));
    let cgroup = cgroup.map_err(|error| error.to_string())?;
    let id = cgroup.id().map_err(|error| error.to_string())?;
    make_checks(settings, &cgroup)?;
    make_checks(settings, &cgroup)?;
    let of = |cap: &str| Expectation::new().is("rule", "Check").is("cgroup.id", id).is("cap.name", cap);
    for (cap, call) in [("CAP_SYS_BOOT", "reboot"), ("CAP_SYS_CHROOT", "chroot")] {
        let of = || of(cap).is("cap.call", call).is("cap.user_ns", "initial");
        told.daemon.expect(&of().is("evt.verdict", "allowed").is("cap.used", cap))?;
        told.daemon.expect(
            &of().is("evt.verdict", "refused").is("cap.denied", cap).is("evt.refused_by", "capability"),
        )?;
    }
    told.daemon.expect(&of("CAP_SYS_ADMIN").is("cap.user_ns", "child").is("cap.call", "unshare"))?;
    for (cap, count) in [("CAP_SYS_BOOT", 2), ("CAP_SYS_CHROOT", 2)] {
        let found = told.daemon.inbox().count(&of(cap));
        if found != count {
            return Err(format!("{found} events of first checks of {cap} instead of {count}"));
        }
    }
    Ok(())
}

fn doors(settings: &Settings, told: &Told) -> Result<(), String> {
    let mut runs = Vec::new();
    for door in grow::doors() {
        runs.push((door, "x86_64", false));
        if door != "exec" {
            runs.push((door, "i386", false));
        }
        if door.starts_with("set") && door != "setns" {
            runs.push((door, "i386", true));
        }
    }
    for (door, abi, old) in runs {
        let mut command = Command::new(&settings.attempt);
        command.args(["grow", door, "--abi", abi]).args(old.then_some("--old"));
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let pid = child.id();
        let status = tests::harness::wait(&mut child)?;
        if !status.success() {
            return Err(format!("{door} by {abi}: {status}"));
        }
        let wanted = Expectation::new().is("rule", "Gain").is("evt.type", "gained").is("cap.door", door);
        let wanted = match door {
            // The child's child.
            "exec" => wanted.is("proc.ppid", pid),
            "clone" => wanted,
            _ => wanted.is("proc.pid", pid),
        };
        let wanted = match door {
            "unshare" | "setns" | "clone" => wanted.is("cap.user_ns", "child"),
            "prctl" => wanted.is("cap.ambient", "CAP_CHOWN").must("cap.ambient_before", Must::BeAbsent),
            "exec" => wanted
                .must("cap.gained_permitted", Must::BeLike(vec!["CAP_CHOWN *".to_owned()]))
                .must("cap.permitted_before", Must::BeAbsent),
            _ => wanted.must("cap.gained", Must::BeLike(vec!["CAP_CHOWN *".to_owned()])),
        };
        told.daemon.expect(&wanted).map_err(|error| format!("{door} by {abi}, old: {old}: {error}"))?;
        told.daemon.inbox().forget(&Expectation::new().is("cap.door", door));
    }
    none_unseen(told)
}

/// Whatever the machine did meanwhile, nothing grew by no door.
fn none_unseen(told: &Told) -> Result<(), String> {
    let unseen = told.daemon.inbox().fitting(&Expectation::new().is("evt.type", "gained_unseen"));
    match unseen.first() {
        None => Ok(()),
        Some(alert) => Err(format!("a gain by no door, where there was none: {}", alert.json)),
    }
}

/// Bound of the programs' table of tasks, and its type (`BPF_MAP_TYPE_LRU_HASH`).
const TASKS: (&str, u32) = ("9", 65_536);
/// Where the five sets stand in a value of it.
const SETS: std::ops::Range<usize> = 32..72;

/// The programs are made to believe that a process had no capability, as if it had got them from an exploit since.
fn unseen(_: &Settings, told: &Told) -> Result<(), String> {
    let tasks = told.map(TASKS.0, TASKS.1)?;
    let (mut orders, order) = io::pipe().map_err(|error| error.to_string())?;
    // SAFETY: the child makes system calls only, on memory that it has; it ends without running anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(order);
        let _ = orders.read(&mut [0]);
        // SAFETY: asks how much of the kernel's log is unread (`SYSLOG_ACTION_SIZE_UNREAD`), for which the kernel checks a
        // capability. Then the child ends at once.
        unsafe {
            libc::klogctl(9, std::ptr::null_mut(), 0);
            libc::_exit(0)
        }
    }
    let believe = || {
        let key = child.to_ne_bytes();
        let mut value = tasks.read(&key).map_err(|error| format!("the task is not known: {error}"))?;
        value.get_mut(SETS).ok_or("the value is too short")?.fill(0);
        tasks.set(&key, &value).map_err(|error| error.to_string())
    };
    let believed = believe();
    drop(order);
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    believed?;
    let wanted = Expectation::new()
        .is("rule", "Gain")
        .is("evt.type", "gained_unseen")
        .is("proc.pid", child)
        .must("cap.permitted_before", Must::BeAbsent)
        .must("cap.gained_permitted", Must::BeLike(vec!["CAP_CHOWN *".to_owned()]));
    told.daemon.expect(&wanted).map(drop)
}
