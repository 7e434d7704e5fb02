//! Every race: which events come of it, what they show, and what must have happened.

use monitor_common::caps::Cap;

use super::{BOTH, NEW_USER, NEW_UTS, Race, others, privilege};

/// Every race.
pub const RACES: &[Race] = &[
    Race {
        name: "capset-pid",
        condition: "evt.type = capset",
        output: CAPSET,
        outcomes: &["0 allowed", "-1 refused other"],
        lies: lies_about_capabilities,
        guest_only: false,
        makes_processes: false,
        run: |count, facts| {
            privilege::capset(count, facts, &[Cap::Chown.mask(), Cap::Kill.mask(), BOTH], true)
        },
    },
    Race {
        name: "capset-data",
        condition: "evt.type = capset",
        output: CAPSET,
        outcomes: &["0 allowed", "-1 refused capability"],
        lies: lies_about_capabilities,
        guest_only: false,
        makes_processes: false,
        run: |count, facts| {
            privilege::capset(
                count,
                facts,
                &[Cap::Chown.mask(), Cap::Chown.mask() | Cap::SysTime.mask(), BOTH],
                false,
            )
        },
    },
    Race {
        name: "settimeofday",
        condition: "evt.type = settimeofday",
        output: "%evt.rawres %evt.verdict %evt.refused_by denied=%cap.denied claimed=%evt.args_claimed#%evt.args",
        outcomes: &["-22 failed", "-1 refused capability"],
        lies: |fact, claim| fact.starts_with("-22") != claim.contains("nsec=2000000000000"),
        guest_only: false,
        makes_processes: false,
        run: others::settimeofday,
    },
    Race {
        name: "clock_settime",
        condition: "evt.type = clock_settime",
        output: "%evt.rawres %evt.verdict %evt.refused_by used=%cap.used claimed=%evt.args_claimed#%evt.args",
        outcomes: &["0 allowed", "-22 failed"],
        lies: |fact, claim| fact.starts_with("-22") != claim.contains("nsec=2000000000"),
        guest_only: true,
        makes_processes: false,
        run: others::clock_settime,
    },
    Race {
        name: "setns",
        condition: "evt.type in (setns, unshare)",
        output: "%evt.type %evt.rawres %evt.verdict before=%ns.before[uts] after=%ns.after[uts] changed=%ns.changed#",
        outcomes: &["setns 0 allowed", "setns -22 failed", "changed=uts", "changed=<NA>", "unshare 0"],
        // Nothing is read from memory: the descriptor itself is what changes.
        lies: |_, _| true,
        guest_only: false,
        makes_processes: false,
        run: privilege::setns,
    },
    Race {
        name: "open",
        condition: "evt.type in (openat, openat2, open_by_handle_at)",
        output: "%evt.type %evt.rawres device=%device.name by=%device.by claimed=%evt.args_claimed#%evt.args",
        outcomes: &["openat ", "openat2 ", "open_by_handle_at "],
        lies: |_, claim| claim.contains("/node-a"),
        guest_only: false,
        makes_processes: false,
        run: others::open,
    },
    Race {
        name: "clone3",
        condition: "evt.type = clone3",
        output: CLONE3,
        outcomes: &["changed=uts ", "changed=user ", "changed=user uts "],
        lies: lies_about_namespaces,
        guest_only: false,
        makes_processes: true,
        run: |count, facts| {
            privilege::clone3(count, facts, &[0, NEW_UTS, NEW_USER, NEW_UTS | NEW_USER], false)
        },
    },
    Race {
        name: "clone3-nocap",
        condition: "evt.type = clone3",
        output: CLONE3,
        outcomes: &["-1 refused capability"],
        lies: lies_about_namespaces,
        guest_only: false,
        makes_processes: true,
        run: |count, facts| privilege::clone3(count, facts, &[0, NEW_UTS], true),
    },
];

const CAPSET: &str = "%evt.rawres %evt.verdict %evt.refused_by before=%cap.before after=%cap.after claimed=%evt.args_claimed#%evt.args";
const CLONE3: &str = "%evt.rawres %evt.verdict %evt.refused_by uts=%ns.after[uts] user=%ns.after[user] \
                      changed=%ns.changed claimed=%evt.args_claimed#%evt.args";

/// True if the effective set that stood in memory is not the one that the kernel put in force.
fn lies_about_capabilities(fact: &str, claim: &str) -> bool {
    let after =
        fact.split("after=").nth(1).and_then(|rest| rest.split(" claimed").next()).unwrap_or_default();
    fact.starts_with("0 ") && !claim.contains(&format!("effective={}", after.replace(' ', "|")))
}

/// True if the flags that stood in memory are not those of the child, or of no child.
fn lies_about_namespaces(fact: &str, claim: &str) -> bool {
    let changed = fact.split("changed=").nth(1).unwrap_or_default();
    let differs = |kind: &str, flag: &str| changed.contains(kind) != claim.contains(flag);
    if fact.starts_with("-1") {
        !claim.contains("CLONE_NEWUTS")
    } else {
        differs("uts", "CLONE_NEWUTS") || differs("user", "CLONE_NEWUSER")
    }
}
