//! The matrix: behaviour, door, way into the kernel, outcome. What must be seen, cell by cell.
//!
//! A [`Door`] is a system call, a file or an everyday program that leads to a behaviour. Each door has an entry for
//! every outcome: an attempt or a program and the shipped rule that must fire, or the reason why there is no such
//! cell. [`cells`] unfolds the doors into one row per cell. The live suite makes a trial of each row that can be made,
//! from a cgroup that is named as a container's.

mod capabilities;
mod clock;
mod create;
mod enter;
mod kernel_log;
mod raw_io;
pub mod record;

use monitor_common::call::Call;

use crate::attempt::Way;

/// What a container must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Change capabilities.
    Capabilities,
    /// Enter a namespace that exists.
    EnterNamespace,
    /// Make a namespace.
    CreateNamespace,
    /// Set the clock.
    Clock,
    /// Read or clear the kernel's log.
    KernelLog,
    /// Reach I/O ports, memory or the processor's registers.
    RawIo,
}

impl Behaviour {
    /// The word in names of trials and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Behaviour::Capabilities => "capabilities",
            Behaviour::EnterNamespace => "enter-namespace",
            Behaviour::CreateNamespace => "create-namespace",
            Behaviour::Clock => "clock",
            Behaviour::KernelLog => "kernel-log",
            Behaviour::RawIo => "raw-io",
        }
    }
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The kernel does it.
    Allowed,
    /// A plain error.
    Failed,
    /// Refused by a seccomp filter.
    Seccomp,
    /// Refused for want of a capability.
    Capability,
    /// Refused by a security module.
    Lsm,
    /// Refused by the cgroup's device controller.
    DeviceCgroup,
}

impl Outcome {
    /// Every outcome, in the order of [`Door::entries`].
    pub const ALL: [Outcome; 6] = [
        Outcome::Allowed,
        Outcome::Failed,
        Outcome::Seccomp,
        Outcome::Capability,
        Outcome::Lsm,
        Outcome::DeviceCgroup,
    ];

    /// The word in names of trials and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Failed => "failed",
            Outcome::Seccomp => "seccomp",
            Outcome::Capability => "capability",
            Outcome::Lsm => "lsm",
            Outcome::DeviceCgroup => "device-cgroup",
        }
    }

    /// `evt.verdict` and `evt.refused_by`.
    pub const fn verdict(self) -> (&'static str, Option<&'static str>) {
        match self {
            Outcome::Allowed => ("allowed", None),
            Outcome::Failed => ("failed", None),
            _ => ("refused", Some(self.name())),
        }
    }
}

/// A door's entry for one outcome.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// The attempt of this name is made, and the rule of this name must fire.
    Attempt(&'static str, &'static str),
    /// This command is run, and the rule must fire.
    Program(&'static [&'static str], &'static str),
    /// The attempt of this name is made and nothing is seen: a gap that is known, with its reason.
    Blind(&'static str, &'static str),
    /// The attempt of this name touches no wall, so there is no such cell and no event may come, with the reason.
    Silent(&'static str, &'static str),
    /// There is no such cell, with the reason.
    Never(&'static str),
    /// The door is known and not watched, with the reason.
    Unwatched(&'static str),
}

/// An error by which a kernel says that it was built without what a door leads to, and what that is.
pub type Lacks = (i32, &'static str);

/// A way to a behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// Where it leads.
    pub behaviour: Behaviour,
    /// Its name in names of trials and in records.
    pub name: &'static str,
    /// The call that is seen.
    pub call: Call,
    /// The ways into the kernel by which it is reached.
    pub ways: &'static [Way],
    /// Why not by the others.
    pub no_other_way: &'static str,
    /// For each of [`Outcome::ALL`].
    pub entries: [Entry; 6],
    /// Whether attempts are cheap enough for [`REPEATS`].
    pub cheap: bool,
    /// What a kernel may lack.
    pub lacks: Option<Lacks>,
    /// Allowed attempts change the machine: made in guests only.
    pub changes_machine: bool,
}

/// How often a cheap cell is repeated natively.
pub const REPEATS: u32 = 1000;
/// The same in a guest: software emulation is some thirty times slower, and eight guests share two cores.
pub const GUEST_REPEATS: u32 = 10;
/// Attempts that make a process or copy every mount, in a guest: each takes some milliseconds there.
pub const GUEST_REPEATS_HEAVY: u32 = 5;

/// One row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The door.
    pub door: &'static Door,
    /// The way into the kernel.
    pub way: Way,
    /// What must become of it.
    pub outcome: Outcome,
    /// What is done for it.
    pub entry: Entry,
}

impl Cell {
    /// Its name as a trial.
    pub fn name(&self) -> String {
        let Cell { door, way, outcome, .. } = self;
        format!("matrix::{}::{}::{}::{}", door.behaviour.name(), door.name, way.name(), outcome.name())
    }

    /// How often it is made, natively or in a guest.
    pub fn repeats(&self, guest: bool) -> u32 {
        let forks = matches!(self.door.call, Call::Clone | Call::Clone3);
        match self.entry {
            Entry::Attempt(..) if !self.door.cheap => 1,
            Entry::Attempt(..) if !guest => REPEATS,
            Entry::Attempt(..) if forks => GUEST_REPEATS_HEAVY,
            Entry::Attempt(..) => GUEST_REPEATS,
            _ => 1,
        }
    }
}

/// Every door.
pub fn doors() -> impl Iterator<Item = &'static Door> {
    [capabilities::DOORS, enter::DOORS, create::DOORS, clock::DOORS, kernel_log::DOORS, raw_io::DOORS]
        .into_iter()
        .flatten()
}

/// Every cell, those that cannot exist included.
pub fn cells() -> impl Iterator<Item = Cell> {
    doors().flat_map(|door| {
        Way::ALL.iter().flat_map(move |way| {
            Outcome::ALL.iter().zip(door.entries).map(move |(outcome, entry)| {
                let entry = if door.ways.contains(way) { entry } else { Entry::Never(door.no_other_way) };
                Cell { door, way: *way, outcome: *outcome, entry }
            })
        })
    })
}

/// Ways of calls that both tables have.
const EVERY_WAY: &[Way] = Way::ALL;
/// Ways of calls that the 32-bit table alone has.
const WAYS_OF_32: &[Way] = &[Way::Int80, Way::Elf32];
const ONLY_32: &str = "the call is in the 32-bit table alone";
/// Everyday programs are those of the machine.
const WAYS_OF_PROGRAMS: &[Way] = &[Way::X86_64];
const PROGRAM: &str =
    "the program is the machine's own, a 64-bit one; the other ways are those of the call that it makes";
const NO_DEVICE: &str = "no device is opened, so no device controller is asked";
/// The errors that the kernel gives to the program's fixed, valid arguments are refusals.
const WELL_FORMED: &str = "the program passes nothing that the kernel finds wrong in itself";

const MOUNTS: &str = "not made: the attempt binds the name itself, for which it needs the capability. The open is judged by the device's number, as that by a plain name is";
const NOT_PATHS: &str = "not made: a filter refuses the call before its path means anything, so the claimed path is all that is known, and a name of the caller's own may be gone when it is looked up";

const fn door(behaviour: Behaviour, name: &'static str, call: Call) -> Door {
    Door {
        behaviour,
        name,
        call,
        ways: EVERY_WAY,
        no_other_way: "",
        entries: [Entry::Never(""); 6],
        cheap: true,
        lacks: None,
        changes_machine: false,
    }
}

const fn program(behaviour: Behaviour, name: &'static str, call: Call) -> Door {
    Door { ways: WAYS_OF_PROGRAMS, no_other_way: PROGRAM, cheap: false, ..door(behaviour, name, call) }
}

/// A door that is known and not watched, with the reason.
const fn unwatched(behaviour: Behaviour, name: &'static str, nearest: Call, reason: &'static str) -> Door {
    let door = door(behaviour, name, nearest);
    Door { entries: [Entry::Unwatched(reason); 6], cheap: false, ..door }
}

impl Door {
    /// Entries in the order of [`Outcome::ALL`].
    const fn entries(self, entries: [Entry; 6]) -> Door {
        Door { entries, ..self }
    }

    const fn only_32(self) -> Door {
        Door { ways: WAYS_OF_32, no_other_way: ONLY_32, ..self }
    }

    const fn costly(self) -> Door {
        Door { cheap: false, ..self }
    }

    const fn lacks(self, errno: i32, what: &'static str) -> Door {
        Door { lacks: Some((errno, what)), ..self }
    }

    const fn changes_machine(self) -> Door {
        Door { changes_machine: true, ..self }
    }
}

/// Attempts of a door whose refusals all raise the same rule: names for allowed, failed and refused for want of a
/// capability; the rules for allowed and for the rest.
const fn refusable(
    [allowed, failed, nocap]: [&'static str; 3],
    [done, refused]: [&'static str; 2],
    device: Entry,
) -> [Entry; 6] {
    [
        Entry::Attempt(allowed, done),
        Entry::Attempt(failed, refused),
        Entry::Attempt(allowed, refused),
        Entry::Attempt(nocap, refused),
        Entry::Attempt(allowed, refused),
        device,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::attempt;

    #[test]
    fn each_combination_is_one_row() {
        let mut seen = HashSet::new();
        for cell in cells() {
            assert!(seen.insert(cell.name()), "{} comes twice", cell.name());
        }
        assert_eq!(seen.len(), doors().count() * Way::ALL.len() * Outcome::ALL.len());
        let made = cells().filter(|cell| matches!(cell.entry, Entry::Attempt(..) | Entry::Program(..)));
        assert!(made.count() >= 700, "the matrix has shrunk");
    }

    #[test]
    fn what_is_made_exists_and_what_is_not_says_why() {
        for cell in cells() {
            match cell.entry {
                Entry::Attempt(name, rule) => {
                    let attempt = attempt::by_name(name).unwrap_or_else(|| panic!("{}: {name}", cell.name()));
                    assert!(cell.way.takes(attempt) && attempt.call == cell.door.call, "{}", cell.name());
                    assert!(!rule.is_empty(), "{}", cell.name());
                }
                Entry::Blind(name, reason) | Entry::Silent(name, reason) => {
                    assert!(attempt::by_name(name).is_some() && reason.len() > 20, "{}", cell.name());
                }
                Entry::Program(command, rule) => {
                    assert!(command.len() > 1 && !rule.is_empty(), "{}", cell.name());
                }
                Entry::Never(reason) | Entry::Unwatched(reason) => {
                    assert!(reason.len() > 20, "{}: why not?", cell.name());
                }
            }
        }
    }

    /// Guests do not record them, and another machine's own kernel is no column: nothing else would notice a change.
    #[test]
    fn the_committed_document_says_why_cells_are_not_made() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coverage.json");
        let text = std::fs::read_to_string(path).expect("docs/coverage.json");
        let committed: serde_json::Value = serde_json::from_str(&text).expect("docs/coverage.json");
        let mut reasons = std::collections::HashMap::new();
        for row in committed["rows"].as_array().expect("rows") {
            let key =
                ["behaviour", "door", "abi", "outcome"].map(|key| row[key].as_str().unwrap_or_default());
            let results = row["results"].as_object().expect("results").values();
            let said: Vec<String> =
                results.filter_map(|result| result["reason"].as_str().map(str::to_owned)).collect();
            reasons.insert(key.join("/"), said);
        }
        assert_eq!(
            reasons.len(),
            cells().count(),
            "cells came or went: run the suite and `cargo xtask coverage`"
        );
        for cell in cells() {
            let key =
                [cell.door.behaviour.name(), cell.door.name, cell.way.name(), cell.outcome.name()].join("/");
            let said = reasons.get(&key).unwrap_or_else(|| panic!("{key} is not in the record"));
            if let Entry::Never(reason) | Entry::Unwatched(reason) = cell.entry {
                assert!(said.iter().any(|said| said == reason), "{key}: {reason}");
            }
        }
    }

    #[test]
    fn what_changes_the_machine_is_marked() {
        for cell in cells() {
            if let Entry::Attempt(name, _) = cell.entry
                && let Some(attempt) = attempt::by_name(name)
            {
                assert!(!attempt.guest_only || cell.door.changes_machine, "{}", cell.name());
            }
        }
    }

    #[test]
    fn every_watched_call_and_behaviour_has_a_door() {
        for call in Call::ALL {
            assert!(doors().any(|door| door.call == *call), "{}", call.name());
        }
    }
}
