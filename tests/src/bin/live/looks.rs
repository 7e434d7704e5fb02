//! Ways to keep an attempt at a capability from being told: to let the kernel look for it first, in passing, so that the
//! attempt is not the first check; and to pass for the runtime, which comes from another cgroup.

use std::process::Command;

use monitor_common::caps::Cap;
use serde_json::Value;
use tests::cgroup::{self, Cgroup};
use tests::harness::alerts::Expectation;

use crate::capability_counts::await_told;
use crate::capability_place::{Given, PLAIN, Place, TYPES};
use crate::nine::{exactly, rule};

type Case = fn(&Place) -> Result<(), String>;

/// Cases among those that share the daemon under the shipped rules.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("nine::looks_raise_nothing", looks_alone),
    ("nine::attempts_after_looks_are_told", attempts_after_looks),
    ("nine::attempts_in_an_own_subgroup_are_told", own_subgroup),
];

/// What `attempt look` makes the kernel look for, and the attempts that take the same.
const LOOKED_FOR: [(Cap, &str); 3] =
    [(Cap::SysAdmin, "mount"), (Cap::SysPtrace, "attach"), (Cap::DacReadSearch, "open-handle")];

/// What the kernel would refuse reaches it.
const UNCONFINED: Given = Given { unconfined: true, ..PLAIN };

/// The container was denied what the looks were for: otherwise they are none.
fn denied_all(place: &Place, daemon: &tests::harness::Daemon, id: &str) -> Result<(), String> {
    let all = |said: &Value| {
        let told: Vec<&Value> = said["capabilities"].as_array().into_iter().flatten().collect();
        for (cap, _) in LOOKED_FOR {
            let row = told.iter().find(|row| row["capability"] == cap.name());
            let of = |kind: &str| row.and_then(|row| row[kind]["count"].as_u64()).unwrap_or(0);
            if of("refused") + of("silent_denied") == 0 {
                return Err(format!("no look for {}: {said:#}", cap.name()));
            }
        }
        Ok(())
    };
    await_told(place.suite.settings(), daemon, id, all).map(drop)
}

fn looks_alone(place: &Place) -> Result<(), String> {
    place.with(|daemon| {
        let ran = place.run(UNCONFINED, "/bin/sh -c '/attempt look && exec /attempt getpid'")?;
        denied_all(place, daemon, &ran.id)?;
        exactly(&place.alerts(daemon, &ran, TYPES)?, &[])
    })
}

fn attempts_after_looks(place: &Place) -> Result<(), String> {
    place.with(|daemon| {
        let needs = LOOKED_FOR.map(|(_, need)| need).join(" ");
        let ran =
            place.run(UNCONFINED, &format!("/bin/sh -c '/attempt look && exec /attempt need {needs}'"))?;
        let rules = LOOKED_FOR.map(|(cap, _)| rule(cap, "refused"));
        exactly(&place.alerts(daemon, &ran, TYPES)?, &rules)
    })
}

/// A program moves to a cgroup below its container's, and begins no other program there: as a runtime would.
fn own_subgroup(place: &Place) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    place.with(|daemon| {
        let id = cgroup::container_id("nine own subgroup");
        let cgroup = Cgroup::make(&format!("docker/{id}")).map_err(text)?;
        let below = Cgroup::make(&format!("docker/{id}/below")).map_err(text)?;
        let program = &place.suite.settings().attempt;
        let mut command = Command::new(program);
        command.args(["exec", "--bare", "--"]).arg(program);
        command.args(["need", "log-unread", "--cgroup"]).arg(below.path());
        cgroup.contain(&mut command);
        let output = command.output().map_err(text)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !said.contains("EPERM") {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("it was to be refused: {}: {said}{error}", output.status));
        }
        // The rule tells of no runtime.
        let told = Expectation::new()
            .is("rule_id", rule(Cap::Syslog, "refused"))
            .is("container.id", &id[..12])
            .is("cgroup.id", below.id().map_err(text)?);
        daemon.expect(&told).map(drop)
    })
}
