//! The record of a run of the matrix: one line of JSON per cell, from which the coverage document is made.
//!
//! Members: `kernel` (`uname -r`), `guest` (whether it is one of the suite's own), `mode` (trampoline or tracepoint), `cgroups` (v2, hybrid or v1), `behaviour`, `door`,
//! `abi` (x86_64, int80, elf32 or x32), `outcome` (allowed, failed, seccomp, capability, lsm or device-cgroup),
//! `result`, `reason` (unless `pass`) and `repeats` (how often the cell was made; 0 if it was not).
//!
//! Results: `pass`; `fail`; `impossible`: there is no such cell, or not on this machine; `blind`: the attempt was made
//! and is known not to be seen; `unwatched`: the door is known, and nothing watches it.

use serde_json::{Value, json};

use super::Cell;

/// What a line starts with where it shares an output with other lines, as on a guest's console.
pub const PREFIX: &str = "RINGFENCE-RECORD: ";

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Result {
    /// Made so often, and seen as it must be each time.
    Pass(u32),
    /// Not as it must be.
    Fail(String),
    /// There is no such cell.
    Impossible(String),
    /// Made, and not seen, as is known.
    Blind(String),
    /// Not watched.
    Unwatched(String),
}

/// Where a run took place.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// A guest of the suite's own.
    pub guest: bool,
    /// How the watched calls are hooked.
    pub mode: String,
    /// Which cgroup hierarchies are mounted.
    pub cgroups: &'static str,
}

impl Machine {
    /// The machine at hand, with Ringfence attached in this mode.
    pub fn here(mode: &str, guest: bool) -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            guest,
            mode: mode.to_owned(),
            cgroups: cgroups(&read("/proc/self/mountinfo")),
        }
    }

    /// The line of a cell, without its end.
    pub fn line(&self, cell: &Cell, result: &Result) -> Value {
        let (word, reason, repeats) = match result {
            Result::Pass(repeats) => ("pass", None, *repeats),
            Result::Fail(reason) => ("fail", Some(reason), 1),
            Result::Impossible(reason) => ("impossible", Some(reason), 0),
            Result::Blind(reason) => ("blind", Some(reason), 1),
            Result::Unwatched(reason) => ("unwatched", Some(reason), 0),
        };
        let mut line = json!({
            "kernel": self.kernel, "guest": self.guest, "mode": self.mode, "cgroups": self.cgroups,
            "behaviour": cell.door.behaviour.name(), "door": cell.door.name, "abi": cell.way.name(),
            "outcome": cell.outcome.name(), "result": word,
        });
        if let Some(reason) = reason {
            line["reason"] = json!(reason);
        }
        line["repeats"] = json!(repeats);
        line
    }
}

/// Which hierarchies a process's mounts show. A v1 hierarchy without controllers (`name=systemd`) counts.
fn cgroups(mountinfo: &str) -> &'static str {
    let mounted = |kind: &str| {
        mountinfo.lines().filter_map(|line| line.split_once(" - ")).any(|(_, right)| right.starts_with(kind))
    };
    match (mounted("cgroup2 "), mounted("cgroup ")) {
        (true, true) => "hybrid",
        (true, false) => "v2",
        (false, true) => "v1",
        (false, false) => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_member() {
        let machine = Machine { kernel: "6.1".into(), guest: true, mode: "trampoline".into(), cgroups: "v2" };
        let Some(cell) = super::super::cells().next() else { panic!("no cells") };
        let line = machine.line(&cell, &Result::Impossible("because".into())).to_string();
        assert_eq!(
            line,
            "{\"kernel\":\"6.1\",\"guest\":true,\"mode\":\"trampoline\",\"cgroups\":\"v2\",\"behaviour\":\"capabilities\",\
             \"door\":\"capset\",\"abi\":\"x86_64\",\"outcome\":\"allowed\",\"result\":\"impossible\",\
             \"reason\":\"because\",\"repeats\":0}"
        );
        assert_eq!(machine.line(&cell, &Result::Pass(7))["repeats"], 7);
    }

    #[test]
    fn hierarchies_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(cgroups(v2), "v2");
        assert_eq!(cgroups(v1), "v1");
        assert_eq!(cgroups(&format!("{v1}{v2}")), "hybrid");
    }
}
