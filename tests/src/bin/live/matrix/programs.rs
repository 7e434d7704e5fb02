//! Everyday programs: run as anybody would, in the same settings as attempts.

use std::time::Duration;

use tests::harness::alerts::{Expectation, Must};
use tests::matrix::Cell;
use tests::matrix::record;

use super::visit::{self, Setting};
use super::{check_rules, show};
use crate::judge;
use crate::places::Suite;

/// Runs a command in its setting and judges the events of its call.
pub(super) fn judge(
    suite: &Suite,
    cell: &Cell,
    setting: Setting,
    command: &[&str],
    rule: &str,
) -> Result<record::Result, String> {
    let guest = suite.settings().guest;
    if cell.door.changes_machine && !guest && !matches!(setting, Setting::Bare | Setting::Filtered) {
        let reason =
            "natively this could change the machine: it is run in guests, and here without the capability";
        return Ok(record::Result::Impossible(reason.to_owned()));
    }
    let daemon = suite.daemon()?;
    let mut arguments = vec!["exec"];
    arguments.extend(setting.options(true));
    arguments.push("--");
    arguments.extend(command);
    let ran = daemon.undisturbed(|| {
        let ran = visit::run(suite.settings(), setting, command.first().unwrap_or(&""), &arguments)?;
        visit::settle(suite.settings(), daemon).map(|()| ran)
    })?;
    let name = command.first().copied().unwrap_or_default();
    let own = Expectation::new()
        .is("cgroup.id", ran.cgroup_id)
        .is("proc.name", name)
        .must("rule", judge::suite_rule_names());
    let events = daemon.inbox().fitting(&own.clone().is("evt.type", cell.door.call.name()));
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    if events.is_empty() {
        let all = daemon.inbox().fitting(&own);
        return Err(format!(
            "no event of {}; {}; {said}{}",
            cell.door.call.name(),
            ran.output.status,
            show(&all)
        ));
    }
    let (verdict, by) = cell.outcome.verdict();
    let wanted = own
        .is("evt.type", cell.door.call.name())
        .is("evt.abi", cell.way.abi().name())
        .is("proc.vpid", ran.pid)
        .is("evt.verdict", verdict)
        .is("container.full_id", &ran.id)
        .is("container.runtime", "docker")
        .must("evt.refused_by", by.map_or(Must::BeAbsent, |by| Must::Be(by.to_owned())));
    // A program may knock more than once, but never with another outcome.
    for event in &events {
        if !wanted.fits(event) {
            return Err(format!("{said}{}", wanted.explain(std::slice::from_ref(event))));
        }
        check_rules(daemon, event, rule)?;
    }
    daemon.inbox().expect(&wanted, Duration::ZERO).map(|_| record::Result::Pass(1))
}
