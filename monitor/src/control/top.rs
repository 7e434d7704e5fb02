//! `top`: what containers try, what is refused to them, what of theirs was lost, and which rules fire for them.
//!
//! The counts are the path's own; losses are the kernel's. The owner of the tables copies both by container, the
//! texts are made by whoever asked.

use std::collections::{BTreeMap, HashMap, HashSet};

use monitor_common::ids::CgroupId;
use monitor_common::verdict::Verdict;
use serde::{Deserialize, Serialize};

use super::containers::{Row, Tables, collect};
use super::protocol::{ContainerInfo, Phase};
use crate::tally::{Tallies, Tally, outcome};

/// Containers in an answer.
const MOST: usize = 10_000;

/// What containers do. What is not known is `null` or missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopListing {
    /// For how long the daemon has watched, in milliseconds: rates are differences of two answers.
    pub up_ms: u64,
    /// `ready`, `degraded` and so on, as in the status.
    pub state: String,
    /// Bytes that the ring buffer has.
    pub ring_bytes: u64,
    /// Bytes of it that wait to be read.
    pub ring_used_bytes: Option<u64>,
    /// Records that the probes saw, put into the ring, and could not send.
    pub seen: u64,
    /// See `seen`.
    pub delivered: u64,
    /// See `seen`.
    pub lost: u64,
    /// The containers in no particular order; last the `host`, and what is `unknown` or had no room (`others`), if there
    /// was anything.
    pub containers: Vec<TopInfo>,
    /// How many more there are, for which the answer had no room.
    pub omitted: u64,
}

/// What one container does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopInfo {
    /// The whole id; `host`, `unknown` or `others` for what is no container.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// Who runs it.
    pub runtime: Option<String>,
    /// Its Kubernetes pod as `namespace/name`.
    pub pod: Option<String>,
    /// How far it is.
    pub phase: Option<Phase>,
    /// Processes that are in it.
    pub processes: u32,
    /// Events that the rules judged, whatever became of them.
    pub attempts: u64,
    /// Of these, refused by somebody whose job that is.
    pub refused: u64,
    /// Of these, failed by a plain error.
    pub failed: u64,
    /// Records that were lost, so that nobody judged them.
    pub lost: u64,
    /// Alerts.
    pub alerts: u64,
    /// How many rules fired.
    pub rules_firing: u64,
    /// The rule that fired most.
    pub top_rule: Option<String>,
    /// Events by type and outcome; only if one container was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallCount>,
    /// Alerts by rule; only if one container was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, u64>,
}

/// Events of one type and outcome.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallCount {
    /// The type, as `evt.type` has it.
    pub call: String,
    /// `allowed`, `failed`, or `refused by` and who.
    pub outcome: String,
    /// How many.
    pub count: u64,
}

/// What the owner of the tables gives.
#[derive(Debug, Default)]
pub struct TopParts {
    rows: Vec<(Row, Tally)>,
    /// The row of each cgroup of a container.
    by_cgroup: HashMap<CgroupId, usize>,
    /// Cgroups that are known to be no container's.
    host_cgroups: HashSet<CgroupId>,
    host: Tally,
    unknown: Tally,
    others: Tally,
}

/// Copies the counts by container. Takes two walks over the cgroups, one over the processes and one over the counts.
pub fn top(tables: Tables<'_>, tallies: &Tallies) -> TopParts {
    let (rows, by_cgroup) = collect(tables);
    let of_host = tables.cgroups.iter().filter(|(_, cgroup, _)| cgroup.container().is_none());
    let host_cgroups = of_host.map(|(id, ..)| id).collect();
    let mut rows: Vec<(Row, Tally)> = rows.into_iter().map(|row| (row, Tally::default())).collect();
    let mut unknown = tallies.unknown.clone();
    for (id, tally) in tallies.iter() {
        match by_cgroup.get(&id).and_then(|number| rows.get_mut(*number)) {
            Some((_, sum)) => sum.add(tally),
            None => unknown.add(tally),
        }
    }
    let (host, others) = (tallies.host.clone(), tallies.others.clone());
    TopParts { rows, by_cgroup, host_cgroups, host, unknown, others }
}

impl TopParts {
    /// What is said about them; with the details of the one that is wanted, and that alone. `lost` are the losses by
    /// cgroup; those of a cgroup that is not known, or not any more, are nobody's: whoever floods the ring and goes must
    /// not be taken for the host.
    pub(super) fn listing(self, wanted: Option<&str>, lost: &[(CgroupId, u64)]) -> TopListing {
        let mut losses = vec![0; self.rows.len()];
        let (mut of_host, mut of_unknown) = (0, 0);
        for (cgroup, count) in lost {
            let of_container = self.by_cgroup.get(cgroup).and_then(|number| losses.get_mut(*number));
            *match of_container {
                Some(sum) => sum,
                None if self.host_cgroups.contains(cgroup) => &mut of_host,
                None => &mut of_unknown,
            } += count;
        }
        let is_wanted = |id: &str| wanted.is_none_or(|wanted| wanted == id);
        let mut listing = TopListing::default();
        for ((row, tally), lost) in self.rows.iter().zip(losses) {
            if !is_wanted(row.id()) {
                continue;
            }
            if listing.containers.len() >= MOST {
                listing.omitted += 1;
                continue;
            }
            listing.containers.push(counted(named(row.info()), tally, lost, wanted.is_some()));
        }
        let rest =
            [("host", self.host, of_host), ("unknown", self.unknown, of_unknown), ("others", self.others, 0)];
        for (id, tally, lost) in rest.into_iter().filter(|(id, ..)| is_wanted(id)) {
            if id == "host" || tally != Tally::default() || lost > 0 {
                let info = TopInfo { id: id.to_owned(), ..TopInfo::default() };
                listing.containers.push(counted(info, &tally, lost, wanted.is_some()));
            }
        }
        listing
    }
}

fn named(info: ContainerInfo) -> TopInfo {
    let pod = info.pod.and_then(|pod| match (pod.namespace, pod.name) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (_, name) => name,
    });
    TopInfo {
        id: info.id,
        name: info.name,
        image: info.image,
        runtime: Some(info.runtime),
        pod,
        phase: Some(info.phase),
        processes: info.processes,
        ..TopInfo::default()
    }
}

fn counted(info: TopInfo, tally: &Tally, lost: u64, whole: bool) -> TopInfo {
    let most = tally.rules().max_by_key(|(rule, count)| (*count, std::cmp::Reverse(*rule)));
    let mut calls = Vec::new();
    let mut rules = BTreeMap::new();
    if whole {
        calls.extend(tally.calls().map(|(ty, verdict, count)| CallCount {
            call: ty.name().to_owned(),
            outcome: outcome(verdict).to_owned(),
            count,
        }));
        calls.sort();
        rules.extend(tally.rules().map(|(rule, count)| (rule.to_owned(), count)));
    }
    TopInfo {
        attempts: tally.events(|_| true),
        refused: tally.events(|verdict| matches!(verdict, Verdict::Refused(_))),
        failed: tally.events(|verdict| verdict == Verdict::Failed),
        lost,
        alerts: tally.alerts(),
        rules_firing: tally.rules().count() as u64,
        top_rule: most.map(|(rule, _)| rule.to_owned()),
        calls,
        rules,
        ..info
    }
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
